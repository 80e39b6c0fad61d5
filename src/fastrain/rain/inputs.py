"""What the network sees of a window: where the rain was, and where it is heading.

History as it was and history advected to each period, so that motion is given and only growth, decay and doubt are
learned, with the age of the older frames and how far inside of what is observed the latest was seen; first guesses from
smoothed advection and from how this rain was seen to fade, as logits; and what is known of the map: lead, period,
cadence, cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from fastrain.motion import advect, displacements
from fastrain.motion.advect import sample
from fastrain.rain.baselines import apart_of, motion_of
from fastrain.rain.between import Between, asked_of
from fastrain.rain.memory import Memory, remember
from fastrain.rain.radar import AGES, Radar, rain_rates
from fastrain.rain.smoothing import GUESS_SPREAD, GUESSES, guess_logits, reached_where, share_around
from fastrain.samples.frames import Frames
from fastrain.samples.layout import FrameLayout, middle
from fastrain.samples.truth import observed_now

FAR_KM = 100.0  # from the edge of what is observed: farther is as good as far
CONDITIONS = 6


def channels_of(thresholds: int) -> int:
    """Return the channels of the network's input for a number of thresholds."""
    # The history where it was and carried; five of what is known of a cell; how old the older frames are, and how far
    # inside the latest was seen; guesses, and what the past says of each threshold.
    return 4 * AGES + 5 + AGES + (GUESSES + 2) * thresholds


@dataclass(frozen=True)
class Inputs:
    """One window's inputs, float16.

    Attributes:
        x: (period, channel, y, x), of the periods that the network is asked about.
        guess: (period, threshold, guess, y, x) logits of the conditional chances.
        known: (period, condition).
        between: what carries to the periods that the network is not asked about; None where it is asked about all.
    """

    x: Tensor
    guess: Tensor
    known: Tensor
    between: Between | None = None

    @property
    def asked(self) -> tuple[int, ...]:
        """Periods that the network is asked about, which `x` is of."""
        return tuple(range(len(self.known))) if self.between is None else self.between.asked

    @property
    def bytes(self) -> int:
        """Memory they take."""
        return sum(t.numel() * t.element_size() for t in (self.x, self.guess, self.known))


@dataclass(frozen=True)
class Moved:
    """The last frame carried into each period, and how far it had to travel.

    Attributes:
        highest: (period, y, x) mm/h, the highest rate that passes a cell during the period.
        known: (period, y, x) whether what passes was observed.
        travelled: (steps, 2, y, x) displacement after each step, cells.
    """

    highest: Tensor
    known: Tensor
    travelled: Tensor


def move(frames: Frames, issue: int, radar: Radar) -> Moved:
    """Return the last frame of the window issued at a slot, carried along; only frames up to the issue are touched."""
    rows = frames.rows(issue - np.array(radar.motion_ages))
    highest, mean, observed = rain_rates(frames, rows, radar)
    return _moved(highest, mean, observed, _flow(mean, observed, radar), radar)


def _flow(mean: Tensor, observed: Tensor, radar: Radar) -> Float[Tensor, "2 y x"]:
    """Return the motion, cells a frame, from the frames of `motion_ages`."""
    return _motion(mean, observed, radar.cell_km) / apart_of(radar.motion_ages)


def _moved(highest: Tensor, mean: Tensor, observed: Tensor, flow: Tensor, radar: Radar) -> Moved:
    steps = max(radar.layout.ahead + max(radar.ages), radar.layout.history - 1)
    travelled = displacements(flow[None], steps)[0]
    # What is asked for is what is carried: a block's maximum says little of when its mean is reached.
    return carry(radar.spoken(highest, mean)[-1], observed[-1], travelled, radar.layout)


