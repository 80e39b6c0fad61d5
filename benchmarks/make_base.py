"""Make the run that ships in the package, `base`: trained on the radars whose licence allows it, and on synthetic ones.

    python benchmarks/make_base.py --work FOLDER [--to src/fastrain/rain/base]
    python benchmarks/make_base.py --work FOLDER --score records/base.json

Each of the real radars is left out once, to choose how much of what is learned to keep, one temperature for the chances
and the chance from which on a forecast counts as yes, on weather that the network did not see; then one network is
trained on all of them. It speaks of maxima and of means. The second call scores it, as `fastrain verify` does, on
radars that it never saw, and writes its card.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from skill import MADE, SCORED, THRESHOLDS, WIDTH, climatology, learned, read_all, scored_on, smoothing

from fastrain.archive.store import Archive
from fastrain.cli.show import plain
from fastrain.core.memory import keep_all_memory
from fastrain.core.time import show_time
from fastrain.core.version import version
from fastrain.nets.rain_net import RainNet
from fastrain.rain.adapt import Adapter
from fastrain.rain.area import Carried
from fastrain.rain.chances import Calibration, pooled_temperature
from fastrain.rain.hindcast import Network, Reference, baseline, judged_outcome
from fastrain.rain.inputs import make_inputs
from fastrain.rain.joint import HISTORY, Draws, Event
from fastrain.rain.radar import TRUTHS, Truth, happened
from fastrain.rain.run import FACTS, RUN_VERSION, SHIPPED_WEIGHTS, network_identity, open_run, predict_parts
from fastrain.rain.settle import SHARES_KEPT
from fastrain.rain.straight import StraightLine
from fastrain.rain.verify import verify
from fastrain.samples.layout import GUARD, Layout
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
SHAPE = (len(LAYOUT.periods), len(THRESHOLDS))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cells", type=float, default=60e6)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "src/fastrain/rain/base")
    parser.add_argument("--score", type=Path, metavar="RECORD")
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    if asked.score:
        score(asked.to, asked.work, asked.score)
        return
    asked.work.mkdir(parents=True, exist_ok=True)
    radars = read_all(asked.work, tuple(ALLOWED))
    real = [group for group in radars if group != MADE]

    took = {"cpu_seconds": 0.0, "seconds": 0.0}

    def trained(name: str, groups: list[str]) -> tuple[RainNet, StraightLine]:
        learned_from = [radars[group] for group in groups]
        network, line, spent, seconds = learned(name, learned_from, asked.width, int(asked.cells), asked.work)
        took["cpu_seconds"] += spent
        took["seconds"] += seconds
        return network, StraightLine.of(line.straight, len(THRESHOLDS))

    unseen: dict[Truth, list[list[Unseen]]] = {truth: [] for truth in TRUTHS}
    for left_out in real:
        network, line = trained(f"base without {left_out}", [group for group in radars if group != left_out])
        for event in scored_on(radars, left_out):
            for truth in TRUTHS:
                unseen[truth].append(forecasts(asked_of(event, truth), network, line))
    windows = [one for truth in TRUTHS for event in unseen[truth] for one in event]
    share, temperature = pooled(windows)
    of_line = Calibration(round(pooled_temperature([flat(windows, "alone")], [flat_truth(windows)])[0], 4))
    network, line = trained("base", list(radars))
    all_scored = [event for group in real for event in scored_on(radars, group)]
    of_truth = {}
    for truth in TRUTHS:
        mine = [asked_of(event, truth) for event in all_scored]
        found = climatology(mine)
        usual = np.stack([found[end] for _, end in LAYOUT.periods]).round(5)
        of_truth[truth] = {
            "reference": Reference(usual, smoothing(mine), line, of_line).as_attributes(),
            "decide": deciders(unseen[truth], share, temperature, of_line),
        }
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
        **of_truth["maximum"],
        "means": of_truth["mean"],
        "network": {
            "identity": network_identity(network),
            "width": asked.width,
            "weights": sum(p.numel() for p in network.parameters()),
            "steps": Draws.steps(int(asked.cells)),
            "share_kept": share,
        },
        "settings": {"truth": "maximum", "cells": int(asked.cells)},
        **{name: round(value, 1) for name, value in took.items()},  # of all its trainings, those on fewer included
    }
    asked.to.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, str(asked.to / SHIPPED_WEIGHTS))
    (asked.to / FACTS).write_text(json.dumps(plain(facts), indent=1) + "\n", encoding="utf-8")
    print(f"{asked.to}: keeps {share:.0%}, temperature {temperature:.3f}, yes from {facts['decide']['network']}")


def asked_of(event: Event, truth: Truth) -> Event:
    """Return an event with those of the periods of the run that it is long enough for."""
    furthest = event.layout.periods[-1][1]
    layout = Layout(HISTORY, tuple(period for period in LAYOUT.periods if period[1] <= furthest))
    radar = replace(event.radar, layout=layout.frames(event.radar.cadence), truth=truth)
    return replace(event, radar=radar, layout=layout)


def score(path: Path, work: Path, record: Path) -> None:
    """Score the run on radars that it never saw; write the record, and the card with its table."""
    run = open_run(path)
    found: dict[tuple[str, Truth], Any] = {}
    for name in UNSEEN:
        archive = Archive.open(work / name.removesuffix(".nc"))
        for truth in TRUTHS:
            one = verify(run.speaking_of(truth), archive, progress=_said(name))
            print(name, truth, one.skill("lagrangian").round(3).tolist(), flush=True)
            found[name, truth] = one
    facts = run.facts
    rows = [
        {"event": name, "truth": truth, **{key: row[key] for key in KEPT}}
        for (name, truth), one in found.items()
        for row in one.rows()
    ]
    said = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "network": run.identity, "rows": rows}
    record.write_text(json.dumps(plain(said), indent=1) + "\n")
    table = "\n".join(
        f"| {name} | {truth} | {one.issues} | {a}–{b} | {threshold:g} "
        f"| {int(one.tallies['network'].events[p, k]):,} of {int(one.tallies['network'].cells[p, k]):,} | "
        + " | ".join(f"{one.tallies[other].brier[p, k]:.4f}" for other in ("network", "lagrangian", "persistence"))
        + " |"
        for (name, truth), one in found.items()
        for p, (a, b) in enumerate(one.periods)
        for k, threshold in enumerate(one.thresholds)
        if one.tallies["network"].events[p, k] >= 500
    )
    learned_from = "\n".join(
        f"- {one['name']}: {one['credit']}, {one['times'][0]} to {one['times'][1]}" for one in facts["events"]
    )
    digests = "\n\n".join(
        f"{one['name']}, {len(one['digests'])} frames:\n\n```\n"
        + "\n".join(" ".join(one["digests"][i : i + 3]) for i in range(0, len(one["digests"]), 3))
        + "\n```"
        for one in facts["events"]
    )
    (path / CARD).write_text(
        f"""# The run `base`

