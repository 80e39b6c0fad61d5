"""3×3 convolutions of bfloat16 maps on the matrix unit of a processor (AMX), said in its own instructions.

A map lies channels last, one image after the other, a column of zeros after each row and a row of zeros after each
image; so flat, a shift by a row or a column is a shift of an address, and all images are one long row of pixels. Each
convolution is a sum of products of matrices then, whose left factors overlap.

The unit has eight registers, tiles, of 1 KiB. Where a neighbour works on the same core, which on rented machines is the
rule, a product takes four times as long when all eight are in use; with four of them, as here, twice as long (LOG.md).

All that follows takes addresses of memory. Source: Intel (2024), 64 and IA-32 Architectures Optimization Reference
Manual, chapter 20.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types, uintp
from numba.extending import intrinsic

from fastrain.nets.vectors import BITS, HALVES, LANES, SINGLES, WORD, ahead, paired, read, rounded, transposed, write

TILE = 1024  # bytes: 16 rows of 64
EDGE = LANES  # rows of a tile, and 32-bit numbers of a row
STEP = 32  # bfloat16 numbers of a row: how much of a sum one product takes

llvmlite.binding.initialize_native_asmparser()


@cache
def usable() -> bool:
    """Tell whether the processor has the unit and the system lets this process use it; asks for it if need be."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    if not getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)():
        return False
    arch_prctl, ask, tile_data = 158, 0x1023, 18  # ARCH_REQ_XCOMP_PERM: Linux, Documentation/arch/x86/xstate.rst
    return bool(ctypes.CDLL(None).syscall(arch_prctl, ask, tile_data) == 0)


def _shape_of_tiles() -> np.ndarray:
    """Return the unit's configuration: eight tiles of 16 rows of 64 bytes."""
    shape = np.zeros(64, np.uint8)
    shape[0] = 1
    shape[16:32].view(np.uint16)[:] = 64
    shape[48:56] = EDGE
    return shape


_SHAPE = _shape_of_tiles()


def shape_of_tiles() -> int:
    """Return the address of the unit's configuration."""
    return int(_SHAPE.ctypes.data)


# What numba and LLVM have no words for.


def _instructions(text: str, operands: int, *numbers: int) -> Any:
    """Return what emits instructions.

    Args:
        text: in AT&T's words; $0 and on are the operands, then the numbers, in registers of 64 bits.
        operands: how many addresses are given.
        numbers: that are always the same.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [*arguments, *(ir.Constant(WORD, number) for number in numbers)]
        function = ir.FunctionType(ir.VoidType(), [WORD] * len(values))
        builder.asm(function, text, ",".join(["r"] * len(values) + ["~{memory}"]), values, True)
        return context.get_dummy_value()

    return types.void(*[types.uintp] * operands), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _configure(typing, shape):  # type: ignore[no-untyped-def]
    """Give the tiles a shape."""
    return _instructions("ldtilecfg ($0)", 1)


@intrinsic  # type: ignore[untyped-decorator]
def _configuration(typing, shape):  # type: ignore[no-untyped-def]
    """Write the tiles' shape: oneDNN remembers which one it gave them, and must find it again."""
    return _instructions("sttilecfg ($0)", 1)


@intrinsic  # type: ignore[untyped-decorator]
def _clear(typing, unused):  # type: ignore[no-untyped-def]
    """Set both sums to nothing."""
    return _instructions("tilezero %tmm0\ntilezero %tmm1\n# $0", 1)


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing, first, second, stride):  # type: ignore[no-untyped-def]
    """Set both sums to what lies in memory."""
    return _instructions("tileloadd ($0,$2,1), %tmm0\ntileloadd ($1,$2,1), %tmm1", 3)


@intrinsic  # type: ignore[untyped-decorator]
def _store(typing, first, second, stride):  # type: ignore[no-untyped-def]
    """Write both sums."""
    return _instructions("tilestored %tmm0, ($0,$2,1)\ntilestored %tmm1, ($1,$2,1)", 3)


