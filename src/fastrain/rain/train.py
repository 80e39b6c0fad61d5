"""Training: an archive in, a run out; killed and started again, it goes on to the same weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, TooShort
from fastrain.core.files import occupied
from fastrain.core.memory import available_bytes
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.journal import Journal
from fastrain.engine.optimizers import adamw
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import BATCH, Batch, Batches
from fastrain.rain.chances import ordinal_loss
from fastrain.rain.hindcast import learn_reference
from fastrain.rain.inputs import InputCache, Radar, happened
from fastrain.rain.new_run import (
    PLAN,
    Progress,
    Say,
    Settled,
    TrainSettings,
    begin_run,
    edges_of,
    keep_run,
    plan_of,
    say_choices,
)
from fastrain.rain.run import FACTS, GRID, LOG, STATE, Run, default_coarseness, make_network, open_run
from fastrain.rain.settle import calibrate, decide
from fastrain.rain.start import LEARNING_RATE, Start, start_of
from fastrain.rain.straight import CELLS, fit_straight
from fastrain.samples.frames import Frames, load_frames, window_slots
from fastrain.samples.split import Split, split_archive
from fastrain.samples.truth import thin, wet_share

FEWEST_EVENTS = 500  # cells and periods of the training time that must reach a threshold for it to be learned
FRESH_RATE = 3e-3  # peak learning rate of a network that starts from nothing
FEWEST_WINDOWS = 64  # that are taken whatever the memory


def train(
    archive_path: Path,
    run_path: Path,
    settings: TrainSettings,
    *,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Run:
    """Train a network on an archive and return the run, which is kept at `run_path`.

    Args:
        archive_path: of the archive.
        run_path: folder of the run; one that was killed is gone on with.
        settings: see there.
        say: called with lines on what was chosen and why.
        progress: called with steps done, steps in all, and the loss.

    Raises:
        TooShort: the archive holds too little.
        TooBig: it does not fit into memory; the message names what does.
        RunError: the folder holds a finished run, or one of other settings, or another training is at work there.
    """
    if (run_path / FACTS).exists():
        raise RunError(f"{run_path}: holds a finished run; name another --run, or remove it.")
    archive = Archive.open(archive_path)
    with occupied(run_path):
        if settings.recipe != GRID:
            from fastrain.rain.place.train import train_place

            return train_place(archive, run_path, settings, say=say, progress=progress)
        return _train_grid(archive, run_path, settings, say=say, progress=progress)


def _train_grid(archive: Archive, run_path: Path, settings: TrainSettings, *, say: Say, progress: Progress) -> Run:
    began = time.monotonic()
    coarseness = settings.coarseness or default_coarseness(archive)
    split = split_archive(archive)
    layout = split.layout.frames(archive.schema.axis.cadence)
    issues = np.sort(np.concatenate(list(split.issues.values())))
    memory = settings.memory or available_bytes() // 2
    frames = load_frames(archive, coarseness, window_slots(issues, layout), memory // 2)
    radar = Radar.of(archive.schema, coarseness, edges_of(archive, settings, say), layout, settings.truth)
    count = len(radar.thresholds)
    # A control must not know anything.
    asked: Start = "nothing" if settings.shuffle_truth else settings.start
    start, why = start_of(archive, split, asked, thresholds=count, width=settings.width)
    radar = _learnable(frames, split, radar, say, keep=start is not None)
    say_choices(archive, coarseness, split, radar, say)
    most = _most_windows(run_path, radar, frames, memory // 8)
    say(why)
    plan = {**plan_of(archive, settings, radar, split, start), "most_windows": most}
    begin_run(run_path, plan)

    kept, weights = _thinned(frames, split.issues["train"], radar, settings)
    if not kept.all():
        say(f"{int((~kept).sum())} of {len(kept)} training windows are dry and left out; the kept ones weigh more.")
    kept = _fitting(kept, most, say)
    cache = InputCache(frames, radar, memory // 4)
    torch.manual_seed(settings.seed)
    network = make_network(len(radar.thresholds), settings.width)
    control = settings.seed if settings.shuffle_truth else None
    batches = Batches(cache, split.issues["train"][kept], weights[kept], seed=settings.seed, control=control)
    if start is None:
        network.stem.fit(batches.sample())
    else:
        network.load_state_dict(start.network.state_dict())
    fit_straight(network, *batches.scattered(CELLS))
    steps = batches.steps(settings.cells)
    say(f"{sum(p.numel() for p in network.parameters()):,} weights, {steps} steps of {BATCH} maps.")
    rate = FRESH_RATE if start is None else LEARNING_RATE
    fitted = _fit(network, batches, steps, rate, run_path, say, progress)
    share, calibration = calibrate(fitted, cache, split, radar, control=control)
    fitted.shrink(share)
    reference = learn_reference(frames, split.issues["train"], split.issues["calibrate"], radar)
    decided = decide(fitted, calibration, frames, split, radar, reference)
    settled = Settled(fitted, steps, share, calibration, reference, decided, int(kept.sum()), time.monotonic() - began)
    keep_run(run_path, archive, plan, settings, split, settled)
    return open_run(run_path)


def _fit(
    network: RainNet, batches: Batches, steps: int, rate: float, run_path: Path, say: Say, progress: Progress
) -> RainNet:
    journal = Journal(run_path / LOG, BATCH)
    try:
        fitted = fit(
            network,
            batches.batch,
            loss_of,
            adamw(network, steps, learning_rate=rate),
            FitSettings(steps=steps, clip=1.0),
            average=Average(network, max(20, steps // 8)),
            state=run_path / STATE,
            progress=lambda done, total, loss: progress(done, total, journal.note(done, total, loss)),
            say=say,
        )
    except FloatingPointError as error:
        raise RunError(f"{run_path}: training went astray, {error}; try another --seed.") from None
    return cast(RainNet, fitted)


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the loss of a network on a batch."""
    x, guess, known, outcome, weight = batch
    return ordinal_loss(model(x, guess, known), outcome, weight)


