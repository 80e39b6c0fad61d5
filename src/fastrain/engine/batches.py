"""Batches of small maps that lie on the device as bytes: drawn, moved, flipped, mixed and normalised there, as tensors.

What a step sees is told by the seed and the step's number, so that a run that was killed goes on the same; where what
is learned is passed over, by what the network made of the samples before too, which a checkpoint keeps. No Python loop
runs over samples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrain.core.shapes import Float, Int, UInt8

Flip = Literal["random", "alternating"]


@dataclass(frozen=True)
class Augmentation:
    """How a map may look beside how it is.

    Attributes:
        flip: left and right, at random, or at random in the first pass and from pass to pass by turns.
        translate: pixels that a map is moved at most, the gap filled by its mirror image.
        cutmix: edge of a square taken from another map of the batch; None leaves it out.
        cutmix_from: share of the run from which squares are mixed.
    """

    flip: Flip | None = "alternating"
    translate: int = 2
    cutmix: int | None = None
    cutmix_from: float = 0.5


@dataclass(frozen=True)
class Skipping:
    """For a part of the run, samples that are learned are passed over.

    Attributes:
        keep: share of the samples that a pass shows then: those whose loss was largest when they were last seen.
        start: share of the run from which passes are such.
        end: share from which passes that begin are of all samples again, so that the last statistics hold for all.
    """

    keep: float
    start: float
    end: float


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        values: normalised maps, channels last in memory.
        labels: their classes.
        chosen: which samples they are.
        others: classes of the maps whose squares were mixed in.
        mixed: share of each map that was.
    """

    values: Float[Tensor, "batch channel y x"]
    labels: Int[Tensor, batch]
    chosen: Int[Tensor, batch]
    others: Int[Tensor, batch] | None = None
    mixed: float = 0.0


class Batches:
    """The batches of a run.

    Args:
        values: (sample, y, x, channel) bytes, on the device that trains.
        labels: the class of each.
        size: samples of a batch; the last, smaller one of an epoch is left out.
        steps: of the run.
        seed: of everything that is drawn.
        augmentation: see there.
        share: of the maps' own edges at a step, for runs that begin small; all if None.
        skipping: of samples that are learned; none is passed over if None.
    """

    def __init__(
        self,
        values: UInt8[Tensor, "sample y x channel"],
        labels: Int[Tensor, sample],
        *,
        size: int,
        steps: int,
        seed: int,
        augmentation: Augmentation,
        share: Callable[[int], float] | None = None,
        skipping: Skipping | None = None,
    ) -> None:
        self.size, self.steps, self.seed, self.augmentation, self.share = size, steps, seed, augmentation, share
        self.values, self.labels, self.skipping = values, labels, skipping
        self.shape = values.shape[1:3]
        self.mean, self.spread = moments(values)
        margin = augmentation.translate
        self._padded = _mirrored(values, margin).contiguous() if margin else values
        self._passes = passes(len(values), size, steps, skipping)
        self._starts = [start for start, _ in self._passes]
        self._order: tuple[int, Tensor] | None = None
        device = values.device
        # Of each sample when it was last seen; what was never seen comes first.
        self._losses = torch.full((len(values),), torch.inf, device=device) if skipping else None
        self._first_flip = torch.rand(len(values), generator=self._generator(-1)).to(device) < 0.5

    def __str__(self) -> str:
        return f"Batches({len(self.values)}, {self.size}, {self.steps}, {self.seed}, {self.skipping})"

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; where samples are passed over, steps have to be asked for in turn."""
        epoch = bisect_right(self._starts, step) - 1  # the pass, rather, where samples are passed over
        place = step - self._starts[epoch]
        chosen = self._permutation(epoch)[place * self.size : (place + 1) * self.size]
        generator = self._generator(step)
        values = self._moved(chosen, generator)
        if self.augmentation.flip == "alternating":
            values = _flipped(values, self._first_flip[chosen] ^ bool(epoch % 2))
        elif self.augmentation.flip == "random":
            values = _flipped(values, (torch.rand(len(chosen), generator=generator) < 0.5).to(values.device))
        x = normalised(values, self.mean, self.spread)  # (batch, channel, y, x)
        if self.share is not None and (share := self.share(step)) < 1:
            x = shrunk(x, (round(share * self.shape[0]), round(share * self.shape[1])))
        labels = self.labels[chosen]
        square = self.augmentation.cutmix
        if square and step >= self.augmentation.cutmix_from * self.steps:
            return self._mixed(x, labels, chosen, square, generator)
        return Batch(x, labels, chosen)

    def alone(self, step: int) -> bool:
        """Tell whether the batch of a step is the same before the step before it was taken.

        Where samples are passed over, the first of a pass hangs on what was seen up to then.
        """
        return self.skipping is None or self._starts[bisect_right(self._starts, step) - 1] != step

    def saw(self, batch: Batch, losses: Float[Tensor, batch]) -> None:
        """Take note of what a network made of a batch, by the loss of each sample."""
        if self._losses is not None:
            self._losses[batch.chosen] = losses.detach().to(self._losses.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: nothing, where a step's number tells all."""
        if self._losses is None:
            return {}
        epoch, order = self._order if self._order is not None else (-1, torch.empty(0, dtype=torch.long))
        return {"losses": self._losses, "pass": epoch, "order": order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        if self._losses is not None:
            self._losses.copy_(state["losses"])
            self._order = (state["pass"], state["order"].to(self._losses.device)) if state["pass"] >= 0 else None

    def _generator(self, step: int) -> torch.Generator:
        # Drawn on the CPU, so that a run is the same on every device; some numbers a step cost nothing.
        return torch.Generator().manual_seed((self.seed * 1_000_003 + step + 1) * 2 + 1)

    def _permutation(self, epoch: int) -> Int[Tensor, sample]:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) * 2)
            shown = self._passes[epoch][1]
            order = torch.randperm(shown, generator=generator).to(self.values.device)
            if self._losses is not None and shown < len(self.values):
                order = self._losses.topk(shown).indices[order]
            self._order = epoch, order
        return self._order[1]

    def _moved(self, chosen: Int[Tensor, batch], generator: torch.Generator) -> UInt8[Tensor, "batch y x channel"]:
        margin = self.augmentation.translate
        if not margin:
            return self._padded[chosen]
        height, width = self.shape
        high, wide, channels = self._padded.shape[1:]
        shift = torch.randint(0, 2 * margin + 1, (2, len(chosen)), generator=generator).to(chosen.device)
        # Of all stretches of bytes as long as a row those that begin where a row of a moved map does.
        length = width * channels
        stretches = self._padded.as_strided((self._padded.numel() - length + 1, length), (1, 1))
        rows = (chosen * high + shift[0])[:, None] + torch.arange(height, device=chosen.device)  # (batch, y)
        begins = (rows * wide + shift[1, :, None]) * channels
        return stretches.index_select(0, begins.flatten()).view(len(chosen), height, width, channels)

    def _mixed(self, x: Tensor, labels: Tensor, chosen: Tensor, square: int, generator: torch.Generator) -> Batch:
        order = torch.randperm(len(x), generator=generator).to(x.device)
        height, width = x.shape[-2:]
        top = torch.randint(0, height - square + 1, (len(x), 1), generator=generator).to(x.device)
        left = torch.randint(0, width - square + 1, (len(x), 1), generator=generator).to(x.device)
        down, along = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        rows, columns = (down >= top) & (down < top + square), (along >= left) & (along < left + square)
        inside = rows[:, None, :, None] & columns[:, None, None, :]  # (batch, 1, y, x)
        mixed = square * square / (height * width)
        return Batch(torch.where(inside, x[order], x), labels, chosen, labels[order], mixed)


