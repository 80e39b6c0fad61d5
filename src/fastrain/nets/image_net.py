"""The image network: a whitened stem, then groups of convolutions on smaller and smaller maps, and a linear head.

As a rule a group convolves, takes the largest of each 2×2, normalises and bends; then convolves again on the smaller
map. What the speedrunners tried in turn are switches here: squeeze-and-excite, ways around, dirac starts, a projection
after the stem.

Source: Page (2019); hlb-CIFAR10 0.1 to 0.7 (2023); cifar10-airbench (2024).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.nets.convolution import Convolution
from fastrain.nets.norm_gelu import gelu, norm_gelu
from fastrain.nets.plain import LIKE, by_torch
from fastrain.nets.squeeze_excite import SqueezeExcite
from fastrain.nets.whitening import Whitening

Activation = Literal["gelu", "relu", "silu"]
Dirac = Literal["copy", "add"]
Pool = Literal["after", "before", "none"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "relu": F.relu, "silu": F.silu}


@dataclass(frozen=True)
class NetSettings:
    """What an image network is made of.

    Attributes:
        widths: channels of each group.
        depths: convolutions of each group.
        pools: where each group takes the largest of each 2×2: after its first convolution, before it (a quarter of that
            convolution's work), or nowhere.
        kernel: edge of the whitening's patches.
        stride: of the whitening's patches.
        padding: of the whitening.
        directions: of the whitening, the most varied first; all if None. The least varied of 2×2 patches hold noise.
        both_signs: give the whitened patches' negatives too.
        whitening_floor: see `whitening_filters`.
        project: channels of a 1×1 convolution after the whitening; None leaves it out.
        activation: after every norm.
        norm_share: of a step's statistics in the norms' running ones.
        squeeze_excite: compression dimension; None leaves squeeze-and-excite out.
        excite_ratio: channels over the compression dimension, instead of a fixed one.
        around: add a group's first map to its last, where it has more than two convolutions.
        dirac: start convolutions as a copy of their input's channels, or add that to the random start.
        head_scale: of the logits; the reciprocal of the last width if None.
        head_spread: of the head's weights at the start; torch's own start if None.
        channels_last: how maps lie in memory, as all that is fast wants them; else by planes, gone through by torch.
    """

    widths: tuple[int, ...] = (64, 256, 256)
    depths: tuple[int, ...] = (2, 2, 2)
    pools: tuple[Pool, ...] = ("after", "after", "after")
    kernel: int = 2
    stride: int = 1
    padding: int = 0
    directions: int | None = None
    both_signs: bool = True
    whitening_floor: float = 1e-3
    project: int | None = None
    activation: Activation = "gelu"
    norm_share: float = 0.4
    squeeze_excite: int | None = None
    excite_ratio: int | None = None
    around: bool = False
    dirac: Dirac | None = "copy"
    head_scale: float | None = None
    head_spread: float | None = 1.0
    channels_last: bool = True


class ImageNet(nn.Module):
    """Logits of an image's classes; of any size that leaves a map after the last group.

    Args:
        channels: of the images.
        classes: how many.
        settings: see there.
    """

    def __init__(self, channels: int, classes: int, settings: NetSettings | None = None) -> None:
        super().__init__()
        self.settings = settings = settings or NetSettings()
        self.activation = _ACTIVATIONS[settings.activation]
        filters = settings.directions or channels * settings.kernel**2
        self.stem = Whitening(
            channels, filters, settings.kernel, settings.stride, settings.padding, both_signs=settings.both_signs
        )
        width = self.stem.width
        self.project: nn.Module = nn.Identity()
        if settings.project is not None:
            self.project = nn.Sequential(
                nn.Conv2d(width, settings.project, 1, bias=False), _norm(settings.project, settings)
            )
            width = settings.project
        groups = []
        for wide, depth, pool in zip(settings.widths, settings.depths, settings.pools, strict=True):
            groups.append(Group(width, wide, depth, pool, settings))
            width = wide
        self.groups = nn.Sequential(*groups)
        self.head = nn.Linear(width, classes, bias=False)
        self.scale = settings.head_scale if settings.head_scale is not None else 1 / width
        if settings.head_spread is not None:
            with torch.no_grad():
                self.head.weight.mul_(settings.head_spread / self.head.weight.std())
        if settings.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def edge_left(self, edge: int) -> int:
        """Return the edge of the last group's map, of images of some edge; 0 where they are too small."""
        left = (edge + 2 * self.stem.padding - self.stem.kernel) // self.stem.stride + 1
        return max(0, left) >> sum(pool != "none" for pool in self.settings.pools)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch class"]:
        """Return the logits of normalised images."""
        if self.settings.channels_last:
            return self._logits(x)
        x = x.contiguous()
        if torch.compiler.is_compiling():
            return self._logits(x)
        with by_torch():
            return self._logits(x)

    def _logits(self, x: Tensor) -> Tensor:
        x = self.project(self.stem(x))
        x = gelu(x, training=self.training) if self.activation is gelu else self.activation(x)
        x = self.groups(x)
        if self.training and torch.compiler.is_compiling():
            # What is compiled computes the map again on the way back, with more digits, and finds no cell that equals
            # the highest: the gradient of amax would be 0/0. Of a window it is kept which cell is the highest.
            highest = F.max_pool2d(x, x.shape[-2:]).flatten(1)
        else:
            highest = x.amax(dim=(-2, -1))
        out: Tensor = self.head(highest) * self.scale  # (batch, class)
        return out


class Group(nn.Module):
    """Convolutions of one width; beside the first of them the map is halved, or not at all.

    Args:
        channels_in: that come in.
        channels: that go out.
        depth: how many convolutions.
        pool: see `NetSettings`.
        settings: of the network.
    """

    def __init__(self, channels_in: int, channels: int, depth: int, pool: Pool, settings: NetSettings) -> None:
        super().__init__()
        self.pool = pool
        widths = [channels_in] + [channels] * (depth - 1)
        self.convolutions = nn.ModuleList(Convolution(w, channels) for w in widths)
        self.norms = nn.ModuleList(_norm(channels, settings) for _ in widths)
        for i, weight in enumerate(self.convolutions.parameters()):
            _start(weight, settings.dirac, first=i == 0)
        self.activation = _ACTIVATIONS[settings.activation]
        self.around = settings.around and depth > 2
        compression = channels // settings.excite_ratio if settings.excite_ratio else settings.squeeze_excite
        self.excite = SqueezeExcite(channels, compression) if compression and depth > 1 else None

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out rows columns"]:
        """Return the group's map."""
        if self.pool == "before":
            x = F.max_pool2d(x, 2)
        first = x = self._first(x)
        last = len(self.convolutions) - 1
        for i in range(1, last + 1):
            x = self.convolutions[i](x)
            if i == last and self.excite is not None:
                x = x * self.excite.gate(first)
            x = self._bent(x, i)
        return x + first if self.around else x

    def _first(self, x: Tensor) -> Tensor:
        """Return the first convolution's map halved, if that is wanted, normalised and bent."""
        convolution = cast(Convolution, self.convolutions[0])
        halve = self.pool == "after"
        halved = convolution.halved(x) if halve else None
        return self._bent(convolution(x), 0, halve=halve) if halved is None else self._bent(halved, 0)

    def _bent(self, x: Tensor, i: int, *, halve: bool = False) -> Tensor:
        """Return a convolution's map halved, if that is wanted, normalised and bent."""
        norm = cast(nn.BatchNorm2d, self.norms[i])
        if self.activation is gelu:
            return norm_gelu(x, norm, halve=halve)
        return self.activation(norm(F.max_pool2d(x, 2) if halve else x))


def _norm(channels: int, settings: NetSettings) -> nn.BatchNorm2d:
    """Return a norm that learns a bias only: what follows undoes a scale."""
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=settings.norm_share)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def _start(weight: Tensor, dirac: Dirac | None, *, first: bool) -> None:
    """Start a convolution's weights so that what comes in gets through.

    Source: cifar10-airbench ("copy": as many filters as channels come in copy one each); hlb-CIFAR10 0.6 ("add": to the
    random start of a group's first convolution, its mean and spread kept; the later ones copy).
    """
    if dirac == "copy" or (dirac == "add" and not first):
        nn.init.dirac_(weight[: weight.size(1)])
    elif dirac == "add":
        spread, mean = torch.std_mean(weight)
        weight.add_(nn.init.dirac_(torch.empty_like(weight)))
        now, off = torch.std_mean(weight)
        weight.sub_(off).div_(now).mul_(spread).add_(mean)


def make_ready(kind: torch.dtype) -> float:
    """Compile, or load, what a first step on one thread of a CPU would; return the seconds that took.

    Args:
        kind: of the numbers that are computed with; in float16 torch's own are taken.
    """
    if kind not in LIKE:
        return 0.0
    began = time.perf_counter()
    x = torch.zeros((32, 32, 4, 4), dtype=kind).contiguous(memory_format=torch.channels_last)
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), half:
        group = Group(32, 32, 2, "after", NetSettings())
        group(gelu(x.requires_grad_(), training=True)).sum().backward()
    return time.perf_counter() - began
