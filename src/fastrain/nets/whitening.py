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

PATCHES = 2**22  # values of patches that are held at once


def whitening_filters(
    covariance: Float[Tensor, "value other"], kernel: int, filters: int, floor: float = 1e-3
) -> Float[Tensor, "filters channel kernel kernel"]:
    """Return the filters that turn patches into uncorrelated values of unit variance.

    Args:
        covariance: of the patches' values; see `moments`.
        kernel: edge k of a patch.
        filters: how many, the directions of most variance first; at most channel·k².
        floor: share of the largest variance that every direction is given at least, so that noise is not blown up.
    """
    variance, direction = torch.linalg.eigh(covariance)
    variance, direction = variance.flip(0)[:filters], direction.flip(1)[:, :filters]
    # The sign of an eigenvector is arbitrary and differs between libraries; its largest entry is made positive.
    largest = direction.gather(0, direction.abs().argmax(dim=0, keepdim=True))
    direction = direction * largest.sign()
    scaled = direction / torch.sqrt(variance.clamp(min=0) + floor * variance[0])
    filters_out: Tensor = scaled.T.reshape(-1, len(covariance) // kernel**2, kernel, kernel).float()
    return filters_out


def moments(
    sample: Float[Tensor, "batch channel y x"], kernel: int
) -> tuple[Float[Tensor, value], Float[Tensor, "value other"]]:
    """Return mean and covariance of a sample's patches, in float64.

    A part of the sample at a time: all patches together are many times the sample.

    Args:
        sample: what comes in, a few million values at most.
        kernel: edge k of a patch.
    """
    at_once = max(1, PATCHES // max(1, sample[0].numel() * kernel * kernel))
    parts = torch.split(sample, at_once)
    count = 0
    total = torch.zeros(sample.shape[1] * kernel * kernel, dtype=torch.float64, device=sample.device)
    for part in parts:
        patches = F.unfold(part.float(), kernel)  # (batch, value, patch)
        count += len(patches) * patches.shape[2]
        total += patches.sum(dim=(0, 2), dtype=torch.float64)
    mean = total / max(1, count)
    products = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=sample.device)
    for part in parts:
        centred = F.unfold(part.float(), kernel).sub_(mean.float()[:, None]).transpose(1, 2).flatten(0, 1)
        products += (centred.T @ centred).double()
    return mean, products / max(1, count - 1)


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
            mean, covariance = moments(sample, self.kernel)
            self.weight.copy_(whitening_filters(covariance, self.kernel, self.filters, floor))
            centre = (self.weight.flatten(1).double() @ mean).float()
            self.bias.copy_(torch.cat([-sign * centre for sign in self.signs]))

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch width rows columns"]:
        """Return the whitened patches and their negatives."""
        weight = torch.cat([sign * self.weight for sign in self.signs])
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)
