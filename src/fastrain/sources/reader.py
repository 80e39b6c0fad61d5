"""What a reader is, what it may be told, and what pictures hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Bool
from numpy import ndarray

from fastrain.core.frame import Frame

MOST_PIXELS = 100_000_000  # a file that claims a larger picture is refused before anything is allocated


@dataclass(frozen=True)
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
    """

    centre: tuple[float, float] | None = None
    pixel_km: float | None = None
    time_pattern: str | None = None
    site: str | None = None
    background: Background | None = None


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        recognises: tells from the first bytes of a file whether it is of this format.
        read: yields the frames of a file.
        average: of what the blocks' means are taken, unless a user says otherwise.
        site_of: the radar's code in a file's name, for formats of one radar a picture.
        learn: what pictures show where no rain is, from many of them or from one that a user gives as such.
        credit: whom to thank for the data.
    """

    recognises: Callable[[bytes], bool]
    read: Callable[[Path, ReadOptions], Iterator[Frame]]
    average: Literal["level", "rain_rate"]
    credit: str
    site_of: Callable[[str], str | None] | None = None
    learn: Callable[[Sequence[Path], Path | None, ReadOptions], Background] | None = None
