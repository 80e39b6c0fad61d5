"""Coarse-graining: each block of c×c pixels becomes its maximum and its mean, one byte each.

The ancestor's idea, with what it could not say: a pixel that is not observed counts in neither, and a block of which
nothing is observed has the maximum 255. The mean is kept as a byte r so that max · r / 255 is close to it; rounded to
nearest, so within max / 510. A block at the edge counts only its pixels inside the picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from llvmlite import ir
from numba import int32, njit, types, uint8, uint32, uintp
from numba.extending import intrinsic
from numpy import ndarray

from fastrain.core.errors import SettingError
from fastrain.core.levels import NOT_OBSERVED, LevelTable

MOST_COARSE = 15  # a block's observed pixels are counted in one byte: 15² < 255
LANES = 32  # blocks that are coarsened together
AHEAD = 8192  # bytes that are asked for before they are needed
CACHE_LINE = 64  # bytes

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
        SettingError: the coarseness is not 1 to 15, or the levels are no bytes.
    """
    if not 1 <= coarseness <= MOST_COARSE:
        raise SettingError(f"A coarseness of {coarseness}: expected 1 to {MOST_COARSE}.")
    if level.dtype != np.uint8:
        raise SettingError(f"Levels of {level.dtype}: expected bytes.")
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
    """Coarsen all frames as one tall picture where whole blocks fill a frame, else frame by frame, filled up."""
    height, width = level.shape[1:]
    rows, columns = maximum.shape[1:]
    coarsen_picture = _kernel(c)
    if (rows * c, columns * c) == (height, width) and columns >= LANES:
        flat = (array.reshape(-1) for array in (maximum, ratio, observed))
        coarsen_picture(level.reshape(-1), len(level) * rows, columns, weights, *flat)
        return
    # Pixels beyond the picture's edge are as good as not observed.
    wide = max(columns, LANES)
    frame = np.full((rows * c, wide * c), NOT_OBSERVED, np.uint8)
    out = [np.empty((rows, wide), np.uint8) for _ in range(3)]
    for t in range(len(level)):
        frame[:height, :width] = level[t]
        coarsen_picture(frame.reshape(-1), rows, wide, weights, *(array.reshape(-1) for array in out))
        maximum[t], ratio[t], observed[t] = (array[:, :columns] for array in out)


