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
    # What each block holds, from sums up to each issue time, once around: so a resample is a few look-ups, and memory
    # does not grow with the length of time but by its blocks.
    totals = []
    for field in (squared, others):
        around = np.concatenate([np.zeros_like(field[:1]), np.concatenate([field, field[: block - 1]]).cumsum(axis=0)])
        totals.append(around[block:] - around[:-block])
    draw = np.random.default_rng(seed)
    ratios = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        starts = draw.integers(0, count, (AT_ONCE, ceil(count / block)))
        mine, theirs = (total[starts].sum(axis=1) for total in totals)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(1 - mine / theirs)
    found = np.concatenate(ratios)
    edges = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    # Where some resamples hold nothing to compare with, there is no interval either.
    low, high = np.quantile(np.where(np.isfinite(found), found, 0.0), edges, axis=0)
    sound = np.isfinite(found).all(axis=0)
    return np.where(sound, low, np.nan), np.where(sound, high, np.nan)
