"""What happened: for each cell and period, how many thresholds the rain reached.

Truth is the block maximum, or the block mean, at its highest over the period, from observed pixels only. Where under
three quarters of the cell's pixels and frames were observed, decided before looking at rain, there is no truth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Int8
from numpy import ndarray

from fastrain.core.levels import NOT_OBSERVED, WET, LevelTable, wet_from
from fastrain.samples.frames import Frames
from fastrain.samples.layout import FrameLayout

OBSERVED_SHARE = 0.75
NO_TRUTH = -1


def outcomes(
    frames: Frames,
    issue: int,
    layout: FrameLayout,
    first_levels: tuple[int, ...],
    reached: Callable[[Int[ndarray, rows]], Int8[ndarray, "rows y x"]] | None = None,
) -> Int8[ndarray, "period y x"]:
    """Return the number of thresholds reached in each period, −1 where there is no truth.

    Args:
        frames: that hold the window.
        issue: slot of the issue.
        layout: of the windows.
        first_levels: the lowest level that reaches each threshold, rising.
        reached: gives the thresholds that each cell reaches in some of the frames; the blocks' maxima if None.
    """
    out = np.empty((len(layout.periods), *frames.maximum.shape[1:]), np.int8)
    for i, (a, b) in enumerate(layout.periods):
        rows = frames.rows(np.arange(issue + a + 1, issue + b + 1))
        if reached is None:
            level = frames.maximum[rows]
            highest = np.where(level == NOT_OBSERVED, 0, level).max(axis=0)
            count = sum((highest >= first).astype(np.int8) for first in first_levels)
        else:
            count = reached(rows).max(axis=0)
        seen = frames.observed[rows].sum(axis=0, dtype=np.int64) >= OBSERVED_SHARE * frames.pixels * len(rows)
        out[i] = np.where(seen, count, NO_TRUTH)
    return out


def observed_now(frames: Frames, issue: int) -> Bool[ndarray, "y x"]:
    """Return where three quarters of a cell's pixels are observed at issue: elsewhere no chance is given."""
    return np.asarray(frames.observed[frames.rows(np.array([issue]))[0]] >= OBSERVED_SHARE * frames.pixels)


def wet_share(frames: Frames, issue: int, layout: FrameLayout, table: LevelTable) -> float:
    """Return the share of observed cells that are wet in the history: what windows are thinned by."""
    rows = frames.rows(np.arange(issue - layout.history + 1, issue + 1))
    level = frames.maximum[rows]
    seen = int((level != NOT_OBSERVED).sum())
    first = table.first_level(table.nearest_edge(WET))
    return float(wet_from(level, first).sum() / seen) if seen else 0.0


def thin(
    wet: Float[ndarray, issues], draws: Float[ndarray, issues], *, keep: float, dry_below: float
) -> tuple[Bool[ndarray, issues], Float[ndarray, issues]]:
    """Return which windows to train on, and what each then weighs, so that the chances need no correction.

    Windows are left out by what their input shows, never by what came after: a choice by the outcome would bias the
    chances.

    Args:
        wet: share of wet cells in each window's history.
        draws: of each window, drawn from 0 to 1.
        keep: share of dry windows that are kept.
        dry_below: wet share under which a window is dry.
    """
    dry = wet < dry_below
    return ~dry | (draws < keep), np.where(dry, 1 / keep, 1.0)
