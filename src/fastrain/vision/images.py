"""Picture files as bytes of one size, ready for a network; what cannot be read is named."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy import ndarray
from PIL import Image, ImageOps, UnidentifiedImageError

from fastrain.core.errors import DamagedFile, SourceError, TooBig, first_line
from fastrain.core.memory import available_bytes
from fastrain.core.shapes import Int, UInt8

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# Pictures too, which are not read: those are told, so that nobody trains without them unawares.
OTHERS = (
    *(".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".svg", ".ppm", ".pgm", ".tga", ".ico"),
    *(".psd", ".dng", ".cr2", ".nef", ".arw"),
)
# What is decoded: others of the library's kinds are rare, and some hand the file to programs outside.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SMALLEST_EDGE = 4  # pixels
LARGEST_EDGE = 256  # pixels: what a small-image network is for; larger ones are brought down by `edge`
NAMED = 5  # images that cannot be read, of which a message tells the names
_AT_ONCE = 200  # images that a thread decodes in one go


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        edge: pixels; every image is cut to a square and brought to this edge. None takes them as they are, of one size.
        hold_out: share that is kept to test on, where the data set has no test part of its own.
        skip_broken: leave out images that cannot be read, instead of refusing the data set.
    """

    edge: int | None = None
    hold_out: float = 0.2
    skip_broken: bool = False

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and columns that every image is brought to."""
        return None if self.edge is None else (self.edge, self.edge)


@dataclass(frozen=True)
class Decoded:
    """Pictures as bytes.

    Attributes:
        images: those that could be read.
        kept: their places among those asked for.
        broken: name and reason of each other one.
    """

    images: UInt8[ndarray, "image y x channel"]
    kept: Int[ndarray, image]
    broken: tuple[tuple[str, str], ...] = ()


def decoded(pictures: Sequence[tuple[str, bytes | Path]], where: str, reading: Reading | None = None) -> Decoded:
    """Return pictures as bytes of one size, grey ones with one channel where all are grey.

    Args:
        pictures: name, and contents or the file that holds them, of each.
        where: to say in an error.
        reading: see there.

    Raises:
        DamagedFile: an image cannot be read and is not to be left out, or there is none, or sizes differ.
        TooBig: they do not fit into memory, or are beyond a small-image network.
    """
    # A picture of a hundred million pixels is taken for an attack by the library, which then only warns; what is set
    # here holds for the threads too.
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        return _decoded(pictures, where, reading or Reading())


def _decoded(pictures: Sequence[tuple[str, bytes | Path]], where: str, reading: Reading) -> Decoded:
    first, broken = _first(pictures, where, reading)
    height, width = first.shape[:2]
    if max(height, width) > LARGEST_EDGE:
        raise TooBig(
            f"{where}: images of {width}×{height} pixels; a small-image network takes {LARGEST_EDGE} at most: "
            "`fastrain vision train --edge 64` brings them down."
        )
    if min(height, width) < SMALLEST_EDGE:
        raise DamagedFile(f"{where}: images of {width}×{height} pixels; expected {SMALLEST_EDGE} at least.")
    # Twice: parted or left out of, they are copied.
    if 2 * height * width * 3 * len(pictures) > available_bytes():
        raise TooBig(f"{where}: {len(pictures)} images of {shape_of(first[None])} do not fit into memory.")
    images = np.empty((len(pictures), height, width, 3), np.uint8)
    grey, good = np.zeros(len(pictures), bool), np.ones(len(pictures), bool)

    def put(start: int) -> dict[int, str]:
        lost = {}
        for i in range(start, min(start + _AT_ONCE, len(pictures))):
            name, held = pictures[i]
            try:
                image = _image(held, reading.shape)
            except _Broken as error:
                good[i], lost[i] = False, str(error)
                continue
            if image.shape[:2] != (height, width):
                raise DamagedFile(
                    f"{where}, {name}: {image.shape[1]}×{image.shape[0]} pixels, the first has {width}×{height}; a "
                    "data set is of one size (`fastrain vision train --edge 32` brings all to 32×32)."
                )
            images[i] = image  # a grey one in each of the three
            grey[i] = image.shape[2] == 1
        return lost

    with ThreadPoolExecutor(2) as pool:  # the library lets go of the interpreter while it decodes
        for lost in pool.map(put, range(0, len(pictures), _AT_ONCE)):
            broken |= lost
    named = tuple((pictures[i][0], broken[i]) for i in sorted(broken))
    if named and not reading.skip_broken:
        name, reason = named[0]
        others = ", ".join(other for other, _ in named[1:NAMED])
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        also = f" (of {len(pictures)} images {len(named)} cannot be read: also {others}{more})" if others else ""
        raise DamagedFile(
            f"{where}: {name}: {reason}{also}; mend or remove {'them' if others else 'it'}, or leave such images out: "
            "`fastrain vision train --skip-broken`, which lists all."
        )
    kept = np.flatnonzero(good)
    if len(kept) < len(images):
        images, grey = images[kept], grey[kept]
    return Decoded(np.ascontiguousarray(images[..., :1]) if grey.all() else images, kept, named)


def pictures_in(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Return the picture files under a folder; what is hidden is of file managers and caches, and no picture.

    Raises:
        SourceError: a folder cannot be looked into.
    """
    return sorted(_pictures(folder, suffixes))


