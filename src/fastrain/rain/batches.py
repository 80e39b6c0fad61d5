"""Batches of windows, told by their number alone: crops of maps, each period a map of its own, turned every way."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int8
from numpy import ndarray
from torch import Tensor

from fastrain.core.errors import TooShort
from fastrain.rain.inputs import InputCache, happened

BATCH = 8
CROP = 96  # cells; a larger map is trained on in crops
CELLS_FEW, CELLS_MOST = 4_000_000, 60_000_000  # seen in training: least for a short archive, most for a long one
PASSES = 6  # over all cells of all windows, between those two; more learn a single night by heart (LOG.md)

MOST_MAPS = 600  # looked at for the straight line

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Batches:
    """Draws batches by their number alone."""

    def __init__(
        self, cache: InputCache, issues: ndarray, weights: ndarray, *, seed: int, control: int | None = None
    ) -> None:
        """Prepare to draw.

        Args:
            cache: gives the inputs.
            issues: slots to train on.
            weights: of each window.
            seed: of everything that is drawn.
            control: seed of a shuffling of the truth, for a control that must not learn.
        """
        self.cache, self.issues, self.weights, self.seed = cache, issues, weights, seed
        radar = cache.radar
        self.truth = [happened(cache.frames, int(i), radar) for i in issues]
        if control is not None:
            self.truth = shuffled(self.truth, control)
        self.box = _truth_box(self.truth)
        self.pairs = [(w, p) for w in range(len(issues)) for p in range(len(radar.layout.periods))]
        rows, columns = (s.stop - s.start for s in self.box)
        self.crop = (min(CROP, rows), min(CROP, columns))

    def steps(self, cells: int | None) -> int:
        """Return how many steps the windows are worth."""
        a_step = BATCH * self.crop[0] * self.crop[1]
        rows, columns = (s.stop - s.start for s in self.box)
        wanted = cells or min(CELLS_MOST, max(CELLS_FEW, PASSES * len(self.pairs) * rows * columns))
        steps: int = round(wanted / a_step)
        return max(40, steps)

    def sample(self) -> Tensor:
        """Return inputs of some windows, for the whitening."""
        chosen = np.linspace(0, len(self.issues) - 1, min(8, len(self.issues))).astype(int)
        made = [
            self.cache[int(self.issues[w])].x[:: max(1, len(self.truth[0]) // 2), :, *self.box].float() for w in chosen
        ]
        return torch.cat(made)

    def scattered(self, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return guesses, conditions, outcomes and weights of cells drawn from every map, for the straight line."""
        draw = np.random.default_rng([self.seed, 3])
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        chosen = self.pairs[:: -(-len(self.pairs) // MOST_MAPS)]
        for window, period in chosen:
            inputs = self.cache[int(self.issues[window])]
            truth = self.truth[window][period].ravel()
            at = torch.from_numpy(draw.integers(0, truth.size, cells))
            guess = inputs.guess[period].flatten(-2)[..., at].float()
            parts.append((guess, inputs.known[period], torch.from_numpy(truth)[at]))
        guess, known, outcome = (torch.stack(field) for field in zip(*parts, strict=True))
        weight = torch.tensor([self.weights[window] for window, _ in chosen], dtype=torch.float32)
        return guess, known, outcome, weight

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return inputs, guesses, conditions, outcomes and weights of a step's batch."""
        draw = np.random.default_rng([self.seed, step])
        parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        weights = []
        for position in range(step * BATCH, (step + 1) * BATCH):
            # Every pair once, in a fresh order, before any comes again.
            epoch, at = divmod(position, len(self.pairs))
            order = np.random.default_rng([self.seed, 1_000_003, epoch]).permutation(len(self.pairs))
            window, period = self.pairs[order[at]]
            inputs = self.cache[int(self.issues[window])]
            cut = tuple(
                slice(s.start + o, s.start + o + size)
                for s, size in zip(self.box, self.crop, strict=True)
                for o in [int(draw.integers(0, s.stop - s.start - size + 1))]
            )
            truth = torch.from_numpy(self.truth[window][period][cut])
            parts.append((inputs.x[period][:, *cut], inputs.guess[period][:, :, *cut], inputs.known[period], truth))
            weights.append(self.weights[window])
        x, guess, known, outcome = (torch.stack(field) for field in zip(*parts, strict=True))
        turned = turn(int(draw.integers(8)), x.float(), guess.float(), outcome)
        return turned[0], turned[1], known, turned[2], torch.tensor(weights, dtype=torch.float32)


def turn(way: int, *maps: Tensor) -> tuple[Tensor, ...]:
    """Return maps in one of the eight ways a square can lie: rain comes from every side."""
    out = []
    for field in maps:
        if way & 1:
            field = field.flip(-1)
        if way & 2:
            field = field.flip(-2)
        if way & 4:
            field = field.transpose(-1, -2)
        out.append(field.contiguous())
    return tuple(out)


def shuffled(truth: list[Int8[ndarray, "period y x"]], seed: int) -> list[ndarray]:
    """Return truth that belongs to other windows and places: a control from which nothing can be learned."""
    draw = np.random.default_rng([seed, 7])
    order = draw.permutation(len(truth))
    out = []
    for i in order:
        values = truth[i].copy()
        for period in values:
            seen = period >= 0
            period[seen] = draw.permutation(period[seen])
        out.append(values)
    return out


def _truth_box(truth: list[ndarray]) -> tuple[slice, slice]:
    ever = np.any([(t >= 0).any(axis=0) for t in truth], axis=0)
    if not ever.any():
        raise TooShort("No cell of the training time is observed well enough to learn from.")
    rows, columns = np.flatnonzero(ever.any(axis=1)), np.flatnonzero(ever.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
