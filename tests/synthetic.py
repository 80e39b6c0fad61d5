"""The one factory of made-up radar data for all tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from fastrain.archive.schema import Schema
from fastrain.archive.writer import writing
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable
from fastrain.core.time import TimeAxis

START = datetime(2024, 7, 1, tzinfo=UTC)
CADENCE = timedelta(minutes=5)
TABLE = LevelTable.binned()


def grid(rows: int, columns: int, pixel_km: float = 4.0) -> Grid:
    """Return a grid around 50 N, 10 E."""
    return Grid.around(50.0, 10.0, pixel_km, (rows, columns), (rows // 2, columns // 2))


def moving_rain(frames: int, size: int = 64, seed: int = 0, speed: tuple[float, float] = (0.4, 0.9)) -> np.ndarray:
    """Return rain rates (time, y, x) in mm/h: blobs on a wide plane under a moving window, slowly growing and decaying.

    The window moves by `speed` pixels a frame, so that the rain moves the other way.
    """
    draw = np.random.default_rng(seed)
    extent = size + int(np.ceil(max(abs(s) for s in speed) * frames)) + 8
    planes = [gaussian_filter(draw.normal(size=(extent, extent)), 4.0, mode="wrap") for _ in range(2)]
    planes = [p / p.std() for p in planes]
    out = np.empty((frames, size, size), np.float32)
    y, x = np.mgrid[:size, :size]
    for t in range(frames):
        phase = 2 * np.pi * t / 70
        field = np.cos(phase) * planes[0] + np.sin(phase) * planes[1]
        rows, columns = (y + speed[0] * t), (x + speed[1] * t)
        out[t] = bilinear(field, rows, columns)
    # A lognormal of the field: rain above its upper third, heavy at its peaks.
    return np.where(out > 0.4, np.exp(1.6 * (out - 0.4)) * 0.15, 0.0).astype(np.float32)


def drifting_rain(frames: int, size: int = 64, by: tuple[float, float] = (0.12, 0.2)) -> np.ndarray:
    """Return rain rates (time, y, x) in mm/h that stay as they are; the window moves by `by` pixels a frame."""
    plane = moving_rain(1, size=size + 32, seed=8)[0]
    y, x = np.mgrid[:size, :size] + 8.0
    return np.stack([bilinear(plane, y + by[0] * t, x + by[1] * t) for t in range(frames)]).astype(np.float32)


def bilinear(field: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a field at fractional places."""
    r, c = np.floor(rows).astype(int), np.floor(columns).astype(int)
    a, b = rows - r, columns - c
    top = field[r, c] * (1 - b) + field[r, c + 1] * b
    low = field[r + 1, c] * (1 - b) + field[r + 1, c + 1] * b
    return top * (1 - a) + low * a


def frames_of(rates: np.ndarray, start: datetime = START, cadence: timedelta = CADENCE) -> list[Frame]:
    """Return frames of rain rates; NaN is not observed."""
    where = grid(*rates.shape[1:])
    levels = TABLE.encode(rates.astype(float))
    return [Frame(level, start + i * cadence, where, TABLE, f"frame {i}") for i, level in enumerate(levels)]


def schema(rows: int, columns: int, coarseness: tuple[int, ...] = (2,), cadence: timedelta = CADENCE) -> Schema:
    """Return the schema of an archive of such frames."""
    return Schema(
        grid(rows, columns), TABLE, TimeAxis.through(START, cadence), coarseness, "rain_rate", "synthetic", "nobody"
    )


def write_archive(path: Path, rates: np.ndarray, coarseness: tuple[int, ...] = (2,)) -> None:
    """Write an archive of rain rates, a frame every five minutes."""
    with writing(path, schema(*rates.shape[1:], coarseness)) as writer:
        writer.write(frames_of(rates))
        writer.commit("synthetic")
