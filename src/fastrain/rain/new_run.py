"""A run on its way: what a user may choose, what the run is of, and its folder until it is whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from numpy import ndarray
from torch import nn

from fastrain import __version__
from fastrain.archive.store import Archive
from fastrain.core.errors import RunError, SettingError
from fastrain.core.files import write_whole
from fastrain.core.memory import peak_bytes
from fastrain.core.time import show_time
from fastrain.engine import checkpoint
from fastrain.engine.journal import read_journal
from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import Reference
from fastrain.rain.radar import Radar, Truth
from fastrain.rain.run import (
    CURVE,
    FACTS,
    GRID,
    LOG,
    RUN_VERSION,
    STATE,
    WEIGHTS,
    Run,
    default_coarseness,
    network_identity,
)
from fastrain.rain.start import Start
from fastrain.samples.split import Split

NOT_OF_IT = (
    "memory",
    "place",
    "recipe",
    "device",
    "threads",
    "board",
)  # settings that do not change it, or are told elsewhere
PLAN = "plan.json"  # of a run that is not finished
ALL_VARIED = timedelta(days=1)  # of training time, up to which all windows are varied (LOG.md)

Say = Callable[[str], None]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TrainSettings:
    """What a user may choose of training.

    Attributes:
        recipe: `grid`, of chances for every cell; or of one place, see `fastrain.rain.place.recipes`.
        coarseness: of the cells; the one nearest to 4 km if None.
        thresholds: mm/h; each is moved to the nearest edge of the radar's levels.
        place: pixel (row, column) that forecasts are read off at, or that a recipe of one place speaks of.
        seed: of everything that is drawn.
        width: of the network, its one dial.
        cells: that training looks at, all steps together; None derives it from the windows.
        keep_dry: share of the dry windows that are trained on.
        dry_below: wet share of the history under which a window is dry.
        memory: bytes that the training may take in all; what the program takes and half of what is free if None.
        truth: of which of a block's rates a chance speaks: its maximum or its mean.
        start: what the network starts from; see `fastrain.rain.start`.
        varied: share of a map's training windows that are shown as they might have been: weaker and stronger rain, seen
            less often, time running back; see `fastrain.rain.variety`. If None all of a day's, fewer the longer the
            training time is.
        shuffle_truth: train on truth of other windows and places, as a control that must not learn.
        device: that trains: `cpu`, `cuda`, or `auto`, the GPU where there is one.
        threads: of a CPU that trains; those that take a step fastest if None.
        board: whether TensorBoard's event files are written too.
    """

    recipe: str = "grid"
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
    varied: float | None = None
    shuffle_truth: bool = False
    device: str = "auto"
    threads: int | None = None
    board: bool = False


def edges_of(archive: Archive, settings: TrainSettings, say: Say) -> tuple[float, ...]:
    """Return the thresholds, moved to the nearest edges of the radar's levels."""
    if not settings.thresholds or min(settings.thresholds) <= 0:
        raise SettingError(f"Thresholds {settings.thresholds}: expected rain rates above 0 mm/h.")
    edges = {t: archive.schema.table.nearest_edge(t) for t in settings.thresholds}
    for asked, edge in edges.items():
        if asked != edge:
            say(f"Threshold {asked:g} mm/h cuts a level of this radar; {edge:g} mm/h is taken.")
    return tuple(sorted(set(edges.values())))


def share_varied(settings: TrainSettings, split: Split, cadence: timedelta) -> float:
    """Return the share of the windows that training varies: of a place none, of a control none either.

    A day of weather has a trend: it grew, or it decayed, and what is trained on it alone believes that it always does.
    In a longer time weather varies by itself.
    """
    if settings.recipe != GRID or settings.shuffle_truth:
        return 0.0
    if settings.varied is not None:
        return settings.varied
    first, last = split.blocks["train"]
    return min(1.0, ALL_VARIED / ((last - first) * cadence))


def say_choices(archive: Archive, coarseness: int, split: Split, radar: Radar, say: Say) -> None:
    """Say what was chosen: cells, history, periods, thresholds and blocks of time."""
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


