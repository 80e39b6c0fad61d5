"""A picture's palette as data: which colour is which level, which is ground, and where the map stands.

Palettes are TOML: those of the package in `palettes/`, and a user's own (`fastrain palette` proposes one). A palette
names its colours in one or more legends, of which each picture shows one; or it says that the picture's index itself
is the level.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from fastrain.core.errors import FastrainError, SettingError
from fastrain.core.grid import Grid
from fastrain.core.levels import DRY, NOT_OBSERVED, LevelTable, rain_rate_of_reflectivity
from fastrain.sources.image_file import TRANSPARENT, nearest
from fastrain.sources.reader import MOST_PIXELS

Box = tuple[int, int, int, int]  # row, column, rows, columns
PACKAGED = ("eccc", "mch")

_KEYS = {
    "name", "credit", "format", "size", "crop", "legend_box", "title_box", "frame", "hide", "mask", "ground", "comment",
    "time_pattern", "average", "tolerance", "range_km", "radar", "grid", "legend", "index",
}  # fmt: skip
_LEGEND_KEYS = {"name", "named", "title_white", "edges", "colours", "aliases"}
_RADAR_KEYS = {"sites", "centre", "pixel_km", "position"}
_GRID_KEYS = {"crs", "west", "north", "step", "step_y"}
_INDEX_KEYS = {"first", "last", "not_observed", "dbz_zero", "dbz_step", "a", "b", "minutes"}


@dataclass(frozen=True)
class Legend:
    """One set of rain colours: colour, as 0xRRGGBB, to level; what the levels stand for; how its pictures are told."""

    name: str
    levels: Mapping[int, int]
    table: LevelTable
    named: str | None = None
    title_white: int | None = None


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is made from one can be kept
class Palette:
    """One kind of picture.

    Attributes:
        data: as the TOML has it; an archive of such pictures keeps it.
        size: rows and columns of the whole picture.
        crop: of the map within it.
        frame: width of the line around the map, pixels.
        hide: boxes within the crop that show something else than the map.
        legend_box, title_box: where the picture draws its legend, and the title over it.
        ground: colours that mean dry.
        legends: of which a picture shows one; empty where the index is the level.
        tolerance: how far a colour may be from the one it is taken for, in RGB; 0 for pictures without loss.
    """

    data: Mapping[str, Any]
    size: tuple[int, int]
    crop: Box
    frame: int
    hide: tuple[Box, ...]
    legend_box: Box | None
    title_box: Box | None
    ground: tuple[int, ...]
    legends: tuple[Legend, ...]
    tolerance: float

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.data["name"])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return self.crop[2], self.crop[3]

    @property
    def radar(self) -> Mapping[str, Any]:
        """Where the radar stands in the picture; empty where the palette names a map projection instead."""
        return dict(self.data.get("radar", {}))

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column, within the crop, of the radar's pixel."""
        row, column = self.radar["centre"]
        return row, column

    @property
    def table(self) -> LevelTable:
        """What the levels of the first legend stand for."""
        return self.index_table if self.by_index else self.legends[0].table

    @property
    def levels(self) -> Mapping[int, int]:
        """Level of each colour of the first legend."""
        return self.legends[0].levels

    @property
    def by_index(self) -> bool:
        """Whether the picture's index, not its colour, is the level."""
        return "index" in self.data

    @cached_property
    def index_table(self) -> LevelTable:
        """What the levels stand for where the index is the level."""
        said = self.data["index"]
        dbz = (np.arange(said["first"], said["last"] + 1) - said["dbz_zero"]) * said["dbz_step"]
        rate = rain_rate_of_reflectivity(dbz, a=said["a"], b=said["b"]) * 60.0 / said["minutes"]
        return LevelTable.codes(rate.tolist())

    @cached_property
    def index_lookup(self) -> UInt8[ndarray, 256]:
        """Level of each index where the index is the level."""
        said = self.data["index"]
        table = np.full(256, DRY, dtype=np.uint8)
        table[said["first"] : said["last"] + 1] = np.arange(1, said["last"] - said["first"] + 2)
        table[list(said["not_observed"])] = NOT_OBSERVED
        return table

    @cached_property
    def drawn_over(self) -> Bool[ndarray, "y x"]:
        """True where the frame and the boxes hide the map in every picture."""
        hidden = np.zeros(self.shape, dtype=bool)
        if self.frame:
            hidden[: self.frame] = hidden[-self.frame :] = True
            hidden[:, : self.frame] = hidden[:, -self.frame :] = True
        for row, column, rows, columns in self.hide:
            hidden[max(0, row) : max(0, row + rows), max(0, column) : max(0, column + columns)] = True
        return hidden

    @property
    def kept(self) -> dict[str, Any]:
        """What an archive keeps of the palette: all but the mask, which becomes part of the background."""
        return {key: value for key, value in self.data.items() if key != "mask"}

    def cut(self, picture: ndarray, box: Box | None = None) -> ndarray:
        """Return the map of a whole picture, or the part of it in a box."""
        row, column, rows, columns = box or self.crop
        return picture[row : row + rows, column : column + columns]

    def beyond(self, range_km: float, pixel_km: float) -> Bool[ndarray, "y x"]:
        """True where a pixel's centre lies beyond the radar's range."""
        rows, columns = np.ogrid[: self.shape[0], : self.shape[1]]
        return np.asarray(np.hypot(rows - self.centre[0], columns - self.centre[1]) * pixel_km > range_km)

    def lookup(self, colours: Int[ndarray, n], legend: Legend, ground: tuple[int, ...]) -> UInt8[ndarray, n]:
        """Return the level of each colour (0xRRGGBB); what is neither rain nor ground hides the rain."""
        table = {**dict.fromkeys(ground, DRY), **legend.levels}
        if not self.tolerance:
            return np.array([table.get(int(colour), NOT_OBSERVED) for colour in colours], dtype=np.uint8)
        clear = np.uint8(table.pop(TRANSPARENT, NOT_OBSERVED))  # no colour: it is near to none
        index, apart = nearest(colours, list(table))
        level = np.array([*table.values(), NOT_OBSERVED], dtype=np.uint8)[index]
        level = np.where(apart <= self.tolerance, level, NOT_OBSERVED)
        return np.where(colours == TRANSPARENT, clear, level).astype(np.uint8)

    def cropped(self, box: Box) -> Palette:
        """Return the palette with another crop; the radar, the grid and the hidden boxes stay where they are.

        Raises:
            SettingError: the box reaches out of the picture.
        """
        down, right = box[0] - self.crop[0], box[1] - self.crop[1]
        data: dict[str, Any] = {**self.data, "crop": list(box), "frame": 0}
        data["hide"] = [[r - down, c - right, h, w] for r, c, h, w in self.hide]
        if "centre" in self.radar:
            data["radar"] = {**self.radar, "centre": [self.centre[0] - down, self.centre[1] - right]}
        if "grid" in self.data:
            said: dict[str, Any] = dict(self.data["grid"])
            said["west"] += right * said["step"]
            said["north"] -= down * said.get("step_y", said["step"])
            data["grid"] = said
        return palette_of(data, f"--crop {','.join(map(str, box))}")

    def grid(self, pixel_km: float | None = None) -> Grid | None:
        """Return the grid that the palette itself names; None where each radar has its own.

        Args:
            pixel_km: edge of a pixel instead of the palette's, for pictures around a radar.
        """
        said = self.data.get("grid")
        if said:
            step_y = said.get("step_y", said["step"])
            return Grid(said["crs"], said["west"], said["north"], said["step"], step_y, self.shape)
        position = self.radar.get("position")
        if position:
            latitude, longitude = position
            return Grid.around(
                latitude, longitude, self.radar["pixel_km"] if pixel_km is None else pixel_km, self.shape, self.centre
            )
        return None


