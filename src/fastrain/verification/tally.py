"""Brier score, CSI, ROC and reliability by period and threshold, added up window by window.

The library `scores` gives the same numbers (the tests compare) at several times the cost, most of it labels (LOG.md).

A score never stands without its counts; tables are pooled by adding, so that memory hardly grows with the windows: one
number for each, period and threshold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

BINS = 10
SUMS = ("cells", "events", "squared", "chance", "contingency", "binned", "penalty")


@dataclass
class Tally:
    """Sums for one forecaster, each (period, threshold).

    Attributes:
        decide: chance from which on the forecast counts as yes, (period, threshold).
        members: of the ensemble whose shares the chances are, if they are that.
        cells: judged.
        events: that happened.
        squared: sum of squared differences of chance and outcome.
        chance: sum of chances.
        contingency: hits, false alarms, misses, correct negatives; (4, period, threshold).
        binned: cells, sum of chances and events for each of BINS bins of chance; (3, period, threshold, BINS).
        penalty: sum of what chances that are shares of few members cost in squared differences.
        windows: the squared differences of each window, in the order they came.
    """

    decide: Float[ndarray, "period threshold"]
    members: int | None = None
    cells: ndarray = field(init=False)
    events: ndarray = field(init=False)
    squared: ndarray = field(init=False)
    chance: ndarray = field(init=False)
    contingency: ndarray = field(init=False)
    binned: ndarray = field(init=False)
    penalty: ndarray = field(init=False)
    windows: list[ndarray] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        shape = self.decide.shape
        self.cells, self.events, self.squared, self.chance, self.penalty = (np.zeros(shape) for _ in range(5))
        self.contingency, self.binned = np.zeros((4, *shape)), np.zeros((3, *shape, BINS))

    def add(
        self,
        chance: Float[ndarray, "period threshold y x"],
        event: Bool[ndarray, "period threshold y x"],
        judged: Bool[ndarray, "period y x"],
    ) -> None:
        """Add one window.

        Args:
            chance: of reaching each threshold.
            event: whether it was reached.
            judged: where there is truth and every forecaster says something.
        """
        where = np.broadcast_to(judged[:, None], chance.shape)
        squared = np.where(where, (chance - event) ** 2, 0.0).sum(axis=(2, 3))
        self.windows.append(squared)
        self.squared += squared
        self.cells += where.sum(axis=(2, 3))
        self.events += (event & where).sum(axis=(2, 3))
        self.chance += np.where(where, chance, 0.0).sum(axis=(2, 3))
        if self.members:
            variance = np.where(where, chance * (1 - chance), 0.0)
            self.penalty += variance.sum(axis=(2, 3)) / (self.members - 1)
        yes = chance >= self.decide[:, :, None, None]
        for i, cell in enumerate((yes & event, yes & ~event, ~yes & event, ~yes & ~event)):
            self.contingency[i] += (cell & where).sum(axis=(2, 3))
        self._add_bins(chance, event, where)

    def _add_bins(self, chance: ndarray, event: ndarray, where: ndarray) -> None:
        periods, thresholds = chance.shape[:2]
        index = np.minimum((np.nan_to_num(chance) * BINS).astype(int), BINS - 1)
        flat = (np.arange(periods * thresholds).reshape(periods, thresholds, 1, 1) * BINS + index)[where]
        size = periods * thresholds * BINS
        for i, weights in enumerate((None, chance[where], event[where].astype(float))):
            counted = np.bincount(flat, weights=weights, minlength=size)
            self.binned[i] += counted.reshape(periods, thresholds, BINS)

    def __add__(self, other: Tally) -> Tally:
        """Return the sums of both, the windows of the other after those of this one."""
        found = Tally(self.decide, self.members)
        for name in SUMS:
            setattr(found, name, getattr(self, name) + getattr(other, name))
        found.windows = self.windows + other.windows
        return found

    @property
    def brier(self) -> Float[ndarray, "period threshold"]:
        """Brier score; NaN where nothing was judged.

        Source: Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.squared / self.cells)

    @property
    def calibration_error(self) -> Float[ndarray, "period threshold"]:
        """How far what was said is from what came true, over bins of chance; NaN where nothing was judged."""
        _, chance, events = self.binned
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(chance - events).sum(axis=-1) / self.cells)

    @property
    def roc_area(self) -> Float[ndarray, "period threshold"]:
        """Area under the ROC curve, from the bins of chance; 0.5 knows nothing, NaN where only one outcome came.

        Source: Mason (1982); the curve's points are the edges of the bins.
        """
        hit, false = self._rates()
        return np.asarray(np.trapezoid(hit, false, axis=-1))

    def roc(self, period: int, threshold: int) -> tuple[ndarray, ndarray]:
        """Return the ROC curve: of the dry cells the share of false alarms, of the wet ones that of hits."""
        hit, false = self._rates()
        return false[period, threshold], hit[period, threshold]

    def _rates(self) -> tuple[ndarray, ndarray]:
        cells, _, events = self.binned
        found = [np.cumsum(np.flip(count, -1), -1) for count in (events, cells - events)]
        with np.errstate(invalid="ignore", divide="ignore"):
            hit, false = (np.concatenate([0 * c[..., :1], c], -1) / c[..., -1:] for c in found)
        return hit, false

    @property
    def csi(self) -> Float[ndarray, "period threshold"]:
        """Critical success index, hits / (hits + false alarms + misses); NaN where there was neither.

        Source: Schaefer (1990), doi:10.1175/1520-0434(1990)005<0570:TCSIAA>2.0.CO;2.
        """
        hits, false_alarms, misses, _ = self.contingency
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(hits / (hits + false_alarms + misses))

    def row(self, period: int, threshold: int) -> dict[str, Any]:
        """Return the scores of one period and threshold with their counts."""
        at = (period, threshold)
        hits, false_alarms, misses, negatives = (int(n) for n in self.contingency[(slice(None), *at)])
        # What a forecaster of endlessly many members would have.
        endless = (
            {"brier_of_endless_members": float((self.brier - self.penalty / np.maximum(self.cells, 1))[at])}
            if self.members
            else {}
        )
        return {
            "brier": float(self.brier[at]),
            "csi": float(self.csi[at]),
            "pod": hits / (hits + misses) if hits + misses else float("nan"),
            "far": false_alarms / (hits + false_alarms) if hits + false_alarms else float("nan"),
            "roc_area": float(self.roc_area[at]),
            "decide_at": float(self.decide[at]),
            "cells": int(self.cells[at]),
            "events": int(self.events[at]),
            "mean_chance": float(self.chance[at] / self.cells[at]) if self.cells[at] else float("nan"),
            "hits": hits,
            "false_alarms": false_alarms,
            "misses": misses,
            "correct_negatives": negatives,
            "calibration_error": float(self.calibration_error[at]),
            "reliability": [
                {"cells": int(cells), "mean_chance": float(chance / cells), "came_true": float(events / cells)}
                for cells, chance, events in self.binned[:, period, threshold].T
                if cells
            ],
            **endless,
        }


