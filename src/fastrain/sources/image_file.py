"""Pictures on disk: GIF, PNG or WebP as indices and colours, safely, whatever the file claims to be."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from fastrain.core.errors import DamagedFile
from fastrain.sources.reader import MOST_PIXELS

FORMATS = ("GIF", "PNG", "WEBP")
TRANSPARENT = 0x1000000  # stands for a colour where the picture has none
MAGIC = (b"GIF87a", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"RIFF")


def read_picture(
    path: Path, size: tuple[int, int] | None = None
) -> tuple[Shaped[ndarray, "y x"], Int[ndarray, colours]]:
    """Return a picture as (rows, columns) indices into its list of colours, each 0xRRGGBB or TRANSPARENT.

    Args:
        path: of a GIF, PNG or WebP; of an animation, the first picture.
        size: rows and columns that it must have; any if None.

    Raises:
        DamagedFile: no picture, truncated, or of another size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if size and (image.height, image.width) != size:
                    raise DamagedFile(
                        f"{path.name}: {image.width}×{image.height} pixels, expected {size[1]}×{size[0]}; "
                        "it is of another kind of picture."
                    )
                if image.width * image.height > MOST_PIXELS:
                    raise DamagedFile(f"{path.name}: claims {image.width}×{image.height} pixels; too many.")
                image.load()
                return _indices(image)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DamagedFile(f"{path.name}: not a picture that can be read ({type(error).__name__}).") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise DamagedFile(f"{path.name}: the picture is truncated or damaged ({error}).") from None


def nearest(colours: Int[ndarray, n], known: Sequence[int]) -> tuple[Int[ndarray, n], Float[ndarray, n]]:
    """Return for each colour which of the known ones is nearest, and how far off, in RGB.

    What is no colour is near to none: the distance is infinite for what is transparent or -1, and where none is known.
    """
    wanted = np.asarray(known, dtype=np.int64)
    if not wanted.size:
        return np.zeros(len(colours), dtype=np.int64), np.full(len(colours), np.inf)
    apart = np.linalg.norm(_channels(colours)[:, None] - _channels(wanted)[None], axis=-1)
    apart[~((colours >= 0) & (colours < TRANSPARENT))] = np.inf
    apart[:, ~((wanted >= 0) & (wanted < TRANSPARENT))] = np.inf
    return apart.argmin(axis=1), apart.min(axis=1)


def snapped(colours: Int[ndarray, n], known: Sequence[int], tolerance: float) -> Int[ndarray, n]:
    """Return each colour, or the known one it is within the tolerance of."""
    index, apart = nearest(colours, known)
    return np.where(apart <= tolerance, np.append(np.asarray(known, dtype=np.int64), -1)[index], colours)


def _channels(colours: Int[ndarray, n]) -> Float[ndarray, "n 3"]:
    return np.stack([colours >> shift & 255 for shift in (16, 8, 0)], axis=-1).astype(float)


def _indices(image: Image.Image) -> tuple[ndarray, ndarray]:
    if image.mode == "P":
        # The palette alone is translated to colours: a tenth of the time of converting every pixel to RGB.
        flat = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
        colours = np.full(256, -1, dtype=np.int64)
        colours[: len(flat)] = flat[:, 0] << 16 | flat[:, 1] << 8 | flat[:, 2]
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            colours[clear] = TRANSPARENT
        elif isinstance(clear, bytes):
            colours[: len(clear)][np.frombuffer(clear, np.uint8)[:256] == 0] = TRANSPARENT
        return np.asarray(image), colours
    rgba = np.asarray(image.convert("RGBA"), dtype=np.int64)
    packed = rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]
    packed[rgba[..., 3] == 0] = TRANSPARENT
    colours, indices = np.unique(packed, return_inverse=True)
    return indices.reshape(packed.shape), colours
