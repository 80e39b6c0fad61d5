"""Make the run that ships in the package, `base`: a network trained on the radars whose licence allows it.

    python benchmarks/make_base.py --work FOLDER [--to src/fastrain/rain/base]

Each of the radars is left out once, to choose one temperature for the chances and the chance from which on a forecast
counts as yes, on weather that the network did not see; then one network is trained on all of them. What it says of
radars that it never saw is measured by `fastrain verify base --archive A`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from skill import EVENTS, THRESHOLDS, TILES, WIDTH, WINDOWS, batches_of, read, smoothing

from fastrain.archive.store import Archive
from fastrain.core.memory import keep_all_memory
from fastrain.core.time import show_time
from fastrain.core.version import version
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import Calibration, pooled_temperature
from fastrain.rain.inputs import InputCache, happened, make_inputs
from fastrain.rain.joint import HISTORY, Event, fit_joint
from fastrain.rain.run import FACTS, RUN_VERSION, SHIPPED_WEIGHTS, network_identity, predict
from fastrain.rain.verify import digests
from fastrain.samples.layout import GUARD, Layout
from fastrain.samples.truth import observed_now
from fastrain.verification.tally import Decider

# Half hours fit the cadences of nearly all radars: 2, 3, 5, 6, 10, 15 and 30 minutes.
LAYOUT = Layout(HISTORY, ((0, 30), (30, 60), (60, 90)))
ALLOWED = {
    "knmi_2010-08-26": "KNMI, Netherlands (CC BY 4.0)",
    "fmi_2016-09-28": "Finnish Meteorological Institute (CC BY 4.0)",
    "mrms_2019-06-10": "NOAA/NSSL MRMS, USA (public domain)",
}
SCORED = 12  # windows of each event that are left out
SHAPE = (len(LAYOUT.periods), len(THRESHOLDS))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cells", type=float, default=30e6)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "src/fastrain/rain/base")
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    began = time.monotonic()
    asked.work.mkdir(parents=True, exist_ok=True)
    events = [(EVENTS[name][0], event) for name in ALLOWED for event in read(name, asked.work, "maximum")]
    caches: dict[str, InputCache] = {}
    parts = {group: batches_of([e for g, e in events if g == group], caches, WINDOWS) for group, _ in events}

    def trained(groups: list[str]) -> RainNet:
        chosen = [part for group in groups for part in parts[group]]

        def said(done: int, total: int, loss: float) -> None:
            if done % 100 == 0:
                print(f"{', '.join(groups)}: {done} of {total}, loss {loss:.4f}", file=sys.stderr, flush=True)

        return fit_joint(chosen, thresholds=len(THRESHOLDS), width=WIDTH, cells=int(asked.cells), seed=0, progress=said)

    unseen: list[tuple[int, np.ndarray, np.ndarray]] = []
    for left_out in parts:
        network = trained([group for group in parts if group != left_out])
        unseen += [row for group, event in events if group == left_out for row in forecasts(event, network)]
    temperature = pooled(unseen)
    decider = Decider(SHAPE)
    for period, logits, truth in unseen:
        add(decider, period, Calibration(temperature).chances(logits[None])[0], truth)
    network = trained(list(parts))
    seen = sorted({digest for name in ALLOWED for digest in rainy(Archive.open(asked.work / name))})
    facts: dict[str, Any] = {
        "fastrain_run": RUN_VERSION,
        "fastrain": version(),
        "created": show_time(datetime.now(UTC)),
        "archive": None,
        "grid": None,
        "coarseness": None,
        "place": None,
        "split": None,
        "credit": "; ".join(ALLOWED.values()),
        "events": [event.name for _, event in events],
        "seen": seen,
        "thresholds": list(THRESHOLDS),
        "layout": {
            "history": HISTORY,
            "periods": LAYOUT.periods,
            "guard": int(GUARD.total_seconds() // 60),
        },
        "calibration": Calibration(round(temperature, 4)).as_attributes(),
        "reference": {
            "climatology": climatology([event for _, event in events]).round(5).tolist(),
            "spread": smoothing([event for _, event in events]),
        },
        "decide": {"network": decider.best().tolist()},
        "network": {
            "identity": network_identity(network),
            "width": WIDTH,
            "weights": sum(p.numel() for p in network.parameters()),
            "steps": None,
            "share_kept": 1.0,
        },
        "settings": {"truth": "maximum", "cells": int(asked.cells), "tiles": TILES, "windows": WINDOWS},
        "seconds": round(time.monotonic() - began, 1),
    }
    asked.to.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, str(asked.to / SHIPPED_WEIGHTS))
    (asked.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{asked.to}: temperature {temperature:.3f}, yes from {facts['decide']['network']}")


def places_of(event: Event) -> dict[int, int]:
    """Return where the periods of `LAYOUT` stand among an event's."""
    minutes = [(round(a * event.radar.minutes), round(b * event.radar.minutes)) for a, b in event.radar.layout.periods]
    return {i: minutes.index(period) for i, period in enumerate(LAYOUT.periods) if period in minutes}


def forecasts(event: Event, network: RainNet) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return period, logits, and truth (−1 where not judged), of some windows."""
    out = []
    for issue in event.issues(SCORED):
        inputs, moved = make_inputs(event.frames, int(issue), event.radar)
        logits, outcome = predict(network, inputs), happened(event.frames, int(issue), event.radar)
        judged = observed_now(event.frames, int(issue))[None] & moved.known.numpy()
        truth = np.where(judged, outcome, -1).astype(np.int8)
        out += [(period, logits[at], truth[at]) for period, at in places_of(event).items()]
    return out


def pooled(unseen: list[tuple[int, np.ndarray, np.ndarray]]) -> float:
    """Return the temperature of the least loss over windows of all sizes."""
    logits = np.concatenate([x.reshape(1, len(THRESHOLDS), 1, -1) for _, x, _ in unseen], axis=3)
    truth = np.concatenate([t.reshape(1, 1, -1) for *_, t in unseen], axis=2)
    return pooled_temperature([logits], [truth])[0]


def add(decider: Decider, period: int, chance: np.ndarray, truth: np.ndarray) -> None:
    """Add one period of a window."""
    chances = np.zeros((*SHAPE, *truth.shape))
    judged = np.zeros((SHAPE[0], *truth.shape), bool)
    chances[period], judged[period] = chance, truth >= 0
    happens = np.broadcast_to(truth[None, None] > np.arange(SHAPE[1])[None, :, None, None], chances.shape)
    decider.add(chances, happens, judged)


def climatology(events: list[Event]) -> np.ndarray:
    """Return how often each threshold was reached in each period, (period, threshold), a mean over events."""
    shares: list[list[np.ndarray]] = [[] for _ in LAYOUT.periods]
    for event in events:
        for issue in event.issues(SCORED):
            outcome = happened(event.frames, int(issue), event.radar)
            for period, at in places_of(event).items():
                seen = outcome[at] >= 0
                shares[period].append(np.array([(outcome[at] > k)[seen].mean() for k in range(len(THRESHOLDS))]))
    return np.stack([np.mean(of_period, axis=0) for of_period in shares])


def rainy(archive: Archive) -> list[str]:
    """Return the digests of an archive's frames that are like no other: all dry ones are alike."""
    found = digests(archive)
    return [digest for digest in found if found.count(digest) == 1]


if __name__ == "__main__":
    main()
