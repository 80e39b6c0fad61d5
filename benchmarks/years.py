"""Memory does not grow with an archive's years: one of a month and one of five years train under the same limit.

Each archive is a radar of 96×96 pixels of 1 km, a frame every ten minutes: a day of moving rain after every nine dry
ones, repeated. Each training is the command line with its defaults and `--memory`, in a control group (Linux, root)
whose limit is that budget: what takes more is killed.

    python benchmarks/years.py --work FOLDER --to records/years.json [--memory 1.1GB] [--only grid]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

from fastrain.archive.writer import writing
from fastrain.core.frame import Frame
from fastrain.core.memory import parse_size

DAYS = {"a month": 30, "five years": 1826}
SIZE, CADENCE, PIECE = 96, timedelta(minutes=10), 1440
A_DAY = 144
WET_EVERY = 10  # days


def write_archive(path: Path, days: int) -> None:
    """Write frames piece by piece; that they repeat themselves is no matter for memory."""
    wet = synthetic.TABLE.encode(synthetic.moving_rain(A_DAY, SIZE).astype(float))
    dry = np.zeros_like(wet[0])
    where = synthetic.grid(SIZE, SIZE, 1.0)

    def frame(i: int) -> Frame:
        level = wet[i % A_DAY] if i // A_DAY % WET_EVERY == WET_EVERY - 1 else dry
        return Frame(level, synthetic.START + i * CADENCE, where, synthetic.TABLE, f"frame {i}")

    schema = replace(synthetic.schema(SIZE, SIZE, (2, 3, 4), CADENCE), grid=where)
    with writing(path, schema) as writer:
        for start in range(0, days * A_DAY, PIECE):
            writer.write([frame(i) for i in range(start, min(start + PIECE, days * A_DAY))])
            writer.commit("synthetic")


class Limit:
    """A control group of memory, of either version."""

    def __init__(self, allowed: int) -> None:
        root = Path("/sys/fs/cgroup")
        first = (root / "memory").is_dir()
        self.folder = (root / "memory" if first else root) / f"fastrain-{os.getpid()}"
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(allowed))
        for swap in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
            with suppress(OSError):
                (self.folder / swap).write_text(str(allowed if first else 0))

    def enter(self) -> None:
        """Put this process into it; called in a child before it becomes the program."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Remove it."""
        self.folder.rmdir()


def trained(archive: Path, run: Path, recipe: str, memory: str) -> dict[str, Any]:
    """Train under the limit, and return what it took, or that it was killed."""
    limit = Limit(parse_size(memory))
    command = [sys.executable, "-m", "fastrain", "train", str(archive), "--run", str(run), "--recipe", recipe]
    command += ["--memory", memory, "--threads", "1", "--json"]
    if recipe == "place":
        command += ["--pixel", f"{SIZE // 2},{SIZE // 2}"]
    began = time.monotonic()
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=limit.enter)
        out, _ = child.communicate()
    finally:
        limit.close()
    if child.returncode:
        return {"status": child.returncode}
    facts = json.loads(out)
    return {
        "status": 0,
        "peak_mb": round(facts["peak_bytes"] / 1e6),
        "seconds": round(time.monotonic() - began),
        "disk_mb": round(sum(p.stat().st_size for p in run.rglob("*") if p.is_file()) / 1e6, 1),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--memory", default="1.1GB")
    parser.add_argument("--only", default="")
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"memory": told.memory}
    if told.to.exists():
        record = json.loads(told.to.read_text())
    for name, days in DAYS.items():
        archive = told.work / name
        if not archive.exists():
            began = time.monotonic()
            write_archive(archive, days)
            print(f"{name}: written in {time.monotonic() - began:.0f} s", flush=True)
        for recipe in ("grid", "place"):
            if told.only in recipe:
                found = trained(archive, told.work / f"{recipe} {name} {time.time_ns()}", recipe, told.memory)
                record[f"{recipe}, {name}"] = {"frames": days * A_DAY, **found}
                print(recipe, name, found, flush=True)
                told.to.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
