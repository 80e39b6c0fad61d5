"""What a verification found: scores with their counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from fastrain.verification.changes import Changes
from fastrain.verification.fss import EDGES, Fractions
from fastrain.verification.tally import Tally
from fastrain.verification.wetness import KINDS, ByWetness

FEW = 24  # independent cases


@dataclass(frozen=True)
class Verification:
    """What verification found.

    Attributes:
        run: path of the run.
        network: its identity.
        archive: identity of the archive scored on.
        slots: of the issue times.
        first, last: issue time, UTC.
        periods: (start, end] minutes after issue.
        thresholds: mm/h.
        truth: which rate of a cell the scores are of, its maximum or its mean.
        absent: by forecaster, issue times at which it could say nothing.
        tallies: by forecaster.
        changes: warnings that rain starts or stops, by forecaster.
        fractions: by forecaster, how well the shares of rain in squares agree.
        wetness: by forecaster, all that apart by how much of the map is wet at issue.
        beside: by forecaster of pysteps, the network on the cells of which that one says something.
        cell_km: edge of a cell.
        cell: row and column of the one cell that was judged; None where all were.
        intervals: by forecaster, the ends of the 90 % interval of `skill` over it, each (period, threshold); NaN where
            time is too short.
        hours: spanned by the scored windows.
    """

    run: str
    network: str
    archive: str
    slots: Int[ndarray, issues]
    first: datetime
    last: datetime
    periods: tuple[tuple[int, int], ...]
    thresholds: tuple[float, ...]
    truth: str
    absent: dict[str, int]
    tallies: dict[str, Tally]
    changes: dict[str, Changes]
    fractions: dict[str, Fractions]
    wetness: dict[str, ByWetness]
    beside: dict[str, Tally]
    cell_km: float
    cell: tuple[int, int] | None
    intervals: dict[str, tuple[ndarray, ndarray]]
    hours: float

    @property
    def issues(self) -> int:
        """How many issue times."""
        return len(self.slots)

    @property
    def independent(self) -> int:
        """About how many independent cases: rain of an hour ago says little of a cell's rain now, so one an hour."""
        return max(1, min(self.issues, round(self.hours)))

    @property
    def illustrates(self) -> bool:
        """Whether the cases are so few that scores only illustrate, and rank nobody."""
        return self.independent < FEW

    def best_and_worst(self, over: str) -> tuple[int, int] | None:
        """Return the slots at which the network gained and lost most on another forecaster, if there are two."""
        if self.issues < 2:
            return None
        other, own = (np.array(tally.windows).sum(axis=(1, 2)) for tally in (self.tallies[over], self.beside_of(over)))
        gained = other - own
        return int(self.slots[int(np.argmax(gained))]), int(self.slots[int(np.argmin(gained))])

    def beside_of(self, name: str) -> Tally:
        """Return the network's scores on the cells that another forecaster is judged on."""
        return self.beside.get(name, self.tallies["network"])

    def shown(self) -> Iterator[tuple[str, str, Tally]]:
        """Yield forecasters, words on what they are judged on, and scores, in the order that tables have them."""
        for name, tally in self.tallies.items():
            yield name, ", where it knows" if name in self.beside else "", tally
            if name in self.beside:
                yield "network", f", where {name} knows", self.beside[name]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a forecaster, period and threshold: scores with their counts."""
        out = []
        for name, tally in self.tallies.items():
            low, high = self.intervals.get(name, (None, None))
            skill, kinds = self.skill(name), self.wetness[name]
            for p, period in enumerate(self.periods):
                for k, threshold in enumerate(self.thresholds):
                    row = {"forecaster": name, "period_min": list(period), "threshold_mm_h": threshold}
                    row |= self._row((tally, self.changes[name], self.fractions[name]), p, k)
                    if low is not None and high is not None:
                        row["network_brier"] = float(self.beside_of(name).brier[p, k])
                        row["network_skill"] = float(skill[p, k])
                        row["network_skill_90"] = [float(low[p, k]), float(high[p, k])]
                    parts = zip(KINDS, kinds.windows, kinds.tallies, kinds.changes, kinds.fractions, strict=True)
                    row["by_wetness"] = [
                        {"wet_share": list(edges), "windows": count, **self._row((one, changes, fractions), p, k)}
                        for edges, count, one, changes, fractions in parts
                        if one.cells[p, k]
                    ]
                    out.append(row)
        return out

    def _row(self, scores: tuple[Tally, Changes, Fractions], p: int, k: int) -> dict[str, Any]:
        tally, changes, fractions = scores
        found = tally.row(p, k) | changes.row(p, k)
        if self.cell is None:  # one cell has no scales
            score = fractions.score
            found["fss"] = {f"{edge * self.cell_km:.3g} km": float(score[i, p, k]) for i, edge in enumerate(EDGES)}
        return found

    def skill(self, over: str) -> ndarray:
        """Return the network's Brier skill over another forecaster, (period, threshold): 1 − its / the other's.

        NaN where the other made no error at all: nothing can be compared with that.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            found = 1 - self.beside_of(over).brier / self.tallies[over].brier
        return np.where(np.isfinite(found), found, np.nan)

    def as_attributes(self) -> dict[str, Any]:
        """Return everything as plain values."""
        kept = {name: getattr(self, name) for name in ("run", "network", "archive", "issues", "first", "last", "hours")}
        return {
            **kept,
            "truth": self.truth,
            "cell": self.cell,
            "issues_without": self.absent,
            "periods_min": self.periods,
            "thresholds_mm_h": self.thresholds,
            "scores": self.rows(),
        }
