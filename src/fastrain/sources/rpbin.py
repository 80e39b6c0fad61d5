"""The ancestor's own files: `RAIN PREDICTOR BIN FILE`, version 4.

Four ASCII lines, then one gzip stream of payloads, each opening with a 16-bit big-endian magic number. A picture
(`a1b2`): version, width, height, x offset, y offset, coarseness, then width·height bytes of maximum and as many of
mean ratio. A prepared input (`a1b3`): version, length, modules, rings, then the bytes. The frame is the picture at
coarseness 1, where the maximum is the level itself. The format cannot say "not observed".
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from fastrain.core.errors import DamagedFile, SourceError
from fastrain.core.frame import Frame
from fastrain.core.grid import Grid
from fastrain.core.time import time_in_name
from fastrain.sources.palette import load_palette
from fastrain.sources.reader import Reader, ReadOptions
from fastrain.sources.sites import code_in_name, site_of

MAGIC_LINE = b"RAIN PREDICTOR BIN FILE"
VERSION = 4
PICTURE, PREPARED = 0xA1B2, 0xA1B3
MOST_PAYLOADS = 256


@dataclass(frozen=True)
class Payload:
    """One picture of the file: its maximum and mean ratio, (y, x) uint8, at one coarseness and offset in pixels."""

    maximum: UInt8[ndarray, "y x"]
    ratio: UInt8[ndarray, "y x"]
    coarseness: int
    x_offset: int
    y_offset: int


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether a file opens with the ancestor's line."""
    return head.startswith(MAGIC_LINE)


def read(path: Path, options: ReadOptions) -> Iterator[Frame]:
    """Yield the one frame of a file.

    Raises:
        DamagedFile: truncated, of another version, or without a picture at coarseness 1.
        SourceError: the radar's position is not known.
    """
    palette = load_palette("eccc")
    payloads = read_payloads(path)
    if 1 not in payloads:
        found = ", ".join(map(str, sorted(payloads))) or "none"
        raise DamagedFile(f"{path.name}: no picture at coarseness 1 (found: {found}); an archive starts from it.")
    picture = payloads[1]
    code = options.site or code_in_name(path.name)
    site = site_of(code) if code else None
    centre = options.centre or ((site.latitude, site.longitude) if site else None)
    if centre is None:
        raise SourceError(f"{path.name}: the radar's position is not known; give --centre LAT,LON --pixel-size KM.")
    at = (palette.centre[0] - picture.y_offset, palette.centre[1] - picture.x_offset)
    shape = (int(picture.maximum.shape[0]), int(picture.maximum.shape[1]))
    grid = Grid.around(*centre, palette.radar["pixel_km"] if options.pixel_km is None else options.pixel_km, shape, at)
    time = time_in_name(path.name, options.time_pattern)
    yield Frame(picture.maximum, time, grid, palette.table, path.name)


def read_payloads(path: Path) -> dict[int, Payload]:
    """Return the pictures of a file by their coarseness.

    Raises:
        DamagedFile: the file is truncated, of another version, or says it holds what it does not.
    """
    with path.open("rb") as file:
        _header(file, path.name)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                return dict(_payloads(stream, path.name))
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise DamagedFile(f"{path.name}: truncated or damaged gzip ({error}).") from None


def write_payloads(path: Path, payloads: Sequence[Payload], highest: int) -> None:
    """Write a file of the ancestor's.

    Args:
        path: of the file.
        payloads: pictures, that of coarseness 1 among them.
        highest: level of the legend.
    """
    total = sum(int(p.maximum.sum(dtype=np.int64)) for p in payloads if p.coarseness == 1)
    with path.open("wb") as file:
        file.write(MAGIC_LINE + f"\nVERSION {VERSION}\nMAXVAL {highest}\nTOTALRAIN {total}\n".encode())
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9, mtime=0, filename="") as stream:
            for p in payloads:
                height, width = p.maximum.shape
                head = (PICTURE, 1, width, height, p.x_offset, p.y_offset, p.coarseness)
                stream.write(struct.pack(">7H", *head) + p.maximum.tobytes() + p.ratio.tobytes())


def _header(file: io.BufferedReader, name: str) -> None:
    lines = [file.readline(64).rstrip(b"\n") for _ in range(4)]
    words = [line.split(b" ") for line in lines[1:]]
    if lines[0] != MAGIC_LINE or [w[0] for w in words] != [b"VERSION", b"MAXVAL", b"TOTALRAIN"]:
        raise DamagedFile(f"{name}: the four lines at its head are not those of a RAIN PREDICTOR BIN FILE.")
    if not all(len(w) == 2 and w[1].isdigit() for w in words) or int(words[0][1]) != VERSION:
        raise DamagedFile(f"{name}: {lines[1].decode('latin-1')!r}, expected 'VERSION {VERSION}'.")


def _payloads(stream: Any, name: str) -> Iterator[tuple[int, Payload]]:
    for _ in range(MOST_PAYLOADS):
        magic = stream.read(2)
        if not magic:
            return
        if len(magic) == 2 and struct.unpack(">H", magic)[0] == PICTURE:
            version, width, height, x, y, coarseness = struct.unpack(">6H", _exactly(stream, 12, name))
            if version != 1 or coarseness < 1 or width * height == 0:
                raise DamagedFile(f"{name}: a picture of {width}×{height}, coarseness {coarseness}, version {version}.")
            maximum, ratio = (
                np.frombuffer(_exactly(stream, width * height, name), dtype=np.uint8).reshape(height, width)
                for _ in range(2)
            )
            yield coarseness, Payload(maximum, ratio, coarseness, x, y)
        elif len(magic) == 2 and struct.unpack(">H", magic)[0] == PREPARED:
            _, length, _, _ = struct.unpack(">4H", _exactly(stream, 8, name))
            _exactly(stream, length, name)
        else:
            raise DamagedFile(f"{name}: a payload opens with {magic.hex()}, expected a1b2 or a1b3.")
    raise DamagedFile(f"{name}: more than {MOST_PAYLOADS} payloads.")


def _exactly(stream: Any, count: int, name: str) -> bytes:
    data: bytes = stream.read(count)
    if len(data) != count:
        raise DamagedFile(f"{name}: truncated: {len(data)} of {count} bytes of a payload.")
    return data


READER = Reader(
    recognises=recognises,
    read=read,
    average="level",
    site_of=code_in_name,
    credit="Environment and Climate Change Canada (Data Servers End-use Licence)",
)
