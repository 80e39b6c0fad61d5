"""Codecs and chunks on real frames: bytes a frame, CPU time to write and read, and the read of one hour.

    python benchmarks/codec.py [--to records/codec.json]

All coarsenesses of each frame are counted, 1 to 4, maximum and mean, as the ancestor's gzip -9 beside it has them; what
`observed` adds, which the ancestor lacks, is said apart. Real neighbouring frames share a chunk: three of each of 46
radars and products of Environment Canada's, twelve of FMI's and KNMI's.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numcodecs import Blosc, Zstd

from fastrain.archive.pack import grouped
from fastrain.archive.schema import Schema
from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.frame import Frame
from fastrain.core.time import TimeAxis
from fastrain.sources import ReadOptions, read_frames
from fastrain.sources.pictures import learn

sys.path.insert(0, str(Path(__file__).parent))
from sequences import RADAR

CODECS = {
    "Blosc lz4": lambda: Blosc("lz4", 5, Blosc.SHUFFLE),
    "Blosc zstd 1": lambda: Blosc("zstd", 1, Blosc.NOSHUFFLE),
    "Blosc zstd 5, bit shuffle": lambda: Blosc("zstd", 5, Blosc.BITSHUFFLE),
    "Blosc zstd 1, bit shuffle, one block": lambda: Blosc("zstd", 1, Blosc.BITSHUFFLE, blocksize=2**24),
    "zstd 1 (chosen)": lambda: Zstd(1, checksum=True),
    "zstd 3": lambda: Zstd(3, checksum=True),
    "zstd 5": lambda: Zstd(5, checksum=True),
    "zstd 9": lambda: Zstd(9, checksum=True),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    record: dict[str, object] = {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    for name, chunks in _frames().items():
        schema = _schema(chunks[0][0])
        groups = [grouped(np.stack([f.level for f in chunk]), schema) for chunk in chunks]
        count = sum(len(chunk) for chunk in chunks)
        reference = _gzip(groups)
        rows = {"gzip -9, a frame (ancestor)": reference}
        for codec, make in CODECS.items():
            rows[codec] = _codec(make(), groups, count)
        for row in rows.values():
            row["size_of_gzip"] = row["bytes"] / reference["bytes"]
            row["time_of_gzip"] = row["write_ms"] / reference["write_ms"]
        record[name] = {
            "frames": count,
            "codecs": {k: {n: round(v, 4) for n, v in row.items()} for k, row in rows.items()},
            "read_one_hour_at_coarseness_4_ms": round(_hour(chunks, schema), 2),
        }
        print(name, count, "frames")
        for codec, row in rows.items():
            sizes = f"{row['bytes']:9.0f} + {row.get('bytes_of_observed', 0):5.0f} B"
            times = f"write {row['write_ms']:7.3f} ms  read {row['read_ms']:6.3f} ms"
            print(f"  {codec:38s} {sizes}  {times}  size {row['size_of_gzip']:.3f}  time {row['time_of_gzip']:.4f}")
        print(f"  one hour at coarseness 4 from an archive on disk: {_hour(chunks, schema):.1f} ms")
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=2) + "\n")


def _codec(codec: object, groups: list[dict[str, np.ndarray]], count: int) -> dict[str, float]:
    named = [(name, np.ascontiguousarray(values)) for group in groups for name, values in group.items()]
    arrays = [values for name, values in named if not name.endswith("observed")]
    extra = sum(len(codec.encode(values)) for name, values in named if name.endswith("observed"))
    writes, reads, size = [], [], 0
    for _ in range(3):
        began = time.process_time()
        encoded = [codec.encode(values) for values in arrays]
        writes.append(time.process_time() - began)
        began = time.process_time()
        for one in encoded:
            codec.decode(one)
        reads.append(time.process_time() - began)
        size = sum(len(one) for one in encoded)
    return {
        "bytes": size / count,
        "bytes_of_observed": extra / count,
        "write_ms": statistics.median(writes) / count * 1e3,
        "read_ms": statistics.median(reads) / count * 1e3,
    }


def _gzip(groups: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """The ancestor's: of each frame maximum and mean of every coarseness in one stream."""
    size, count, began = 0, 0, time.process_time()
    streams = []
    for group in groups[:: max(1, len(groups) // 8)]:
        for i in range(len(group["1/level"])):
            parts = [values[i].tobytes() for name, values in group.items() if not name.endswith("observed")]
            streams.append(gzip.compress(b"".join(parts), 9))
            size += len(streams[-1])
            count += 1
    write = (time.process_time() - began) / count * 1e3
    began = time.process_time()
    for stream in streams:
        gzip.decompress(stream)
    read = (time.process_time() - began) / count * 1e3
    return {"bytes": size / count, "write_ms": write, "read_ms": read}


def _hour(chunks: list[list[Frame]], schema: Schema) -> float:
    """Return milliseconds to read an hour of one coarseness from an open archive: the median of twenty."""
    with tempfile.TemporaryDirectory() as folder:
        with writing(Path(folder) / "a", schema) as writer:
            for i, chunk in enumerate(chunks[:6]):
                start = schema.axis.time(schema.frames_per_chunk * (500_000 + i))
                times = [start + j * schema.axis.cadence for j in range(len(chunk))]
                writer.write([Frame(f.level, t, f.grid, f.table, f.name) for f, t in zip(chunk, times, strict=True)])
            writer.commit("all")
        archive = Archive.open(Path(folder) / "a")
        first = archive.span[0] if archive.span else 0
        took = []
        for _ in range(20):
            began = time.perf_counter()
            archive.blocks(4, first, first + schema.frames_per_chunk)
            took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


def _schema(frame: Frame) -> Schema:
    axis = TimeAxis.through(frame.valid_time, timedelta(minutes=5))
    return Schema(frame.grid, frame.table, axis, (2, 3, 4), "rain_rate", "benchmark", "")


def _frames() -> dict[str, list[list[Frame]]]:
    pictures = defaultdict(list)
    for path in sorted((RADAR / "eccc_2025-09-02").rglob("*.gif")):
        code = re.search("CAS[A-Z]{2}", path.name)
        pictures[path.parent.name, code.group() if code else ""].append(path)
    eccc = []
    for paths in pictures.values():
        background = learn("eccc", paths, None, ReadOptions())
        options = ReadOptions(background=background, centre=(50.0, -100.0))
        eccc.append([frame for path in paths for frame in read_frames(path, "eccc", options)])
    found = {"eccc": eccc}
    for name in ("fmi_2016-09-28", "knmi_2010-08-26"):
        format = name.split("_")[0]
        paths = sorted((RADAR / name).iterdir())[:36]
        frames = [frame for path in paths for frame in read_frames(path, format)]
        found[format] = [frames[i : i + 12] for i in range(0, 36, 12)]
    return found


if __name__ == "__main__":
    main()
