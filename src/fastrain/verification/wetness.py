"""All scores of a forecaster, apart by how much of the map is wet at issue, and together.

Most windows are dry, and easy; a mean over all hides the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from fastrain.verification.changes import Changes
from fastrain.verification.fss import Fractions
from fastrain.verification.tally import Tally

EDGES = (0.0, 0.01, 0.1, 1.0)  # shares of the cells that are wet: hardly any, some, much
KINDS = tuple(pairwise(EDGES))


def wet_now(now: Bool[ndarray, "threshold y x"], judged: Bool[ndarray, "period y x"]) -> float:
    """Return the share of the cells judged in any period in which the lowest threshold is reached at issue; 0 of none.

    Args:
        now: where each threshold is reached at issue.
        judged: where there is truth and every forecaster says something.
    """
    seen = judged.any(axis=0)
    return float(now[0][seen].mean()) if seen.any() else 0.0


@dataclass
class ByWetness:
    """Scores of one forecaster; the first three are lists of one for each kind of window.

    Attributes:
        decide: chance from which on the forecast counts as yes, (period, threshold).
        members: of the ensemble whose shares the chances are, if they are that.
        tallies, changes, fractions: see there.
        order: kinds of the windows, in the order they came.
    """

    decide: Float[ndarray, "period threshold"]
    members: int | None = None
    tallies: list[Tally] = field(init=False)
    changes: list[Changes] = field(init=False)
    fractions: list[Fractions] = field(init=False)
    order: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.tallies = [Tally(self.decide, self.members) for _ in KINDS]
        self.changes = [Changes(self.decide) for _ in KINDS]
        self.fractions = [Fractions(self.decide) for _ in KINDS]

    def add(
        self,
        chance: Float[ndarray, "period threshold y x"],
        event: Bool[ndarray, "period threshold y x"],
        judged: Bool[ndarray, "period y x"],
        now: Bool[ndarray, "threshold y x"],
        wet: float,
    ) -> None:
        """Add one window to those of its kind.

        Args:
            chance, event, judged, now: see `Tally.add` and `Changes.add`.
            wet: share that is wet at issue, the same for all forecasters; see `wet_now`.
        """
        kind = int(np.searchsorted(EDGES[1:-1], wet, side="right"))
        self.order.append(kind)
        self.tallies[kind].add(chance, event, judged)
        self.changes[kind].add(chance, event, judged, now)
        self.fractions[kind].add(chance, event, judged)

    @property
    def windows(self) -> list[int]:
        """How many windows there are of each kind."""
        return [self.order.count(kind) for kind in range(len(KINDS))]

    def together(self) -> tuple[Tally, Changes, Fractions]:
        """Return the scores of all windows, in the order they came."""
        tally = reduce(add, self.tallies)
        each = [iter(one.windows) for one in self.tallies]
        tally.windows = [next(each[kind]) for kind in self.order]
        return tally, reduce(add, self.changes), reduce(add, self.fractions)
