"""Ways to cut a radar's pictures into blocks, and the windows that a network sees of them.

The truth is that of cells as wide as the least common multiple of all coarsenesses tried: the highest of its blocks'
maxima, which is the same whatever the blocks. So what differs between two variants is only what the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int8, UInt8
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.rain.inputs import Moved, channels_of, make_inputs, smoothed_chances
from fastrain.rain.radar import AGES, Radar, rain_rates
from fastrain.rain.smoothing import guess_logits
from fastrain.samples.frames import Frames, load_frames, window_slots
from fastrain.samples.layout import FrameLayout, Layout
from fastrain.samples.split import evenly
from fastrain.samples.truth import observed_now, outcomes

Sees = Literal["maximum", "mean", "both"]
SEES: tuple[Sees, ...] = ("maximum", "mean", "both")


@dataclass(frozen=True)
class Variant:
    """What a network sees.

    Attributes:
        coarseness: of the blocks.
        sees: of a block its maximum, its mean, or both; the same thing at coarseness 1.
        excite: whether the network has squeeze-and-excite layers.
    """

    coarseness: int
    sees: Sees
    excite: bool

    @property
    def values(self) -> int:
        """Told of each block."""
        return 2 if self.sees == "both" and self.coarseness > 1 else 1

    @property
    def name(self) -> str:
        """As it is told in tables."""
        seen = "the pixels" if self.coarseness == 1 else "maximum and mean" if self.sees == "both" else self.sees
        return f"{self.coarseness}×{self.coarseness}, {seen}{', squeeze-and-excite' if self.excite else ''}"


@dataclass(frozen=True)
class Scale:
    """How large an ablation is, the same for all its variants.

    Attributes:
        cell: edge of the cells judged, pixels: a multiple of every coarseness.
        width: of the network.
        steps: of its training.
        train, calibrate, test: windows at most, evenly spaced.
        periods: of each window at most, evenly spaced.
        edge: of the middle of the map that is looked at, in cells, at most.
        crop: edge of what a map of a step shows, in cells.
        thresholds: mm/h.
        seed: of everything that is drawn.
    """

    cell: int = 12
    width: int = 16
    steps: int = 300
    train: int = 64
    calibrate: int = 16
    test: int = 48
    periods: int = 3
    edge: int = 40
    crop: int = 16
    thresholds: tuple[float, ...] = (0.1, 1.0, 5.0)
    seed: int = 0


@dataclass(frozen=True)
class Window:
    """One window: inputs of the cut, guesses and truth of the cells.

    Attributes:
        x: (period, channel, y, x).
        guess: (period, threshold, guess, row, column).
        known: (period, condition).
        outcome: (period, row, column) thresholds reached, −1 where not judged.
    """

    x: Tensor
    guess: Tensor
    known: Tensor
    outcome: Int8[ndarray, "period row column"]


def thresholds_of(archive: Archive, scale: Scale) -> tuple[float, ...]:
    """Return the thresholds, mm/h, that an archive's levels tell apart."""
    return tuple(sorted({archive.schema.table.nearest_edge(t) for t in scale.thresholds}))


def radar_of(archive: Archive, layout: Layout, variant: Variant, scale: Scale) -> Radar:
    """Return what inputs are made from, with some of the periods only."""
    frames = layout.frames(archive.schema.axis.cadence)
    periods = tuple(frames.periods[i] for i in evenly(np.arange(len(frames.periods)), scale.periods))
    thresholds = thresholds_of(archive, scale)
    return Radar.of(archive.schema, variant.coarseness, thresholds, FrameLayout(frames.history, periods, frames.guard))


def shown(variant: Variant, thresholds: int) -> list[int]:
    """Return which channels of `make_inputs` are shown: of blocks that say one value only, each once."""
    pairs = 4 * AGES  # maximum and mean, of the frames as they were and carried along
    every = range(channels_of(thresholds))
    return [i for i in every if i >= pairs or i % 2 == 0 or variant.values == 2]


def window_of(archive: Archive, issue: int, radar: Radar, variant: Variant, scale: Scale) -> Window:
    """Return one window, of the middle of the map."""
    c, block = variant.coarseness, scale.cell // variant.coarseness
    slots = window_slots(np.array([issue]), radar.layout)
    frames = load_frames(archive, c, slots, memory=2**62)
    box = tuple(middle_of(size, scale) for size in archive.schema.grid.shape)
    rows, columns = (slice(s.start // c, s.stop // c) for s in box)
    frames = frames.cut((rows, columns))
    truth = blocked_frames(frames, block)
    outcome = outcomes(truth, issue, radar.layout, radar.first_levels)
    inputs, moved = make_inputs(seen_frames(frames, radar, variant.sees), issue, radar)
    highest = F.max_pool2d(moved.highest, block)
    known = F.avg_pool2d(moved.known.float(), block) >= 0.75
    coarse = replace(radar, cell_km=radar.cell_km * block)
    carried = Moved(highest, known, moved.travelled)
    guess = torch.stack([guess_logits(smoothed_chances(carried, coarse, p)) for p in range(len(highest))])
    # Not where advection reaches: that hangs on the cut a little, and all are to be judged on the same cells.
    outcome = np.where(observed_now(truth, issue), outcome, -1).astype(np.int8)
    return Window(inputs.x[:, shown(variant, len(radar.thresholds))], guess.half(), inputs.known, outcome)


def seen_frames(frames: Frames, radar: Radar, sees: Sees) -> Frames:
    """Return frames whose blocks say one value only, if the network is to see but one."""
    if sees == "both":
        return frames
    full = np.full_like(frames.ratio, 255)
    if sees == "maximum":
        return replace(frames, ratio=full)
    _, mean, observed = (t.numpy() for t in rain_rates(frames, np.arange(len(frames.slots)), radar))
    level = radar.table.encode(np.where(observed, mean, np.nan).astype(float))
    return replace(frames, maximum=level, ratio=full)


def blocked_frames(frames: Frames, block: int) -> Frames:
    """Return frames of blocks of blocks, for their truth: of maxima the highest, of observed pixels the sum."""

    def grouped(field: ndarray) -> ndarray:
        *time, y, x = field.shape
        return field.reshape(*time, y // block, block, x // block, block)

    level = np.where(frames.maximum == 255, 0, frames.maximum)
    highest = grouped(level).max(axis=(-3, -1))
    # As shares of 255, so that a byte holds them.
    pixels = grouped(frames.pixels).sum(axis=(-3, -1))
    share = grouped(frames.observed.astype(np.int64)).sum(axis=(-3, -1)) / pixels
    observed: UInt8[ndarray, "time y x"] = np.floor(share * 255 + 1e-9).astype(np.uint8)
    ratio = np.zeros_like(observed)
    return Frames(frames.slots, highest.astype(np.uint8), ratio, observed, np.full(pixels.shape, 255))


def middle_of(size: int, scale: Scale) -> slice:
    """Return the pixels of a map's middle, a whole number of cells, beginning at a whole cell."""
    cells = min(size // scale.cell, scale.edge)
    if cells < 2:
        raise TooShort(f"A picture of {size} pixels has no room for cells of {scale.cell}; ablate fewer coarsenesses.")
    first = (size // scale.cell - cells) // 2
    return slice(first * scale.cell, (first + cells) * scale.cell)