def _learnable(frames: Frames, split: Split, radar: Radar, say: Say, *, keep: bool) -> Radar:
    """Return the radar with those thresholds only that the training time reaches often enough.

    A network that has learned elsewhere keeps all: it knows of rain that this radar has not shown yet.
    """
    reached = np.zeros(len(radar.thresholds), dtype=int)
    for issue in split.issues["train"]:
        outcome = happened(frames, int(issue), radar)
        reached += [int((outcome > k).sum()) for k in range(len(reached))]
    kept = tuple(t for t, n in zip(radar.thresholds, reached, strict=True) if n >= FEWEST_EVENTS)
    if not kept:
        raise TooShort(
            f"The training time is too dry: {reached[0]} cells reach {radar.thresholds[0]:g} mm/h, {FEWEST_EVENTS} are "
            "needed. Ingest more pictures of this radar."
        )
    if keep:
        return radar
    for threshold, n in zip(radar.thresholds, reached, strict=True):
        if threshold not in kept:
            say(
                f"Threshold {threshold:g} mm/h is left out: {n} cells reach it in the training time, "
                f"{FEWEST_EVENTS} are needed."
            )
    return Radar(radar.table, radar.average, radar.cadence, radar.cell_km, kept, radar.layout, radar.truth)


def _most_windows(run_path: Path, radar: Radar, frames: Frames, memory: int) -> int:
    """Return how many training windows' truth fits into memory; of a killed run, what it found, to go on the same."""
    try:
        return int(json.loads((run_path / PLAN).read_text(encoding="utf-8"))["most_windows"])
    except (OSError, ValueError, LookupError, TypeError):
        a_window = len(radar.layout.periods) * int(frames.maximum[0].size)
        return max(FEWEST_WINDOWS, memory // a_window)


def _fitting(kept: ndarray, most: int, say: Say) -> ndarray:
    """Return the windows to train on, evenly spaced ones where there are more than fit."""
    chosen = np.flatnonzero(kept)
    if len(chosen) <= most:
        return kept
    say(f"{most} of {len(chosen)} training windows are taken, evenly spaced; more would not fit into memory.")
    fewer = np.zeros_like(kept)
    fewer[chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]] = True
    return fewer


def _thinned(frames: Frames, issues: ndarray, radar: Radar, settings: TrainSettings) -> tuple[ndarray, ndarray]:
    wet = np.array([wet_share(frames, int(issue), radar.layout, radar.table) for issue in issues])
    draws = np.random.default_rng(settings.seed).random(len(issues))
    kept, weights = thin(wet, draws, keep=settings.keep_dry, dry_below=settings.dry_below)
    if not kept.any():
        kept[:] = True
        weights = np.ones(len(kept))
    return kept, weights