def make_inputs(frames: Frames, issue: int, radar: Radar, *, every: bool = True) -> tuple[Inputs, Moved]:
    """Return what the network sees of the window issued at a slot, and the last frame carried along.

    Only frames up to and with the issue are touched.

    Args:
        frames: that hold the history.
        issue: slot.
        radar: see there.
        every: of every period, as training wants it; else of those that a forecast asks the network about.
    """
    layout = radar.layout
    shown = frames.rows(np.arange(issue - layout.history + 1, issue + 1))
    highest, mean, observed = rain_rates(frames, shown, radar)
    recent = [-1 - age for age in radar.motion_ages]
    moved = _moved(highest, mean, observed, _flow(mean[recent], observed[recent], radar), radar)
    travelled = moved.travelled
    periods = len(layout.periods)
    asked = tuple(range(periods)) if every else asked_of(layout.periods, radar.minutes)
    memory = _memory(radar.spoken(highest, mean), observed, travelled, radar, asked)
    fast = (travelled[0].square().sum(dim=0).sqrt() * radar.cell_km / radar.minutes).clamp(max=3)  # km per minute
    (rows, columns), count = highest.shape[-2:], len(radar.thresholds)
    # Each period is made to its end, in half precision: all of them together would be the most that memory ever holds.
    x = torch.empty((len(asked), channels_of(count), rows, columns), dtype=torch.half)
    guess = torch.empty((periods, count, GUESSES, rows, columns), dtype=torch.half)
    still, inside = _still(highest, mean, observed, radar), edge_distance(observed[-1], radar.cell_km)
    for p in range(periods):
        chance = torch.cat([smoothed_chances(moved, radar, p), memory.chances[p]], dim=1)
        guess[p] = guess_logits(chance)
        if p not in asked:
            continue
        row, at = asked.index(p), 0
        carried, quality = _carried(highest, mean, observed, moved, inside, p, radar)
        seen = torch.stack([signal(moved.highest[p]), observed[-1].float(), moved.known[p].float(), fast, inside])
        for part in (still, carried, seen, quality, chance.flatten(0, 1), memory.past[row]):
            x[row, at : at + len(part)] = part
            at += len(part)
    known = torch.tensor([conditions(a, b, radar) for a, b in layout.periods])
    middles = tuple(middle(period) for period in layout.periods)
    between = Between(asked, middles, travelled[0]) if len(asked) < periods else None
    return Inputs(x, guess, known, between), moved


def carry(highest: Tensor, observed: Tensor, travelled: Tensor, layout: FrameLayout) -> Moved:
    """Return the last frame carried along its motion into each period."""
    fields, knowns = [], []
    for a, b in layout.periods:
        steps = travelled[a:b]  # the displacements of steps a + 1 … b
        n = len(steps)
        field, known = advect(highest.expand(n, 1, -1, -1), observed.expand(n, 1, -1, -1), steps)
        fields.append(torch.where(known, field, 0.0).amax(dim=0)[0])
        knowns.append(known.float().mean(dim=0)[0] >= 0.75)
    return Moved(torch.stack(fields), torch.stack(knowns), travelled)


def passing(moved: Moved, radar: Radar) -> Bool[ndarray, "period threshold y x"]:
    """Return where what passes in each period reaches each threshold, by the carried frame alone."""
    least = np.array(radar.thresholds)[None, :, None, None] * (1 - 1e-6)
    return np.asarray(moved.highest.numpy()[:, None] >= least)


def within_reach(frames: Frames, issue: int, moved: Moved) -> Bool[ndarray, "period y x"]:
    """Return where the radar sees the cell at issue and what advection carries there is known."""
    return np.asarray(observed_now(frames, issue) & moved.known.numpy())


def smoothed_chances(moved: Moved, radar: Radar, period: int) -> Float[Tensor, "threshold guess y x"]:
    """Return the Lagrangian probabilities of a period, by two widths of smoothing."""
    lead = middle(radar.layout.periods[period]) * radar.minutes
    reached = reached_where(moved.highest[period], moved.known[period], radar.thresholds)
    return torch.stack([share_around(reached, spread * lead / radar.cell_km) for spread in GUESS_SPREAD], dim=1)


