"""Batches of windows, told by their number alone: crops of maps, each period a map of its own, turned every way.

Windows come in blocks: of each one all its periods are taken together, for making it is what costs; the maps of a block
are then dealt in an order of their own. So no more than two blocks of crops are in memory, however long the archive;
the next block is made in threads of its own while the network learns from this one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from fastrain.engine.leaving import check_leaving
from fastrain.rain.straight import CELLS
from fastrain.rain.windows import Window, Windows

BATCH = 8
CROP = 96  # cells; a larger map is trained on in crops
CELLS_FEW, CELLS_MOST = 4_000_000, 60_000_000  # seen in training: least for a short archive, most for a long one
PASSES = 6  # over all cells of all windows, between those two; more learn a single night by heart (LOG.md)
FEWEST_STEPS = 40

BLOCK = 32  # windows made together, whose maps are dealt anew
STEM_WINDOWS, LINE_WINDOWS = 8, 128  # looked at for the whitening and for the straight line
LINE_CELLS = 500_000  # of all maps together, at most, that the straight line is fitted to
WAIT = 0.2  # seconds between two looks whether the training is to leave

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Key = tuple[int, int]  # of a block: which pass over the windows, and which block of it


def crop_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the crops of a map of some cells."""
    return min(CROP, shape[0]), min(CROP, shape[1])


def steps_of(maps: int, shape: tuple[int, int], cells: int | None) -> int:
    """Return how many steps a training is worth.

    Args:
        maps: windows times periods.
        shape: of a map, cells.
        cells: seen, all steps together; derived from the maps if None.
    """
    height, width = crop_of(shape)
    wanted = cells or min(CELLS_MOST, max(CELLS_FEW, PASSES * maps * shape[0] * shape[1]))
    return max(FEWEST_STEPS, round(wanted / (BATCH * height * width)))


@dataclass(frozen=True)
class Sample:
    """A crop of one period of one window."""

    x: Tensor
    guess: Tensor
    known: Tensor
    outcome: Tensor
    weight: float


