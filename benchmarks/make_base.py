"""Make the run that ships in the package, `base`: a network trained on the radars whose licence allows it.

    python benchmarks/make_base.py --work FOLDER [--to src/fastrain/rain/base]
    python benchmarks/make_base.py --work FOLDER --score records/base.json

Each of the radars is left out once, to choose how much of what is learned to keep, one temperature for the chances and
the chance from which on a forecast counts as yes, on weather that the network did not see; then one network is trained
on all of them. The second call scores it, as `fastrain verify` does, on radars that it never saw, and writes its card.
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
from fastrain.cli.show import plain
from fastrain.core.memory import keep_all_memory
from fastrain.core.time import show_time
from fastrain.core.version import version
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import Calibration, pooled_temperature
from fastrain.rain.hindcast import Reference, baseline
from fastrain.rain.inputs import InputCache, happened, make_inputs
from fastrain.rain.joint import HISTORY, Event, Joint, fit_joint
from fastrain.rain.run import FACTS, RUN_VERSION, SHIPPED_WEIGHTS, network_identity, open_run, predict_parts
from fastrain.rain.settle import SHARES_KEPT
from fastrain.rain.verify import verify
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
UNSEEN = ("mch_2015-05-15", "mch_2016-07-11", "bom_2020-10-31", "openmrg_2015-08-27.nc")
KEPT = ("forecaster", "period_min", "threshold_mm_h", "brier", "csi", "decide_at", "cells", "events", "mean_chance")
CARD = "README.md"
SCORED = 12  # windows of each event that are left out
SHAPE = (len(LAYOUT.periods), len(THRESHOLDS))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cells", type=float, default=30e6)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "src/fastrain/rain/base")
    parser.add_argument("--score", type=Path, metavar="RECORD")
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    if asked.score:
        score(asked.to, asked.work, asked.score)
        return
    began = time.monotonic()
    asked.work.mkdir(parents=True, exist_ok=True)
    events = [(EVENTS[name][0], event) for name in ALLOWED for event in read(name, asked.work, "maximum")]
    caches: dict[str, InputCache] = {}
    parts = {group: batches_of([e for g, e in events if g == group], caches, WINDOWS) for group, _ in events}

    def trained(groups: list[str]) -> tuple[RainNet, int]:
        chosen = [part for group in groups for part in parts[group]]

        def said(done: int, total: int, loss: float) -> None:
            if done % 100 == 0:
                print(f"{', '.join(groups)}: {done} of {total}, loss {loss:.4f}", file=sys.stderr, flush=True)

        network, _ = fit_joint(
            chosen, thresholds=len(THRESHOLDS), width=WIDTH, cells=int(asked.cells), seed=0, progress=said
        )
        return network, Joint(chosen, 0).steps(int(asked.cells))

    unseen: list[Unseen] = []
    for left_out in parts:
        network, _ = trained([group for group in parts if group != left_out])
        unseen += [row for group, event in events if group == left_out for row in forecasts(event, network)]
    share, temperature = pooled(unseen)
    deciders: dict[str, Decider] = {}
    for period, straight, learned, truth, others in unseen:
        others["network"] = Calibration(temperature).chances((straight + share * learned)[None])[0]
        for name, chance in others.items():
            add(deciders.setdefault(name, Decider(SHAPE)), period, chance, truth)
    network, steps = trained(list(parts))
    network.shrink(share)
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
        "events": [where_and_when(asked.work, name) for name in ALLOWED],
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
        "decide": {name: decider.best().tolist() for name, decider in deciders.items()},
        "network": {
            "identity": network_identity(network),
            "width": WIDTH,
            "weights": sum(p.numel() for p in network.parameters()),
            "steps": steps,
            "share_kept": share,
        },
        "settings": {"truth": "maximum", "cells": int(asked.cells), "tiles": TILES, "windows": WINDOWS},
        "seconds": round(time.monotonic() - began, 1),
    }
    asked.to.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, str(asked.to / SHIPPED_WEIGHTS))
    (asked.to / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{asked.to}: keeps {share:.0%}, temperature {temperature:.3f}, yes from {facts['decide']['network']}")


def score(path: Path, work: Path, record: Path) -> None:
    """Score the run on radars that it never saw; write the record, and the card with its table."""
    run = open_run(path)
    found: dict[str, Any] = {}
    for name in UNSEEN:
        archive = Archive.open(work / name.removesuffix(".nc"))
        found[name] = verify(run, archive, progress=_said(name))
        print(name, found[name].skill("lagrangian").round(3).tolist(), flush=True)
    facts = run.facts
    rows = [{"event": name, **{key: row[key] for key in KEPT}} for name, one in found.items() for row in one.rows()]
    said = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "network": run.identity, "rows": rows}
    record.write_text(json.dumps(plain(said), indent=1) + "\n")
    table = "\n".join(
        f"| {name} | {one.issues} | {a}–{b} | {threshold:g} | {int(one.tallies['network'].events[p, k]):,} of "
        f"{int(one.tallies['network'].cells[p, k]):,} | "
        + " | ".join(f"{one.tallies[other].brier[p, k]:.4f}" for other in ("network", "lagrangian", "persistence"))
        + " |"
        for name, one in found.items()
        for p, (a, b) in enumerate(one.periods)
        for k, threshold in enumerate(one.thresholds)
        if one.tallies["network"].events[p, k] >= 500
    )
    learned_from = "\n".join(
        f"- {one['name']}: {one['credit']}, {one['times'][0]} to {one['times'][1]}" for one in facts["events"]
    )
    (path / CARD).write_text(
        f"""# The run `base`

