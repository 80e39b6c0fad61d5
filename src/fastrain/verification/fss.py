"""Fractions skill score: from which scale on a forecast of where it rains is right, though not cell by cell."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import uniform_filter

EDGES = (1, 3, 5, 9, 17)  # cells: edges of the squares whose shares are compared


@dataclass
class Fractions:
    """Sums for one forecaster.

    Attributes:
        decide: chance from which on the forecast counts as yes, (period, threshold).
        apart: (edge, period, threshold) sum of squared differences of the shares of forecast and truth.
        most: the same if no yes met an event.
    """

    decide: Float[ndarray, "period threshold"]
    apart: ndarray = field(init=False)
    most: ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.apart, self.most = (np.zeros((len(EDGES), *self.decide.shape)) for _ in range(2))

    def add(
        self,
        chance: Float[ndarray, "period threshold y x"],
        event: Bool[ndarray, "period threshold y x"],
        judged: Bool[ndarray, "period y x"],
    ) -> None:
        """Add one window; cells that are not judged count as dry in both. The arguments are those of `Tally.add`."""
        where = judged[:, None]
        yes = ((chance >= self.decide[:, :, None, None]) & where).astype(np.float32)
        rain = (event & where).astype(np.float32)
        for i, edge in enumerate(EDGES):
            size = (1, 1, edge, edge)
            said, came = (uniform_filter(f, size, mode="constant") if edge > 1 else f for f in (yes, rain))
            self.apart[i] += ((said - came) ** 2).sum(axis=(2, 3), dtype=float)
            self.most[i] += (said**2).sum(axis=(2, 3), dtype=float) + (came**2).sum(axis=(2, 3), dtype=float)

    def __add__(self, other: Fractions) -> Fractions:
        """Return the sums of both."""
        found = Fractions(self.decide)
        found.apart, found.most = self.apart + other.apart, self.most + other.most
        return found

    @property
    def score(self) -> Float[ndarray, "edge period threshold"]:
        """The score: 0 none, 1 perfect; NaN where it neither rained nor was forecast to.

        Source: Roberts and Lean (2008), doi:10.1175/2007MWR2123.1.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 - self.apart / self.most)
