"""Skill on radars never seen: leave one event out over the real sequences of ../shared/data/radar.

    python benchmarks/skill.py --work FOLDER [--truth maximum|mean] [--only NAME] [--to records/skill.json]

Every event is forecast by a network that was trained on all others (both of MeteoSwiss count as one), as it is: nothing
is tuned or calibrated on what is left out. Beside it, on the same windows and cells: persistence, advection, smoothed
advection (`lagrangian`, how much smoothing is chosen on the training events), and smoothed advection calibrated by
logistic regression on the training events (`straight`). Folds are recorded singly; a killed benchmark goes on.

Not in it: pysteps' own Lagrangian probability, STEPS and S-PROG.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastrain.archive.store import Archive
from fastrain.core.memory import keep_all_memory, peak_bytes
from fastrain.rain.batches import Batches
from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import SPREADS, Reference, baseline, lagrangian
from fastrain.rain.inputs import InputCache, happened, make_inputs
from fastrain.rain.joint import Event, events_of, fit_joint, varied_layout
from fastrain.rain.run import predict, predict_parts
from fastrain.samples.truth import observed_now
from fastrain.verification.tally import Tally

DATA = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "radar"
# Folder or file, and the coarseness whose cells are of about 4 km; what is left out together has one name.
EVENTS = {
    "knmi_2010-08-26": ("knmi", 4),
    "fmi_2016-09-28": ("fmi", 4),
    "mch_2015-05-15": ("mch", 4),
    "mch_2016-07-11": ("mch", 4),
    "bom_2020-10-31": ("bom", 8),
    "opera_2018-08-24": ("opera", 2),
    "mrms_2019-06-10": ("mrms", 4),
    "openmrg_2015-08-27.nc": ("openmrg", 2),
}
THRESHOLDS = (0.1, 1.0, 5.0)
TILES = 2  # of a large map
WINDOWS = 16  # of an event, trained on; as many backwards
SCORED = 16  # of an event, at most
WIDTH = 24
CACHE = 2**30  # bytes of inputs of an event
FORECASTERS = ("network", "straight", "lagrangian", "advection", "persistence")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--truth", choices=["maximum", "mean"], default="maximum")
    parser.add_argument("--only", help="the fold that leaves this out")
    parser.add_argument("--cells", type=float, default=40e6, help="that each network sees")
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    events = [(EVENTS[name][0], event) for name in EVENTS for event in read(name, asked.work, asked.truth)]
    caches: dict[str, InputCache] = {}
    record = asked.to or asked.work / f"skill_{asked.truth}.json"
    settings = {
        "truth": asked.truth,
        "thresholds_mm_h": list(THRESHOLDS),
        "width": WIDTH,
        "cells": int(asked.cells),
        "windows": WINDOWS,
        "scored": SCORED,
    }
    kept = json.loads(record.read_text()) if record.exists() else {"settings": settings, "folds": {}}
    if kept["settings"] != settings:
        sys.exit(f"{record}: holds folds of {kept['settings']}; name another --to.")
    folds = kept["folds"]
    for left_out in dict.fromkeys(group for group, _ in events):
        if left_out in folds or (asked.only and asked.only != left_out):
            continue
        folds[left_out] = fold(left_out, events, caches, int(asked.cells))
        said = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "settings": settings,
            "folds": folds,
            "summary": summary(folds),
        }
        unfinished = record.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(said, indent=1) + "\n")
        unfinished.replace(record)
        show(folds)
    show(folds)


def read(name: str, work: Path, truth: str) -> list[Event]:
    """Return the events of a sequence, by way of an archive."""
    coarseness = EVENTS[name][1]
    path = work / name.removesuffix(".nc")
    if not path.exists():
        command = "from fastrain.cli.main import run; run()"
        more = ["--coarseness", str(coarseness), "--average", "rain_rate", "--workers", "1"]
        # Under another name until it is whole.
        unfinished = path.with_name(f"{path.name}.unfinished")
        subprocess.run(
            [sys.executable, "-c", command, "ingest", DATA / name, "--archive", unfinished, *more], check=True
        )
        unfinished.replace(path)
    archive = Archive.open(path)
    start, stop = archive.span or (0, 0)
    cadence = archive.schema.axis.cadence
    layout = varied_layout(cadence, (stop - start) * cadence)
    return events_of(archive, layout, THRESHOLDS, coarseness=coarseness, truth=truth, tiles=TILES)


def batches_of(events: list[Event], caches: dict[str, InputCache], windows: int) -> list[Batches]:
    """Return batches of events and of the same backwards, each with some windows at most; inputs are made once."""
    out = []
    for event in events:
        for one in (event, event.backwards()):
            cache = caches.setdefault(one.name, InputCache(one.frames, one.radar, CACHE))
            issues = one.issues(windows)
            out.append(Batches(cache, issues, np.ones(len(issues)), seed=0))
    return out


def fold(left_out: str, events: list[tuple[str, Event]], caches: dict[str, InputCache], cells: int) -> dict[str, Any]:
    """Train on all events but one group, and score on that."""
    began, spent = time.monotonic(), time.process_time()
    parts = batches_of([event for group, event in events if group != left_out], caches, WINDOWS)
    prepared = time.process_time() - spent
    network, straight = fit_joint(
        parts, thresholds=len(THRESHOLDS), width=WIDTH, cells=cells, seed=0, progress=_progress(left_out)
    )
    trained = time.process_time() - spent
    del parts
    spread = smoothing([event for group, event in events if group != left_out])
    rows = [row for group, event in events if group == left_out for row in score(event, network, straight, spread)]
    return {
        "rows": rows,
        "spread": spread,
        "weights": sum(p.numel() for p in network.parameters()),
        "cpu_seconds_inputs": round(prepared, 1),
        "cpu_seconds": round(trained, 1),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": peak_bytes() // 2**20,
    }


def _progress(left_out: str) -> Any:
    def said(done: int, total: int, loss: float) -> None:
        if done % 100 == 0 or done == total:
            print(f"{left_out}: {done} of {total}, loss {loss:.4f}", file=sys.stderr, flush=True)

    return said


_ERRORS: dict[str, np.ndarray] = {}


def smoothing(events: list[Event]) -> float:
    """Return the smoothing of the Lagrangian probability with the least mean Brier score over some events."""
    for event in events:
        if event.name in _ERRORS:
            continue
        squared, count = np.zeros(len(SPREADS)), 0
        for issue in event.issues(4):
            _, moved = make_inputs(event.frames, int(issue), event.radar)
            outcome = happened(event.frames, int(issue), event.radar)
            judged = (outcome >= 0) & moved.known.numpy()
            happens = outcome[:, None] > np.arange(len(THRESHOLDS))[None, :, None, None]
            for i, spread in enumerate(SPREADS):
                squared[i] += (((lagrangian(moved, event.radar, spread) - happens) ** 2) * judged[:, None]).sum()
            count += judged.sum()
        _ERRORS[event.name] = squared / max(1, count)
    return SPREADS[int(np.mean([_ERRORS[event.name] / _ERRORS[event.name].min() for event in events], axis=0).argmin())]


def score(event: Event, network: Any, line: Any, spread: float) -> list[dict[str, Any]]:
    """Return a row a period and threshold: counts, and Brier score, mean chance and calibration error of each."""
    radar = event.radar
    shape = (len(radar.layout.periods), len(THRESHOLDS))
    tallies = {name: Tally(np.full(shape, 0.5)) for name in FORECASTERS}
    reference = Reference(np.zeros(shape), spread)
    even = Calibration()
    for issue in event.issues(SCORED):
        inputs, moved = make_inputs(event.frames, int(issue), radar)
        # The line as it was fitted: while the network learns, the line moves with what is learned.
        straight, _ = predict_parts(line, inputs)
        outcome = happened(event.frames, int(issue), radar)
        judged = (outcome >= 0) & observed_now(event.frames, int(issue))[None] & moved.known.numpy()
        reached = outcome[:, None] > np.arange(len(THRESHOLDS))[None, :, None, None]
        chances = {"network": even.chances(predict(network, inputs)), "straight": even.chances(straight)}
        for name in FORECASTERS[2:]:
            chances[name] = baseline(name, event.frames, int(issue), moved, radar, reference)
        for name, tally in tallies.items():
            tally.add(chances[name], reached, judged)
    out = []
    for p, (a, b) in enumerate(radar.layout.periods):
        for k, threshold in enumerate(THRESHOLDS):
            tally = tallies["network"]
            if not tally.cells[p, k]:
                continue
            minutes = [round(edge * radar.minutes) for edge in (a, b)]
            row: dict[str, Any] = {
                "event": event.name,
                "period_min": minutes,
                "moment": b - a == 1,
                "threshold_mm_h": threshold,
                "issues": len(event.issues(SCORED)),
                "cells": int(tally.cells[p, k]),
                "events": int(tally.events[p, k]),
            }
            for name, t in tallies.items():
                count, chance, seen = t.binned[:, p, k]
                row[name] = {
                    "brier": round(float(t.brier[p, k]), 6),
                    "mean_chance": round(float(t.chance[p, k] / t.cells[p, k]), 5),
                    "calibration_error": round(float(np.abs(chance - seen).sum() / count.sum()), 5),
                }
            out.append(row)
    return out


def summary(folds: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, by period and threshold, the mean over events of the network's Brier score over each other's."""
    rows = [{**row, "group": group} for group, one in folds.items() for row in one["rows"] if row["events"] >= 500]
    out = []
    kinds = sorted({(row["period_min"][1], row["moment"], *row["period_min"]) for row in rows})
    for key in dict.fromkeys((end, moment, None if moment else start) for end, moment, start, _ in kinds):
        end, moment, start = key
        if end % 30:
            continue
        for threshold in THRESHOLDS:
            chosen = [
                row
                for row in rows
                if row["threshold_mm_h"] == threshold
                and row["period_min"][1] == end
                and row["moment"] == moment
                and (moment or row["period_min"][0] == start)
            ]
            if not chosen:
                continue
            # Tiles of one map, and both events of one radar family, count as one.
            groups = sorted({row["group"] for row in chosen})
            mean = {
                name: [
                    _mean(chosen, group, lambda r, n=name: r["network"]["brier"] / r[n]["brier"]) for group in groups
                ]
                for name in FORECASTERS[1:]
            }
            area = [
                _mean(chosen, group, lambda r: r["network"]["mean_chance"] * r["cells"] / r["events"])
                for group in groups
            ]
            error = [_mean(chosen, group, lambda r: r["network"]["calibration_error"]) for group in groups]
            out.append(
                {
                    "period_min": "at" if moment else start,
                    "until_min": end,
                    "threshold_mm_h": threshold,
                    "radars": groups,
                    **{f"over_{name}": round(float(np.mean(values)), 4) for name, values in mean.items()},
                    "worst_over_best": round(
                        max(r["network"]["brier"] / min(r[name]["brier"] for name in FORECASTERS[1:]) for r in chosen),
                        4,
                    ),
                    "area": [round(min(area), 2), round(float(np.mean(area)), 2), round(max(area), 2)],
                    "calibration_error": round(float(np.mean(error)), 4),
                }
            )
    return out


def _mean(rows: list[dict[str, Any]], group: str, value: Callable[[dict[str, Any]], float]) -> float:
    return float(np.mean([value(row) for row in rows if row["group"] == group]))


def show(folds: dict[str, Any]) -> None:
    """Print the table: the network's Brier score over the others', a mean over the radars left out so far."""
    print(f"{', '.join(folds)}: the network's Brier score over", flush=True)
    print(
        " period   mm/h radars   straight lagrangian advection persistence  worst/best   area ratio        calibration"
    )
    for row in summary(folds):
        when = f"at {row['until_min']}" if row["period_min"] == "at" else f"{row['period_min']}–{row['until_min']}"
        print(
            f"{when:>8} {row['threshold_mm_h']:>5g} {len(row['radars']):>6} "
            + " ".join(f"{row[f'over_{name}']:>10.3f}" for name in FORECASTERS[1:])
            + f" {row['worst_over_best']:>10.3f}   {row['area']}   {row['calibration_error']:.4f}"
        )


if __name__ == "__main__":
    main()
