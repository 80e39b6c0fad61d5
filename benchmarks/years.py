"""A month beside five years: the same training, in the same memory, under a limit that the system itself holds.

    python benchmarks/years.py --work FOLDER --to records/years.json [--memory 0.7]

Made rain of 48×48 cells every ten minutes, the five years being the month over and over (what memory there is does not
know that). Each training is told `--memory`, and its process lies in a control group of just as much where one can be
made (needs root and version 1 of them): what takes more is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

from fastrain.archive.writer import writing

STEP = timedelta(minutes=10)
MONTH = 30 * 144
SIZE = 48
LENGTHS = {"a month": 1, "five years": 61}
CHILD = """
import json, sys
from pathlib import Path
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.train import train
archive, run, memory = sys.argv[1:]
settings = TrainSettings(coarseness=1, width=16, cells=1_500_000, threads=1, memory=int(memory))
made = train(Path(archive), Path(run), settings)
"""


def write(path: Path, months: int) -> None:
    """Write an archive of the same month, so many times."""
    rates = synthetic.moving_rain(MONTH, size=SIZE, seed=9)
    with writing(path, synthetic.schema(SIZE, SIZE, (2,), cadence=STEP)) as writer:
        for month in range(months):
            start = synthetic.START + month * MONTH * STEP
            writer.write(synthetic.frames_of(rates, start, STEP))
            writer.commit(f"month {month}")


def trained(archive: Path, run: Path, memory: int) -> dict[str, object]:
    """Train under a limit; return what it took."""
    group = Path("/sys/fs/cgroup/memory") / f"fastrain-years-{os.getpid()}"
    enter = None
    with contextlib.suppress(OSError):
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(memory))
        enter = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731
    began, before = time.monotonic(), os.times()
    child = subprocess.run([sys.executable, "-c", CHILD, archive, run, str(memory)], preexec_fn=enter, check=False)
    after = os.times()
    with contextlib.suppress(OSError):
        group.rmdir()
    if child.returncode:
        raise SystemExit(f"{archive}: training ended with {child.returncode}")
    facts = json.loads((run / "run.json").read_text())
    return {
        "frames_on_disk_mb": round(sum(p.stat().st_size for p in archive.rglob("*") if p.is_file()) / 1e6, 1),
        "issue_times": facts["issues"]["train"],
        "windows": facts["trained_on"],
        "steps": facts["network"]["steps"],
        "memory_allowed_mb": round(memory / 1e6),
        "held_by_the_system": enter is not None,
        "peak_mb": round(facts["peak_bytes"] / 1e6),
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(
            after.children_user + after.children_system - before.children_user - before.children_system, 1
        ),
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--memory", type=float, default=0.7, help="GB")
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    record: dict[str, object] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "cells": [SIZE, SIZE], "cadence_minutes": 10}
    for name, months in LENGTHS.items():
        archive = told.work / name
        if not archive.exists():
            write(archive, months)
        record[name] = trained(archive, told.work / f"run {name} {time.time_ns()}", int(told.memory * 1e9))
        print(name, record[name], flush=True)
    told.to.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
