"""One cut of the radar's pictures, tried: a network trained and judged on it, and what its steps cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from fastrain.archive.store import Archive
from fastrain.core.errors import TooBig, TooShort
from fastrain.core.memory import available_bytes, keep_all_memory, peak_bytes
from fastrain.engine.ablation import ratios
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.engine.precision import computing, fast_precision
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import Batch, turn
from fastrain.rain.cut_times import Part, Times
from fastrain.rain.cuts import Scale, Variant, Window, middle_of, radar_of, shown, window_of
from fastrain.rain.inputs import CONDITIONS, Inputs
from fastrain.rain.radar import Radar
from fastrain.rain.run import predict_parts
from fastrain.rain.settle import settle
from fastrain.rain.smoothing import GUESS_SPREAD
from fastrain.rain.straight import fit_straight
from fastrain.rain.train import loss_of
from fastrain.samples.layout import Layout
from fastrain.samples.split import sharing

CELLS_KEPT = 2048  # of each map, that the straight line is fitted to
COMPRESSION = 16
BATCH = 4  # maps of a step
TIMED = 5  # steps of the base whose median tells what an epoch takes


def measure(times: Times, variant: Variant, scale: Scale) -> dict[str, Any]:
    """Train and judge one variant, in a process of its own, whose memory it then tells.

    Args:
        times: the windows, those to be judged of one archive.
        variant: see there.
        scale: see there.

    Returns:
        Sums of squared errors of each test window (window, period, threshold) of the network and of the straight line,
        with the counts; processor seconds of a window's inputs; memory at the peak.
    """
    keep_all_memory()
    (judged_on,) = times.test
    archive = Archive.open(judged_on.path)
    radar = radar_of(archive, times.layout, variant, scale)
    before = peak_bytes()
    _fits(times, variant, scale)
    spent = time.process_time()
    parts_of = {"train": times.train, "calibrate": times.calibrate, "test": times.test}
    windows = {name: _windows(parts, times.layout, variant, scale) for name, parts in parts_of.items()}
    seconds_a_window = (time.process_time() - spent) / sum(map(len, windows.values()))
    for name, words in (("train", "training"), ("test", "test")):
        _tell(parts_of[name], words, windows[name], radar.thresholds[0])
    torch.manual_seed(scale.seed)
    network = network_of(variant, scale, radar)
    high, wide = (min(256, *(w.x.shape[i] for w in windows["train"])) for i in (-2, -1))
    network.stem.fit(torch.cat([w.x[:1, :, :high, :wide].float() for w in windows["train"][::8]]))
    fit_straight(network, *_scattered(windows["train"], scale))
    draw = Drawn(windows["train"], variant, scale)
    steering = adamw(network, scale.steps, learning_rate=3e-3)
    average = Average(network, max(20, scale.steps // 8))
    settings = FitSettings(scale.steps, clip=1.0, precision=fast_precision("cpu"))
    fitted = cast(RainNet, fit(network, draw.batch, loss_of, steering, settings, average=average))
    parts = {name: [predict_parts_of(fitted, w) for w in windows[name]] for name in ("calibrate", "test")}
    share, calibration = settle(parts["calibrate"], [w.outcome for w in windows["calibrate"]], long=times.long)
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
        "sharing": sharing(np.array(judged_on.issues), radar.layout.length),
        "windows": {name: len(found) for name, found in windows.items()},
    }


def _windows(parts: Sequence[Part], layout: Layout, variant: Variant, scale: Scale) -> list[Window]:
    found = []
    for part in parts:
        archive = Archive.open(part.path)
        radar = radar_of(archive, layout, variant, scale)
        found += [window_of(archive, issue, radar, variant, scale) for issue in part.issues]
    return found


def _tell(parts: Sequence[Part], words: str, windows: Sequence[Window], threshold: float) -> None:
    """See that a block's windows reach the lowest threshold in some cells, and miss it in others.

    Raises:
        TooShort: they do not.
    """
    path = ", ".join(str(part.path) for part in parts)
    judged = sum(int((window.outcome >= 0).sum()) for window in windows)
    reached = sum(int((window.outcome > 0).sum()) for window in windows)
    if judged == 0:
        raise TooShort(f"{path}: nothing is observed in the {words} time; `fastrain info` says what the archive holds.")
    if reached in (0, judged):
        raise TooShort(
            f"{path}: {'every cell' if reached else 'no cell'} reaches {threshold:g} mm/h in {len(windows)} windows "
            f"of the {words} time, so that no cut could be told from another; ingest other weather of this radar."
        )


def costs(times: Times, variants: Sequence[Variant], scale: Scale, base: Variant) -> dict[str, Any]:
    """Return what steps cost, of batches of noise: what they hold costs nothing. Variants of one shape cost the same.

    Returns:
        `ratios`, by name the processor time of a step over the base's, medians of steps taken in turns; and
        `seconds_an_epoch` of the base, by the median of its steps.
    """
    keep_all_memory()
    archive = Archive.open(times.test[0].path)

    def shape(variant: Variant) -> tuple[int, int, bool]:
        return variant.coarseness, variant.values, variant.excite

    shapes = {shape(variant): variant for variant in (base, *variants)}
    crop = crop_of(times.train, scale)
    steps = [_step_of(v, scale, crop, radar_of(archive, times.layout, v, scale)) for v in shapes.values()]
    found = dict(zip(shapes, ratios(steps), strict=True))
    taken = []
    for _ in range(TIMED):
        began = time.monotonic()
        steps[0]()
        taken.append(time.monotonic() - began)
    cells = sum(len(part.issues) * math.prod(cells_of(Archive.open(part.path), scale)) for part in times.train)
    periods = len(radar_of(archive, times.layout, base, scale).layout.periods)
    epoch = cells * periods / (BATCH * crop**2)
    return {
        "ratios": {variant.name: round(found[shape(variant)], 4) for variant in variants},
        "seconds_an_epoch": round(epoch * median(taken), 3),
    }


def _step_of(variant: Variant, scale: Scale, crop: int, radar: Radar) -> Callable[[], object]:
    network = network_of(variant, scale, radar).train()
    edge, thresholds = crop * scale.cell // variant.coarseness, len(radar.thresholds)
    steering = adamw(network, scale.steps)
    batch = (
        torch.randn(BATCH, len(shown(variant, thresholds)), edge, edge),
        torch.randn(BATCH, thresholds, len(GUESS_SPREAD), crop, crop),
        torch.randn(BATCH, CONDITIONS),
        torch.zeros(BATCH, crop, crop, dtype=torch.int8),
        torch.ones(BATCH),
    )

    def step() -> None:
        with computing("cpu"):
            value = loss_of(network, batch)
        value.backward()  # type: ignore[no-untyped-call]
        steering.step()

    return step


def cells_of(archive: Archive, scale: Scale) -> tuple[int, int]:
    """Return the rows and columns of cells that are looked at of an archive's maps."""
    rows, columns = (middle_of(size, scale) for size in archive.schema.grid.shape)
    return (rows.stop - rows.start) // scale.cell, (columns.stop - columns.start) // scale.cell


