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
Source: Lavin and Gray (2016), arXiv:1509.09308; the points: Barabasz et al. (2020), arXiv:1803.10986.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrain.nets.vectors import WORD, ahead, compiled, constant, emitted, fma, read, write

llvmlite.binding.initialize_native_asmparser()

EIGHT = 8  # numbers that are computed with together: a register of AVX2
BYTES = 4 * EIGHT
SPOTS = 36  # numbers that a tile is transformed to
FOUR, SIX = 4, 6  # edges of a tile and of what is under it
TILES = 24  # of which multiples are multiplied
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, EIGHT)
_PAIRS = ir.VectorType(ir.IntType(32), EIGHT)
_HALVES = ir.VectorType(ir.IntType(16), EIGHT)
_FIRST = ir.Constant(ir.IntType(32), 0)

# The points, NEAR and FAR from 0, on both sides; squares, and what follows from them, are even numbers.
NEAR, FAR = 0.5**0.5, 2.0**0.5
_NEAR_SQUARED, _FAR_SQUARED = 0.5, 2.0


def _place(builder: Any, start: Any, row: Any, column: Any, i: int, j: int) -> Any:
    return ahead(builder, ahead(builder, start, i, row), j, column)


def _everywhere(builder: Any, address: Any, kind: Any) -> Any:
    """Return the 32 bits at an address in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), read(builder, address, kind.element), _FIRST)
    lanes = ir.Constant(_PAIRS, [0] * EIGHT)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def _plus(builder: Any, a: Any, b: Any, factor: float) -> Any:
    """Return a and some times b."""
    return fma(builder, b, constant(factor, EIGHT), a)


def _of_input(b: Any, d: list[Any]) -> list[Any]:
    """Return six cells in a row as the six numbers that a tile is taken to."""
    even, odd = _plus(b, d[4], d[2], -_FAR_SQUARED), _plus(b, d[3], d[1], -_FAR_SQUARED)
    more_even, more_odd = _plus(b, d[4], d[2], -_NEAR_SQUARED), _plus(b, d[3], d[1], -_NEAR_SQUARED)
    both = _NEAR_SQUARED + _FAR_SQUARED  # the product of the squares is 1
    return [
        b.fadd(_plus(b, d[4], d[2], -both), d[0]),
        _plus(b, even, odd, NEAR),
        _plus(b, even, odd, -NEAR),
        _plus(b, more_even, more_odd, FAR),
        _plus(b, more_even, more_odd, -FAR),
        b.fadd(_plus(b, d[5], d[3], -both), d[1]),
    ]


def _of_output(b: Any, m: list[Any]) -> list[Any]:
    """Return the four cells in a row that six numbers stand for."""
    one, two = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
    three, four = b.fadd(m[3], m[4]), b.fsub(m[3], m[4])
    return [
        b.fadd(b.fadd(m[0], one), three),
        b.fmul(_plus(b, two, four, FAR / NEAR), constant(NEAR, EIGHT)),
        _plus(b, b.fmul(one, constant(_NEAR_SQUARED, EIGHT)), three, _FAR_SQUARED),
        _plus(b, m[5], _plus(b, two, four, (FAR / NEAR) ** 3), NEAR**3),
    ]


def _of_gradient(b: Any, y: list[Any]) -> list[Any]:
    """Return the gradients of six numbers from those of the four cells that they stand for."""
    even, odd = _plus(b, y[0], y[2], _NEAR_SQUARED), _plus(b, y[1], y[3], _NEAR_SQUARED)
    more_even, more_odd = _plus(b, y[0], y[2], _FAR_SQUARED), _plus(b, y[1], y[3], _FAR_SQUARED)
    return [
        y[0],
        _plus(b, even, odd, NEAR),
        _plus(b, even, odd, -NEAR),
        _plus(b, more_even, more_odd, FAR),
        _plus(b, more_even, more_odd, -FAR),
        y[3],
    ]


def _cells(builder: Any, halves: bool, address: Any) -> Any:
    """Return 8 numbers of a map as float32."""
    if not halves:
        return read(builder, address, _VECTOR)
    bits = builder.zext(read(builder, address, _HALVES), _PAIRS)
    return builder.bitcast(builder.shl(bits, ir.Constant(_PAIRS, [16] * EIGHT)), _VECTOR)


def _rounded(builder: Any, singles: Any) -> Any:
    """Return the bfloat16 nearest to each float32, by the processor's own instruction."""
    function = ir.FunctionType(_HALVES, [_VECTOR])
    return builder.call(ir.InlineAsm(function, "vcvtneps2bf16 $1, $0", "=v,v", False), [singles])