@cache
def _kernel(c: int) -> Any:
    """Return the compiled loop over blocks of one coarseness: LANES of them at once, then the wet ones singly."""
    edge = int(c)

    # Unsigned indices throughout: signed ones are looked at for being negative, which takes longer than the arithmetic.
    def coarsen_picture(pixels, rows, columns, weights, maximum, ratio, observed):  # type: ignore[no-untyped-def]  # pragma: no cover
        width, step, lanes = uintp(columns * edge), uintp(edge), uintp(LANES)
        for row in range(uintp(rows)):
            top, first = uintp(uintp(row) * width * step), uintp(uintp(row) * uintp(columns))
            for segment in range(uintp((columns + LANES - 1) // LANES)):
                # The last one begins earlier where it would reach beyond the row, and does some blocks again.
                column = min(uintp(segment) * lanes, uintp(columns) - lanes)
                corner, block = top + column * step, first + column
                wet = _blocks(edge, pixels, corner, width, maximum, ratio, observed, block)
                while wet:
                    i = _lowest(wet)
                    wet &= wet - uint32(1)
                    total = 0.0
                    for y in range(step):
                        for x in range(step):
                            total += weights[pixels[corner + i * step + uintp(y) * width + uintp(x)]]
                    # Half up, so that the byte does not depend on the platform's rounding of ties.
                    share = 255.0 * total / (observed[block + i] * weights[maximum[block + i]])
                    ratio[block + i] = uint8(int32(share + 0.5))

    # A name of its own for each coarseness, so that each has its own file where numba keeps what is compiled.
    coarsen_picture.__qualname__ = f"coarsen_picture_{edge}"
    return njit(nogil=True, cache=True, error_model="numpy")(coarsen_picture)


# What follows says in LLVM's own words what its compiler does not find by itself (LOG.md): loops over bytes whose
# neighbours are reduced. It holds for any little-endian processor; where vectors are shorter, the compiler takes more.

_BYTE, _INDEX, _MASK = ir.IntType(8), ir.IntType(32), ir.IntType(32)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _blocks(typing, edge, pixels, corner, width, maximum, ratio, observed, block):  # type: ignore[no-untyped-def]
    """Write maximum, observed pixels and no mean of LANES neighbouring blocks; return which are wet, a bit each.

    A level plus one, in a byte, is 0 where it is not observed and rises with the rain elsewhere: the greatest of a
    block's, less one, is its maximum, or 255 again.
    """
    c = edge.literal_value
    signature = types.uint32(edge, pixels, types.uintp, types.uintp, maximum, ratio, observed, types.uintp)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, pixels, corner, width, maximum, ratio, observed, block = args
        arrays = dict(zip((1, 4, 5, 6), (pixels, maximum, ratio, observed), strict=True))
        data = {i: context.make_array(signature.args[i])(context, builder, array).data for i, array in arrays.items()}
        wide, lanes = ir.VectorType(_BYTE, c * LANES), ir.VectorType(_BYTE, LANES)

        def at(pointer: Any, index: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())

        def greater(a: Any, b: Any) -> Any:
            return builder.select(builder.icmp_unsigned(">", a, b), a, b)

        most = counted = None
        for y in range(c):
            index = builder.add(corner, builder.mul(width, ir.Constant(width.type, y)))
            for x in range(0, c * LANES, CACHE_LINE):
                _prefetch(builder, builder.gep(data[1], [builder.add(index, ir.Constant(width.type, AHEAD + x))]))
            raised = builder.add(builder.load(at(data[1], index, wide), align=1), ir.Constant(wide, [1] * c * LANES))
            seen = builder.zext(builder.icmp_unsigned("!=", raised, ir.Constant(wide, [0] * c * LANES)), wide)
            most = raised if most is None else greater(most, raised)
            counted = seen if counted is None else builder.add(counted, seen)
        highest, total = (
            _every(builder, values, c, join) for values, join in ((most, greater), (counted, builder.add))
        )
        builder.store(builder.sub(highest, ir.Constant(lanes, [1] * LANES)), at(data[4], block, lanes), align=1)
        builder.store(ir.Constant(lanes, [0] * LANES), at(data[5], block, lanes), align=1)
        builder.store(total, at(data[6], block, lanes), align=1)
        return builder.bitcast(builder.icmp_unsigned(">", highest, ir.Constant(lanes, [1] * LANES)), _MASK)

    return signature, generate


def _every(builder: Any, values: Any, c: int, join: Callable[[Any, Any], Any]) -> Any:
    """Return each c neighbours of a vector joined; by halves as long as that goes, which costs least."""
    while c > 1:
        step = 2 if c % 2 == 0 else c
        count = values.type.count // step
        parts = []
        for x in range(step):
            chosen = ir.Constant(ir.VectorType(_INDEX, count), list(range(x, count * step, step)))
            parts.append(builder.shuffle_vector(values, ir.Constant(values.type, ir.Undefined), chosen))
        values, c = functools.reduce(join, parts), c // step
    return values


def _prefetch(builder: Any, pointer: Any) -> None:
    """Ask for what lies at an address, to read it soon; one that is nobody's is passed over."""
    number = ir.IntType(32)
    function = builder.module.declare_intrinsic(
        "llvm.prefetch", [pointer.type], ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    )
    builder.call(function, [pointer, number(0), number(3), number(1)])


@intrinsic  # type: ignore[untyped-decorator]
def _lowest(typing, mask):  # type: ignore[no-untyped-def]
    """Return the number of a mask's lowest bit."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], ir.IntType(1)(1)), context.get_value_type(types.uintp))

    return types.uintp(types.uint32), generate
