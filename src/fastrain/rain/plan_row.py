"""A row of a plan: what training takes by one recipe at one coarseness."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What training takes by one recipe at one coarseness.

    Attributes:
        recipe: `grid`, or one of a place.
        coarseness: of the cells.
        cell_km: their edge.
        cells: rows and columns of the map.
        values: numbers that the network sees of one sample.
        weights: of the network.
        windows: to train on, about.
        memory: bytes at the peak, of all that the program takes.
        least_memory: bytes that it can do with where `--memory` allows no more.
        disk: bytes of checkpoints and of windows made ready.
        steps: of the training.
        epochs: passes over the windows.
        seconds_per_epoch: of the wall clock.
        seconds: in all, from the command to the finished run.
        cpu_seconds: of all processors, the same.
        fits: whether memory and disk suffice.
        gpu_memory: bytes of a GPU's memory; None where none trains.
    """

    recipe: str
    coarseness: int
    cell_km: float
    cells: tuple[int, int]
    values: int
    weights: int
    windows: int
    memory: int
    least_memory: int
    disk: int
    steps: int
    epochs: float
    seconds_per_epoch: float
    seconds: float
    cpu_seconds: float
    fits: bool
    gpu_memory: int | None = None
