"""Logits to chances: conditional by construction, calibrated so that it stays so.

P(≥ t2) = P(≥ t1) · P(≥ t2 | ≥ t1), so chances fall as thresholds rise, whatever the network says; calibration acts on
the conditional chances. Short calibration time: one pooled temperature. Long: isotonic regression for each period and
threshold, as far as parts of that time confirm it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int8
from numpy import ndarray
from torch import Tensor

KNOTS = 64
PARTS = 8  # of the calibration time, each of which a regression on the others is tried on
BELIEVED = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of a regression, of which those parts choose one
FEWEST_FOR_ISOTONIC = 2000  # cells, of which 50 with and 50 without the event, in the calibration time


@dataclass(frozen=True)
class Calibration:
    """How logits of conditional chances become honest ones.

    Attributes:
        temperature: divides the logits; above 1 it takes confidence back.
        knots: for each period and threshold, chances before and after (x, y), or None for the temperature alone.
    """

    temperature: float = 1.0
    knots: tuple[tuple[tuple[tuple[float, ...], tuple[float, ...]] | None, ...], ...] | None = None

    def chances(self, logits: Float[ndarray, "period threshold y x"]) -> Float[ndarray, "period threshold y x"]:
        """Return the chance of reaching each threshold in each period."""
        conditional = 1 / (1 + np.exp(-np.clip(logits / self.temperature, -30, 30)))
        if self.knots is not None:
            for p, of_period in enumerate(self.knots):
                for k, knots in enumerate(of_period):
                    if knots is not None:
                        conditional[p, k] = np.interp(conditional[p, k], *knots)
        return np.asarray(np.cumprod(conditional, axis=1))

    def as_attributes(self) -> dict[str, Any]:
        """Return the calibration as plain values."""
        return {"temperature": self.temperature, "knots": self.knots}

    @classmethod
    def from_attributes(cls, kept: dict[str, Any]) -> Calibration:
        """Return the calibration that `as_attributes` wrote."""
        knots = kept["knots"]
        if knots is not None:
            knots = tuple(
                tuple(None if k is None else (tuple(k[0]), tuple(k[1])) for k in of_period) for of_period in knots
            )
        return cls(kept["temperature"], knots)


Total = Callable[[Tensor], Tensor]


def itself(cells: Tensor) -> Tensor:
    """Return what it is given: the sum over the processes of a training, where there is one process."""
    return cells


def ordinal_loss(
    logits: Float[Tensor, "batch threshold y x"],
    outcome: Int8[Tensor, "batch y x"],
    weight: Float[Tensor, batch],
    total: Total = itself,
) -> Tensor:
    """Return the mean negative log likelihood, in nats a cell, of how many thresholds were reached.

    Each conditional chance is judged only where the threshold below was reached, so the sum is the exact likelihood.

    Args:
        logits: of the conditional chances.
        outcome: thresholds reached, −1 without truth.
        weight: of each window.
        total: gives the sum of all parts' weights from this one's, where processes train together: what is returned is
            then this part's share of the whole batch's loss.
    """
    count = logits.shape[1]
    steps = torch.arange(count, device=logits.device).view(1, count, 1, 1)
    reached = outcome[:, None] > steps
    judged = (outcome[:, None] >= steps).float() * weight.view(-1, 1, 1, 1)  # −1 is judged nowhere
    losses = F.binary_cross_entropy_with_logits(logits.float(), reached.float(), reduction="none")
    cells = ((outcome >= 0).float() * weight.view(-1, 1, 1)).sum()
    return (losses * judged).sum() / total(cells).clamp(min=1)


def pooled_temperature(logits: list[ndarray], outcome: list[ndarray]) -> tuple[float, float]:
    """Return the temperature of the least loss, and that loss, over windows of (period, threshold, y, x) logits."""
    x = torch.cat([torch.from_numpy(part).float() for part in logits])
    o = torch.cat([torch.from_numpy(part) for part in outcome])
    weight = torch.ones(len(x))
    grid = np.exp(np.linspace(np.log(0.25), np.log(4.0), 57))

    @lru_cache
    def loss(at: int) -> float:
        return float(ordinal_loss(x / float(grid[at]), o, weight))

    # The loss is convex in 1 / temperature, so it falls up to the best and rises after it.
    low, high = 0, len(grid) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= loss(middle + 1) else (middle + 1, high)
    return round(float(grid[low]), 4), loss(low)


def isotonic(logits: list[ndarray], outcome: list[ndarray]) -> Calibration:
    """Return isotonic regressions of the conditional chances, one for each period and threshold with enough cases.

    Days of calibration time are few kinds of weather, the fewer the farther ahead: a regression may say of all rain
    what those days alone had. So each is believed as far as it holds in parts of the time that it was not fitted to.

    Args:
        logits: of each window in the order of time, (period, threshold, y, x).
        outcome: (period, y, x) thresholds reached, −1 without truth.
    """
    temperature, _ = pooled_temperature(logits, outcome)
    x, o = np.stack(logits), np.stack(outcome)  # (window, period, threshold, y, x), (window, period, y, x)
    part_of = np.arange(len(x)) * PARTS // len(x)
    all_knots = []
    for p in range(x.shape[1]):
        of_period: list[tuple[tuple[float, ...], tuple[float, ...]] | None] = []
        for k in range(x.shape[2]):
            judged = o[:, p] >= k
            chance = 1 / (1 + np.exp(-x[:, p, k][judged] / temperature))
            event = (o[:, p] > k)[judged].astype(float)
            if len(event) < FEWEST_FOR_ISOTONIC or min(event.sum(), (1 - event).sum()) < 50:
                of_period.append(None)
                continue
            order = np.argsort(chance)
            chance, event = chance[order], event[order]
            believed = _believed(chance, event, np.repeat(part_of, judged.sum(axis=(1, 2)))[order])
            if believed == 0:
                of_period.append(None)
                continue
            at, fitted = _fitted(chance, event)
            at, fitted = np.array([0.0, *at, 1.0]), np.array([fitted[0], *fitted, fitted[-1]])
            mixed = believed * fitted + (1 - believed) * at
            of_period.append((tuple(at.tolist()), tuple(mixed.tolist())))
        all_knots.append(tuple(of_period))
    return Calibration(temperature, tuple(all_knots))


def _fitted(chance: Float[ndarray, case], event: Float[ndarray, case]) -> tuple[ndarray, ndarray]:
    """Return chances and the isotonic regression of what happened on them; the cases by rising chance."""
    from scipy.optimize import isotonic_regression

    # What is said alike of many cells, all that are far from rain, is one case: their order says nothing.
    first = np.flatnonzero(np.diff(chance, prepend=-1.0))
    count = np.diff(first, append=len(chance))
    event = np.repeat(np.add.reduceat(event, first) / count, count)
    # Quantile bins, then: years of cells become KNOTS points, each of as many cases.
    bins = min(KNOTS, len(chance))
    first = np.arange(bins) * len(chance) // bins
    count = np.diff(first, append=len(chance))
    at, seen = (np.add.reduceat(of, first, dtype=float) / count for of in (chance, event))
    fitted = np.clip(isotonic_regression(seen, weights=count).x, 1e-4, 1 - 1e-4)
    at, first = np.unique(at, return_index=True)
    return at, fitted[first]


def _believed(chance: Float[ndarray, case], event: Float[ndarray, case], part: Int[ndarray, case]) -> float:
    """Return how much of a regression to believe: what is best in each part of the time for one fitted to the others.

    The cases come by rising chance.
    """
    parts = np.unique(part)
    if len(parts) == 1:
        return 1.0
    loss = np.zeros(len(BELIEVED))
    for one in parts:
        mine = part == one
        other = np.interp(chance[mine], *_fitted(chance[~mine], event[~mine]))
        for i, share in enumerate(BELIEVED):
            mixed = np.clip(share * other + (1 - share) * chance[mine], 1e-6, 1 - 1e-6)
            loss[i] -= np.log(np.where(event[mine] > 0, mixed, 1 - mixed)).sum()
    return BELIEVED[int(loss.argmin())]
