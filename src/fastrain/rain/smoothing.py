"""Shares of cells around each cell that reach a threshold, and what they say of the conditional chances, as logits."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fastrain.motion import filter_map

GUESS_SPREAD = (0.25, 1.0)  # km of smoothing for each minute of lead; how rain loses its place (LOG.md)
GUESSES = len(GUESS_SPREAD) + 2  # and two from what the history shows of the rain's fading
BOXES = 3  # means in a row, that make a hill


def exceedance_chance(
    highest: Float[Tensor, "y x"], known: Tensor, thresholds: tuple[float, ...], radius: float
) -> Float[Tensor, "threshold y x"]:
    """Return the share of known cells around each cell that reach each threshold: Lagrangian probability.

    Args:
        highest: mm/h.
        known: where that is known.
        thresholds: mm/h.
        radius: of the neighbourhood, cells; the share of a disc-like weight.
    Source: Germann and Zawadzki (2004), doi:10.1175/1520-0450(2004)043<0074:SDOTPO>2.0.CO;2.
    """
    return share_around(reached_where(highest, known, thresholds), radius)


def reached_where(highest: Tensor, known: Tensor, thresholds: tuple[float, ...]) -> Float[Tensor, "channel y x"]:
    """Return where each threshold is known to be reached, and what is known."""
    seen = known.float()
    return torch.stack([*((highest >= t * (1 - 1e-6)).float() * seen for t in thresholds), seen])


def share_around(reached: Float[Tensor, "channel y x"], radius: float) -> Float[Tensor, "threshold y x"]:
    """Return the share of what is known around each cell that reaches each threshold.

    Args:
        reached: what `reached_where` returns.
        radius: of the neighbourhood, cells.
    """
    edge = hill_edge(radius)
    reached = filter_map(reached, hill_taps(edge), "zeros") if edge > 1 else reached
    return (reached[:-1] / reached[-1].clamp(min=1e-6)).clamp_(0, 1)


def guess_logits(chance: Float[Tensor, "*any threshold guess y x"]) -> Float[Tensor, "*any threshold guess y x"]:
    """Return the logits of the conditional chances that chances say, none of them sure."""
    least, surest = 0.01, math.log(0.99 / 0.01)
    # Of the chance and of what the one below has beyond it, each raised by a little: their ratio's logarithm.
    beyond = torch.cat([1 - chance[..., :1, :, :, :], chance[..., :-1, :, :, :] - chance[..., 1:, :, :, :]], dim=-4)
    # A guess of its own for each threshold may say a higher chance of more: that is as sure as may be.
    ratio = (chance + least).div_(beyond.add_(least).clamp_(min=1e-6))
    return ratio.log_().clamp_(-surest, surest)


@lru_cache(maxsize=64)
def hill_taps(edge: int) -> tuple[float, ...]:
    """Return the weights of as many means over an odd number of cells in a row as make nearly a round hill of a map."""
    taps = np.ones(1)
    for _ in range(BOXES):
        taps = np.convolve(taps, np.full(edge, 1 / edge))
    return tuple(taps.tolist())


def hill_edge(radius: float) -> int:
    """Return over how many cells those means are for a neighbourhood of a radius of some cells; 1 is no smoothing."""
    return 2 * max(1, round(radius / math.sqrt(3))) + 1 if radius >= 0.5 else 1