def holds_picture(folder: Path) -> bool:
    """Tell whether there is a picture file under a folder."""
    return next(_pictures(folder, SUFFIXES), None) is not None


def _pictures(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    def closed(error: OSError) -> NoReturn:
        raise SourceError(
            f"{error.filename}: cannot be looked into ({error.strerror}); see that it can be, or take it away."
        ) from None

    for top, folders, files in os.walk(folder, onerror=closed):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # A folder that is called like a picture is none, which is then said.
        named = (name for name in (*files, *folders) if not name.startswith("."))
        yield from (Path(top, name) for name in named if name.lower().endswith(suffixes))


def not_read(folder: Path) -> list[str]:
    """Return a line on the pictures under a folder whose kinds are not read, if there are any."""
    kinds: Counter[str] = Counter(file.suffix.lower() for file in _pictures(folder, OTHERS))
    if not kinds:
        return []
    count = sum(kinds.values())
    listed = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    return [
        f"{folder}: {count} picture{'s' if count > 1 else ''} of kinds that are not read ({listed}): passed over; "
        "as PNG or JPEG they would be seen."
    ]


def shape_of(images: UInt8[ndarray, "image y x channel"]) -> str:
    """Return what images are like, as people read it."""
    height, width, channels = images.shape[1:]
    return f"{width}×{height} pixels, {'grey' if channels == 1 else 'colour'}"


def picture(path: Path, shape: tuple[int, int], channels: int) -> tuple[UInt8[ndarray, "y x channel"], bool]:
    """Return a picture file brought to a shape (rows, columns) and a number of channels, and whether it was scaled.

    Raises:
        DamagedFile: it cannot be read.
    """
    with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
        try:
            pixels, scaled = _image(path, None), False
            if pixels.shape[:2] != shape:
                pixels, scaled = _image(path, shape), True
        except _Broken as error:
            raise DamagedFile(f"{path}: {error}.") from None
    if channels == 1 and pixels.shape[2] == 3:
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    if channels == 3 and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels, scaled


class _Broken(Exception):
    """A picture that cannot be read."""


def _first(
    pictures: Sequence[tuple[str, bytes | Path]], where: str, reading: Reading
) -> tuple[UInt8[ndarray, "y x channel"], dict[int, str]]:
    """Return the first picture that can be read, and what is wrong with those before it."""
    broken: dict[int, str] = {}
    for i, (_, held) in enumerate(pictures):
        try:
            return _image(held, reading.shape), broken
        except _Broken as error:
            broken[i] = str(error)
    if broken:
        name, reason = pictures[0][0], broken[0]
        count = f"none of {len(pictures)} images can be read, the first is " if len(pictures) > 1 else ""
        raise DamagedFile(f"{where}: {count}{name}: {reason}.")
    raise DamagedFile(f"{where}: holds no image.")


def _image(held: bytes | Path, shape: tuple[int, int] | None) -> UInt8[ndarray, "y x channel"]:
    try:
        if isinstance(held, Path) and held.exists() and not held.is_file():
            raise _Broken("no picture that can be read (no regular file)")  # which a pipe would wait for
        data = held.read_bytes() if isinstance(held, Path) else held
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if shape is not None:
                high, wide = shape
                image.draft("RGB" if image.mode != "L" else "L", (2 * wide, 2 * high))  # JPEG: decoded smaller
                pixels = np.asarray(ImageOps.fit(_plain(image), (wide, high)))
            else:
                pixels = np.asarray(_plain(image))
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        # An unknown kind is told with the address of a buffer, which says nothing.
        said = "" if isinstance(error, UnidentifiedImageError) else f" ({first_line(error)})"
        raise _Broken(f"no picture that can be read{said}") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _plain(image: Image.Image) -> Image.Image:
    """Return a picture upright, in grey or in colours of 8 bits, without transparency or palette."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"values of mode {image.mode}, expected bytes")
    if image.mode in ("1", "LA", "La"):
        return image.convert("L")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")
