"""The block that networks are built of: two 3×3 convolutions, batch norm, GELU, squeeze-and-excite, a way around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrain.core.shapes import Float
from fastrain.nets.filtering import convolved
from fastrain.nets.norm_gelu import gelu as in_one_pass
from fastrain.nets.plain import worth_it
from fastrain.nets.squeeze_excite import SqueezeExcite


class ConvNorm(nn.Module):
    """3×3 convolution and batch norm; the norm's own bias makes the convolution's needless."""

    def __init__(self, channels_in: int, channels_out: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="zeros", bias=False)
        self.norm = nn.BatchNorm2d(channels_out, momentum=momentum)

    def forward(self, x: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch out y x"]:
        """Return the normalised convolution."""
        return self.norm(convolved(x, self.conv.weight, training=self.training))  # type: ignore[no-any-return]

    def folded(self, scale: Tensor | float = 1.0, shift: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the one convolution that this is, once training is over.

        Args:
            scale, shift: of what comes out, (out,) or one number for all.
        """
        norm = self.norm
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator, arg-type]
        bias = (norm.bias - norm.running_mean * factor) * scale + shift  # type: ignore[operator]
        return self.conv.weight * (factor * scale)[:, None, None, None], bias


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
        if not self.training and len(x) == 1:
            weight, bias = self._first(known)
            return self._bent(self.around(x), convolved(x, weight, bias, training=False))
        scale, shift = self._known(known)
        inner = gelu(self.first(x) * (1 + scale) + shift, training=self.training)
        return gelu(self.around(x) + self.excite(self.second(inner)), training=self.training)

    def joined(
        self,
        fine: Float[Tensor, "batch channel y x"],
        coarse: Float[Tensor, "batch more rows columns"],
        known: Float[Tensor, "batch conditions"],
    ) -> Float[Tensor, "batch out y x"]:
        """Return the block's map of fine maps with coarse ones, of half their rows and columns, behind them."""
        if self.training or len(fine) > 1 or torch.is_grad_enabled() or not isinstance(self.around, nn.Conv2d):
            return self(torch.cat([fine, enlarged(coarse, fine)], dim=1), known)  # type: ignore[no-any-return]
        # What follows adds in place, which has no gradient.
        weight, bias = self._first(known)
        around, count = self.around.weight, fine.shape[1]
        inner = convolved(fine, weight[:, :count], bias, training=False)
        add_convolved(inner, coarse, weight[:, count:])
        beside = F.conv2d(fine, around[:, :count])
        beside += enlarged(F.conv2d(coarse, around[:, count:]), fine)
        return self._bent(beside, inner)

    def _known(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return by what the first map is scaled, beside 1, and shifted: (batch, channel, 1, 1) each."""
        scale, shift = self.condition(known)[:, :, None, None].chunk(2, dim=1)
        return scale, shift

    def _first(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the first convolution of one map, its norm and what is known folded into it."""
        scale, shift = self._known(known)
        return self.first.folded(1 + scale.flatten(), shift.flatten())

    def _bent(self, around: Tensor, inner: Tensor) -> Tensor:
        """Return the map in fewer passes over it, which a third of a forecast's time went into."""
        weight, bias = self.second.folded()
        inner = convolved(gelu(inner, training=False), weight, bias, training=False)
        return gelu(around + self.excite(inner), training=False)


def gelu(x: Float[Tensor, "batch channel y x"], *, training: bool) -> Float[Tensor, "batch channel y x"]:
    """Return the GELU of maps; in one pass where that is worth it, see `worth_it`."""
    return in_one_pass(x, training=training) if worth_it(training, x.dtype) else F.gelu(x)


def enlarged(coarse: Tensor, like: Tensor) -> Tensor:
    """Return coarse maps as large as finer ones, each cell twice as high and wide."""
    return F.interpolate(coarse, size=like.shape[-2:], mode="nearest")


def add_convolved(
    into: Float[Tensor, "1 out y x"], coarse: Float[Tensor, "1 channel rows columns"], weight: Tensor
) -> None:
    """Add to a map the 3×3 convolution of an enlarged coarse one, from the coarse one itself: in 4/9 of the work.

    Of the nine cells under the filter two rows, and two columns, are of one coarse cell: which, depends on whether the
    row and the column are even. So there are four filters of 2×2.

    Args:
        into: is added to.
        coarse: of half its rows and columns, rounded up.
        weight: (out, channel, 3, 3).
    """
    out = len(weight)
    above, middle, below = weight.unbind(dim=2)
    by_row = [torch.stack(rows, dim=2) for rows in ((above, middle + below), (above + middle, below))]
    filters = []
    for rows in by_row:
        left, centre, right = rows.unbind(dim=3)
        filters += [torch.stack(pair, dim=3) for pair in ((left, centre + right), (left + centre, right))]
    found = F.conv2d(coarse, torch.cat(filters), padding=1)  # (1, even and odd rows · columns · out, rows + 1, …)
    height, width = into.shape[-2:]
    dealt = torch.empty_like(into)  # adding to every other cell of a map takes seven times as long
    for i in range(4):
        dy, dx = divmod(i, 2)
        mine = dealt[:, :, dy::2, dx::2]
        mine.copy_(found[:, i * out : (i + 1) * out, dy : dy + mine.shape[2], dx : dx + mine.shape[3]])
    into += dealt
    # Of an odd last row, the enlarged map's next one is beyond the edge and was counted all the same; so of a column.
    if height % 2:
        beyond = coarse[:, :, -1:].repeat_interleave(2, dim=3)
        into[:, :, -1:] -= F.conv2d(beyond, weight[:, :, 2:], padding=(0, 1))[..., :width]
    if width % 2:
        beyond = coarse[:, :, :, -1:].repeat_interleave(2, dim=2)[:, :, :height]
        into[:, :, :, -1:] -= F.conv2d(beyond, weight[:, :, :, 2:], padding=(1, 0))
