"""The price of coarse-graining: what does each cut cost in skill, what does it save, and what wins the loss back?

The first work's own question. The variants are trained and judged on the same windows and truth, each in a process of
its own; one that is done is kept in the folder and not done again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError, TooBig
from fastrain.core.files import write_whole
from fastrain.engine.precision import fast_precision
from fastrain.rain.coarse import costs, measure
from fastrain.rain.cuts import SEES, Scale, Variant
from fastrain.rain.new_run import frames_identity
from fastrain.samples.split import split_archive
from fastrain.verification.intervals import skill_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES, TABLE, PICTURE = "ablation.json", "ablation.txt", "ablation.png"
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
    path: Path, to: Path, coarseness: Sequence[int], scale: Scale, *, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Measure all variants of some coarsenesses on an archive, and write figures, table and picture into a folder.

    Args:
        path: of the archive.
        to: the folder; what is measured there already, at the same scale, is kept.
        coarseness: the cuts.
        scale: of it all; its cells become a multiple of every coarseness.
        progress: called with variants done, in all, and which is under way.

    Raises:
        SettingError: the archive does not hold a coarseness.
        TooShort: the archive holds too little.
        RunError: the folder holds an ablation of something else.
    """
    archive = Archive.open(path)
    held = (1, *archive.schema.coarseness)
    for c in coarseness:
        if c not in held:
            raise SettingError(f"{path}: holds coarseness {', '.join(map(str, held))}, not {c}; ingest again with it.")
    scale = replace(scale, cell=math.lcm(*coarseness) if max(coarseness) > 1 else scale.cell)
    to.mkdir(parents=True, exist_ok=True)
    of = {
        "archive": archive.schema.identity,
        "frames": frames_identity(archive, split_archive(archive)),
        "scale": asdict(scale),
        "precision": fast_precision("cpu"),
    }
    kept = _kept(to / FIGURES, json.loads(json.dumps(of)))
    variants = variants_of(coarseness)
    for i, variant in enumerate(variants):
        progress(i, len(variants), variant.name)
        if variant.name not in kept:
            kept[variant.name] = {**asdict(variant), **_alone(variant.name, measure, path, variant, scale)}
            write_whole(to / FIGURES, json.dumps({**of, "measured": kept}) + "\n")
    progress(len(variants), len(variants), "steps in turns")
    spent = _alone("the steps", costs, path, variants, scale, base_of(variants))
    found = summary(kept, [variant.name for variant in variants], spent)
    found |= {"archive": archive.schema.identity, "credit": archive.schema.credit, "scale": asdict(scale)}
    write_whole(to / TABLE, table_of(found) + "\n")
    from fastrain.rain.pictures import figure_png

    (to / PICTURE).write_bytes(figure_png(price_figure(found)))
    return found


def base_of(variants: Sequence[Variant]) -> Variant:
    """Return what all are compared with: the finest that sees all there is, without squeeze-and-excite."""
    least = min(variant.coarseness for variant in variants)
    return next(v for v in variants if v.coarseness == least and v.sees == "both" and not v.excite)


def _alone(name: str, task: Callable[..., dict[str, Any]], path: Path, *given: Any) -> dict[str, Any]:
    """Do a task in a process of its own: its memory is then its own, and what kills it kills nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(task, path, *given).result()
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


def summary(kept: dict[str, Any], names: Sequence[str], spent: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the table: of each variant its skill, what it takes, and both beside the base's.

    Args:
        kept: what `measure` found, by name.
        names: of the variants, in order.
        spent: what `costs` found.


    Skill is the mean over periods and thresholds of 1 − Brier score / that of the test time's own frequency, where
    anything happened; `lost` is by how much the summed Brier score is higher than the base's, with the interval in
    which that lies in 90 of 100 resamples of the time.
    """
    variants = {Variant(*(kept[n][key] for key in ("coarseness", "sees", "excite"))): n for n in names}
    first = variants[base_of(list(variants))]
    base = kept[first]
    rows = []
    for name in names:
        one = kept[name]
        squared, cells, events = (np.array(one[key], float) for key in ("squared", "cells", "events"))
        brier = squared.sum(axis=0) / cells.sum(axis=0)
        often = events.sum(axis=0) / cells.sum(axis=0)
        happened = (often > 0) & (often < 1)
        skill = 1 - brier[happened] / (often * (1 - often))[happened]
        sums, others = squared.sum(axis=(1, 2)), np.array(base["squared"], float).sum(axis=(1, 2))
        low, high = skill_interval(sums[:, None, None], others[:, None, None], base["sharing"])
        rows.append(
            {
                "name": name,
                **{key: one[key] for key in ("coarseness", "sees", "excite")},
                "skill": float(skill.mean()),
                "brier": brier.tolist(),
                "lost": float(sums.sum() / others.sum() - 1),
                "lost_90": None if name == first or np.isnan(low[0, 0]) else [float(-high[0, 0]), float(-low[0, 0])],
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
    lines.append(
        f"Cells of {found['scale']['cell']} pixels, their highest rain rate; {periods} min; "
        f"{', '.join(f'{t:g}' for t in found['thresholds_mm_h'])} mm/h; {windows['train']} windows to train on, "
        f"{windows['calibrate']} to calibrate, {windows['test']} to judge; one seed."
    )
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
