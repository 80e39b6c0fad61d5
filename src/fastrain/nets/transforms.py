"""Changes of tiles by minimal filtering, and products of what they are changed to, in LLVM's words, for `winograd`.

All are of 8 channels, at addresses. `like` is numba's type of how many bytes a map's number has: uint16 for bfloat16,
uint32 for float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrain.nets.plain import FAR, NEAR
from fastrain.nets.vectors import WORD, ahead, constant, emitted, fma, kind_of, paired, read, widened, write

llvmlite.binding.initialize_native_asmparser()

EIGHT = 8  # numbers that are computed with together: a register of AVX2
BYTES = 4 * EIGHT
FOUR, SIX = 4, 6  # edges of a tile and of what is under it
_VECTOR = ir.VectorType(ir.FloatType(), EIGHT)
_PAIRS = ir.VectorType(ir.IntType(32), EIGHT)
_HALVES = ir.VectorType(ir.IntType(16), EIGHT)
_FIRST = ir.Constant(ir.IntType(32), 0)
# How many rows a product takes at once, by how many eights a panel has, of float32 and of bfloat16: as many sums as
# AVX2 has registers for, less some, and as AVX-512 has.
ROWS = ((), (), (6, 12), (4, 8), (0, 6))
BACK_ROWS = ((), (), (4, 8), (4, 8), (0, 4))
_NEAR_SQUARED, _FAR_SQUARED = 0.5, 2.0  # whose product is 1


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
    both = _NEAR_SQUARED + _FAR_SQUARED
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


def _cells(builder: Any, like: Any, address: Any) -> Any:
    """Return 8 numbers of a map as float32."""
    return widened(builder, read(builder, address, kind_of(like, EIGHT)))


def _rounded(builder: Any, singles: Any) -> Any:
    """Return the bfloat16 nearest to each float32, by the processor's own instruction."""
    function = ir.FunctionType(_HALVES, [_VECTOR])
    return builder.call(ir.InlineAsm(function, "vcvtneps2bf16 $1, $0", "=v,v", False), [singles])


def _as_map(builder: Any, like: Any, singles: Any) -> Any:
    return _rounded(builder, singles) if like == types.uint16 else singles


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

    def emit(builder: Any, start: Any, row: Any, column: Any, to: Any, to_row: Any, to_column: Any) -> None:
        def at(i: int, j: int) -> Any:
            return _cells(builder, like, _place(builder, start, row, column, i, j))

        for i, values in enumerate(_changed(builder, change, there, SIX, at)):
            for j, value in enumerate(values):
                write(builder, _as_map(builder, like, value), _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 6, like)


def _transform_back(like: Any) -> Any:
    """Return what emits the change of 8 channels of 6×6 sums, and what is added to all, to 4×4 cells of a map."""

    def emit(builder: Any, start: Any, row: Any, column: Any, bias: Any, to: Any, to_row: Any, to_column: Any) -> None:
        def at(i: int, j: int) -> Any:
            return read(builder, _place(builder, start, row, column, i, j), _VECTOR)

        more = read(builder, bias, _VECTOR)
        for i, values in enumerate(_changed(builder, _of_output, SIX, FOUR, at)):
            for j, value in enumerate(values):
                cell = _as_map(builder, like, builder.fadd(value, more))
                write(builder, cell, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 7, like)


def _transform_pair(change: Callable[[Any, list[Any]], list[Any]], there: int) -> Any:
    """Return what emits a change of 8 channels of two squares of bfloat16, which become pairs."""

    def emit(builder: Any, start: Any, other: Any, row: Any, column: Any, to: Any, to_row: Any, to_column: Any) -> None:
        both = []
        for one in (start, other):

            def at(i: int, j: int, one: Any = one) -> Any:
                return _cells(builder, types.uint16, _place(builder, one, row, column, i, j))

            both.append(_changed(builder, change, there, SIX, at))
        for i in range(SIX):
            for j in range(SIX):
                pair = paired(builder, *(_rounded(builder, square[i][j]) for square in both))
                write(builder, pair, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 7)


@intrinsic  # type: ignore[untyped-decorator]
def take_input(typing, like, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    """Write the 36 numbers that the 6×6 cells under a tile are taken to."""
    return _transform(_of_input, SIX, like)


@intrinsic  # type: ignore[untyped-decorator]
def bring_back(typing, like, start, row, column, bias, to, to_row, to_column):  # type: ignore[no-untyped-def]
    """Write the 4×4 cells that 36 numbers stand for, and what is added to all of a channel."""
    return _transform_back(like)


@intrinsic  # type: ignore[untyped-decorator]
def take_gradient(typing, like, start, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    """Write the gradients of 36 numbers from those of the 4×4 cells that they stand for."""
    return _transform(_of_gradient, FOUR, like)


@intrinsic  # type: ignore[untyped-decorator]
def take_input_pair(typing, start, other, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    """Write the same as `take_input`, of two tiles as pairs of bfloat16."""
    return _transform_pair(_of_input, SIX)


@intrinsic  # type: ignore[untyped-decorator]
def take_gradient_pair(typing, start, other, row, column, to, to_row, to_column):  # type: ignore[no-untyped-def]
    """Write the same as `take_gradient`, of two tiles as pairs of bfloat16."""
    return _transform_pair(_of_gradient, FOUR)


def _added(builder: Any, one: Any, by: Any, found: Any) -> Any:
    """Return a sum and a product; of bfloat16, a sum and the products of pairs."""
    if one.type == _VECTOR:
        return fma(builder, one, by, found)
    function = ir.FunctionType(_VECTOR, [_VECTOR, _PAIRS, _PAIRS])
    return builder.call(ir.InlineAsm(function, "vdpbf16ps $3, $2, $0", "=v,0,v,v", False), [found, one, by])


def _of(like: Any) -> int:
    return int(like == types.uint16)


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
def by_two(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Write the products of ROWS[2] tiles and a panel of 16 channels out."""
    return _kernel(ROWS[2][_of(like)], 2, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def by_three(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Write the products of ROWS[3] tiles and a panel of 24."""
    return _kernel(ROWS[3][_of(like)], 3, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def by_four(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Write the products of ROWS[4] tiles and a panel of 32."""
    return _kernel(ROWS[4][_of(like)], 4, like, back=False)


@intrinsic  # type: ignore[untyped-decorator]
def back_by_two(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Add the products of BACK_ROWS[2] channels of tiles and a panel of 16 gradients."""
    return _kernel(BACK_ROWS[2][_of(like)], 2, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def back_by_three(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Add the products of BACK_ROWS[3] channels of tiles and a panel of 24 gradients."""
    return _kernel(BACK_ROWS[3][_of(like)], 3, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def back_by_four(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
    """Add the products of BACK_ROWS[4] channels of tiles and a panel of 32 gradients."""
    return _kernel(BACK_ROWS[4][_of(like)], 4, like, back=True)


@intrinsic  # type: ignore[untyped-decorator]
def copy(typing, like, start, to):  # type: ignore[no-untyped-def]
    """Copy 8 numbers."""
    kind = kind_of(like, EIGHT)
    return emitted(lambda builder, start, to: write(builder, read(builder, start, kind), to), 2, like)


@intrinsic  # type: ignore[untyped-decorator]
def clear(typing, like, to):  # type: ignore[no-untyped-def]
    """Write 8 zeros."""
    nothing = ir.Constant(kind_of(like, EIGHT), [0] * EIGHT)
    return emitted(lambda builder, to: write(builder, nothing, to), 1, like)
