"""What training a place's network takes, from short measurements."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fastrain.engine.threads import cores
from fastrain.rain.budget import place_needs
from fastrain.rain.costs import Ground, Line, Spent, on_gpu, spent_on, state_bytes
from fastrain.rain.place.prepare import Prepared, Wanted
from fastrain.rain.place.recipes import RECIPES
from fastrain.rain.place.run import parts_of_network
from fastrain.rain.place.task import Task, batch_of_nothing, batched, steps_of, trial_of
from fastrain.rain.place.train import CALIBRATED_ON, DECIDED_ON, LINE_WINDOWS, PLACES_A_WINDOW
from fastrain.rain.place.views import View, ages
from fastrain.rain.plan_row import Row
from fastrain.samples.frames import window_slots
from fastrain.samples.rows import Rows
from fastrain.samples.split import evenly

WINDOWS = 16  # made ready, to tell what one takes
SHARE = 4  # of a batch, a part that a timed step takes
TIMES = 3


class PlacePlanner:
    """Plans trainings of a place's network on an archive."""

    def __init__(self, ground: Ground, recipe: str) -> None:
        self.ground, self.name, self.recipe = ground, recipe, RECIPES[recipe]
        rows, columns = ground.archive.schema.grid.shape
        self.place = ground.settings.place or (rows // 2, columns // 2)
        self.making = Line()
        for c in ground.two:
            self._measure(c)

    def _task(self, coarseness: int, share: int = 1) -> Task:
        ground = self.ground
        recipe = replace(self.recipe, batch=self.recipe.batch // share)
        cell = self.place[0] // coarseness, self.place[1] // coarseness
        settings = replace(ground.settings, recipe=self.name, place=self.place)
        return Task(ground.archive, settings, recipe, ground.split, coarseness, ground.radar(coarseness), cell)

    def _measure(self, coarseness: int) -> None:
        """Make a few windows ready, without reading their frames."""
        ground = self.ground
        issues = ground.split.issues["train"][:WINDOWS]
        wanted = Wanted({"train": issues, "calibrate": issues[:0]}, np.zeros(len(issues)), 1.0, 0.0)
        view = self._task(coarseness).view(training=True)
        with (
            tempfile.TemporaryDirectory() as folder,
            Prepared(Path(folder), view, ground.radar(coarseness)) as prepared,
        ):
            taken = spent_on(lambda: prepared.fill(ground.archive, coarseness, wanted, 2**62, lambda *_: None))
        frames = len(window_slots(issues, ground.layout))
        cells = ground.cells(coarseness)
        self.making.add(cells, (taken - ground.reading.at(cells) * frames) * (1 / len(issues)))

    def _looking(self, task: Task, view: View) -> Spent:
        """Return what reading a batch's records from the disk, and making inputs of them, takes."""
        draw = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            rows = Rows(Path(folder) / "rows", np.dtype(np.uint8), (view.record_bytes,))
            rows.add(draw.integers(0, 256, (WINDOWS, view.record_bytes)).astype(np.uint8))
            wanted = draw.integers(0, WINDOWS, (task.recipe.batch, len(ages(task.radar))))
            at = draw.integers(0, len(view.nearby), task.recipe.batch)
            spent = spent_on(lambda: view.inputs(rows.read(wanted), at, 5), TIMES)
            rows.close()
        return spent

    def row(self, coarseness: int) -> Row:
        """Return what training at a coarseness takes."""
        ground, recipe, cells = self.ground, self.recipe, self.ground.cells(coarseness)
        task = self._task(coarseness, SHARE)
        view = task.view(training=True)
        if ground.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(ground.device)
        trial = trial_of(task, view, ground.device)
        trial()
        step = spent_on(trial, TIMES) * SHARE
        gpu = on_gpu(ground.device)
        looking = self._looking(task, view) * SHARE
        periods, thresholds = len(ground.layout.periods), len(ground.thresholds)
        network = recipe.network(view, periods, thresholds, ground.settings.width)
        x, guess, known, motion, _, _ = batch_of_nothing(replace(task, recipe=replace(recipe, batch=1)), view)
        parts = parts_of_network(network.eval())
        parts(x, guess, known, motion)
        asked = spent_on(lambda: parts(x, guess, known, motion), TIMES)

        train = ground.split.issues["train"]
        windows = max(1, round(len(train) * ground.kept_share))
        calibrated = min(len(ground.split.issues["calibrate"]), CALIBRATED_ON)
        decided = min(len(ground.split.issues["calibrate"]), DECIDED_ON)
        steps = steps_of(recipe, windows)
        epochs = steps * recipe.batch / windows
        read, make = ground.reading.at(cells), self.making.at(cells)
        frames = ground.slots_of(len(train), "train") + ground.slots_of(calibrated, "calibrate")
        before = (
            read * frames
            + make * (windows + calibrated)
            + step * 4
            + ground.straight_line(min(windows, LINE_WINDOWS) * periods * len(view.nearby))
        )
        after = (
            asked * (PLACES_A_WINDOW * calibrated + decided)
            + (read * ground.layout.length + make) * decided
            + ground.settling(PLACES_A_WINDOW * calibrated)
        )
        learning, looks = step * steps, looking * steps
        both = max(learning.wall, looks.wall, (learning.cpu + looks.cpu) / cores())
        with tempfile.TemporaryDirectory() as folder, Prepared(Path(folder), view, task.radar) as prepared:
            calibrate = evenly(ground.split.issues["calibrate"], CALIBRATED_ON)
            wanted = Wanted({"train": train, "calibrate": calibrate}, np.empty(0), 1.0, 0.0)
            ready = prepared.bytes_at_most(wanted)
        whole = self._task(coarseness)
        needs = place_needs(
            ground.archive, coarseness, task.radar, self.name, batched(whole, view), ground.settings.width, ground.base
        )
        disk = ready + 3 * state_bytes(network)
        return Row(
            recipe=self.name,
            coarseness=coarseness,
            cell_km=ground.archive.schema.grid.coarsened(coarseness).cell_km,
            cells=ground.shape(coarseness),
            values=int(x.numel()),
            weights=sum(p.numel() for p in network.parameters()),
            windows=windows,
            memory=needs.peak(ground.memory),
            least_memory=needs.least,
            disk=disk,
            steps=steps,
            epochs=epochs,
            seconds_per_epoch=both / epochs,
            seconds=ground.began.wall + before.wall + both + after.wall,
            cpu_seconds=ground.began.cpu + (before + learning + looks + after).cpu,
            gpu_memory=None if gpu is None else SHARE * gpu,
            fits=needs.least <= ground.memory and disk <= ground.free_disk,
        )
