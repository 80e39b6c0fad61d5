"""Training: an archive in, a run out; killed and started again, it goes on to the same weights."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from fastrain.archive.store import Archive
from fastrain.core.errors import RunError
from fastrain.core.files import occupied, require_own
from fastrain.core.memory import give_free_memory_back, give_large_memory_back
from fastrain.engine.group import ALONE, Done, Group, join, lost
from fastrain.engine.journal import require_board
from fastrain.engine.lean import compute_again
from fastrain.engine.optimizers import adamw
from fastrain.engine.threads import choose_threads, cores
from fastrain.nets.blocks import Block
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import BATCH, CROP, Batch, Batches, steps_of
from fastrain.rain.budget import FRAMES_AT_MOST, Allowed, allowed_bytes, grid_needs, too_big
from fastrain.rain.chances import ordinal_loss
from fastrain.rain.fitting import Bench, device_of, resolved, trial
from fastrain.rain.hindcast import Reference, learn_spread
from fastrain.rain.inputs import CONDITIONS, channels_of
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
    share_varied,
)
from fastrain.rain.radar import Radar
from fastrain.rain.run import FACTS, GRID, STATE, Run, default_coarseness, make_network, open_run
from fastrain.rain.settle import calibrate, decide
from fastrain.rain.smoothing import GUESSES
from fastrain.rain.start import LEARNING_RATE, Start, start_of
from fastrain.rain.straight import fit_straight
from fastrain.rain.survey import Survey, learnable, survey
from fastrain.rain.windows import Windows, other_truth
from fastrain.samples.split import split_archive
from fastrain.samples.truth import thin

FRESH_RATE = 3e-3  # peak learning rate of a network that starts from nothing


def train(
    archive_path: Path,
    run_path: Path,
    settings: TrainSettings,
    *,
    say: Say = lambda _: None,
    progress: Progress = lambda *_: None,
) -> Run:
    """Train a network on an archive and return the run, which is kept at `run_path`.

    Where torchrun started several processes they train together; the first one alone speaks and writes.

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
    give_large_memory_back()
    device = device_of(settings.device)
    group = join(device)
    if not group.first:
        say, progress = _silent, _silent
    archive = Archive.open(archive_path)
    if settings.board:
        require_board()
    bench = Bench(run_path, device, group, say, progress, settings.board and group.first)
    try:
        with contextlib.ExitStack() as stack:
            with group.first_fails_for_all():
                if group.first:
                    require_own(run_path, FACTS, (PLAN, STATE))
                    stack.enter_context(occupied(run_path))
            if settings.recipe != GRID:
                from fastrain.rain.place.train import train_place

                return train_place(archive, settings, bench)
            return _train_grid(archive, settings, bench)
    except RuntimeError as error:
        if group.size > 1 and lost(error):
            raise bench.gone(error) from None
        raise


def _silent(*_: object) -> None:
    pass


def _train_grid(archive: Archive, settings: TrainSettings, bench: Bench) -> Run:
    began = time.monotonic()
    say, group = bench.say, bench.group
    bench.shared(BATCH)
    coarseness = settings.coarseness or default_coarseness(archive)
    split = split_archive(archive)
    layout = split.layout.frames(archive.schema.axis.cadence)
    radar = Radar.of(archive.schema, coarseness, edges_of(archive, settings, say), layout, settings.truth)
    allowed = _allowed(archive, coarseness, radar, settings, len(split.issues["calibrate"]), group)
    # A control must not know anything.
    asked: Start = "nothing" if settings.shuffle_truth else settings.start
    start, why = start_of(archive, split, asked, thresholds=len(radar.thresholds), width=settings.width)
    threads = resolved(bench.run_path, "threads", partial(_threads, radar, settings, bench, allowed), group)
    threads = settings.threads or threads
    torch.set_num_threads(min(threads, cores()))
    found = survey(archive, coarseness, split.issues["train"], radar, FRAMES_AT_MOST, bench.progress)
    found, radar = learnable(found, radar, say, keep=start is not None)
    say_choices(archive, coarseness, split, radar, say)
    say(why)
    plan = {
        **plan_of(archive, settings, radar, split, start),
        "threads": threads,
        "precision": bench.precision(),
        "batch": BATCH,
    }
    with group.first_fails_for_all():
        if group.first:
            begin_run(bench.run_path, plan)
    issues, weights = _thinned(found, settings, say)
    if len(found.issues) < len(split.issues["train"]):
        say(f"{len(found.issues)} of {len(split.issues['train'])} training windows are looked at, evenly spaced.")
    others = None
    if settings.shuffle_truth:
        others = other_truth(settings.seed, issues, split.issues["calibrate"])
    shape = found.box[0].stop - found.box[0].start, found.box[1].stop - found.box[1].start
    maps = len(issues) * len(layout.periods)
    steps = steps_of(maps, shape, settings.cells)
    again = steps * BATCH > maps  # whether windows come more than once, so that keeping them pays
    windows = Windows(archive, coarseness, radar, allowed.kept if again else 0, others=others)
    long = split.is_long("calibrate", radar.cadence)
    torch.manual_seed(settings.seed)
    network = make_network(len(radar.thresholds), settings.width)
    part = (group.rank, group.size)
    varied = share_varied(settings, split, radar.cadence)
    if varied:
        say(f"{varied:.0%} of the windows are shown as they might have been: more rain or less, seldom, backwards.")
    draw = partial(Batches, seed=settings.seed, makers=allowed.makers, part=part, varied=varied)
    with draw(windows, issues, weights, found.box) as batches:
        if start is None:
            network.stem.fit(batches.sample())
        else:
            network.load_state_dict(start.network.state_dict())
        line = fit_straight(network, *batches.scattered())
        say(f"{sum(p.numel() for p in network.parameters()):,} weights, {steps} steps of {BATCH} maps.")
        rate = FRESH_RATE if start is None else LEARNING_RATE
        if allowed.lean:
            compute_again(network, (Block,))
        fitted = bench.fit(
            network,
            batches.batch,
            partial(loss_of, group=group),
            partial(adamw, learning_rate=rate),
            steps=steps,
            samples=BATCH,
        )
    windows.forget()
    give_free_memory_back()
    if not group.first:
        group.same(None)  # until the run is whole: else whoever started this process would take it for done
        raise Done
    fitted = cast(RainNet, fitted)
    share, calibration, of_line = calibrate(fitted, windows, split.issues["calibrate"], line, long=long)
    fitted.shrink(share)
    spread = learn_spread(archive, coarseness, split.issues["calibrate"], radar, FRAMES_AT_MOST)
    reference = Reference(found.climatology, spread, line, of_line)
    decided = decide(
        fitted, calibration, archive, coarseness, split.issues["calibrate"], radar, reference, FRAMES_AT_MOST
    )
    settled = Settled(fitted, steps, share, calibration, reference, decided, len(issues), time.monotonic() - began)
    keep_run(bench.run_path, archive, plan, settings, split, settled)
    group.same(None)
    return open_run(bench.run_path)