A network of {facts["network"]["weights"]:,} weights that says, for cells of about 4 km, the chance that
{", ".join(f"{t:g}" for t in facts["thresholds"])} mm/h are reached within 0–30, 30–60 and 60–90 minutes, from half an
hour of radar frames: somewhere in the cell (truth: maximum), or by the cell's mean (`--truth mean`). Made by
`benchmarks/make_base.py`; identity {run.identity}.

## What it learned from

{learned_from}

and synthetic radar of 32 kinds of weather (`fastrain.sources.synthetic`), as often as each of the real ones. Three
afternoons and nights, forwards and backwards in time, at cells of about 2, 4 and 8 km, several cadences, weaker and
stronger; of MRMS 70 minutes only, so that the second and third half hour rest on KNMI, FMI and made rain. It keeps
{facts["network"]["share_kept"]:.0%} of what was learned beyond the first guesses, and its logits are divided by
{facts["calibration"]["temperature"]:g}: both chosen on each real radar while that was left out.

A forecast with it holds its chances near the area of rain that is on its way (`fastrain.rain.area`). It also looks at
what it would have said in the last four hours, as far as that has come due, and corrects its chances by what came
(`fastrain.rain.adapt`). So do the scores below, issue time by issue time.

## Limits

No hail, no snow, no mountains, no tropics were in it. Where a radar shows clutter as rain, so will its chances. Three
events cannot make a network that is to be trusted everywhere: train your own as soon as there are a few days of frames.

## How good it is on radars that it never saw

