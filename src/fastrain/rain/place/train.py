"""Training for one place: windows made ready on disk in one pass, then a small network on them."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from fastrain.archive.store import Archive
from fastrain.core.errors import SettingError, TooBig, TooShort
from fastrain.core.grid import Grid
from fastrain.engine.group import Done
from fastrain.engine.threads import choose_threads, cores
from fastrain.nets.place_net import PlaceNet
from fastrain.nets.straight_line import straight_line
from fastrain.rain.budget import PlaceNeeds, allowed_bytes, place_needs, too_big
from fastrain.rain.chances import Calibration
from fastrain.rain.fitting import Bench, resolved
from fastrain.rain.hindcast import BASELINES, SPREADS, Hindcast, Reference
from fastrain.rain.inputs import CONDITIONS
from fastrain.rain.new_run import (
    PLAN,
    Say,
    Settled,
    TrainSettings,
    begin_run,
    edges_of,
    keep_run,
    plan_of,
    say_choices,
)
from fastrain.rain.place.batches import Looker, PlaceBatches
from fastrain.rain.place.hindcast import Parts, cases, cast_of, logits_of
from fastrain.rain.place.prepare import DONE, FOLDER, Prepared, Wanted
from fastrain.rain.place.recipes import RECIPES, Recipe
from fastrain.rain.place.run import parts_of_network
from fastrain.rain.place.task import Task, batched, steps_of, trial_of
from fastrain.rain.place.views import View
from fastrain.rain.place.windows import GUESSES
from fastrain.rain.radar import Radar
from fastrain.rain.run import BASE, STATE, Run, default_coarseness, open_run
from fastrain.rain.settle import calibration_of, settle
from fastrain.rain.straight import StraightLine, fit_line
from fastrain.rain.survey import one_class
from fastrain.samples.frames import stretches
from fastrain.samples.split import evenly, split_archive
from fastrain.verification.tally import Decider

FEWEST_EVENTS = 20  # at each place looked from, windows and periods that must reach a threshold for it to be learned
STEM_WINDOWS = 256  # that the whitening is fitted to
LINE_WINDOWS = 4000  # that the straight line is fitted to, at most
CALIBRATED_ON = 1500  # windows, at most
PLACES_A_WINDOW = 4  # that the calibration looks from: the place itself, and others beside it
DECIDED_ON = 300  # windows, at most, that settle what the baselines know and which chance counts as yes


def train_place(archive: Archive, settings: TrainSettings, bench: Bench) -> Run:
    """Train a network of one place; errors are those of `fastrain.rain.train.train`, too.

    Args:
        archive: to learn from.
        settings: see there.
        bench: where it is fitted.

    Raises:
        SettingError: no place is given, or the recipe is unknown.
        TooShort: too little is observed at the place, or it rained too little there.
    """
    began = time.monotonic()
    run_path, say, group = bench.run_path, bench.say, bench.group
    recipe, pixel = _recipe(settings, archive.schema.grid)
    bench.shared(recipe.batch)
    coarseness = settings.coarseness or default_coarseness(archive)
    split = split_archive(archive)
    layout = split.layout.frames(archive.schema.axis.cadence)
    radar = Radar.of(archive.schema, coarseness, edges_of(archive, settings, say), layout, settings.truth)
    task = Task(archive, settings, recipe, split, coarseness, radar, (pixel[0] // coarseness, pixel[1] // coarseness))
    say_choices(archive, coarseness, split, radar, say)
    folder = run_path / FOLDER
    view = task.view(training=True)
    memory = _frames_memory(task)
    threads = settings.threads or resolved(run_path, "threads", partial(_threads, task, view, bench), group)
    torch.set_num_threads(1)  # windows are made ready in small pieces, on which a second thread would only wait
    plan = {
        **plan_of(archive, settings, radar, split, None),
        "threads": threads,
        "precision": bench.precision(),
        "batch": recipe.batch,
    }
    with group.first_fails_for_all():
        if group.first:
            begin_run(run_path, plan, (STATE, f"{FOLDER}/{DONE}"))
    issues = {"train": split.issues["train"], "calibrate": evenly(split.issues["calibrate"], CALIBRATED_ON)}
    draws = np.random.default_rng(settings.seed).random(len(issues["train"]))
    wanted = Wanted(issues, draws, settings.keep_dry, settings.dry_below)
    with group.first_fails_for_all():  # the others wait for the windows, and find them in the same folder
        if group.first:
            with Prepared(folder, view, radar) as prepared:
                _room(run_path, prepared.bytes_at_most(wanted))
                prepared.fill(archive, coarseness, wanted, memory, bench.progress)
    torch.set_num_threads(min(threads, cores()))
    with Prepared(folder, view, radar) as prepared:
        try:
            count, climatology = _climatology(prepared, radar, say)
        except TooShort:
            # What more pictures may mend must not stand in their way: nothing is kept of it.
            if group.first and not (run_path / STATE).exists():
                shutil.rmtree(folder)
                (run_path / PLAN).unlink(missing_ok=True)
            raise
        task = replace(task, radar=replace(radar, thresholds=radar.thresholds[:count]))
        looker, calm = (Looker(prepared, block, count, control=task.control) for block in ("train", "calibrate"))
        network, line, steps = _fitted(task, looker, bench)
        if not group.first:
            group.same(None)  # until the run is whole: else whoever started this process would take it for done
            raise Done
        parts = parts_of_network(network)
        share, calibration, of_line = _calibrate(calm, parts, line, task)
    network.shrink(share)  # type: ignore[operator]
    believed = Reference(climatology, SPREADS[0], line, of_line)
    reference, decided = _decide(task, believed, parts, calibration, memory)
    settled = Settled(network, steps, share, calibration, reference, decided, looker.count, time.monotonic() - began)
    plan["thresholds"] = list(task.radar.thresholds)
    shutil.rmtree(folder)
    keep_run(run_path, archive, plan, settings, split, settled)
    group.same(None)
    return open_run(run_path)


def _threads(task: Task, view: View, bench: Bench) -> int:
    """Return the number of threads that take a step fastest."""
    if task.settings.threads is not None or bench.device.type != "cpu":
        return task.settings.threads or 1
    return choose_threads(trial_of(task, view, bench.device), repeats=2)


def _frames_memory(task: Task) -> int:
    """Return the bytes that frames may take.

    Raises:
        TooBig: training takes more than it may, however few frames are read at a time; the message names what fits.
    """
    archive, settings = task.archive, task.settings
    memory = allowed_bytes(settings.memory)

    def needs(coarseness: int) -> PlaceNeeds:
        share = coarseness / task.coarseness
        radar = replace(task.radar, cell_km=task.radar.cell_km * share)
        row, column = (round(c / share) for c in task.cell)
        there = replace(task, coarseness=coarseness, radar=radar, cell=(row, column))
        batch = batched(there, there.view(training=True))
        return place_needs(archive, coarseness, radar, settings.recipe, batch, settings.width)

    here = needs(task.coarseness)
    if here.least > memory:
        others = [(c, needs(c).least) for c in archive.schema.coarseness if c != task.coarseness]
        raise too_big(task.coarseness, here.least, memory, others)
    return here.frames(memory)


def _room(run_path: Path, needed: int) -> None:
    held = sum(file.stat().st_size for file in (run_path / FOLDER).iterdir())  # of a run that is gone on with
    free = shutil.disk_usage(run_path).free + held
    if needed > free:
        raise TooBig(
            f"{run_path}: the windows made ready take up to {needed / 1e9:.2g} GB of disk and {free / 1e9:.2g} GB are "
            "free; put --run on another disk, or take a larger --coarseness."
        )


def _recipe(settings: TrainSettings, grid: Grid) -> tuple[Recipe, tuple[int, int]]:
    try:
        recipe = RECIPES[settings.recipe]
    except KeyError:
        raise SettingError(f"--recipe {settings.recipe}: expected grid, {', '.join(RECIPES)}.") from None
    if settings.place is None:
        raise SettingError(f"--recipe {settings.recipe} speaks of one place: give --place LAT,LON or --pixel ROW,COL.")
    grid.require(settings.place)
    if settings.varied:
        raise SettingError(
            f"--varied {settings.varied:g}: is of maps; --recipe {settings.recipe} turns its windows and looks at them "
            "from beside the place, too."
        )
    if settings.start == BASE:
        raise SettingError(f"--from {BASE}: its network is of maps; --recipe {settings.recipe} starts from nothing.")
    return recipe, settings.place


def _fitted(task: Task, looker: Looker, bench: Bench) -> tuple[nn.Module, StraightLine, int]:
    """Return the fitted network, the straight line through the first guesses, and the steps of its training."""
    recipe, seed, count = task.recipe, task.settings.seed, looker.thresholds
    torch.manual_seed(seed)
    network = recipe.network(looker.prepared.view, len(task.radar.layout.periods), count, task.settings.width)
    if isinstance(network, PlaceNet):
        some = looker.spread(STEM_WINDOWS)
        network.stem.fit(looker.look(some, np.zeros(len(some), int))[0])
        begin = network.straight
    else:
        begin = straight_line(CONDITIONS, count, GUESSES)  # a baseline, of no use to the network
    line = fit_line(begin, *looker.guesses(LINE_WINDOWS))
    steps = steps_of(recipe, looker.count)
    weights = sum(p.numel() for p in network.parameters())
    bench.say(f"{looker.count} windows; {weights:,} weights, {steps} steps of {recipe.batch} windows.")
    group = bench.group
    part = (group.rank, group.size)
    with PlaceBatches(looker, recipe.batch, seed=seed, part=part) as batches:
        fitted = bench.fit(
            network,
            batches.batch,
            partial(recipe.loss, total=group.total),
            recipe.steering,
            steps=steps,
            samples=recipe.batch,
            averaged=recipe.averaged,
        )
    return fitted, line, steps


def _climatology(prepared: Prepared, radar: Radar, say: Say) -> tuple[int, ndarray]:
    """Return how many thresholds the training time reaches often enough, and how often it reaches them."""
    weights = prepared.kept["train"].all()["weight"]
    reached = np.zeros((len(radar.layout.periods), len(radar.thresholds)))
    events, judged = np.zeros(len(radar.thresholds), int), 0
    total = np.zeros(len(radar.layout.periods))
    steps = np.arange(len(radar.thresholds))
    for part in np.array_split(np.arange(len(weights)), -(-len(weights) // 4096) or 1):
        outcome = prepared.windows["train"].read(part)["outcome"]  # (window, place, period)
        weight = weights[part][:, None, None]
        more = outcome[..., None] > steps
        events += more.sum(axis=(0, 1, 2))
        judged += int((outcome >= 0).sum())
        # Climatology is the place's own, whatever the network looks at.
        total += (weight * (outcome >= 0))[:, 0].sum(axis=0)
        reached += (weight[..., None] * more)[:, 0].sum(axis=0)
    needed = FEWEST_EVENTS * len(prepared.view.nearby)
    count = int((events >= needed).sum())
    if judged == 0:
        raise TooShort(
            "The training time cannot be judged: the radar does not observe the place. `fastrain info` says what the "
            "archive holds; is it the right --place?"
        )
    if judged < needed and events[0]:  # of a dry time few windows are looked at, however long it is
        raise TooShort(
            f"The training time is too short: of its windows and periods {judged} can be judged at the place and "
            f"beside it, {needed} are needed. Ingest more pictures of this radar, and see that it observes the place."
        )
    if count == 0:
        raise TooShort(
            f"The training time is too dry: {radar.thresholds[0]:g} mm/h is reached {events[0]} times at the place and "
            f"beside it, {needed} are needed. Ingest more pictures of this radar."
        )
    if judged - events[-1] < needed:
        raise TooShort(one_class(judged - int(events[-1]), judged, radar.thresholds[-1]))
    for threshold, n in zip(radar.thresholds[count:], events[count:], strict=True):
        say(
            f"Threshold {threshold:g} mm/h is left out: it is reached {n} times in the training time, {needed} "
            "are needed."
        )
    return count, (reached / np.maximum(total, 1e-9)[:, None])[:, :count]


def _calibrate(looker: Looker, parts: Parts, line: StraightLine, task: Task) -> tuple[float, Calibration, Calibration]:
    """Return how much of what was learned to keep, and the calibration of that and of the line alone."""
    found, lines, truth = [], [], []
    beside = min(PLACES_A_WINDOW, looker.places) - 1
    for number in range(looker.count):
        draw = np.random.default_rng([task.settings.seed, 5, number])
        at = np.concatenate([[0], draw.integers(0, looker.places, beside)]).astype(int)
        x, guess, known, motion, outcome, _ = looker.look(np.full(len(at), number), at)
        # As a map of one column: (place, period, threshold) to (period, threshold, place, 1).
        straight, learned = (np.moveaxis(part, 0, -1)[..., None] for part in parts(x, guess, known, motion))
        found.append((straight, learned))
        lines.append(line.logits(guess.permute(1, 2, 3, 0)[..., None], known))  # from (place, period, threshold, guess)
        truth.append(outcome.numpy().T[..., None])
    long = task.split.is_long("calibrate", task.radar.cadence)
    return (*settle(found, truth, long=long), calibration_of(lines, truth, long=long))


def _decide(
    task: Task, believed: Reference, parts: Parts, calibration: Calibration, memory: int
) -> tuple[Reference, dict[str, ndarray]]:
    """Return what the baselines know, and for each forecaster the chance from which on it counts as yes.

    What is believed of the smoothing does not matter: it is chosen here.
    """
    radar, view = task.radar, task.view(training=False)
    row, column = (int(v) for v in view.nearby[0])
    issues = evenly(task.split.issues["calibrate"], DECIDED_ON)
    plain = tuple(name for name in BASELINES if name != "lagrangian")
    casts: list[tuple[Hindcast, list[ndarray]]] = []
    squared = np.zeros(len(SPREADS))
    for part, frames in stretches(task.archive, task.coarseness, issues, radar.layout, memory):
        for case in cases(frames, part, view, radar):
            chance = calibration.chances(logits_of(parts, case, radar))
            cast = cast_of(case, view, radar, believed, chance, plain)
            smoothed = [case.lead.chances(spread, radar, (row,), (column,)) for spread in SPREADS]
            squared += [(((chance - cast.event()) ** 2) * cast.judged[:, None]).sum() for chance in smoothed]
            casts.append((cast, smoothed))
    best = int(squared.argmin())
    deciders: dict[str, Decider] = {}
    for cast, smoothed in casts:
        for name, chance in {**cast.chances, "lagrangian": smoothed[best]}.items():
            deciders.setdefault(name, Decider(believed.climatology.shape)).add(chance, cast.event(), cast.judged)
    return replace(believed, spread=SPREADS[best]), {name: decider.best() for name, decider in deciders.items()}
