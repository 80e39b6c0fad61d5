"""What numba and LLVM have no words for: instructions of the matrix unit, and vectors that come to it and from it.

Two sums lie in the unit's tiles 0 and 1; factors go through 2 and 3 (see `tiles` for why no more).
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.extending import intrinsic

from fastrain.nets.plain import EDGE, STEP
from fastrain.nets.vectors import (
    BITS,
    HALVES,
    SINGLES,
    WORD,
    ahead,
    emitted,
    paired,
    read,
    rounded,
    transposed,
    write,
)

llvmlite.binding.initialize_native_asmparser()


def _instructions(text: str, operands: int, *numbers: int) -> Any:
    """Return what emits instructions.

    Args:
        text: in AT&T's words; $0 and on are the operands, then the numbers, in registers of 64 bits.
        operands: how many addresses are given.
        numbers: that are always the same.
    """

    def emit(builder: Any, *arguments: Any) -> None:
        values = [*arguments, *(ir.Constant(WORD, number) for number in numbers)]
        function = ir.FunctionType(ir.VoidType(), [WORD] * len(values))
        builder.asm(function, text, ",".join(["r"] * len(values) + ["~{memory}"]), values, True)

    return emitted(emit, operands)


@intrinsic  # type: ignore[untyped-decorator]
def configure(typing, shape):  # type: ignore[no-untyped-def]
    """Give the tiles a shape."""
    return _instructions("ldtilecfg ($0)", 1)


@intrinsic  # type: ignore[untyped-decorator]
def configuration(typing, shape):  # type: ignore[no-untyped-def]
    """Write the tiles' shape: oneDNN remembers which one it gave them, and must find it again."""
    return _instructions("sttilecfg ($0)", 1)


@intrinsic  # type: ignore[untyped-decorator]
def clear_sums(typing):  # type: ignore[no-untyped-def]
    """Set both sums to nothing."""
    return _instructions("tilezero %tmm0\ntilezero %tmm1", 0)


@intrinsic  # type: ignore[untyped-decorator]
def load_sums(typing, first, second, stride):  # type: ignore[no-untyped-def]
    """Set both sums to what lies in memory."""
    return _instructions("tileloadd ($0,$2,1), %tmm0\ntileloadd ($1,$2,1), %tmm1", 3)


@intrinsic  # type: ignore[untyped-decorator]
def store_sums(typing, first, second, stride):  # type: ignore[no-untyped-def]
    """Write both sums."""
    return _instructions("tilestored %tmm0, ($0,$2,1)\ntilestored %tmm1, ($1,$2,1)", 3)


@intrinsic  # type: ignore[untyped-decorator]
def multiply(typing, left, stride, right):  # type: ignore[no-untyped-def]
    """Add a left tile times each of two right ones, which lie one after the other, to both sums."""
    return _instructions(
        "tileloadd ($0,$1,1), %tmm2\n"
        "tileloadd ($2,$3,1), %tmm3\n"
        "tdpbf16ps %tmm3, %tmm2, %tmm0\n"
        "tileloadd 1024($2,$3,1), %tmm3\n"
        "tdpbf16ps %tmm3, %tmm2, %tmm1",
        3,
        64,
    )


@intrinsic  # type: ignore[untyped-decorator]
def multiply_both(typing, left, other, right):  # type: ignore[no-untyped-def]
    """Add each of two left tiles times a right one to its sum."""
    return _instructions(
        "tileloadd ($2,$3,1), %tmm2\n"
        "tileloadd ($0,$3,1), %tmm3\n"
        "tdpbf16ps %tmm2, %tmm3, %tmm0\n"
        "tileloadd ($1,$3,1), %tmm3\n"
        "tdpbf16ps %tmm2, %tmm3, %tmm1",
        3,
        64,
    )


def _of_images(builder: Any, start: Any, apart: Any, images: Any, zeros: Any) -> list[Any]:
    """Return pairs of 16 numbers of each two of 32 images, zeros for those beyond the last."""
    numbers = []
    for i in range(STEP):
        there = builder.icmp_unsigned("<", ir.Constant(WORD, i), images)
        place = builder.select(there, ahead(builder, start, i, apart), zeros)
        numbers.append(read(builder, place, HALVES))
    return [paired(builder, numbers[i], numbers[i + 1]) for i in range(0, STEP, 2)]


def _write_tile(builder: Any, rows: list[Any], to: Any) -> None:
    """Write the rows of a tile."""
    for i, row in enumerate(rows):
        write(builder, row, ahead(builder, to, 64 * i))


@intrinsic  # type: ignore[untyped-decorator]
def right_of_images(typing, start, apart, images, zeros, to):  # type: ignore[no-untyped-def]
    """Write 16 numbers of each of 32 images as a right tile."""

    def emit(builder: Any, *places: Any) -> None:
        _write_tile(builder, _of_images(builder, *places[:-1]), places[-1])

    return emitted(emit, 5)


@intrinsic  # type: ignore[untyped-decorator]
def left_of_images(typing, start, apart, images, zeros, to):  # type: ignore[no-untyped-def]
    """Write 16 numbers of each of 32 images as a left tile: a row of 32 for each of the 16."""

    def emit(builder: Any, *places: Any) -> None:
        _write_tile(builder, transposed(builder, _of_images(builder, *places[:-1])), places[-1])

    return emitted(emit, 5)


@intrinsic  # type: ignore[untyped-decorator]
def pairs(typing, first, second, to):  # type: ignore[no-untyped-def]
    """Write 16 numbers of two rows as pairs: a row of a right tile."""

    def emit(builder: Any, first: Any, second: Any, to: Any) -> None:
        write(builder, paired(builder, *(read(builder, start, HALVES) for start in (first, second))), to)

    return emitted(emit, 3)


@intrinsic  # type: ignore[untyped-decorator]
def right_tile(typing, rows, stride, to):  # type: ignore[no-untyped-def]
    """Write 16 rows of 32 numbers as a right tile: 16 rows of 16 pairs."""

    def emit(builder: Any, rows: Any, stride: Any, to: Any) -> None:
        pairs = [read(builder, ahead(builder, rows, i, stride), BITS) for i in range(EDGE)]
        _write_tile(builder, transposed(builder, pairs), to)

    return emitted(emit, 3)


@intrinsic  # type: ignore[untyped-decorator]
def rounded_to(typing, singles, to):  # type: ignore[no-untyped-def]
    """Write 16 float32 numbers as bfloat16."""

    def emit(builder: Any, singles: Any, to: Any) -> None:
        write(builder, rounded(builder, read(builder, singles, SINGLES)), to)

    return emitted(emit, 2)


@intrinsic  # type: ignore[untyped-decorator]
def copy_line(typing, start, to):  # type: ignore[no-untyped-def]
    """Copy 64 bytes."""

    def emit(builder: Any, start: Any, to: Any) -> None:
        write(builder, read(builder, start, BITS), to)

    return emitted(emit, 2)
