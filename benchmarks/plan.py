"""What `fastrain plan` says beside what training takes: both tasks, coarseness 1 to 4, a short and a long archive.

Each training runs in a process of its own, whose peak of memory and processor time the system tells. One thread, so
that processor time means the same in both; the map's network sees fewer cells than by default, so that all of it ends.

    python benchmarks/plan.py --work FOLDER --to records/plan.json [--only grid,1,4]
    python benchmarks/plan.py --work FOLDER --to records/plan.json --taken records/plan.json

The second plans anew beside what the trainings of a record took, where only planning has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

from machine import machine

RADAR = """
fastrain = "synthetic radar"
rows = 160
columns = 160
pixel_km = 1.0
cadence_minutes = 10
frames = {frames}
seed = 5
wet = 0.2
"""
DAYS = {"short": 2, "long": 12}
COARSENESS = (1, 2, 3, 4)
CELLS = 2_000_000
PIXEL = (80, 80)
CHILD = """
import sys, json
from pathlib import Path
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.train import train
archive, run, recipe, coarseness, cells = sys.argv[1:]
place = {place} if recipe == "place" else None
settings = TrainSettings(recipe=recipe, coarseness=int(coarseness), cells=int(cells), threads=1, place=place)
train(Path(archive), Path(run), settings)
"""
PLAN = """
import sys, json, time
started = time.monotonic()
from dataclasses import asdict
from pathlib import Path
import fastrain.rain.train
from fastrain.archive.store import Archive
from fastrain.core.memory import peak_bytes, resident_bytes
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.plan import plan
before = resident_bytes()
settings = TrainSettings(cells=int(sys.argv[2]), threads=1, place={place})
archive = Archive.open(Path(sys.argv[1]))
found = plan(archive, settings, coarsenesses={coarseness}, recipes=(sys.argv[3],), started=started)
taken = dict(seconds=round(time.monotonic() - started, 2), bytes_beyond_imports=peak_bytes() - before)
print(json.dumps(dict(asdict(found), taken=taken)))
"""


def measured(code: str, *arguments: object) -> dict[str, float]:
    """Run some Python in a process of its own; return what the system says of it."""
    began = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code.format(place=PIXEL), *map(str, arguments)], env=env)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"training failed: {arguments}")
    return {
        "memory": usage.ru_maxrss * 1024,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "seconds": time.monotonic() - began,
    }


def planned(archive: Path, recipe: str) -> dict[str, Any]:
    """Return what a plan says, and what planning took."""
    out = subprocess.run(
        [sys.executable, "-c", PLAN.format(place=PIXEL, coarseness=COARSENESS), str(archive), str(CELLS), recipe],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(out.stdout)
    largest = max(row["memory"] for row in found["rows"])
    found["taken"]["share_of_largest"] = round(found["taken"]["bytes_beyond_imports"] / largest, 3)
    return found


def compared(days: int, found: list[dict[str, Any]], fact: dict[str, float]) -> dict[str, Any]:
    """Return what was planned, twice, beside what was taken."""
    means = {key: mean(row[key] for row in found) for key in fact}
    return {
        "length_days": days,
        **{key: found[0][key] for key in ("recipe", "coarseness", "windows", "steps")},
        **{f"planned_{key}": round(value, 1) for key, value in means.items()},
        **{f"taken_{key}": round(value, 1) for key, value in fact.items()},
        **{f"{key}_ratio": round(means[key] / value, 3) for key, value in fact.items()},
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--taken", type=Path)
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    rows, plans = [], []
    known = json.loads(told.taken.read_text())["rows"] if told.taken else []
    facts = {
        f"{row['recipe']},{row['coarseness']},{row['length_days']}": {
            key: row[f"taken_{key}"] for key in ("memory", "cpu_seconds", "seconds")
        }
        for row in known
    }
    for length, days in DAYS.items():
        archive = told.work / length
        if not archive.exists():
            recipe = told.work / f"{length}.toml"
            recipe.write_text(RADAR.format(frames=144 * days).lstrip())
            ingest = [sys.executable, "-m", "fastrain", "ingest", str(recipe), "--archive", str(archive)]
            subprocess.run([*ingest, "--coarseness", "2,3,4", "--average", "rain_rate"], check=True)
        for recipe in ("grid", "place"):
            for i, coarseness in enumerate(COARSENESS):
                name = f"{recipe},{coarseness},{length}"
                if told.only and told.only not in name:
                    continue
                # Planned before and after, and the mean taken: what is compared is the plan, not the hour.
                before = planned(archive, recipe)
                fact = facts.get(f"{recipe},{coarseness},{days}") or measured(
                    CHILD, archive, told.work / f"run {name} {time.time_ns()}", recipe, coarseness, CELLS
                )
                found = [one["rows"][i] for one in (before, planned(archive, recipe))]
                plans.append({"recipe": recipe, "length_days": days, **before["taken"]})
                rows.append(compared(days, found, fact))
                print(name, *(f"{key} {rows[-1][key + '_ratio']:.2f} of {fact[key]:.4g}," for key in fact), flush=True)
    middle = {f"median_{key}_ratio": median(row[f"{key}_ratio"] for row in rows) for key in ("memory", "cpu_seconds")}
    told.to.write_text(json.dumps({**machine(), **middle, "plans": plans, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
