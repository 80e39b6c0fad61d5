"""Training: an archive in, a run out; killed and started again, it goes on to the same weights."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from fastrain import __version__
from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError, TooShort
from fastrain.core.files import write_whole
from fastrain.core.memory import available_bytes, peak_bytes
from fastrain.core.time import show_time
from fastrain.engine import checkpoint
from fastrain.engine.averaging import Average
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.optimizers import adamw
from fastrain.nets.rain_net import RainNet
from fastrain.rain.batches import BATCH, Batch, Batches
from fastrain.rain.chances import ordinal_loss
from fastrain.rain.hindcast import learn_reference
from fastrain.rain.inputs import InputCache, Radar, Truth, happened
from fastrain.rain.run import (
    FACTS,
    RUN_VERSION,
    STATE,
    WEIGHTS,
    Run,
    default_coarseness,
    make_network,
    network_identity,
    open_run,
)
from fastrain.rain.settle import calibrate, decide
from fastrain.rain.start import LEARNING_RATE, Start, start_of
from fastrain.rain.straight import CELLS, fit_straight
from fastrain.samples.frames import Frames, load_frames, window_slots
from fastrain.samples.split import Split, split_archive
from fastrain.samples.truth import thin, wet_share

FEWEST_EVENTS = 500  # cells and periods of the training time that must reach a threshold for it to be learned
PLAN = "plan.json"  # of a run that is not finished
FRESH_RATE = 3e-3  # peak learning rate of a network that starts from nothing
FEWEST_WINDOWS = 64  # that are taken whatever the memory


@dataclass(frozen=True)
class TrainSettings:
    """What a user may choose of training.

    Attributes:
        coarseness: of the cells; the one nearest to 4 km if None.
        thresholds: mm/h; each is moved to the nearest edge of the radar's levels.
        place: pixel (row, column) that forecasts are read off at.
        seed: of everything that is drawn.
        width: of the network, its one dial.
        cells: that training looks at, all steps together; None derives it from the windows.
        keep_dry: share of the dry windows that are trained on.
        dry_below: wet share of the history under which a window is dry.
        memory: bytes that frames and inputs may take; half of what is free if None.
        truth: of which of a block's rates a chance speaks: its maximum or its mean.
        start: what the network starts from; see `fastrain.rain.start`.
        shuffle_truth: train on truth of other windows and places, as a control that must not learn.
    """

    coarseness: int | None = None
    thresholds: tuple[float, ...] = (0.1, 1.0, 5.0)
    place: tuple[int, int] | None = None
    seed: int = 0
    width: int = 24
    cells: int | None = None
    keep_dry: float = 0.2
    dry_below: float = 0.005
    memory: int | None = None
    truth: Truth = "maximum"
    start: Start = "auto"
    shuffle_truth: bool = False


Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]


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
        RunError: the folder holds a finished run, or one of other settings.
    """
    began = time.monotonic()
    if (run_path / FACTS).exists():
        raise RunError(f"{run_path}: holds a finished run; name another --run, or remove it.")
    archive = Archive.open(archive_path)
    coarseness = settings.coarseness or default_coarseness(archive)
    split = split_archive(archive)
    layout = split.layout.frames(archive.schema.axis.cadence)
    issues = np.sort(np.concatenate(list(split.issues.values())))
    memory = settings.memory or available_bytes() // 2
    frames = load_frames(archive, coarseness, window_slots(issues, layout), memory // 2)
    radar = Radar.of(archive.schema, coarseness, _edges(archive, settings, say), layout, settings.truth)
    count = len(radar.thresholds)
    # A control must not know anything.
    asked: Start = "nothing" if settings.shuffle_truth else settings.start
    start, why = start_of(archive, split, asked, thresholds=count, width=settings.width)
    radar = _learnable(frames, split, radar, say, keep=start is not None)
    _say_choices(archive, coarseness, split, radar, say)
    most = _most_windows(run_path, radar, frames, memory // 8)
    say(why)
    plan = {**_plan_of(archive, settings, radar, split, start), "most_windows": most}
    _prepare(run_path, plan)

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
    fitted = _fit(network, batches, steps, rate, run_path, progress)
    share, calibration = calibrate(fitted, cache, split, radar, control=control)
    fitted.shrink(share)
    reference = learn_reference(frames, split.issues["train"], split.issues["calibrate"], radar)
    decided = decide(fitted, calibration, frames, split, radar, reference)
    facts = {
        **plan,
        "created": show_time(datetime.now(UTC)),
        "archive": {
            **plan["archive"],
            "path": str(archive_path.resolve()),
            "relative": os.path.relpath(archive_path.resolve(), run_path.resolve()),
        },
        "issues": {name: len(found) for name, found in split.issues.items()},
        "trained_on": int(kept.sum()),
        "calibration": calibration.as_attributes(),
        "reference": {"climatology": reference.climatology.tolist(), "spread": reference.spread},
        "decide": {name: best.tolist() for name, best in decided.items()},
        "network": {
            "identity": network_identity(fitted),
            "width": settings.width,
            "weights": sum(p.numel() for p in fitted.parameters()),
            "steps": steps,
            "share_kept": share,
        },
        "seconds": round(time.monotonic() - began, 1),
        "peak_bytes": peak_bytes(),
    }
    _keep(run_path, fitted, facts)
    return open_run(run_path)


def _fit(network: RainNet, batches: Batches, steps: int, rate: float, run_path: Path, progress: Progress) -> RainNet:
    try:
        fitted = fit(
            network,
            batches.batch,
            loss_of,
            adamw(network, steps, learning_rate=rate),
            FitSettings(steps=steps, clip=1.0),
            average=Average(network, max(20, steps // 8)),
            state=run_path / STATE,
            progress=lambda done, total, loss: progress(done, total, f"loss {loss:.4f}"),
        )
    except FloatingPointError as error:
        raise RunError(f"{run_path}: training went astray, {error}; try another --seed.") from None
    return cast(RainNet, fitted)


def loss_of(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the loss of a network on a batch."""
    x, guess, known, outcome, weight = batch
    return ordinal_loss(model(x, guess, known), outcome, weight)


def _edges(archive: Archive, settings: TrainSettings, say: Say) -> tuple[float, ...]:
    if not settings.thresholds or min(settings.thresholds) <= 0:
        raise SettingError(f"Thresholds {settings.thresholds}: expected rain rates above 0 mm/h.")
    edges = {t: archive.schema.table.nearest_edge(t) for t in settings.thresholds}
    for asked, edge in edges.items():
        if asked != edge:
            say(f"Threshold {asked:g} mm/h cuts a level of this radar; {edge:g} mm/h is taken.")
    return tuple(sorted(set(edges.values())))


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


def _say_choices(archive: Archive, coarseness: int, split: Split, radar: Radar, say: Say) -> None:
    rows, columns = archive.schema.grid.coarsened(coarseness).shape
    periods = split.layout.periods
    say(f"Cells of {radar.cell_km:.3g} km (coarseness {coarseness}), {columns}×{rows} of them.")
    say(
        f"History of {split.layout.history} min ({radar.layout.history} frames); {len(periods)} periods of "
        f"{periods[0][1] - periods[0][0]} min up to {periods[-1][1]} min; "
        f"thresholds {', '.join(f'{t:g}' for t in radar.thresholds)} mm/h."
    )
    axis = archive.schema.axis
    for name, (a, b) in split.blocks.items():
        count = len(split.issues[name])
        say(f"{name:>9}: {show_time(axis.time(a))} to {show_time(axis.time(b - 1))}, {count} issue times.")


def _plan_of(
    archive: Archive, settings: TrainSettings, radar: Radar, split: Split, start: Run | None
) -> dict[str, Any]:
    """Return what a run is of: two runs of the same plan on the same frames come to the same weights."""
    axis = archive.schema.axis
    return {
        "fastrain_run": RUN_VERSION,
        "fastrain": __version__,
        "archive": {"identity": archive.schema.identity, "frames": _frames_identity(archive, split)},
        "credit": archive.schema.credit,
        "grid": archive.schema.grid.as_attributes(),
        "coarseness": settings.coarseness or default_coarseness(archive),
        "cadence_minutes": radar.minutes,
        "thresholds": list(radar.thresholds),
        "layout": {
            "history": split.layout.history,
            "periods": split.layout.periods,
            "guard": split.layout.guard,
        },
        "place": settings.place,
        "start": None if start is None else start.identity,
        "events": [] if start is None else start.facts["events"],
        "split": {
            name: [show_time(axis.time(a)), show_time(axis.time(b - 1))] for name, (a, b) in split.blocks.items()
        },
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("memory", "place")},
    }


def _frames_identity(archive: Archive, split: Split) -> str:
    import hashlib

    start, stop = split.blocks["train"][0], split.blocks["test"][1]
    return hashlib.blake2b(archive.slots("digest", start, stop).tobytes(), digest_size=8).hexdigest()


def _prepare(run_path: Path, plan: dict[str, Any]) -> None:
    """Make the run's folder, or see that what it holds is the same run, unfinished."""
    run_path.mkdir(parents=True, exist_ok=True)
    marker = run_path / PLAN
    text = json.dumps(plan, indent=1, sort_keys=True, default=list)
    if marker.exists() and marker.read_text(encoding="utf-8") != text and (run_path / STATE).exists():
        raise RunError(
            f"{run_path}: holds an unfinished run of other settings or frames; name another --run, or remove it."
        )
    marker.write_text(text, encoding="utf-8")


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
    kept, weights = thin(wet, keep=settings.keep_dry, dry_below=settings.dry_below, seed=settings.seed)
    if not kept.any():
        kept[:] = True
        weights = np.ones(len(kept))
    return kept, weights


def _keep(run_path: Path, network: RainNet, facts: dict[str, Any]) -> None:
    """Write the run; run.json comes last, so that a run that has it is whole."""
    checkpoint.save(run_path / WEIGHTS, network.state_dict())
    write_whole(run_path / FACTS, json.dumps(facts, indent=1, default=list) + "\n")
    for leftover in (STATE, PLAN):
        (run_path / leftover).unlink(missing_ok=True)