Brier scores (lower is better; {record.name} in the repository's records has all), on all issue times of the event, the
same cells for each. `lagrangian` is advection smoothed the more the longer the lead; how much, the radars above decide.
Nothing was tuned on these events.

| event | truth | issues | minutes ahead | mm/h | reached, of cells | base | lagrangian | persistence |
|---|---|---|---|---|---|---|---|---|
{table}

## The frames that it saw

First 16 bytes of the SHA-256 digest of each frame's levels, as an archive keeps them. `fastrain verify` scores no
window that has one of them, or that lies on the ground and in the time of the events above.

{digests}
""",
        encoding="utf-8",
    )


def _said(name: str) -> Any:
    def said(done: int, total: int, what: str) -> None:
        if done % 20 == 0:
            print(f"{name}: {done} of {total} {what}", file=sys.stderr, flush=True)

    return said


@dataclass(frozen=True)
class Unseen:
    """One window of a radar that the network did not learn from, all its periods.

    Attributes:
        issue: slot.
        event: that it is of.
        straight, learned: both summands of the logits.
        alone: logits of the straight line as it was fitted.
        carried: what advection carries.
        truth: thresholds reached, −1 where not judged.
        others: chances of the baselines.
    """

    issue: int
    event: Event
    straight: np.ndarray
    learned: np.ndarray
    alone: np.ndarray
    carried: Carried
    truth: np.ndarray
    others: dict[str, np.ndarray]


def forecasts(event: Event, network: RainNet, line: StraightLine) -> list[Unseen]:
    """Return forecasts of windows spread over an event."""
    out: list[Unseen] = []
    reference = Reference(np.zeros(0), smoothing([event]))
    every = Adapter(event.radar.layout.periods, event.radar.minutes, len(THRESHOLDS), event.radar.cell_km).every
    learned_from = [issue for issue in event.issues() if issue % every == 0]
    for issue in sorted({*event.issues(SCORED).tolist(), *learned_from}):
        inputs, moved = make_inputs(event.frames, int(issue), event.radar, every=False)
        straight, learned = predict_parts(network, inputs)
        outcome = happened(event.frames, int(issue), event.radar)
        others = {
            name: baseline(name, event.frames, int(issue), inputs, moved, event.radar, reference)
            for name in ("persistence", "advection", "lagrangian")
        }
        truth = judged_outcome(event.frames, int(issue), outcome, moved)
        carried = Carried.of(event.frames, int(issue), moved, event.radar)
        alone = line.logits(inputs.guess, inputs.known)
        out.append(Unseen(int(issue), event, straight, learned, alone, carried, truth, others))
    return out


def flat(unseen: list[Unseen], field: str) -> np.ndarray:
    """Return some logits of windows of all sizes, cell beside cell, as of one map."""
    parts = [getattr(one, field).swapaxes(0, 1).reshape(1, len(THRESHOLDS), 1, -1) for one in unseen]
    return np.concatenate(parts, axis=3)


def flat_truth(unseen: list[Unseen]) -> np.ndarray:
    """Return what came, as of the one map of `flat`."""
    return np.concatenate([one.truth.reshape(1, 1, -1) for one in unseen], axis=2)


def pooled(unseen: list[Unseen]) -> tuple[float, float]:
    """Return the share of what is learned and the temperature of the least loss, over windows of all sizes."""
    straight, learned = flat(unseen, "straight"), flat(unseen, "learned")
    truth = flat_truth(unseen)
    found = []
    for share in SHARES_KEPT:
        temperature, loss = pooled_temperature([straight + share * learned], [truth])
        found.append((loss, share, temperature))
        print(f"keeping {share:.0%}: temperature {temperature:g}, loss {loss:.5f}")
    return min(found)[1:]


def deciders(unseen: list[list[Unseen]], share: float, temperature: float, of_line: Calibration) -> dict[str, Any]:
    """Return, for each forecaster, from which chance on yes gives the highest CSI; the network's learn as they go."""
    out: dict[str, Decider] = {}
    for event in unseen:
        radar = event[0].event.radar
        adapter = Adapter(radar.layout.periods, radar.minutes, len(THRESHOLDS), radar.cell_km)
        network = Network(lambda _: NotImplemented, Calibration(temperature), adapter)
        for one in event:
            parts = network.held((one.straight, share * one.learned), one.carried, radar)
            chances = {"network": network.chances(parts, one.issue), **one.others}
            chances["calibrated"] = of_line.chances(one.alone)
            network.remember(one.issue, parts, one.truth)
            for name, chance in chances.items():
                # An event may be too short for the later periods.
                whole, seen = np.zeros((*SHAPE, *chance.shape[2:])), np.zeros((SHAPE[0], *chance.shape[2:]), bool)
                whole[: len(chance)], seen[: len(chance)] = chance, one.truth >= 0
                truth = np.zeros(seen.shape, np.int8)
                truth[: len(chance)] = one.truth
                happens = truth[:, None] > np.arange(SHAPE[1])[None, :, None, None]
                out.setdefault(name, Decider(SHAPE)).add(whole, happens, seen)
    return {name: decider.best().tolist() for name, decider in out.items()}


def where_and_when(work: Path, name: str) -> dict[str, Any]:
    """Return where and when an event was, and its frames' digests: what a forecast must not be judged on."""
    archive = Archive.open(work / name)
    start, stop = archive.span or (0, 0)
    times = [show_time(archive.schema.axis.time(slot)) for slot in (start, stop - 1)]
    # A frame without rain says nothing of when and where it was.
    telling = archive.observed(start, stop) & (archive.slots("wet_pixels", start, stop) > 0)
    digests = archive.slots("digest", start, stop)[telling]
    return {
        "name": name,
        "credit": ALLOWED[name],
        "times": times,
        "grid": archive.schema.grid.as_attributes(),
        "digests": [digest.tobytes().hex() for digest in digests],
    }


if __name__ == "__main__":
    main()
