"""Skill on radars never seen: leave one radar out over the real sequences of ../shared/data/radar.

    python benchmarks/skill.py --work FOLDER [--only NAME] [--cells N] [--steps] [--to records/skill.json]

Every radar is forecast by a network that was trained on all others (both events of MeteoSwiss count as one) and on
synthetic radar: as it is (`network`), and as `base` does it, learning from what came due before the issue (`adapted`).
Nothing else is tuned or calibrated on what is left out. Two kinds of truth: whether the mean rate of a cell of about 4
km reaches a threshold at a moment, and whether its highest pixel does within half an hour; the former also of cells of
about 2 km, where the radar's pixels are finer. Beside it, on the same windows and cells: persistence, advection,
smoothed advection (`lagrangian`, how much smoothing is chosen on the training radars), the same calibrated by logistic
regression on the training radars (`straight`), how often it happens on those (`climatology`), pysteps' Lagrangian
probability with the motion of its Lucas-Kanade, 1 km of smoothing a minute (`pysteps`), whether its S-PROG reaches the
threshold (`sprog`), and, with --steps, STEPS of 20 members on a few issue times, with its Brier score as it is and
without the penalty of its finite ensemble. Folds are recorded singly; a killed benchmark goes on. The networks stay in
--work, so that a change in how chances are made of them is scored in minutes; delete them there (`fold, *.pt`) when
training itself has changed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError
from fastrain.core.memory import keep_all_memory, peak_bytes
from fastrain.nets.rain_net import RainNet
from fastrain.rain.adapt import PRIOR, Adapter
from fastrain.rain.area import Carried
from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import SPREADS, Network, Reference, baseline, judged_outcome, lagrangian
from fastrain.rain.inputs import make_inputs
from fastrain.rain.joint import HISTORY, Event, events_of, fit_joint, varied_layout
from fastrain.rain.peers import FRAMES, MEMBERS, SPREAD, history_and_motion, peer
from fastrain.rain.radar import happened
from fastrain.rain.run import make_network, predict_parts
from fastrain.samples.layout import Layout
from fastrain.sources.synthetic import KIND
from fastrain.verification.tally import Tally

DATA = Path(os.environ.get("FASTRAIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "radar"
# Folder or file, what is left out together, the coarseness whose cells are of about 4 km, and for each coarseness how
# many tiles are learned from; those of about 4 km are scored on, two at most, and one of half as wide cells.
EVENTS: dict[str, tuple[str, int, dict[int, int]]] = {
    "knmi_2010-08-26": ("knmi", 4, {2: 4, 4: 1, 8: 1}),
    "fmi_2016-09-28": ("fmi", 4, {2: 6, 4: 2, 8: 1}),
    "mch_2015-05-15": ("mch", 4, {2: 2, 4: 1, 8: 1}),
    "mch_2016-07-11": ("mch", 4, {2: 2, 4: 1, 8: 1}),
    "bom_2020-10-31": ("bom", 8, {4: 1, 8: 1}),
    "opera_2018-08-24": ("opera", 2, {2: 8, 4: 4}),
    "mrms_2019-06-10": ("mrms", 4, {2: 4, 4: 8, 8: 4}),
    "openmrg_2015-08-27.nc": ("openmrg", 2, {2: 1}),
}
THRESHOLDS = (0.1, 1.0, 5.0)
KINDS = {"mean": "moment", "maximum": "half hour"}  # truth, and of what
HALF_HOURS = (30, 60, 90)  # minutes: ends of half hours, and moments
SCORED_TILES = {4: 2, 2: 1}  # by the edge of a cell, km, about
SUBJECTS = (
    "network",
    "adapted",
    "looser",
)  # as it was trained; and learning from the radar's own last hours as it goes
LOOSER = 0.8  # prior of a correction that follows the last hours more readily
FEWEST = 500  # cells in which a threshold was reached, and in which not, for a ratio of scores to say something
SCORED, SCORED_CELLS = 12, 200_000  # windows of an event; of a small map more, up to so many cells of all together
STEPS_ISSUES = 3
WIDTH = 24
MADE, MADE_RADARS = "synthetic", 32
OWN = ("network", "adapted", "looser", "straight", "lagrangian", "advection", "persistence", "climatology")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", help="the fold that leaves this out")
    parser.add_argument("--cells", type=float, default=60e6, help="that each network sees; 0 for STEPS alone")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--synthetic", action=argparse.BooleanOptionalAction, default=True, help="learn from such too")
    parser.add_argument("--steps", action="store_true", help="STEPS too (needs pysteps, takes many minutes)")
    parser.add_argument("--to", type=Path)
    asked = parser.parse_args()
    keep_all_memory()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    radars = read_all(asked.work, synthetic=asked.synthetic)
    record = asked.to or asked.work / "skill.json"
    settings = {
        "thresholds_mm_h": list(THRESHOLDS),
        "width": asked.width,
        "cells": int(asked.cells),
        "scored": SCORED,
        "scored_cells": SCORED_CELLS,
        "synthetic": asked.synthetic,
        "steps": asked.steps,
    }
    kept = json.loads(record.read_text()) if record.exists() else {"settings": settings, "folds": {}}
    if kept["settings"] != settings:
        sys.exit(f"{record}: holds folds of {kept['settings']}; name another --to.")
    folds = kept["folds"]
    if asked.steps:
        # First, as they depend on no network.
        for group in [group for group in radars if group != MADE]:
            for event in scored_on(radars, group):
                mine = asked_for(event, "mean")
                for issue in mine.issues(STEPS_ISSUES):
                    pysteps_steps(mine, int(issue), asked.work)
    if asked.cells == 0:
        return
    for left_out in [group for group in radars if group != MADE]:
        if left_out in folds or (asked.only and left_out not in asked.only.split(",")):
            continue
        folds[left_out] = fold(left_out, radars, asked.width, int(asked.cells), asked.work, steps=asked.steps)
        said = {
            **machine(),
            "settings": settings,
            "folds": folds,
            "summary": summary(folds),
        }
        unfinished = record.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(said, indent=1) + "\n")
        unfinished.replace(record)
        show(folds)
    show(folds)


def read_all(work: Path, names: tuple[str, ...] = tuple(EVENTS), synthetic: bool = True) -> dict[str, list[Event]]:
    """Return the events of each radar: those learned from, the ones scored on first."""
    out: dict[str, list[Event]] = {}
    for name in names:
        group, scored, tiles = EVENTS[name]
        archive = ingested(DATA / name, work / name.removesuffix(".nc"), tuple(sorted(tiles)))
        for coarseness in sorted(tiles, key=lambda c: c != scored):
            out.setdefault(group, []).extend(events_in(archive, coarseness, tiles[coarseness]))
    return out | ({MADE: made(work)} if synthetic else {})


def made(work: Path) -> list[Event]:
    """Return the events of synthetic radars of many kinds of weather, within what the real ones show (LOG.md)."""
    out: list[Event] = []
    for i in range(MADE_RADARS):
        draw = np.random.default_rng([77, i])
        weather = {
            "rows": 384,
            "columns": 384,
            "pixel_km": 2.0,
            "cadence_minutes": int(draw.choice([5, 5, 5, 10])),
            "seed": i,
            "wet": _even_in_ratio(draw, 0.05, 0.6),
            "swing": float(draw.uniform(0.1, 0.6)),
            "swing_hours": float(draw.uniform(2, 8)),
            "spread": _even_in_ratio(draw, 7, 25),
            "slope": float(draw.uniform(2.3, 3.2)),
            "outer_km": float(draw.uniform(150, 500)),
            "life_minutes": _even_in_ratio(draw, 8, 35),
            "life_exponent": float(draw.uniform(1.2, 1.7)),
            "speed": float(draw.uniform(0, 90)),
            "direction": float(draw.uniform(0, 360)),
            "turning": float(4 * draw.normal()),
            "veer": float(draw.uniform(0, 15)),
            "stretch": float(np.exp(abs(0.5 * draw.normal()))),
            "stretch_direction": float(draw.uniform(0, 180)),
            "clutter": 0.002 if draw.random() < 0.3 else 0.0,
            "blind": 1.0 if draw.random() < 0.5 else 2.0,
            "frames": 48 if draw.random() < 0.4 else 40,
        }
        described = work / f"{MADE}_{i:02}.toml"
        lines = [f'fastrain = "{KIND}"', *(f"{name} = {value}" for name, value in weather.items())]
        described.write_text("\n".join(lines) + "\n")
        archive = ingested(described, work / described.stem, (2, 4))
        out += [event for c in (2, 4) for event in events_in(archive, c, 1)]
    return out


def _even_in_ratio(draw: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def events_in(archive: Archive, coarseness: int, tiles: int) -> list[Event]:
    """Return the events of an archive at a coarseness, with many kinds of periods."""
    start, stop = archive.span or (0, 0)
    cadence = archive.schema.axis.cadence
    layout = varied_layout(cadence, (stop - start) * cadence)
    return events_of(archive, layout, THRESHOLDS, coarseness=coarseness, tiles=tiles)


def ingested(source: Path, path: Path, coarseness: tuple[int, ...]) -> Archive:
    """Return the archive of a sequence, made if it is not there."""
    if not path.exists():
        more = ["--coarseness", ",".join(map(str, coarseness)), "--average", "rain_rate", "--workers", "1"]
        # Under another name until it is whole.
        unfinished = path.with_name(f"{path.name}.unfinished")
        subprocess.run([sys.executable, "-m", "fastrain", "ingest", source, "--archive", unfinished, *more], check=True)
        unfinished.replace(path)
    return Archive.open(path)


def scored_on(radars: dict[str, list[Event]], group: str, km: int = 4) -> list[Event]:
    """Return the events of a radar that are scored, of cells of about 4 or 2 km; few tiles of each."""
    out = []
    for name, (of, coarseness, _) in EVENTS.items():
        if of == group:
            wanted = coarseness * km // 4
            mine = [e for e in radars[group] if e.name.startswith(name.removesuffix(".nc")) and e.coarseness == wanted]
            out += mine[: SCORED_TILES[km]]
    return out


def asked_for(event: Event, truth: str) -> Event:
    """Return an event with the periods that are scored: moments of means, half hours of maxima."""
    step = event.radar.minutes
    furthest = event.layout.periods[-1][1]
    ends = [end for end in HALF_HOURS if end <= furthest and not end % step]
    periods = tuple((round(end - step) if truth == "mean" else end - 30, end) for end in ends)
    layout = Layout(HISTORY, periods)
    radar = replace(event.radar, layout=layout.frames(event.radar.cadence), truth=truth)
    return replace(event, radar=radar, layout=layout)


def learned(
    name: str, learned_from: list[list[Event]], width: int, cells: int, work: Path
) -> tuple[RainNet, RainNet, float, float]:
    """Return the network that some radars taught, the straight line it began from, and the CPU and wall time.

    It is kept in the work folder under its name, so that a benchmark that was killed goes on.
    """
    names = "\n".join(f"{event.name}, {event.coarseness}" for events in learned_from for event in events)
    of = hashlib.sha256(names.encode()).hexdigest()[:8]
    path = work / f"fold, {name}, {width}, {cells}, {of}.pt"
    if not path.exists():
        began, spent = time.monotonic(), time.process_time()
        fitted = fit_joint(learned_from, width=width, cells=cells, seed=0, progress=_progress(name))
        took = time.process_time() - spent, time.monotonic() - began
        unfinished = path.with_suffix(".unfinished")
        torch.save((*(one.state_dict() for one in fitted), *took), unfinished)
        unfinished.replace(path)
    *states, spent, seconds = torch.load(path)
    network, line = (make_network(len(THRESHOLDS), width).eval() for _ in states)
    for one, state in zip((network, line), states, strict=True):
        one.load_state_dict(state)
    return network, line, spent, seconds


def fold(
    left_out: str, radars: dict[str, list[Event]], width: int, cells: int, work: Path, *, steps: bool
) -> dict[str, Any]:
    """Train on all radars but one, and score on that."""
    began = time.monotonic()
    learned_from = [events for group, events in radars.items() if group != left_out]
    network, straight, trained, seconds = learned(left_out, learned_from, width, cells, work)
    rows: list[dict[str, Any]] = []
    spreads = {}
    for truth in KINDS:
        others = [asked_for(e, truth) for group in radars if group != left_out for e in scored_on(radars, group)]
        spreads[truth] = smoothing(others)
        usual = climatology(others)
        for km in SCORED_TILES if truth == "mean" else (4,):
            for event in scored_on(radars, left_out, km):
                mine = asked_for(event, truth)
                often = np.stack([usual[round(b * mine.radar.minutes)] for _, b in mine.radar.layout.periods])
                reference = Reference(often, spreads[truth])
                found = score(mine, network, straight, reference, work if steps and km == 4 else None)
                rows += [{**row, "cell_km": km} for row in found]
    return {
        "rows": rows,
        "spread": spreads,
        "weights": sum(p.numel() for p in network.parameters()),
        "cpu_seconds_training": round(trained, 1),
        "seconds_training": round(seconds, 1),
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": peak_bytes() // 2**20,
    }


def _progress(left_out: str) -> Any:
    def said(done: int, total: int, loss: float) -> None:
        if done % 100 == 0 or done == total:
            print(f"{left_out}: {done} of {total}, loss {loss:.4f}", file=sys.stderr, flush=True)

    return said


_ERRORS: dict[tuple[str, str], np.ndarray] = {}


def smoothing(events: list[Event]) -> float:
    """Return the smoothing of the Lagrangian probability with the least mean Brier score over some events."""
    found = []
    for event in events:
        key = (event.name, event.radar.truth)
        if key not in _ERRORS:
            squared, count = np.zeros(len(SPREADS)), 0
            for issue in event.issues(4):
                _, moved = make_inputs(event.frames, int(issue), event.radar)
                outcome = happened(event.frames, int(issue), event.radar)
                judged = (outcome >= 0) & moved.known.numpy()
                happens = outcome[:, None] > np.arange(len(THRESHOLDS))[None, :, None, None]
                for i, spread in enumerate(SPREADS):
                    squared[i] += (((lagrangian(moved, event.radar, spread) - happens) ** 2) * judged[:, None]).sum()
                count += judged.sum()
            _ERRORS[key] = squared / max(1, count)
        found.append(_ERRORS[key] / _ERRORS[key].min())
    return SPREADS[int(np.mean(found, axis=0).argmin())]


def climatology(events: list[Event]) -> dict[int, np.ndarray]:
    """Return how often each threshold is reached in the period that ends so many minutes ahead, a mean over windows."""
    shares: dict[int, list[np.ndarray]] = {}
    for event in events:
        for issue in event.issues(SCORED):
            outcome = happened(event.frames, int(issue), event.radar)
            for (_, end), of_period in zip(event.radar.layout.periods, outcome, strict=True):
                seen = of_period >= 0
                often = np.array([(of_period > k)[seen].mean() for k in range(len(THRESHOLDS))])
                shares.setdefault(round(end * event.radar.minutes), []).append(often)
    return {end: np.mean(found, axis=0) for end, found in shares.items()}


def score(event: Event, network: Any, line: Any, reference: Reference, steps: Path | None) -> list[dict[str, Any]]:
    """Return a row a period and threshold: counts, and Brier score, mean chance and calibration error of each."""
    radar = event.radar
    shape = (len(radar.layout.periods), len(THRESHOLDS))
    moments = radar.truth == "mean"
    names = [*OWN, *(["pysteps"] if moments else [])]
    tallies = {name: Tally(np.full(shape, 0.5)) for name in names}
    issues = event.issues(max(SCORED, SCORED_CELLS // event.frames.maximum[0].size))
    # Of pysteps' models that are asked at few issue times, or fail at some: the others again, on what those know alone.
    asked = {"sprog": set(issues.tolist()), "steps": set(event.issues(STEPS_ISSUES).tolist()) if steps else set()}
    if not moments or radar.layout.history < FRAMES:
        asked = {}
    few = {
        model: {name: Tally(np.full(shape, 0.5), MEMBERS if name == "steps" else None) for name in (*names, model)}
        for model in asked
    }
    failed = dict.fromkeys(asked, 0)
    even = Calibration()
    adapters = {
        name: Adapter(radar.layout.periods, radar.minutes, len(THRESHOLDS), radar.cell_km, prior=prior)
        for name, prior in (("adapted", PRIOR), ("looser", LOOSER))
    }
    of_network = partial(predict_parts, network)
    learning = {name: Network(of_network, even, adapter) for name, adapter in adapters.items()}
    # Those between are what the adapted chances learn from.
    between = {int(issue) for issue in event.issues() if issue % adapters["adapted"].every == 0}
    for issue in sorted({*issues.tolist(), *between}.union(*asked.values())):
        inputs, moved = make_inputs(event.frames, int(issue), radar, every=False)
        straight, learned = predict_parts(network, inputs)
        # The line as it was fitted: while the network learns, the line moves with what is learned.
        before, _ = predict_parts(line, inputs)
        outcome = happened(event.frames, int(issue), radar)
        due = judged_outcome(event.frames, int(issue), outcome, moved)
        judged = due >= 0
        reached = outcome[:, None] > np.arange(len(THRESHOLDS))[None, :, None, None]
        held = learning["adapted"].held((straight, learned), Carried.of(event.frames, issue, moved, radar), radar)
        for one in learning.values():
            one.remember(issue, held, due)
        if issue not in issues and not any(issue in some for some in asked.values()):
            continue
        chances = {
            "network": even.chances(straight + learned),
            **{name: one.chances(held, issue) for name, one in learning.items()},
            "straight": even.chances(before),
        }
        for name in OWN[4:]:
            chances[name] = baseline(name, event.frames, int(issue), inputs, moved, radar, reference)
        if moments:
            chances["pysteps"] = pysteps_lagrangian(event, int(issue))
            # On the same cells: those that both advections reach.
            judged = judged & np.isfinite(chances["pysteps"]).all(axis=1)
        for model in [model for model, some in asked.items() if issue in some]:
            found = (
                peer("sprog", event.frames, issue, radar) if model == "sprog" else pysteps_steps(event, issue, steps)
            )
            known = np.isfinite(found).all(axis=1)
            failed[model] += not known.any()
            for name, tally in few[model].items():
                tally.add(np.nan_to_num({**chances, model: found}[name]), reached, judged & known)
        if issue in issues:
            for name, tally in tallies.items():
                tally.add(np.nan_to_num(chances[name]), reached, judged)
    rows = list(_rows(event, tallies, len(issues)))
    for model, tallied in few.items():
        for row, (p, k) in zip(rows, np.ndindex(*shape), strict=True):
            tally = tallied[model]
            if tally.cells[p, k]:
                row[f"beside_{model}"] = {
                    "issues": len(asked[model]),
                    "failed": failed[model],
                    "cells": int(tally.cells[p, k]),
                    "events": int(tally.events[p, k]),
                    **{name: round(float(t.brier[p, k]), 6) for name, t in tallied.items()},
                    f"{model}_corrected": round(float(tally.brier[p, k] - tally.penalty[p, k] / tally.cells[p, k]), 6),
                }
    return [row for row in rows if row["cells"]]


def _rows(event: Event, tallies: dict[str, Tally], issues: int) -> Iterator[dict[str, Any]]:
    radar = event.radar
    for p, (_, b) in enumerate(radar.layout.periods):
        for k, threshold in enumerate(THRESHOLDS):
            tally = tallies["network"]
            row: dict[str, Any] = {
                "event": event.name,
                "truth": radar.truth,
                "minutes": round(b * radar.minutes),
                "threshold_mm_h": threshold,
                "issues": issues,
                "cells": int(tally.cells[p, k]),
                "events": int(tally.events[p, k]),
            }
            for name, t in tallies.items():
                row[name] = {
                    "brier": round(float(t.brier[p, k]), 6),
                    "mean_chance": round(float(t.chance[p, k] / max(1, t.cells[p, k])), 5),
                    "calibration_error": round(float(t.calibration_error[p, k]), 5),
                }
            yield row


def pysteps_lagrangian(event: Event, issue: int) -> np.ndarray:
    """Return the Lagrangian probability of pysteps itself, (period, threshold, y, x), NaN where it knows nothing."""
    from pysteps.nowcasts import lagrangian_probability

    radar = event.radar
    rate, found = history_and_motion(event.frames, issue, radar)
    slope = SPREAD * radar.minutes / radar.cell_km  # cells a frame
    ends = [b for _, b in radar.layout.periods]
    out = []
    for threshold in radar.thresholds:
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(invalid="ignore"):
            out.append(lagrangian_probability.forecast(rate[-1], found, ends, threshold * (1 - 1e-6), slope=slope))
    return np.stack(out, axis=1)


def pysteps_steps(event: Event, issue: int, kept: Path) -> np.ndarray:
    """Return the share of STEPS' members that reach each threshold, (period, threshold, y, x); made once, then kept."""
    ages = "-".join(str(age) for age in event.radar.motion_ages)
    path = kept / f"steps, {event.name}, {event.coarseness}, {issue}, motion of {ages}.npy"
    if not path.exists():
        try:
            chance = peer("steps", event.frames, issue, event.radar)
        except SettingError as error:
            # Absent, and said so.
            print(f"{event.name}: {error}", file=sys.stderr, flush=True)
            chance = np.full(
                (len(event.radar.layout.periods), len(THRESHOLDS), *event.frames.maximum.shape[1:]), np.nan
            )
        np.save(path, chance.astype(np.float32))
    return np.asarray(np.load(path))


