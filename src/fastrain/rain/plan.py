"""What a training will take, before it begins: a few short measurements on the archive itself, and arithmetic.

A window is made and judged at the two coarsest grids that are planned for, from which finer ones follow by their
cells; a step is taken on a part of a batch. So planning itself takes a fraction of what it speaks of.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import disk_usage

import torch

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError
from fastrain.core.memory import available_bytes, give_large_memory_back, resident_bytes
from fastrain.engine.threads import choose_threads, cores
from fastrain.rain.batches import BATCH
from fastrain.rain.budget import allowed_bytes
from fastrain.rain.costs import Ground, Spent, free_at
from fastrain.rain.fitting import device_of
from fastrain.rain.new_run import TrainSettings, edges_of
from fastrain.rain.place.recipes import RECIPES
from fastrain.rain.plan_grid import PART, GridPlanner
from fastrain.rain.plan_place import PlacePlanner
from fastrain.rain.plan_row import Row
from fastrain.rain.run import GRID
from fastrain.rain.train import trial_of
from fastrain.samples.split import split_archive


@dataclass(frozen=True)
class Plan:
    """What trainings on an archive take, and what there is.

    Attributes:
        archive: path.
        rows: recipe by recipe, coarseness by coarseness.
        free_memory: bytes that are free on the machine, under all control groups' limits, with what this program holds.
        allowed_memory: bytes that a training may take of them.
        free_disk: bytes free where the run would lie.
        threads: that the times are of.
        cores: that this process may use.
        issues: issue times by block of the split.
    """

    archive: str
    rows: tuple[Row, ...]
    free_memory: int
    allowed_memory: int
    free_disk: int
    threads: int
    cores: int
    issues: dict[str, int]


def plan(
    archive: Archive,
    settings: TrainSettings,
    *,
    coarsenesses: tuple[int, ...] = (),
    recipes: tuple[str, ...] = (GRID, "place"),
    disk: Path = Path(),
    started: float | None = None,
) -> Plan:
    """Return what trainings on an archive will take.

    Args:
        archive: see there.
        settings: of the training; its coarseness and recipe are not looked at, and without a place the middle is taken.
        coarsenesses: to plan for; 1 and those of the archive if none are named.
        recipes: to plan for.
        disk: where the run would lie.
        started: when the program was, in seconds of `time.monotonic`; now if None.

    Raises:
        TooShort: the archive holds too little to train on.
        SettingError: a recipe is unknown, or the archive does not hold a coarseness.
    """
    give_large_memory_back()  # as training does: it changes what everything takes
    base = resident_bytes()
    began = Spent(time.monotonic() - started if started is not None else 0.0, time.process_time())
    wanted = tuple(sorted(set(coarsenesses or (1, *archive.schema.coarseness))))
    for coarseness in wanted:
        if coarseness not in (1, *archive.schema.coarseness):
            held = ", ".join(str(c) for c in (1, *archive.schema.coarseness))
            raise SettingError(f"--coarseness {coarseness}: {archive.path} holds {held}.")
    for recipe in recipes:
        if recipe not in (GRID, *RECIPES):
            raise SettingError(f"--recipe {recipe}: expected {', '.join((GRID, *RECIPES))}.")
    if settings.place is not None:
        archive.schema.grid.require(settings.place)
    split = split_archive(archive)
    thresholds = edges_of(archive, settings, lambda _: None)
    # As training does it, on a part of a batch.
    device = device_of(settings.device)
    threads = settings.threads or 1
    if settings.threads is None and device.type == "cpu":
        threads = choose_threads(trial_of(len(thresholds), settings.width, BATCH // PART, device), repeats=2)
    torch.set_num_threads(threads)
    ground = Ground(
        archive,
        split,
        replace(settings, recipe=GRID),
        thresholds,
        threads,
        base,
        began,
        allowed_bytes(settings.memory),
        disk_usage(free_at(disk)).free,
        wanted,
        device,
    )
    rows: list[Row] = []
    for recipe in recipes:
        planner = GridPlanner(ground) if recipe == GRID else PlacePlanner(ground, recipe)
        rows += [planner.row(c) for c in wanted]
    return Plan(
        str(archive.path),
        tuple(rows),
        available_bytes() + resident_bytes(),
        ground.memory,
        ground.free_disk,
        threads,
        cores(),
        {name: len(found) for name, found in ground.split.issues.items()},
    )
