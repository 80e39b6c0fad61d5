"""What a reader is, what it may be told, and what pictures hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from numpy import ndarray

from fastrain.core.frame import Frame
from fastrain.core.levels import LevelTable

if TYPE_CHECKING:
    from fastrain.sources.palette import Palette

MOST_PIXELS = 50_000_000  # a file that claims a larger picture is refused before anything is allocated
VALUES_AT_ONCE = 2**18  # of a picture, that are made levels together
HIGHEST_RATE = 300.0  # mm/h; what measured files state above it is no rain: hail, clutter, interference

Average = Literal["level", "rain_rate"]


@dataclass(frozen=True, eq=False)  # told apart by identity, so that what is made from one can be kept
class Background:
    """What a radar's pictures show where no rain is.

    Attributes:
        ground: colours, as 0xRRGGBB, that mean dry: land and water.
        hidden: (y, x) True where lines, labels, logos or the edge of the range hide the rain in every picture.
    """

    ground: tuple[int, ...]
    hidden: Bool[ndarray, "y x"]


@dataclass(frozen=True)
class ReadOptions:
    """What a user may tell a reader.

    Attributes:
        centre: latitude and longitude of the radar, degrees; from the table of sites if None.
        pixel_km: edge of a pixel, km; the picture's usual one if None.
        time_pattern: how the time stands in the file's name; the known patterns if None.
        site: the radar's code; read off the file's name if None.
        background: what the pictures show where no rain is; each picture by itself if None.
        palette: of the pictures; the format's own if None.
        mask: a picture that is not black where the rain is hidden.
        variable: of a file that holds several; the one that is rain if None.
        accumulation: over which an amount was summed; what the file says if None.
        importer: what to hand to an importer of pysteps, as names and values.
    """

    centre: tuple[float, float] | None = None
    pixel_km: float | None = None
    time_pattern: str | None = None
    site: str | None = None
    background: Background | None = None
    palette: Palette | None = None
    mask: Path | None = None
    variable: str | None = None
    accumulation: timedelta | None = None
    importer: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        recognises: tells from a file's path and its first bytes whether it is of this format.
        read: yields the frames of a file.
        average: of what the blocks' means are taken, unless a user says otherwise.
        credit: whom to thank for the data.
        credit_of: what a file itself says of that, where files of the format may.
        site_of: the radar's code in a file's name, for formats of one radar a picture.
        learn: what pictures show where no rain is, from many of them or from one that a user gives as such.
        time_pattern: how the time stands in the names, where no known pattern finds it.
        palette: of the format's pictures.
        many: whether one file may hold many frames, so that it is read frame by frame.
    """

    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path, ReadOptions], Iterator[Frame]]
    average: Average
    credit: str
    site_of: Callable[[str], str | None] | None = None
    learn: Callable[[Sequence[Path], Path | None, ReadOptions], Background] | None = None
    time_pattern: str | None = None
    palette: Callable[[], Palette] | None = None
    many: bool = False
    credit_of: Callable[[Path], str | None] | None = None


@cache
def binned_table() -> LevelTable:
    """Return the bins of measured rain rates, made once."""
    return LevelTable.binned()


def plausible(rain_rate: ndarray) -> ndarray:
    """Return rain rates in mm/h with what no rain can be (above HIGHEST_RATE, infinite) as not observed."""
    with np.errstate(invalid="ignore"):
        rain_rate[~(rain_rate <= HIGHEST_RATE)] = np.nan
    return rain_rate


def levels_by_pieces(
    stored: Shaped[ndarray, "*shape"], convert: Callable[[ndarray], UInt8[ndarray, " values"]]
) -> UInt8[ndarray, "*shape"]:
    """Return a picture as levels, made of some values at a time: as float64 it may be many times as large.

    Args:
        stored: numbers of any type.
        convert: numbers in a row to levels.
    """
    flat, level = np.ascontiguousarray(stored).reshape(-1), np.empty(stored.size, dtype=np.uint8)
    for at in range(0, flat.size, VALUES_AT_ONCE):
        level[at : at + VALUES_AT_ONCE] = convert(flat[at : at + VALUES_AT_ONCE])
    return level.reshape(stored.shape)