@dataclass
class Decider:
    """Which chance should count as yes: the one of the highest CSI on the calibration time, never 0.5 by habit."""

    shape: tuple[int, int]
    counts: ndarray = field(init=False)
    STEPS = 50

    def __post_init__(self) -> None:
        self.counts = np.zeros((2, *self.shape, self.STEPS))

    def add(self, chance: ndarray, event: ndarray, judged: ndarray) -> None:
        """Add one window; the arguments are those of `Tally.add`."""
        periods, thresholds = self.shape
        where = np.broadcast_to(judged[:, None], chance.shape)
        index = np.minimum((np.nan_to_num(chance) * self.STEPS).astype(int), self.STEPS - 1)
        flat = (np.arange(periods * thresholds).reshape(periods, thresholds, 1, 1) * self.STEPS + index)[where]
        for i, weights in enumerate((None, event[where].astype(float))):
            counted = np.bincount(flat, weights=weights, minlength=periods * thresholds * self.STEPS)
            self.counts[i] += counted.reshape(periods, thresholds, self.STEPS)

    def best(self) -> Float[ndarray, "period threshold"]:
        """Return the chance from which on yes gives the highest CSI; 0.5 where nothing happened."""
        yes, hits = (np.flip(np.cumsum(np.flip(c, -1), -1), -1) for c in self.counts)
        events = hits[..., :1]
        csi = hits / np.maximum(yes + events - hits, 1)
        at = np.maximum(csi.argmax(axis=-1), 1) / self.STEPS  # never 0: that would be always yes
        return np.asarray(np.where(events[..., 0] > 0, at, 0.5))
