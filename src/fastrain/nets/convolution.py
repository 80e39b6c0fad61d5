"""A 3×3 convolution on the matrix unit of a processor, by `tiles`, where there is one; by torch elsewhere.

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

try:
    from fastrain.nets import tiles
except ImportError:  # numba comes with the radar half
    tiles = None  # type: ignore[assignment]

AT_ONCE = 8  # steps of 32 pixels: 8 KiB of left tiles and 16 of right ones
CHUNK = 1 << 20  # bytes of padded maps that are gone through at a time: they stay in the second cache


class Convolution(nn.Conv2d):
    """A 3×3 convolution without bias, zeros around the map."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out y x"]:
        """Return the convolution."""
        if on_tiles(x, self.weight):
            return cast(Tensor, _Convolution.apply(x, self.weight))  # type: ignore[no-untyped-call]
        return super().forward(x)


def on_tiles(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a convolution goes over tiles: of bfloat16, on one thread of a processor with a matrix unit."""
    if tiles is None or x.device.type != "cpu" or weight.shape[0] % tiles.EDGE or torch.compiler.is_compiling():
        return False
    if x.dtype != torch.bfloat16 and not torch.is_autocast_enabled("cpu"):
        return False
    return torch.get_num_threads() == 1 and tiles.usable()


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
            of_maps = _convolved(gradient, weight.flip(2, 3).transpose(0, 1))
        if ctx.needs_input_grad[1]:
            of_weights = gradient_of_weights(x, gradient).to(weight.dtype)
        return of_maps, of_weights


def _halves(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return the convolution of maps; by torch where their pixels do not fill whole lines of the cache."""
    if x.shape[1] % tiles.STEP == 0:
        return convolve(x, weight)
    return F.conv2d(x, weight.to(torch.bfloat16), padding=1)


def convolve(x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return the 3×3 convolution of maps, with zeros around them, as bfloat16: (batch, out, y, x).

    Args:
        x: bfloat16, channels last; a multiple of 32 channels.
        weight: in any numbers; taken as bfloat16.
    """
    maps, channels, height, width = x.shape
    wide = _times(len(weight), tiles.EDGE) * tiles.EDGE
    out = torch.empty((maps, wide, height, width), dtype=torch.bfloat16, memory_format=torch.channels_last)
    tiled = packed(weight)
    layout = Layout(maps, height, width, max(channels, wide))
    padded = _zeros(layout.padded, channels)
    scratch, kept = _zeros(tiles.TILE), _zeros(tiles.STEP)
    for first in range(0, maps, layout.at_a_time):
        now = min(layout.at_a_time, maps - first)
        skipped = first * height * width
        start = x.data_ptr() + 2 * channels * skipped
        tiles.pad(start, padded.data_ptr(), now, height, width, 2 * channels, layout.lead)
        tiles.convolve(
            padded.data_ptr(),
            tiled.data_ptr(),
            out.data_ptr() + 2 * wide * skipped,
            layout.places.data_ptr(),
            scratch.data_ptr(),
            tiles.shape_of_tiles(),
            kept.data_ptr(),
            now * layout.each,
            now * height * width,
            channels,
            wide,
            layout.row,
        )
    return out if wide == len(weight) else out[:, : len(weight)].contiguous(memory_format=torch.channels_last)


def gradient_of_weights(
    x: Float[Tensor, "batch channel y x"], gradient: Float[Tensor, "batch out y x"]
) -> Float[Tensor, "out channel 3 3"]:
    """Return the gradient of a 3×3 convolution's weights, as float32.

    Args:
        x: what came in; bfloat16, channels last.
        gradient: of what went out; bfloat16, channels last, a multiple of 16 channels.
    """
    maps, channels, height, width = x.shape
    out = gradient.shape[1]
    layout = Layout(maps, height, width, channels + out)
    # Blocks of 16 channels reach beyond the last pixel's where those are not a multiple of it.
    padded = _zeros(layout.padded + tiles.EDGE, channels)
    apart = len(layout.places)
    apart += tiles.STEP if apart // tiles.STEP % 2 == 0 else 0  # an odd number of lines of the cache
    lefts = _zeros(out, apart)
    blocks = _times(channels, tiles.EDGE)
    panel = layout.padded // 2
    rights = _zeros(blocks, 2, panel, 2 * tiles.EDGE)
    sums = _zeros(out // tiles.EDGE, 2 * _times(9 * blocks, 2), tiles.EDGE, tiles.EDGE, dtype=torch.float32)
    nothing, kept = _zeros(out), _zeros(tiles.STEP)
    for first in range(0, maps, layout.at_a_time):
        now = min(layout.at_a_time, maps - first)
        skipped = first * height * width
        pixels = layout.filled(now)
        start = x.data_ptr() + 2 * channels * skipped
        tiles.pad(start, padded.data_ptr(), now, height, width, 2 * channels, layout.lead)
        tiles.pairs(padded.data_ptr(), rights.data_ptr(), panel, channels)
        tiles.columns(
            gradient.data_ptr() + 2 * out * skipped,
            lefts.data_ptr(),
            layout.places.data_ptr(),
            nothing.data_ptr(),
            pixels,
            now * height * width,
            out,
            2 * apart,
        )
        tiles.add_gradient(
            lefts.data_ptr(),
            rights.data_ptr(),
            sums.data_ptr(),
            tiles.shape_of_tiles(),
            kept.data_ptr(),
            pixels,
            channels,
            out,
            2 * apart,
            layout.row,
            panel,
            AT_ONCE,
        )
    # (16 channels out, tile; 16, 16) → (out, in, y, x)
    found = sums[:, : 9 * blocks].view(-1, blocks, 3, 3, tiles.EDGE, tiles.EDGE)
    return found.permute(0, 4, 1, 5, 2, 3).reshape(out, -1, 3, 3)[:, :channels]


class Layout:
    """Where the pixels of maps lie among zeros: flat, a zero after each row and a row of zeros after each map.

    Args:
        maps: how many.
        height: of a map.
        width: of a map.
        channels: of what is held of a pixel meanwhile, which tells how many maps the cache takes.

    Attributes:
        at_a_time: maps that are gone through at a time.
        row: padded pixels of a row.
        each: padded pixels of a map.
        lead: zeros before the first pixel: a row and a pixel, which a shift to the upper left reaches.
        places: of each padded pixel of so many maps, and of what fills up the last 32, which pixel of theirs it is, or
            none.
        padded: pixels in all, zeros before and after included.
    """

    def __init__(self, maps: int, height: int, width: int, channels: int) -> None:
        self.row = width + 1
        self.each = self.row * (height + 1)
        self.lead = self.row + 1
        self.at_a_time = max(1, min(maps, CHUNK // (2 * channels * self.each)))
        inside = torch.full((self.at_a_time, height + 1, self.row), tiles.NOWHERE)
        inside[:, :height, :width] = torch.arange(self.at_a_time * height * width).view(-1, height, width)
        self.places = torch.full((self.filled(self.at_a_time),), tiles.NOWHERE)
        self.places[: inside.numel()] = inside.flatten()
        self.padded = len(self.places) + 2 * self.lead

    def filled(self, maps: int) -> int:
        """Return how many padded pixels some maps have, filled up to a multiple of 32."""
        return _times(maps * self.each, tiles.STEP) * tiles.STEP


def packed(weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return weights as right tiles, bfloat16."""
    out, channels = weight.shape[:2]
    rows = _zeros(_times(out, tiles.STEP) * tiles.STEP, 9 * channels)
    rows[:out] = weight.detach().permute(0, 2, 3, 1).reshape(out, -1)
    tiled = torch.empty_like(rows)
    tiles.pack(rows.data_ptr(), tiled.data_ptr(), *rows.shape)
    return tiled


def _times(count: int, of: int) -> int:
    """Return how many times something is needed to hold a number."""
    return -(-count // of)


def _zeros(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.zeros(shape, dtype=dtype)
