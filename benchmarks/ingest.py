"""Pictures to a committed archive: per second, memory, where the time goes, and beside the ancestor's algorithm.

    python benchmarks/ingest.py --pictures FOLDER [--count 52560] [--to records/ingest.json]

The year of pictures is made by `year.py` from the real ones; 1 GB, and some minutes, the first time. The ancestor's
algorithm, written plainly: a dictionary of colours, loops over blocks for maximum and mean, one gzip -9 of all.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from fastrain.archive.pack import grouped, noted_frame, pack
from fastrain.archive.schema import Schema
from fastrain.archive.writer import writing
from fastrain.core.memory import keep_freed_memory
from fastrain.core.time import TimeAxis
from fastrain.sources import ReadOptions, read_frames
from fastrain.sources.image_file import read_picture
from fastrain.sources.palette import load_palette
from fastrain.sources.pictures import learn

sys.path.insert(0, str(Path(__file__).parent))
from year import YEAR, make


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--count", type=int, default=YEAR)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    make(asked.pictures, asked.count)
    with tempfile.TemporaryDirectory(dir=asked.pictures.parent) as folder:
        whole = _ingest(asked.pictures, Path(folder) / "archive", asked.count)
        sample = sorted(asked.pictures.iterdir())[:: max(1, asked.count // 600)][:600]
        parts = _breakdown(sorted(asked.pictures.iterdir())[:600], Path(folder) / "sample")
    ancestor = _ancestor(sample[:6])
    record = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        **whole,
        "milliseconds_per_picture": parts,
        "ancestor_cpu_seconds_per_picture": ancestor,
        "ratio_of_cpu_seconds": ancestor / whole["cpu_seconds_per_picture"],
    }
    print(json.dumps(record, indent=2))
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=2) + "\n")


def _ingest(pictures: Path, archive: Path, count: int) -> dict[str, float]:
    before = os.times()
    began = time.monotonic()
    command = [sys.executable, "-c", "from fastrain.cli.main import run; run()", "ingest", str(pictures)]
    process = subprocess.Popen([*command, "--archive", str(archive), "--json"], stdout=subprocess.PIPE)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    said = json.loads(process.communicate()[0])
    watcher.join()
    seconds = time.monotonic() - began
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    assert process.returncode == 0 and said["counts"]["written"] == count, said["problems"][:3]
    size = sum(p.stat().st_size for p in archive.rglob("*") if p.is_file())
    return {
        "pictures": count,
        "seconds": round(seconds, 1),
        "pictures_per_second": round(count / seconds, 1),
        "cpu_seconds_per_picture": cpu / count,
        "peak_memory_mib_of_all_processes": round(peak[0] / 2**20),
        "bytes_per_picture": round(size / count),
    }


def _watch(process: subprocess.Popen, peak: list[int]) -> None:
    """Keep the most memory that the process and its children held together, shared pages counted once."""
    while process.poll() is None:
        total = 0
        for pid in [process.pid, *_children(process.pid)]:
            try:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
            except OSError:
                pass
        peak[0] = max(peak[0], total)
        time.sleep(0.5)


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [grandchild for child in found for grandchild in _children(child)]


def _breakdown(paths: list[Path], archive: Path) -> dict[str, float]:
    """Return CPU milliseconds per picture of each step, one process, medians of three rounds."""
    keep_freed_memory()
    palette = load_palette("eccc")
    options = ReadOptions(background=learn("eccc", paths, None, ReadOptions()))
    rounds: dict[str, list[float]] = {}
    n = len(paths)

    def took(name: str, began: float) -> float:
        now = time.process_time()
        rounds.setdefault(name, []).append((now - began) / n * 1e3)
        return time.process_time()

    for attempt in range(3):
        at = time.process_time()
        for path in paths:
            read_picture(path, palette.size)
        at = took("decode", at)
        frames = [frame for path in paths for frame in read_frames(path, "eccc", options)]
        at = took("decode and level", at)
        for frame in frames:
            _ = frame.digest
        at = took("digest", at)
        axis = TimeAxis.through(frames[0].valid_time, timedelta(minutes=10))
        schema = Schema(frames[0].grid, frames[0].table, axis, (2, 3, 4), "level", "eccc", "")
        per = schema.frames_per_chunk
        hours = [frames[i : i + per] for i in range(0, n, per)]
        for hour in hours:
            grouped(np.stack([f.level for f in hour]), schema)
            for frame in hour:
                noted_frame(frame, schema)
        at = took("coarsen", at)
        packed = [pack(hour, schema) for hour in hours]
        at = took("coarsen and compress", at)
        with writing(archive.with_name(f"{archive.name}{attempt}"), schema) as writer:
            at = time.process_time()
            for one in packed:
                assert one is not None and writer.write_packed(one)
            at = took("store", at)
            writer.commit("all")
            took("commit", at)
        shutil.rmtree(archive.with_name(f"{archive.name}{attempt}"))
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    steps = {
        "decode": medians["decode"],
        "level": medians["decode and level"] - medians["decode"],
        "digest": medians["digest"],
        "coarsen": medians["coarsen"],
        "compress": medians["coarsen and compress"] - medians["coarsen"],
        "store": medians["store"],
        "commit": medians["commit"],
    }
    return {name: round(value, 3) for name, value in steps.items()}


def _ancestor(paths: list[Path]) -> float:
    """Return CPU seconds per picture of the ancestor's algorithm in plain Python."""
    levels = dict(load_palette("eccc").levels)
    began = time.process_time()
    for path in paths:
        with Image.open(path) as image:
            rgb = image.convert("RGB").crop((0, 0, 480, 480)).tobytes()
            pixels = list(zip(rgb[0::3], rgb[1::3], rgb[2::3], strict=True))
        rain = [levels.get(r << 16 | g << 8 | b, 0) for r, g, b in pixels]
        payload = bytearray(rain)
        for c in (2, 3, 4):
            maxima, ratios = bytearray(), bytearray()
            for top in range(0, 480, c):
                for left in range(0, 480, c):
                    block = [rain[y * 480 + x] for y in range(top, top + c) for x in range(left, left + c)]
                    highest = max(block)
                    maxima.append(highest)
                    ratios.append(round(255 * sum(block) / len(block) / highest) if highest else 0)
            payload += maxima + ratios
        gzip.compress(bytes(payload), 9)
    return (time.process_time() - began) / len(paths)


if __name__ == "__main__":
    main()
