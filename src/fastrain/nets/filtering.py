"""3×3 convolutions on a CPU by minimal filtering, there and back; see `winograd` for what that is.

For processors without a matrix unit, nearly all of those at home: torch's own convolutions run at the processor's limit
there, so that what is left is to multiply less. Float32 on any, bfloat16 where the processor multiplies pairs of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastrain.core.shapes import Float
from fastrain.nets.plain import (
    FAR,
    LIKE,
    NEAR,
    filled,
    loops,
    multiplies_and_adds,
    multiplies_pairs,
    numbers_of,
    plain,
    times,
    worth_it,
)

AT_ONCE = 96  # tiles that are multiplied together: what they are transformed to stays in the second and third cache
LEAST = 24  # tiles for which transforming weights is worth it
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


def filtered(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Tell whether a convolution may go by minimal filtering: on a CPU, channels in eights, enough tiles."""
    kind = numbers_of(x, weight)
    if kind is None or not plain(x) or x.is_neg() or weight.device.type != "cpu":
        return False
    if weight.shape[1:] != (x.shape[1], 3, 3) or not x.shape[1] or x.shape[1] % 8:
        return False
    if bias is not None and (bias.shape != weight.shape[:1] or bias.device.type != "cpu"):
        return False
    # As torch has it, which stays for what is refused here: within autocast they may differ.
    if bias is not None and bias.dtype != x.dtype and not torch.is_autocast_enabled("cpu"):
        return False
    if not _vectors(len(weight), kind) or len(x) * _tiles(x) < LEAST:
        return False
    return (multiplies_pairs() if kind == torch.bfloat16 else multiplies_and_adds()) and winograd() is not None


def convolved(
    x: Float[Tensor, "batch channel y x"],
    weight: Float[Tensor, "out channels_in 3 3"],
    bias: Tensor | None = None,
    *,
    training: bool,
) -> Float[Tensor, "batch out y x"]:
    """Return the 3×3 convolution of maps, zeros around them: by minimal filtering where it may and is worth it.

    Args:
        x: maps.
        weight: filters.
        bias: is added.
        training: see `worth_it`.
    """
    kind = numbers_of(x, weight)
    if kind is not None and worth_it(training, kind) and filtered(x, weight, bias):
        return convolve(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def convolve(
    x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"], bias: Tensor | None = None
) -> Float[Tensor, "batch out y x"]:
    """Return the 3×3 convolution of maps that may be `filtered`, zeros around them; it has a gradient.

    Each number is off by about a millionth of the largest ones of its tile, of bfloat16 by about a hundredth of what is
    usual; one that is none, or infinite, makes all of its tile none.
    """
    return cast(Tensor, _Convolution.apply(x, weight, bias, numbers_of(x, weight)))  # type: ignore[no-untyped-call]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
        """Return the convolution."""
        x = _laid(x, kind)
        ctx.save_for_backward(x, weight)
        ctx.of_bias = bias.dtype if bias is not None else None
        return _convolve(x, weight.detach(), bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of maps, weights and bias."""
        x, weight = ctx.saved_tensors
        gradient = _laid(gradient, x.dtype)
        of_maps = of_weights = of_bias = None
        if ctx.needs_input_grad[0]:
            back = weight.flip(2, 3).transpose(0, 1)
            if _vectors(len(back), x.dtype):
                of_maps = _convolve(gradient, back)
            else:
                with torch.autocast("cpu", enabled=False):
                    of_maps = F.conv2d(gradient, back.to(x.dtype), padding=1)
        if ctx.needs_input_grad[1]:
            of_weights = _gradient_of_weights(x, gradient).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(ctx.of_bias)
        return of_maps, of_weights, of_bias, None


class _Turns:
    """How maps of a size are gone through, some rows of tiles at a turn, by as many threads as torch may use.

    Args:
        x: the maps.
        together: rows of tiles that are taken together.

    Attributes:
        like: what tells loops in which numbers they are.
        height, width: of the maps.
        across: tiles of a row.
        rows: of tiles, of all maps one after the other.
        per: rows at a turn.
        room: tiles of a turn, filled up to what is multiplied at once.
    """

    def __init__(self, x: Tensor, together: int = 1) -> None:
        self.like = LIKE[x.dtype]
        self.height, self.width = x.shape[2:]
        self.across = times(self.width, 4)
        self.rows = len(x) * times(self.height, 4)
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


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the convolution of maps that lie channels last, in their numbers."""
    turns, out, channels, loop = _Turns(x), len(weight), x.shape[1], winograd()
    like, vectors, size = turns.like, _vectors(out, x.dtype), int(turns.like)
    made = torch.empty((len(x), out, *x.shape[2:]), dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    weights = transformed(weight, x.dtype)
    more = torch.zeros(out, dtype=torch.float32, device="cpu")
    if bias is not None:
        more.copy_(bias.detach())

    def take(starts: range) -> None:
        left, right = turns.place("left", channels, size), turns.place("right", out, 4)
        strip, back = turns.strip(channels, 2), turns.strip(out, 0)
        apart = turns.spot(channels, size), turns.spot(out, 4)
        for first in starts:
            rows = min(turns.per, turns.rows - first)
            loop.transform(like, x.data_ptr(), strip.ctypes.data, left, first, rows, *turns.shape(channels, size), 1)
            sizes = (turns.tiles(rows), turns.room, channels, out, vectors)
            loop.multiply(like, left, weights.data_ptr(), right, *sizes, *apart)
            places = more.data_ptr(), back.ctypes.data, made.data_ptr()
            loop.transform_back(like, right, *places, first, rows, *turns.shape(out, 4))

    turns.take(take)
    return made


def _gradient_of_weights(x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a convolution's weights, (out, channel, 3, 3), from maps that lie channels last."""
    together = 2 if x.dtype == torch.bfloat16 else 1
    turns, channels, out, loop = _Turns(x, together), x.shape[1], gradient.shape[1], winograd()
    like, vectors = turns.like, _vectors(out, x.dtype)
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
            change(like, x.data_ptr(), *(strip.ctypes.data for strip in under), left, first, rows, *of_maps, 1)
            change(
                like, gradient.data_ptr(), *(strip.ctypes.data for strip in own), right, first, rows, *of_gradient, 0
            )
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
    panel, pair = 8 * _vectors(out, kind), 2 if kind == torch.bfloat16 else 1
    rows = weight.permute(2, 3, 0, 1).reshape(9, out // panel, panel, channels // pair, pair)
    with torch.autocast("cpu", enabled=False):  # on the way back it may be on, and half as many bytes would be read
        return (_SQUARES @ rows.transpose(2, 3).reshape(9, -1).float()).to(kind)


def _vectors(out: int, kind: torch.dtype) -> int:
    """Return how many eights of channels out make a panel; 0 if they do not fill panels."""
    return next((count for count in _PANELS[kind] if out % (8 * count) == 0), 0)


def _tiles(x: Tensor) -> int:
    return times(x.shape[2], 4) * times(x.shape[3], 4)


def _laid(x: Tensor, kind: torch.dtype) -> Tensor:
    return x.detach().to(kind).contiguous(memory_format=torch.channels_last)


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
