"""Training on several radars at once, for a network that holds on radars it never saw.

Variety is what limits such a network, not the length of events: every radar is asked for as often as every other, on
tiles all over a large map, with finer and coarser cells, at slower cadences, with stronger and weaker rain, forwards
and backwards in time. Windows are made as they are needed, so that memory does not grow with what is drawn from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.core.levels import NOT_OBSERVED
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.engine.precision import fast_precision
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import BATCH, CROP, Batch, turn
from fastrain.rain.inputs import make_inputs
from fastrain.rain.radar import Radar, Truth, happened
from fastrain.rain.run import make_network
from fastrain.rain.straight import fit_straight
from fastrain.rain.train import loss_of
from fastrain.rain.variety import BACKWARDS, SCALED, SCALES, SLOWER, SLOWEST, backwards, scaled, seldom
from fastrain.samples.frames import Frames, load_frames
from fastrain.samples.layout import FrameLayout, Layout
from fastrain.samples.split import issue_slots

LARGEST_TILE = 256  # cells; of a larger map those tiles are taken that hold most rain
HISTORY = 30  # minutes
ISSUES_OVER = 60  # minutes, at least
STRAIGHT_CELLS = 512  # of each map, that the straight line is fitted to

WINDOWS = 32  # made for a block of batches, which are then dealt anew
PERIODS, CROPS = 3, 4  # taken of each
CANDIDATES = 6  # crops, of which one is drawn by the rain it shows
DRY_SHARE = 0.2  # a dry crop is drawn this much, beside 1 + this for a wet one
MEANS = 0.5  # share of the windows whose chances are of the cells' means
LARGEST_WEIGHT = 4.0  # of a cell of a small map
FIRST_BLOCKS = 2  # that whitening and straight line look at


@dataclass(frozen=True)
class Event:
    """One radar's spell of weather.

    Attributes:
        name: to be called by.
        frames: all of it, slot by slot, cut to a tile where the map is large.
        held: whether the archive holds each frame.
        radar: what inputs are made from.
        layout: of the windows, in minutes.
        coarseness: of its cells.
    """

    name: str
    frames: Frames
    held: Bool[ndarray, slot]
    radar: Radar
    layout: Layout
    coarseness: int = 1

    def issues(self, most: int | None = None) -> Int[ndarray, issues]:
        """Return the slots that windows can be issued at; evenly spaced ones where there are more than `most`."""
        found = np.asarray(self.frames.slots[0] + issue_slots(self.held, self.radar.layout, 0, len(self.held)))
        if most is None or len(found) <= most:
            return found
        chosen: Int[ndarray, issues] = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
        return chosen

    def backwards(self) -> Event:
        """Return the event as if time ran the other way: rain that decayed grows."""
        return replace(self, name=f"{self.name}, backwards", frames=backwards(self.frames), held=self.held[::-1])

    def scaled(self, factor: float) -> Event:
        """Return the event as if it had rained `factor` times as much; thresholds move to the nearest edges."""
        return replace(self, radar=scaled(self.radar, factor))

    def slower(self, times: int, phase: int = 0) -> Event:
        """Return the event as a radar would see it that scans `times` as seldom."""
        cadence = self.radar.cadence * times
        layout = varied_layout(cadence, len(self.frames.slots) * self.radar.cadence)
        radar = replace(self.radar, cadence=cadence, layout=layout.frames(cadence))
        frames = seldom(self.frames, times, phase)
        return replace(self, frames=frames, held=self.held[phase::times], radar=radar, layout=layout)


def events_of(
    archive: Archive,
    layout: Layout,
    thresholds: tuple[float, ...],
    *,
    coarseness: int,
    truth: Truth = "maximum",
    tiles: int = 1,
) -> list[Event]:
    """Return an archive as events: one, or as many tiles of a large map as asked for, those with most rain.

    Args:
        archive: to read; all of its span is held in memory.
        layout: of the windows; must fit the cadence.
        thresholds: mm/h; each is moved to the nearest edge of the radar's levels.
        coarseness: of the cells.
        truth: of which of a block's rates the chances speak.
        tiles: at most.

    Raises:
        TooShort: no window fits into the archive.
    """
    start, stop = archive.span or (0, 0)
    edges = tuple(archive.schema.table.nearest_edge(t) for t in thresholds)
    radar = Radar.of(archive.schema, coarseness, edges, layout.frames(archive.schema.axis.cadence), truth)
    held = archive.observed(start, stop)
    if not len(issue_slots(held, radar.layout, 0, len(held))):
        raise TooShort(
            f"{archive.path}: holds no window of {layout.history} min and {layout.periods[-1][1]} min ahead."
        )
    frames = load_frames(archive, coarseness, np.arange(start, stop))
    name = archive.path.name if hasattr(archive.path, "name") else str(archive.path)
    return [
        Event(f"{name}, tile {i + 1}" if i else name, frames.cut(box), held, radar, layout, coarseness)
        for i, box in enumerate(_tiles(frames, tiles))
    ]


def _tiles(frames: Frames, most: int) -> list[tuple[slice, slice]]:
    """Return the tiles of a map that hold most rain, or all of a map that is no larger than one."""
    rows, columns = frames.maximum.shape[1:]
    if rows <= LARGEST_TILE and columns <= LARGEST_TILE:
        return [(slice(0, rows), slice(0, columns))]
    level = frames.maximum
    wet = ((level > 0) & (level != NOT_OBSERVED)).sum(axis=0)
    found = []
    for top in _starts(rows):
        for left in _starts(columns):
            box = slice(top, min(rows, top + LARGEST_TILE)), slice(left, min(columns, left + LARGEST_TILE))
            found.append((-int(wet[box].sum()), top, left, box))
    return [box for *_, box in sorted(found, key=lambda f: f[:3])[:most]]


def _starts(size: int) -> list[int]:
    """Return where tiles begin, the last one at the map's end."""
    return sorted({*range(0, max(1, size - LARGEST_TILE), LARGEST_TILE), max(0, size - LARGEST_TILE)})