@intrinsic  # type: ignore[untyped-decorator]
def _multiply(typing, left, stride, first, second):  # type: ignore[no-untyped-def]
    """Add a left tile times each of two right ones to both sums."""
    return _instructions(
        "tileloadd ($0,$1,1), %tmm2\n"
        "tileloadd ($2,$4,1), %tmm3\n"
        "tdpbf16ps %tmm3, %tmm2, %tmm0\n"
        "tileloadd ($3,$4,1), %tmm3\n"
        "tdpbf16ps %tmm3, %tmm2, %tmm1",
        4,
        64,
    )


@intrinsic  # type: ignore[untyped-decorator]
def _pairs(typing, first, second, to):  # type: ignore[no-untyped-def]
    """Write 16 numbers of two pixels as pairs: a row of a right tile."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, to = arguments
        write(builder, paired(builder, *(read(builder, a, HALVES) for a in (first, second))), to)
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 3), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _columns_of_pixels(typing, maps, zeros, places, within, pixel, skipped, to, apart):  # type: ignore[no-untyped-def]
    """Write 16 numbers of each of 32 pixels as 16 rows of 32; those of no place, or of one beyond, are zeros."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        maps, zeros, places, within, pixel, skipped, to, apart = arguments
        numbers = []
        for i in range(2 * EDGE):
            place = builder.load(builder.inttoptr(ahead(builder, places, 8 * i), WORD.as_pointer()))
            # NOWHERE, read without its sign, is beyond everything.
            start = builder.add(maps, builder.mul(place, pixel))
            start = builder.select(builder.icmp_unsigned("<", place, within), start, zeros)
            numbers.append(read(builder, builder.add(start, skipped), HALVES))
        rows = [paired(builder, numbers[i], numbers[i + 1]) for i in range(0, 2 * EDGE, 2)]
        for i, row in enumerate(transposed(builder, rows)):
            write(builder, row, ahead(builder, to, i, apart))
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 8), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _right_tile(typing, rows, stride, to):  # type: ignore[no-untyped-def]
    """Write 16 rows of 32 numbers as a right tile: 16 rows of 16 pairs."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, stride, to = arguments
        pairs = [read(builder, ahead(builder, rows, i, stride), BITS) for i in range(EDGE)]
        for i, row in enumerate(transposed(builder, pairs)):
            write(builder, row, ahead(builder, to, 64 * i))
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 3), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _round(typing, singles, to):  # type: ignore[no-untyped-def]
    """Write 16 float32 numbers as bfloat16."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        singles, to = arguments
        write(builder, rounded(builder, read(builder, singles, SINGLES)), to)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _copy(typing, start, to, size):  # type: ignore[no-untyped-def]
    """Copy bytes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, to, size = arguments
        pointer = ir.IntType(8).as_pointer()
        copy = builder.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, WORD])
        places = [builder.inttoptr(place, pointer) for place in (to, start)]
        builder.call(copy, [*places, size, ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(*[types.uintp] * 3), codegen


@intrinsic  # type: ignore[untyped-decorator]
def _number(typing, address):  # type: ignore[no-untyped-def]
    """Return the 64-bit number at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], WORD.as_pointer()))

    return types.int64(types.uintp), codegen


def _compiled(function: Callable[..., None]) -> Any:
    return njit(nogil=True, cache=True, error_model="numpy")(function)


NOWHERE = -1  # what a place of zeros has for a pixel