def signal(rain_rate: Tensor) -> Tensor:
    """Return rain rates as the network sees them: about 0 to 2, even steps for even ratios."""
    return torch.log10(1 + rain_rate / 0.1) / 2


def _motion(mean: Tensor, observed: Tensor, cell_km: float) -> Tensor:
    """Return the motion on the blocks themselves, (2, y, x) cells per frame."""
    flow = motion_of(torch.where(observed, mean, torch.nan), cell_km=cell_km)
    if flow.shape[-2:] == mean.shape[-2:]:
        return flow
    factor = mean.shape[-1] / flow.shape[-1]
    return F.interpolate(flow[None], size=mean.shape[-2:], mode="bilinear", align_corners=False)[0] * factor


def _still(highest: Tensor, mean: Tensor, observed: Tensor, radar: Radar) -> Float[Tensor, "channel y x"]:
    """Return the history where it was."""
    shown = -1 - torch.tensor(radar.ages)
    return (torch.stack([signal(highest[shown]), signal(mean[shown])], dim=1) * observed[shown][:, None]).flatten(0, 1)


def edge_distance(observed: Bool[Tensor, "y x"], cell_km: float) -> Float[Tensor, "y x"]:
    """Return how far each cell lies from the nearest one that is not observed, those beyond the map's edge included.

    Args:
        observed: which cells are.
        cell_km: edge of a cell.

    Returns:
        The distance of their middles as a share of FAR_KM, at most 1; 0 where nothing is observed.
    """
    from scipy.ndimage import distance_transform_edt  # takes its time to load

    far = distance_transform_edt(np.pad(observed.numpy(), 1))[1:-1, 1:-1] * (cell_km / FAR_KM)
    return torch.from_numpy(np.minimum(far, 1.0).astype(np.float32))


def _carried(
    highest: Tensor, mean: Tensor, observed: Tensor, moved: Moved, inside: Tensor, period: int, radar: Radar
) -> tuple[Tensor, Tensor]:
    """Return the history where it is in the middle of a period, and how good it is there.

    How good: hours since each older frame, 1 where it is not known; how far inside of what was observed the latest one
    was seen.
    """
    at = round(middle(radar.layout.periods[period]))
    ages = torch.tensor(radar.ages)
    shown = -1 - ages
    both = torch.stack([highest[shown], mean[shown]], dim=1)  # (age, 2, y, x)
    # A frame of some age has to travel that much longer to reach the period.
    carried, known = advect(both, observed[shown][:, None], moved.travelled[at + ages - 1])
    hours = (ages[1:] * radar.minutes / 60).view(-1, 1, 1).clamp(max=1)
    older = torch.where(known[1:, 0], hours, 1.0)
    source = sample(inside[None, None], -moved.travelled[at - 1][None])[0]  # beyond the map 0, as at its edge
    return signal(torch.where(known, carried, 0.0)).flatten(0, 1), torch.cat([older, source])


def _memory(spoken: Tensor, observed: Tensor, travelled: Tensor, radar: Radar, asked: tuple[int, ...]) -> Memory:
    return remember(
        spoken.flip(0),
        observed.flip(0),
        travelled,
        radar.layout.periods,
        radar.thresholds,
        minutes=radar.minutes,
        cell_km=radar.cell_km,
        asked=asked,
    )


def conditions(a: int, b: int, radar: Radar) -> list[float]:
    """Return what is known of a map of the period (a, b], in frames: numbers about −1 to 1."""
    lead = middle((a, b)) * radar.minutes
    length = (b - a) * radar.minutes
    return [
        math.log2(lead / 30) / 3,
        math.log2(length / 10) / 3,
        math.log2(radar.minutes / 5) / 2,
        math.log2(radar.cell_km / 4) / 2,
        lead / 60 - 0.5,
        1.0 if radar.truth == "mean" else 0.0,
    ]
