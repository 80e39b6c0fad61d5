"""The price of coarse-graining: what does each cut cost in skill, what does it save, and what wins the loss back?

The first work's own question. The variants are trained and judged on the same windows and truth, each in a process of
its own; one that is done is kept in the folder and not done again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError, TooBig
from fastrain.core.files import require_folder, write_whole
from fastrain.core.processes import end_with_parent
from fastrain.engine.precision import fast_precision
from fastrain.rain.coarse import costs, measure
from fastrain.rain.cut_times import left_out, own_time
from fastrain.rain.cuts import SEES, Scale, Variant, thresholds_of
from fastrain.rain.new_run import frames_identity
from fastrain.verification.intervals import skill_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES, TABLE, PICTURE = "ablation.json", "ablation.txt", "ablation.png"
ALIKE = 1.25  # times as wide, at most, are the pixels of archives that are looked at together
WIDE = 4.0  # times the processor time of the cheapest variant, from which on the picture's scale is logarithmic

Progress = Callable[[int, int, str], None]


def variants_of(coarseness: Sequence[int]) -> list[Variant]:
    """Return all variants, the finest first."""
    out = []
    for c in sorted(set(coarseness)):
        for sees in SEES if c > 1 else ("both",):
            out += [Variant(c, sees, excite) for excite in (False, True)]
    return out


def ablate(
    path: Path,
    to: Path,
    coarseness: Sequence[int],
    scale: Scale,
    *,
    learn_from: Sequence[Path] = (),
    seeds: int = 1,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Measure all variants of some coarsenesses on an archive, and write figures, table and picture into a folder.

    Args:
        path: of the archive that is judged.
        to: the folder; what is measured there already, at the same scale, is kept.
        coarseness: the cuts.
        scale: of it all; its cells become a multiple of every coarseness.
        learn_from: other archives to learn from, the last of which to calibrate on, the archive then being judged
            whole; its own time is split if none.
        seeds: trainings of each variant, from the scale's seed on.
        progress: called with trainings done, in all, and which is under way.

    Raises:
        SettingError: an archive does not hold a coarseness, or the others do not fit the one that is judged.
        TooShort: an archive holds too little.
        RunError: the folder holds an ablation of something else.
    """
    archive, *others = archives = [Archive.open(one) for one in (path, *learn_from)]
    scale = replace(scale, cell=math.lcm(*coarseness) if max(coarseness) > 1 else scale.cell)
    _fit_together(archives, coarseness, scale)
    counts = {"train": scale.train, "calibrate": scale.calibrate, "test": scale.test}
    times = left_out(archive, others, counts) if others else own_time(archive, counts)
    require_folder(to, "--to")
    to.mkdir(parents=True, exist_ok=True)
    of = {
        "archive": archive.schema.identity,
        "frames": [frames_identity(one, one.span or (0, 0)) for one in archives],
        "learn_from": [one.schema.identity for one in others],
        "scale": asdict(scale),
        "precision": fast_precision("cpu"),
    }
    kept = _kept(to / FIGURES, json.loads(json.dumps(of)))
    variants = variants_of(coarseness)
    todo = [(variant, seed) for seed in range(scale.seed, scale.seed + seeds) for variant in variants]
    for i, (variant, seed) in enumerate(todo):
        name = variant.name + (f", seed {seed}" if seeds > 1 else "")
        progress(i, len(todo), name)
        if _key(variant, seed) not in kept:
            measured = _alone(name, measure, path, times, variant, replace(scale, seed=seed))
            kept[_key(variant, seed)] = {**asdict(variant), **measured}
            write_whole(to / FIGURES, json.dumps({**of, "measured": kept}) + "\n")
    progress(len(todo), len(todo), "steps in turns")
    spent = _alone("the steps", costs, path, times, variants, scale, base_of(variants))
    of_seeds = {v: [kept[_key(v, seed)] for seed in range(scale.seed, scale.seed + seeds)] for v in variants}
    found = summary(of_seeds, spent)
    found |= {"archive": archive.schema.identity, "credit": archive.schema.credit, "scale": asdict(scale)}
    found |= {"seeds": seeds, "learn_from": [one.schema.credit for one in others]}
    write_whole(to / TABLE, table_of(found) + "\n")
    from fastrain.rain.pictures import figure_png

    (to / PICTURE).write_bytes(figure_png(price_figure(found)))
    return found