A network of {facts["network"]["weights"]:,} weights that says, for cells of about 4 km, the chance that
{", ".join(f"{t:g}" for t in facts["thresholds"])} mm/h are reached somewhere in the cell within 0–30, 30–60 and 60–90
minutes, from half an hour of radar frames. Made by `benchmarks/make_base.py`; identity {run.identity}.

## What it learned from

{learned_from}

Three afternoons and nights, forwards and backwards in time; of MRMS 70 minutes only, so that the second and third half
hour rest on KNMI and FMI. It keeps {facts["network"]["share_kept"]:.0%} of what was learned beyond smoothed advection,
and its logits are divided by {facts["calibration"]["temperature"]:g}: both chosen on each radar while that was left
out.

## Limits

No hail, no snow, no mountains, no tropics were in it. Where a radar shows clutter as rain, so will its chances. Three
events cannot make a network that is to be trusted everywhere: train your own as soon as there are a few days of frames.

## How good it is on radars that it never saw

Brier scores (lower is better; {record.name} in the repository's records has all), on all issue times of the event, the
same cells for each. `lagrangian` is advection smoothed the more the longer the lead; how much, the radars above decide.
Nothing was tuned on these events.

| event | issues | minutes ahead | mm/h | reached, of cells | base | lagrangian | persistence |
|---|---|---|---|---|---|---|---|
{table}
""",
        encoding="utf-8",
    )


def _said(name: str) -> Any:
    def said(done: int, total: int, what: str) -> None:
        if done % 20 == 0:
            print(f"{name}: {done} of {total} {what}", file=sys.stderr, flush=True)

    return said


def places_of(event: Event) -> dict[int, int]:
    """Return where the periods of `LAYOUT` stand among an event's."""
    minutes = [(round(a * event.radar.minutes), round(b * event.radar.minutes)) for a, b in event.radar.layout.periods]
    return {i: minutes.index(period) for i, period in enumerate(LAYOUT.periods) if period in minutes}


Unseen = tuple[int, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]


def forecasts(event: Event, network: RainNet) -> list[Unseen]:
    """Return period, both summands of the logits, truth (−1 where not judged) and the baselines' chances."""
    out: list[Unseen] = []
    reference = Reference(np.zeros(0), smoothing([event]))
    for issue in event.issues(SCORED):
        inputs, moved = make_inputs(event.frames, int(issue), event.radar)
        straight, learned = predict_parts(network, inputs)
        outcome = happened(event.frames, int(issue), event.radar)
        judged = observed_now(event.frames, int(issue))[None] & moved.known.numpy()
        truth = np.where(judged, outcome, -1).astype(np.int8)
        others = {
            name: baseline(name, event.frames, int(issue), moved, event.radar, reference)
            for name in ("persistence", "advection", "lagrangian")
        }
        out += [
            (period, straight[at], learned[at], truth[at], {name: chance[at] for name, chance in others.items()})
            for period, at in places_of(event).items()
        ]
    return out


def pooled(unseen: list[Unseen]) -> tuple[float, float]:
    """Return the share of what is learned and the temperature of the least loss, over windows of all sizes."""
    straight, learned = (
        np.concatenate([one[i].reshape(1, len(THRESHOLDS), 1, -1) for one in unseen], axis=3) for i in (1, 2)
    )
    truth = np.concatenate([one[3].reshape(1, 1, -1) for one in unseen], axis=2)
    found = []
    for share in SHARES_KEPT:
        temperature, loss = pooled_temperature([straight + share * learned], [truth])
        found.append((loss, share, temperature))
        print(f"keeping {share:.0%}: temperature {temperature:g}, loss {loss:.5f}")
    return min(found)[1:]


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


def where_and_when(work: Path, name: str) -> dict[str, Any]:
    """Return where and when an event was: what a forecast must not be judged on."""
    archive = Archive.open(work / name)
    start, stop = archive.span or (0, 0)
    times = [show_time(archive.schema.axis.time(slot)) for slot in (start, stop - 1)]
    return {"name": name, "credit": ALLOWED[name], "times": times, "grid": archive.schema.grid.as_attributes()}


if __name__ == "__main__":
    main()