@_compiled
def pack(rows, to, count, length):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the right tiles of weights: by 32 columns, then by 32 rows of the sum, two tiles one after the other.

    Args:
        rows: (column, row of the sum), bfloat16; multiples of 32 of both.
        to: as many bytes.
        count: of columns.
        length: of the sum.
    """
    stride = uintp(length) * uintp(2)
    for block in range(uintp(count) // uintp(STEP)):
        for k in range(uintp(length) // uintp(STEP)):
            for half in range(uintp(2)):
                column = uintp(block) * uintp(STEP) + uintp(half) * uintp(EDGE)
                _right_tile(rows + column * stride + uintp(k) * uintp(64), stride, to)
                to += uintp(TILE)


@_compiled
def pad(maps, to, images, height, width, pixel, lead):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Copy maps to where zeros lie between their rows and images.

    Args:
        maps: (image, y, x), of `pixel` bytes.
        to: zeros; see there.
        images: how many.
        height: y.
        width: x.
        pixel: bytes of one.
        lead: pixels of zeros before the first.
    """
    row, apart = uintp(width) * uintp(pixel), (uintp(width) + uintp(1)) * uintp(pixel)
    to += uintp(lead) * uintp(pixel)
    for _ in range(uintp(images)):
        for _ in range(uintp(height)):
            _copy(maps, to, row)
            maps += row
            to += apart
        to += apart


