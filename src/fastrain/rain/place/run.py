"""A run of one place: its network, where it looks, and its forecasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from fastrain.archive.store import Archive
from fastrain.core.errors import PlaceError, RunError
from fastrain.engine.precision import computing
from fastrain.rain.place.hindcast import Parts, cases, logits_of
from fastrain.rain.place.recipes import RECIPES
from fastrain.rain.place.views import View
from fastrain.rain.radar import Radar
from fastrain.samples.frames import load_frames

if TYPE_CHECKING:
    from fastrain.rain.run import Run


def parts_of_network(network: nn.Module) -> Parts:
    """Return what gives both summands of the logits of some windows, each (window, period, threshold)."""

    @torch.inference_mode()
    def parts(x: Tensor, guess: Tensor, known: Tensor, motion: Tensor) -> tuple[ndarray, ndarray]:
        with computing("cpu"):
            straight, learned = network.parts(x, guess, known, motion)  # type: ignore[operator]
        return straight.float().numpy(), learned.float().numpy()

    return parts


def place_parts(run: Run, radar: Radar, view: View) -> Parts:
    """Return what a run's network says of windows that are seen in its way."""
    network = RECIPES[run.recipe].network(
        view, len(radar.layout.periods), len(radar.thresholds), int(run.facts["network"]["width"])
    )
    return parts_of_network(run.loaded(network))


def view_of(run: Run, archive: Archive, radar: Radar) -> View:
    """Return where a run looks on an archive.

    Raises:
        PlaceError: its place lies outside the archive's picture.
        RunError: the archive's cells or frames are not those that its network learned.
    """
    coarseness = run.coarseness_on(archive)
    pixel = run.place_on(archive.schema.grid)
    rows, columns = archive.schema.grid.shape
    if pixel is None or not (0 <= pixel[0] < rows and 0 <= pixel[1] < columns):
        raise PlaceError(f"{archive.path}: the place of {run.path} lies outside its picture.")
    minutes, km = run.facts["cadence_minutes"], run.cell_km
    if km is None or radar.minutes != minutes or abs(radar.cell_km / km - 1) > 0.05:
        raise RunError(
            f"{archive.path}: frames every {radar.minutes:g} min and cells of {radar.cell_km:.3g} km; {run.path} "
            f"learned {minutes:g} min and {km:.3g} km: train a run on this radar."
        )
    shape = archive.schema.grid.coarsened(coarseness).shape
    return RECIPES[run.recipe].view(radar, (pixel[0] // coarseness, pixel[1] // coarseness), shape, False)


def place_chances(
    run: Run, archive: Archive, radar: Radar, issue: int
) -> tuple[Float[ndarray, "period threshold 1 1"], tuple[int, int]]:
    """Return the chances at a run's place, NaN where the radar does not see it, and the row and column of its cell."""
    view = view_of(run, archive, radar)
    history = np.arange(issue - radar.layout.history + 1, issue + 1)
    frames = load_frames(archive, run.coarseness_on(archive), history)
    (case,) = cases(frames, np.array([issue]), view, radar, ahead=False)
    chance = run.calibration.chances(logits_of(place_parts(run, radar, view), case, radar))
    if not case.seen:
        chance = np.full_like(chance, np.nan)
    row, column = view.nearby[0]
    return chance, (int(row), int(column))
