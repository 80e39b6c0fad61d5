"""Batches of a place's windows, told by their number alone, made one ahead of what is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from torch import Tensor

from fastrain.core.errors import TooShort
from fastrain.rain.place.prepare import Prepared
from fastrain.rain.place.views import ages
from fastrain.rain.place.windows import known_of

ITSELF = 0.25  # share of the draws that look from the place itself, not from beside it

# Inputs, guesses, conditions, motion, outcomes, weights.
PlaceBatch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Looker:
    """Looks at the windows of one block of time.

    Args:
        prepared: the windows.
        block: `train` or `calibrate`.
        thresholds: how many are spoken of, the lowest ones.
        control: seed of a shuffling that gives each window the truth of another, for a control that must not learn.

    Attributes:
        count: of the windows.
        places: that they can be looked at from; 0 is the place itself.
    """

    def __init__(self, prepared: Prepared, block: str, thresholds: int, *, control: int | None = None) -> None:
        self.prepared, self.thresholds = prepared, thresholds
        self.rows = prepared.windows[block]
        kept = prepared.kept[block].all()
        self.issues, self.weights = kept["issue"], kept["weight"]
        # Stretch by stretch they rise, but a later one may fetch slots that an earlier one passed by.
        slots = prepared.slots.all()
        self._order = np.argsort(slots)
        self._slots = slots[self._order]
        self.count, self.places = len(kept), len(prepared.view.nearby)
        if self.count == 0:
            raise TooShort(f"The place is not observed well enough in the time to {block}: no window can be judged.")
        self.known = known_of(prepared.radar)
        self.truth = None if control is None else np.random.default_rng([control, 7]).permutation(self.count)

    def look(self, numbers: Int[ndarray, window], at: Int[ndarray, window], way: int = 0) -> PlaceBatch:
        """Return a batch of some windows, each looked at from one of the places, the maps turned some way."""
        rows = self.rows.read(numbers)
        truth = rows if self.truth is None else self.rows.read(self.truth[numbers])
        window = np.arange(len(numbers))
        return (
            self.prepared.view.inputs(self._records(numbers), at, way),
            torch.from_numpy(rows["guess"][window, at][:, :, : self.thresholds].astype(np.float32)),
            self.known,
            turned_motion(torch.from_numpy(rows["motion"].copy()), way),
            torch.from_numpy(np.minimum(truth["outcome"][window, at], self.thresholds)),
            torch.from_numpy(self.weights[numbers]),
        )

    def spread(self, windows: int) -> Int[ndarray, window]:
        """Return at most so many windows' numbers, evenly spaced."""
        return np.unique(np.linspace(0, self.count - 1, windows).astype(int))

    def guesses(self, windows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the straight line is fitted to: of some windows, a map for each period and a cell for each place.

        Returns:
            guess (map, threshold, guess, place), known (map, condition), outcome (map, place), weight (map).
        """
        numbers = self.spread(windows)
        rows = self.rows.read(numbers)
        truth = rows if self.truth is None else self.rows.read(self.truth[numbers])
        guess = torch.from_numpy(rows["guess"][:, :, :, : self.thresholds].astype(np.float32))
        outcome = torch.from_numpy(np.minimum(truth["outcome"], self.thresholds))
        return (
            guess.permute(0, 2, 3, 4, 1).flatten(0, 1),  # from (window, place, period, threshold, guess)
            self.known.repeat(len(numbers), 1),
            outcome.permute(0, 2, 1).flatten(0, 1),
            torch.from_numpy(self.weights[numbers]).repeat_interleave(len(self.known)),
        )

    def _records(self, numbers: Int[ndarray, window]) -> UInt8[ndarray, "window age byte"]:
        wanted = self.issues[numbers][:, None] - ages(self.prepared.radar)
        return self.prepared.frames.read(self._order[np.searchsorted(self._slots, wanted)])


class PlaceBatches:
    """Draws batches by their number alone.

    Args:
        looker: at the windows.
        size: windows of a batch.
        seed: of everything that is drawn.
        part: of how many parts of each batch which one is drawn: of several processes that train together.
    """

    def __init__(self, looker: Looker, size: int, *, seed: int, part: tuple[int, int] = (0, 1)) -> None:
        self.looker, self.size, self.seed, self.part = looker, size, seed, part
        self._order: tuple[int, ndarray] = (-1, np.empty(0, int))
        self._maker = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[PlaceBatch]] | None = None

    def batch(self, step: int) -> PlaceBatch:
        """Return a step's batch, and begin the next one's."""
        if self._next is None or self._next[0] != step:
            self._next = (step, self._maker.submit(self._make, step))
        made = self._next[1].result()
        self._next = (step + 1, self._maker.submit(self._make, step + 1))
        return made

    def __enter__(self) -> PlaceBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._maker.shutdown()  # and wait for what is under way

    def _make(self, step: int) -> PlaceBatch:
        draw = np.random.default_rng([self.seed, step])
        numbers = self._numbers(np.arange(step * self.size, (step + 1) * self.size))
        beside = draw.integers(0, self.looker.places, len(numbers))
        at = np.where(draw.random(len(numbers)) < ITSELF, 0, beside)
        mine, of = self.part
        ways = self.looker.prepared.view.ways
        return self.looker.look(numbers[mine::of], at[mine::of], ways[int(draw.integers(len(ways)))])

    def _numbers(self, positions: Int[ndarray, position]) -> Int[ndarray, position]:
        """Return the windows at some positions: every one once, in a fresh order, before any comes again."""
        count = self.looker.count
        out = np.empty_like(positions)
        for epoch in np.unique(positions // count):
            if self._order[0] != epoch:
                order = np.random.default_rng([self.seed, 1_000_003, int(epoch)]).permutation(count)
                self._order = (int(epoch), order)
            here = positions // count == epoch
            out[here] = self._order[1][positions[here] % count]
        return out


def turned_motion(motion: Tensor, way: int) -> Tensor:
    """Return motions (dy, dx) on maps that were turned some way by `fastrain.rain.batches.turn`."""
    signs = torch.tensor([-1.0 if way & 2 else 1.0, -1.0 if way & 1 else 1.0])
    motion = motion * signs
    return motion.flip(-1) if way & 4 else motion
