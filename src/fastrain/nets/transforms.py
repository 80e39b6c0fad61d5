"""Changes of tiles by minimal filtering in LLVM's words, for `winograd`.

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
from fastrain.nets.vectors import (
    WORD,
    ahead,
    constant,
    emitted,
    fma,
    kind_of,
    largest_of,
    paired,
    read,
    widened,
    write,
    write_where,
)

llvmlite.binding.initialize_native_asmparser()

EIGHT = 8  # numbers that are computed with together: a register of AVX2
BYTES = 4 * EIGHT
FOUR, SIX = 4, 6  # edges of a tile and of what is under it
_VECTOR = ir.VectorType(ir.FloatType(), EIGHT)
_PAIRS = ir.VectorType(ir.IntType(32), EIGHT)
_HALVES = ir.VectorType(ir.IntType(16), EIGHT)
_BYTES = ir.VectorType(ir.IntType(8), EIGHT)
_NEAR_SQUARED, _FAR_SQUARED = 0.5, 2.0  # whose product is 1


def _place(builder: Any, start: Any, row: Any, column: Any, i: int, j: int) -> Any:
    return ahead(builder, ahead(builder, start, i, row), j, column)


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


def _cells_back(builder: Any, start: Any, row: Any, column: Any) -> list[list[Any]]:
    """Return the change of 8 channels of 6×6 sums to 4×4 cells."""

    def at(i: int, j: int) -> Any:
        return read(builder, _place(builder, start, row, column, i, j), _VECTOR)

    return _changed(builder, _of_output, SIX, FOUR, at)


def _transform_back(like: Any) -> Any:
    """Return what emits the change of 8 channels of 6×6 sums, and what is added to all, to 4×4 cells of a map."""

    def emit(builder: Any, start: Any, row: Any, column: Any, bias: Any, to: Any, to_row: Any, to_column: Any) -> None:
        more = read(builder, bias, _VECTOR)
        for i, values in enumerate(_cells_back(builder, start, row, column)):
            for j, value in enumerate(values):
                cell = _as_map(builder, like, builder.fadd(value, more))
                write(builder, cell, _place(builder, to, to_row, to_column, i, j))

    return emitted(emit, 7, like)


def _largest_back(like: Any) -> Any:
    """Return what emits the same change, and writes of each 2×2 cells the largest, and which of them it is."""

    def emit(builder: Any, *places: Any) -> None:
        start, row, column, to, to_row, to_column, which, which_row, which_column = places
        cells = _cells_back(builder, start, row, column)
        for i in range(FOUR // 2):
            for j in range(FOUR // 2):
                four = [cells[2 * i + di][2 * j + dj] for di in range(2) for dj in range(2)]
                best, place = largest_of(builder, four)
                write(builder, _as_map(builder, like, best), _place(builder, to, to_row, to_column, i, j))
                write(builder, place, _place(builder, which, which_row, which_column, i, j))

    return emitted(emit, 9, like)


def _spread(like: Any, first: int) -> Any:
    """Return what emits 8 numbers at one of two cells side by side, zeros at the other; or zeros at both.

    Args:
        like: see above.
        first: what says that it is the left one; the next says the right one.
    """

    def emit(builder: Any, start: Any, which: Any, to: Any, right: Any) -> None:
        value, place = read(builder, start, kind_of(like, EIGHT)), read(builder, which, _BYTES)
        for number, address in ((first, to), (first + 1, builder.add(to, right))):
            write_where(builder, value, place, number, address)

    return emitted(emit, 4, like)


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
def bring_back_largest(typing, like, start, row, column, to, to_row, to_column, which, which_row, which_column):  # type: ignore[no-untyped-def]
    """Write the largest of each 2×2 of the cells that 36 numbers stand for, and a byte: which, 0 to 3, by rows."""
    return _largest_back(like)


@intrinsic  # type: ignore[untyped-decorator]
def spread_above(typing, like, start, which, to, right):  # type: ignore[no-untyped-def]
    """Write what belongs to the largest of 2×2 cells to the upper two of them, zeros where it was another."""
    return _spread(like, 0)


@intrinsic  # type: ignore[untyped-decorator]
def spread_below(typing, like, start, which, to, right):  # type: ignore[no-untyped-def]
    """Write the same to the lower two."""
    return _spread(like, 2)


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


@intrinsic  # type: ignore[untyped-decorator]
def copy(typing, like, start, to):  # type: ignore[no-untyped-def]
    """Copy 8 numbers."""
    kind = kind_of(like, EIGHT)
    return emitted(lambda builder, start, to: write(builder, read(builder, start, kind), to), 2, like)


@intrinsic  # type: ignore[untyped-decorator]
def copy_bytes(typing, start, to):  # type: ignore[no-untyped-def]
    """Copy 8 bytes."""
    return emitted(lambda builder, start, to: write(builder, read(builder, start, WORD), to), 2)


@intrinsic  # type: ignore[untyped-decorator]
def clear(typing, like, to):  # type: ignore[no-untyped-def]
    """Write 8 zeros."""
    nothing = ir.Constant(kind_of(like, EIGHT), [0] * EIGHT)
    return emitted(lambda builder, to: write(builder, nothing, to), 1, like)
