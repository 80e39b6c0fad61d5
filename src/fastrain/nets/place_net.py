"""The network of one place: a few small maps around it in, chances for every period and threshold at once out.

A whitened 2×2 stem without padding, three blocks with squeeze-and-excite, each on half as wide a map, and two dense
layers. As in the rain network, a straight line through first guesses stands beside what is learned, and at the start
is all there is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.nets.blocks import Block
from fastrain.nets.straight_line import straight_line
from fastrain.nets.whitening import Whitening

MOTION = 2  # numbers: how the air over the place moves


class PlaceNet(nn.Module):
    """Logits of the conditional chances of one place.

    Args:
        channels: of the input.
        edge: of the input's maps, blocks.
        periods: how many.
        thresholds: how many.
        guesses: how many first guesses, as logits, come for each period and threshold.
        conditions: numbers known of each period.
        width: of the widest map; the one dial of its size.
        compression: of squeeze-and-excite; None leaves it out.
        dropout: share of the last map's values that a step of training goes without: windows are few and much alike.
    """

    def __init__(
        self,
        channels: int,
        *,
        edge: int,
        periods: int,
        thresholds: int,
        guesses: int,
        conditions: int,
        width: int = 32,
        compression: int | None = 16,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.periods, self.thresholds, self.guesses = periods, thresholds, guesses
        self.stem = Whitening(channels, width)
        self.fine = Block(self.stem.width, width, MOTION, compression)
        self.middle = Block(width, 2 * width, MOTION, compression)
        self.coarse = Block(2 * width, 4 * width, MOTION, compression)
        left = (edge - 1) // 2 // 2 // 2
        self.drop = nn.Dropout(dropout)
        self.dense = nn.Linear(4 * width * left * left, 4 * width)
        self.head = nn.Linear(4 * width, periods * thresholds)
        self.straight = straight_line(conditions, thresholds, guesses)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Float[Tensor, "batch channel y x"],
        guess: Float[Tensor, "batch period threshold guess"],
        known: Float[Tensor, "period condition"],
        motion: Float[Tensor, "batch 2"],
    ) -> Float[Tensor, "batch period threshold"]:
        """Return the logits.

        Args:
            x: maps.
            guess: first guesses, as logits.
            known: conditions of each period, about −1 to 1.
            motion: of the air over the place, about −1 to 1.
        """
        straight, learned = self.parts(x, guess, known, motion)
        return straight + learned

    def parts(
        self,
        x: Float[Tensor, "batch channel y x"],
        guess: Float[Tensor, "batch period threshold guess"],
        known: Float[Tensor, "period condition"],
        motion: Float[Tensor, "batch 2"],
    ) -> tuple[Float[Tensor, "batch period threshold"], Float[Tensor, "batch period threshold"]]:
        """Return the two summands of the logits: the straight line through the guesses, and what is learned."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.gelu(self.stem(x)), 2)  # the whitened map is the largest: it shrinks before anything else
        x = F.max_pool2d(self.fine(x, motion), 2)
        x = self.coarse(F.max_pool2d(self.middle(x, motion), 2), motion)  # (batch, 4·width, 3, 3)
        learned = self.head(F.gelu(self.dense(self.drop(x.flatten(1))))).view(-1, self.periods, self.thresholds)
        line = self.straight(known).view(self.periods, self.thresholds, self.guesses + 1)
        straight = torch.einsum("ptg,bptg->bpt", line[..., :-1].float(), guess.float())
        return straight + line[..., -1].float(), learned.float()

    def shrink(self, share: float) -> None:
        """Keep a share of what was learned; 0 leaves the straight line alone."""
        with torch.no_grad():
            self.head.weight.mul_(share)
            self.head.bias.mul_(share)
