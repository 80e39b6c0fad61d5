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
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fastrain.rain.fading import carry_to, decibel, doubt_of, seen_to_fade
from fastrain.rain.scales import Band, collapse
from fastrain.samples.layout import middle

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
    told = partial(_told, thresholds=thresholds)
    leads = [middle(period) * minutes for period in periods]
    seen = seen_to_fade(told, rates, observed, travelled, leads, minutes, cell_km)
    past = _past(seen.latest, seen.oldest, seen.known & seen.then, len(thresholds), cell_km)
    rates_alone = [Band(band.value[-1:], band.weight) for band in seen.bands]
    left = (collapse(rates_alone, share[:, -1:])[0] + seen.mean[-1] for share in seen.kept)
    edges, doubts = doubt_of(seen, left, area=seen.mean[:-1])  # means of yes and no: shares of the map that reach each
    speed = float(travelled[0].square().sum(dim=0).sqrt().quantile(0.9))  # cells a frame
    every = max(1, int(STRIDE / max(speed, 1e-6)))
    count, size = len(thresholds), rates.shape[1:]
    chances, pasts = torch.empty(len(periods), count, 2, *size), torch.empty(len(asked), 2 * count, *size)
    for p, (edge, doubt, (a, b)) in enumerate(zip(edges, doubts, periods, strict=True)):
        field = seen.field(p)
        chance = torch.cat([field[:-1].clamp(0, 1), torch.special.ndtr((field[-1] - edge[:, None, None]) / doubt)])
        at = round(middle((a, b)))
        told_there, _ = carry_to(torch.cat([chance, past]) if p in asked else chance, seen.known, travelled[at - 1])
        if p in asked:
            pasts[asked.index(p)] = told_there[2 * count :]
        # Of a period the highest chance that passes a cell.
        highest = told_there[: 2 * count]
        for step in {b, *range(a + 1, b, every)} - {at}:
            passing, _ = carry_to(chance, seen.known, travelled[step - 1])
            highest = torch.maximum(highest, passing)
        chances[p, :, 0], chances[p, :, 1] = highest[:count], highest[count:]
    return Memory(chances, pasts)


def _told(rate: Tensor, thresholds: Sequence[float]) -> Float[Tensor, "channel y x"]:
    """Return where each threshold is reached, and the rates in dB."""
    reached = [(rate >= t * (1 - 1e-6)).float() for t in thresholds]
    return torch.cat([torch.stack(reached), decibel(rate)])


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