def _as_map(builder: Any, halves: bool, singles: Any) -> Any:
    return _rounded(builder, singles) if halves else singles


def _changed(
    builder: Any, change: Callable[[Any, list[Any]], list[Any]], there: int, come: int, at: Callable[[int, int], Any]
) -> list[list[Any]]:
    """Return the change of 8 channels of a square of vectors, along columns, then along rows.

    Args:
        builder: of LLVM's words.
        change: of one row or column.
        there: edge of the square that is read.
        come: edge of what is returned.
        at: reads a vector of the square.
    """
    columns = [change(builder, [at(i, j) for i in range(there)]) for j in range(there)]
    return [change(builder, [one[i] for one in columns]) for i in range(come)]


def _transform(change: Callable[[Any, list[Any]], list[Any]], there: int, like: Any) -> Any:
    """Return what emits a change of 8 channels of a square of a map; see `_changed`."""
    halves = like == types.uint16

    def emit(builder: Any, start: Any, row: Any, column: Any, to: Any, to_row: Any, to_column: Any) -> None:
        def at(i: int, j: int) -> Any:
            return _cells(builder, halves, _place(builder, start, row, column, i, j))

        for i, values in enumerate(_changed(builder, change, there, SIX, at)):
            for j, value in enumerate(values):
                write(builder, _as_map(builder, halves, value), _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 6, like)


def _transform_back(like: Any) -> Any:
    """Return what emits the change of 8 channels of 6×6 sums, and what is added to all, to 4×4 cells of a map."""
    halves = like == types.uint16

    def emit(builder: Any, start: Any, row: Any, column: Any, bias: Any, to: Any, to_row: Any, to_column: Any) -> None:
        def at(i: int, j: int) -> Any:
            return read(builder, _place(builder, start, row, column, i, j), _VECTOR)

        more = read(builder, bias, _VECTOR)
        for i, values in enumerate(_changed(builder, _of_output, SIX, FOUR, at)):
            for j, value in enumerate(values):
                cell = _as_map(builder, halves, builder.fadd(value, more))
                write(builder, cell, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 7, like)


def _transform_pair(change: Callable[[Any, list[Any]], list[Any]], there: int) -> Any:
    """Return what emits a change of 8 channels of two squares of bfloat16, which become pairs."""

    def emit(builder: Any, start: Any, other: Any, row: Any, column: Any, to: Any, to_row: Any, to_column: Any) -> None:
        both = []
        for one in (start, other):

            def at(i: int, j: int, one: Any = one) -> Any:
                return _cells(builder, True, _place(builder, one, row, column, i, j))

            both.append(_changed(builder, change, there, SIX, at))
        for i in range(SIX):
            for j in range(SIX):
                low, high = (builder.zext(_rounded(builder, square[i][j]), _PAIRS) for square in both)
                pair = builder.or_(low, builder.shl(high, ir.Constant(_PAIRS, [16] * EIGHT)))
                write(builder, pair, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 7)


