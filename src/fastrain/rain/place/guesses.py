"""First guesses at a place: the last frame carried along the motion at the place, and counted around it.

What `fastrain.rain.inputs` does for a whole map, for a few cells only, at a fiftieth of the time: the track that leads
to the place is followed through the flow, the whole of the last frame is shifted along it, and the events near each
cell are summed by two matrix products. Near the place every cell is carried as the place is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from fastrain.motion import estimate_motion
from fastrain.rain.baselines import apart_of, blocked, steadied
from fastrain.rain.radar import Radar, rain_rates
from fastrain.rain.smoothing import hill_edge, hill_taps
from fastrain.samples.frames import Frames
from fastrain.samples.truth import OBSERVED_SHARE

FLOW_KM = 8.0  # blocks on which the motion at a place is sought: a third of the time of 4 km (LOG.md)
AT_ONCE = 16  # windows whose motion is sought together


@dataclass(frozen=True)
class Swept:
    """What passes each cell in one period, if all moves as the place's air does.

    Attributes:
        reached: (y, x) most thresholds that what passes reaches.
        known: (y, x) whether three quarters of what passes was observed.
    """

    reached: Int[ndarray, "y x"]
    known: Bool[ndarray, "y x"]


def tracks(
    frames: Frames, issues: Int[ndarray, issues], radar: Radar, cell: tuple[int, int]
) -> Float[ndarray, "issues steps 2"]:
    """Return how far the air over a cell has travelled 1, 2, … frames after each issue, (dy, dx) in cells.

    As far as the periods reach, and as far back as the history does.

    Args:
        frames: that hold the history.
        issues: slots.
        radar: of the frames.
        cell: row and column.
    """
    out, steps = [], max(radar.layout.ahead, radar.layout.history - 1)
    for at in range(0, len(issues), AT_ONCE):
        wanted = issues[at : at + AT_ONCE, None] - np.array(radar.motion_ages)
        slots, where = np.unique(wanted, return_inverse=True)
        _, mean, observed = rain_rates(frames, frames.rows(slots), radar)
        block = max(1, round(FLOW_KM / radar.cell_km))
        signal, seen = blocked(torch.where(observed, mean, torch.nan), block)
        index = torch.from_numpy(where.reshape(wanted.shape))
        flow = steadied(estimate_motion(signal[index], seen[index]), block * radar.cell_km)
        flow = flow / apart_of(radar.motion_ages)
        out.append(_travelled(flow, cell, steps, block))
    return np.concatenate(out) if out else np.empty((0, steps, 2), np.float32)


def _travelled(flow: Tensor, cell: tuple[int, int], steps: int, block: int) -> ndarray:
    """Follow the track to a cell backwards, as `fastrain.motion.displacements` does for all cells."""
    start = torch.tensor([(cell[0] + 0.5) / block - 0.5, (cell[1] + 0.5) / block - 0.5])
    travelled = torch.zeros(len(flow), 2)
    out = []
    for _ in range(steps):
        near = _at(flow, start - travelled)
        travelled = travelled + _at(flow, start - travelled - 0.5 * near)
        out.append(travelled)
    return (torch.stack(out, dim=1) * block).numpy()


def _at(flow: Float[Tensor, "batch 2 y x"], point: Float[Tensor, "batch 2"]) -> Float[Tensor, "batch 2"]:
    rows, columns = flow.shape[-2:]
    size = torch.tensor([columns, rows])
    grid = (2 * point.flip(-1) + 1) / size - 1  # x first, −1 to 1 between the outer edges
    found = F.grid_sample(flow, grid[:, None, None], padding_mode="border", align_corners=False)
    return found[:, :, 0, 0]


def sweep(
    reached: Int[ndarray, "y x"], observed: Bool[ndarray, "y x"], track: Float[ndarray, "steps 2"], a: int, b: int
) -> Swept:
    """Return what passes each cell from step a + 1 to step b.

    Args:
        reached: thresholds that each cell of the last frame reaches.
        observed: where it is known.
        track: displacement after each step, cells.
        a, b: the period.
    """
    # Where it is not observed nothing is known to be reached.
    reached = np.where(observed, reached, 0).astype(np.int8)
    most, count = np.zeros_like(reached), np.zeros(reached.shape, np.int16)
    for dy, dx in np.rint(track[a:b]).astype(int):
        to, come = _overlap(reached.shape, int(dy), int(dx))
        np.maximum(most[to], reached[come], out=most[to])
        count[to] += observed[come]
    return Swept(most, count >= OBSERVED_SHARE * (b - a))


def _overlap(shape: tuple[int, ...], dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of a map that a shift by (dy, dx) fills, and the part that it is filled from."""
    to = tuple(slice(max(0, d), max(0, size + min(0, d))) for size, d in zip(shape, (dy, dx), strict=True))
    come = tuple(slice(max(0, -d), max(0, size + min(0, -d))) for size, d in zip(shape, (dy, dx), strict=True))
    return (to[0], to[1]), (come[0], come[1])


def chances_around(
    swept: Swept, thresholds: int, radius: float, rows: tuple[int, ...], columns: tuple[int, ...]
) -> Float[ndarray, "threshold rows columns"]:
    """Return the share of known cells around each crossing of rows and columns that reach each threshold.

    The same hill-shaped weights as `fastrain.rain.inputs.exceedance_chance`, cut off at the edge of the map.

    Args:
        swept: what passes.
        thresholds: how many.
        radius: cells.
        rows, columns: of the cells asked for; one beyond the map gets 0.
    """
    seen = swept.known
    fields = np.stack([*((swept.reached > k) & seen for k in range(thresholds)), seen]).astype(np.float32)
    height, width = seen.shape
    sums = _hills(rows, height, radius) @ fields @ _hills(columns, width, radius).T
    return np.asarray(np.clip(sums[:-1] / np.maximum(sums[-1], 1e-6), 0, 1))


@lru_cache(maxsize=512)
def _hills(centres: tuple[int, ...], length: int, radius: float) -> Float[ndarray, "centres length"]:
    """Return the weight of each of a line's cells for each centre."""
    hill = np.array(hill_taps(hill_edge(radius)))
    half = len(hill) // 2
    out = np.zeros((len(centres), length), np.float32)
    for i, centre in enumerate(centres):
        first, last = max(0, centre - half), min(length, centre + half + 1)
        if first < last and 0 <= centre < length:
            out[i, first:last] = hill[first - centre + half : last - centre + half]
    return out
