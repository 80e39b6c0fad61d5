"""3×3 convolutions of float32 maps on a CPU by minimal filtering, there and back; see `winograd` for what that is.

For processors that have no units for bfloat16, many of those at home: torch's own convolutions run at the processor's
limit there, so that what is left is to multiply less.
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
from fastrain.nets.plain import filled, loops, multiplies_and_adds, plain, times, worth_it

AT_ONCE = 96  # tiles that are multiplied together: what they are transformed to stays in the second and third cache
LEAST = 24  # tiles for which transforming weights is worth it
_LINE = 64  # bytes of a line of the cache

# By which three weights in a row become the six numbers that six cells are multiplied by.
_WEIGHTS = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
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


def filtered(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a convolution may go by minimal filtering: float32 on a CPU, channels in eights, enough tiles."""
    if not plain(x) or x.dtype != torch.float32 or x.is_neg() or torch.is_autocast_enabled("cpu"):
        return False
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.shape[1] != x.shape[1]:
        return False
    if not x.shape[1] or x.shape[1] % 8 or not _vectors(len(weight)) or len(x) * _tiles(x) < LEAST:
        return False
    return multiplies_and_adds() and winograd() is not None


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
    if worth_it(training) and filtered(x, weight):
        return convolve(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def convolve(
    x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"], bias: Tensor | None = None
) -> Float[Tensor, "batch out y x"]:
    """Return the 3×3 convolution of maps that may be `filtered`, zeros around them; it has a gradient.

    Each number is off by about a millionth of the largest ones of its tile; one that is none, or infinite, makes all of
    its tile none.
    """
    out = cast(Tensor, _Convolution.apply(x, weight))  # type: ignore[no-untyped-call]
    if bias is None:
        return out
    bias = bias[:, None, None]
    return out + bias if out.requires_grad or bias.requires_grad else out.add_(bias)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution."""
        x = _laid(x)
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight.detach())

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of maps and weights."""
        x, weight = ctx.saved_tensors
        gradient = _laid(gradient)
        of_maps = of_weights = None
        if ctx.needs_input_grad[0]:
            back = weight.flip(2, 3).transpose(0, 1)
            if _vectors(len(back)):
                of_maps = _convolve(gradient, back)
            else:
                with torch.autocast("cpu", enabled=False):
                    of_maps = F.conv2d(gradient, back, padding=1)
        if ctx.needs_input_grad[1]:
            of_weights = _gradient_of_weights(x, gradient)
        return of_maps, of_weights


class _Turns:
    """How maps of a size are gone through, some rows of tiles at a turn, by as many threads as torch may use.

    Attributes:
        height, width: of the maps.
        across: tiles of a row.
        rows: of tiles, of all maps one after the other.
        per: rows at a turn.
        room: tiles of a turn, filled up to what is multiplied at once.
    """

    def __init__(self, x: Tensor) -> None:
        self.height, self.width = x.shape[2:]
        self.across = times(self.width, 4)
        self.rows = len(x) * times(self.height, 4)
        self.per = max(1, AT_ONCE // self.across)
        self.room = self.tiles(self.per)

    def tiles(self, rows: int) -> int:
        """Return the tiles of some rows, filled up to what is multiplied at once."""
        return filled(rows * self.across, winograd().TILES)

    def spot(self, channels: int) -> int:
        """Return by how many bytes two of a tile's 36 numbers lie apart: never a multiple of what a cache wraps at."""
        return int(self.room * channels * 4 + _LINE)

    def place(self, name: str, channels: int) -> int:
        """Return the address of a thread's own room for what a turn's tiles are transformed to."""
        return _room(name, winograd().SPOTS * self.spot(channels))

    def shape(self, channels: int) -> tuple[int, ...]:
        """Return what loops over maps of some channels want to know."""
        return self.height, self.width, channels, self.room, self.spot(channels)

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


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of maps that lie channels last."""
    turns, out, channels, loop = _Turns(x), len(weight), x.shape[1], winograd()
    made = torch.empty(
        (len(x), out, *x.shape[2:]), dtype=torch.float32, device="cpu", memory_format=torch.channels_last
    )
    weights = transformed(weight)

    def take(starts: range) -> None:
        left, right = turns.place("left", channels), turns.place("right", out)
        strip, back = _strip(turns.across, channels, 2), _strip(turns.across, out, 0)
        for first in starts:
            rows = min(turns.per, turns.rows - first)
            loop.transform(x.data_ptr(), strip.ctypes.data, left, first, rows, *turns.shape(channels), 1)
            sizes = (turns.tiles(rows), turns.room, channels, out, _vectors(out))
            loop.multiply(left, weights.data_ptr(), right, *sizes, turns.spot(channels), turns.spot(out))
            loop.transform_back(right, back.ctypes.data, made.data_ptr(), first, rows, *turns.shape(out))

    turns.take(take)
    return made


def _gradient_of_weights(x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a convolution's weights, (out, channel, 3, 3), from maps that lie channels last."""
    turns, channels, out, loop = _Turns(x), x.shape[1], gradient.shape[1], winograd()
    panel = 8 * _vectors(out)

    def take(starts: range) -> ndarray:
        sums = np.zeros((loop.SPOTS, out // panel * channels * panel), np.float32)
        left, right = turns.place("left", channels), turns.place("right", out)
        strip, other = _strip(turns.across, channels, 2), _strip(turns.across, out, 0)
        for first in starts:
            rows = min(turns.per, turns.rows - first)
            loop.transform(x.data_ptr(), strip.ctypes.data, left, first, rows, *turns.shape(channels), 1)
            loop.transform(gradient.data_ptr(), other.ctypes.data, right, first, rows, *turns.shape(out), 0)
            sizes = (rows * turns.across, turns.room, channels, out, _vectors(out))
            loop.multiply_back(left, right, sums.ctypes.data, *sizes, turns.spot(channels), turns.spot(out))
        return sums

    sums, *others = turns.take(take)
    for other in others:
        sums += other
    with torch.autocast("cpu", enabled=False):
        back: Tensor = _SQUARES.T @ torch.from_numpy(sums)  # (9, panel · channel · out)
    return back.view(3, 3, -1, channels, panel).permute(2, 4, 3, 0, 1).reshape(out, channels, 3, 3)


def transformed(weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return weights as they are multiplied by: (36, out / panel, channel, panel)."""
    out, channels = weight.shape[:2]
    panel = 8 * _vectors(out)
    rows = weight.permute(2, 3, 0, 1).reshape(9, out // panel, panel, channels).transpose(2, 3).reshape(9, -1)
    with torch.autocast("cpu", enabled=False):  # on the way back it may be on, and half as many bytes would be read
        return _SQUARES @ rows


def _vectors(out: int) -> int:
    """Return how many eights of channels out make a panel; 0 if they do not fill panels."""
    return 3 if out % 24 == 0 else 2 if out % 16 == 0 else 0


def _tiles(x: Tensor) -> int:
    return times(x.shape[2], 4) * times(x.shape[3], 4)


def _laid(x: Tensor) -> Tensor:
    return x.detach().contiguous(memory_format=torch.channels_last)


def _room(name: str, size: int) -> int:
    """Return the address of so many bytes of a thread's own, at a line of the cache; numbers, whatever they are."""
    held = getattr(_own, name, None)
    if held is None or held.nbytes < size + _LINE:
        held = np.zeros(size // 4 + _LINE, np.float32)
        setattr(_own, name, held)
    return filled(held.ctypes.data, _LINE)


def _strip(across: int, channels: int, beside: int) -> ndarray:
    """Return room for a row of tiles and some cells beside them; zeros, which stay where no map is.

    Numpy's: torch would begin threads of its own in each of ours.
    """
    return np.zeros((4 + beside) * (4 * across + beside) * channels, np.float32)


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "convolution")
