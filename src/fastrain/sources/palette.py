"""A picture's palette as data: which colour is which level, which is ground, and where the map stands."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from fastrain.core.levels import DRY, NOT_OBSERVED, LevelTable


@dataclass(frozen=True)
class Palette:
    """One kind of picture.

    Attributes:
        size: rows and columns of the whole picture.
        crop: row, column, rows and columns of the map within it.
        centre: row and column, within the crop, of the radar's pixel.
        pixel_km: edge of a pixel, km.
        frame: width of the line around the map, pixels.
        hide: boxes within the crop (row, column, rows, columns) that show something else than the map.
        levels: colour, as 0xRRGGBB, to level.
        ground: colours that mean dry.
        table: what the levels stand for.
    """

    size: tuple[int, int]
    crop: tuple[int, int, int, int]
    centre: tuple[int, int]
    pixel_km: float
    frame: int
    hide: tuple[tuple[int, int, int, int], ...]
    levels: dict[int, int]
    ground: tuple[int, ...]
    table: LevelTable

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return self.crop[2], self.crop[3]

    def cut(self, picture: ndarray) -> ndarray:
        """Return the map of a whole picture."""
        row, column, rows, columns = self.crop
        return picture[row : row + rows, column : column + columns]

    @cached_property
    def drawn_over(self) -> Bool[ndarray, "y x"]:
        """True where the frame and the boxes hide the map in every picture."""
        hidden = np.zeros(self.shape, dtype=bool)
        if self.frame:
            hidden[: self.frame] = hidden[-self.frame :] = True
            hidden[:, : self.frame] = hidden[:, -self.frame :] = True
        for row, column, rows, columns in self.hide:
            hidden[row : row + rows, column : column + columns] = True
        return hidden

    def beyond(self, range_km: float, pixel_km: float) -> Bool[ndarray, "y x"]:
        """True where a pixel's centre lies beyond the radar's range."""
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        return np.asarray(np.hypot(rows - self.centre[0], columns - self.centre[1]) * pixel_km > range_km)

    def lookup(self, colours: ndarray, ground: tuple[int, ...]) -> UInt8[ndarray, colours]:
        """Return the level of each colour (0xRRGGBB); what is neither rain nor ground hides the rain."""
        table = {**dict.fromkeys(ground, DRY), **self.levels}
        return np.array([table.get(int(colour), NOT_OBSERVED) for colour in colours], dtype=np.uint8)


@cache
def load_palette(name: str) -> Palette:
    """Return a palette of the package by name."""
    text = (files("fastrain.sources") / "palettes" / f"{name}.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    levels = {int(colour, 16): level for level, colour in enumerate(data["colours"], start=1)}
    levels |= {int(other, 16): levels[int(colour, 16)] for other, colour in data.get("aliases", {}).items()}
    return Palette(
        size=tuple(data["size"]),
        crop=tuple(data["crop"]),
        centre=tuple(data["centre"]),
        pixel_km=data["pixel_km"],
        frame=data["frame"],
        hide=tuple(tuple(box) for box in data["hide"]),
        levels=levels,
        ground=tuple(int(colour, 16) for colour in data["ground"]),
        table=LevelTable.legend(data["edges"]),
    )
