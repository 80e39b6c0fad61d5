"""Pictures on disk: an indexed picture as indices and colours, safely, whatever the file claims to be."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from fastrain.core.errors import DamagedFile


def read_picture(path: Path, size: tuple[int, int]) -> tuple[Shaped[ndarray, "y x"], Int[ndarray, colours]]:
    """Return a picture as (rows, columns) indices into its list of colours, each 0xRRGGBB.

    Raises:
        DamagedFile: no picture, truncated, or of another size than (rows, columns) `size`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if (image.height, image.width) != size:
                    raise DamagedFile(
                        f"{path.name}: {image.width}×{image.height} pixels, expected {size[1]}×{size[0]}; "
                        "it is of another kind of picture."
                    )
                image.load()
                return _indices(image)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DamagedFile(f"{path.name}: not a picture that can be read ({type(error).__name__}).") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise DamagedFile(f"{path.name}: the picture is truncated or damaged ({error}).") from None


def _indices(image: Image.Image) -> tuple[ndarray, ndarray]:
    if image.mode == "P":
        # The palette alone is translated to colours: a tenth of the time of converting every pixel to RGB.
        flat = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
        colours = np.full(256, -1, dtype=np.int64)
        colours[: len(flat)] = flat[:, 0] << 16 | flat[:, 1] << 8 | flat[:, 2]
        return np.asarray(image), colours
    rgb = np.asarray(image.convert("RGB"), dtype=np.int64)
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    colours, indices = np.unique(packed, return_inverse=True)
    return indices.reshape(packed.shape), colours
