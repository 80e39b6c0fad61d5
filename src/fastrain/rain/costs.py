"""What pieces of a training take, measured on the archive itself, and what follows from them for larger maps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastrain.archive.store import Archive
from fastrain.rain.inputs import CONDITIONS
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.radar import Radar
from fastrain.rain.run import make_network
from fastrain.rain.settle import settle
from fastrain.rain.smoothing import GUESSES
from fastrain.rain.straight import fit_straight
from fastrain.rain.survey import Survey, survey
from fastrain.samples.frames import load_frames, window_slots
from fastrain.samples.layout import FrameLayout
from fastrain.samples.split import Split, evenly

LOOKED_AT = 24  # windows that tell how wet the training time is
SOME_CELLS = 20_000  # that settling the calibration is timed on
MEASURED_CELLS = 60_000  # of a map, at most, unless the coarsest two have more
FRAMES_BYTES = 2**26  # of memory for the frames that are looked at


@dataclass(frozen=True)
class Spent:
    """Seconds of the wall clock and of all processors."""

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(max(0.0, self.wall - other.wall), max(0.0, self.cpu - other.cpu))

    def __mul__(self, times: float) -> Spent:
        return Spent(self.wall * times, self.cpu * times)


def spent_on(work: Callable[[], object], times: int = 1) -> Spent:
    """Return what some work takes, the median of a number of times."""
    found = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append(Spent(time.perf_counter() - wall, time.process_time() - cpu))
    return sorted(found, key=lambda one: one.cpu)[len(found) // 2]


class Line:
    """A cost that grows in a line with the cells of a map, through those of one map or two."""

    def __init__(self) -> None:
        self._points: dict[int, Spent] = {}

    def add(self, cells: int, spent: Spent) -> None:
        """Note what a map of some cells costs."""
        self._points[cells] = spent

    def at(self, cells: int) -> Spent:
        """Return what a map of some cells costs; a further cell costs no less than nothing."""
        known = sorted(self._points)
        first, last = known[0], known[-1]
        low, high = self._points[first], self._points[last]
        if first == last:
            return low * (cells / first)
        share = (cells - first) / (last - first)
        wall, cpu = (a + max(0.0, b - a) * share for a, b in ((low.wall, high.wall), (low.cpu, high.cpu)))
        return Spent(max(0.0, wall), max(0.0, cpu))


@dataclass(frozen=True)
class Ground:
    """What all rows of a plan stand on.

    Attributes:
        archive: see there.
        split: of its time.
        settings: of the training.
        thresholds: mm/h, moved to the edges of levels.
        threads: that training would use.
        base: bytes of memory that the program took before anything was measured.
        began: what starting the program took.
        memory: bytes that training may take.
        free_disk: bytes free where the run would lie.
        coarsenesses: planned for, rising.
        device: that would train.
    """

    archive: Archive
    split: Split
    settings: TrainSettings
    thresholds: tuple[float, ...]
    threads: int
    base: int
    began: Spent
    memory: int
    free_disk: int
    coarsenesses: tuple[int, ...]
    device: torch.device

    @property
    def two(self) -> list[int]:
        """The coarsenesses that are measured at, the coarsest first and twice: the first time only warms up.

        The two lie far apart as far as that costs little, for what is finer follows from them.
        """
        *finer, coarsest = self.coarsenesses
        other = next((c for c in finer if self.cells(c) <= MEASURED_CELLS), finer[-1] if finer else coarsest)
        return [coarsest, other, coarsest]

    @cached_property
    def layout(self) -> FrameLayout:
        """Of the windows, in frames."""
        return self.split.layout.frames(self.archive.schema.axis.cadence)

    def radar(self, coarseness: int, count: int | None = None) -> Radar:
        """Return what inputs are made from, of the lowest thresholds."""
        return Radar.of(self.archive.schema, coarseness, self.thresholds[:count], self.layout, self.settings.truth)

    def shape(self, coarseness: int) -> tuple[int, int]:
        """Return rows and columns of the map."""
        rows, columns = self.archive.schema.grid.coarsened(coarseness).shape
        return int(rows), int(columns)

    def cells(self, coarseness: int) -> int:
        """Return the cells of the map."""
        rows, columns = self.shape(coarseness)
        return rows * columns

    @cached_property
    def seen(self) -> Survey:
        """A look at a few windows of the training time, at the coarsest grid."""
        few = np.unique(evenly(self.split.issues["train"], LOOKED_AT))
        coarsest = self.coarsenesses[-1]
        return survey(self.archive, coarsest, few, self.radar(coarsest), FRAMES_BYTES)

    @property
    def kept_share(self) -> float:
        """Share of the windows that are not left out as dry."""
        dry = self.seen.wet < self.settings.dry_below
        return float(np.where(dry, self.settings.keep_dry, 1.0).mean())

    @cached_property
    def reading(self) -> Line:
        """What reading a frame takes."""
        found = Line()
        slots = window_slots(self.split.issues["calibrate"][:1], self.layout)
        for c in self.two:
            taken = spent_on(lambda c=c: load_frames(self.archive, c, slots, memory=2**62))  # type: ignore[misc]
            found.add(self.cells(c), taken * (1 / len(slots)))
        return found

    @cached_property
    def _settling(self) -> Spent:
        draw = np.random.default_rng(0)
        shape = (len(self.layout.periods), len(self.thresholds), 1, SOME_CELLS // 4)
        logits = [draw.normal(size=shape).astype(np.float32) for _ in range(8)]
        truth = [draw.integers(0, shape[1] + 1, (shape[0], 1, shape[-1])).astype(np.int8) for _ in range(4)]
        long = self.split.is_long("calibrate", self.archive.schema.axis.cadence)
        parts = list(zip(logits[:4], logits[4:], strict=True))
        return spent_on(lambda: settle(parts, truth, long=long)) * (1 / SOME_CELLS)

    def settling(self, maps_cells: int) -> Spent:
        """Return what settling the calibration on some cells, of all windows together, takes."""
        return self._settling * maps_cells

    @cached_property
    def _line(self) -> Line:
        """What fitting the straight line takes, by the cells that it is fitted to."""
        draw = torch.Generator().manual_seed(0)
        maps, count = 16, len(self.thresholds)
        found = Line()
        for cells in (SOME_CELLS // 8, SOME_CELLS):
            guess = torch.randn(maps, count, GUESSES, cells // maps, generator=draw)
            outcome = (torch.sigmoid(guess.mean(dim=(1, 2))) * (count + 1)).floor().to(torch.int8)
            known = torch.randn(maps, CONDITIONS, generator=draw)
            network = make_network(count, 8)
            found.add(cells, spent_on(partial(fit_straight, network, guess, known, outcome, torch.ones(maps))))
        return found

    def straight_line(self, cells: int) -> Spent:
        """Return what fitting the straight line to some cells takes."""
        return self._line.at(max(cells, SOME_CELLS // 8))

    def slots_of(self, issues: int, block: str) -> int:
        """Return about how many frames the windows of some issue times touch, evenly spaced ones of a block."""
        whole = self.split.issues[block]
        return len(window_slots(np.unique(evenly(whole, issues)), self.layout))


def on_gpu(device: torch.device) -> int | None:
    """Return the bytes of a GPU's memory that were taken at most since that was reset; None on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def state_bytes(network: nn.Module, copies: int = 4) -> int:
    """Return the bytes of a checkpoint: the weights, their average, and what the optimiser keeps of each."""
    return copies * sum(p.numel() * p.element_size() for p in network.parameters())


def free_at(path: Path) -> Path:
    """Return the nearest folder of a path that is there."""
    return next(one for one in (path, *path.resolve().parents) if one.is_dir())
