"""A 3×3 convolution: on the matrix unit of a CPU by `tiles`, on one without by `filtering`; by torch elsewhere.

Torch's own take the unit, too, yet reach a fifth of its rate or less where maps are small and channels many, above all
in the gradient of the weights (LOG.md).
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastrain.core.shapes import Float
from fastrain.nets.filtering import convolve_halved, convolved, gains
from fastrain.nets.plain import EDGE, STEP, TILE, filled, loops, numbers_of, plain, times

AT_ONCE = 14  # pixels whose tiles are to stay in the first cache: 28 KiB of left ones
MANY = 200_000  # weights that do not stay in the second cache while a row of a map is written
LEAST = 24  # images for which it is worth it: 16 or 32 are computed at a time


def tiles() -> Any:
    """Return the loops over tiles, or None; see `loops`."""
    return loops("tiles")


def usable() -> bool:
    """Tell whether there are such loops, and a matrix unit for them."""
    return tiles() is not None and tiles().usable()


class Convolution(nn.Conv2d):
    """A 3×3 convolution without bias, zeros around the map."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out y x"]:
        """Return the convolution."""
        if on_tiles(x, self.weight):
            return cast(Tensor, _Convolution.apply(x, self.weight))  # type: ignore[no-untyped-call]
        return convolved(x, self.weight, training=self.training)

    def halved(self, x: Float[Tensor, "batch channel y x"]) -> Tensor | None:
        """Return the largest of each 2×2 of the convolution, (batch, out, y // 2, x // 2), if it comes in one go."""
        # Where there is a matrix unit, bfloat16 never gains by minimal filtering, so it stays on tiles.
        if min(x.shape[2:]) < 2 or not gains(x, self.weight, training=self.training):
            return None
        return convolve_halved(x, self.weight)


def on_tiles(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a convolution goes over tiles: of bfloat16, on one thread of a processor with a matrix unit."""
    if not plain(x) or x.shape[1] != weight.shape[1] or weight.shape[0] % STEP:
        return False
    if numbers_of(x, weight) != torch.bfloat16:
        return False
    return len(x) >= LEAST and torch.get_num_threads() == 1 and usable()


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution."""
        x = _halves(x)
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of maps and weights."""
        x, weight = ctx.saved_tensors
        gradient = _halves(gradient)
        of_maps = of_weights = None
        if ctx.needs_input_grad[0]:
            if x.shape[1] % STEP == 0:
                of_maps = _convolve(gradient, packed_back(weight), x.shape[1])
            else:
                of_maps = _convolved(gradient, weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            of_weights = gradient_of_weights(x, gradient).to(weight.dtype)
        return of_maps, of_weights


def _halves(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of maps; by torch where their pixels do not fill whole lines of the cache."""
    if x.shape[1] % STEP == 0:
        return convolve(x, weight)
    return F.conv2d(x, weight.to(torch.bfloat16), padding=1)


def convolve(x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return the 3×3 convolution of maps, with zeros around them, as bfloat16: (batch, out, y, x).

    Args:
        x: bfloat16, channels last; a multiple of 32 channels.
        weight: in any numbers; taken as bfloat16.
    """
    wide = filled(len(weight), EDGE)
    out = _convolve(x, packed(weight), wide)
    return out if wide == len(weight) else out[:, : len(weight)].contiguous(memory_format=torch.channels_last)


def _convolve(x: Tensor, tiled: Tensor, wide: int) -> Tensor:
    """Return the convolution of maps by right tiles: (batch, wide, y, x)."""
    _ask()
    maps, channels, height, width = x.shape
    out = torch.empty(
        (maps, wide, height, width), dtype=torch.bfloat16, device="cpu", memory_format=torch.channels_last
    )
    pixels = height * width
    grouped = _zeros(pixels, EDGE, channels)
    scratch, kept = _zeros(TILE), _zeros(STEP)
    at_once = 1 if tiled.numel() < MANY else height
    for first in range(0, maps, EDGE):
        now = min(EDGE, maps - first)
        start = x.data_ptr() + 2 * channels * pixels * first
        tiles().regroup(start, grouped.data_ptr(), now, pixels, 2 * channels)
        to = out.data_ptr() + 2 * wide * pixels * first
        places = (scratch.data_ptr(), tiles().shape_of_tiles(), kept.data_ptr())
        tiles().convolve(grouped.data_ptr(), tiled.data_ptr(), to, *places, now, height, width, channels, wide, at_once)
    return out


def gradient_of_weights(
    x: Float[Tensor, "batch channel y x"], gradient: Float[Tensor, "batch out y x"]
) -> Float[Tensor, "out channel 3 3"]:
    """Return the gradient of a 3×3 convolution's weights, as float32.

    Args:
        x: what came in; bfloat16, channels last.
        gradient: of what went out; bfloat16, channels last, a multiple of 32 channels.
    """
    _ask()
    maps, given, height, width = x.shape
    channels, out, pixels = filled(given, EDGE), gradient.shape[1], height * width
    if channels > given:
        x = F.pad(x, (0, 0, 0, 0, 0, channels - given)).contiguous(memory_format=torch.channels_last)
    rights, lefts = (_zeros(times(count, EDGE), pixels, TILE // 2) for count in (channels, STEP))
    shape = (times(out, STEP), channels // EDGE, 3, 3, 2, EDGE, EDGE)
    sums = _zeros(*shape, dtype=torch.float32)
    zeros, kept = _zeros(EDGE), _zeros(STEP)
    at_once = max(1, AT_ONCE // width)
    for first in range(0, maps, STEP):
        now = min(STEP, maps - first)
        start = x.data_ptr() + 2 * channels * pixels * first
        tiles().rights(start, rights.data_ptr(), zeros.data_ptr(), now, pixels, channels)
        for block in range(len(sums)):
            start = gradient.data_ptr() + 2 * out * pixels * first + 2 * STEP * block
            tiles().lefts(start, lefts.data_ptr(), zeros.data_ptr(), now, pixels, out)
            places = (sums[block].data_ptr(), tiles().shape_of_tiles(), kept.data_ptr())
            tiles().add_gradient(lefts.data_ptr(), rights.data_ptr(), *places, height, width, channels, at_once)
    # (32 out, 16 in, y, x, half; 16 out, 16 in) → (out, y, x, in), which is how weights lie, channels last
    return sums.permute(0, 4, 5, 2, 3, 1, 6).reshape(out, 3, 3, channels).permute(0, 3, 1, 2)[:, :given]


def packed(weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return weights as right tiles, bfloat16."""
    out, channels = weight.shape[:2]
    rows = _zeros(filled(out, STEP), 9 * channels)
    rows[:out] = weight.detach().permute(0, 2, 3, 1).reshape(out, -1)
    tiled = torch.empty_like(rows)
    tiles().pack(rows.data_ptr(), tiled.data_ptr(), *rows.shape)
    return tiled


def packed_back(weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return weights as right tiles of the way back, bfloat16; multiples of 32 channels."""
    rows = weight.detach().permute(0, 2, 3, 1).to(torch.bfloat16).contiguous()
    tiled = torch.empty_like(rows)
    tiles().pack_back(rows.data_ptr(), tiled.data_ptr(), *weight.shape[:2])
    return tiled


def _ask() -> None:
    """Ask for the matrix unit, without which what follows would end the process."""
    if not usable():
        raise RuntimeError("This processor has no matrix unit for bfloat16.")


def _zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device="cpu")