@cache
def load_palette(name: str) -> Palette:
    """Return a palette of the package by name."""
    text = (files("fastrain.sources") / "palettes" / f"{name}.toml").read_text(encoding="utf-8")
    return palette_of(tomllib.loads(text), f"{name}.toml")


def read_palette(path: Path) -> Palette:
    """Return a user's own palette.

    Raises:
        SettingError: the file is no TOML, or says what makes no sense; the message says which key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path}: cannot be read as a palette: {error}.") from None
    if "mask" in data:
        data["mask"] = str((path.parent / str(data["mask"])).resolve())
    return palette_of(data, path.name)


def palette_of(data: Mapping[str, Any], where: str) -> Palette:
    """Return the palette that a table of TOML describes.

    Raises:
        SettingError: a key is unknown, missing or out of range.
    """
    _known(data, _KEYS, where)
    try:
        size = _pair(data["size"])
        palette = Palette(
            data={"name": where.removesuffix(".toml"), **data},
            size=size,
            crop=_box(data.get("crop", (0, 0, *size))),
            frame=int(data.get("frame", 0)),
            hide=tuple(_box(box) for box in data.get("hide", ())),
            legend_box=_box(data["legend_box"]) if "legend_box" in data else None,
            title_box=_box(data["title_box"]) if "title_box" in data else None,
            ground=tuple(_colour(colour) for colour in data.get("ground", ())),
            legends=tuple(_legend(legend, where) for legend in data.get("legend", ())),
            tolerance=float(data.get("tolerance", 0.0)),
        )
        _sensible(palette, where)
    except KeyError as error:
        raise SettingError(f"{where}: lacks {error}.") from None
    except FastrainError:
        raise
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise SettingError(f"{where}: {error}.") from None
    return palette


def _sensible(palette: Palette, where: str) -> None:
    rows, columns = palette.size
    row, column, height, width = palette.crop
    if not (0 < rows * columns <= MOST_PIXELS and row >= 0 and column >= 0 and height > 0 and width > 0):
        raise SettingError(f"{where}: size {list(palette.size)} and crop {list(palette.crop)} hold no picture.")
    if row + height > rows or column + width > columns:
        raise SettingError(f"{where}: crop {list(palette.crop)} reaches out of the picture of {columns}×{rows} pixels.")
    for name, keys in (("radar", _RADAR_KEYS), ("grid", _GRID_KEYS), ("index", _INDEX_KEYS)):
        _known(palette.data.get(name, {}), keys, f"{where} [{name}]")
    if palette.by_index:
        _ = palette.index_table, palette.index_lookup
    elif not palette.legends:
        raise SettingError(f"{where}: needs a [[legend]] with edges and colours, or an [index].")
    elif not palette.ground:
        raise SettingError(f"{where}: ground is empty; name the colours of the map where no rain is.")
    if "grid" not in palette.data and not {"centre", "pixel_km"} <= set(palette.radar):
        raise SettingError(
            f"{where}: needs [radar] with centre and pixel_km, or [grid] with crs, west, north and step."
        )
    _ = palette.grid()


def _legend(said: Mapping[str, Any], where: str) -> Legend:
    where = f"{where} [[legend]] {said.get('name', '')}".rstrip()
    _known(said, _LEGEND_KEYS, where)
    colours, edges = list(said["colours"]), list(said["edges"])
    if not edges:
        raise SettingError(f"{where}: edges is empty; write in the lower end of each colour, in mm/h.")
    if len(colours) != len(edges):
        raise SettingError(f"{where}: {len(colours)} colours but {len(edges)} edges; each colour has its lower end.")
    if edges != sorted(set(edges)) or edges[0] <= 0 or not math.isfinite(edges[-1]):
        raise SettingError(f"{where}: edges {edges} must rise from above 0 mm/h.")
    levels = {_colour(colour): level for level, colour in enumerate(colours, start=1)}
    if len(levels) != len(colours):
        raise SettingError(f"{where}: a colour stands twice in colours.")
    levels |= {_colour(other): levels[_colour(colour)] for other, colour in said.get("aliases", {}).items()}
    return Legend(
        said.get("name", "rain"), levels, LevelTable.legend(edges), said.get("named"), said.get("title_white")
    )


def _known(data: Mapping[str, Any], keys: set[str], where: str) -> None:
    for key in data:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            raise SettingError(f"{where}: unknown key {key!r}{f'; did you mean {near[0]!r}?' if near else '.'}")


def _colour(text: str) -> int:
    if text == "transparent":
        return TRANSPARENT
    if len(text) != 6:
        raise ValueError(f"colour {text!r}: expected six hexadecimal digits like 99ccff, or transparent")
    return int(text, 16)


def _pair(value: Sequence[int]) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


def _box(value: Sequence[int]) -> Box:
    row, column, rows, columns = value
    return int(row), int(column), int(rows), int(columns)