def plan_of(archive: Archive, settings: TrainSettings, radar: Radar, split: Split, start: Run | None) -> dict[str, Any]:
    """Return what a run is of: two runs of the same plan on the same frames come to the same weights."""
    axis = archive.schema.axis
    span = split.blocks["train"][0], split.blocks["test"][1]
    return {
        "fastrain_run": RUN_VERSION,
        "fastrain": __version__,
        "archive": {"identity": archive.schema.identity, "frames": frames_identity(archive, span)},
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
        "recipe": settings.recipe,
        "start": None if start is None else start.identity,
        "events": [] if start is None else start.facts["events"],
        "split": {
            name: [show_time(axis.time(a)), show_time(axis.time(b - 1))] for name, (a, b) in split.blocks.items()
        },
        "settings": {k: v for k, v in asdict(settings).items() if k not in NOT_OF_IT}
        | {"varied": share_varied(settings, split, axis.cadence)},
    }


def frames_identity(archive: Archive, span: tuple[int, int]) -> str:
    """Return a digest of the frames between two slots."""
    return hashlib.blake2b(archive.slots("digest", *span).tobytes(), digest_size=8).hexdigest()


def begin_run(run_path: Path, plan: dict[str, Any], work: tuple[str, ...] = (STATE,)) -> None:
    """Make the run's folder, or see that what it holds is the same run, unfinished.

    Args:
        run_path: the folder.
        plan: what the run is of.
        work: names of what would be lost.

    Raises:
        RunError: it holds an unfinished run of another kind.
    """
    run_path.mkdir(parents=True, exist_ok=True)
    marker = run_path / PLAN
    text = json.dumps(plan, indent=1, sort_keys=True, default=list)
    begun = marker.exists() and any((run_path / name).exists() for name in work)
    if begun and marker.read_text(encoding="utf-8") != text:
        raise RunError(
            f"{run_path}: holds an unfinished run of other settings or frames, or of another version of this "
            "program; name another --run, or remove it."
        )
    if not marker.exists() or marker.read_text(encoding="utf-8", errors="replace") != text:
        write_whole(marker, text)


@dataclass(frozen=True)
class Settled:
    """What training and the calibration time came to.

    Attributes:
        network: fitted.
        steps: of its training.
        share: of what it learned that is kept.
        calibration: of its chances.
        reference: what the baselines know.
        decided: for each forecaster the chance from which on it counts as yes.
        trained_on: windows.
        seconds: that all took.
    """

    network: nn.Module
    steps: int
    share: float
    calibration: Calibration
    reference: Reference
    decided: dict[str, ndarray]
    trained_on: int
    seconds: float


def keep_run(
    run_path: Path, archive: Archive, plan: dict[str, Any], settings: TrainSettings, split: Split, settled: Settled
) -> None:
    """Write the run; run.json comes last, so that a run that has it is whole."""
    network = settled.network
    path = archive.path.resolve()
    facts = {
        **plan,
        "created": show_time(datetime.now(UTC)),
        "archive": {**plan["archive"], "path": str(path), "relative": os.path.relpath(path, run_path.resolve())},
        "issues": {name: len(found) for name, found in split.issues.items()},
        "trained_on": settled.trained_on,
        "calibration": settled.calibration.as_attributes(),
        "reference": settled.reference.as_attributes(),
        "decide": {name: best.tolist() for name, best in settled.decided.items()},
        "network": {
            "identity": network_identity(network),
            "width": settings.width,
            "weights": sum(p.numel() for p in network.parameters()),
            "steps": settled.steps,
            "share_kept": settled.share,
        },
        "seconds": round(settled.seconds, 1),
        "peak_bytes": peak_bytes(),
    }
    lines = read_journal(run_path / LOG)
    if lines:
        from fastrain.rain.pictures import figure_png, loss_figure

        (run_path / CURVE).write_bytes(figure_png(loss_figure(lines)))
    checkpoint.save(run_path / WEIGHTS, network.state_dict())
    write_whole(run_path / FACTS, json.dumps(facts, indent=1, default=list) + "\n")
    checkpoint.remove(run_path / STATE)
    (run_path / PLAN).unlink(missing_ok=True)
