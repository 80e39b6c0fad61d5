"""The contract that every reader keeps, on real input and on hostile input."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastrain.core.errors import DamagedFile, SourceError, UnknownFormat
from fastrain.core.levels import NOT_OBSERVED, wet_from
from fastrain.sources import READERS, ReadOptions, hdf5, read_frames, recognise
from fastrain.sources.palette import load_palette, palette_of

# One real file a reader: where it lies, a place, and the pixel in which that place must land, worked out by hand.
# FMI, the radar of Vantaa: rho = (1 + sin 60°) · 6371.288 km · tan((90° − 60.271°) / 2) = 3155.6 km; row (3155.6 −
# 2170.1) / 0.99963 = 985; x = −rho · sin 0.127° = −7.0 km; column (380.9 − 7.0) / 0.99967 = 374.
# MeteoSwiss, the radar on the Albis: Swiss coordinates 681.201, 237.604 km; columns from 255 km, rows down from 480 km.
# OPERA: 1.1 km north and 1.3 km east of the projection's origin, 1950 km and 2100 km from the corner; pixels of 2 km.
# BoM: 0.24 km south and 0.25 km east of the projection's origin, in the middle of 512 pixels of 0.5 km.
# MRMS: 54.995 N, 129.995 W is pixel 0, 0; hundredths of a degree.
ECCC = "radar/eccc_2025-09-02/cappi/202509020142_CASFT_CAPPI_1.5_RAIN.gif"
REAL = {
    "eccc": (ECCC, (45.041, -76.116), (240, 240)),
    "picture": (ECCC, (45.041, -76.116), (240, 240)),
    "fmi": (
        "radar/fmi_2016-09-28/201609281445_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz",
        (60.271, 24.873),
        (985, 374),
    ),
    "knmi": ("radar/knmi_2010-08-26/RAD_NL25_RAP_5min_201008260000.h5", (52.103, 5.179), (427, 369)),
    "rpbin": ("rpbin/franktown_202508292100.bin", (45.041, -76.116), (240, 240)),
    "mch": ("radar/mch_2016-07-11/AQC161932100V_00005.801.gif", (47.284, 8.512), (242, 426)),
    "odim": ("radar/opera_2018-08-24/T_PAAH21_C_EUOC_20180824180000.hdf", (55.01, 10.02), (1049, 975)),
    "bom": ("radar/bom_2020-10-31/66_20201031_060000.prcp-c10.nc", (-27.72, 153.2425), (256, 256)),
    "cf": ("radar/openmrg_2015-08-27.nc", None, (10, 20)),
    "mrms": ("radar/mrms_2019-06-10/PrecipRate_00.00_20190610-000000.grib2", (40.005, -100.005), (1499, 2999)),
}
TRIALS = {"mrms": 2, "cf": 4, "odim": 12}  # of damage, for readers of slow files; benchmarks/fuzz.py does ten thousand
UNTOLD = ("picture",)  # formats that nothing in the file tells


def options_of(name: str) -> ReadOptions:
    if name != "picture":
        return ReadOptions()
    data = {k: v for k, v in load_palette("eccc").data.items() if k not in ("credit", "format")}
    data["radar"] = {"centre": [240, 240], "pixel_km": 1.0, "position": [45.041, -76.116]}
    return ReadOptions(palette=palette_of(data, "mine.toml"))


@pytest.fixture(params=sorted(REAL))
def real(request, data):
    path, place, pixel = REAL[request.param]
    if place is None:  # the file holds its own latitudes and longitudes, which the reader does not look at
        import h5py

        with h5py.File(data / path) as file:
            place = float(file["lat"][pixel]), float(file["lon"][pixel])
    return request.param, data / path, place, pixel


def frame_of(name: str, path: Path):
    return next(iter(read_frames(path, name, options_of(name))))


def test_every_reader_has_a_real_file():
    assert set(REAL) == set(READERS) - {"synthetic"}  # of which there is nothing real


def test_a_real_file_is_recognised_by_what_it_holds(real, tmp_path):
    name, path, _, _ = real
    disguised = tmp_path / "file.xyz"
    shutil.copyfile(path, disguised)
    assert recognise(disguised) == name or name in UNTOLD


def test_a_frame_has_utc_time_levels_within_its_table_and_a_grid_of_its_shape(real):
    name, path, _, _ = real
    frame = frame_of(name, path)
    assert frame.valid_time.utcoffset().total_seconds() == 0
    assert frame.level.dtype == np.uint8
    assert frame.level.shape == frame.grid.shape
    assert frame.level[frame.level != NOT_OBSERVED].max() <= frame.table.count
    assert wet_from(frame.level, frame.table.first_level(frame.table.nearest_edge(0.1))).any()


def test_a_known_place_lands_in_its_pixel(real):
    name, path, place, pixel = real
    assert frame_of(name, path).grid.pixel(*place) == pixel


def test_north_is_up(real):
    name, path, _, _ = real
    grid = frame_of(name, path).grid
    rows, columns = grid.shape
    assert grid.place(0, columns // 2)[0] > grid.place(rows - 1, columns // 2)[0]
    assert grid.place(rows // 2, 0)[1] < grid.place(rows // 2, columns - 1)[1]


def test_the_same_file_twice_gives_the_same_frame(real):
    name, path, _, _ = real
    assert frame_of(name, path).digest == frame_of(name, path).digest


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_reported_in_one_line_that_names_it(real, tmp_path, share):
    name, path, _, _ = real
    raw = path.read_bytes()
    cut = tmp_path / path.name
    cut.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(SourceError) as caught:
        list(read_frames(cut, name, options_of(name)))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_gone_wrong_never_crash_a_reader(real, tmp_path):
    name, path, _, _ = real
    raw = bytearray(path.read_bytes())
    draw = np.random.default_rng(1)
    damaged = tmp_path / path.name
    for _ in range(TRIALS.get(name, 40)):
        hurt = bytearray(raw)
        for at in draw.integers(0, len(raw), draw.integers(1, 20)):
            hurt[at] = draw.integers(256)
        damaged.write_bytes(hurt)
        try:
            frames = list(read_frames(damaged, name, options_of(name)))
        except SourceError as error:
            assert "\n" not in str(error)
        else:
            assert all(frame.level.shape == frame.grid.shape for frame in frames)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"hello", b"<html>404</html>", b"PK\x03\x04", b"GIF89"])
def test_what_is_no_radar_file_is_recognised_by_nobody(tmp_path, content):
    path = tmp_path / "202509020142_CASFT.gif"
    path.write_bytes(content)
    with pytest.raises((UnknownFormat, DamagedFile), match=r"202509020142_CASFT\.gif"):
        recognise(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "201609281445.pgm.gz"
    head = b"P5\n# obstime 201609281445\n100 100\n255\n"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(head + b"\x00" * 300_000_000)
    with pytest.raises(DamagedFile, match="more than 10000 bytes of picture"):
        list(read_frames(path, "fmi"))


def test_a_header_that_claims_a_huge_picture_is_refused(tmp_path):
    path = tmp_path / "201609281445.pgm"
    path.write_bytes(b"P5\n# obstime 201609281445\n999999 999999\n255\n" + b"\x00" * 100)
    with pytest.raises(DamagedFile, match="999999×999999"):
        list(read_frames(path, "fmi"))


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    with pytest.raises(UnknownFormat, match="eccc, fmi, knmi, mch, mrms, odim"):
        list(read_frames(path, "nosuch", ReadOptions()))


@pytest.mark.parametrize("change", ["projection", "missing", "group"])
def test_a_knmi_file_that_claims_the_impossible_is_said_to_be_damaged(knmi, tmp_path, change):
    import h5py

    path = tmp_path / "RAD_NL25_RAP_5min_201008260000.h5"
    shutil.copy(sorted(knmi.iterdir())[0], path)
    with h5py.File(path, "r+") as file:
        if change == "projection":
            file["geographic/map_projection"].attrs["projection_proj4_params"] = "+proj=foo"
        elif change == "missing":
            file["image1/calibration"].attrs["calibration_missing_data"] = 70000
        else:
            del file["image1/image_data"]
            file.create_group("image1/image_data")
    with pytest.raises(DamagedFile, match="RAD_NL25") as caught:
        list(read_frames(path, "knmi"))
    assert "\n" not in str(caught.value)


def test_an_fmi_header_of_no_projection_is_said_to_be_damaged(tmp_path):
    path = tmp_path / "201609281445.pgm"
    lines = "obstime 201609281445\n# centrallongitude 25\n# centrallatitude 90\n# truelatitude nan"
    corners = "\n# bottomleft 18.6 57.9\n# topright 34.9 69.0\n10 10\n255\n"
    path.write_bytes(f"P5\n# {lines}{corners}".encode() + bytes(100))
    with pytest.raises(DamagedFile, match="201609281445"):
        list(read_frames(path, "fmi"))


def grib(path: Path, quantity: tuple[int, int, int], value: float, forecast: int = 0) -> Path:
    """A small GRIB2 message, made by eccodes in a process of its own."""
    import subprocess
    import sys

    script = (
        "import sys, os, eccodes as e, numpy as np\n"
        "h = e.codes_grib_new_from_samples('regular_ll_sfc_grib2')\n"
        "d, c, n, v, f = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])\n"
        "for k, x in {'discipline': d, 'parameterCategory': c, 'parameterNumber': n, 'Ni': 8, 'Nj': 6,\n"
        "             'forecastTime': f, 'dataDate': 20240701, 'dataTime': 1200}.items(): e.codes_set(h, k, x)\n"
        "for k, x in {'latitudeOfFirstGridPointInDegrees': 50.0, 'latitudeOfLastGridPointInDegrees': 49.5,\n"
        "             'longitudeOfFirstGridPointInDegrees': 5.0, 'longitudeOfLastGridPointInDegrees': 5.7,\n"
        "             'iDirectionIncrementInDegrees': 0.1,\n"
        "             'jDirectionIncrementInDegrees': 0.1}.items(): e.codes_set(h, k, x)\n"
        "values = np.zeros(48); values[9] = v; values[0] = -3 if d == 209 else 0\n"
        "e.codes_set_values(h, values)\n"
        "open(sys.argv[1], 'wb').write(e.codes_get_message(h)); os._exit(0)"
    )
    arguments = [str(path), *map(str, quantity), str(value), str(forecast)]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)
    return path


def test_grib_of_something_else_than_a_rain_rate_is_refused_and_wmo_rates_are_converted(tmp_path):
    pytest.importorskip("eccodes", reason="the extra grib is not installed")
    (frame,) = read_frames(grib(tmp_path / "rate.grib2", (209, 6, 1), 7.2), "mrms")
    assert frame.table.decode(frame.level)[1, 1] == pytest.approx(7.2, rel=0.06)
    assert frame.level[0, 0] == NOT_OBSERVED
    assert frame.grid.pixel(49.9, 5.1) == (1, 1)
    (frame,) = read_frames(grib(tmp_path / "wmo.grib2", (0, 1, 7), 0.002), "mrms")
    assert frame.table.decode(frame.level)[1, 1] == pytest.approx(7.2, rel=0.06)
    for quantity in ((209, 10, 0), (209, 6, 31), (0, 0, 0)):
        with pytest.raises(SourceError, match="not a rain rate"):
            list(read_frames(grib(tmp_path / "other.grib2", quantity, 45.0), "mrms"))
    with pytest.raises(SourceError, match="is a forecast"):
        list(read_frames(grib(tmp_path / "later.grib2", (0, 1, 7), 0.002, forecast=6), "mrms"))


@pytest.mark.parametrize(("number", "size"), [(0, 0), (1, 2**64 - 16)])
def test_a_heap_that_hdf5_would_look_at_for_ever_is_refused(tmp_path, number, size):
    """Found by fuzzing: within HDF5 nothing can stop it, so it is tried in a process of its own."""
    import h5py

    path = tmp_path / "202401010000.nc"
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = "CF-1.8"
        file["rain"] = np.zeros((4, 4))
        file.attrs.create("texts", ["a", "b"], dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL")
    at = start + 16
    while int.from_bytes(data[at : at + 2], "little"):
        at += 16 + (int.from_bytes(data[at + 8 : at + 16], "little") + 7) // 8 * 8
    data[at : at + 2] = number.to_bytes(2, "little")
    data[at + 8 : at + 16] = size.to_bytes(8, "little")
    path.write_bytes(data)
    for format in ("cf", "odim", "knmi"):
        script = (
            "import sys; from pathlib import Path; from fastrain.sources import read_frames\n"
            "list(read_frames(Path(sys.argv[1]), sys.argv[2]))"
        )
        command = [sys.executable, "-c", script, str(path), format]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert f"DamagedFile: {path.name}" in done.stderr
        assert "an object without end" in done.stderr


def test_a_library_that_asserts_what_a_file_should_be_is_told_as_damage(tmp_path, monkeypatch):
    def read(path, options):
        assert not path
        yield

    monkeypatch.setitem(READERS, "cf", replace(READERS["cf"], read=read))
    path = tmp_path / "202401010000.nc"
    path.write_bytes(b"x")
    with pytest.raises(DamagedFile, match=r"202401010000\.nc: cannot be read"):
        list(read_frames(path, "cf"))


def test_an_attribute_that_would_crash_hdf5_when_damaged_is_refused(tmp_path):
    """A list of any length is what a text of any length becomes when a bit of its type is wrong (found by fuzzing)."""
    import h5py

    path = tmp_path / "202401010000.h5"
    with h5py.File(path, "w") as file:
        file["rain"] = np.zeros((4, 4))
        lists = np.empty(1, object)
        lists[0] = np.arange(3, dtype=np.int8)
        file["rain"].attrs.create("time", lists, dtype=h5py.vlen_dtype(np.int8))
    with pytest.raises(DamagedFile, match="its attribute time is no text"):
        list(read_frames(path, "knmi"))


@pytest.mark.parametrize("lie", ["text", "reference", "heap", "end", "list", "pieces"])
def test_what_a_file_claims_beyond_itself_is_refused_before_hdf5_takes_memory_for_it(tmp_path, lie):
    """Found by fuzzing: one of these cost 19 GiB. Each is wrong in one number; the file is read where it is right."""
    import h5py

    path = tmp_path / "202401010000.nc"
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = "CF-1.8"
        file.attrs.create("source", "a radar of the hills", dtype=h5py.string_dtype())
        for name in "yx":
            length, chunks = (2**25, (2**20,)) if lie == "list" and name == "x" else (4, (4,))
            file.create_dataset(name, (length,), "f8", chunks=chunks).make_scale(name)
        sides = (2**14, 2**14) if lie == "pieces" else (4, 4)
        rain = file.create_dataset("rain", sides, "f8", chunks=sides, maxshape=(None, None))
        if lie not in ("list", "pieces"):
            rain.dims[0].attach_scale(file["y"])
            rain.dims[1].attach_scale(file["x"])
    if lie in ("list", "pieces"):
        said = "claims .* in pieces"
    else:
        with pytest.raises(SourceError) as right:
            list(read_frames(path, "cf"))
        assert "claim" not in str(right.value), right.value
        assert "ends at" not in str(right.value), right.value
        data = bytearray(path.read_bytes())
        heap = data.index(b"GCOL")
        at, number = {
            "text": (data.index(struct.pack("<IQ", 20, heap)), 0xFFFFFF00),
            "reference": (data.index(b"\x17\0\0\0\x08\0\0\0", data.index(b"DIMENSION_LIST")) + 4, 0x40000008),
            "heap": (heap + 8, 2**32 - 1),
            "end": (data.index(struct.pack("<Q", len(data))), 2**31),
        }[lie]
        data[at : at + 4] = number.to_bytes(4, "little")
        path.write_bytes(data)
        said = "says that it ends at" if lie == "end" else "claims more than the file has"
    for format in ("cf", "odim", "knmi"):
        with pytest.raises(DamagedFile, match=said):
            list(read_frames(path, format))


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_what_attributes_claim_is_read_from_either_form_of_their_messages(tmp_path, libver):
    """The later form has a sum over it that a damaged file breaks, but a hostile one does not."""
    import h5py

    path = tmp_path / "file.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs.create("lines", ["radar", "of", "the hills"], dtype=h5py.string_dtype())
        file.create_dataset("y", (3,), "f4").make_scale("y")
        file.create_dataset("rain", (3, 2), "f4").dims[0].attach_scale(file["y"])
    data = path.read_bytes()
    said = list(hdf5.claimed(data, {b"lines": 16, b"DIMENSION_LIST": 16, b"line": 16}))
    assert sorted(said) == [(b"DIMENSION_LIST", 0), (b"DIMENSION_LIST", 8), *((b"lines", n) for n in (2, 5, 9))]


@pytest.mark.parametrize("libver", [("earliest", "v108"), ("v108", "v108"), ("latest", "latest")])
def test_what_is_rare_but_right_in_a_file_is_no_damage(tmp_path, libver):
    """Attributes of nothing, one name for texts of two kinds and for numbers, long lists that nobody reads."""
    import h5py

    path = tmp_path / "202401010000.nc"
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["Conventions"] = "CF-1.8"
        file.attrs["nothing"] = h5py.Empty("S1")
        file.attrs["none"] = np.zeros(0, np.int32)
        for name, size in (("y", 3), ("x", 4)):
            file[name] = 1000.0 * np.arange(size)
            file[name].make_scale(name)
            file[name].attrs.update({"units": np.bytes_("m"), "standard_name": f"projection_{name}_coordinate"})
        file.attrs["proj_string"] = "+proj=laea +lat_0=50 +lon_0=10"
        file["quality"] = 0
        file["quality"].attrs["units"] = np.arange(40)
        rain = file.create_dataset("rain", data=np.ones((3, 4), np.float32))
        rain.attrs.update({"units": "mm/h", "standard_name": "rainfall_rate"})
        for i, name in enumerate("yx"):
            rain.dims[i].attach_scale(file[name])
        file.create_dataset("points", (2**24 + 1,), "u1", chunks=(2**20,))
    (frame,) = read_frames(path, "cf")
    assert frame.level.shape == (3, 4)


def test_files_of_short_addresses_and_with_something_before_are_left_to_hdf5(tmp_path):
    import h5py

    create = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    create.set_sizes(4, 4)
    path = tmp_path / "202401010000.h5"
    h5py.File(h5py.h5f.create(str(path).encode(), fcpl=create)).close()
    with pytest.raises(DamagedFile, match="not in KNMI's layout"):
        list(read_frames(path, "knmi"))
    with h5py.File(path, "w", userblock_size=512):
        pass
    with pytest.raises(DamagedFile, match="not in KNMI's layout"):
        list(read_frames(path, "knmi"))
