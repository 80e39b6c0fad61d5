"""Scores apart by how much of the map is wet at issue.

Most windows are dry, and easy; a mean over all hides the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from fastrain.verification.tally import Sums

EDGES = (0.0, 0.01, 0.1, 1.0)  # shares of the cells that are wet: hardly any, some, much
KINDS = tuple(pairwise(EDGES))


def wet_share(now: Bool[ndarray, "threshold y x"], judged: Bool[ndarray, "period y x"]) -> float:
    """Return the share of the cells judged in any period in which the lowest threshold is reached at issue; 0 of none.

    Args:
        now: where each threshold is reached at issue.
        judged: where there is truth and every forecaster says something.
    """
    seen = judged.any(axis=0)
    return float(now[0][seen].mean()) if seen.any() else 0.0


@dataclass
class ByWetness:
    """Sums for one forecaster, each (kind, period, threshold).

    Attributes:
        shape: periods and thresholds.
        windows: of each kind.
        sums: of the windows of each kind.
    """

    shape: tuple[int, int]
    windows: list[int] = field(init=False)
    sums: list[Sums] = field(init=False)

    def __post_init__(self) -> None:
        self.windows = [0] * len(KINDS)
        self.sums = [Sums(*(np.zeros(self.shape) for _ in range(4))) for _ in KINDS]

    def add(self, sums: Sums, wet: float) -> None:
        """Add one window of which a share of the cells is wet at issue."""
        kind = int(np.searchsorted(EDGES[1:-1], wet, side="right"))
        self.windows[kind] += 1
        self.sums[kind] = self.sums[kind] + sums

    @property
    def brier(self) -> Float[ndarray, "kind period threshold"]:
        """Brier score; NaN where nothing was judged."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([one.squared / one.cells for one in self.sums])

    def row(self, period: int, threshold: int) -> list[dict[str, Any]]:
        """Return the scores of one period and threshold with their counts, a row for each kind that was seen."""
        at = (period, threshold)
        return [
            {
                "wet_share": list(edges),
                "windows": windows,
                "cells": int(one.cells[at]),
                "events": int(one.events[at]),
                "brier": float(one.squared[at] / one.cells[at]),
                "mean_chance": float(one.chance[at] / one.cells[at]),
            }
            for edges, windows, one in zip(KINDS, self.windows, self.sums, strict=True)
            if one.cells[at]
        ]
