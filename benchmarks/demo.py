"""The demo's time and memory, in a fresh process: within 3 minutes and 2 GiB on 2 cores once installed.

    python benchmarks/demo.py [--runs 3] [--out records/demo.json]

Also the seconds that `fastrain --help` takes (wanted: under half a second).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

PROGRAM = [sys.executable, "-c", "from fastrain.cli.main import run; run()"]


def main() -> None:
    """Print the figures and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    helps = [measured([*PROGRAM, "--help"])[0] for _ in range(5)]
    demos = []
    for _ in range(given.runs):
        with tempfile.TemporaryDirectory() as folder:
            demos.append(measured([*PROGRAM, "demo", "--out", f"{folder}/demo"]))
    record = {
        **machine(),
        "script": "benchmarks/demo.py",
        "cores": os.cpu_count(),
        "runs": given.runs,
        "wall_s_median": round(statistics.median(d[0] for d in demos), 1),
        "wall_s_all": [round(d[0], 1) for d in demos],
        "cpu_s_median": round(statistics.median(d[1] for d in demos), 1),
        "peak_MiB_max": round(max(d[2] for d in demos)),
        "help_s_median": round(statistics.median(helps), 3),
    }
    print(json.dumps(record, indent=1))
    if given.out:
        given.out.write_text(json.dumps(record, indent=1) + "\n")


def measured(command: list[str]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak MiB of a command and its children."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed with {status}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
