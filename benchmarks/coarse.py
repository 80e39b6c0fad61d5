"""The price of coarse-graining on real radar, by `fastrain ablate`: one record.

    python benchmarks/coarse.py --work FOLDER [--events knmi] [--steps 300] [--out records/coarse.json]

Resumable: what FOLDER holds is not measured again. The page `docs/coarse-graining.md` is made from the record by
`scripts/coarse_page.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from machine import machine

DATA = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "radar"
PROGRAM = [sys.executable, "-m", "fastrain"]
EVENTS = {"knmi": "knmi_2010-08-26"}  # the others are too short, or other weather follows (LOG.md)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--events", default="knmi")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    events = {}
    for name in asked.events.split(","):
        archive, folder = asked.work / name, asked.work / f"{name} ablation"
        if not archive.exists():
            command = [*PROGRAM, "ingest", DATA / EVENTS[name], "--archive", archive]
            subprocess.run([*command, "--coarseness", "2,3,4", "--average", "rain_rate"], check=True)
        command = [*PROGRAM, "ablate", archive, "--to", folder, "--coarseness", "1,2,3,4", "--steps", str(asked.steps)]
        done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        events[name] = json.loads(done.stdout)
        print(name)
        print((folder / "ablation.txt").read_text())
    if asked.out:
        record = {
            **machine(),
            "script": "benchmarks/coarse.py",
            "threads": torch.get_num_threads(),
            "seeds": 1,
            "events": events,
        }
        asked.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
