"""Chances held near the area of rain that is on its way: how much there is now tells how much there will be.

A network that never saw a radar may say of a whole map that twice as much of it will reach a threshold as does: most
often a high one, which few cells of few storms have taught it. What advection carries knows no chance of a cell, but it
does know how much there is. So the logits of each threshold are shifted, the same over all the map, until the mean
chance lies between the network's own and the carried share; the later, the nearer to the latter, for the network is
right about the first minutes, and errors of area grow as it is asked for more (LOG.md). Where hardly any of the map is
wet, what there is says little of what will come, and chances stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from fastrain.rain.inputs import Moved, passing, within_reach
from fastrain.rain.radar import Radar
from fastrain.samples.frames import Frames
from fastrain.samples.layout import middle

HALFWAY = 60.0  # minutes of lead after which both say as much
MOST = 0.75  # that what is carried says
LEAST_SHARE = 1e-4  # of the cells: added to both shares, as neither is ever quite nothing
HALF_TRUSTED = 0.01  # of the cells that are wet, by what is carried, where it is believed half as much
FEWEST = 100  # cells that a share is of
LONGEST = 2.0  # of a shift
STEPS = 8  # of Newton's method


@dataclass(frozen=True)
class Carried:
    """What advection carries into each period.

    Attributes:
        cells: where that is known and the radar sees the cell at issue.
        share: of those cells, that it reaches each threshold in.
    """

    cells: Bool[ndarray, "period y x"]
    share: Float[ndarray, "period threshold"]

    @classmethod
    def of(cls, frames: Frames, issue: int, moved: Moved, radar: Radar) -> Carried:
        """Return it of the window issued at a slot."""
        cells = within_reach(frames, issue, moved)
        reached = passing(moved, radar) & cells[:, None]
        count = np.maximum(1, cells.sum(axis=(1, 2)))
        return cls(cells, reached.sum(axis=(2, 3)) / count[:, None])


def shifts(
    logits: Float[ndarray, "period threshold y x"], carried: Carried, radar: Radar
) -> Float[ndarray, "period threshold"]:
    """Return what to add to the logits of the conditional chances, so that areas are held.

    Args:
        logits: as the network says them.
        carried: see there.
        radar: that they are of.
    """
    found = np.zeros(logits.shape[:2])
    for p, period in enumerate(radar.layout.periods):
        cells = torch.from_numpy(carried.cells[p])
        if int(cells.sum()) < FEWEST:
            continue
        wet = float(carried.share[p, 0])
        trust = min(MOST, middle(period) * radar.minutes / (2 * HALFWAY)) * wet / (wet + HALF_TRUSTED)
        below = torch.ones(int(cells.sum()))
        for k, share in enumerate(carried.share[p]):
            z = torch.from_numpy(logits[p, k])[cells].float()
            said = float((below * torch.sigmoid(z)).mean())
            wanted = (said + LEAST_SHARE) ** (1 - trust) * (float(share) + LEAST_SHARE) ** trust - LEAST_SHARE
            found[p, k] = _shift(z, below, wanted)
            below = below * torch.sigmoid(z + found[p, k])
    return found


def _shift(z: torch.Tensor, below: torch.Tensor, wanted: float) -> float:
    """Return what to add to logits for their chances, times those of the threshold below, to have a mean.

    Newton's method on the mean's logarithm, which bends little; a shift is never longer than `LONGEST`.
    """
    shift = 0.0
    goal = np.log(max(wanted, 1e-12))
    for _ in range(STEPS):
        chance = torch.sigmoid(z + shift)
        mean = max(1e-12, float((below * chance).mean()))
        slope = max(1e-3, float((below * chance * (1 - chance)).mean()) / mean)
        step = (goal - np.log(mean)) / slope
        shift = float(np.clip(shift + np.clip(step, -1, 1), -LONGEST, LONGEST))
        if abs(step) < 1e-4:
            break
    return shift