class Batches:
    """Draws batches by their number alone.

    Args:
        windows: gives them.
        issues: slots to train on.
        weights: of each window.
        box: rows and columns of the map that have truth.
        seed: of everything that is drawn.
        makers: threads that make the next block; 0 makes none ahead, in less memory.
        size: maps of a batch.
        part: of how many parts of each batch which one is drawn: of several processes that train together.
        varied: share of the windows that are drawn as they might have been; see `fastrain.rain.variety`.
    """

    def __init__(
        self,
        windows: Windows,
        issues: Int[ndarray, issues],
        weights: Float[ndarray, issues],
        box: tuple[slice, slice],
        *,
        seed: int,
        makers: int = 1,
        size: int = BATCH,
        part: tuple[int, int] = (0, 1),
        varied: float = 0.0,
    ) -> None:
        self.windows, self.issues, self.weights, self.box, self.seed = windows, issues, weights, box, seed
        self.periods = len(windows.radar.layout.periods)
        self.size, self.part, self.makers, self.varied = size, part, makers, varied
        self.shape = box[0].stop - box[0].start, box[1].stop - box[1].start
        self.crop = crop_of(self.shape)
        self._pool = ThreadPoolExecutor(max(1, makers), "windows")
        self._made: dict[Key, list[Future[list[Sample]]]] = {}

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Whoever leaves in a hurry does not wait for the window under way.
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        self._made.clear()

    def sample(self) -> Tensor:
        """Return crops of some windows' inputs, for the whitening."""
        every = max(1, self.periods // 2)
        chosen = np.unique(np.linspace(0, len(self.issues) - 1, STEM_WINDOWS).astype(int))
        return torch.stack([one.x for w in chosen for one in self._crops(int(w), 0)[::every]]).float()

    def scattered(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return guesses, conditions, outcomes and weights of cells drawn from maps, for the straight line."""
        draw = np.random.default_rng([self.seed, 3])
        parts: list[tuple[Tensor, ...]] = []
        chosen = np.unique(np.linspace(0, len(self.issues) - 1, LINE_WINDOWS).astype(int))
        cells = min(CELLS, LINE_CELLS // (len(chosen) * self.periods))
        for w in chosen:
            window = self._window(int(w), 0)
            for period, truth in enumerate(window.truth):
                at = torch.from_numpy(draw.integers(0, truth.size, cells))
                guess = window.inputs.guess[period].flatten(-2)[..., at].float()
                weight = torch.tensor(self.weights[w], dtype=torch.float32)
                parts.append((guess, window.inputs.known[period], torch.from_numpy(truth.ravel())[at], weight))
        guess, known, outcome, weight = (torch.stack(field) for field in zip(*parts, strict=True))
        return guess, known, outcome, weight

    def batch(self, step: int) -> Batch:
        """Return inputs, guesses, conditions, outcomes and weights of a step's batch."""
        mine, of = self.part
        positions = [self._at(step * self.size + i) for i in range(mine, self.size, of)]
        blocks = {key: self._block(key) for key in dict.fromkeys(key for key, _ in positions)}
        samples = [blocks[key][self._dealt(key, len(blocks[key]))[i]] for key, i in positions]
        last = self._at((step + 1) * self.size - 1)[0]
        for old in [key for key in self._made if key < last]:
            del self._made[old]
        if self.makers:
            self._begin(self._after(last))
        x, guess, known, outcome = (
            torch.stack([getattr(one, name) for one in samples]) for name in ("x", "guess", "known", "outcome")
        )
        way = int(np.random.default_rng([self.seed, step]).integers(8))
        x, guess, outcome = turn(way, x.float(), guess.float(), outcome)
        return x, guess, known, outcome, torch.tensor([one.weight for one in samples], dtype=torch.float32)

    def _at(self, position: int) -> tuple[Key, int]:
        """Return the block of a map's position in the whole training, and its position there."""
        passed, rest = divmod(position, len(self.issues) * self.periods)
        block, at = divmod(rest, BLOCK * self.periods)
        return (passed, block), at

    def _after(self, key: Key) -> Key:
        passed, block = key
        return (passed, block + 1) if (block + 1) * BLOCK < len(self.issues) else (passed + 1, 0)

    def _dealt(self, key: Key, maps: int) -> Int[ndarray, maps]:
        return np.random.default_rng([self.seed, 23, *key]).permutation(maps)

    def _begin(self, key: Key) -> None:
        """See that a block's windows are being made."""
        if key not in self._made:
            passed, block = key
            # Every window once, in a fresh order, before any comes again.
            order = np.random.default_rng([self.seed, 1_000_003, passed]).permutation(len(self.issues))
            chosen = order[block * BLOCK : (block + 1) * BLOCK]
            self._made[key] = [self._pool.submit(self._crops, int(w), passed) for w in chosen]

    def _block(self, key: Key) -> list[Sample]:
        self._begin(key)
        found: list[Sample] = []
        for future in self._made[key]:
            found += _awaited(future, patient=self.part[1] > 1)
        return found

    def _crops(self, window: int, passed: int) -> list[Sample]:
        """Return a crop of each of a window's periods."""
        draw = np.random.default_rng([self.seed, 19, passed, window])
        made = self._window(window, passed)
        found = []
        for period, truth in enumerate(made.truth):
            cut = tuple(
                slice(s.start + o, s.start + o + size)
                for s, size in zip(self.box, self.crop, strict=True)
                for o in [int(draw.integers(0, s.stop - s.start - size + 1))]
            )
            # Copies, so that nothing holds on to the whole of the map.
            x, guess = made.inputs.x[period][:, *cut].clone(), made.inputs.guess[period][:, :, *cut].clone()
            outcome = torch.from_numpy(truth[cut].copy())
            found.append(Sample(x, guess, made.inputs.known[period], outcome, float(self.weights[window])))
        return found

    def _window(self, window: int, passed: int) -> Window:
        """Return a window as a pass shows it: as it was, or as it might have been."""
        issue, draw = int(self.issues[window]), np.random.default_rng([self.seed, 29, passed, window])
        return self.windows.varied(issue, draw) if draw.random() < self.varied else self.windows[issue]


def _awaited(future: Future[list[Sample]], *, patient: bool) -> list[Sample]:
    """Return what a thread makes; a training that is told to leave does not wait for it.

    One of several processes does: all leave at the same step.
    """
    while not (patient or future.done()):
        check_leaving()
        wait([future], timeout=WAIT)
    return future.result()


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
