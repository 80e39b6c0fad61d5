"""A first convolution whose frozen weights whiten the patches of whatever comes in: k×k, as a rule without padding.

Patches of neighbouring values say nearly the same thing many times over; turned into uncorrelated numbers of unit
variance they train much faster. 2×2 instead of 3×3 costs 44 % of it and shrinks the map by one row and column.

Source: Page (2019), "How to train your ResNet", part 8; hlb-CIFAR10 (2023) for 2×2 without padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float


def whitening_filters(
    sample: Float[Tensor, "batch channel y x"], kernel: int, filters: int, floor: float = 1e-3
) -> Float[Tensor, "filters channel kernel kernel"]:
    """Return the filters that turn a sample's patches into uncorrelated values of unit variance.

    Args:
        sample: what comes in, a few million values at most.
        kernel: edge k of a patch.
        filters: how many, the directions of most variance first; at most channel·k².
        floor: share of the largest variance that every direction is given at least, so that noise is not blown up.
    """
    channels = sample.shape[1]
    patches = F.unfold(sample.float(), kernel).transpose(1, 2).reshape(-1, channels * kernel * kernel)
    centred = patches - patches.mean(dim=0)
    covariance = (centred.T @ centred) / max(1, len(centred) - 1)
    variance, direction = torch.linalg.eigh(covariance.double())
    variance, direction = variance.flip(0)[:filters], direction.flip(1)[:, :filters]
    # The sign of an eigenvector is arbitrary and differs between libraries; its largest entry is made positive.
    largest = direction.gather(0, direction.abs().argmax(dim=0, keepdim=True))
    direction = direction * largest.sign()
    scaled = direction / torch.sqrt(variance.clamp(min=0) + floor * variance[0])
    filters_out: Tensor = scaled.T.reshape(-1, channels, kernel, kernel).float()
    return filters_out


class Whitening(nn.Module):
    """k×k convolution, whitening filters and their negatives, frozen but for the bias.

    Args:
        channels: that come in.
        filters: at most; there are channel·k² directions.
        kernel: edge k of a patch.
        stride: of the patches.
        padding: around the map; 0 as the second work has it.
        both_signs: give each filter's negative too, so that an activation loses neither half.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int = 2,
        stride: int = 1,
        padding: int = 0,
        *,
        both_signs: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.filters = min(filters, channels * kernel * kernel)
        self.register_buffer("weight", torch.zeros(self.filters, channels, kernel, kernel))
        self.signs = (1.0, -1.0) if both_signs else (1.0,)
        self.bias = nn.Parameter(torch.zeros(len(self.signs) * self.filters))
        self.weight: Tensor

    @property
    def width(self) -> int:
        """Number of channels that come out."""
        return len(self.signs) * self.filters

    def fit(self, sample: Float[Tensor, "batch channel y x"], floor: float = 1e-3) -> None:
        """Set the filters, and the bias that centres what comes out, from a sample of what will come in."""
        with torch.no_grad():
            self.weight.copy_(whitening_filters(sample, self.kernel, self.filters, floor))
            mean = F.conv2d(sample.float(), self.weight).mean(dim=(0, 2, 3))
            self.bias.copy_(torch.cat([-sign * mean for sign in self.signs]))

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch width rows columns"]:
        """Return the whitened patches and their negatives."""
        weight = torch.cat([sign * self.weight for sign in self.signs])
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)
