"""The price of coarse-graining on real radar, each event left out, by `fastrain ablate --learn-from`: one record.

    python benchmarks/coarse.py --work FOLDER [--events knmi,fmi] [--steps 200] [--seeds 1] [--out records/coarse.json]

Four spells of weather of three radars with pixels of a kilometre. Each is judged whole by networks that learned from
two of the others and were calibrated on the third. Resumable: what FOLDER holds is not measured again. The page
`docs/coarse-graining.md` is made from the record by `scripts/coarse_page.py`.
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
EVENTS = {
    "knmi": "knmi_2010-08-26",
    "fmi": "fmi_2016-09-28",
    "mch_2015": "mch_2015-05-15",
    "mch_2016": "mch_2016-07-11",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--events", default=",".join(EVENTS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names = list(EVENTS)
    for name in names:
        if not (asked.work / name).exists():
            command = [*PROGRAM, "ingest", DATA / EVENTS[name], "--archive", asked.work / name]
            subprocess.run([*command, "--coarseness", "2,3,4", "--average", "rain_rate"], check=True)
    events = {}
    for name in asked.events.split(","):
        at, folder = names.index(name), asked.work / f"{name} ablation"
        others = ",".join(str(asked.work / other) for other in (*names[at + 1 :], *names[:at]))
        command = [*PROGRAM, "ablate", asked.work / name, "--to", folder, "--coarseness", "1,2,3,4"]
        command += ["--learn-from", others, "--steps", str(asked.steps), "--seeds", str(asked.seeds)]
        done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
        events[name] = json.loads(done.stdout)
        print(name)
        print((folder / "ablation.txt").read_text())
        if asked.out:
            record = {
                **machine(),
                "script": "benchmarks/coarse.py",
                "threads": torch.get_num_threads(),
                "seeds": asked.seeds,
                "events": events,
            }
            asked.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
