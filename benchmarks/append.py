"""A live radar's year: frames appended one by one, each committed and tidied for itself; time and size.

    python benchmarks/append.py [--frames 50000] [--to records/append.json]

A live archive keeps old states for a day, 144 appends of a ten-minute radar; here as many seconds are kept as so many
appends take. Wanted: the last thousand appends take at most 1.5 times the first thousand, and the archive at most 1.3
times what the same frames take when they are written in bulk. The first thousand of another archive are appended in
turns with the last of this, so that both meet the same noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from fastrain.archive.schema import Schema
from fastrain.archive.store import Archive
from fastrain.archive.writer import Writer, writing
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable
from fastrain.core.time import TimeAxis

SIZE = 120
COARSENESS = (4,)  # each takes three files more per append: the quantity that is measured is how they grow
STEP = timedelta(minutes=10)
START = datetime(2024, 1, 1, tzinfo=UTC)
KEPT_APPENDS = 144


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=50_000)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    frames = _Frames()
    schema = Schema(frames.grid, frames.table, TimeAxis.through(START, STEP), COARSENESS, "rain_rate", "made up", "")
    with tempfile.TemporaryDirectory() as folder:
        live, young, bulk = (Path(folder) / name for name in ("live", "young", "bulk"))
        kept = _Appends()
        first = _Appends()
        compared = min(1000, asked.frames // 2)
        with writing(live, schema) as writer, writing(young, schema) as other:
            for i in range(asked.frames):
                kept.append(writer, frames[i])
                if i >= asked.frames - compared:  # the first ones of another archive in turns with the last of this
                    first.append(other, frames[i - (asked.frames - compared)])
                if i % 2000 == 1999:
                    took = statistics.median(kept.seconds[-1000:]) * 1e3
                    print(f"{i + 1}: {took:.1f} ms, {_size(live) / 1e6:.1f} MB", flush=True)
        with writing(bulk, schema) as writer:
            for start in range(0, asked.frames, 600):
                writer.write([frames[i] for i in range(start, min(start + 600, asked.frames))])
                writer.commit("bulk")
        begin, end = Archive.open(live).span or (0, 0)
        assert end - begin == asked.frames
        last, last_cpu = kept.seconds[-compared:], kept.cpu[-compared:]
        record = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "cores": os.cpu_count(),
            "frames": asked.frames,
            "pixels": SIZE * SIZE,
            "coarseness": COARSENESS,
            "compared": compared,
            "first_median_ms": statistics.median(first.seconds) * 1e3,
            "last_median_ms": statistics.median(last) * 1e3,
            "ratio_of_seconds": sum(last) / sum(first.seconds),
            "ratio_of_cpu_seconds": sum(last_cpu) / sum(first.cpu),
            "longest_ms": max(kept.seconds) * 1e3,
            "live_bytes": _size(live),
            "bulk_bytes": _size(bulk),
            "ratio_of_bytes": _size(live) / _size(bulk),
        }
    print(json.dumps(record, indent=2))
    if asked.to:
        asked.to.write_text(json.dumps(record, indent=2) + "\n")


class _Appends:
    """One archive's appends and what each took; old states are kept as long as KEPT_APPENDS of them take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def append(self, writer: Writer, frame: Frame) -> None:
        keep = timedelta(seconds=KEPT_APPENDS * statistics.fmean(self.seconds[-200:] or [0.07]))
        began, spent = time.perf_counter(), time.process_time()
        writer.write([frame])
        writer.commit("append")
        writer.tidy(keep)
        self.seconds.append(time.perf_counter() - began)
        self.cpu.append(time.process_time() - spent)


class _Frames:
    """Rain that moves over a torus, each frame distinct."""

    def __init__(self) -> None:
        self.grid = Grid.around(50.0, 10.0, 4.0, (SIZE, SIZE), (SIZE // 2, SIZE // 2))
        self.table = LevelTable.binned()
        draw = np.random.default_rng(0)
        spectrum = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
        spectrum[0, 0] = 1.0
        field = np.fft.ifft2(np.fft.fft2(draw.normal(size=(256, 256))) / spectrum**1.6).real
        field = field / field.std()
        self.level = self.table.encode(np.where(field > 0.8, 0.2 * np.exp(2.0 * (field - 0.8)), 0.0))

    def __getitem__(self, i: int) -> Frame:
        moved = np.roll(self.level, (3 * i + i // 256, i), (0, 1))[:SIZE, :SIZE].copy()
        return Frame(moved, START + i * STEP, self.grid, self.table, f"frame {i}")


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


if __name__ == "__main__":
    main()
