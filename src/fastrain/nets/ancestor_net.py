"""The ancestor's network (2019, Keras), as it stood: a module for each part of the radar, an LSTM, dense layers.

Source: ../shared/PEERS.md, "The ancestor's network, as it stood when its first run died of memory".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float

MODULE_OUT = 5
MEMORY = 6  # nodes of the LSTM
DENSE = 200


class AncestorNet(nn.Module):
    """Logits of reaching each threshold in each period, each for itself.

    Args:
        modules: of each kind of module, how many share its network, how many values each sees, and its nodes.
        periods: how many.
        thresholds: how many.
    """

    def __init__(self, modules: Sequence[tuple[int, int, int]], *, periods: int, thresholds: int) -> None:
        super().__init__()
        self.sizes = [(count, values) for count, values, _ in modules]
        self.periods, self.thresholds = periods, thresholds
        self.first = nn.ModuleList(nn.Linear(values, nodes) for _, values, nodes in modules)
        self.second = nn.ModuleList(nn.Linear(nodes, MODULE_OUT) for _, _, nodes in modules)
        joined = MODULE_OUT * sum(count for count, _ in self.sizes)
        self.memory = nn.LSTM(joined, MEMORY, batch_first=True)
        self.dense = nn.Linear(MEMORY, DENSE)
        self.head = nn.Linear(DENSE, periods * thresholds)
        for layer in (*self.first, *self.second, self.dense, self.head):
            # As Keras begins: Glorot's uniform weights, no bias.
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Float[Tensor, "batch age value"]) -> Float[Tensor, "batch period threshold"]:
        """Return the logits.

        Args:
            x: numbers of the blocks of each frame, the oldest first, module by module.
        """
        frames = x.flatten(0, 1)
        said = []
        at = 0
        for (count, values), first, second in zip(self.sizes, self.first, self.second, strict=True):
            seen = frames[:, at : at + count * values].view(len(frames), count, values)
            at += count * values
            said.append(F.relu(second(F.relu(first(seen)))).flatten(1))
        joined = torch.cat(said, dim=1).view(*x.shape[:2], -1)
        remembered = self.memory(joined)[0][:, -1]
        out: Tensor = self.head(F.relu(self.dense(remembered)))
        return out.view(-1, self.periods, self.thresholds)

    def parts(self, x: Float[Tensor, "batch age value"], *_: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of conditional chances that say the same, as far as chances fall, and zeros beside them.

        The ancestor's chances of rain and of heavy rain did not know of each other: the heavier is held under the
        lighter.
        """
        chance = self.forward(x).float().double().sigmoid().cummin(dim=-1).values
        below = torch.cat([torch.ones_like(chance[..., :1]), chance[..., :-1]], dim=-1)
        conditional = (chance / below).clamp(1e-6, 1 - 1e-6)
        logits = conditional.logit().float()
        return logits, torch.zeros_like(logits)

    def shrink(self, share: float) -> None:
        """Keep all: there is nothing beside the one summand."""
