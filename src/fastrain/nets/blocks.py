"""The block that networks are built of: two 3×3 convolutions, batch norm, GELU, squeeze-and-excite, a way around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.nets.squeeze_excite import SqueezeExcite


class ConvNorm(nn.Module):
    """3×3 convolution and batch norm; the norm's own bias makes the convolution's needless."""

    def __init__(self, channels_in: int, channels_out: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="zeros", bias=False)
        self.norm = nn.BatchNorm2d(channels_out, momentum=momentum)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out y x"]:
        """Return the normalised convolution."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    def folded(
        self, x: Float[Tensor, "batch channel y x"], scale: Tensor | float = 1.0, shift: Tensor | float = 0.0
    ) -> Tensor:
        """Return the normalised convolution, scaled and shifted by channel: one convolution, once training is over.

        Args:
            x: maps.
            scale, shift: of what comes out, (out,) or one number for all.
        """
        norm = self.norm
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
        bias = (norm.bias - norm.running_mean * factor) * scale + shift  # type: ignore[operator]
        return F.conv2d(x, self.conv.weight * (factor * scale)[:, None, None, None], bias, padding=1)


class Block(nn.Module):
    """Two convolutions with a way around, shifted and scaled by what is known of the whole map.

    Args:
        channels_in: that come in.
        channels: that go out.
        conditions: numbers known of each map (lead, cell size …).
        compression: of squeeze-and-excite; None leaves it out.
    """

    def __init__(self, channels_in: int, channels: int, conditions: int, compression: int | None = 16) -> None:
        super().__init__()
        self.first = ConvNorm(channels_in, channels)
        self.second = ConvNorm(channels, channels)
        self.around = nn.Conv2d(channels_in, channels, 1, bias=False) if channels_in != channels else nn.Identity()
        self.condition = nn.Linear(conditions, 2 * channels)
        self.excite = SqueezeExcite(channels, compression) if compression else nn.Identity()
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)
        nn.init.constant_(self.second.norm.weight, 0.5)

    def forward(
        self, x: Float[Tensor, "batch channel y x"], known: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch out y x"]:
        """Return the block's map."""
        scale, shift = self.condition(known)[:, :, None, None].chunk(2, dim=1)  # (batch, channel, 1, 1) each
        if not self.training and len(x) == 1:
            return self._of_one_map(x, 1 + scale.flatten(), shift.flatten())
        inner = F.gelu(self.first(x) * (1 + scale) + shift)
        return F.gelu(self.around(x) + self.excite(self.second(inner)))

    def _of_one_map(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the same in fewer passes over the map, which a third of a forecast's time went into."""
        inner = F.gelu(self.first.folded(x, scale, shift))
        return F.gelu(self.around(x) + self.excite(self.second.folded(inner)))
