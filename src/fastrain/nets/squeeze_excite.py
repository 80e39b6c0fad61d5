"""Squeeze-and-excite: every channel is weighed by what the whole map shows; a cheap layer that wins accuracy back.

Source: Hu, Shen and Sun (2018), doi:10.1109/CVPR.2018.00745; hlb-CIFAR10 (2023) for the compression of 16.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float


class SqueezeExcite(nn.Module):
    """Gate each channel by two small layers on the channels' means.

    Args:
        channels: of the map.
        compression: width of the layer between; delicate, says its author: 16.
    """

    def __init__(self, channels: int, compression: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, compression, 1)
        self.excite = nn.Conv2d(compression, channels, 1)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Return the map with its channels weighed."""
        return x * self.gate(x)

    def gate(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel 1 1"]:
        """Return the weight of each channel, 0 to 1."""
        context = x.mean((-2, -1), keepdim=True)  # (batch, channel, 1, 1)
        gate: Tensor = self.excite(F.relu(self.squeeze(context))).sigmoid()
        return gate
