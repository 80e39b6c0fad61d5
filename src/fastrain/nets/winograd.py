"""Loops of 3×3 convolutions by minimal filtering (Winograd's), float32 or bfloat16: a quarter of the multiplications.

A tile of 4×4 cells of what goes out, and the 6×6 under it, are transformed to 36 numbers a channel each, among which a
convolution is a product: for each of the 36 a product of matrices, tiles by channels and channels by channels out. The
way back to the weights is the same with what went out and what came in changing places. Maps are read and written by
strips: the four rows of a row of tiles, with the row above and the row below, and zeros around the map.

The 36 are values of polynomials at 0, ±√½, ±√2 and infinity, both ways: at 0, ±1, ±2, which is the usual choice, what
is computed in bfloat16 would be off by twice as much.

Transformed maps lie as (36, channels / 8, tiles, 8), so that 8 channels of tiles side by side fill lines of the cache;
transformed weights as (36, out / panel, channels, panel), a panel being what a product keeps in registers. The
processor multiplies pairs of bfloat16 and adds both products, so there what a sum goes over lies in pairs: weights as
(36, out / panel, channels / 2, panel, 2), and for the way back to the weights tiles of two rows after each other.

All that follows takes addresses of memory, and `like`: how many bytes a number of the maps has, as uint16 or uint32.
Source: Lavin and Gray (2016), arXiv:1509.09308; the points: Alam et al. (2022), doi:10.1145/3524069.
"""

from __future__ import annotations

from fastrain.nets.products import (
    BACK_ROWS,
    ROWS,
    back_by_four,
    back_by_three,
    back_by_two,
    by_four,
    by_three,
    by_two,
)
from fastrain.nets.transforms import (
    BYTES,
    EIGHT,
    bring_back,
    bring_back_largest,
    clear,
    copy,
    copy_bytes,
    spread_above,
    spread_below,
    take_gradient,
    take_gradient_pair,
    take_input,
    take_input_pair,
)
from fastrain.nets.vectors import compiled

SPOTS = 36  # numbers that a tile is transformed to
TILES = 24  # of which multiples are multiplied


