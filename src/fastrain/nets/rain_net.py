"""The rain network: fully convolutional, so that every cell of every window teaches.

A whitened 2×2 stem without padding, a small U of blocks over three scales, and a 2×2 head that gives back the row and
column the stem took. One output for each threshold: the logit of reaching it, given that the one below was reached.
To what the network says is added a straight line through first guesses; at the start it is that alone, so that the
network learns only what the guesses do not say.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.nets.blocks import Block, gelu
from fastrain.nets.plain import forecasting
from fastrain.nets.straight_line import straight_line
from fastrain.nets.whitening import Whitening


class RainNet(nn.Module):
    """Logits of the conditional chances of each cell.

    Args:
        channels: of the input.
        guesses: how many first guesses, as logits, come for each threshold.
        thresholds: how many.
        conditions: numbers known of each map.
        width: of the finest scale; the one dial of its size.
        compression: of squeeze-and-excite; None leaves it out.
        block: edge, in cells of the input, of the cells that chances are for; the guesses are of those.
    """

    def __init__(
        self,
        channels: int,
        *,
        guesses: int,
        thresholds: int,
        conditions: int,
        width: int = 32,
        compression: int | None = 16,
        block: int = 1,
    ) -> None:
        super().__init__()
        self.thresholds, self.guesses, self.block = thresholds, guesses, block
        self.stem = Whitening(channels, width)
        self.fine = Block(self.stem.width, width, conditions, compression)
        self.middle = Block(width, 2 * width, conditions, compression)
        self.coarse = Block(2 * width, 2 * width, conditions, compression)
        self.middle_up = Block(4 * width, 2 * width, conditions, compression)
        self.fine_up = Block(3 * width, width, conditions, compression)
        self.head = nn.Conv2d(width, thresholds, 2, padding=1) if block == 1 else nn.Conv2d(width, thresholds, 1)
        self.straight = straight_line(conditions, thresholds, guesses)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third less time in bf16 on a CPU

    def forward(
        self,
        x: Float[Tensor, "batch channel y x"],
        guess: Float[Tensor, "batch threshold guess rows columns"],
        known: Float[Tensor, "batch conditions"],
    ) -> Float[Tensor, "batch threshold rows columns"]:
        """Return the logits.

        Args:
            x: inputs.
            guess: first guesses of each threshold, as logits.
            known: conditions of each map, about −1 to 1.
        """
        straight, learned = self.parts(x, guess, known)
        return straight + learned

    def parts(
        self,
        x: Float[Tensor, "batch channel y x"],
        guess: Float[Tensor, "batch threshold guess rows columns"],
        known: Float[Tensor, "batch conditions"],
    ) -> tuple[Float[Tensor, "batch threshold rows columns"], Float[Tensor, "batch threshold rows columns"]]:
        """Return the two summands of the logits: the straight line through the guesses, and what is learned."""
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # before it is laid anew: half as many bytes
        with forecasting(len(x) * x.shape[2] * x.shape[3]):
            fine = self._finest(x.contiguous(memory_format=torch.channels_last), known)
        if self.block > 1:
            # The row and column that the stem took come back as copies; a block is what its most telling cell is.
            fine = F.max_pool2d(F.pad(fine, (0, 1, 0, 1), mode="replicate"), self.block)
        learned = self.head(fine)  # (batch, threshold, y, x): the head's padding gives back what the stem took
        return self.line(guess, known), learned.float()

    def line(
        self, guess: Float[Tensor, "batch threshold guess rows columns"], known: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch threshold rows columns"]:
        """Return the first summand of the logits alone: the straight line through the guesses."""
        line: Tensor = self.straight(known).view(len(known), self.thresholds, self.guesses + 1)
        straight = torch.einsum("btg,btgyx->btyx", line[:, :, :-1].float(), guess.float())
        return straight + line[:, :, -1, None, None].float()

    def _finest(self, x: Tensor, known: Tensor) -> Tensor:
        """Return the map of the finest scale that chances are read off."""
        fine = self.fine(gelu(self.stem(x), training=self.training), known)
        middle = self.middle(_down(fine), known)
        coarse = self.coarse(_down(middle), known)
        middle = self.middle_up.joined(middle, coarse, known)
        return self.fine_up.joined(fine, middle, known)

    def shrink(self, share: float) -> None:
        """Keep a share of what was learned; 0 leaves the straight line alone."""
        with torch.no_grad():
            self.head.weight.mul_(share)
            self.head.bias.mul_(share)  # type: ignore[union-attr]


def _down(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True)
