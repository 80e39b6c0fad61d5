"""One cut of the radar's pictures, tried: a network trained and judged on them, at the same cells whatever the cut.

The truth is that of cells as wide as the least common multiple of all coarsenesses tried: the highest of its blocks'
maxima, which is the same whatever the blocks. So what differs between two variants is only what the network sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int, Int8, UInt8
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import TooBig, TooShort
from fastrain.core.memory import available_bytes, keep_all_memory, peak_bytes
from fastrain.engine.ablation import ratios
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import Batch, turn
from fastrain.rain.inputs import (
    AGES,
    CONDITIONS,
    GUESS_SPREAD,
    Inputs,
    Moved,
    Radar,
    channels_of,
    first_guesses,
    make_inputs,
    rain_rates,
)
from fastrain.rain.run import predict_parts
from fastrain.rain.settle import settle
from fastrain.rain.straight import fit_straight
from fastrain.rain.train import loss_of
from fastrain.samples.frames import Frames, load_frames, window_slots
from fastrain.samples.layout import LONG, FrameLayout
from fastrain.samples.split import Split, evenly, sharing, split_archive
from fastrain.samples.truth import observed_now, outcomes

Sees = Literal["maximum", "mean", "both"]
SEES: tuple[Sees, ...] = ("maximum", "mean", "both")
CELLS_KEPT = 2048  # of each map, that the straight line is fitted to
COMPRESSION = 16
BATCH = 4  # maps of a step
TIMED = 5  # steps of the base whose median tells what an epoch takes


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


def measure(path: Path, variant: Variant, scale: Scale) -> dict[str, Any]:
    """Train and judge one variant, in a process of its own, whose memory it then tells.

    Returns:
        Sums of squared errors of each test window (window, period, threshold) of the network and of the straight line,
        with the counts; processor seconds of a window's inputs; memory at the peak.
    """
    keep_all_memory()
    archive = Archive.open(path)
    split = split_archive(archive)
    radar = radar_of(archive, split, variant, scale)
    before = peak_bytes()
    _fits(archive, split, radar, variant, scale)
    spent = time.process_time()
    windows = {
        name: [window_of(archive, int(i), radar, variant, scale) for i in evenly(split.issues[name], most)]
        for name, most in (("train", scale.train), ("calibrate", scale.calibrate), ("test", scale.test))
    }
    seconds_a_window = (time.process_time() - spent) / sum(map(len, windows.values()))
    torch.manual_seed(scale.seed)
    network = network_of(variant, scale, radar)
    network.stem.fit(torch.cat([w.x[:1, :, :256, :256].float() for w in windows["train"][::8]]))
    fit_straight(network, *_scattered(windows["train"], scale))
    draw = Drawn(windows["train"], variant, scale)
    steering = adamw(network, scale.steps, learning_rate=3e-3)
    average = Average(network, max(20, scale.steps // 8))
    fitted = cast(RainNet, fit(network, draw.batch, loss_of, steering, FitSettings(scale.steps, 1.0), average=average))
    parts = {name: [predict_parts_of(fitted, w) for w in windows[name]] for name in ("calibrate", "test")}
    a, b = split.blocks["calibrate"]
    long = (b - a) * timedelta(minutes=radar.minutes) >= LONG
    share, calibration = settle(parts["calibrate"], [w.outcome for w in windows["calibrate"]], long=long)
    squared, cells, events = [], [], []
    for (straight, learned), window in zip(parts["test"], windows["test"], strict=True):
        judged = (window.outcome >= 0)[:, None]
        event = window.outcome[:, None] > np.arange(len(radar.thresholds))[None, :, None, None]
        chance = calibration.chances(straight + share * learned)
        squared.append((((chance - event) ** 2) * judged).sum(axis=(2, 3)))
        cells.append((judged & np.ones_like(event)).sum(axis=(2, 3)))
        events.append((event & judged).sum(axis=(2, 3)))
    return {
        "squared": np.round(squared, 4).tolist(),
        "cells": np.array(cells).tolist(),
        "events": np.array(events).tolist(),
        "share_kept": share,
        "cpu_seconds_a_window": round(seconds_a_window, 3),
        "peak_bytes": peak_bytes(),
        "peak_bytes_before": before,
        "bytes_a_frame": int(np.prod(archive.schema.grid.coarsened(variant.coarseness).shape)) * variant.values,
        "weights": sum(p.numel() for p in fitted.parameters()),
        "periods_min": [[round(m * radar.minutes) for m in period] for period in radar.layout.periods],
        "thresholds_mm_h": list(radar.thresholds),
        "sharing": sharing(evenly(split.issues["test"], scale.test), radar.layout.length),
        "windows": {name: len(found) for name, found in windows.items()},
    }


def costs(path: Path, variants: Sequence[Variant], scale: Scale, base: Variant) -> dict[str, Any]:
    """Return what steps cost, of batches of noise: what they hold costs nothing. Variants of one shape cost the same.

    Returns:
        `ratios`, by name the processor time of a step over the base's, medians of steps taken in turns; and
        `seconds_an_epoch` of the base, by the median of its steps.
    """
    keep_all_memory()
    archive = Archive.open(path)
    split = split_archive(archive)

    def shape(variant: Variant) -> tuple[int, int, bool]:
        return variant.coarseness, variant.values, variant.excite

    shapes = {shape(variant): variant for variant in (base, *variants)}
    steps = [_step_of(variant, scale, radar_of(archive, split, variant, scale)) for variant in shapes.values()]
    found = dict(zip(shapes, ratios(steps), strict=True))
    taken = []
    for _ in range(TIMED):
        began = time.monotonic()
        steps[0]()
        taken.append(time.monotonic() - began)
    rows, columns = ((s.stop - s.start) // scale.cell for s in (_middle(n, scale) for n in archive.schema.grid.shape))
    maps = min(len(split.issues["train"]), scale.train) * len(radar_of(archive, split, base, scale).layout.periods)
    epoch = maps * rows * columns / (BATCH * min(scale.crop, rows, columns) ** 2)
    return {
        "ratios": {variant.name: round(found[shape(variant)], 4) for variant in variants},
        "seconds_an_epoch": round(epoch * median(taken), 3),
    }


def _step_of(variant: Variant, scale: Scale, radar: Radar) -> Callable[[], object]:
    network = network_of(variant, scale, radar).train()
    edge, thresholds = scale.crop * scale.cell // variant.coarseness, len(radar.thresholds)
    steering = adamw(network, scale.steps)
    batch = (
        torch.randn(BATCH, len(shown(variant, thresholds)), edge, edge),
        torch.randn(BATCH, thresholds, len(GUESS_SPREAD), scale.crop, scale.crop),
        torch.randn(BATCH, CONDITIONS),
        torch.zeros(BATCH, scale.crop, scale.crop, dtype=torch.int8),
        torch.ones(BATCH),
    )

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss_of(network, batch)
        value.backward()  # type: ignore[no-untyped-call]
        steering.step()

    return step


def _fits(archive: Archive, split: Split, radar: Radar, variant: Variant, scale: Scale) -> None:
    """See that the inputs of all windows, which are held together, fit into memory.

    Raises:
        TooBig: they do not.
    """
    names = (("train", scale.train), ("calibrate", scale.calibrate), ("test", scale.test))
    count = sum(min(len(split.issues[name]), most) for name, most in names) * len(radar.layout.periods)
    pixels = math.prod(s.stop - s.start for s in (_middle(size, scale) for size in archive.schema.grid.shape))
    needed = 2 * count * len(shown(variant, len(radar.thresholds))) * pixels // variant.coarseness**2
    free = available_bytes()
    if needed > 0.8 * free:
        raise TooBig(
            f"{archive.path}: {variant.name} needs about {needed / 1e9:.2g} GB for its windows and {free / 1e9:.2g} GB "
            "are free; take fewer --windows and --tests, or leave out the finest --coarseness."
        )


def radar_of(archive: Archive, split: Split, variant: Variant, scale: Scale) -> Radar:
    """Return what inputs are made from, with some of the periods only."""
    layout = split.layout.frames(archive.schema.axis.cadence)
    periods = tuple(layout.periods[i] for i in evenly(np.arange(len(layout.periods)), scale.periods))
    thresholds = tuple(sorted({archive.schema.table.nearest_edge(t) for t in scale.thresholds}))
    return Radar.of(archive.schema, variant.coarseness, thresholds, FrameLayout(layout.history, periods, layout.guard))


def network_of(variant: Variant, scale: Scale, radar: Radar) -> RainNet:
    """Return the untrained network of a variant."""
    return RainNet(
        len(shown(variant, len(radar.thresholds))),
        guesses=len(GUESS_SPREAD),
        thresholds=len(radar.thresholds),
        conditions=CONDITIONS,
        width=scale.width,
        compression=COMPRESSION if variant.excite else None,
        block=scale.cell // variant.coarseness,
    )


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
    box = tuple(_middle(size, scale) for size in archive.schema.grid.shape)
    rows, columns = (slice(s.start // c, s.stop // c) for s in box)
    maximum, ratio, observed = (
        np.ascontiguousarray(field[:, rows, columns]) for field in (frames.maximum, frames.ratio, frames.observed)
    )
    frames = Frames(frames.slots, maximum, ratio, observed, frames.pixels[rows, columns])
    truth = blocked_frames(frames, block)
    outcome = outcomes(truth, issue, radar.layout, radar.first_levels)
    inputs, moved = make_inputs(seen_frames(frames, radar, variant.sees), issue, radar)
    highest = F.max_pool2d(moved.highest, block)
    known = F.avg_pool2d(moved.known.float(), block) >= 0.75
    coarse = replace(radar, cell_km=radar.cell_km * block)
    guess, _ = first_guesses(Moved(highest, known, moved.travelled), coarse)
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


def _middle(size: int, scale: Scale) -> slice:
    """Return the pixels of a map's middle, a whole number of cells, beginning at a whole cell."""
    cells = min(size // scale.cell, scale.edge)
    if cells < 2:
        raise TooShort(f"A picture of {size} pixels has no room for cells of {scale.cell}; ablate fewer coarsenesses.")
    first = (size // scale.cell - cells) // 2
    return slice(first * scale.cell, (first + cells) * scale.cell)


def predict_parts_of(network: RainNet, window: Window) -> tuple[ndarray, ndarray]:
    """Return both summands of a window's logits, (period, threshold, row, column)."""
    return predict_parts(network, Inputs(window.x, window.guess, window.known))


class Drawn:
    """Draws batches of crops by their number alone: of every period of every window once, then anew."""

    def __init__(self, windows: list[Window], variant: Variant, scale: Scale) -> None:
        self.windows, self.scale, self.block = windows, scale, scale.cell // variant.coarseness
        self.pairs = [(w, p) for w in range(len(windows)) for p in range(len(windows[0].known))]
        rows, columns = windows[0].outcome.shape[1:]
        self.crop = min(scale.crop, rows, columns)

    def batch(self, step: int) -> Batch:
        """Return inputs, guesses, conditions, outcomes and weights of a step's batch."""
        draw = np.random.default_rng([self.scale.seed, step])
        parts = []
        for position in range(step * BATCH, (step + 1) * BATCH):
            epoch, at = divmod(position, len(self.pairs))
            order = np.random.default_rng([self.scale.seed, 1_000_003, epoch]).permutation(len(self.pairs))
            w, p = self.pairs[order[at]]
            window = self.windows[w]
            corner = [int(draw.integers(0, size - self.crop + 1)) for size in window.outcome.shape[1:]]
            cells = tuple(slice(c, c + self.crop) for c in corner)
            fine = tuple(slice(c * self.block, (c + self.crop) * self.block) for c in corner)
            outcome = torch.from_numpy(window.outcome[p][cells])
            parts.append((window.x[p][:, *fine], window.guess[p][:, :, *cells], window.known[p], outcome))
        x, guess, known, outcome = (torch.stack(field) for field in zip(*parts, strict=True))
        x, guess, outcome = turn(int(draw.integers(8)), x.float(), guess.float(), outcome)
        return x, guess, known, outcome, torch.ones(len(x))


def _scattered(windows: list[Window], scale: Scale) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return guesses, conditions, outcomes and weights of cells drawn from every map, for the straight line."""
    draw = np.random.default_rng([scale.seed, 3])
    cells = windows[0].outcome[0].size
    at: Int[ndarray, cell] = draw.integers(0, cells, min(cells, CELLS_KEPT))
    guess = torch.stack([g.flatten(-2)[..., at].float() for w in windows for g in w.guess])
    known = torch.stack([k for w in windows for k in w.known])
    outcome = torch.stack([torch.from_numpy(o.ravel()[at]) for w in windows for o in w.outcome])
    return guess, known, outcome, torch.ones(len(guess))