def _key(variant: Variant, seed: int) -> str:
    """Return the name by which a folder holds a training."""
    return f"{variant.name}, seed {seed}"


def _fit_together(archives: Sequence[Archive], coarseness: Sequence[int], scale: Scale) -> None:
    """See that archives can be looked at alike.

    Raises:
        SettingError: one lacks a coarseness, has other pixels, or levels that tell not as many thresholds apart.
    """
    first = archives[0]
    told = len(thresholds_of(first, scale))
    for archive in archives:
        held = (1, *archive.schema.coarseness)
        for c in coarseness:
            if c not in held:
                raise SettingError(
                    f"{archive.path}: holds coarseness {', '.join(map(str, held))}, not {c}; ingest again with it."
                )
        share = archive.schema.grid.cell_km / first.schema.grid.cell_km
        if not 1 / ALIKE < share < ALIKE:
            raise SettingError(
                f"{archive.path}: has pixels of {archive.schema.grid.cell_km:.3g} km, {first.path} of "
                f"{first.schema.grid.cell_km:.3g} km: cells of as many pixels would not be alike; leave it out of "
                "--learn-from."
            )
        if len(thresholds_of(archive, scale)) != told:
            raise SettingError(
                f"{archive.path}: its levels tell {len(thresholds_of(archive, scale))} of the thresholds apart, those "
                f"of {first.path} {told}; leave it out of --learn-from."
            )


def base_of(variants: Sequence[Variant]) -> Variant:
    """Return what all are compared with: the finest that sees all there is, without squeeze-and-excite."""
    least = min(variant.coarseness for variant in variants)
    return next(v for v in variants if v.coarseness == least and v.sees == "both" and not v.excite)


def _alone(name: str, task: Callable[..., dict[str, Any]], path: Path, *given: Any) -> dict[str, Any]:
    """Do a task in a process of its own: its memory is then its own, and what kills it kills nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        try:
            return pool.submit(task, *given).result()
        except BrokenProcessPool:
            raise TooBig(
                f"{path}: the process that measured {name} was ended from outside, as where memory runs out; "
                "take fewer --windows and --tests, or leave out the finest --coarseness. What is measured is kept."
            ) from None


def _kept(path: Path, of: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        same = {name: kept[name] for name in of} == of
        measured: dict[str, Any] = kept["measured"]
    except (ValueError, LookupError, TypeError):
        same = False
    if not same:
        raise RunError(f"{path}: holds an ablation of another archive or scale; name another --to, or remove it.")
    return measured


def summary(measured: dict[Variant, list[dict[str, Any]]], spent: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the table: of each variant its skill, what it takes, and both beside the base's.

    Args:
        measured: of each variant what `measure` found, seed by seed; errors are their mean.
        spent: what `costs` found.

    Skill is the mean over periods and thresholds of 1 − Brier score / that of the test time's own frequency, where
    anything happened; `lost` is by how much the summed Brier score is higher than the base's, with the interval in
    which that lies in 90 of 100 resamples of the time.
    """
    first = base_of(list(measured))
    base = measured[first][0]
    others = _squared(measured[first])
    rows = []
    for variant, (one, *_) in measured.items():
        name, squared = variant.name, _squared(measured[variant])
        cells, events = (np.array(one[key], float) for key in ("cells", "events"))
        brier = squared.sum(axis=0) / cells.sum(axis=0)
        often = events.sum(axis=0) / cells.sum(axis=0)
        happened = (often > 0) & (often < 1)
        skill = 1 - brier[happened] / (often * (1 - often))[happened]
        sums, of_base = squared.sum(axis=(1, 2)), others.sum(axis=(1, 2))
        low, high = skill_interval(sums[:, None, None], of_base[:, None, None], base["sharing"])
        rows.append(
            {
                "name": name,
                **asdict(variant),
                "skill": float(skill.mean()),
                "brier": brier.tolist(),
                "lost": float(sums.sum() / of_base.sum() - 1),
                "lost_90": None if variant == first or np.isnan(low[0, 0]) else [float(-high[0, 0]), float(-low[0, 0])],
                "seconds_an_epoch": round(spent["seconds_an_epoch"] * spent["ratios"][name], 3),
                "cpu_ratio": spent["ratios"][name],
                "cpu_seconds_a_window": one["cpu_seconds_a_window"],
                "peak_bytes": one["peak_bytes"],
                "bytes_a_frame": one["bytes_a_frame"],
                "weights": one["weights"],
            }
        )
    shown = {key: base[key] for key in ("periods_min", "thresholds_mm_h", "windows")}
    counts = np.array(base["cells"], float).sum(axis=0), np.array(base["events"], float).sum(axis=0)
    return {"rows": rows, **shown, "cells": counts[0].tolist(), "events": counts[1].tolist()}


