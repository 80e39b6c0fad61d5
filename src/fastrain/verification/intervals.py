"""How sure a skill score is: block bootstrap over issue times, as neighbouring ones show nearly the same weather."""

from __future__ import annotations

from math import ceil

import numpy as np
from jaxtyping import Float
from numpy import ndarray

RESAMPLES = 1000
LEVEL = 0.9  # of the interval
FEWEST = 5  # blocks
AT_ONCE = 50  # resamples in memory together


def skill_interval(
    squared: Float[ndarray, "issue period threshold"],
    others: Float[ndarray, "issue period threshold"],
    block: int,
    seed: int = 0,
) -> tuple[Float[ndarray, "period threshold"], Float[ndarray, "period threshold"]]:
    """Return the ends of the interval in which a Brier skill score, 1 − sum / sum, lies in 90 of 100 resamples.

    Args:
        squared: sums of squared errors of the one forecaster at each issue time, in time order.
        others: those of the forecaster it is compared with, of the same cells.
        block: neighbouring issue times that are drawn together; as long as a window, for those share frames.
        seed: of the draw.

    Of ten blocks an interval of 90 % holds the truth four times in five, of forty nearly as often as it says; of
    fewer than FEWEST there is none: NaN.
    Source: Künsch (1989), doi:10.1214/aos/1176347265; circular blocks, Politis and Romano (1992).
    """
    count = len(squared)
    nothing = np.full(squared.shape[1:], np.nan)
    if count < FEWEST * block:
        return nothing, nothing.copy()
    draw = np.random.default_rng(seed)
    ratios = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        starts = draw.integers(0, count, (AT_ONCE, ceil(count / block)))
        chosen = ((starts[:, :, None] + np.arange(block)) % count).reshape(AT_ONCE, -1)[:, :count]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(1 - squared[chosen].sum(axis=1) / others[chosen].sum(axis=1))
    edges = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    low, high = np.quantile(np.concatenate(ratios), edges, axis=0)
    return low, high
