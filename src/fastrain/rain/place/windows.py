"""Windows of a place: first guesses, motion and truth of a few cells, from a stretch of frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from numpy import ndarray
from torch import Tensor

from fastrain.rain.fading import Faded, faded
from fastrain.rain.hindcast import reached_now
from fastrain.rain.inputs import conditions
from fastrain.rain.place.guesses import Swept, chances_around, sweep, tracks
from fastrain.rain.radar import Radar, happened, rain_rates
from fastrain.rain.smoothing import GUESS_SPREAD, guess_logits
from fastrain.samples.frames import Frames
from fastrain.samples.layout import middle
from fastrain.samples.truth import observed_now

FAST = 60.0  # km/h that the network sees as 1
GUESSES = len(GUESS_SPREAD) + 1  # of smoothed advection, and one from how this rain was seen to fade
# Around the place and the way of its air, where rain is seen to fade: whole continents would only take time.
FADING_KM, FADING_CELLS = 240.0, 96


@dataclass(frozen=True)
class Lead:
    """What of the last frame passes the cells in each period of one window.

    Attributes:
        swept: of each period.
        leads: minutes from issue to the middle of each.
        faded: the last frame as it will have faded by each, around the place and the way of its air.
        corner: row and column of the first cell of that.
        tracks: of each, how far the air over the place has travelled by each of its frames, cells.
    """

    swept: tuple[Swept, ...]
    leads: tuple[float, ...]
    faded: Faded
    corner: tuple[int, int]
    tracks: tuple[Float[Tensor, "frames 2"], ...]

    def chances(
        self, spread: float, radar: Radar, rows: tuple[int, ...], columns: tuple[int, ...]
    ) -> Float[ndarray, "period threshold rows columns"]:
        """Return the shares of what passes around the crossings of rows and columns, km a minute of lead around."""
        count = len(radar.thresholds)
        return np.stack(
            [
                chances_around(swept, count, spread * lead / radar.cell_km, rows, columns)
                for swept, lead in zip(self.swept, self.leads, strict=True)
            ]
        )

    def faded_chances(
        self, rows: tuple[int, ...], columns: tuple[int, ...]
    ) -> Float[ndarray, "period threshold rows columns"]:
        """Return the chances at the crossings of rows and columns by how this rain was seen to fade."""
        at = [[cell - first for cell in cells] for cells, first in zip((rows, columns), self.corner, strict=True)]
        return np.stack([self.faded.chances(p, track, *at).numpy() for p, track in enumerate(self.tracks)])


def leads_of(radar: Radar) -> tuple[float, ...]:
    """Return the minutes from issue to the middle of each period."""
    return tuple(middle(period) * radar.minutes for period in radar.layout.periods)


def known_of(radar: Radar) -> Tensor:
    """Return the conditions of each period, (period, condition)."""
    return torch.tensor([conditions(a, b, radar) for a, b in radar.layout.periods])


def carried(
    frames: Frames, issues: Int[ndarray, issues], radar: Radar, cell: tuple[int, int]
) -> Iterator[tuple[Lead, Float[ndarray, 2]]]:
    """Yield for each issue time what passes in each period, and the motion at the place, (dy, dx) of FAST km/h."""
    leads, periods = leads_of(radar), radar.layout.periods
    moved = tracks(frames, issues, radar, cell)
    for issue, track in zip(issues, moved, strict=True):
        reached = reached_now(frames, int(issue), radar).sum(axis=0)
        last = int(frames.rows(np.array([issue]))[0])
        observed = frames.maximum[last] != 255
        swept = tuple(sweep(reached, observed, track, a, b) for a, b in periods)
        path = torch.from_numpy(track)
        box = _box(cell, track, observed.shape, radar.cell_km)
        near = frames.cut(box, slice(last + 1 - radar.layout.history, last + 1))
        highest, mean, seen = rain_rates(near, np.arange(radar.layout.history)[::-1], radar)  # the latest first
        rates = radar.spoken(highest, mean)
        left = faded(rates, seen, path, periods, radar.thresholds, minutes=radar.minutes, cell_km=radar.cell_km)
        corner = box[0].start, box[1].start
        motion = track[0] * radar.cell_km / (radar.minutes / 60) / FAST
        yield Lead(swept, leads, left, corner, tuple(path[a:b] for a, b in periods)), motion.astype(np.float32)


def _box(
    cell: tuple[int, int], track: Float[ndarray, "steps 2"], shape: tuple[int, ...], cell_km: float
) -> tuple[slice, slice]:
    """Return the rows and columns around a cell and the way of its air; at least one of each lies on the map."""
    reach = min(math.ceil(FADING_KM / cell_km), FADING_CELLS)
    out = []
    for at, away, size in zip(cell, track.T, shape, strict=True):
        first, last = math.floor(at - max(0, away.max())) - reach, math.ceil(at - min(0, away.min())) + reach
        start = min(max(0, first), size - 1)
        out.append(slice(start, max(start + 1, min(size, last + 1))))
    return out[0], out[1]


def guesses_at(
    lead: Lead, radar: Radar, cells: Int[ndarray, "place 2"]
) -> Float[ndarray, "place period threshold guess"]:
    """Return first guesses at some cells, logits of conditional chances; the cells are crossings of a lattice."""
    rows, columns = (tuple(int(v) for v in np.unique(cells[:, i])) for i in range(2))
    smoothed = [lead.chances(spread, radar, rows, columns) for spread in GUESS_SPREAD]
    chance = np.stack([*smoothed, lead.faded_chances(rows, columns)], axis=2)
    logits = guess_logits(torch.from_numpy(chance)).numpy()  # (period, threshold, guess, rows, columns)
    at = np.searchsorted(rows, cells[:, 0]), np.searchsorted(columns, cells[:, 1])
    return np.moveaxis(logits[..., at[0], at[1]], -1, 0)


def at_cells(frames: Frames, cells: Int[ndarray, "place 2"]) -> Frames:
    """Return the frames of some cells alone, as maps of one column; a cell beyond the map was never observed."""
    rows, columns = frames.pixels.shape
    y, x = cells.T
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    y, x = np.where(inside, y, 0), np.where(inside, x, 0)
    out = inside[:, None]
    return replace(
        frames,
        maximum=np.where(out, frames.maximum[:, y, x, None], 255).astype(np.uint8),
        ratio=np.where(out, frames.ratio[:, y, x, None], 0).astype(np.uint8),
        observed=np.where(out, frames.observed[:, y, x, None], 0).astype(np.uint8),
        pixels=frames.pixels[y, x, None],
    )


def outcomes_at(there: Frames, issues: Int[ndarray, issues], radar: Radar) -> Int8[ndarray, "issues place period"]:
    """Return how many thresholds each cell reached in each period, −1 without truth; `there` is of `at_cells`."""
    found = [happened(there, int(issue), radar)[:, :, 0].T for issue in issues]
    return np.stack(found) if found else np.empty((0, there.maximum.shape[1], len(radar.layout.periods)), np.int8)


def seen_at_issue(there: Frames, issues: Int[ndarray, issues]) -> Bool[ndarray, "issues place"]:
    """Return where the radar sees the cells at issue: elsewhere no chance is given."""
    return np.stack([observed_now(there, int(issue))[:, 0] for issue in issues])
