"""Warnings of change: rain that starts where it is dry now, and rain that stops where it rains now.

Where it rains and goes on raining any forecast looks good. What people ask is when it starts and when it stops: hits
and misses, and the false alarms that they cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

KINDS = ("start", "stop")


@dataclass
class Changes:
    """Counts of warnings for one forecaster.

    Attributes:
        decide: chance from which on the forecast counts as yes, (period, threshold).
        counts: (kind, hits | false alarms | misses | correct negatives, period, threshold); kinds are start and stop.
    """

    decide: Float[ndarray, "period threshold"]
    counts: ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(KINDS), 4, *self.decide.shape), np.int64)

    def add(
        self,
        chance: Float[ndarray, "period threshold y x"],
        event: Bool[ndarray, "period threshold y x"],
        judged: Bool[ndarray, "period y x"],
        now: Bool[ndarray, "threshold y x"],
    ) -> None:
        """Add one window; `now` is where each threshold is reached at issue, the rest as for `Tally.add`."""
        yes = chance >= self.decide[:, :, None, None]
        for kind, (asked, warned, came) in enumerate(((~now, yes, event), (now, ~yes, ~event))):
            where = judged[:, None] & asked[None]
            for i, cell in enumerate((warned & came, warned & ~came, ~warned & came, ~warned & ~came)):
                self.counts[kind, i] += (cell & where).sum(axis=(2, 3))

    def __add__(self, other: Changes) -> Changes:
        """Return the counts of both together."""
        found = Changes(self.decide)
        found.counts = self.counts + other.counts
        return found

    def row(self, period: int, threshold: int) -> dict[str, Any]:
        """Return, for start and stop: cells asked, how many changed, the share warned of, and of warnings the false."""
        out: dict[str, Any] = {}
        for kind, name in enumerate(KINDS):
            hits, false_alarms, misses, negatives = (int(n) for n in self.counts[kind, :, period, threshold])
            out[name] = {
                "cells": hits + false_alarms + misses + negatives,
                "changed": hits + misses,
                "warned_of": hits / (hits + misses) if hits + misses else float("nan"),
                "false_alarm_ratio": false_alarms / (hits + false_alarms) if hits + false_alarms else float("nan"),
            }
        return out
