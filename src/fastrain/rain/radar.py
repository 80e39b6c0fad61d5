"""What is known of a radar whose windows are looked at, and what its frames say in mm/h."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int8
from numpy import ndarray
from torch import Tensor

from fastrain.archive.schema import Schema
from fastrain.core.errors import SettingError
from fastrain.core.levels import LevelTable
from fastrain.rain.baselines import motion_ages
from fastrain.samples.frames import Frames
from fastrain.samples.layout import FrameLayout
from fastrain.samples.truth import outcomes

Truth = Literal["maximum", "mean"]
TRUTHS: tuple[Truth, ...] = ("maximum", "mean")

AGES = 3  # of the history's frames, how many are shown


@dataclass(frozen=True)
class Radar:
    """What inputs are made from besides the frames.

    Attributes:
        table: of the levels.
        average: what the blocks' means are of.
        cadence: between frames.
        cell_km: edge of a block.
        thresholds: mm/h, rising.
        layout: of the windows, in frames.
        truth: of which of a block's two rates a chance speaks, its maximum or its mean.
    """

    table: LevelTable
    average: str
    cadence: timedelta
    cell_km: float
    thresholds: tuple[float, ...]
    layout: FrameLayout
    truth: Truth = "maximum"

    @classmethod
    def of(
        cls,
        schema: Schema,
        coarseness: int,
        thresholds: tuple[float, ...],
        layout: FrameLayout,
        truth: Truth = "maximum",
    ) -> Radar:
        """Return what an archive says of its radar."""
        cell_km = schema.grid.coarsened(coarseness).cell_km
        average = schema.average if coarseness > 1 else "level"
        radar = cls(schema.table, average, schema.axis.cadence, cell_km, thresholds, layout, truth)
        if truth == "mean" and coarseness > 1 and not radar.speaks_of_means:
            raise SettingError(
                "Chances of a cell's mean need an archive of mean rain rates; its means are of levels: ingest anew "
                "with --average rain_rate."
            )
        return radar

    @property
    def speaks_of_means(self) -> bool:
        """Whether the blocks' means are of rain rates, so that chances of them have a meaning in mm/h."""
        return self.average == "rain_rate"

    @property
    def first_levels(self) -> tuple[int, ...]:
        """The lowest level that reaches each threshold."""
        return tuple(self.table.first_level(threshold) for threshold in self.thresholds)

    @property
    def ages(self) -> tuple[int, ...]:
        """Ages, in frames, of the history's frames that are shown."""
        return tuple(round(i * self.layout.history / AGES) for i in range(AGES))

    @property
    def motion_ages(self) -> tuple[int, ...]:
        """Ages, in frames, of the frames that motion is sought in, the oldest first."""
        return motion_ages(self.layout.history, self.minutes)

    def spoken(self, highest: Tensor, mean: Tensor) -> Tensor:
        """Return those of a block's two rates of which the chances speak."""
        return mean if self.truth == "mean" else highest

    @property
    def minutes(self) -> float:
        """Minutes between frames."""
        return self.cadence.total_seconds() / 60


def rain_rates(frames: Frames, rows: ndarray, radar: Radar) -> tuple[Tensor, Tensor, Tensor]:
    """Return the blocks' maximum and mean rain rate, mm/h, 0 where not observed, and where they are observed."""
    level = frames.maximum[rows]
    rates = np.nan_to_num(radar.table.rates).astype(np.float32)
    highest = rates[level]
    ratio = frames.ratio[rows].astype(np.float32) / 255
    if radar.average == "rain_rate":
        mean = highest * ratio
    else:
        # A mean of levels lies between two levels: between their rates, then.
        mean = np.interp(level * ratio, np.arange(radar.table.count + 1), rates[: radar.table.count + 1])
        mean = np.where(level == 255, 0, mean).astype(np.float32)
    observed = torch.from_numpy(level != 255)
    return torch.from_numpy(highest), torch.from_numpy(mean), observed


def happened(frames: Frames, issue: int, radar: Radar) -> Int8[ndarray, "period y x"]:
    """Return how many of a radar's thresholds were reached in each period after a slot, −1 where there is no truth."""

    def reached(rows: ndarray) -> Int8[ndarray, "rows y x"]:
        _, mean, _ = rain_rates(frames, rows, radar)
        return sum((mean >= t * (1 - 1e-6)).to(torch.int8) for t in radar.thresholds).numpy()  # type: ignore[union-attr]

    of = reached if radar.truth == "mean" else None
    return outcomes(frames, issue, radar.layout, radar.first_levels, of)