def loss_of(model: nn.Module, batch: Batch, group: Group = ALONE) -> torch.Tensor:
    """Return the loss of a network on a batch; in a group, what this process's part adds to it."""
    x, guess, known, outcome, weight = batch
    return ordinal_loss(model(x, guess, known), outcome, weight, group.total)


def _allowed(
    archive: Archive, coarseness: int, radar: Radar, settings: TrainSettings, calibrated: int, group: Group
) -> Allowed:
    """Return how training keeps within the memory that it may take.

    All processes compute again, or none does: batch norms would wait for the others in vain.

    Raises:
        TooBig: it cannot; the message names what can.
    """
    memory = allowed_bytes(settings.memory)
    needs = grid_needs(archive, coarseness, radar, settings.width, calibrated=calibrated)
    allowed = Allowed.within(needs, memory)
    needed = group.most(2 if allowed is None else int(allowed.lean))
    if allowed is not None and needed < 2:
        return replace(allowed, lean=bool(needed))
    if allowed is not None:
        raise RunError("Another process of this training has too little memory; it says how much.")
    others = [
        (c, grid_needs(archive, c, radar, settings.width, calibrated=calibrated).least)
        for c in (1, *archive.schema.coarseness)
        if c != coarseness
    ]
    raise too_big(coarseness, needs.least, memory, others, "--recipe place, of one place alone")


def _threads(radar: Radar, settings: TrainSettings, bench: Bench, allowed: Allowed) -> int:
    """Return the number of threads that take a step fastest."""
    if settings.threads is not None or bench.device.type != "cpu":
        return settings.threads or 1
    maps = BATCH // 4 if allowed.lean else BATCH  # a step as it will be taken may take no more memory than that
    return choose_threads(trial_of(len(radar.thresholds), settings.width, maps, bench.device), repeats=2)


def trial_of(thresholds: int, width: int, maps: int, device: torch.device) -> Callable[[], None]:
    """Return what takes a step of training on maps of nothing: what they hold does not matter to what they cost.

    Args:
        thresholds: how many.
        width: of the network.
        maps: of the batch, each of a whole crop.
        device: that takes it.
    """
    batch = (
        torch.randn(maps, channels_of(thresholds), CROP, CROP),
        torch.randn(maps, thresholds, GUESSES, CROP, CROP),
        torch.randn(maps, CONDITIONS),
        torch.zeros(maps, CROP, CROP, dtype=torch.int8),
        torch.ones(maps),
    )
    return trial(make_network(thresholds, width), batch, loss_of, adamw, device)


def _thinned(found: Survey, settings: TrainSettings, say: Say) -> tuple[ndarray, ndarray]:
    """Return the slots to train on and what each window weighs."""
    draws = np.random.default_rng(settings.seed).random(len(found.issues))
    kept, weights = thin(found.wet, draws, keep=settings.keep_dry, dry_below=settings.dry_below)
    if not kept.any():
        return found.issues, np.ones(len(found.issues))
    if not kept.all():
        say(f"{int((~kept).sum())} of {len(kept)} training windows are dry and left out; the kept ones weigh more.")
    return found.issues[kept], weights[kept]
