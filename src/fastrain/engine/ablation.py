"""What is a switch worth? Its cost in time and its gain in a score, each against the same base, with intervals.

A gain is compared seed by seed: both runs of a seed begin with the same weights and see the same batches, so that what
differs is the switch. A cost is a ratio of steps taken in turns, for a machine's speed changes from minute to minute.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# 97.5 % quantiles of Student's t for 1, 2, 3 … degrees of freedom; beyond, the normal one is near enough.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_T_BEYOND = 2.09


@dataclass(frozen=True)
class Gain:
    """A mean difference.

    Attributes:
        mean: of the differences.
        half: half the width of its interval of 95 %; None of a single difference.
        count: of differences.
    """

    mean: float
    half: float | None
    count: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out nothing at all."""
        return self.half is not None and abs(self.mean) > self.half


def gain(own: Sequence[float], base: Sequence[float]) -> Gain:
    """Return the mean difference of scores of the same seeds, with its interval of 95 % (paired t)."""
    differences = [a - b for a, b in zip(own, base, strict=True)]
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Gain(mean, None, count)
    quantile = _T[count - 2] if count - 2 < len(_T) else _T_BEYOND
    return Gain(mean, quantile * statistics.stdev(differences) / count**0.5, count)


def leverage(points: float, share: float) -> float | None:
    """Return the score won for each percent of time spent; of a saving, the score lost for each percent saved.

    Args:
        points: change of the score.
        share: change of time, as a share of the base's; None comes back where it is under half a percent.
    """
    return None if abs(share) < 0.005 else points / (100 * share)


def ratios(
    steps: Sequence[Callable[[], object]], *, rounds: int = 5, clock: Callable[[], float] | None = None
) -> list[float]:
    """Return the time of each step over the first one's: medians of ratios taken in turns.

    Args:
        steps: the base first; each is called once beforehand, which is not counted.
        rounds: in each of which every step is taken once.
        clock: that tells seconds; this process's processor time if None.
    """
    now = clock or time.process_time  # finer than os.times, which counts hundredths
    for step in steps:
        step()
    kept: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        spent = []
        for step in steps:
            began = now()
            step()
            spent.append(now() - began)
        for i, seconds in enumerate(spent):
            kept[i].append(seconds / spent[0])
    return [statistics.median(of_step) for of_step in kept]
