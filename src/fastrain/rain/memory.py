"""How long this rain remembers where it was: measured in the window itself, scale by scale, and what follows from it.

What is large lives longer than what is small, and by how much differs from radar to radar and from day to day. The
frames of the history, carried along the motion to the issue, say it: at each scale, how much of what was seen before is
still there. From that come two more first guesses. One takes each threshold's field of yes and no apart into scales
and lets each fade as it was seen to fade, which is near the linear filter of the least Brier score.
The other does so with rain rates in dB and adds the doubt of what has faded: STEPS with no end of members. And maps of
how well the oldest frame would have foretold the latest, as a network cannot know of a radar that it never saw.

Sources: Seed (2003), doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2 (S-PROG), for fading by scale; Bowler,
Pierce and Seed (2006), doi:10.1256/qj.04.100 (STEPS); Burt and Adelson (1983) for the pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fastrain.motion import advect
from fastrain.samples.layout import middle

SMALLEST = 4  # cells along the shorter edge of the coarsest map
FADING = 0.8  # correlation falls as exp(−(time / life) ** this): small parts of a scale go first
LIFE, LIFE_KM, LIFE_GROWS = 40.0, 16.0, 1.3  # minutes of what is so wide, and how life grows with width (LOG.md)
BELIEVED = 1e-3  # what that is worth beside what is seen: next to nothing, so that it tells where nothing is seen
LONGEST = 1e4  # minutes
FLOOR = 0.03  # mm/h, what dry cells are in dB: STEPS' own −15 dB
DOUBT = 0.5  # dB, at least
BINS = 128  # of the field's values, for its area above a threshold
HALVINGS = 24
STRIDE = 2.0  # cells that rain moves between the moments of a period that are looked at
AROUND_KM = 32.0  # over which past errors are taken together
MOST_TREND = 2.0  # natural logarithm of grown over carried rain


@dataclass(frozen=True)
class Memory:
    """What a window's history says of how its rain fades.

    Attributes:
        chances: (period, threshold, 2, y, x) by fading yes and no, and by fading rain rates with their doubt.
        past: (asked, 2 · threshold, y, x) for each threshold the error of the oldest frame carried to the issue, as a
            share of the rain, and how much more rain there is than was carried, both carried on to the periods that
            were asked about.
    """

    chances: Float[Tensor, "period threshold guess y x"]
    past: Float[Tensor, "asked channel y x"]


@dataclass(frozen=True)
class _Band:
    """One scale of a field: what is left when what is coarser is taken away."""

    value: Float[Tensor, "channel y x"]
    weight: Float[Tensor, "1 y x"]


def remember(
    rates: Float[Tensor, "age y x"],
    observed: Bool[Tensor, "age y x"],
    travelled: Float[Tensor, "steps 2 y x"],
    periods: Sequence[tuple[int, int]],
    thresholds: Sequence[float],
    *,
    minutes: float,
    cell_km: float,
    asked: Sequence[int] | None = None,
) -> Memory:
    """Return what the history says of each period.

    Args:
        rates: of which the chances speak, mm/h, the latest first.
        observed: where they are.
        travelled: displacement of the air in 1, 2, … frames, cells.
        periods: frames after the issue, (start, end].
        thresholds: mm/h.
        minutes: between frames.
        cell_km: edge of a cell.
        asked: periods of which the past errors are wanted, too; all if None.
    """
    asked = range(len(periods)) if asked is None else asked
    ages = sorted({max(1, (len(rates) - 1) // 2), len(rates) - 1})
    fields, known = [_told(rates[0], thresholds)], [observed[0]]
    for age in ages:
        carried, seen = _carried(_told(rates[age], thresholds), observed[age], travelled[age - 1])
        fields.append(carried)
        known.append(seen)
    now, *before = [_bands(field, seen) for field, seen in zip(fields, known, strict=True)]
    lives = _lives(now, before, [age * minutes for age in ages], cell_km)
    mean = (fields[0] * known[0]).sum(dim=(-2, -1)) / known[0].sum().clamp(min=1)  # (channel,)
    spread = torch.stack([_mean_square(band) for band in now])  # (scale, channel)
    past = _past(fields[0], fields[-1], known[0] & known[-1], len(thresholds), cell_km)
    leads = torch.tensor([middle(period) * minutes for period in periods])
    kept = torch.exp(-((leads[:, None, None] / lives) ** FADING))  # (period, scale, channel)
    doubts = ((1 - kept[..., -1] ** 2) * spread[:, -1]).sum(dim=1).sqrt().clamp(min=DOUBT)  # (period,)
    decibel = [_Band(band.value[-1:], band.weight) for band in now]
    values = [_histogram((_collapse(decibel, share[:, -1:])[0] + mean[-1])[known[0]]) for share in kept]
    area = mean[:-1]  # share of the map that reaches each threshold now
    edges = _edges(torch.stack([v for v, _ in values]), torch.stack([n for _, n in values]), area, doubts)
    speed = float(travelled[0].square().sum(dim=0).sqrt().quantile(0.9))  # cells a frame
    every = max(1, int(STRIDE / max(speed, 1e-6)))
    count, size = len(thresholds), rates.shape[1:]
    chances, pasts = torch.empty(len(periods), count, 2, *size), torch.empty(len(asked), 2 * count, *size)
    for p, (share, edge, doubt, (a, b)) in enumerate(zip(kept, edges, doubts, periods, strict=True)):
        field = _collapse(now, share) + mean[:, None, None]
        chance = torch.cat([field[:-1].clamp(0, 1), torch.special.ndtr((field[-1] - edge[:, None, None]) / doubt)])
        at = round(middle((a, b)))
        told, _ = _carried(torch.cat([chance, past]) if p in asked else chance, known[0], travelled[at - 1])
        if p in asked:
            pasts[asked.index(p)] = told[2 * count :]
        # Of a period the highest chance that passes a cell.
        highest = told[: 2 * count]
        for step in {b, *range(a + 1, b, every)} - {at}:
            passing, _ = _carried(chance, known[0], travelled[step - 1])
            highest = torch.maximum(highest, passing)
        chances[p, :, 0], chances[p, :, 1] = highest[:count], highest[count:]
    return Memory(chances, pasts)


def _told(rate: Tensor, thresholds: Sequence[float]) -> Float[Tensor, "channel y x"]:
    """Return where each threshold is reached, and the rates in dB."""
    reached = [(rate >= t * (1 - 1e-6)).float() for t in thresholds]
    return torch.stack([*reached, 10 * torch.log10(rate.clamp(min=FLOOR))])


def _carried(field: Tensor, known: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    carried, there = advect(field[None], known[None, None], displacement[None])
    return torch.where(there, carried, 0.0)[0], there[0, 0]


def _bands(field: Float[Tensor, "channel y x"], known: Bool[Tensor, "y x"]) -> list[_Band]:
    """Return a field's scales, the finest first; all together make its departure from its mean."""
    weight = known[None].float()
    value = torch.where(known, field, 0.0)
    value = torch.where(known, value - value.sum((-2, -1), keepdim=True) / weight.sum().clamp(min=1), 0.0)
    out = []
    while min(value.shape[-2:]) >= 2 * SMALLEST:
        wider = F.avg_pool2d(weight[None], 2, ceil_mode=True)[0]
        coarse = F.avg_pool2d((value * weight)[None], 2, ceil_mode=True)[0] / wider.clamp(min=1e-6)
        out.append(_Band(value - _up(coarse, value), weight))
        value, weight = coarse, wider
    out.append(_Band(value, weight))
    return out


