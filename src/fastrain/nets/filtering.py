"""3×3 convolutions on a CPU by minimal filtering, there and back; see `winograd` for what that is.

For processors without a matrix unit, nearly all of those at home: torch's own convolutions run at the processor's limit
there, so that what is left is to multiply less. Float32 on any, bfloat16 where the processor multiplies pairs of it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastrain.core.shapes import Float
from fastrain.nets.plain import multiplies_and_adds, multiplies_pairs, numbers_of, plain, times, worth_it
from fastrain.nets.turns import Maps, convolution, gradient_of_weights, halved_convolution, vectors_of, winograd

LEAST = 24  # tiles for which transforming weights is worth it


def filtered(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Tell whether a convolution may go by minimal filtering: on a CPU, channels in eights, enough tiles."""
    kind = numbers_of(x, weight)
    if kind is None or not plain(x) or weight.device.type != "cpu":
        return False
    if weight.shape[1:] != (x.shape[1], 3, 3) or not x.shape[1] or x.shape[1] % 8:
        return False
    if bias is not None and (bias.shape != weight.shape[:1] or bias.device.type != "cpu"):
        return False
    # As torch has it, which stays for what is refused here: within autocast they may differ.
    if bias is not None and bias.dtype != x.dtype and not torch.is_autocast_enabled("cpu"):
        return False
    if not vectors_of(len(weight), kind) or len(x) * _tiles(x) < LEAST:
        return False
    return (multiplies_pairs() if kind == torch.bfloat16 else multiplies_and_adds()) and winograd() is not None


def gains(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, training: bool) -> bool:
    """Tell whether a convolution may go by minimal filtering and is worth loading numba; see `worth_it`."""
    kind = numbers_of(x, weight)
    return kind is not None and worth_it(training, kind) and filtered(x, weight, bias)


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
    if gains(x, weight, bias, training=training):
        return convolve(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def convolve(
    x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"], bias: Tensor | None = None
) -> Float[Tensor, "batch out y x"]:
    """Return the 3×3 convolution of maps that may be `filtered`, zeros around them; it has a gradient.

    Each number is off by about a millionth of the largest ones of its tile, of bfloat16 by about a hundredth of what is
    usual; one that is none, or infinite, may make all of its tile none.
    """
    return cast(Tensor, _Convolution.apply(x, weight, bias, numbers_of(x, weight)))  # type: ignore[no-untyped-call]


def convolve_halved(x: Float[Tensor, "batch channel y x"], weight: Float[Tensor, "out channel 3 3"]) -> Tensor:
    """Return the largest of each 2×2 of the convolution of maps that may be `filtered`; it has a gradient.

    The convolution itself is never written, nor its gradient. A last odd row or column is left out.

    Returns:
        (batch, out, y // 2, x // 2)
    """
    return cast(Tensor, _Halved.apply(x, weight, numbers_of(x, weight)))  # type: ignore[no-untyped-call]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
        """Return the convolution."""
        x = _laid(x, kind)
        ctx.save_for_backward(x, weight)
        ctx.of_bias = bias.dtype if bias is not None else None
        return convolution(Maps.of(x), weight.detach(), bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of maps, weights and bias."""
        x, weight = ctx.saved_tensors
        gradient = _laid(gradient, x.dtype)
        of_maps, of_weights = _back(x, weight, Maps.of(gradient), ctx.needs_input_grad)
        of_bias = gradient.sum((0, 2, 3), dtype=torch.float32).to(ctx.of_bias) if ctx.needs_input_grad[2] else None
        return of_maps, of_weights, of_bias, None


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, kind: torch.dtype) -> Tensor:
        """Return the largest of each 2×2 of the convolution."""
        x = _laid(x, kind)
        out, which = halved_convolution(Maps.of(x), weight.detach())
        ctx.save_for_backward(x, weight, which)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of maps and weights."""
        x, weight, which = ctx.saved_tensors
        spread = Maps(_laid(gradient, x.dtype), which, *x.shape[2:])
        return *_back(x, weight, spread, ctx.needs_input_grad), None


def _back(x: Tensor, weight: Tensor, gradient: Maps, wanted: tuple[bool, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a convolution's maps and weights, those that are wanted."""
    of_maps = of_weights = None
    if wanted[0]:
        back = weight.flip(2, 3).transpose(0, 1)
        if vectors_of(len(back), x.dtype):
            of_maps = convolution(gradient, back)
        else:
            with torch.autocast("cpu", enabled=False):
                of_maps = F.conv2d(gradient.whole(), back.to(x.dtype), padding=1)
    if wanted[1]:
        of_weights = gradient_of_weights(Maps.of(x), gradient).to(weight.dtype)
    return of_maps, of_weights


def _tiles(x: Tensor) -> int:
    return times(x.shape[2], 4) * times(x.shape[3], 4)


def _laid(x: Tensor, kind: torch.dtype) -> Tensor:
    return x.detach().to(kind).resolve_neg().contiguous(memory_format=torch.channels_last)
