"""MRMS, the USA's composites: GRIB2, plain or gzipped, rain rate in mm/h on even latitudes and longitudes.

Negative values are not observed (-3: no radar sees the place). Needs the optional extra `grib` (eccodes).
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.levels import LevelTable
from fastrain.core.time import time_in_name
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, plausible

LARGEST = 128 * 2**20  # bytes of one message, unpacked from gzip; MRMS's have about one MiB
_ROWS_AT_ONCE = 256
_SECTION_BYTES = 4


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether a file opens as GRIB, gzipped or not."""
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 16)
        except zlib.error:
            return False
    return head[:4] == b"GRIB"


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the file is truncated, or its grid is none of even degrees.
        SourceError: the extra `grib` is not installed.
    """
    try:
        import eccodes
    except (ImportError, RuntimeError) as error:
        raise SourceError(
            f"{path.name}: GRIB2 needs eccodes: pip install 'fastrain[grib]' ({str(error).splitlines()[0]})."
        ) from None
    message = _message(path)
    try:
        handle = eccodes.codes_new_from_message(message)
    except eccodes.CodesInternalError as error:
        raise DamagedFile(f"{path.name}: truncated or damaged GRIB ({error}).") from None
    try:
        yield _frame(eccodes, handle, path, options)
    except eccodes.CodesInternalError as error:
        raise DamagedFile(f"{path.name}: GRIB, but not as MRMS writes it ({error}).") from None
    finally:
        eccodes.codes_release(handle)


@cache
def table() -> LevelTable:
    """Return the bins of the rain rates."""
    return LevelTable.binned()


def _message(path: Path) -> bytes:
    """Return the file's one message, checked to be whole: eccodes trusts the lengths it reads."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    opener: Any = gzip.open if zipped else open
    try:
        with opener(path, "rb") as file:
            message: bytes = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DamagedFile(f"{path.name}: truncated or damaged gzip ({error}).") from None
    if message[:4] != b"GRIB" or len(message) < 16 or message[7] != 2:
        raise DamagedFile(f"{path.name}: no GRIB2 message.")
    said = int.from_bytes(message[8:16], "big")
    if said > len(message) or said > LARGEST or message[said - 4 : said] != b"7777":
        raise DamagedFile(f"{path.name}: truncated: {len(message)} of {said} bytes of its message.")
    _check_sections(message[:said], path.name)
    return message[:said]


def _check_sections(message: bytes, name: str) -> None:
    """Refuse a message whose sections do not follow each other to its end, or that claims too many pixels."""
    at = 16
    while at < len(message) - 4:
        length = int.from_bytes(message[at : at + _SECTION_BYTES], "big")
        if length < 5 or at + length > len(message) - 4:
            raise DamagedFile(f"{name}: damaged: a section of {length} bytes at byte {at}.")
        number = message[at + 4]
        if number in (3, 5):
            points = int.from_bytes(message[at + (6 if number == 3 else 5) :][:4], "big")
            if points > MOST_PIXELS:
                raise DamagedFile(f"{name}: claims {points} pixels; too many.")
        at += length


def _frame(eccodes: Any, handle: Any, path: Path, options: ReadOptions) -> Frame:
    def get(key: str) -> Any:
        return eccodes.codes_get(handle, key)

    if get("gridType") != "regular_ll":
        raise DamagedFile(f"{path.name}: a grid of type {get('gridType')}, expected even degrees (regular_ll).")
    rows, columns = get("Nj"), get("Ni")
    if not 0 < rows * columns <= MOST_PIXELS or get("iScansNegatively") or get("jPointsAreConsecutive"):
        raise DamagedFile(f"{path.name}: {columns}×{rows} pixels, expected rows from west to east.")
    names = {get("shortName"), get("name")} - {"unknown"}
    if not (get("discipline") == 209 or any("rain" in n.lower() or "precip" in n.lower() for n in names)):
        raise SourceError(f"{path.name}: holds {', '.join(sorted(names)) or 'an unknown quantity'}, expected rain rate.")
    grid, flip = _grid(get, rows, columns, path.name)
    values = eccodes.codes_get_values(handle).reshape(rows, columns)
    level = np.empty((rows, columns), dtype=np.uint8)
    for row in range(0, rows, _ROWS_AT_ONCE):
        rate = np.array(values[row : row + _ROWS_AT_ONCE], dtype=np.float64)
        rate[rate < 0] = np.nan
        level[row : row + _ROWS_AT_ONCE] = table().encode(plausible(rate))
    return Frame(np.ascontiguousarray(level[::-1] if flip else level), _time(get, path, options), grid, table(), path.name)


def _grid(get: Any, rows: int, columns: int, name: str) -> tuple[Grid, bool]:
    first_lat, last_lat, first_lon, last_lon = (
        get(f"{axis}Of{which}GridPointInDegrees") for axis in ("latitude", "longitude") for which in ("First", "Last")
    )
    if min(rows, columns) < 2:
        raise DamagedFile(f"{name}: {columns}×{rows} pixels are no map.")
    width = (last_lon - first_lon) % 360
    step_lat, step_lon = abs(last_lat - first_lat) / (rows - 1), width / (columns - 1)
    west = first_lon - 360 if first_lon >= 180 else first_lon
    if not (step_lat > 0 and step_lon > 0):
        raise DamagedFile(f"{name}: from {first_lat},{first_lon} to {last_lat},{last_lon} degrees spans no map.")
    grid = Grid.of_degrees(max(first_lat, last_lat), west, round(step_lat, 9), round(step_lon, 9), (rows, columns))
    return grid, last_lat > first_lat


def _time(get: Any, path: Path, options: ReadOptions) -> datetime:
    if options.time_pattern:
        return time_in_name(path.name, options.time_pattern)
    try:
        return datetime(*(int(get(part)) for part in ("year", "month", "day", "hour", "minute", "second")), tzinfo=UTC)  # type: ignore[misc]
    except ValueError:
        return time_in_name(path.name)


READER = Reader(recognises=recognises, read=read, average="rain_rate", credit="NOAA MRMS (public domain)")