def summary(folds: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, by truth, lead and threshold, the mean over radars of a forecaster's Brier score over each other's."""
    rows = [
        {**row, "group": group}
        for group, one in folds.items()
        for row in one["rows"]
        if FEWEST <= row["events"] <= row["cells"] - FEWEST
    ]
    out = []
    for subject in SUBJECTS:
        for truth in KINDS:
            for minutes in HALF_HOURS:
                for threshold in THRESHOLDS:
                    for km in SCORED_TILES:
                        found = {"truth": truth, "minutes": minutes, "threshold_mm_h": threshold, "cell_km": km}
                        chosen = [r for r in rows if all(r[name] == value for name, value in found.items())]
                        if chosen:
                            out.append({"forecaster": subject, **found, **_summed(chosen, subject)})
    return out


def _summed(chosen: list[dict[str, Any]], subject: str) -> dict[str, Any]:
    # Tiles of one map, and both events of one radar family, count as one.
    groups = sorted({row["group"] for row in chosen})
    baselines = [name for name in (*OWN[3:], "pysteps") if name in chosen[0]]

    def each(value: Callable[[dict[str, Any]], float]) -> list[float]:
        return [float(np.mean([value(row) for row in chosen if row["group"] == group])) for group in groups]

    def over(name: str) -> float:
        return round(float(np.mean(each(lambda r: r[subject]["brier"] / r[name]["brier"]))), 4)

    area = each(lambda r: r[subject]["mean_chance"] * r["cells"] / r["events"])
    best = [r[subject]["brier"] / min(r[name]["brier"] for name in baselines) for r in chosen]
    found: dict[str, Any] = {
        "radars": groups,
        **{f"over_{name}": over(name) for name in baselines},
        "worst_over_best": round(max(best), 4),
        "area": [round(min(area), 2), round(float(np.mean(area)), 2), round(max(area), 2)],
        "calibration_error": round(float(np.mean(each(lambda r: r[subject]["calibration_error"]))), 4),
    }
    for model, name in (("steps", "steps"), ("steps", "steps_corrected"), ("sprog", "sprog")):
        at = f"beside_{model}"
        beside = [r for r in chosen if r.get(at, {}).get("events", 0) >= FEWEST]
        by_radar = [
            np.mean([r[at][subject] / r[at][name] for r in beside if r["group"] == group])
            for group in sorted({r["group"] for r in beside})
        ]
        if by_radar:
            found[f"over_{name}"] = round(float(np.mean(by_radar)), 4)
    return found


def show(folds: dict[str, Any]) -> None:
    """Print the tables: a forecaster's Brier score over the others', a mean over the radars left out so far."""
    names = ("straight", "lagrangian", "pysteps", "steps", "steps_corrected", "sprog", *OWN[5:])
    for subject in SUBJECTS:
        print(f"{', '.join(folds)}: Brier score of the {subject} chances over those of", flush=True)
        print(
            "   truth km  min  mm/h radars "
            + " ".join(f"{name.replace('_corrected', '*'):>10}" for name in names)
            + "  worst/best   area ratio        calibration"
        )
        for row in summary(folds):
            if row["forecaster"] == subject:
                cells = " ".join(
                    f"{row[f'over_{name}']:>10.3f}" if f"over_{name}" in row else f"{'absent':>10}" for name in names
                )
                print(
                    f"{row['truth']:>8} {row['cell_km']:>2} {row['minutes']:>4} {row['threshold_mm_h']:>5g}"
                    f" {len(row['radars']):>6} {cells} {row['worst_over_best']:>10.3f}   {row['area']}"
                    f"   {row['calibration_error']:.4f}"
                )


if __name__ == "__main__":
    main()
