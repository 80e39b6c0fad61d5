"""The Finnish Meteorological Institute's composites: PGM, gzipped or not, with the projection in the header's comments.

A byte v stands for (v − 64) / 2 dBZ, 255 for not observed; Z = 223 R^1.53. The bytes are kept as levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np

from fastrain.core.errors import DamagedFile
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable, rain_rate_of_reflectivity
from fastrain.core.time import time_in_name
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions
from fastrain.sources.zipped import opened, unzipped_head

SPHERE = (
    6_371_288.0  # m; with it the header's corners, divided by its pixels, give its metres per pixel to the millimetre
)
_LONGEST_HEADER = 16_384


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether a file opens as a PGM with FMI's comments, gzipped or not."""
    head = unzipped_head(head, 512)
    return head[:2] == b"P5" and b"obstime" in head


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the file is no such PGM, or is truncated.
    """
    with opened(path) as file:
        head = file.read(_LONGEST_HEADER)
        comments, shape, start = _header(head, path.name)
        wanted = shape[0] * shape[1]
        # One byte more than wanted shows a file that is too long, and never more than that is unpacked.
        body = head[start:] + file.read(max(0, wanted + 1 - (len(head) - start)))
    if len(body) != wanted:
        size = f"more than {wanted}" if len(body) > wanted else str(len(body))
        raise DamagedFile(f"{path.name}: {size} bytes of picture, expected {shape[1]}×{shape[0]} = {wanted}.")
    level = np.frombuffer(body, dtype=np.uint8).reshape(shape)
    yield Frame(level, _time(comments, path, options), _grid(comments, shape, path.name), table(), path.name)


@cache
def table() -> LevelTable:
    """Return what FMI's bytes 1..254 stand for."""
    reflectivity = (np.arange(1, 255) - 64) / 2.0
    return LevelTable.codes(rain_rate_of_reflectivity(reflectivity, a=223.0, b=1.53).tolist())


def _header(head: bytes, name: str) -> tuple[dict[str, str], tuple[int, int], int]:
    match = re.match(rb"P5\s+((?:#[^\n]*\n\s*)*)(\d{1,6})\s+(\d{1,6})\s+(\d{1,5})\s", head)
    if not match:
        raise DamagedFile(f"{name}: no PGM header within the first {_LONGEST_HEADER} bytes.")
    columns, rows, highest = (int(match.group(i)) for i in (2, 3, 4))
    if highest != 255 or rows * columns < 1 or rows * columns > MOST_PIXELS:
        raise DamagedFile(f"{name}: {columns}×{rows} pixels up to {highest}, expected bytes up to 255.")
    comments = {}
    for line in match.group(1).decode("latin-1").splitlines():
        words = line.lstrip("# ").split(maxsplit=1)
        if len(words) == 2:
            comments[words[0]] = words[1]
    return comments, (rows, columns), match.end()


def _time(comments: dict[str, str], path: Path, options: ReadOptions) -> datetime:
    if options.time_pattern is None and re.fullmatch(r"\d{12}", comments.get("obstime", "")):
        try:
            return datetime.strptime(comments["obstime"], "%Y%m%d%H%M").replace(tzinfo=UTC)
        except ValueError:
            pass
    return time_in_name(path.name, options.time_pattern)


def _grid(comments: dict[str, str], shape: tuple[int, int], name: str) -> Grid:
    from pyproj import Proj

    try:
        number = {key: float(comments[key]) for key in ("centrallongitude", "centrallatitude", "truelatitude")}
        corners = [tuple(map(float, comments[key].split())) for key in ("bottomleft", "topright")]
        (west_lon, south_lat), (east_lon, north_lat) = corners
    except (KeyError, ValueError):
        raise DamagedFile(f"{name}: the header's projection is missing or incomplete.") from None
    crs = (
        f"+proj=stere +lat_0={number['centrallatitude']:g} +lon_0={number['centrallongitude']:g} "
        f"+lat_ts={number['truelatitude']:g} +R={SPHERE:.0f} +units=m +no_defs"
    )
    project = Proj(crs)
    west, south = project(west_lon, south_lat)
    east, north = project(east_lon, north_lat)
    if not (np.isfinite([west, south, east, north]).all() and west < east and south < north):
        raise DamagedFile(f"{name}: the header's corners {corners} span no area.")
    step_x, step_y = (east - west) / shape[1], (north - south) / shape[0]
    return Grid(crs, west + step_x / 2, north - step_y / 2, step_x, step_y, shape)


READER = Reader(
    recognises=recognises,
    read=read,
    average="rain_rate",
    credit="Finnish Meteorological Institute (CC BY 4.0)",
)
