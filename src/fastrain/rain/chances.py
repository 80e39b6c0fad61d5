"""Logits to chances: conditional by construction, calibrated so that it stays so.

P(≥ t2) = P(≥ t1) · P(≥ t2 | ≥ t1), so chances fall as thresholds rise, whatever the network says; calibration acts on
the conditional chances. Long calibration time: isotonic regression for each period and threshold. Short: one pooled
temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from numpy import ndarray
from torch import Tensor

KNOTS = 64
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
    """Return isotonic regressions of the conditional chances, one for each period and threshold with enough cases."""
    from scipy.optimize import isotonic_regression

    temperature, _ = pooled_temperature(logits, outcome)
    x, o = np.stack(logits), np.stack(outcome)  # (window, period, threshold, y, x), (window, period, y, x)
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
            # Quantile bins first: years of cells become KNOTS points, each of as many cases.
            order = np.argsort(chance)
            parts = np.array_split(order, KNOTS)
            at = np.array([chance[part].mean() for part in parts])
            seen = np.array([event[part].mean() for part in parts])
            fitted = isotonic_regression(seen, weights=[len(part) for part in parts]).x
            at, first = np.unique(at, return_index=True)
            of_period.append((tuple(at.tolist()), tuple(np.clip(fitted[first], 1e-4, 1 - 1e-4).tolist())))
        all_knots.append(tuple(of_period))
    return Calibration(temperature, tuple(all_knots))