@compiled
def _fill(like, x, which, strip, number, end, height, width, channels, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Copy what is under a row of tiles to a strip, zeros where it is beyond its map, or beyond the last."""
    down, across = (height + 3) // 4, (width + 3) // 4
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    line = (4 * across + 2 * overlap) * pixel
    top = number % down * 4 - overlap
    for i in range(4 + 2 * overlap):
        y = top + i
        place = strip + i * line + overlap * pixel
        if not 0 <= y < height or number >= end:
            for k in range(0, width * pixel, eight):
                clear(like, place + k)
        elif which:
            row = number // down * (height // 2) + y // 2
            _spread(like, x, which, place, row, y, height, width, channels)
        else:
            source = x + (number // down * height + y) * width * pixel
            for k in range(0, width * pixel, eight):
                copy(like, source + k, place + k)


@compiled
def _spread(like, x, which, place, row, y, height, width, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write a row of maps that hold something only where the largest of each 2×2 was; a last odd column stays zeros."""
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    if y // 2 == height // 2:  # a last odd row
        for k in range(0, width * pixel, eight):
            clear(like, place + k)
        return
    source, of = x + row * (width // 2) * pixel, which + row * (width // 2) * channels
    for column in range(width // 2):
        for block in range(channels // EIGHT):
            to = place + 2 * column * pixel + block * eight
            if y % 2:
                spread_below(like, source, of, to, pixel)
            else:
                spread_above(like, source, of, to, pixel)
            source += eight
            of += EIGHT


@compiled
def transform(like, x, which, strip, to, first, rows, height, width, channels, tiles, spot, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take rows of tiles of maps to 36 numbers a channel.

    Args:
        like: of the maps.
        x: the maps, (batch, y, x, channel), or what belongs to the largest of each 2×2 cells.
        which: of each 2×2, a byte each, which of them that was; 0 if the maps are whole.
        strip: room for a strip; zeros.
        to: (36, channels / 8, tiles, 8), numbers as in the maps; 36 apart by `spot` bytes.
        first: row of tiles, of all maps one after the other, to begin with.
        rows: how many.
        height, width, channels: of the maps.
        tiles: that `to` has room for.
        spot: see there.
        overlap: 1 for the 6×6 cells under each tile; 0 for its own 4×4 cells, gradients of what went out.
    """
    across = (width + 3) // 4
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    line = (4 * across + 2 * overlap) * pixel
    at = to
    for number in range(first, first + rows):
        _fill(like, x, which, strip, number, first + rows, height, width, channels, overlap)
        for block in range(channels // EIGHT):
            target = at + block * tiles * eight
            for t in range(across):
                source = strip + 4 * t * pixel + block * eight
                if overlap:
                    take_input(like, source, line, pixel, target + t * eight, 6 * spot, spot)
                else:
                    take_gradient(like, source, line, pixel, target + t * eight, 6 * spot, spot)
        at += across * eight


@compiled
def transform_pairs(like, x, which, strip, other, to, first, rows, height, width, channels, tiles, spot, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take rows of tiles of bfloat16 maps to 36 pairs a channel: tiles of two rows, one after the other.

    Args:
        like, x, which, first, rows, height, width, channels, spot, overlap: see `transform`.
        strip, other: room for a strip each.
        to: (36, channels / 8, tiles, 8, 2).
        tiles: pairs that `to` has room for.
    """
    across = (width + 3) // 4
    pixel = int(like) * channels
    line = (4 * across + 2 * overlap) * pixel
    at = to
    for number in range(first, first + rows, 2):
        _fill(like, x, which, strip, number, first + rows, height, width, channels, overlap)
        _fill(like, x, which, other, number + 1, first + rows, height, width, channels, overlap)
        for block in range(channels // EIGHT):
            target = at + block * tiles * BYTES
            for t in range(across):
                by = 4 * t * pixel + block * EIGHT * int(like)
                if overlap:
                    take_input_pair(strip + by, other + by, line, pixel, target + t * BYTES, 6 * spot, spot)
                else:
                    take_gradient_pair(strip + by, other + by, line, pixel, target + t * BYTES, 6 * spot, spot)
        at += across * BYTES


@compiled
def transform_back(like, found, bias, strip, out, first, rows, height, width, channels, tiles, spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Bring rows of tiles back to maps.

    Args:
        found: tiles, float32.
        bias: what is added to all of a channel, float32.
        like, strip, out, first, rows, height, width, channels, tiles, spot: see `transform`.
    """
    down, across = (height + 3) // 4, (width + 3) // 4
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    line = 4 * across * pixel
    at = found
    for number in range(first, first + rows):
        top = number % down * 4
        for block in range(channels // EIGHT):
            source = at + block * tiles * BYTES
            for t in range(across):
                to = strip + 4 * t * pixel + block * eight
                bring_back(like, source + t * BYTES, 6 * spot, spot, bias + block * BYTES, to, line, pixel)
        start = out + number // down * (height * width * pixel)
        for i in range(min(4, height - top)):
            place = start + (top + i) * width * pixel
            source = strip + i * line
            for k in range(0, width * pixel, eight):
                copy(like, source + k, place + k)
        at += across * BYTES


@compiled
def transform_back_largest(like, found, strip, places, out, which, first, rows, height, width, channels, tiles, spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Bring rows of tiles back to the largest of each 2×2 cells; a last odd row or column is left out.

    Args:
        found: tiles, float32.
        strip, places: room for half a strip each, of numbers and of bytes.
        out: (batch, y / 2, x / 2, channel).
        which: of each, a byte, which of the four it is.
        like, first, rows, height, width, channels, tiles, spot: see `transform`; those of the whole maps.
    """
    down, across = (height + 3) // 4, (width + 3) // 4
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    line, bytes_line = 2 * across * pixel, 2 * across * channels
    at = found
    for number in range(first, first + rows):
        for block in range(channels // EIGHT):
            source = at + block * tiles * BYTES
            for t in range(across):
                to, of = strip + 2 * t * pixel + block * eight, places + 2 * t * channels + block * EIGHT
                bring_back_largest(like, source + t * BYTES, 6 * spot, spot, to, line, pixel, of, bytes_line, channels)
        top = number % down * 2
        for i in range(min(2, height // 2 - top)):
            row = number // down * (height // 2) + top + i
            for k in range(0, width // 2 * pixel, eight):
                copy(like, strip + i * line + k, out + row * (width // 2) * pixel + k)
            for k in range(0, width // 2 * channels, EIGHT):
                copy_bytes(places + i * bytes_line + k, which + row * (width // 2) * channels + k)
        at += across * BYTES


@compiled
def multiply(like, left, right, to, tiles, room, channels, out, vectors, left_spot, spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Multiply tiles by weights, for each of the 36.

    Args:
        like: of the maps.
        left: (36, channels / 8, room, 8); 36 apart by `left_spot` bytes.
        right: weights.
        to: float32, (36, out / 8, room, 8); 36 apart by `spot` bytes.
        tiles: that are there; a multiple of 24.
        room, channels, out: see there.
        vectors: of 8 in a panel, 2 or 3; 4 of bfloat16 only.
        left_spot, spot: see there.
    """
    eight = EIGHT * int(like)
    stride, to_stride = room * eight, room * BYTES
    panel = channels * vectors * eight
    blocks = channels // EIGHT
    rows = ROWS[vectors - 2][1 if int(like) == 2 else 0]
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            weights = right + (place * (out // (EIGHT * vectors)) + o) * panel
            source = left + place * left_spot
            target = to + place * spot + o * vectors * to_stride
            for t in range(0, tiles, rows):
                given, there = source + t * eight, target + t * BYTES
                if vectors == 2:
                    by_two(like, given, weights, there, blocks, stride, to_stride)
                elif vectors == 3:
                    by_three(like, given, weights, there, blocks, stride, to_stride)
                else:
                    by_four(like, given, weights, there, blocks, stride, to_stride)


@compiled
def multiply_back(like, left, right, to, tiles, room, channels, out, vectors, left_spot, right_spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the products of tiles that came in and gradients of those that went out, for each of the 36.

    Args:
        like: of the maps; of bfloat16, tiles are pairs of them.
        left: (36, channels / 8, room, 8).
        right: (36, out / 8, room, 8).
        to: gradients of weights, float32.
        tiles: that are there.
        room, channels, out, vectors, left_spot, right_spot: see `multiply`.
    """
    stride = room * BYTES
    panel = channels * vectors * BYTES
    rows = BACK_ROWS[vectors - 2][1 if int(like) == 2 else 0]
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            gradient = right + place * right_spot + o * vectors * stride
            target = to + (place * (out // (EIGHT * vectors)) + o) * panel
            for c in range(0, channels, rows):
                source = left + place * left_spot + c // EIGHT * stride + c % EIGHT * 4
                there = target + c * vectors * BYTES
                if vectors == 2:
                    back_by_two(like, source, gradient, there, tiles, stride, stride)
                elif vectors == 3:
                    back_by_three(like, source, gradient, there, tiles, stride, stride)
                else:
                    back_by_four(like, source, gradient, there, tiles, stride, stride)
