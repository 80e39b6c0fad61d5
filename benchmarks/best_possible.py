"""How near a network comes to the best possible forecast: a synthetic radar whose every future can be drawn.

    python benchmarks/best_possible.py --work FOLDER [--days 20] [--to records/best_possible.json]

Days of synthetic radar are ingested and trained on as any user would, with the five hours of the ancestor. At issue
times of the held-out time, the generator then draws futures from the very state it is in: their share is the best
chance there can be, but for the number of members, whose penalty p(1 − p)/(n − 1) is taken off. All are scored on the
same cells. What the network cannot know, and the generator does: the rain beyond the picture's edge, the field where
it does not rain, the motion.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from fastrain.archive.store import Archive
from fastrain.core.memory import keep_all_memory, peak_bytes
from fastrain.rain.hindcast import BASELINES, Network, Reference, hindcasts
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.run import open_run
from fastrain.rain.train import train
from fastrain.rain.verify import held_out
from fastrain.samples.frames import load_frames, window_slots
from fastrain.sources.synthetic import KIND, SyntheticRadar, Weather

MEMBERS, ISSUES = 20, 48
EDGE = 12  # cells of the picture's rim that are not scored: what comes in from outside is another question


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--days", type=int, default=20)
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    weather = Weather(
        rows=120,
        columns=120,
        pixel_km=4.0,
        cadence_minutes=10,
        frames=asked.days * 144,
        wet=0.2,
        swing=0.4,
        swing_hours=12.0,
        spread=10.0,
        outer_km=400.0,
        speed=25.0,
        veer=40.0,
    )
    described, path, run_path = asked.work / "rain.toml", asked.work / "archive", asked.work / "run"
    values = [(field.name, getattr(weather, field.name)) for field in fields(weather)]
    said = [f"{name} = {value.isoformat() if isinstance(value, datetime) else value}" for name, value in values]
    described.write_text("\n".join([f'fastrain = "{KIND}"', *said]) + "\n")
    if not path.exists():
        command = [sys.executable, "-m", "fastrain", "ingest", described, "--archive", path]
        subprocess.run([*command, "--coarseness", "2", "--workers", "1"], check=True)
    began, spent = time.monotonic(), time.process_time()
    if not (run_path / "run.json").exists():
        train(path, run_path, TrainSettings(coarseness=1), say=print, progress=_said)
    seconds, cpu = time.monotonic() - began, time.process_time() - spent
    run, archive = open_run(run_path), Archive.open(path)
    radar = run.radar(archive)
    every = held_out(run, archive)
    issues = every[np.linspace(0, len(every) - 1, ISSUES).round().astype(int)]
    frames = load_frames(archive, 1, window_slots(issues, radar.layout))
    reference = Reference.from_attributes(run.facts["reference"])
    names = ("network", *BASELINES, "best")
    squared = {name: np.zeros((len(radar.layout.periods), len(radar.thresholds))) for name in names}
    events = np.zeros_like(squared["best"])
    cells = np.zeros(len(radar.layout.periods))
    synthetic = SyntheticRadar(weather)
    first = round((weather.start - archive.schema.axis.time(0)) / archive.schema.axis.cadence)
    network = Network.of(run, radar)
    inner = np.zeros(frames.maximum.shape[1:], bool)
    inner[EDGE:-EDGE, EDGE:-EDGE] = True
    for cast in hindcasts(frames, issues, radar, reference, network=network):
        while first + synthetic.step < cast.issue:
            synthetic.advance()
        share = best_share(synthetic, radar.layout.periods, radar.thresholds)
        judged = cast.judged & inner
        event = cast.event()
        for name, chance in {**cast.chances, "best": share}.items():
            squared[name] += (((chance - event) ** 2) * judged[:, None]).sum(axis=(2, 3))
        squared["best"] -= (share * (1 - share) / (MEMBERS - 1) * judged[:, None]).sum(axis=(2, 3))
        events += (event & judged[:, None]).sum(axis=(2, 3))
        cells += judged.sum(axis=(1, 2))
        print(f"{archive.schema.axis.time(cast.issue):%m-%d %H:%M}", end=" ", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    print("\n  hours  mm/h  reached " + " ".join(f"{name:>11}" for name in names) + "   of what can be gained")
    for p, (a, b) in enumerate(run.layout.periods):
        for k, threshold in enumerate(radar.thresholds):
            brier = {name: round(float(squared[name][p, k] / cells[p]), 6) for name in names}
            gained = (brier["climatology"] - brier["network"]) / (brier["climatology"] - brier["best"])
            rows.append(
                {
                    "period_min": [a, b],
                    "threshold_mm_h": threshold,
                    "cells": int(cells[p]),
                    "events": int(events[p, k]),
                    "brier": brier,
                    "share_of_the_possible": round(gained, 3),
                }
            )
            print(
                f"{a // 60:>4}–{b // 60} {threshold:>5g} {events[p, k] / cells[p]:>8.1%} "
                + " ".join(f"{brier[name]:>11.4f}" for name in names)
                + f" {gained:>8.0%}"
            )
    if asked.to:
        record = {
            **machine(),
            "seeds": 1,
            "weather": {name: str(value) if isinstance(value, datetime) else value for name, value in values},
            "issues": len(issues),
            "members": MEMBERS,
            "seconds_training": round(seconds),
            "cpu_seconds_training": round(cpu),
            "peak_mib": peak_bytes() // 2**20,
            "rows": rows,
        }
        asked.to.write_text(json.dumps(record, indent=1) + "\n")


def best_share(radar: SyntheticRadar, periods: Any, thresholds: tuple[float, ...]) -> np.ndarray:
    """Return the share of futures that reach each threshold in each period, (period, threshold, y, x)."""
    out = np.zeros((len(periods), len(thresholds), radar.weather.rows, radar.weather.columns))
    for member in range(1, MEMBERS + 1):
        future = radar.future(member)
        rates = []
        for _ in range(periods[-1][1]):
            future.advance()
            rates.append(future.rain_rate())
        for p, (a, b) in enumerate(periods):
            highest = np.max(rates[a:b], axis=0)
            out[p] += highest[None] >= np.array(thresholds)[:, None, None] * (1 - 1e-6)
    return out / MEMBERS


def _said(done: int, total: int, what: str) -> None:
    if done % 100 == 0:
        print(f"{done} of {total}, {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
