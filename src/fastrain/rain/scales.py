"""A field taken apart into scales, and for how long each scale was seen to live.

Sources: Burt and Adelson (1983) for the pyramid; Seed (2003), doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2
(S-PROG), for fading by scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST = 4  # cells along the shorter edge of the coarsest map
FADING = 0.8  # correlation falls as exp(−(time / life) ** this): small parts of a scale go first
LIFE, LIFE_KM, LIFE_GROWS = 40.0, 16.0, 1.3  # minutes of what is so wide, and how life grows with width (LOG.md)
BELIEVED = 1e-3  # what that is worth beside what is seen: next to nothing, so that it tells where nothing is seen
LONGEST = 1e4  # minutes


@dataclass(frozen=True)
class Band:
    """One scale of a field: what is left when what is coarser is taken away."""

    value: Float[Tensor, "channel y x"]
    weight: Float[Tensor, "1 y x"]


def bands_of(field: Float[Tensor, "channel y x"], known: Bool[Tensor, "y x"]) -> list[Band]:
    """Return a field's scales, the finest first; all together make its departure from its mean."""
    weight = known[None].float()
    value = torch.where(known, field, 0.0)
    value = torch.where(known, value - value.sum((-2, -1), keepdim=True) / weight.sum().clamp(min=1), 0.0)
    out = []
    while min(value.shape[-2:]) >= 2 * SMALLEST:
        wider = F.avg_pool2d(weight[None], 2, ceil_mode=True)[0]
        coarse = F.avg_pool2d((value * weight)[None], 2, ceil_mode=True)[0] / wider.clamp(min=1e-6)
        out.append(Band(value - _up(coarse, value), weight))
        value, weight = coarse, wider
    out.append(Band(value, weight))
    return out


def collapse(bands: list[Band], share: Float[Tensor, "scale channel"]) -> Float[Tensor, "channel y x"]:
    """Return the field of which a share of each scale is left."""
    field = bands[-1].value * share[-1][:, None, None]
    for band, kept in zip(reversed(bands[:-1]), share.flip(0)[1:], strict=True):
        field = band.value * kept[:, None, None] + _up(field, band.value)
    return field


def lives_of(
    now: list[Band], before: list[list[Band]], lags: list[float], cell_km: float
) -> Float[Tensor, "scale channel"]:
    """Return for how many minutes each scale lives: what of it is still there after each lag."""
    rates = []
    for scale, band in enumerate(now):
        width = 2 * cell_km * 2**scale
        believed = LIFE * (width / LIFE_KM) ** LIFE_GROWS
        numerator, denominator = torch.zeros(len(band.value)), torch.zeros(1)
        for bands, lag in zip(before, lags, strict=True):
            old = bands[scale]
            weight = torch.minimum(band.weight, old.weight)
            cells = weight.sum().clamp(min=1e-6)
            both, was, is_ = (
                (a * b * weight).sum((-2, -1)) / cells
                for a, b in ((old.value, band.value), (old.value, old.value), (band.value, band.value))
            )
            held = BELIEVED * cells.clamp(max=1.0)
            expected = torch.exp(torch.tensor(-((lag / believed) ** FADING)))
            kept = (both + held * expected) / ((was * is_).sqrt() + held)
            # A line through nothing, of the logarithm over time's power: its slope is the rate of fading.
            at = lag**FADING
            numerator = numerator - kept.clamp(1e-3, 0.999).log() * at
            denominator = denominator + at**2
        rates.append(numerator / denominator)
    # What is wider lives no shorter: few waves of it are in the map, and they say little.
    slowest = torch.stack(rates).cummin(dim=0).values
    return (slowest.clamp(min=LONGEST**-FADING)) ** (-1 / FADING)


def mean_square(band: Band) -> Float[Tensor, channel]:
    """Return the mean of a scale's squares."""
    return (band.value.square() * band.weight).sum((-2, -1)) / band.weight.sum().clamp(min=1e-6)


def _up(field: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(field[None], size=like.shape[-2:], mode="bilinear", align_corners=False)[0]