def crop_of(parts: Sequence[Part], scale: Scale) -> int:
    """Return the edge, in cells, of what a map of a step shows: as much as the smallest map allows."""
    return min(scale.crop, *(edge for part in parts for edge in cells_of(Archive.open(part.path), scale)))


def _fits(times: Times, variant: Variant, scale: Scale) -> None:
    """See that the inputs of all windows, which are held together, fit into memory.

    Raises:
        TooBig: they do not.
    """
    needed = 0
    for part in (*times.train, *times.calibrate, *times.test):
        archive = Archive.open(part.path)
        radar = radar_of(archive, times.layout, variant, scale)
        pixels = math.prod(cells_of(archive, scale)) * (scale.cell // variant.coarseness) ** 2
        channels = len(shown(variant, len(radar.thresholds)))
        needed += 2 * len(part.issues) * len(radar.layout.periods) * channels * pixels
    free = available_bytes()
    if needed > 0.8 * free:
        raise TooBig(
            f"{times.test[0].path}: {variant.name} needs about {needed / 1e9:.2g} GB for its windows and "
            f"{free / 1e9:.2g} GB are free; take fewer --windows and --tests, or leave out the finest --coarseness."
        )


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


def predict_parts_of(network: RainNet, window: Window) -> tuple[ndarray, ndarray]:
    """Return both summands of a window's logits, (period, threshold, row, column)."""
    return predict_parts(network, Inputs(window.x, window.guess, window.known))


class Drawn:
    """Draws batches of crops by their number alone: of every period of every window once, then anew."""

    def __init__(self, windows: list[Window], variant: Variant, scale: Scale) -> None:
        self.windows, self.scale, self.block = windows, scale, scale.cell // variant.coarseness
        self.pairs = [(w, p) for w in range(len(windows)) for p in range(len(windows[0].known))]
        self.crop = min(scale.crop, *(size for window in windows for size in window.outcome.shape[1:]))

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
    smallest = min(window.outcome[0].size for window in windows)
    drawn: dict[int, Int[ndarray, cell]] = {}  # the same of all maps of a size
    guesses, outcomes = [], []
    for window in windows:
        cells = window.outcome[0].size
        if cells not in drawn:
            drawn[cells] = draw.integers(0, cells, min(smallest, CELLS_KEPT))
        at = drawn[cells]
        guesses.append(window.guess.flatten(-2)[..., at].float())
        outcomes.append(torch.from_numpy(window.outcome.reshape(len(window.outcome), -1)[:, at]))
    guess, outcome, known = torch.cat(guesses), torch.cat(outcomes), torch.cat([window.known for window in windows])
    return guess, known, outcome, torch.ones(len(guess))
