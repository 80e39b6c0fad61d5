"""The largest of each 2×2, batch norm and GELU: in few passes over maps on a CPU, by torch elsewhere.

Torch takes one to three passes over all maps for each, there and back, and rounds in between; here what lies between
two convolutions is read twice and written once each way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fastrain.core.shapes import Float
from fastrain.nets.plain import LANES, LIKE, loops, multiplies_and_adds, plain, worth_it


def passes() -> Any:
    """Return the loops over maps, or None; see `loops`."""
    return loops("passes")


def norm_gelu(
    x: Float[Tensor, "batch channel y x"], norm: nn.BatchNorm2d, *, halve: bool
) -> Float[Tensor, "batch channel rows columns"]:
    """Return the GELU of the normalised maps.

    Args:
        x: maps.
        norm: whose running statistics are updated where it is in training, as by its own forward, which is not called.
        halve: take the largest of each 2×2 before that; a last odd row or column is left out.
    """
    if not (in_passes(x, x.shape[1], training=norm.training) and _known(norm, x, 2 if halve else 1)):
        return F.gelu(norm(F.max_pool2d(x, 2) if halve else x))
    if norm.training:
        out, mean, variance, count = _NormGelu.apply(x, norm.weight, norm.bias, norm.eps, halve)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            share = cast(float, norm.momentum)
            cast(Tensor, norm.running_mean).lerp_(mean, share)
            cast(Tensor, norm.running_var).lerp_(variance * (count / (count - 1)), share)
            cast(Tensor, norm.num_batches_tracked).add_(1)
        return cast(Tensor, out)
    scale = norm.weight / (cast(Tensor, norm.running_var) + norm.eps).sqrt()
    maps = _Maps(x)
    if halve:
        maps, _ = maps.halved()
    return maps.bent(scale, norm.bias - cast(Tensor, norm.running_mean) * scale)


def gelu(x: Float[Tensor, "batch channel y x"], *, training: bool = False) -> Float[Tensor, "batch channel y x"]:
    """Return the GELU of maps.

    Args:
        x: maps.
        training: see `worth_it`.
    """
    if not in_passes(x, x.numel(), training=training):
        return F.gelu(x)
    return cast(Tensor, _Gelu.apply(x))  # type: ignore[no-untyped-call]


def in_passes(x: Tensor, length: int, *, training: bool) -> bool:
    """Tell whether maps are gone through by loops of ours: on one thread of a CPU, so many at a stretch.

    In float32 only where numba is `worth_it`; in bfloat16 whoever asks has to see to that.
    """
    if x.dtype not in LIKE or not plain(x) or not x.numel() or length % LANES or torch.get_num_threads() > 1:
        return False
    if x.dtype == torch.float32 and not (worth_it(training, x.dtype) and multiplies_and_adds()):
        return False
    return passes() is not None


def _known(norm: nn.BatchNorm2d, x: Tensor, shrinks: int) -> bool:
    """Tell whether a norm is of the kind that the passes know, and asked for what they give."""
    usual = type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None
    if not usual or norm.weight.dtype != torch.float32 or x.shape[1] != norm.num_features:
        return False
    values = len(x) * (x.shape[2] // shrinks) * (x.shape[3] // shrinks)  # of each channel
    return values > 1 and (norm.training or not torch.is_grad_enabled())


class _Maps:
    """Maps, channels last, that loops go over.

    Attributes:
        x: (batch, channel, y, x).
        like: what tells loops in which numbers they are.
        pixels: how many in all.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x.detach().contiguous(memory_format=torch.channels_last)
        self.like = LIKE[x.dtype]
        self.pixels = len(x) * x.shape[2] * x.shape[3]

    @property
    def at(self) -> int:
        """The address of the first."""
        return int(self.x.data_ptr())

    def more(self) -> _Maps:
        """Return maps of the same shape, of any values."""
        return _Maps(torch.empty_like(self.x))

    def halved(self) -> tuple[_Maps, Tensor]:
        """Return the largest of each 2×2, and a byte each that says which of them it was."""
        images, channels, height, width = self.x.shape
        out = torch.empty(
            (images, channels, height // 2, width // 2),
            dtype=self.x.dtype,
            device="cpu",
            memory_format=torch.channels_last,
        )
        which = torch.empty(out.numel(), dtype=torch.uint8, device="cpu")
        passes().largest(self.like, self.at, out.data_ptr(), which.data_ptr(), images, height, width, channels)
        return _Maps(out), which

    def bent(self, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the GELU of the maps, scaled and shifted by channel."""
        out = self.more()
        scale, shift = _singles(scale), _singles(shift)
        passes().bend(self.like, self.at, scale.data_ptr(), shift.data_ptr(), out.at, self.pixels, self.x.shape[1])
        return out.x

    def sums(self) -> list[Tensor]:
        """Return the sums of the values and of their squares, of each channel, in float64."""
        return self._summed(passes().sums)

    def slope_sums(self, gradient: _Maps, scale: Tensor, shift: Tensor) -> list[Tensor]:
        """Return the sums of the gradients before the GELU, and of them times the values, in float64."""
        return self._summed(passes().slope_sums, gradient.at, scale.data_ptr(), shift.data_ptr())

    def _summed(self, loop: Callable[..., None], *places: int) -> list[Tensor]:
        """Return both sums of a loop over the maps and what lies at other places."""
        channels = self.x.shape[1]
        found = _filled(0.0, 2, -(-self.pixels // passes().PARTIAL), channels)
        loop(self.like, self.at, *places, found[0].data_ptr(), found[1].data_ptr(), self.pixels, channels)
        return list(found.double().sum(dim=1))


def _singles(values: Tensor) -> Tensor:
    return values.detach().float().contiguous()


def _filled(value: float, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.float32, device="cpu")


class _NormGelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, halve: bool
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return the GELU, and mean, variance and number of the values of each channel."""
        maps, which = _Maps(x).halved() if halve else (_Maps(x), torch.empty(0, dtype=torch.uint8, device="cpu"))
        values, squares = maps.sums()
        mean = values / maps.pixels
        variance = (squares / maps.pixels - mean.square()).clamp(min=0)
        steep = (variance + eps).rsqrt()
        scale = _singles(weight * steep)
        shift = _singles(bias - mean * scale)
        ctx.save_for_backward(maps.x, which, mean, steep, scale, shift)
        ctx.shape = x.shape if halve else None
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return maps.bent(scale, shift), mean, variance, maps.pixels

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of maps, weight and bias."""
        x, which, mean, steep, scale, shift = ctx.saved_tensors
        maps, found = _Maps(x), _Maps(gradient)
        slopes, products = maps.slope_sums(found, scale, shift)
        of_weight = steep * (products - mean * slopes)
        inward = None
        if ctx.needs_input_grad[0]:
            along = -scale * steep * of_weight / maps.pixels
            offset = _singles(-along * mean - scale * slopes / maps.pixels)
            along = _singles(along)
            by_channel = [one.data_ptr() for one in (scale, shift, along, offset)]
            if ctx.shape is None:
                inward = torch.empty_like(x)
                passes().back(maps.like, maps.at, found.at, *by_channel, inward.data_ptr(), maps.pixels, x.shape[1])
            else:
                images, channels, height, width = ctx.shape
                inward = torch.empty(ctx.shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
                ends = (which.data_ptr(), inward.data_ptr(), images, height, width, channels)
                passes().back_to_largest(maps.like, maps.at, found.at, *by_channel, *ends)
        return inward, of_weight.float(), slopes.float(), None, None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the GELU."""
        maps = _Maps(x)
        ctx.save_for_backward(maps.x)
        out = maps.more()
        ones, nothing = _filled(1.0, LANES), _filled(0.0, LANES)
        passes().bend(maps.like, maps.at, ones.data_ptr(), nothing.data_ptr(), out.at, x.numel() // LANES, LANES)
        return out.x

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the gradient of the maps."""
        maps, found = _Maps(ctx.saved_tensors[0]), _Maps(gradient)
        out = maps.more()
        ones, nothing = _filled(1.0, LANES), _filled(0.0, LANES)
        by_channel = (ones.data_ptr(), *[nothing.data_ptr()] * 3)
        passes().back(maps.like, maps.at, found.at, *by_channel, out.at, gradient.numel() // LANES, LANES)
        return out.x
