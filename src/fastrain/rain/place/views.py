"""What a place's network sees of a frame: bytes that are cut out once and kept, and the inputs made from them.

A view keeps a record of each frame, `records`, and makes inputs of the records of a window's frames, `inputs`, as seen
from one of the cells `nearby`, of which the first is the place itself.

`Foveal` is ours: the radar around the place, fine near it and the coarser the farther off, so that 240 km to every side
fit into a few small maps; what the ancestor's rings were for. `Rings` is the ancestor's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from fastrain.rain.batches import turn
from fastrain.rain.inputs import signal
from fastrain.rain.radar import Radar, rain_rates
from fastrain.samples.frames import Frames

AGES = 6  # frames of the history that are shown, as the ancestor's
EDGE = 31  # blocks to a map
SPAN_KM = 240.0  # to every side of the place
REACH = 2  # places beside it that training looks at too, to each side
APART = 2  # coarsest blocks between them: rain of neighbouring blocks is nearly the same
BYTES_A_SIGNAL = 120.0  # of what the network sees of a rain rate; the largest, of 300 mm/h, is 1.7


def ages(radar: Radar) -> Int[ndarray, age]:
    """Return the ages, in frames, of the history's frames that are shown, the newest first."""
    history = radar.layout.history
    return np.unique(np.arange(AGES) * history // AGES)


@dataclass(frozen=True)
class Foveal:
    """Small maps around a cell, each of EDGE×EDGE blocks, whose blocks double from map to map.

    Attributes:
        radar: whose frames are seen.
        cell: row and column of the place's cell.
        reach: places to each side that can be looked from as well.
    """

    radar: Radar
    cell: tuple[int, int]
    reach: int = 0

    @cached_property
    def scales(self) -> tuple[int, ...]:
        """Edges of the maps' blocks, cells."""
        doublings = max(0, math.ceil(math.log2(SPAN_KM / (EDGE / 2 * self.radar.cell_km)) - 0.1))
        return tuple(2**i for i in range(min(doublings, 7) + 1))

    @property
    def ways(self) -> tuple[int, ...]:
        """Ways that training turns the maps: all."""
        return tuple(range(8))

    @property
    def channels(self) -> int:
        """Of the inputs: two values a frame and map, and for each map what is observed at issue."""
        return len(self.scales) * (2 * len(ages(self.radar)) + 1)

    @cached_property
    def nearby(self) -> Int[ndarray, "place 2"]:
        """Row and column of the cells that can be looked from, the place first; some may lie beyond the map."""
        steps = sorted(range(-self.reach, self.reach + 1), key=abs)
        step = APART * self.scales[-1]
        return np.array([(self.cell[0] + step * i, self.cell[1] + step * j) for i in steps for j in steps])

    @property
    def _kept(self) -> list[tuple[int, int]]:
        """Of each map: edge of a block, and edge of what is kept so that it can be looked at from all places."""
        return [(s, EDGE + 2 * APART * self.reach * self.scales[-1] // s) for s in self.scales]

    @property
    def record_bytes(self) -> int:
        """Maximum, mean and observed share of each block, a byte each."""
        return sum(3 * edge * edge for _, edge in self._kept)

    def records(self, frames: Frames, slots: Int[ndarray, slots]) -> UInt8[ndarray, "slots byte"]:
        """Return what is kept of some frames: signals of the blocks' highest and mean rates, and what is observed."""
        highest, mean, observed = rain_rates(frames, frames.rows(slots), self.radar)
        seen = observed.float()
        parts = []
        for block, edge in self._kept:
            box = [_box(c, block, edge) for c in self.cell]
            top = F.max_pool2d(_cut(highest * seen, *box), block)
            share = F.avg_pool2d(_cut(seen, *box), block)
            middle = F.avg_pool2d(_cut(mean * seen, *box), block) / share.clamp(min=1e-6)
            signals = [(signal(rate) * BYTES_A_SIGNAL).round().clamp(max=255) for rate in (top, middle)]
            stacked = torch.stack([*signals, (share * 255).round()], dim=1)  # (slots, 3, edge, edge)
            parts.append(stacked.to(torch.uint8).flatten(1))
        return torch.cat(parts, dim=1).numpy()

    def inputs(self, records: UInt8[ndarray, "window age byte"], at: Int[ndarray, window], way: int) -> Tensor:
        """Return (window, channel, EDGE, EDGE): maps as seen from some of the cells `nearby`."""
        windows, shown = records.shape[:2]
        offsets = (self.nearby[at] - np.array(self.cell)) // self.scales[-1] + APART * self.reach  # in coarsest blocks
        out = np.empty((windows, len(self.scales), 2 * shown + 1, EDGE, EDGE), np.float32)
        first = 0
        for i, (block, edge) in enumerate(self._kept):
            kept = records[:, :, first : first + 3 * edge * edge].reshape(windows, shown, 3, edge, edge)
            first += 3 * edge * edge
            for w, (y, x) in enumerate(offsets * (self.scales[-1] // block)):
                seen = kept[w, :, :, y : y + EDGE, x : x + EDGE]
                out[w, i, :-1] = seen[:, :2].reshape(2 * shown, EDGE, EDGE)
                out[w, i, -1] = seen[0, 2]
        out[:, :, :-1] /= BYTES_A_SIGNAL
        out[:, :, -1] /= 255
        return turn(way, torch.from_numpy(out).flatten(1, 2))[0]


def _box(centre: int, block: int, edge: int) -> tuple[int, int]:
    """Return the first cell and the one after the last of `edge` blocks, the middle one over a cell."""
    first = centre - block // 2 - (edge // 2) * block
    return first, first + edge * block


def _cut(field: Float[Tensor, "time y x"], rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Return a part of a map that may reach beyond it, 0 there."""
    out = torch.zeros(len(field), rows[1] - rows[0], columns[1] - columns[0])
    inside = [(max(a, 0), min(b, size)) for (a, b), size in zip((rows, columns), field.shape[1:], strict=True)]
    if all(a < b for a, b in inside):
        (top, bottom), (left, right) = inside
        out[:, top - rows[0] : bottom - rows[0], left - columns[0] : right - columns[0]] = field[
            :, top:bottom, left:right
        ]
    return out


# The ancestor's levels: the lower ends, mm/h, of the colours of its pictures (Environment Canada's); 3 is "heavy".
ANCESTOR_EDGES = (0.1, 1, 2, 4, 8, 12, 16, 24, 32, 50, 64, 100, 125, 200)
RINGS_KM = (20.0, 60.0, 100.0, 170.0, 240.0)
TRIPWIRE_KM = 25.0
OCTANTS = 8
ON_THE_MAP = 0.8  # of the share of blocks on the map that there is without a turn


@dataclass(frozen=True)
class Rings:
    """The ancestor's: the blocks of four rings around the radar in octants, a bullseye, and a circle round the place.

    Its radii are of kilometres, which its pixels were. An octant's blocks are listed as they lie when it is turned onto
    the first or the second, which it shares a network with. What lies beyond the map counts as dry, as did for the
    ancestor whatever it did not see. Training turns the map about the place, so that rain is learned to come from every
    side; the rings stay where they are, and see what the map then holds there. A place far from the radar is not turned
    in ways that leave the rings half beyond the map, which no forecast sees.

    Attributes:
        radar: whose frames are seen.
        cell: row and column of the place's cell.
        shape: rows and columns of the map; the radar stands in its middle.
    """

    radar: Radar
    cell: tuple[int, int]
    shape: tuple[int, int]

    @cached_property
    def ways(self) -> tuple[int, ...]:
        """Ways that training turns the map: those that leave on it nearly as much of what the rings see as there is."""
        held = [self._seen(way)[1].mean() for way in range(8)]
        return tuple(way for way in range(8) if held[way] >= ON_THE_MAP * held[0])

    @property
    def nearby(self) -> Int[ndarray, "place 2"]:
        """The place alone."""
        return np.array([self.cell])

    @cached_property
    def modules(self) -> tuple[Int[ndarray, "octant block 2"], ...]:
        """Rows and columns of the blocks: of each ring its even octants, then its odd ones; bullseye; tripwire."""
        km = self.radar.cell_km
        middle = tuple(round(size / 2) for size in self.shape)
        reach = math.ceil(RINGS_KM[-1] / km)
        y, x = (a.ravel() for a in np.mgrid[-reach:reach, -reach:reach])
        twice_y, twice_x = 2 * y + 1, 2 * x + 1  # so that a quarter turn is exact
        far = np.hypot(twice_y, twice_x) / 2 * km
        out = []
        for low, high in pairwise(RINGS_KM):
            ring = (far >= low) & (far < high)
            for odd in (False, True):
                first = ring & (twice_x > 0) & (twice_y > 0) & ((twice_y >= twice_x) == odd)
                a, b = twice_y[first], twice_x[first]
                turned = []
                for _ in range(OCTANTS // 2):
                    turned.append(np.stack([(a - 1) // 2 + middle[0], (b - 1) // 2 + middle[1]], axis=-1))
                    a, b = b, -a  # a quarter turn
                out.append(np.stack(turned))
        bullseye = far < RINGS_KM[0]
        out.append(np.stack([y[bullseye] + middle[0], x[bullseye] + middle[1]], axis=-1)[None])
        reach = math.ceil(TRIPWIRE_KM / km)
        y, x = (a.ravel() for a in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        near = np.hypot(y, x) * km < TRIPWIRE_KM
        out.append(np.stack([y[near] + self.cell[0], x[near] + self.cell[1]], axis=-1)[None])
        return tuple(out)

    @cached_property
    def _blocks(self) -> Int[ndarray, "block 2"]:
        return np.concatenate([module.reshape(-1, 2) for module in self.modules])

    @cached_property
    def _box(self) -> tuple[slice, slice]:
        """Rows and columns of the map that hold every block, whichever way it is turned."""
        farthest = int(np.abs(self._blocks - np.array(self.cell)).max())
        rows, columns = (
            slice(max(0, c - farthest), min(size, c + farthest + 1))
            for c, size in zip(self.cell, self.shape, strict=True)
        )
        return rows, columns

    def _seen(self, way: int) -> tuple[Int[ndarray, block], Bool[ndarray, block]]:
        """Return where in a record each block is seen on a map turned about the place, and whether it is on the map."""
        # Where the map is not turned lies what is seen at a block of it once it is: see `turn`.
        y, x = (self._blocks - np.array(self.cell)).T
        if way & 4:
            y, x = x, y
        y, x = (-y if way & 2 else y) + self.cell[0], (-x if way & 1 else x) + self.cell[1]
        inside = (y >= 0) & (y < self.shape[0]) & (x >= 0) & (x < self.shape[1])
        rows, columns = self._box
        at = (y - rows.start) * (columns.stop - columns.start) + x - columns.start
        return np.where(inside, at, 0), inside

    @property
    def record_bytes(self) -> int:
        """Maximum and mean of each cell that may be seen, a byte each."""
        rows, columns = (int(side.stop) - int(side.start) for side in self._box)
        return 2 * rows * columns

    def records(self, frames: Frames, slots: Int[ndarray, slots]) -> UInt8[ndarray, "slots byte"]:
        """Return what is kept of some frames: the ancestor's numbers of the cells' maximum and mean levels."""
        out = np.empty((len(slots), self.record_bytes), np.uint8)
        for i, slot in enumerate(slots):  # one at a time: their numbers take more than the frames do
            rates = rain_rates(frames, frames.rows(np.array([slot])), self.radar)
            highest, mean, observed = (field[0][self._box].numpy() for field in rates)
            most = np.searchsorted(ANCESTOR_EDGES, highest * (1 + 1e-6), side="right")
            middle = np.interp(mean, (0.0, *ANCESTOR_EDGES), np.arange(len(ANCESTOR_EDGES) + 1))
            numbers = np.stack([_scaled(np.where(observed, level, 0.0)) for level in (most, middle)], axis=-1)
            out[i] = (numbers * 255).round().ravel()
        return out

    def inputs(self, records: UInt8[ndarray, "window age byte"], at: Int[ndarray, window], way: int) -> Tensor:
        """Return (window, age, value), the oldest frame first, of maps turned about the place some way."""
        where, inside = self._seen(way)
        seen = records[:, ::-1].reshape(*records.shape[:2], -1, 2)[:, :, where]
        seen[:, :, ~inside] = 0
        return torch.from_numpy(seen.reshape(*records.shape[:2], -1).astype(np.float32) / 255)


def _scaled(level: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Return a level as the ancestor's network saw it: heavy rain stands out."""
    return np.asarray(np.where(level < 3, level, level + 5) / 20)


View = Foveal | Rings  # what a recipe sees of frames
