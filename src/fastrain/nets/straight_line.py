"""The straight line through first guesses, which stands beside what a network learns and begins as their mean."""

from __future__ import annotations

import torch
from torch import nn


def straight_line(conditions: int, thresholds: int, guesses: int) -> nn.Linear:
    """Return what gives the weight of each guess and an offset, by threshold, from what is known of a map.

    Args:
        conditions: numbers known.
        thresholds: how many.
        guesses: of each.
    """
    line = nn.Linear(conditions, thresholds * (guesses + 1))
    start = torch.zeros(thresholds, guesses + 1)
    start[:, :guesses] = 1.0 / guesses
    with torch.no_grad():
        line.weight.zero_()
        line.bias.copy_(start.flatten())
    return line
