"""How the rain of a window was seen to fade, scale by scale, and what will be left of it.

Rain rates in dB that fade so, with the doubt of what has faded, are STEPS with no end of members. For a map see
`fastrain.rain.memory`; here also what a place takes of it, where all air moves as that over the place does.

Source: Bowler, Pierce and Seed (2006), doi:10.1256/qj.04.100 (STEPS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from fastrain.motion import advect
from fastrain.rain.scales import FADING, Band, bands_of, collapse, lives_of, mean_square
from fastrain.samples.layout import middle

FLOOR = 0.03  # mm/h, what dry cells are in dB: STEPS' own −15 dB
DOUBT = 0.5  # dB, at least
BINS = 128  # of the field's values, for its area above a threshold
HALVINGS = 24


@dataclass(frozen=True)
class Fading:
    """How the fields of a window were seen to fade, scale by scale.

    Attributes:
        latest: (channel, y, x), the last one rain rates in dB.
        oldest: the oldest frame's, carried to the issue.
        known: where the latest is, (y, x).
        then: where the oldest is.
        bands: of the latest.
        mean: (channel) of the latest.
        kept: (period, scale, channel) share of each scale that will be left.
    """

    latest: Tensor
    oldest: Tensor
    known: Tensor
    then: Tensor
    bands: list[Band]
    mean: Tensor
    kept: Tensor

    def field(self, period: int) -> Float[Tensor, "channel y x"]:
        """Return what will be left of the latest."""
        return collapse(self.bands, self.kept[period]) + self.mean[:, None, None]


@dataclass(frozen=True)
class Faded:
    """Rain rates as they will have faded by each period, where they were seen at issue.

    Attributes:
        decibel: (period, y, x).
        known: (y, x) where they were seen.
        edges: (period, threshold) dB that, with its doubt, are taken for each threshold.
        doubts: (period) dB, standard deviation.
    """

    decibel: Float[Tensor, "period y x"]
    known: Bool[Tensor, "y x"]
    edges: Float[Tensor, "period threshold"]
    doubts: Float[Tensor, period]

    def chances(
        self, period: int, track: Float[Tensor, "steps 2"], rows: Sequence[int], columns: Sequence[int]
    ) -> Float[Tensor, "threshold rows columns"]:
        """Return the highest chance that passes each crossing of rows and columns, if all air moves alike.

        Args:
            period: which.
            track: how far the air has travelled by each frame of it, cells.
            rows, columns: of the cells.
        """
        y = torch.tensor(rows, dtype=torch.float32) - track[:, :1]  # (steps, rows)
        x = torch.tensor(columns, dtype=torch.float32) - track[:, 1:]
        height, width = self.known.shape
        y, x = (2 * y + 1) / height - 1, (2 * x + 1) / width - 1  # −1 to 1 between the outer edges
        size = (len(track), len(rows), len(columns))
        grid = torch.stack([x[:, None].expand(size), y[:, :, None].expand(size)], dim=-1)
        seen = self.known.float()
        fields = torch.stack([self.decibel[period] * seen, seen])[None].expand(len(track), -1, -1, -1)
        found, there = F.grid_sample(fields, grid, align_corners=False).unbind(dim=1)
        highest = torch.where(there >= 0.5, found / there.clamp(min=1e-6), -torch.inf).amax(dim=0)
        edges, doubt = self.edges[period], self.doubts[period]
        chance: Tensor = torch.special.ndtr((highest - edges[:, None, None]) / doubt)
        return chance


def faded(
    rates: Float[Tensor, "age y x"],
    observed: Bool[Tensor, "age y x"],
    track: Float[Tensor, "steps 2"],
    periods: Sequence[tuple[int, int]],
    thresholds: Sequence[float],
    *,
    minutes: float,
    cell_km: float,
) -> Faded:
    """Return what the second of the guesses of `remember` is made of, if all air moves as that of one place does.

    Args:
        rates: of which the chances speak, mm/h, the latest first.
        observed: where they are.
        track: how far the air has travelled in 1, 2, … frames, cells.
        periods: frames after the issue, (start, end].
        thresholds: mm/h.
        minutes: between frames.
        cell_km: edge of a cell.
    """
    travelled = track[:, :, None, None].expand(-1, -1, *rates.shape[1:])
    leads = [middle(period) * minutes for period in periods]
    seen = seen_to_fade(decibel, rates, observed, travelled, leads, minutes, cell_km)
    reached = [(rates[0] >= t * (1 - 1e-6))[observed[0]].float().sum() for t in thresholds]
    left = torch.stack([seen.field(p)[-1] for p in range(len(periods))])
    edges, doubts = doubt_of(seen, left, area=torch.stack(reached) / observed[0].sum().clamp(min=1))
    return Faded(left, observed[0], edges, doubts)


def seen_to_fade(
    told: Callable[[Tensor], Tensor],
    rates: Tensor,
    observed: Tensor,
    travelled: Tensor,
    leads: Sequence[float],
    minutes: float,
    cell_km: float,
) -> Fading:
    """Return how what is told of the rates was seen to fade, and what will be left after some minutes of lead."""
    ages = sorted({max(1, (len(rates) - 1) // 2), len(rates) - 1})
    fields, known = [told(rates[0])], [observed[0]]
    for age in ages:
        carried, seen = carry_to(told(rates[age]), observed[age], travelled[age - 1])
        fields.append(carried)
        known.append(seen)
    now, *before = [bands_of(field, seen) for field, seen in zip(fields, known, strict=True)]
    lives = lives_of(now, before, [age * minutes for age in ages], cell_km)
    mean = (fields[0] * known[0]).sum(dim=(-2, -1)) / known[0].sum().clamp(min=1)  # (channel,)
    kept = torch.exp(-((torch.tensor(leads)[:, None, None] / lives) ** FADING))  # (period, scale, channel)
    return Fading(fields[0], fields[-1], known[0], known[-1], now, mean, kept)


def doubt_of(
    seen: Fading, left: Iterable[Float[Tensor, "y x"]], area: Float[Tensor, threshold]
) -> tuple[Float[Tensor, "period threshold"], Float[Tensor, period]]:
    """Return above which dB, under its doubt, what is left in each period has the area of now; and that doubt, dB."""
    spread = torch.stack([mean_square(band) for band in seen.bands])  # (scale, channel)
    doubts = ((1 - seen.kept[..., -1] ** 2) * spread[:, -1]).sum(dim=1).sqrt().clamp(min=DOUBT)  # (period,)
    values = [_histogram(field[seen.known]) for field in left]
    return _edges(torch.stack([v for v, _ in values]), torch.stack([n for _, n in values]), area, doubts), doubts


def decibel(rate: Float[Tensor, "y x"]) -> Float[Tensor, "1 y x"]:
    """Return rain rates, mm/h, in dB."""
    return 10 * torch.log10(rate.clamp(min=FLOOR))[None]


def carry_to(
    field: Float[Tensor, "channel y x"], known: Bool[Tensor, "y x"], displacement: Float[Tensor, "2 y x"]
) -> tuple[Float[Tensor, "channel y x"], Bool[Tensor, "y x"]]:
    """Return fields carried by a displacement, 0 where that is not known, and where it is."""
    carried, there = advect(field[None], known[None, None], displacement[None])
    return torch.where(there, carried, 0.0)[0], there[0, 0]


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