@intrinsic  # type: ignore[untyped-decorator]
def _input(typing, like, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform(_of_input, SIX, like)


@intrinsic  # type: ignore[untyped-decorator]
def _output(typing, like, start, row, column, bias, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform_back(like)


@intrinsic  # type: ignore[untyped-decorator]
def _gradient(typing, like, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform(_of_gradient, FOUR, like)


@intrinsic  # type: ignore[untyped-decorator]
def _input_pair(typing, start, other, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform_pair(_of_input, SIX)


@intrinsic  # type: ignore[untyped-decorator]
def _gradient_pair(typing, start, other, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    return _transform_pair(_of_gradient, FOUR)


def _added(builder: Any, one: Any, by: Any, found: Any) -> Any:
    """Return a sum and a product; of bfloat16, a sum and the products of pairs."""
    if one.type == _VECTOR:
        return fma(builder, one, by, found)
    function = ir.FunctionType(_VECTOR, [_VECTOR, _PAIRS, _PAIRS])
    return builder.call(ir.InlineAsm(function, "vdpbf16ps $3, $2, $0", "=v,0,v,v", False), [found, one, by])


def _kernel(rows: int, vectors: int, like: Any, *, back: bool) -> Any:
    """Return what emits a product of a few rows and 16 to 32 columns, kept in registers over the whole sum.

    Forward a row is a tile, and the sum goes over channels; back a row is a channel, and the sum goes over tiles, added
    to what is there. Back, numbers of bfloat16 are pairs, and take as many bytes as float32.
    """
    halves = like == types.uint16
    kind = _PAIRS if halves else _VECTOR
    block = BYTES // 2 if halves and not back else BYTES  # bytes of 8 channels of a tile

    def emit(builder: Any, left: Any, right: Any, to: Any, count: Any, stride: Any, to_stride: Any) -> None:
        lanes = [(r, v) for r in range(rows) for v in range(vectors)]

        def out(r: int, v: int) -> Any:
            if back:
                return ahead(builder, to, BYTES * (vectors * r + v))
            return ahead(builder, ahead(builder, to, BYTES * r), v, to_stride)

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
        steps = 1 if back else block // 4
        for k in range(steps):
            places = [
                ahead(builder, right_at, v, stride) if back else ahead(builder, right_at, BYTES * (vectors * k + v))
                for v in range(vectors)
            ]
            by = [read(builder, place, kind) for place in places]
            for r in range(rows):
                one = _everywhere(builder, ahead(builder, left_at, 4 * r if back else block * r + 4 * k), kind)
                for v in range(vectors):
                    found[r * vectors + v] = _added(builder, one, by[v], found[r * vectors + v])
        on = ahead(builder, left_in, 1)
        left_on = ahead(builder, left_at, BYTES) if back else builder.add(left_at, stride)
        right_on = ahead(builder, right_at, BYTES * (1 if back else steps * vectors))
        for phi, value in zip(carried, [on, left_on, right_on, *found], strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", on, count), loop, after)
        builder.position_at_end(after)
        for (r, v), value in zip(lanes, found, strict=True):
            write(builder, value, out(r, v))

    return emitted(emit, 6, like)


@intrinsic  # type: ignore[untyped-decorator]
def _by_two(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(12 if like == types.uint16 else 6, 2, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def _by_three(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(8 if like == types.uint16 else 4, 3, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def _by_four(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(6, 4, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def _back_by_two(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(8 if like == types.uint16 else 4, 2, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def _back_by_three(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(8 if like == types.uint16 else 4, 3, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def _back_by_four(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    return _kernel(4, 4, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def _copy(typing, like, start, to):  # type: ignore[no-untyped-def]
    kind = _map_of(like)
    return emitted(lambda builder, start, to: write(builder, read(builder, start, kind), to), 2, like)


@intrinsic  # type: ignore[untyped-decorator]
def _clear(typing, like, to):  # type: ignore[no-untyped-def]
    nothing = ir.Constant(_map_of(like), [0] * EIGHT)
    return emitted(lambda builder, to: write(builder, nothing, to), 1, like)


def _map_of(like: Any) -> Any:
    return _HALVES if like == types.uint16 else _VECTOR


@compiled
def _fill(like, x, strip, number, end, height, width, channels, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Copy what is under a row of tiles to a strip, zeros where it is beyond its map, or beyond the last."""
    down, across = (height + 3) // 4, (width + 3) // 4
    eight = EIGHT * int(like)
    pixel = int(like) * channels
    line = (4 * across + 2 * overlap) * pixel
    top = number % down * 4 - overlap
    start = x + number // down * (height * width * pixel)
    for i in range(4 + 2 * overlap):
        y = top + i
        place = strip + i * line + overlap * pixel
        if 0 <= y < height and number < end:
            source = start + y * width * pixel
            for k in range(0, width * pixel, eight):
                _copy(like, source + k, place + k)
        else:
            for k in range(0, width * pixel, eight):
                _clear(like, place + k)


@compiled
def transform(like, x, strip, to, first, rows, height, width, channels, tiles, spot, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take rows of tiles of maps to 36 numbers a channel.

    Args:
        like: of the maps.
        x: the maps, (batch, y, x, channel).
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
        _fill(like, x, strip, number, first + rows, height, width, channels, overlap)
        for block in range(channels // EIGHT):
            target = at + block * tiles * eight
            for t in range(across):
                source = strip + 4 * t * pixel + block * eight
                if overlap:
                    _input(like, source, line, pixel, target + t * eight, 6 * spot, spot)
                else:
                    _gradient(like, source, line, pixel, target + t * eight, 6 * spot, spot)
        at += across * eight


@compiled
def transform_pairs(like, x, strip, other, to, first, rows, height, width, channels, tiles, spot, overlap):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Take rows of tiles of bfloat16 maps to 36 pairs a channel: tiles of two rows, one after the other.

    Args:
        like, x, first, rows, height, width, channels, spot, overlap: see `transform`.
        strip, other: room for a strip each.
        to: (36, channels / 8, tiles, 8, 2).
        tiles: pairs that `to` has room for.
    """
    across = (width + 3) // 4
    pixel = int(like) * channels
    line = (4 * across + 2 * overlap) * pixel
    at = to
    for number in range(first, first + rows, 2):
        _fill(like, x, strip, number, first + rows, height, width, channels, overlap)
        _fill(like, x, other, number + 1, first + rows, height, width, channels, overlap)
        for block in range(channels // EIGHT):
            target = at + block * tiles * BYTES
            for t in range(across):
                by = 4 * t * pixel + block * EIGHT * int(like)
                if overlap:
                    _input_pair(strip + by, other + by, line, pixel, target + t * BYTES, 6 * spot, spot)
                else:
                    _gradient_pair(strip + by, other + by, line, pixel, target + t * BYTES, 6 * spot, spot)
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
                _output(like, source + t * BYTES, 6 * spot, spot, bias + block * BYTES, to, line, pixel)
        start = out + number // down * (height * width * pixel)
        for i in range(min(4, height - top)):
            place = start + (top + i) * width * pixel
            source = strip + i * line
            for k in range(0, width * pixel, eight):
                _copy(like, source + k, place + k)
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
    half = int(like) == 2
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            weights = right + (place * (out // (EIGHT * vectors)) + o) * panel
            source = left + place * left_spot
            target = to + place * spot + o * vectors * to_stride
            if vectors == 2:
                for t in range(0, tiles, 12 if half else 6):
                    _by_two(like, source + t * eight, weights, target + t * BYTES, blocks, stride, to_stride)
            elif vectors == 3:
                for t in range(0, tiles, 8 if half else 4):
                    _by_three(like, source + t * eight, weights, target + t * BYTES, blocks, stride, to_stride)
            else:
                for t in range(0, tiles, 6):
                    _by_four(like, source + t * eight, weights, target + t * BYTES, blocks, stride, to_stride)


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
    rows = 8 if int(like) == 2 and vectors < 4 else 4
    for place in range(SPOTS):
        for o in range(out // (EIGHT * vectors)):
            gradient = right + place * right_spot + o * vectors * stride
            target = to + (place * (out // (EIGHT * vectors)) + o) * panel
            for c in range(0, channels, rows):
                source = left + place * left_spot + c // EIGHT * stride + c % EIGHT * 4
                there = target + c * vectors * BYTES
                if vectors == 2:
                    _back_by_two(like, source, gradient, there, tiles, stride, stride)
                elif vectors == 3:
                    _back_by_three(like, source, gradient, there, tiles, stride, stride)
                else:
                    _back_by_four(like, source, gradient, there, tiles, stride, stride)
