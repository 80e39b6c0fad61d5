"""Coarse-graining: each block of c×c pixels becomes its maximum and its mean, one byte each.

The ancestor's idea, with what it could not say: a pixel that is not observed counts in neither, and a block of which
nothing is observed has the maximum 255. The mean is kept as a byte r so that max · r / 255 is close to it; rounded to
nearest, so within max / 510. A block at the edge counts only its pixels inside the picture.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numba import int32, njit, uint8, uint16, uintp
from numpy import ndarray

from fastrain.core.errors import SettingError
from fastrain.core.levels import NOT_OBSERVED, LevelTable

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
    counted = weights.astype(np.float64)
    counted[NOT_OBSERVED] = 0.0
    _coarsen(np.ascontiguousarray(level), coarseness, counted, maximum, ratio, observed)
    return maximum, ratio, observed


def average_weights(average: Average, table: LevelTable) -> Float[ndarray, 256]:
    """Return what each level counts in a block's mean: itself, or its representative rain rate in mm/h."""
    if average == "level":
        return np.arange(256, dtype=np.float64)
    if average == "rain_rate":
        return np.asarray(np.nan_to_num(table.rates))
    raise SettingError(f"--average {average}: expected level or rain_rate.")


def _coarsen(level: ndarray, c: int, weights: ndarray, maximum: ndarray, ratio: ndarray, observed: ndarray) -> None:
    """Coarsen frame by frame: fold c rows into one, then c columns, then go into the wet blocks for their mean."""
    frames, height, width = level.shape
    rows, columns = maximum.shape[1:]
    whole = (rows * c, columns * c) == (height, width)
    # Pixels beyond the picture's edge are as good as not observed.
    frame = np.empty((0, 0), np.uint8) if whole else np.full((rows * c, columns * c), NOT_OBSERVED, np.uint8)
    top, hidden = (np.empty(rows * columns * c, np.uint8) for _ in range(2))
    pairs = np.empty(top.size // 2, np.uint16)
    highest = np.zeros((rows * columns + 7) // 8 * 8, np.uint8)
    unseen = np.empty(rows * columns, np.uint8)
    wet = np.empty(highest.size + 8, np.uint32)
    area = np.uint8(c * c)
    for t in range(frames):
        if not whole:
            frame[:height, :width] = level[t]
        pixels = level[t] if whole else frame
        _fold(pixels, c, top.reshape(rows, -1), hidden.reshape(rows, -1))
        _across(top, hidden, c, pairs, highest[: unseen.size], unseen)
        _mark(highest, unseen, area, maximum[t].reshape(-1), observed[t].reshape(-1))
        ratio[t] = 0
        _means(pixels, c, weights, highest, highest.view(np.uint64), wet, observed[t], ratio[t])


def _across(top: ndarray, hidden: ndarray, c: int, pairs: ndarray, highest: ndarray, unseen: ndarray) -> None:
    """Reduce each c neighbours of a folded row; two and four as the halves of wider numbers, which is quicker."""
    if c == 3:
        _thirds_maximum(top, highest)
        _thirds_sum(hidden, unseen)
        return
    if c not in (2, 4):
        _neighbours_maximum(top, c, highest)
        _neighbours_sum(hidden, c, unseen)
        return
    for _ in range(c // 4):
        _halves_maximum(top.view(np.uint16), pairs)
        top = pairs.astype(np.uint8)
        _halves_sum(hidden.view(np.uint16), pairs)
        hidden = pairs.astype(np.uint8)
    count = highest.size
    _halves_maximum(top.view(np.uint16), pairs)
    highest[:] = pairs[:count]
    _halves_sum(hidden.view(np.uint16), pairs)
    unseen[:] = pairs[:count]


# The compiled loops. Each does one thing, because only such loops become vector instructions: all in one is ten times
# slower, and so is one function that calls them (measured; LOG.md).


@njit(nogil=True, cache=True)
def _fold(pixels, c, top, hidden):  # type: ignore[no-untyped-def]  # pragma: no cover
    for row in range(top.shape[0]):
        for x in range(top.shape[1]):
            value = pixels[row * c, x]
            unseen = uint8(value == uint8(255))
            top[row, x] = uint8(value + unseen)  # 255 wraps round to 0
            hidden[row, x] = unseen
        for y in range(row * c + 1, row * c + c):
            for x in range(top.shape[1]):
                value = pixels[y, x]
                unseen = uint8(value == uint8(255))
                value = uint8(value + unseen)
                top[row, x] = value if value > top[row, x] else top[row, x]
                hidden[row, x] = uint8(hidden[row, x] + unseen)


@njit(nogil=True, cache=True)
def _halves_maximum(values, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(values.size):
        first, second = uint16(values[x] & uint16(255)), uint16(values[x] >> uint16(8))
        out[x] = first if first > second else second


@njit(nogil=True, cache=True)
def _halves_sum(values, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(values.size):
        out[x] = uint16(uint16(values[x] & uint16(255)) + uint16(values[x] >> uint16(8)))


@njit(nogil=True, cache=True)
def _thirds_maximum(values, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(out.size):
        first, second, third = values[3 * x], values[3 * x + 1], values[3 * x + 2]
        most = first if first > second else second
        out[x] = most if most > third else third


@njit(nogil=True, cache=True)
def _thirds_sum(values, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(out.size):
        out[x] = uint8(uint8(values[3 * x] + values[3 * x + 1]) + values[3 * x + 2])


@njit(nogil=True, cache=True)
def _neighbours_maximum(values, c, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(out.size):
        out[x] = values[x * c]
    for i in range(1, c):
        for x in range(out.size):
            value = values[x * c + i]
            out[x] = value if value > out[x] else out[x]


@njit(nogil=True, cache=True)
def _neighbours_sum(values, c, out):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(out.size):
        out[x] = values[x * c]
    for i in range(1, c):
        for x in range(out.size):
            out[x] = uint8(out[x] + values[x * c + i])


@njit(nogil=True, cache=True)
def _mark(highest, unseen, area, maximum, observed):  # type: ignore[no-untyped-def]  # pragma: no cover
    for x in range(maximum.size):
        maximum[x] = uint8(255) if unseen[x] == area else highest[x]
    for x in range(maximum.size):
        observed[x] = uint8(area - unseen[x])


@njit(nogil=True, cache=True, error_model="numpy")
def _means(pixels, c, weights, highest, words, wet, observed, ratio):  # type: ignore[no-untyped-def]  # pragma: no cover
    # Unsigned indices throughout: signed ones are looked at for being negative, which takes longer than the arithmetic.
    found = uintp(0)
    for word in range(words.size):
        if words[word] != 0:  # one of eight blocks is wet
            for i in range(8):
                x = uintp(8 * word + i)
                wet[found] = x
                found += uintp(highest[x] != 0)
    columns, edge = uintp(ratio.shape[1]), uintp(c)
    row, first = uintp(0), uintp(0)  # first: of the blocks in this row
    for i in range(found):
        block = uintp(wet[uintp(i)])
        while block >= first + columns:
            row += uintp(1)
            first += columns
        column = uintp(block - first)
        total = 0.0
        for y in range(uintp(row * edge), uintp(row * edge + edge)):
            for x in range(uintp(column * edge), uintp(column * edge + edge)):
                total += weights[pixels[uintp(y), uintp(x)]]
        # Half up, so that the byte does not depend on the platform's rounding of ties.
        share = 255.0 * total / (observed[row, column] * weights[highest[block]])
        ratio[row, column] = uint8(int32(share + 0.5))