def _squared(seeds: Sequence[dict[str, Any]]) -> ndarray:
    """Return sums of squared errors of each window, (window, period, threshold), the mean over seeds."""
    return np.asarray(np.mean([one["squared"] for one in seeds], axis=0))


def table_of(found: dict[str, Any]) -> str:
    """Return the figures as a table of text."""
    lines = [
        f"{'what the network sees':<44} {'skill':>6} {'Brier lost':>11} {'in 90 of 100':>16} {'s/epoch':>8} "
        f"{'CPU':>6} {'memory':>8} {'a frame':>8}"
    ]
    for row in found["rows"]:
        between = row["lost_90"]
        span = f"{between[0]:+.1%} to {between[1]:+.1%}" if between else ""
        lines.append(
            f"{row['name']:<44} {row['skill']:>6.3f} {row['lost']:>+11.1%} {span:>16} {row['seconds_an_epoch']:>8.1f} "
            f"{row['cpu_ratio']:>6.2f} {row['peak_bytes'] / 2**20:>6.0f} M {row['bytes_a_frame'] / 1000:>6.1f} k"
        )
    periods = ", ".join(f"{a}–{b}" for a, b in found["periods_min"])
    windows = found["windows"]
    seeds = "one seed" if found["seeds"] == 1 else f"mean of {found['seeds']} seeds"
    lines.append(
        f"Cells of {found['scale']['cell']} pixels, their highest rain rate; {periods} min; "
        f"{', '.join(f'{t:g}' for t in found['thresholds_mm_h'])} mm/h; {windows['train']} windows to train on, "
        f"{windows['calibrate']} to calibrate, {windows['test']} to judge; {seeds}."
    )
    if found["learn_from"]:
        lines.append("Judged on windows of all its time; learned from the other archives that were named.")
    if max(row["skill"] for row in found["rows"]) <= 0:
        lines.append(
            "No cut does better than the frequency of rain in the time held out: too few windows, or other weather "
            "then. These differences say nothing; ablate a longer archive."
        )
    return "\n".join(lines)


def price_figure(found: dict[str, Any]) -> Figure:
    """Return the picture: skill over the processor time of a step, a point for each variant."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    colours = {1: "#333333", 2: "#1b6ca8", 3: "#2a9d5c", 4: "#d1495b"}
    marks = {"maximum": "^", "mean": "v", "both": "o"}
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    axes = figure.subplots()
    for row in found["rows"]:
        colour = colours.get(row["coarseness"], "#8a5fbf")
        axes.plot(
            row["cpu_ratio"],
            row["skill"],
            marks[row["sees"]],
            markersize=9,
            color=colour,
            markerfacecolor=colour if row["excite"] else "white",
            markeredgewidth=1.6,
        )
    ratios = [row["cpu_ratio"] for row in found["rows"]]
    if max(ratios) > WIDE * min(ratios):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="processor time of a step, of that of the finest", ylabel="Brier skill over the frequency")
    axes.grid(alpha=0.25)
    for c in dict.fromkeys(row["coarseness"] for row in found["rows"]):
        axes.plot([], [], "s", color=colours.get(c, "#8a5fbf"), label=f"blocks of {c}×{c}" if c > 1 else "pixels")
    for sees, mark in marks.items():
        axes.plot(
            [], [], mark, color="#666", markerfacecolor="white", label=sees if sees != "both" else "both, or pixels"
        )
    axes.plot([], [], "o", color="#666", label="with squeeze-and-excite")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    return figure
