"""Periods that a network is not asked about: what it learned of those around is carried there along the motion.

What a network adds to its first guesses changes little within a quarter of an hour, but it moves with the rain. So of
many short periods it is asked about one every quarter of an hour; the first guesses are of every period all the same.
For 18 periods of five minutes that is seven in place of eighteen, and scores no worse (LOG.md).
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fastrain.motion.advect import sample
from fastrain.samples.layout import middle

FARTHEST = 15.0  # minutes between the middles of periods that a network is asked about


@dataclass(frozen=True)
class Between:
    """Which periods are asked about, and what carries from them to the others.

    Attributes:
        asked: periods, rising, the first and the last of all among them.
        middles: of all periods, frames after the issue.
        motion: (dy, dx) in cells a frame.
    """

    asked: tuple[int, ...]
    middles: tuple[float, ...]
    motion: Float[Tensor, "2 y x"]

    def all_of(self, learned: Float[Tensor, "asked channel y x"]) -> Float[Tensor, "period channel y x"]:
        """Return what was learned of every period from that of those asked about, in turn."""
        out = torch.empty((len(self.middles), *learned.shape[1:]))
        for p, at in enumerate(self.middles):
            after = bisect(self.asked, p)
            before = after - 1
            if self.asked[before] == p:
                out[p] = learned[before]
                continue
            first, last = (self.middles[self.asked[i]] for i in (before, after))
            share = (at - first) / (last - first)
            # Both at once: from the one on with the motion, from the other back against it.
            shift = torch.stack([(first - at) * self.motion, (last - at) * self.motion])
            sides = sample(learned[before : after + 1], shift, outside="border")
            torch.lerp(sides[0], sides[1], share, out=out[p])
        return out


def asked_of(periods: Sequence[tuple[int, int]], minutes: float) -> tuple[int, ...]:
    """Return which periods a network is asked about: of those of one length, one every quarter of an hour.

    Args:
        periods: frames after the issue, (start, end], rising.
        minutes: between frames.
    """
    last = len(periods) - 1
    lengths = [b - a for a, b in periods]
    middles = [middle(period) * minutes for period in periods]
    asked = [0]
    while asked[-1] < last:
        here = at = asked[-1]
        while at < last and lengths[at + 1] == lengths[here] and middles[at + 1] - middles[here] <= FARTHEST + 1e-6:
            at += 1
        asked.append(max(at, here + 1))
    return tuple(asked)
