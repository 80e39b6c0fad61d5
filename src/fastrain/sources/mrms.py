"""MRMS, the USA's composites: GRIB2, plain or gzipped, rain rate in mm/h on even latitudes and longitudes.

Negative values are not observed (-3: no radar sees the place). Needs the optional extra `grib` (eccodes), which runs
in a process of its own: its library brings a PROJ that ends a process which has used pyproj with a crash, and a damaged
file that brings it down must not take an ingest with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.time import time_in_name
from fastrain.sources.reader import MOST_PIXELS, Reader, ReadOptions, binned_table
from fastrain.sources.zipped import opened, unzipped_head

LARGEST = 64 * 2**20  # bytes of one message, unpacked from gzip; MRMS's have about one MiB
SECONDS = 120.0  # that decoding one may take
_SECTION_BYTES = 4


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether a file opens as GRIB, gzipped or not."""
    return unzipped_head(head, 16)[:4] == b"GRIB"


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: the file is truncated, or its grid is none of even degrees.
        SourceError: it holds something else than rain, or the extra `grib` is not installed.
    """
    message = _message(path)
    said, level = _decoder.decode(message, path.name)
    if "missing" in said:
        raise SourceError(f"{path.name}: GRIB2 needs eccodes: pip install 'fastrain[grib]' ({said['missing']}).")
    if "error" in said:
        raise DamagedFile(f"{path.name}: GRIB, but not as MRMS writes it ({said['error']}).")
    if said["factor"] is None:
        named = " ".join(sorted({said["shortName"], said["name"]} - {"unknown"})) or "an unknown quantity"
        numbers = "/".join(map(str, said["quantity"]))
        raise SourceError(f"{path.name}: holds {named} ({numbers}), not a rain rate; MRMS's PrecipRate is 209/6/1.")
    if said["forecast"]:
        raise SourceError(f"{path.name}: is a forecast of {said['forecast']} units ahead, not an observation.")
    rows, columns = said["rows"], said["columns"]
    frame = np.frombuffer(level, dtype=np.uint8).reshape(rows, columns)
    grid, upside_down = _grid(said, path.name)
    if upside_down:
        frame = np.ascontiguousarray(frame[::-1])
    yield Frame(frame, _time(said, path, options), grid, binned_table(), path.name)


def _message(path: Path) -> bytes:
    """Return the file's one message, checked to be whole: eccodes trusts the lengths it reads."""
    with opened(path) as file:
        message: bytes = file.read(LARGEST + 1)
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


def _grid(said: dict[str, Any], name: str) -> tuple[Grid, bool]:
    """Return the grid, and whether its first row is the southernmost."""
    rows, columns = said["rows"], said["columns"]
    if min(rows, columns) < 2:
        raise DamagedFile(f"{name}: {columns}×{rows} pixels are no map.")
    (first_lat, last_lat), (first_lon, last_lon) = said["latitudes"], said["longitudes"]
    step_lat, step_lon = abs(last_lat - first_lat) / (rows - 1), (last_lon - first_lon) % 360 / (columns - 1)
    west = first_lon - 360 if first_lon >= 180 else first_lon
    if not (step_lat > 0 and step_lon > 0):
        raise DamagedFile(f"{name}: from {first_lat},{first_lon} to {last_lat},{last_lon} degrees spans no map.")
    grid = Grid.of_degrees(max(first_lat, last_lat), west, round(step_lat, 9), round(step_lon, 9), (rows, columns))
    return grid, last_lat > first_lat


def _time(said: dict[str, Any], path: Path, options: ReadOptions) -> datetime:
    if options.time_pattern:
        return time_in_name(path.name, options.time_pattern)
    try:
        year, month, day, hour, minute, second = said["time"]
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return time_in_name(path.name)


class _Decoder:
    """The process that runs eccodes: started when first needed, ended with us, started anew where a file broke it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def decode(self, message: bytes, name: str) -> tuple[dict[str, Any], bytes]:
        """Return what `grib` says of a message, and its levels.

        Raises:
            DamagedFile: the message broke or hung the decoder.
        """
        with self._lock:
            process = self._running()
            assert process.stdin and process.stdout
            overdue = threading.Timer(SECONDS, process.kill)
            overdue.start()
            try:
                process.stdin.write(len(message).to_bytes(8, "big") + message)
                process.stdin.flush()
                said = json.loads(process.stdout.readline())
                level = process.stdout.read(said.get("bytes", 0))
                if len(level) != said.get("bytes", 0):
                    raise ValueError
            except (OSError, ValueError):
                self.close()
                raise DamagedFile(f"{name}: damaged GRIB: its decoder broke down over it.") from None
            finally:
                overdue.cancel()
            return said, level

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            # It ends by itself at the end of its input, so also when we are killed.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastrain.sources.grib"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process


_decoder = _Decoder()
atexit.register(_decoder.close)

READER = Reader(recognises=recognises, read=read, average="rain_rate", credit="NOAA MRMS (public domain)")