def _up(field: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(field[None], size=like.shape[-2:], mode="bilinear", align_corners=False)[0]


def _collapse(bands: list[_Band], share: Float[Tensor, "scale channel"]) -> Float[Tensor, "channel y x"]:
    """Return the field of which a share of each scale is left."""
    field = bands[-1].value * share[-1][:, None, None]
    for band, kept in zip(reversed(bands[:-1]), share.flip(0)[1:], strict=True):
        field = band.value * kept[:, None, None] + _up(field, band.value)
    return field


def _mean_square(band: _Band) -> Float[Tensor, channel]:
    return (band.value.square() * band.weight).sum((-2, -1)) / band.weight.sum().clamp(min=1e-6)


def _lives(
    now: list[_Band], before: list[list[_Band]], lags: list[float], cell_km: float
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


def _histogram(values: Float[Tensor, cell]) -> tuple[Float[Tensor, part], Float[Tensor, part]]:
    """Return the middles of even bins from the least to the highest value, and the share of values in each."""
    if not len(values):
        return torch.zeros(BINS), torch.zeros(BINS)
    low, high = values.min(), values.max()
    width = ((high - low) / BINS).clamp(min=1e-6)
    at = ((values - low) / width).long().clamp(max=BINS - 1)
    return low + width * (torch.arange(BINS) + 0.5), torch.bincount(at, minlength=BINS) / len(values)


def _edges(
    middle: Float[Tensor, "period part"],
    count: Float[Tensor, "period part"],
    area: Float[Tensor, threshold],
    doubt: Float[Tensor, period],
) -> Float[Tensor, "period threshold"]:
    """Return above which value of a field, under its doubt, an area lies; no value lies above that of no area."""
    low, high = middle[:, :1], middle[:, -1:]
    below = (low - 8 * doubt[:, None]).expand(-1, len(area))
    above = (high + 8 * doubt[:, None]).expand(-1, len(area))
    for _ in range(HALVINGS):
        tried = (below + above) / 2
        chance = torch.special.ndtr((middle[:, None] - tried[..., None]) / doubt[:, None, None])
        more = (chance * count[:, None]).sum(dim=-1) > area
        below, above = torch.where(more, tried, below), torch.where(more, above, tried)
    return torch.where(area > 0, (below + above) / 2, torch.inf)


def _past(now: Tensor, carried: Tensor, known: Tensor, thresholds: int, cell_km: float) -> Float[Tensor, "channel y x"]:
    """Return how far the oldest frame, carried to the issue, is off around each cell, and how much rain has grown."""
    is_, was = now[:thresholds] * known, carried[:thresholds] * known
    fields = torch.cat([(is_ - was).square(), is_, was])[None]
    block = max(1, round(AROUND_KM / 2 / cell_km))
    block = min(block, *now.shape[-2:])
    around = F.avg_pool2d(fields, block, ceil_mode=True)
    around = F.avg_pool2d(F.pad(around, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    around = F.interpolate(around, size=now.shape[-2:], mode="bilinear", align_corners=False)[0]
    error, is_, was = around.view(3, thresholds, *now.shape[-2:])
    # A little of the whole map's, so that where there is hardly any rain the ratio is the map's.
    little = 0.1 * fields[0].mean((-2, -1)).view(3, thresholds, 1, 1) + 1e-5
    error, is_, was = error + little[0], is_ + little[1], was + little[2]
    trend = torch.log(is_ / was).clamp(-MOST_TREND, MOST_TREND)
    return torch.cat([(2 * error / (is_ + was)).clamp(max=2.0), trend])