@_compiled
def convolve(padded, weights, out, places, scratch, shape, kept, pixels, within, channels_in, channels_out, row):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the 3×3 convolution of padded maps.

    Args:
        padded: (pixel, channel in) bfloat16, as `pad` makes them, with a lead of a row and a pixel.
        weights: (channel out; y, x, channel in), as `pack` makes them.
        out: (pixel of the maps, channel out) bfloat16.
        places: of each padded pixel, the first map's first: which pixel of the maps it is, or NOWHERE; 64-bit.
        scratch: 2 KiB.
        shape: of the tiles.
        kept: 64 bytes.
        pixels: padded ones to go through.
        within: pixels of the maps that are wanted.
        channels_in: how many, a multiple of 32.
        channels_out: how many, a multiple of 16.
        row: padded pixels of a row.
    """
    _configuration(kept)
    _configure(shape)
    pixel, wide = uintp(channels_in) * uintp(2), uintp(channels_out) * uintp(2)
    # Three pixels that lie one after the other are one sum.
    steps = uintp(3) * uintp(channels_in) // uintp(STEP)
    panel = uintp(3) * steps * uintp(2 * TILE)
    for block in range((uintp(channels_out) + uintp(STEP - 1)) // uintp(STEP)):
        both = (uintp(block) + uintp(1)) * uintp(STEP) <= uintp(channels_out)
        for tile in range((uintp(pixels) + uintp(EDGE - 1)) // uintp(EDGE)):
            _clear(uintp(0))
            right = weights + uintp(block) * panel
            for y in range(uintp(3)):
                left = padded + (uintp(tile) * uintp(EDGE) + uintp(y) * uintp(row)) * pixel
                for _ in range(steps):
                    _multiply(left, pixel, right, right + uintp(TILE))
                    left += uintp(64)
                    right += uintp(2 * TILE)
            _store(scratch, scratch + uintp(64), uintp(128))
            for i in range(uintp(EDGE)):
                place = _number(places + (uintp(tile) * uintp(EDGE) + uintp(i)) * uintp(8))
                if place >= 0 and uintp(place) < uintp(within):
                    to = out + uintp(place) * wide + uintp(block) * uintp(64)
                    _round(scratch + uintp(i) * uintp(128), to)
                    if both:
                        _round(scratch + uintp(i) * uintp(128) + uintp(64), to + uintp(32))
    _configure(kept)


@_compiled
def columns(maps, to, places, zeros, pixels, within, channels, apart):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write maps channel by channel, zeros between their rows and images: rows of left tiles.

    Args:
        maps: (pixel, channel) bfloat16.
        to: (channel; padded pixel).
        places: see `convolve`.
        zeros: as many bytes as a pixel has.
        pixels: padded ones, a multiple of 32.
        within: pixels of the maps that count; the others are zeros.
        channels: how many, a multiple of 16.
        apart: bytes from a channel to the next; no multiple of 4096, which would hit the same lines of the cache.
    """
    pixel = uintp(channels) * uintp(2)
    for tile in range(uintp(pixels) // uintp(STEP)):
        for block in range(uintp(channels) // uintp(EDGE)):
            _columns_of_pixels(
                maps,
                zeros,
                places + uintp(tile) * uintp(STEP * 8),
                uintp(within),
                pixel,
                uintp(block) * uintp(32),
                to + uintp(block) * uintp(EDGE) * uintp(apart) + uintp(tile) * uintp(64),
                uintp(apart),
            )


@_compiled
def pairs(padded, to, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write padded maps as pairs of pixels, which any 16 of are a right tile.

    Args:
        padded: (pixel, channel) bfloat16; readable for 32 bytes beyond.
        to: (16 channels, first pixel of the first pair; pair, 16).
        pixels: how many pairs of each.
        channels: how many.
    """
    pixel = uintp(channels) * uintp(2)
    for block in range((uintp(channels) + uintp(EDGE - 1)) // uintp(EDGE)):
        for odd in range(uintp(2)):
            start = padded + uintp(block) * uintp(32) + uintp(odd) * pixel
            for _ in range(uintp(pixels)):
                _pairs(start, start + pixel, to)
                start += uintp(2) * pixel
                to += uintp(64)


@_compiled
def add_gradient(lefts, rights, sums, shape, kept, pixels, channels_in, channels_out, apart, row, panel, at_once):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the gradient of a 3×3 convolution's weights over some padded pixels.

    Args:
        lefts: the gradient of what went out, as `columns` makes it.
        rights: what came in, as `pairs` makes it, with a lead of a row and a pixel.
        sums: (16 channels out, 16 channels in, y, x, filled up to an even number; 16, 16) float32.
        shape: of the tiles.
        kept: 64 bytes.
        pixels: padded ones, a multiple of 32.
        channels_in: how many.
        channels_out: how many, a multiple of 16.
        apart: see `columns`.
        row: padded pixels of a row.
        panel: pairs of 16 channels.
        at_once: steps of 32 pixels whose tiles stay in the cache while all shifts and channels are gone through.
    """
    _configuration(kept)
    _configure(shape)
    steps = uintp(pixels) // uintp(STEP)
    tiles = uintp(9) * ((uintp(channels_in) + uintp(EDGE - 1)) // uintp(EDGE))
    both = (tiles + uintp(1)) // uintp(2)
    for block in range(uintp(channels_out) // uintp(EDGE)):
        begin = uintp(0)
        while begin < steps:
            end = min(steps, begin + uintp(at_once))
            to = sums + uintp(block) * both * uintp(2 * TILE)
            start = lefts + uintp(block) * uintp(EDGE) * uintp(apart) + begin * uintp(64)
            for pair in range(both):
                left = start
                first = uintp(2) * uintp(pair)
                second = min(first + uintp(1), tiles - uintp(1))
                right = rights + _shifted(first, uintp(row), uintp(panel)) + begin * uintp(TILE)
                other = rights + _shifted(second, uintp(row), uintp(panel)) + begin * uintp(TILE)
                _load(to, to + uintp(TILE), uintp(64))
                for _ in range(end - begin):
                    _multiply(left, uintp(apart), right, other)
                    left += uintp(64)
                    right += uintp(TILE)
                    other += uintp(TILE)
                _store(to, to + uintp(TILE), uintp(64))
                to += uintp(2 * TILE)
            begin = end
    _configure(kept)


@njit(nogil=True, inline="always")
def _shifted(tile, row, panel):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Return how far from the first the pairs of one shift and one block of channels begin."""
    shift = tile % uintp(9)
    pixel = shift // uintp(3) * row + shift % uintp(3)
    return ((tile // uintp(9) * uintp(2) + pixel % uintp(2)) * panel + pixel // uintp(2)) * uintp(64)
