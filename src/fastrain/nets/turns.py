"""How minimal filtering goes over maps, some rows of tiles at a turn, by as many threads as torch may use.

See `winograd` for what is done with them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor

from fastrain.core.shapes import Float
from fastrain.nets.plain import FAR, LIKE, NEAR, filled, loops, times

AT_ONCE = 96  # tiles that are multiplied together: what they are transformed to stays in the second and third cache
_LINE = 64  # bytes of a line of the cache
_PANELS = {torch.bfloat16: (4, 3, 2), torch.float32: (3, 2)}  # eights of channels out, the better ones first

# By which three weights in a row become the six numbers that six cells are multiplied by: at 0, ±√½, ±√2 and infinity.
_WEIGHTS = torch.tensor(
    [
        [1, 0, 0],
        [-2 / 3, -2 / 3 * NEAR, -1 / 3],
        [-2 / 3, 2 / 3 * NEAR, -1 / 3],
        [1 / 6, 1 / 6 * FAR, 1 / 3],
        [1 / 6, -1 / 6 * FAR, 1 / 3],
        [0, 0, 1],
    ],
    dtype=torch.float32,
    device="cpu",
)
_SQUARES = torch.kron(_WEIGHTS, _WEIGHTS)  # the same for 3×3 weights and 6×6 cells
_own = threading.local()


def winograd() -> Any:
    """Return the loops, or None; see `loops`."""
    return loops("winograd")


@dataclass(frozen=True)
class Maps:
    """Maps that loops read.

    Attributes:
        x: (batch, channel, y, x), channels last; (batch, channel, y // 2, x // 2) where they hold something only where
            the largest of each 2×2 was.
        which: a byte for each of those, which of the four that was; None if the maps are whole.
        height, width: of the maps.
    """

    x: Tensor
    which: Tensor | None
    height: int
    width: int

    @classmethod
    def of(cls, x: Tensor) -> Maps:
        """Return whole maps."""
        return cls(x, None, *x.shape[2:])

    @property
    def at(self) -> tuple[int, int]:
        """The addresses of the maps and of which."""
        return self.x.data_ptr(), 0 if self.which is None else self.which.data_ptr()

    @property
    def channels(self) -> int:
        """How many."""
        return self.x.shape[1]

    def whole(self) -> Tensor:
        """Return the maps with all that they do not hold."""
        if self.which is None:
            return self.x
        rows, columns = (2 * size for size in self.x.shape[2:])
        place = self.which.permute(0, 3, 1, 2)[..., None] == torch.arange(4)
        spread = torch.where(place, self.x[..., None], 0.0)  # (batch, channel, y, x, 4)
        cells = spread.view(*self.x.shape, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(*self.x.shape[:2], rows, columns)
        return F.pad(cells, (0, self.width - columns, 0, self.height - rows))


class Turns:
    """How maps of a size are gone through, some rows of tiles at a turn, by as many threads as torch may use.

    Args:
        maps: see there.
        together: rows of tiles that are taken together.

    Attributes:
        like: what tells loops in which numbers they are.
        height, width: of the maps.
        across: tiles of a row.
        rows: of tiles, of all maps one after the other.
        per: rows at a turn.
        room: tiles of a turn, filled up to what is multiplied at once.
    """

    def __init__(self, maps: Maps, together: int = 1) -> None:
        self.like = LIKE[maps.x.dtype]
        self.height, self.width = maps.height, maps.width
        self.across = times(self.width, 4)
        self.rows = len(maps.x) * times(self.height, 4)
        self.per = together * max(1, AT_ONCE // self.across // together)
        self.room = self.tiles(self.per)

    def tiles(self, rows: int) -> int:
        """Return the tiles of some rows, filled up to what is multiplied at once."""
        return filled(rows * self.across, winograd().TILES)

    def spot(self, channels: int, size: int) -> int:
        """Return by how many bytes two of a tile's 36 numbers lie apart: never a multiple of what a cache wraps at."""
        return int(self.room * channels * size + _LINE)

    def place(self, name: str, channels: int, size: int) -> int:
        """Return the address of a thread's own room for what a turn's tiles are transformed to.

        Args:
            name: of the room.
            channels: of each tile.
            size: of each number of theirs, in bytes.
        """
        return _room(name, winograd().SPOTS * self.spot(channels, size))

    def shape(self, channels: int, size: int) -> tuple[int, ...]:
        """Return what loops over maps of some channels want to know."""
        return self.height, self.width, channels, self.room, self.spot(channels, size)

    def strip(self, channels: int, beside: int) -> ndarray:
        """Return room for a row of tiles and some cells beside them; zeros, which stay where no map is.

        Numpy's: torch would begin threads of its own in each of ours.
        """
        return np.zeros((4 + beside) * (4 * self.across + beside) * channels * int(self.like), np.uint8)

    def take(self, turns: Callable[[range], Any]) -> list[Any]:
        """Have all turns taken, each thread its share of them, and return what each gives.

        Args:
            turns: is given the first rows of turns.
        """
        starts = range(0, self.rows, self.per)
        threads = min(torch.get_num_threads(), len(starts))
        if threads == 1:
            return [turns(starts)]
        shares = [starts[len(starts) * i // threads : len(starts) * (i + 1) // threads] for i in range(threads)]
        return list(_workers(threads).map(turns, shares))


def convolution(maps: Maps, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of maps, in their numbers."""
    out = len(weight)
    made = _made(maps, out, maps.height, maps.width)
    more = torch.zeros(out, dtype=torch.float32, device="cpu")
    if bias is not None:
        more.copy_(bias.detach())

    def back(turns: Turns) -> Callable[..., None]:
        strip = turns.strip(out, 0)

        def bring(found: int, first: int, rows: int) -> None:
            places = more.data_ptr(), strip.ctypes.data, made.data_ptr()
            winograd().transform_back(turns.like, found, *places, first, rows, *turns.shape(out, 4))

        return bring

    _multiply(maps, weight, back)
    return made


def halved_convolution(maps: Maps, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of each 2×2 of the convolution of maps, and which of them it is, (batch, y, x, out)."""
    out, rows, columns = len(weight), maps.height // 2, maps.width // 2
    made = _made(maps, out, rows, columns)
    which = torch.empty((len(maps.x), rows, columns, out), dtype=torch.uint8, device="cpu")

    def back(turns: Turns) -> Callable[..., None]:
        strip, places = turns.strip(out, 0), np.zeros(2 * 2 * turns.across * out, np.uint8)

        def bring(found: int, first: int, rows: int) -> None:
            rooms = strip.ctypes.data, places.ctypes.data, made.data_ptr(), which.data_ptr()
            winograd().transform_back_largest(turns.like, found, *rooms, first, rows, *turns.shape(out, 4))

        return bring

    _multiply(maps, weight, back)
    return made, which


def _made(maps: Maps, channels: int, height: int, width: int) -> Tensor:
    """Return as many maps of a size, of any numbers."""
    shape = (len(maps.x), channels, height, width)
    return torch.empty(shape, dtype=maps.x.dtype, device="cpu", memory_format=torch.channels_last)


def _multiply(maps: Maps, weight: Tensor, back: Callable[[Turns], Callable[[int, int, int], None]]) -> None:
    """Multiply the tiles of maps by weights, and have what comes out brought back.

    Args:
        maps: see there.
        weight: filters.
        back: is called by each thread, and gives what is called for each turn: with the address of the tiles, the
            first row of them, and how many rows.
    """
    turns, out, channels, loop = Turns(maps), len(weight), maps.channels, winograd()
    like, vectors, size = turns.like, vectors_of(out, maps.x.dtype), int(turns.like)
    weights = transformed(weight, maps.x.dtype)

    def take(starts: range) -> None:
        left, right = turns.place("left", channels, size), turns.place("right", out, 4)
        strip, bring = turns.strip(channels, 2), back(turns)
        apart = turns.spot(channels, size), turns.spot(out, 4)
        for first in starts:
            rows = min(turns.per, turns.rows - first)
            loop.transform(like, *maps.at, strip.ctypes.data, left, first, rows, *turns.shape(channels, size), 1)
            sizes = (turns.tiles(rows), turns.room, channels, out, vectors)
            loop.multiply(like, left, weights.data_ptr(), right, *sizes, *apart)
            bring(right, first, rows)

    turns.take(take)


def gradient_of_weights(maps: Maps, gradient: Maps) -> Tensor:
    """Return the gradient of a convolution's weights, (out, channel, 3, 3), from what came in and what goes back."""
    together = 2 if maps.x.dtype == torch.bfloat16 else 1
    turns, channels, out, loop = Turns(maps, together), maps.channels, gradient.channels, winograd()
    like, vectors = turns.like, vectors_of(out, maps.x.dtype)
    panel = 8 * vectors

    def take(starts: range) -> ndarray:
        sums = np.zeros((loop.SPOTS, out // panel * channels * panel), np.float32)
        left, right = turns.place("left", channels, 4), turns.place("right", out, 4)
        apart = turns.spot(channels, 4), turns.spot(out, 4)
        under = [turns.strip(channels, 2) for _ in range(together)]
        own = [turns.strip(out, 0) for _ in range(together)]
        change = loop.transform_pairs if together == 2 else loop.transform
        for first in starts:
            rows = min(turns.per, turns.rows - first)
            of_maps, of_gradient = (turns.shape(count, 4) for count in (channels, out))
            change(like, *maps.at, *(strip.ctypes.data for strip in under), left, first, rows, *of_maps, 1)
            change(like, *gradient.at, *(strip.ctypes.data for strip in own), right, first, rows, *of_gradient, 0)
            tiles = times(rows, together) * turns.across
            sizes = (tiles, turns.room, channels, out, vectors)
            loop.multiply_back(like, left, right, sums.ctypes.data, *sizes, *apart)
        return sums

    sums, *others = turns.take(take)
    for other in others:
        sums += other
    with torch.autocast("cpu", enabled=False):
        back: Tensor = _SQUARES.T @ torch.from_numpy(sums)  # (9, panel · channel · out)
    return back.view(3, 3, -1, channels, panel).permute(2, 4, 3, 0, 1).reshape(out, channels, 3, 3)


def transformed(weight: Float[Tensor, "out channel 3 3"], kind: torch.dtype) -> Tensor:
    """Return weights as they are multiplied by: (36, out / panel, channel, panel).

    Args:
        weight: filters.
        kind: of the numbers; of bfloat16 channels lie in pairs, (36, out / panel, channel / 2, panel, 2).
    """
    out, channels = weight.shape[:2]
    panel, pair = 8 * vectors_of(out, kind), 2 if kind == torch.bfloat16 else 1
    rows = weight.permute(2, 3, 0, 1).reshape(9, out // panel, panel, channels // pair, pair)
    with torch.autocast("cpu", enabled=False):  # on the way back it may be on, and half as many bytes would be read
        return (_SQUARES @ rows.transpose(2, 3).reshape(9, -1).float()).to(kind)


def vectors_of(out: int, kind: torch.dtype) -> int:
    """Return how many eights of channels out make a panel; 0 if they do not fill panels."""
    return next((count for count in _PANELS[kind] if out % (8 * count) == 0), 0)


def _room(name: str, size: int) -> int:
    """Return the address of so many bytes of a thread's own, at a line of the cache; numbers, whatever they are."""
    held = getattr(_own, name, None)
    if held is None or held.nbytes < size + _LINE:
        held = np.zeros(size + _LINE, np.uint8)
        setattr(_own, name, held)
    return filled(held.ctypes.data, _LINE)


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "convolution")