def passes(samples: int, size: int, steps: int, skipping: Skipping | None) -> list[tuple[int, int]]:
    """Return the first step of each pass over the samples, and how many of them it shows.

    Args:
        samples: in all.
        size: of a batch; what is left of a pass is not shown.
        steps: of the run.
        skipping: of what is learned, which a pass that begins meanwhile does.
    """
    found, start = [], 0
    while start < steps:
        shown = samples
        if skipping is not None and skipping.start * steps <= start < skipping.end * steps:
            shown = max(min(size, samples), int(skipping.keep * samples))
        found.append((start, shown))
        start += max(1, shown // size)
    return found


def moments(values: UInt8[Tensor, "sample y x channel"]) -> tuple[Float[Tensor, channel], Float[Tensor, channel]]:
    """Return mean and spread of each channel, of values that run from 0 to 1."""
    # Of the bytes' counts: exact, and no copy of all maps as floats.
    bins = torch.arange(256, dtype=torch.float64, device=values.device) / 255
    means, spreads = [], []
    for channel in range(values.shape[-1]):
        share = torch.bincount(values[..., channel].reshape(-1).int(), minlength=256).double()
        share = share / share.sum()
        mean = (share * bins).sum()
        means.append(mean)
        spreads.append((share * (bins - mean) ** 2).sum().sqrt())
    return torch.stack(means).float(), torch.stack(spreads).float().clamp(min=1e-3)


def normalised(
    values: UInt8[Tensor, "batch y x channel"], mean: Float[Tensor, channel], spread: Float[Tensor, channel]
) -> Float[Tensor, "batch channel y x"]:
    """Return maps of mean 0 and spread 1 in each channel, channels last in memory."""
    # In two passes over the numbers, not four; along whole rows, as channels are too few to be computed with together.
    batch, height, width, channels = values.shape
    rows = values.reshape(batch, height, width * channels)
    out = (rows * (1 / (255 * spread)).repeat(width)).sub_((mean / spread).repeat(width))
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


def shrunk(x: Float[Tensor, "batch channel y x"], size: tuple[int, int]) -> Float[Tensor, "batch channel rows columns"]:
    """Return smaller maps, smoothed first so that nothing folds over."""
    small: Tensor = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=torch.channels_last)


def _flipped(values: Tensor, which: Tensor) -> Tensor:
    if values.device.type != "cpu":  # there, to count which would be to wait
        return torch.where(which[:, None, None, None], values.flip(2), values)
    chosen = torch.nonzero(which).flatten()
    return values.index_copy(0, chosen, values[chosen].flip(2))


def _mirrored(values: UInt8[Tensor, "sample y x channel"], margin: int) -> UInt8[Tensor, "sample high wide channel"]:
    """Return maps with a margin that mirrors them."""
    height, width = values.shape[1:3]
    rows, columns = (
        torch.cat([torch.arange(margin, 0, -1), torch.arange(n), torch.arange(n - 2, n - 2 - margin, -1)]).to(
            values.device
        )
        for n in (height, width)
    )
    return values[:, rows][:, :, columns]
