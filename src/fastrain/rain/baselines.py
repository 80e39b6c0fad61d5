"""What a network has to beat: persistence, advection, smoothed advection (Lagrangian probability), climatology."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fastrain.motion import FlowSettings, advect, displacements, estimate_motion, signal_of

MOTION_FRAMES = 3  # the flow's; more reach back to motion that has changed (LOG.md)
MOTION_MINUTES = 7.0  # between them, about: in frames of two minutes rain moves by too little of a cell (LOG.md)
ALIKE, ALIKE_KM = 0.1, 100.0  # share of the map's mean in the motion: of a wide map; a map so wide has half and more
CONTINENT_KM = 1100.0  # wider, the mean says ever less
FLOW_CELL_KM = 4.0  # the flow is sought at about this resolution: finer costs more and is no better (LOG.md)


def advected_rates(
    rain_rate: Float[Tensor, "time y x"],
    steps: int,
    *,
    cell_km: float,
    minutes: float,
    settings: FlowSettings | None = None,
) -> Float[Tensor, "steps y x"]:
    """Return the last frame advected by 1, 2, … frames, in mm/h; NaN where nothing is known.

    Args:
        rain_rate: two or more successive frames, mm/h, NaN where not observed.
        steps: how many frames ahead.
        cell_km: edge of a cell, km.
        minutes: between frames.
        settings: of the flow.
    """
    observed = torch.isfinite(rain_rate)
    ages = motion_ages(len(rain_rate), minutes)
    flow = motion_of(rain_rate[[-1 - age for age in ages]], cell_km=cell_km, settings=settings) / apart_of(ages)
    factor = rain_rate.shape[-1] / flow.shape[-1]
    last = torch.where(observed[-1], rain_rate[-1], 0.0)[None, None]
    out = []
    for displacement in displacements(flow[None], steps)[0]:
        fine = (
            F.interpolate(displacement[None], size=rain_rate.shape[-2:], mode="bilinear", align_corners=False) * factor
        )
        field, known = advect(last, observed[-1][None, None], fine)
        out.append(torch.where(known, field, torch.nan)[0, 0])
    return torch.stack(out)


def motion_of(
    rain_rate: Float[Tensor, "time y x"], *, cell_km: float, settings: FlowSettings | None = None
) -> Float[Tensor, "2 rows columns"]:
    """Return the motion of the rain on blocks of about 4 km, (dy, dx) in blocks per frame."""
    block = max(1, round(FLOW_CELL_KM / cell_km))
    signal, seen = blocked(rain_rate, block)
    return steadied(estimate_motion(signal[None], seen[None], settings), block * cell_km)[0]


def motion_ages(history: int, minutes: float) -> tuple[int, ...]:
    """Return how old the frames are that motion is sought in, in frames, the oldest first; they lie evenly.

    Args:
        history: frames that there are, the latest included; two or more.
        minutes: between them.
    """
    count = min(MOTION_FRAMES, history)
    apart = max(1, min(round(MOTION_MINUTES / minutes), (history - 1) // (count - 1)))
    return tuple(apart * age for age in reversed(range(count)))


def apart_of(ages: tuple[int, ...]) -> int:
    """Return how many frames the ones of `motion_ages` lie apart: what a motion between them is of."""
    return ages[0] - ages[1]


def steadied(flow: Float[Tensor, "batch 2 y x"], cell_km: float) -> Float[Tensor, "batch 2 y x"]:
    """Return a flow drawn towards its mean over the map, the more the smaller the map is.

    What differs from place to place is partly noise, and on a small map mostly: the weather that moves it is wider than
    the map (LOG.md).

    Args:
        flow: in cells per frame.
        cell_km: edge of one of those cells.
    """
    extent = cell_km * math.sqrt(flow.shape[-2] * flow.shape[-1])
    wide = ALIKE * min(1.0, (CONTINENT_KM / extent) ** 2)
    share = wide + (1 - ALIKE) / (1 + (extent / ALIKE_KM) ** 2)
    return torch.lerp(flow, flow.mean(dim=(-2, -1), keepdim=True), share)


def blocked(
    rain_rate: Float[Tensor, "time y x"], block: int
) -> tuple[Float[Tensor, "time rows columns"], Bool[Tensor, "time rows columns"]]:
    """Return the mean signal of square blocks, and where at least half of one is observed.

    Args:
        rain_rate: mm/h, NaN where not observed.
        block: edge, cells.
    """
    observed = torch.isfinite(rain_rate)
    signal = torch.where(observed, signal_of(torch.nan_to_num(rain_rate)), 0.0)
    if block == 1:
        return signal, observed
    weight = F.avg_pool2d(observed.float()[None], block, ceil_mode=True)
    signal = F.avg_pool2d(signal[None], block, ceil_mode=True) / weight.clamp(min=1e-6)
    return signal[0], weight[0] >= 0.5
