"""What `fastrain plan` says beside what training takes: both tasks, coarseness 1 to 4, a short and a long archive.

Each training runs in a process of its own, whose peak of memory and processor time the system tells. One thread, so
that processor time means the same in both; the map's network sees fewer cells than by default, so that all of it ends.

    python benchmarks/plan.py --work FOLDER --to records/plan.json [--only grid,1,4]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
found = plan(Archive.open(Path(sys.argv[1])), settings, coarsenesses=(1, 2, 3, 4), started=started)
taken = dict(seconds=time.monotonic() - started, bytes_beyond_imports=peak_bytes() - before)
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


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--only", default="")
    told = parser.parse_args()
    told.work.mkdir(parents=True, exist_ok=True)
    rows, plans = [], {}
    for length, days in DAYS.items():
        archive = told.work / length
        if not archive.exists():
            recipe = told.work / f"{length}.toml"
            recipe.write_text(RADAR.format(frames=144 * days).lstrip())
            ingest = [sys.executable, "-m", "fastrain", "ingest", str(recipe), "--archive", str(archive)]
            subprocess.run([*ingest, "--coarseness", "2,3,4", "--average", "rain_rate"], check=True)
        out = subprocess.run(
            [sys.executable, "-c", PLAN.format(place=PIXEL), str(archive), str(CELLS)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(out.stdout)
        largest = max(row["memory"] for row in found["rows"])
        plans[length] = {
            "seconds": round(found["taken"]["seconds"], 2),
            "bytes_beyond_imports": found["taken"]["bytes_beyond_imports"],
            "share_of_largest": round(found["taken"]["bytes_beyond_imports"] / largest, 3),
        }
        for row in found["rows"]:
            name = f"{row['recipe']},{row['coarseness']},{length}"
            if told.only and told.only not in name:
                continue
            run = told.work / f"run {name} {time.time_ns()}"
            fact = measured(CHILD, archive, run, row["recipe"], row["coarseness"], CELLS)
            rows.append(
                {
                    "length_days": days,
                    **{key: row[key] for key in ("recipe", "coarseness", "windows", "steps")},
                    **{f"planned_{key}": round(row[key], 1) for key in fact},
                    **{f"taken_{key}": round(value, 1) for key, value in fact.items()},
                    **{f"{key}_ratio": round(row[key] / value, 3) for key, value in fact.items()},
                }
            )
            print(name, *(f"{key} {rows[-1][key + '_ratio']:.2f} of {fact[key]:.4g}," for key in fact), flush=True)
    told.to.write_text(json.dumps({"plans": plans, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