def varied_layout(cadence: timedelta, span: timedelta) -> Layout:
    """Return a layout of many kinds of periods, so that one network learns all that it may be asked for.

    Ten minutes, half hours, hours and single moments, as far as they fit the cadence, and leave an
    hour of issue times.
    """
    step = cadence.total_seconds() / 60
    furthest = max(30.0, min(180.0, span.total_seconds() / 60 - HISTORY - ISSUES_OVER))
    wanted = [(10 * i, 10 * (i + 1)) for i in range(6)]
    wanted += [(30 * i, 30 * (i + 1)) for i in range(3)]
    wanted += [(round(30 * i - step), 30 * i) for i in range(1, 4)]
    wanted += [(60 * i, 60 * (i + 1)) for i in range(3)]
    fitting = {(a, b) for a, b in wanted if not (a % step or b % step) and b <= furthest}
    if not fitting:
        fitting = {(0, round(step * ceil(30 / step)))}
    return Layout(HISTORY, tuple(sorted(fitting, key=lambda period: (period[1], period[0]))))


def fit_joint(
    radars: Sequence[Sequence[Event]],
    *,
    width: int,
    cells: int,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[RainNet, RainNet]:
    """Return a network fitted to several radars, and what it began from: the straight line through the guesses.

    Args:
        radars: the events of each, all of as many thresholds.
        width: of the network.
        cells: that it sees, all steps together.
        seed: of everything that is drawn.
        progress: see `fit`.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    torch.manual_seed(seed)
    with Draws(radars, seed) as draws:
        network = make_network(len(radars[0][0].radar.thresholds), width)
        network.stem.fit(draws.sample())
        fit_straight(network, *draws.scattered(STRAIGHT_CELLS))
        straight = copy.deepcopy(network).eval()
        steps = draws.steps(cells)
        fitted = fit(
            network,
            draws.batch,
            loss_of,
            adamw(network, steps),
            FitSettings(steps=steps, clip=1.0, precision=fast_precision("cpu"), look_every=20),
            average=Average(network, max(20, steps // 8)),
            progress=progress,
        )
    return cast(RainNet, fitted), straight


@dataclass(frozen=True)
class Sample:
    """A crop of one period of one window; where it reaches beyond the map, nothing is observed."""

    x: Tensor
    guess: Tensor
    known: Tensor
    outcome: Tensor
    weight: float


class Draws:
    """Draws batches of varied windows, each told by its number alone.

    Windows come in blocks; the next one is made in a thread of its own while the network learns from this one.

    Args:
        radars: the events of each.
        seed: of everything that is drawn.
    """

    def __init__(self, radars: Sequence[Sequence[Event]], seed: int) -> None:
        self.radars, self.seed = [list(events) for events in radars], seed
        self.batches_a_block = WINDOWS * PERIODS * CROPS // BATCH
        self._worker = ThreadPoolExecutor(1)
        self._made: dict[int, Future[list[Sample]]] = {}

    def __enter__(self) -> Draws:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)

    @staticmethod
    def steps(cells: int) -> int:
        """Return how many steps are worth a number of cells."""
        return max(40, round(cells / (BATCH * CROP * CROP)))

    def batch(self, step: int) -> Batch:
        """Return inputs, guesses, conditions, outcomes and weights of a step's batch."""
        number, at = divmod(step, self.batches_a_block)
        samples = self._block(number, ahead=True)
        draw = np.random.default_rng([self.seed, 13, number])
        order = draw.permutation(len(samples))[at * BATCH : (at + 1) * BATCH]
        way = int(np.random.default_rng([self.seed, 17, step]).integers(8))
        return _stacked([samples[i] for i in order], way)

    def sample(self) -> Tensor:
        """Return inputs of some crops, for the whitening."""
        return torch.stack([one.x for one in self._first()[::4]]).float()

    def scattered(self, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return guesses, conditions, outcomes and weights of cells drawn from every crop, for the straight line."""
        draw = np.random.default_rng([self.seed, 3])
        samples = self._first()
        at = torch.from_numpy(draw.integers(0, CROP * CROP, (len(samples), cells)))
        guess = torch.stack([one.guess.flatten(-2)[..., i].float() for one, i in zip(samples, at, strict=True)])
        outcome = torch.stack([one.outcome.flatten()[i] for one, i in zip(samples, at, strict=True)])
        known = torch.stack([one.known for one in samples])
        return guess, known, outcome, torch.tensor([one.weight for one in samples])

    def _first(self) -> list[Sample]:
        return [one for number in range(FIRST_BLOCKS) for one in self._block(number)]

    def _block(self, number: int, ahead: bool = False) -> list[Sample]:
        wanted = (number, number + 1) if ahead else (number,)
        for i in wanted:
            if i not in self._made:
                self._made[i] = self._worker.submit(self._make, i)
        for i in [i for i in self._made if i < number and ahead]:
            del self._made[i]
        return self._made[number].result()

    def _make(self, number: int) -> list[Sample]:
        out: list[Sample] = []
        for i in range(WINDOWS):
            draw = np.random.default_rng([self.seed, 19, number, i])
            turn_of = (number * WINDOWS + i) % len(self.radars)
            out += self._window(self.radars[turn_of], draw)
        return out

    def _window(self, events: list[Event], draw: np.random.Generator) -> list[Sample]:
        event = varied(events[int(draw.integers(len(events)))], draw)
        issues = event.issues()
        issue = int(issues[draw.integers(len(issues))])
        every = event.radar.layout
        chosen = sorted(draw.choice(len(every.periods), min(PERIODS, len(every.periods)), replace=False))
        layout = FrameLayout(every.history, tuple(every.periods[i] for i in chosen), every.guard)
        radar = replace(event.radar, layout=layout)
        inputs, moved = make_inputs(event.frames, issue, radar)
        outcome = torch.from_numpy(happened(event.frames, issue, radar))
        wet = (moved.highest >= radar.thresholds[0] * (1 - 1e-6)) & moved.known
        out = []
        for i in range(PERIODS * CROPS):
            p = i % len(chosen)
            (top, left), weight = _crop(wet[p], (outcome[p] >= 0) & moved.known[p], draw)
            box = slice(top, top + CROP), slice(left, left + CROP)
            out.append(
                Sample(
                    _padded(inputs.x[p][:, *box], 0.0),
                    _padded(inputs.guess[p][:, :, *box], 0.0),
                    inputs.known[p],
                    _padded(outcome[p][box], -1),
                    weight,
                )
            )
        return out


def varied(event: Event, draw: np.random.Generator) -> Event:
    """Return an event as another radar might have seen it, on another day, and of either truth."""
    if event.radar.speaks_of_means:
        truth: Truth = "mean" if draw.random() < MEANS else "maximum"
        event = replace(event, radar=replace(event.radar, truth=truth))
    times = int(draw.integers(2, 4))
    if draw.random() < SLOWER and event.radar.cadence * times <= SLOWEST:
        slower = event.slower(times, int(draw.integers(times)))
        event = slower if len(slower.issues()) else event
    if draw.random() < BACKWARDS:
        event = event.backwards()
    if draw.random() < SCALED:
        low, high = np.log(SCALES)
        event = event.scaled(float(np.exp(draw.uniform(low, high))))
    return event


def _crop(wet: Tensor, judged: Tensor, draw: np.random.Generator) -> tuple[tuple[int, int], float]:
    """Return the corner of a crop, and what its cells weigh so that the draw biases no chance.

    Wet crops teach more: of a few candidates one is drawn by the rain that its input shows, never by what came after.
    """
    rows, columns = wet.shape
    corners = [
        (int(draw.integers(max(0, rows - CROP) + 1)), int(draw.integers(max(0, columns - CROP) + 1)))
        for _ in range(CANDIDATES)
    ]
    boxes = [(slice(top, top + CROP), slice(left, left + CROP)) for top, left in corners]
    worth = np.array([float(wet[box].float().mean()) for box in boxes]) + DRY_SHARE
    # Where nothing is known there is nothing to learn: that says nothing of rain.
    worth = worth * np.array([float(judged[box].any()) for box in boxes]) + 1e-9
    share = worth / worth.sum()
    chosen = int(draw.choice(CANDIDATES, p=share))
    small = min(LARGEST_WEIGHT, CROP * CROP / (min(rows, CROP) * min(columns, CROP)))
    return corners[chosen], small / (share[chosen] * CANDIDATES)


def _padded(field: Tensor, fill: float) -> Tensor:
    rows, columns = field.shape[-2:]
    return F.pad(field, (0, CROP - columns, 0, CROP - rows), value=fill).contiguous()


def _stacked(samples: list[Sample], way: int) -> Batch:
    x = torch.stack([one.x for one in samples]).float()
    guess = torch.stack([one.guess for one in samples]).float()
    outcome = torch.stack([one.outcome for one in samples])
    x, guess, outcome = turn(way, x, guess, outcome)
    weight = torch.tensor([one.weight for one in samples], dtype=torch.float32)
    return x, guess, torch.stack([one.known for one in samples]), outcome, weight
