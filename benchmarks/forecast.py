"""What one forecast costs: 18 leads of 5 minutes and 3 thresholds at coarseness 4, frames, motion and network together.

    python benchmarks/forecast.py --work FOLDER [--issues 5] [--out records/forecast.json]

The run `base` on MeteoSwiss (640×710 pixels) and FMI (1226×760), one thread: CPU seconds of each part, medians over
issue times, the first of them for warming up, and the process' peak memory. Beside it, in the same run, what
pysteps takes for its Lagrangian probability of the same leads and thresholds from the same pixels (needs pysteps).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import skill
import torch
from machine import machine

from fastrain.archive.store import Archive
from fastrain.core.memory import keep_freed_memory, peak_bytes
from fastrain.rain.inputs import make_inputs
from fastrain.rain.peers import peer
from fastrain.rain.run import open_run
from fastrain.samples.frames import load_frames
from fastrain.samples.layout import Layout

EVENTS = {"mch_2016-07-11": "640×710", "fmi_2016-09-28": "1226×760"}
LEADS, MINUTES, COARSENESS = 18, 5, 4


def main() -> None:
    """Print the figures and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--issues", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=EVENTS, help=argparse.SUPPRESS)  # a process of its own, for its peak
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if given.one:
        print(json.dumps(cost(skill.ingested(skill.DATA / given.one, given.work / given.one, (4,)), given.issues)))
        return
    rows = []
    for name, size in EVENTS.items():
        again = [sys.executable, __file__, "--work", given.work, "--issues", str(given.issues), "--one", name]
        said = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        rows.append({"event": name, "pixels": size, **json.loads(said)})
        print(json.dumps(rows[-1], ensure_ascii=False))
    record = {
        **machine(),
        "script": "benchmarks/forecast.py",
        "threads": 1,
        "leads": LEADS,
        "issues": given.issues,
        "rows": rows,
    }
    if given.out:
        given.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def cost(archive: Archive, issues: int) -> dict[str, float]:
    """Return CPU seconds of a forecast's parts, peak memory, and pysteps' CPU seconds."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a forecast does
    run = open_run("base")
    layout = Layout(30, tuple((MINUTES * i, MINUTES * (i + 1)) for i in range(LEADS)))
    radar = replace(run.radar(archive), layout=layout.frames(archive.schema.axis.cadence))
    start, stop = archive.span or (0, 0)
    slots = np.linspace(start + radar.layout.history, stop - 1, issues + 1).astype(int)
    parts: list[tuple[float, ...]] = []
    for slot in slots:
        at = [time.process_time()]
        frames = load_frames(archive, COARSENESS, np.arange(slot - radar.layout.history + 1, slot + 1))
        at.append(time.process_time())
        inputs, _ = make_inputs(frames, int(slot), radar, every=False)
        at.append(time.process_time())
        straight, learned = run.parts(inputs)
        at.append(time.process_time())
        run.calibration.chances(straight + learned)
        at.append(time.process_time())
        parts.append((*np.diff(at), at[-1] - at[0]))
    read, made, network, chances, whole = (round(median(part), 3) for part in zip(*parts[1:], strict=True))
    peak = round(peak_bytes() / 2**20)
    theirs = []
    pixels = replace(radar, cell_km=archive.schema.grid.cell_km, average="level")
    for slot in slots[1:3]:
        frames = load_frames(archive, 1, np.arange(slot - radar.layout.history + 1, slot + 1))
        began = time.process_time()
        peer("pysteps", frames, int(slot), pixels)
        theirs.append(time.process_time() - began)
    return {
        "cpu_s": whole,
        "cpu_s_frames": read,
        "cpu_s_inputs": made,
        "cpu_s_network": network,
        "cpu_s_chances": chances,
        "peak_MiB": peak,
        "cpu_s_pysteps": round(min(theirs), 2),
        "ratio": round(min(theirs) / whole, 1),
    }


if __name__ == "__main__":
    main()
