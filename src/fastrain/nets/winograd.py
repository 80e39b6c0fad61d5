"""Loops of 3×3 convolutions in float32 by minimal filtering (Winograd's): a quarter of the multiplications.

A tile of 4×4 cells of what goes out, and the 6×6 under it, are transformed to 36 numbers a channel each, among which a
convolution is a product: for each of the 36 a product of matrices, tiles by channels and channels by channels out. The
way back to the weights is the same with what went out and what came in changing places. Maps are read and written by
strips: the four rows of a row of tiles, with the row above and the row below, and zeros around the map.

Transformed maps lie as (36, channels / 8, tiles, 8), so that 8 channels of tiles side by side fill lines of the cache;
transformed weights as (36, out / panel, channels, panel), a panel being what a product keeps in registers.

All that follows takes addresses of memory. Source: Lavin and Gray (2016), arXiv:1509.09308.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from fastrain.nets.vectors import WORD, ahead, compiled, constant, emitted, fma, read, write

EIGHT = 8  # numbers that are computed with together: a register of AVX2
BYTES = 4 * EIGHT
SPOTS = 36  # numbers that a tile is transformed to
FOUR, SIX = 4, 6  # edges of a tile and of what is under it
TILES = 12  # of which multiples are multiplied
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, EIGHT)
_FIRST = ir.Constant(ir.IntType(32), 0)


def _place(builder: Any, start: Any, row: Any, column: Any, i: int, j: int) -> Any:
    return ahead(builder, ahead(builder, start, i, row), j, column)


def _everywhere(builder: Any, address: Any) -> Any:
    """Return the number at an address in all lanes."""
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), read(builder, address, _FLOAT), _FIRST)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), EIGHT), [0] * EIGHT)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), lanes)


def _plus(builder: Any, a: Any, b: Any, factor: float) -> Any:
    """Return a and some times b."""
    return fma(builder, b, constant(factor, EIGHT), a)


def _of_input(b: Any, d: list[Any]) -> list[Any]:
    """Return six cells in a row as the six numbers that a tile is taken to."""
    even, odd = _plus(b, d[4], d[2], -4.0), _plus(b, d[3], d[1], -4.0)
    near, far = b.fsub(d[4], d[2]), b.fsub(d[3], d[1])
    return [
        _plus(b, _plus(b, d[4], d[2], -5.0), d[0], 4.0),
        b.fadd(even, odd),
        b.fsub(even, odd),
        _plus(b, near, far, 2.0),
        _plus(b, near, far, -2.0),
        _plus(b, _plus(b, d[5], d[3], -5.0), d[1], 4.0),
    ]


def _of_output(b: Any, m: list[Any]) -> list[Any]:
    """Return the four cells in a row that six numbers stand for."""
    one, two = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    three, four = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], one), three),
        _plus(b, two, four, 2.0),
        _plus(b, one, three, 4.0),
        _plus(b, b.fadd(two, m[5]), four, 8.0),
    ]


def _of_gradient(b: Any, y: list[Any]) -> list[Any]:
    """Return the gradients of six numbers from those of the four cells that they stand for."""
    a, c = b.fadd(y[0], y[2]), b.fadd(y[1], y[3])
    d = _plus(b, y[0], y[2], 4.0)
    e = b.fmul(_plus(b, y[1], y[3], 4.0), constant(2.0, EIGHT))
    return [y[0], b.fadd(a, c), b.fsub(a, c), b.fadd(d, e), b.fsub(d, e), y[3]]


def _transform(change: Callable[[Any, list[Any]], list[Any]], there: int, come: int) -> Any:
    """Return what emits a change of 8 channels of a square of vectors, along columns, then along rows.

    Args:
        change: of one row or column.
        there: edge of the square that is read.
        come: edge of what is written.
    """

    def emit(builder: Any, start: Any, row: Any, column: Any, to: Any, to_row: Any, to_column: Any) -> None:
        columns = [
            change(builder, [read(builder, _place(builder, start, row, column, i, j), _VECTOR) for i in range(there)])
            for j in range(there)
        ]
        for i in range(come):
            for j, value in enumerate(change(builder, [one[i] for one in columns])):
                write(builder, value, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 6)


@intrinsic  # type: ignore[untyped-decorator]
def _input(typing, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform(_of_input, SIX, SIX)


@intrinsic  # type: ignore[untyped-decorator]
def _output(typing, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform(_of_output, SIX, FOUR)


@intrinsic  # type: ignore[untyped-decorator]
def _gradient(typing, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform(_of_gradient, FOUR, SIX)


def _kernel(rows: int, vectors: int, *, back: bool) -> Any:
    """Return what emits a product of a few rows and 8, 16 or 24 columns, kept in registers over the whole sum.

    Forward a row is a tile, and the sum goes over channels; back a row is a channel, and the sum goes over tiles, added
    to what is there.
    """

    def emit(builder: Any, left: Any, right: Any, to: Any, count: Any, stride: Any) -> None:
        lanes = [(r, v) for r in range(rows) for v in range(vectors)]

        def out(r: int, v: int) -> Any:
            if back:
                return ahead(builder, to, BYTES * (vectors * r + v))
            return ahead(builder, ahead(builder, to, BYTES * r), v, stride)

        started = [read(builder, out(r, v), _VECTOR) if back else constant(0.0, EIGHT) for r, v in lanes]
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        left_at, right_at, left_in = builder.phi(WORD), builder.phi(WORD), builder.phi(WORD)
        sums = [builder.phi(_VECTOR) for _ in lanes]
        carried = [left_in, left_at, right_at, *sums]
        for phi, value in zip(carried, [ir.Constant(WORD, 0), left, right, *started], strict=True):
            phi.add_incoming(value, before)
        found = list(sums)
        for k in range(1 if back else EIGHT):
            places = [
                ahead(builder, right_at, v, stride) if back else ahead(builder, right_at, BYTES * (vectors * k + v))
                for v in range(vectors)
            ]
            by = [read(builder, place, _VECTOR) for place in places]
            for r in range(rows):
                one = _everywhere(builder, ahead(builder, left_at, 4 * r if back else BYTES * r + 4 * k))
                for v in range(vectors):
                    found[r * vectors + v] = fma(builder, one, by[v], found[r * vectors + v])
        on = ahead(builder, left_in, 1)
        left_on = ahead(builder, left_at, BYTES) if back else builder.add(left_at, stride)
        right_on = ahead(builder, right_at, BYTES if back else BYTES * EIGHT * vectors)
        for phi, value in zip(carried, [on, left_on, right_on, *found], strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", on, count), loop, after)
        builder.position_at_end(after)
        for (r, v), value in zip(lanes, found, strict=True):
            write(builder, value, out(r, v))

    return emitted(emit, 5)


@intrinsic  # type: ignore[untyped-decorator]
def _six_by_two(typing, left, right, to, count, stride):  # type: ignore[no-untyped-def]
    return _kernel(6, 2, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def _four_by_three(typing, left, right, to, count, stride):  # type: ignore[no-untyped-def]
    return _kernel(4, 3, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def _back_by_two(typing, left, right, to, count, stride):  # type: ignore[no-untyped-def]
    return _kernel(4, 2, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def _back_by_three(typing, left, right, to, count, stride):  # type: ignore[no-untyped-def]
    return _kernel(4, 3, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def _copy(typing, start, to):  # type: ignore[no-untyped-def]
    return emitted(lambda builder, start, to: write(builder, read(builder, start, _VECTOR), to), 2)


@intrinsic  # type: ignore[untyped-decorator]
def _clear(typing, to):  # type: ignore[no-untyped-def]
    return emitted(lambda builder, to: write(builder, constant(0.0, EIGHT), to), 1)


@compiled
def transform(x, strip, to, first, rows, height, width, channels, tiles, spot, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take rows of tiles of maps to 36 numbers a channel.

    Args:
        x: the maps, (batch, y, x, channel).
        strip: room for a strip; zeros.
        to: (36, channels / 8, tiles, 8); 36 apart by `spot` bytes.
        first: row of tiles, of all maps one after the other, to begin with.
        rows: how many.
        height, width, channels: of the maps.
        tiles: that `to` has room for.
        spot: see there.
        overlap: 1 for the 6×6 cells under each tile; 0 for its own 4×4 cells, gradients of what went out.
    """
    down, across = (height + 3) // 4, (width + 3) // 4
    pixel = 4 * channels
    line = (4 * across + 2 * overlap) * pixel
    at = to
    for number in range(first, first + rows):
        top = number % down * 4 - overlap
        start = x + number // down * (height * width * pixel)
        for i in range(4 + 2 * overlap):
            y = top + i
            place = strip + i * line + overlap * pixel
            if 0 <= y < height:
                source = start + y * width * pixel
                for k in range(0, width * pixel, BYTES):
                    _copy(source + k, place + k)
            else:
                for k in range(0, width * pixel, BYTES):
                    _clear(place + k)
        for block in range(channels // EIGHT):
            target = at + block * tiles * BYTES
            for t in range(across):
                source = strip + 4 * t * pixel + block * BYTES
                if overlap:
                    _input(source, line, pixel, target + t * BYTES, 6 * spot, spot)
                else:
                    _gradient(source, line, pixel, target + t * BYTES, 6 * spot, spot)
        at += across * BYTES


@compiled
def transform_back(found, strip, out, first, rows, height, width, channels, tiles, spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Bring rows of tiles back to maps; see `transform`."""
    down, across = (height + 3) // 4, (width + 3) // 4
    pixel = 4 * channels
    line = 4 * across * pixel
    at = found
    for number in range(first, first + rows):
        top = number % down * 4
        for block in range(channels // EIGHT):
            source = at + block * tiles * BYTES
            for t in range(across):
                _output(source + t * BYTES, 6 * spot, spot, strip + 4 * t * pixel + block * BYTES, line, pixel)
        start = out + number // down * (height * width * pixel)
        for i in range(min(4, height - top)):
            place = start + (top + i) * width * pixel
            source = strip + i * line
            for k in range(0, width * pixel, BYTES):
                _copy(source + k, place + k)
        at += across * BYTES


@compiled
def multiply(left, right, to, tiles, room, channels, out, vectors, left_spot, spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Multiply tiles by weights, for each of the 36.

    Args:
        left: (36, channels / 8, room, 8); 36 apart by `left_spot` bytes.
        right: weights.
        to: (36, out / 8, room, 8); 36 apart by `spot` bytes.
        tiles: that are there; a multiple of 12.
        room, channels, out: see there.
        vectors: of 8 in a panel, 2 or 3.
        left_spot, spot: see there.
    """
    stride = room * BYTES
    panel = channels * vectors * BYTES
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            weights = right + (place * (out // (EIGHT * vectors)) + o) * panel
            source = left + place * left_spot
            target = to + place * spot + o * vectors * stride
            if vectors == 2:
                for t in range(0, tiles, 6):
                    _six_by_two(source + t * BYTES, weights, target + t * BYTES, channels // EIGHT, stride)
            else:
                for t in range(0, tiles, 4):
                    _four_by_three(source + t * BYTES, weights, target + t * BYTES, channels // EIGHT, stride)


@compiled
def multiply_back(left, right, to, tiles, room, channels, out, vectors, left_spot, right_spot):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the products of tiles that came in and gradients of those that went out, for each of the 36.

    Args:
        left: (36, channels / 8, room, 8).
        right: (36, out / 8, room, 8).
        to: gradients of weights.
        tiles: that are there.
        room, channels, out, vectors, left_spot, right_spot: see `multiply`.
    """
    stride = room * BYTES
    panel = channels * vectors * BYTES
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            gradient = right + place * right_spot + o * vectors * stride
            target = to + (place * (out // (EIGHT * vectors)) + o) * panel
            for c in range(0, channels, 4):
                source = left + place * left_spot + c // EIGHT * stride + c % EIGHT * 4
                if vectors == 2:
                    _back_by_two(source, gradient, target + c * vectors * BYTES, tiles, stride)
                else:
                    _back_by_three(source, gradient, target + c * vectors * BYTES, tiles, stride)
