"""What is trained for one place, on what, and what a step of it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fastrain.archive.store import Archive
from fastrain.rain.budget import Batched
from fastrain.rain.fitting import trial
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.place.batches import PlaceBatch
from fastrain.rain.place.recipes import Recipe
from fastrain.rain.place.views import View, ages
from fastrain.rain.place.windows import GUESSES, known_of
from fastrain.rain.radar import Radar
from fastrain.samples.split import Split

FEWEST_STEPS = 60


@dataclass(frozen=True)
class Task:
    """What is trained, on what.

    Attributes:
        archive: to learn from.
        settings: of the user.
        recipe: of the settings.
        split: of the archive's time.
        coarseness: of the cells.
        radar: of the windows.
        cell: row and column of the place's cell.
    """

    archive: Archive
    settings: TrainSettings
    recipe: Recipe
    split: Split
    coarseness: int
    radar: Radar
    cell: tuple[int, int]

    def view(self, *, training: bool) -> View:
        """Return what the network sees, for training from the cells beside the place as well."""
        shape = self.archive.schema.grid.coarsened(self.coarseness).shape
        return self.recipe.view(self.radar, self.cell, shape, training)

    @property
    def control(self) -> int | None:
        """Seed of the shuffling of a control that must not learn."""
        return self.settings.seed if self.settings.shuffle_truth else None


def batch_of_nothing(task: Task, view: View) -> PlaceBatch:
    """Return a batch of empty windows: what maps hold does not matter to what they cost."""
    radar, size = task.radar, task.recipe.batch
    periods, thresholds = len(radar.layout.periods), len(radar.thresholds)
    records = np.zeros((size, len(ages(radar)), view.record_bytes), np.uint8)
    return (
        view.inputs(records, np.zeros(size, int), 0),
        torch.zeros(size, periods, thresholds, GUESSES),
        known_of(radar),
        torch.zeros(size, 2),
        torch.zeros(size, periods, dtype=torch.int8),
        torch.ones(size),
    )


def trial_of(task: Task, view: View, device: torch.device) -> Callable[[], None]:
    """Return what takes a step of training on windows of nothing."""
    recipe, radar = task.recipe, task.radar
    network = recipe.network(view, len(radar.layout.periods), len(radar.thresholds), task.settings.width)
    return trial(network, batch_of_nothing(task, view), recipe.loss, recipe.steering, device)


def batched(task: Task, view: View) -> Batched:
    """Return what a batch of windows takes."""
    shown = len(ages(task.radar))
    one = view.inputs(np.zeros((1, shown, view.record_bytes), np.uint8), np.zeros(1, int), 0)
    return Batched(task.recipe.batch, shown * view.record_bytes, one.numel() * one.element_size())


def steps_of(recipe: Recipe, windows: int) -> int:
    """Return how many steps a number of windows is worth."""
    return max(FEWEST_STEPS, min(recipe.epochs * windows, recipe.most) // recipe.batch)
