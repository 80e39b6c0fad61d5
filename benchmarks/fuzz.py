"""Fuzzing of the readers: coverage-guided for our own parsers, damaged files for the readers that stand on libraries.

    python benchmarks/fuzz.py own fmi|rpbin|names [--inputs 1000000]        (needs atheris, Python 3.11 or 3.12)
    python benchmarks/fuzz.py damaged [--files 10000] [--to records/fuzz.json]

Anything but frames or a SourceError in one line is a find, and so are twenty seconds without an answer, or more memory
for one file than a bound: its peak is set back before each file, and the address space is limited beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

DATA = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data"))
MEMORY = 512  # MiB that a file may take beyond what the process had; a frame takes a few
SPACE = 8 * 2**30  # bytes of address space, for a machine that goes on when a find is made
SECONDS = 20  # that a reader may take over one damaged file


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["own", "damaged"])
    parser.add_argument("parser", nargs="?", choices=["fmi", "rpbin", "names"])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--only")
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    if asked.kind == "own":
        _own(asked.parser, asked.inputs)
    else:
        _damaged(asked.files, asked.only, asked.to)


def _own(parser: str, inputs: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["fastrain"]):
        from fastrain.core import time as times
        from fastrain.core.errors import FastrainError
        from fastrain.sources import fmi, read_frames, rpbin, sites
    _ = fmi, rpbin
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    path = folder / "202509020142_CASFT.bin"

    def file(data: bytes) -> None:
        path.write_bytes(data)
        try:
            for frame in read_frames(path, parser):
                assert frame.level.shape == frame.grid.shape
        except FastrainError as error:
            assert "\n" not in str(error), error

    def names(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        sites.code_in_name(text)
        for call in (times.time_in_name, times.parse_time, lambda t: times.time_in_name("20240102_0304", t)):
            try:
                found = call(text)
            except FastrainError:
                continue
            assert found.tzinfo is not None

    corpus = folder / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(_seeds(parser)):
        (corpus / str(i)).write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-runs={inputs}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"],
        names if parser == "names" else file,
    )
    atheris.Fuzz()


def _seeds(parser: str) -> list[bytes]:
    if parser == "names":
        return [b"202509020142_CASFT_CAPPI.gif", b"2024-07-01T12:00Z", b"%Y%m%d%H%M", b"XFT_2012_06_03_17_00.GIF"]
    if parser == "rpbin":
        import gzip
        import struct

        head = b"RAIN PREDICTOR BIN FILE\nVERSION 4\nMAXVAL 14\nTOTALRAIN 3\n"
        picture = struct.pack(">7H", 0xA1B2, 1, 4, 3, 0, 0, 1) + bytes(24)
        prepared = struct.pack(">5H", 0xA1B3, 1, 4, 2, 2) + bytes(4)
        return [head + gzip.compress(picture + prepared, 0), head, head + gzip.compress(picture, 9)]
    lines = "obstime 201609281445\n# centrallongitude 25\n# centrallatitude 90\n# truelatitude 60"
    corners = "\n# bottomleft 18.6 57.9\n# topright 34.9 69.0\n8 6\n255\n"
    return [f"P5\n# {lines}{corners}".encode() + bytes(48), b"P5\n# obstime 1\n2 2\n255\n1234"]


def _damaged(files: int, only: str | None, to: Path | None) -> None:
    from fastrain.core.errors import SourceError
    from fastrain.sources import read_frames

    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    signal.signal(signal.SIGALRM, _overdue)
    record: dict[str, object] = json.loads(to.read_text()) if to and to.exists() else {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for format, seed in _small_files(Path(folder)).items():
            if only and format != only:
                continue
            whole = seed.read_bytes()
            draw = np.random.default_rng(7)
            seen: Counter[str] = Counter()
            began, longest, largest = time.monotonic(), 0.0, 0
            damaged = Path(folder) / "damaged" / seed.name
            damaged.parent.mkdir(exist_ok=True)
            for _ in range(files):
                damaged.write_bytes(_hurt(whole, draw))
                before = _peak_mib(anew=True)
                started = time.monotonic()
                signal.alarm(SECONDS)
                try:
                    frames = 0
                    for frame in read_frames(damaged, format):
                        assert frame.level.shape == frame.grid.shape
                        frames += 1
                    seen["read" if frames else "no frame"] += 1
                except SourceError as error:
                    assert "\n" not in str(error), error
                    seen["refused"] += 1
                finally:
                    signal.alarm(0)
                longest = max(longest, time.monotonic() - started)
                taken = _peak_mib() - before
                assert taken <= MEMORY, f"{taken} MiB for one file: {damaged.read_bytes()!r}"
                largest = max(largest, taken)
            record[format] = {
                "files": files,
                **seen,
                "longest_seconds": round(longest, 2),
                "most_mib_for_a_file": largest,
                "seconds": round(time.monotonic() - began),
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
            }
            print(format, record[format], flush=True)
            if to:
                to.write_text(json.dumps(record, indent=2) + "\n")


def _overdue(*_: object) -> None:
    raise AssertionError(f"no answer within {SECONDS} s")


def _peak_mib(*, anew: bool = False) -> int:
    """Return the most that this process and those it started (eccodes has one) have held.

    That is since the last call with `anew`, which sets it back to what they hold. Source: proc(5), clear_refs and VmHWM
    of Linux.
    """
    peak = 0
    for process in ("self", *Path("/proc/self/task", str(os.getpid()), "children").read_text().split()):
        with contextlib.suppress(OSError, IndexError):  # one that is just ending
            if anew:
                Path("/proc", process, "clear_refs").write_text("5")
            peak += int(Path("/proc", process, "status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    return peak


def _hurt(whole: bytes, draw: np.random.Generator) -> bytes:
    """Return a file truncated, or with bytes changed, repeated, dropped, or made huge numbers of; heads most often."""
    hurt = bytearray(whole)
    kind = draw.integers(6)
    if kind == 0:
        return bytes(hurt[: draw.integers(len(hurt))])
    # Half of all damage falls on the first kilobytes, where sizes and types are said.
    reach = len(hurt) if draw.integers(2) else min(len(hurt), 8192)
    for _ in range(int(draw.integers(1, 12))):
        at = int(draw.integers(reach))
        if kind == 1:
            hurt[at] = draw.integers(256)
        elif kind == 2:
            hurt[at] ^= 1 << int(draw.integers(8))
        elif kind == 3:
            hurt[at : at + 4] = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff")[int(draw.integers(3))]
        elif kind == 4:
            other = int(draw.integers(len(hurt)))
            hurt[at : at + 16] = hurt[other : other + 16]
        else:
            del hurt[at : at + int(draw.integers(1, 8))]
    return bytes(hurt)


def _small_files(folder: Path) -> dict[str, Path]:
    """Return a small true file of each format that a library decodes."""
    import shutil

    import h5py

    radar = DATA / "radar"
    made: dict[str, Path] = {}
    knmi = folder / "RAD_NL25_RAP_5min_201008260000.h5"
    from fastrain.sample import unpack_knmi

    unpack_knmi(folder / "knmi")
    shutil.copyfile(sorted((folder / "knmi").iterdir())[30], knmi)
    made["knmi"] = knmi
    gif = next(iter(sorted((radar / "eccc_2025-09-02" / "cappi").glob("*CASFT*"))))
    made["eccc"] = folder / gif.name
    shutil.copyfile(gif, made["eccc"])
    mch = sorted((radar / "mch_2016-07-11").iterdir())[0]
    made["mch"] = folder / mch.name
    shutil.copyfile(mch, made["mch"])
    bom = sorted((radar / "bom_2020-10-31").iterdir())[30]
    made["bom"] = folder / bom.name
    shutil.copyfile(bom, made["bom"])
    odim = folder / "T_PAAH21_C_EUOC_20180824180000.hdf"
    with h5py.File(sorted((radar / "opera_2018-08-24").iterdir())[0]) as file, h5py.File(odim, "w") as small:
        small.attrs["Conventions"] = file.attrs["Conventions"]
        for name in ("what", "where", "dataset1/what"):
            group = small.create_group(name)
            for key, value in file[name].attrs.items():
                group.attrs[key] = value
        part = file["dataset1/data1/data"][1000:1064, 900:980]
        small.create_dataset("dataset1/data1/data", data=part, compression="gzip")
        where = small["where"].attrs
        from pyproj import Proj

        project = Proj(where["projdef"].decode())
        west, north = project(float(where["UL_lon"]), float(where["UL_lat"]))
        where["xsize"], where["ysize"] = 80, 64
        where["LR_lon"], where["LR_lat"] = project(west + 160_000, north - 128_000, inverse=True)
    made["odim"] = odim
    cf = folder / "cf.nc"
    with h5py.File(radar / "openmrg_2015-08-27.nc") as file, h5py.File(cf, "w") as small:
        for key in ("Conventions", "proj_string"):
            if key in file.attrs:
                small.attrs[key] = file.attrs[key]
        for name in ("time", "y", "x"):
            values = file[name][:3] if name == "time" else file[name][:]
            small.create_dataset(name, data=values).make_scale(name)
            for key in ("standard_name", "units", "calendar"):
                if key in file[name].attrs:
                    small[name].attrs[key] = file[name].attrs[key]
        data = small.create_dataset("data", data=file["data"][:3], compression="gzip")
        for i, name in enumerate(("time", "y", "x")):
            data.dims[i].attach_scale(small[name])
        for key in ("_FillValue", "zr_a", "zr_b", "add_offset", "scale_factor"):
            data.attrs[key] = file["data"].attrs[key]
    made["cf"] = cf
    grib = _small_grib(radar, folder)
    if grib:
        made["mrms"] = grib
    return made


def _small_grib(radar: Path, folder: Path) -> Path | None:
    """Return an MRMS message cut to some pixels, made by eccodes in a process of its own."""
    import subprocess

    source, target = sorted((radar / "mrms_2019-06-10").iterdir())[0], folder / "PrecipRate_20190610-000000.grib2"
    script = (
        "import sys, os, eccodes as e, numpy as np\n"
        "h = e.codes_new_from_message(open(sys.argv[1], 'rb').read())\n"
        "v = e.codes_get_values(h).reshape(3500, 7000)[1000:1060, 3000:3080]\n"
        "e.codes_set(h, 'Ni', 80); e.codes_set(h, 'Nj', 60)\n"
        "e.codes_set(h, 'latitudeOfLastGridPointInDegrees', 54.995 - 0.59)\n"
        "e.codes_set(h, 'longitudeOfLastGridPointInDegrees', 230.005 + 0.79)\n"
        "e.codes_set(h, 'packingType', 'grid_simple'); e.codes_set(h, 'bitsPerValue', 16)\n"
        "e.codes_set_values(h, v.ravel())\n"
        "open(sys.argv[2], 'wb').write(e.codes_get_message(h)); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(source), str(target)], check=False)
    return target if done.returncode == 0 and target.exists() else None


if __name__ == "__main__":
    main()
