"""Words for LLVM's vectors: of 16 numbers, which AVX-512 takes at once, if not said otherwise.

In memory numbers are float32, or bfloat16, the upper half of one; they are computed with as float32.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import njit, types

from fastrain.nets.plain import LANES

WORD = ir.IntType(64)
HALVES = ir.VectorType(ir.IntType(16), LANES)
BITS = ir.VectorType(ir.IntType(32), LANES)
SINGLES = ir.VectorType(ir.FloatType(), LANES)


def read(builder: Any, address: Any, kind: Any) -> Any:
    """Return the vector at an address."""
    loaded = builder.load(builder.inttoptr(address, kind.as_pointer()))
    loaded.align = 1
    return loaded


def write(builder: Any, vector: Any, address: Any) -> None:
    """Write a vector to an address."""
    stored = builder.store(vector, builder.inttoptr(address, vector.type.as_pointer()))
    stored.align = 1


def ahead(builder: Any, base: Any, count: int, stride: Any = None) -> Any:
    """Return the address some bytes, or some strides, further on."""
    step = ir.Constant(WORD, count)
    return builder.add(base, step if stride is None else builder.mul(stride, step))


def constant(value: float, lanes: int = LANES) -> Any:
    """Return a float32 in all lanes."""
    return ir.Constant(ir.VectorType(ir.FloatType(), lanes), [value] * lanes)


def call(builder: Any, name: str, *values: Any) -> Any:
    """Return what LLVM's own function of vectors of float32 makes of them."""
    kind = values[0].type
    function = ir.FunctionType(kind, [kind] * len(values))
    return builder.call(builder.module.declare_intrinsic(f"llvm.{name}.v{kind.count}f32", (), function), values)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a times b plus c."""
    return call(builder, "fma", a, b, c)


def _all(value: int, lanes: int = LANES) -> Any:
    return ir.Constant(_bits(lanes), [value] * lanes)


def _bits(lanes: int) -> Any:
    return ir.VectorType(ir.IntType(32), lanes)


def widened(builder: Any, halves: Any) -> Any:
    """Return as many numbers as there are as float32."""
    singles, lanes = ir.VectorType(ir.FloatType(), halves.type.count), halves.type.count
    if halves.type == singles:
        return halves
    return builder.bitcast(builder.shl(builder.zext(halves, _bits(lanes)), _all(16, lanes)), singles)


def rounded(builder: Any, singles: Any, kind: Any = HALVES) -> Any:
    """Return the bfloat16 nearest to each float32, the even one of two, if that is the kind asked for."""
    if kind == SINGLES:
        return singles
    bits = builder.bitcast(singles, BITS)
    odd = builder.and_(builder.lshr(bits, _all(16)), _all(1))
    up = builder.add(builder.add(bits, _all(0x7FFF)), odd)
    return builder.trunc(builder.lshr(up, _all(16)), HALVES)


def paired(builder: Any, first: Any, second: Any) -> Any:
    """Return bfloat16 numbers of two vectors, as many as there are, as pairs."""
    lanes = first.type.count
    low, high = (builder.zext(half, _bits(lanes)) for half in (first, second))
    return builder.or_(low, builder.shl(high, _all(16, lanes)))


def largest_of(builder: Any, numbers: list[Any]) -> tuple[Any, Any]:
    """Return the largest of some vectors in each lane, and a byte: which of them that is, the first of several."""
    best, kind = numbers[0], ir.VectorType(ir.IntType(8), numbers[0].type.count)
    place = ir.Constant(kind, [0] * kind.count)
    for number, other in enumerate(numbers[1:], 1):
        value = widened(builder, other)
        # What is no number counts as the largest, as it does for torch, so that it is not lost.
        none = builder.fcmp_unordered("uno", value, value)
        more = builder.or_(builder.fcmp_ordered(">", value, widened(builder, best)), none)
        best = builder.select(more, other, best)
        place = builder.select(more, ir.Constant(kind, [number] * kind.count), place)
    return best, place


def write_where(builder: Any, value: Any, place: Any, number: int, address: Any) -> None:
    """Write a vector to an address, zeros in the lanes whose byte is not a number."""
    here = builder.icmp_unsigned("==", place, ir.Constant(place.type, [number] * place.type.count))
    write(builder, builder.select(here, value, ir.Constant(value.type, [0] * value.type.count)), address)


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return 16 rows of 16 32-bit numbers as columns: interleaved with their half, four times over."""
    low = [k // 2 + LANES * (k % 2) for k in range(LANES)]
    for _ in range(4):
        halves = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
        rows = [
            builder.shuffle_vector(a, b, ir.Constant(BITS, [k + shift for k in low]))
            for a, b in halves
            for shift in (0, LANES // 2)
        ]
    return rows


def kind_of(like: Any, lanes: int = LANES) -> Any:
    """Return the vector of the numbers that numba's type of their bytes stands for: uint16 bfloat16, uint32 float32."""
    return ir.VectorType(ir.IntType(16) if like == types.uint16 else ir.FloatType(), lanes)


def emitted(emit: Callable[..., None], operands: int, *like: Any) -> Any:
    """Return what an intrinsic returns that takes addresses and numbers of 64 bits and gives nothing.

    Args:
        emit: is given the builder, and their values.
        operands: how many there are.
        like: types of what comes before them and only says in which numbers to compute.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(builder, *arguments[len(like) :])
        return context.get_dummy_value()

    return types.void(*like, *[types.uintp] * operands), codegen


def compiled(function: Callable[..., None]) -> Any:
    """Return a function compiled by numba, which keeps what it compiled."""
    # Under a name that changes with the words: numba looks only at the file in which the function stands.
    function.__qualname__ = f"{function.__qualname__}_{_WORDS:x}"
    return njit(nogil=True, cache=True, error_model="numpy")(function)


_FILES = ("plain", "vectors", "instructions", "transforms", "products")  # that loops take their words from
_WORDS = zlib.crc32(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _FILES))
