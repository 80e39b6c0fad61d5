"""Coarse-graining: each block of c×c pixels becomes its maximum and its mean, one byte each.

The ancestor's idea, with what it could not say: a pixel that is not observed counts in neither, and a block of which
nothing is observed has the maximum 255. The mean is kept as a byte r so that max · r / 255 is close to it; rounded to
nearest, so within max / 510. A block at the edge counts only its pixels inside the picture.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numba import njit
from numpy import ndarray

from fastrain.core.errors import SettingError
from fastrain.core.levels import LevelTable

MOST_COARSE = 15  # a block's observed pixels are counted in one byte: 15² < 255

Average = Literal["level", "rain_rate"]


def coarsen(
    level: UInt8[ndarray, "time y x"], coarseness: int, *, weights: Float[ndarray, 256]
) -> tuple[
    UInt8[ndarray, "time rows columns"],
    UInt8[ndarray, "time rows columns"],
    UInt8[ndarray, "time rows columns"],
]:
    """Return maximum, mean ratio and number of observed pixels of each block.

    Args:
        level: (time, y, x) uint8; 255 where not observed.
        coarseness: edge c of a block, in pixels.
        weights: what each level counts in the mean; `average_weights` makes them.

    Returns:
        Three arrays (time, ceil(y/c), ceil(x/c)) uint8: the maximum, 255 where nothing was observed; the ratio r,
        with mean = max · r / 255 in the weights' units, 0 where nothing was observed; the pixels observed.

    Raises:
        SettingError: the coarseness is not 1 to 15.
    """
    if not 1 <= coarseness <= MOST_COARSE:
        raise SettingError(f"A coarseness of {coarseness}: expected 1 to {MOST_COARSE}.")
    frames, height, width = level.shape
    shape = (frames, -(-height // coarseness), -(-width // coarseness))
    maximum, ratio, observed = (np.empty(shape, dtype=np.uint8) for _ in range(3))
    _coarsen(np.ascontiguousarray(level), coarseness, weights.astype(np.float64), maximum, ratio, observed)
    return maximum, ratio, observed


def average_weights(average: Average, table: LevelTable) -> Float[ndarray, 256]:
    """Return what each level counts in a block's mean: itself, or its representative rain rate in mm/h."""
    if average == "level":
        return np.arange(256, dtype=np.float64)
    if average == "rain_rate":
        return np.asarray(np.nan_to_num(table.rates))
    raise SettingError(f"--average {average}: expected level or rain_rate.")


@njit(nogil=True, cache=True, boundscheck=False)
def _coarsen(level, c, weights, maximum, ratio, observed):  # type: ignore[no-untyped-def]  # pragma: no cover
    frames, height, width = level.shape
    rows, columns = maximum.shape[1:]
    for t in range(frames):
        for row in range(rows):
            y_end = min((row + 1) * c, height)
            for column in range(columns):
                x_end = min((column + 1) * c, width)
                top, total, seen = 0, 0.0, 0
                for y in range(row * c, y_end):
                    for x in range(column * c, x_end):
                        value = level[t, y, x]
                        if value != 255:
                            seen += 1
                            if value > 0:
                                total += weights[value]
                                if value > top:
                                    top = value
                observed[t, row, column] = seen
                maximum[t, row, column] = top if seen > 0 else 255
                # Half up, so that the byte does not depend on the platform's rounding of ties.
                ratio[t, row, column] = int(255.0 * total / (seen * weights[top]) + 0.5) if top > 0 else 0
