"""One look over the training time, before anything is learned: how wet, how often, and where there is truth at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.rain.radar import Radar, happened
from fastrain.samples.frames import stretches
from fastrain.samples.split import evenly
from fastrain.samples.truth import wet_share

MOST_WINDOWS = 3000  # looked at, evenly spaced: of maps of 96×96 cells and five periods a training comes to see 1,300
FEWEST_EVENTS = 500  # cells and periods of the training time that must reach a threshold for it to be learned


@dataclass(frozen=True)
class Survey:
    """What the training time shows.

    Attributes:
        issues: slots of the windows looked at.
        wet: of each the share of wet cells in its history.
        reached: (period, threshold) cells that reach a threshold.
        cells: (period) cells with truth.
        box: rows and columns outside which no cell ever has truth.
    """

    issues: Int[ndarray, issues]
    wet: Float[ndarray, issues]
    reached: Int[ndarray, "period threshold"]
    cells: Int[ndarray, period]
    box: tuple[slice, slice]

    @property
    def climatology(self) -> Float[ndarray, "period threshold"]:
        """How often each threshold is reached."""
        return np.asarray(self.reached / np.maximum(self.cells, 1)[:, None])

    def speaking_of(self, count: int) -> Survey:
        """Return it of the lowest thresholds alone."""
        return replace(self, reached=self.reached[:, :count])


def survey(
    archive: Archive,
    coarseness: int,
    issues: Int[ndarray, issues],
    radar: Radar,
    memory: int,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Survey:
    """Look at the windows of the training time, at evenly spaced ones of a long time.

    Args:
        archive: to read.
        coarseness: of the cells.
        issues: slots of the training time, rising.
        radar: of the archive.
        memory: bytes that frames may take.
        progress: called with windows done, in all, and what is done.

    Raises:
        TooShort: no cell is observed well enough to learn from.
    """
    issues = np.unique(evenly(issues, MOST_WINDOWS))
    periods, thresholds = len(radar.layout.periods), len(radar.thresholds)
    reached, cells = np.zeros((periods, thresholds), np.int64), np.zeros(periods, np.int64)
    ever = np.zeros(archive.schema.grid.coarsened(coarseness).shape, bool)
    wet: list[float] = []
    for part, frames in stretches(archive, coarseness, issues, radar.layout, memory):
        for issue in part:
            outcome = happened(frames, int(issue), radar)
            seen = outcome >= 0
            ever |= seen.any(axis=0)
            cells += seen.sum(axis=(1, 2))
            for k in range(thresholds):
                reached[:, k] += (outcome > k).sum(axis=(1, 2))
            wet.append(wet_share(frames, int(issue), radar.layout, radar.table))
        progress(len(wet), len(issues), "windows looked at")
    if not ever.any():
        raise TooShort(f"{archive.path}: no cell of the training time is observed well enough to learn from.")
    rows, columns = np.flatnonzero(ever.any(axis=1)), np.flatnonzero(ever.any(axis=0))
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return Survey(issues, np.array(wet), reached, cells, box)


def one_class(missed: int, cells: int, threshold: float) -> str:
    """Return what is said where nearly all cells reach the highest threshold."""
    return (
        f"The training time holds one class only: all but {missed} of {cells} cells and periods reach {threshold:g} "
        "mm/h, so nothing can be told apart; ingest more pictures of this radar, and see that its levels are read "
        "aright (`fastrain info`)."
    )


def learnable(found: Survey, radar: Radar, say: Callable[[str], None], *, keep: bool) -> tuple[Survey, Radar]:
    """Return both with those thresholds only that the training time reaches, and misses, often enough.

    Args:
        found: see there.
        radar: of the archive.
        say: called with what is left out and why.
        keep: all of them where any is reached: a network that has learned elsewhere knows of rain not shown here yet.

    Raises:
        TooShort: none is.
    """
    reached = found.reached.sum(axis=0)
    missed = int(found.cells.sum()) - reached
    if reached[0] < FEWEST_EVENTS:
        raise TooShort(
            f"The training time is too dry: {reached[0]} cells reach {radar.thresholds[0]:g} mm/h, {FEWEST_EVENTS} are "
            "needed. Ingest more pictures of this radar."
        )
    if missed[-1] < FEWEST_EVENTS:
        raise TooShort(one_class(int(missed[-1]), int(found.cells.sum()), radar.thresholds[-1]))
    if keep:
        return found, radar
    count = int((reached >= FEWEST_EVENTS).sum())  # the more rain, the fewer: those that are kept come first
    for threshold, n in zip(radar.thresholds[count:], reached[count:], strict=True):
        say(
            f"Threshold {threshold:g} mm/h is left out: {n} cells reach it in the training time, "
            f"{FEWEST_EVENTS} are needed."
        )
    return found.speaking_of(count), replace(radar, thresholds=radar.thresholds[:count])
