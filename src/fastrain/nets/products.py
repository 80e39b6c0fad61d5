"""Products of what tiles are changed to by minimal filtering, in LLVM's words, for `winograd`; see `transforms` too."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastrain.nets.transforms import BYTES, EIGHT
from fastrain.nets.vectors import WORD, ahead, constant, emitted, fma, read, write

# How many rows a product takes at once, of panels of two, three and four eights, of float32 and of bfloat16: as many
# sums as AVX2 has registers for, less some, and as AVX-512 has. Panels of four are of bfloat16 only.
ROWS = ((6, 12), (4, 8), (0, 6))
BACK_ROWS = ((4, 8), (4, 8), (0, 4))
_VECTOR = ir.VectorType(ir.FloatType(), EIGHT)
_PAIRS = ir.VectorType(ir.IntType(32), EIGHT)
_FIRST = ir.Constant(ir.IntType(32), 0)


def _everywhere(builder: Any, address: Any, kind: Any) -> Any:
    """Return the 32 bits at an address in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), read(builder, address, kind.element), _FIRST)
    lanes = ir.Constant(_PAIRS, [0] * EIGHT)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lanes)


def _added(builder: Any, one: Any, by: Any, found: Any) -> Any:
    """Return a sum and a product; of bfloat16, a sum and the products of pairs."""
    if one.type == _VECTOR:
        return fma(builder, one, by, found)
    function = ir.FunctionType(_VECTOR, [_VECTOR, _PAIRS, _PAIRS])
    return builder.call(ir.InlineAsm(function, "vdpbf16ps $3, $2, $0", "=v,0,v,v", False), [found, one, by])


def _kernel(vectors: int, like: Any, *, back: bool) -> Any:
    """Return what emits a product of a few rows and 16 to 32 columns, kept in registers over the whole sum.

    Forward a row is a tile, and the sum goes over channels; back a row is a channel, and the sum goes over tiles, added
    to what is there. Back, numbers of bfloat16 are pairs, and take as many bytes as float32.
    """
    halves = like == types.uint16
    rows = (BACK_ROWS if back else ROWS)[vectors - 2][int(halves)]
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


def _product(vectors: int, *, back: bool) -> Any:
    """Return an intrinsic that multiplies by a panel of so many eights; see `_kernel`."""

    @intrinsic  # type: ignore[untyped-decorator]
    def product(typing, like, left, right, to, count, stride, to_stride):  # type: ignore[no-untyped-def]
        return _kernel(vectors, like, back=back)

    return product


by_two, by_three, by_four = (_product(vectors, back=False) for vectors in (2, 3, 4))
back_by_two, back_by_three, back_by_four = (_product(vectors, back=True) for vectors in (2, 3, 4))
