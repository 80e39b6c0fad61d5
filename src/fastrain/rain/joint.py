"""Training on several radars' events at once, for a network that holds on radars it never saw.

Variety of events is what limits such a network, not their length: every event is asked for as often as every other,
forwards and backwards in time, for rain that decays one way grows the other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.core.levels import NOT_OBSERVED
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import BATCH, Batch, Batches
from fastrain.rain.inputs import Radar, Truth
from fastrain.rain.run import make_network
from fastrain.rain.straight import fit_straight
from fastrain.rain.train import loss_of
from fastrain.samples.frames import Frames, load_frames
from fastrain.samples.layout import Layout
from fastrain.samples.split import issue_slots

LARGEST_TILE = 256  # cells; of a larger map those tiles are taken that hold most rain
PATCH = 16  # cells, that the whitening looks at: maps of events differ in size
HISTORY = 30  # minutes
ISSUES_OVER = 60  # minutes, at least
STRAIGHT_CELLS = 512  # of each map, that the straight line is fitted to


@dataclass(frozen=True)
class Event:
    """One radar's spell of weather.

    Attributes:
        name: to be called by.
        frames: all of it, slot by slot, cut to a tile where the map is large.
        held: whether the archive holds each frame.
        radar: what inputs are made from.
    """

    name: str
    frames: Frames
    held: Bool[ndarray, slot]
    radar: Radar

    def issues(self, most: int | None = None) -> Int[ndarray, issues]:
        """Return the slots that windows can be issued at; evenly spaced ones where there are more than `most`."""
        found = np.asarray(self.frames.slots[0] + issue_slots(self.held, self.radar.layout, 0, len(self.held)))
        if most is None or len(found) <= most:
            return found
        chosen: Int[ndarray, issues] = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
        return chosen

    def backwards(self) -> Event:
        """Return the event as if time ran the other way: rain that decayed grows."""
        f = self.frames
        turned = Frames(f.slots, f.maximum[::-1], f.ratio[::-1], f.observed[::-1], f.pixels)
        return replace(self, name=f"{self.name}, backwards", frames=turned, held=self.held[::-1])


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
        Event(f"{name}, tile {i + 1}" if i else name, _cut(frames, box), held, radar)
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


def _cut(frames: Frames, box: tuple[slice, slice]) -> Frames:
    return Frames(
        frames.slots, frames.maximum[:, *box], frames.ratio[:, *box], frames.observed[:, *box], frames.pixels[box]
    )


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
    parts: Sequence[Batches],
    *,
    thresholds: int,
    width: int,
    cells: int,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[RainNet, RainNet]:
    """Return a network fitted to several events, and what it began from: the straight line through the guesses.

    Args:
        parts: batches of each event, all of as many thresholds.
        thresholds: how many.
        width: of the network.
        cells: that it sees, all steps together.
        seed: of everything that is drawn.
        progress: see `fit`.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    torch.manual_seed(seed)
    joint = Joint(parts, seed)
    network = make_network(thresholds, width)
    network.stem.fit(joint.sample())
    fit_straight(network, *joint.scattered(STRAIGHT_CELLS))
    straight = copy.deepcopy(network).eval()
    steps = joint.steps(cells)
    fitted = fit(
        network,
        joint.batch,
        loss_of,
        adamw(network, steps),
        FitSettings(steps=steps, clip=1.0, look_every=20),
        average=Average(network, max(20, steps // 8)),
        progress=progress,
    )
    return cast(RainNet, fitted), straight


class Joint:
    """Draws batches from several events by turns, each batch told by its number alone.

    Args:
        parts: batches of each event.
        seed: of the order.
    """

    def __init__(self, parts: Sequence[Batches], seed: int) -> None:
        self.parts, self.seed = list(parts), seed

    def steps(self, cells: int) -> int:
        """Return how many steps are worth a number of cells."""
        a_step = BATCH * float(np.mean([part.crop[0] * part.crop[1] for part in self.parts]))
        return max(40, round(cells / a_step))

    def sample(self) -> Tensor:
        """Return patches of every event's inputs, as many of each, for the whitening."""
        out = []
        edge = min(PATCH, *(size for part in self.parts for size in part.crop))
        for part in self.parts:
            maps = part.sample()
            patches = maps.unfold(2, edge, edge).unfold(3, edge, edge)  # (map, channel, row, column, y, x)
            patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
            out.append(patches[torch.linspace(0, len(patches) - 1, 200).long()])
        return torch.cat(out)

    def scattered(self, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `Batches.scattered` does, of all events; each event weighs the same."""
        found = [part.scattered(cells) for part in self.parts]
        maps = [len(of_event[3]) for of_event in found]
        even = [(*f[:3], f[3] * (sum(maps) / len(maps) / n)) for f, n in zip(found, maps, strict=True)]
        guess, known, outcome, weight = (torch.cat(field) for field in zip(*even, strict=True))
        return guess, known, outcome, weight

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: of each event once, in a fresh order, before any comes again."""
        turn, at = divmod(step, len(self.parts))
        order = np.random.default_rng([self.seed, 11, turn]).permutation(len(self.parts))
        drawn: Batch = self.parts[int(order[at])].batch(turn)
        return drawn
