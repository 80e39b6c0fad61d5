"""Learning from a radar's own last hours: forecasts that have come due say by how much chances are off on this radar.

A network that never saw a radar is right about how rain moves and fades, and wrong by about the same everywhere: this
radar's least rain, its clutter, today's kind of weather. What was forecast an hour ago can be compared with what came;
a regression on the two summands of each threshold's logits, held near their sum where little is known, takes that out,
and says how far what was learned elsewhere is to be trusted here. Nothing later than the issue is looked at.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8
from numpy import ndarray

from fastrain.samples.layout import middle

CELLS = 1024  # of each map, that are looked at
HOURS = 4.0  # back
EVERY = 30  # minutes between the forecasts that are looked at: nearer ones say nearly the same
PRIOR = 0.4  # standard deviation of what a radar's weights and shifts are off by, before anything is seen
PATCH_KM = 50.0  # rain nearer than this, and within an hour, is one observation
ROUNDS = 12
LONGEST_STEP = 1.0
TERMS = 4  # weights of the straight line and of what was learned, a shift, and one that grows with the lead


@dataclass(frozen=True)
class _Due:
    issue: int
    period: int
    straight: Float[ndarray, "threshold cell"]
    learned: Float[ndarray, "threshold cell"]
    outcome: Int8[ndarray, cell]
    area: float  # km² that were judged


class Adapter:
    """What a radar's own past says of a network's chances.

    Attributes:
        every: frames between the issues that are looked at; those whose slot it divides.
        reach: frames back that forecasts are looked at.

    Args:
        periods: frames after the issue, (start, end].
        minutes: between frames.
        thresholds: how many.
        cell_km: edge of a cell.
        seed: of the cells that are looked at.
        prior: standard deviation of what a radar's weights are off by.
    """

    def __init__(
        self,
        periods: tuple[tuple[int, int], ...],
        minutes: float,
        thresholds: int,
        cell_km: float,
        *,
        seed: int = 0,
        prior: float = PRIOR,
    ) -> None:
        self.periods, self.minutes, self.thresholds, self.cell_km = periods, minutes, thresholds, cell_km
        self.seed, self.prior = seed, prior
        self.every = max(1, round(EVERY / minutes))
        self.reach = round(HOURS * 60 / minutes)
        self._past: deque[_Due] = deque()
        leads = np.array([middle(period) * minutes for period in periods])
        self._late = leads / 60

    def add(
        self,
        issue: int,
        straight: Float[ndarray, "period threshold y x"],
        learned: Float[ndarray, "period threshold y x"],
        outcome: Int8[ndarray, "period y x"],
    ) -> None:
        """Keep a forecast of the past, to be compared once its periods are over.

        Args:
            issue: slot.
            straight: summand of the logits that is the straight line through the guesses.
            learned: the other summand.
            outcome: thresholds reached, −1 where not to be judged.

        Fewer periods than there are may be given, the first ones; slots that `every` does not divide are passed over.
        """
        if issue % self.every:
            return
        draw = np.random.default_rng([self.seed, issue])
        for p in range(len(outcome)):
            seen = np.flatnonzero(outcome[p] >= 0)
            if len(seen):
                at = draw.choice(seen, CELLS)
                line, more = (z[p].reshape(self.thresholds, -1)[:, at].astype(np.float32) for z in (straight, learned))
                self._past.append(_Due(issue, p, line, more, outcome[p].ravel()[at], len(seen) * self.cell_km**2))

    def learned_from(self, slots: Int[ndarray, slots], issues: Int[ndarray, issues]) -> Int[ndarray, some]:
        """Return which of some slots forecasts at some issue times look back at."""
        # Of the next issue time after each slot: is it within reach?
        after = np.searchsorted(issues, slots, side="right")
        within = np.append(issues, np.iinfo(np.int64).max)[after] - slots <= self.reach
        return np.asarray(slots[within & (slots % self.every == 0)])

    def weights(self, now: int) -> Float[ndarray, "threshold term"]:
        """Return what to add to the weights of both summands (1 each), and the shifts, by what was over by a slot."""
        while self._past and self._past[0].issue < now - self.reach:
            self._past.popleft()
        due = [one for one in self._past if one.issue + self.periods[one.period][1] <= now]
        found = np.zeros((self.thresholds, TERMS))
        if not due:
            return found
        issues = [one.issue for one in due]
        hours = (max(issues) - min(issues)) * self.minutes / 60 + 0.25
        # Neighbouring cells say the same: what counts is how many patches of rain, and hours, were seen.
        seen = hours * float(np.mean([one.area for one in due])) / PATCH_KM**2
        ridge = 1 / (2 * self.prior**2 * seen)
        straight = np.concatenate([one.straight for one in due], axis=1).astype(float)
        learned = np.concatenate([one.learned for one in due], axis=1).astype(float)
        outcome = np.concatenate([one.outcome for one in due])
        late = np.concatenate([np.full(one.outcome.size, self._late[one.period]) for one in due])
        for k in range(self.thresholds):
            judged = outcome >= k
            terms = np.stack([straight[k], learned[k], np.ones_like(late), late])[:, judged]
            event = outcome[judged] > k
            found[k] = _regress(terms, terms[0] + terms[1], event, len(outcome), ridge)
        return found

    def logits(
        self,
        straight: Float[ndarray, "period threshold y x"],
        learned: Float[ndarray, "period threshold y x"],
        weights: Float[ndarray, "threshold term"],
    ) -> Float[ndarray, "period threshold y x"]:
        """Return the logits under some weights."""
        of_line, of_learned, shift, later = weights.T[:, None, :, None, None]
        late = self._late[:, None, None, None]
        return np.asarray((1 + of_line) * straight + (1 + of_learned) * learned + shift + later * late)


def _regress(terms: ndarray, offset: ndarray, event: ndarray, cells: int, ridge: float) -> Float[ndarray, TERMS]:
    """Return the coefficients of the highest likelihood beside an offset, held near 0: Newton's method."""
    found = np.zeros(TERMS)
    for _ in range(ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(offset + found @ terms, -30, 30)))
        slope = terms @ (event - chance) / cells - 2 * ridge * found
        weighted = terms * (chance * (1 - chance))
        curve = weighted @ terms.T / cells + 2 * ridge * np.eye(TERMS)
        step = np.linalg.solve(curve, slope)
        step *= min(1.0, LONGEST_STEP / max(1e-12, float(np.abs(step).max())))
        found = found + step
        if np.abs(step).max() < 1e-5:
            break
    return found
