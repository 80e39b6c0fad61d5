"""3×3 convolutions of many small bfloat16 maps on the matrix unit of a processor (AMX), said in its own instructions.

Here a pixel of 16 or 32 images lies together: a product of matrices takes one pixel, shifted or not, of so many images
at a time. So nothing is computed of what lies beyond a map's edge, a fifth of the products of 7×7 and two fifths of
those of 3×3 maps, and every factor begins at a line of the cache.

The unit has eight registers, tiles, of 1 KiB. Where a neighbour works on the same core, which on rented machines is the
rule, a product takes four times as long when all eight are in use; with four of them, as here, twice as long (LOG.md).

All that follows takes addresses of memory. Source: Intel (2024), 64 and IA-32 Architectures Optimization Reference
Manual, chapter 20.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import numpy as np
import torch
from numba import uintp

from fastrain.nets.instructions import (
    clear_sums,
    configuration,
    configure,
    copy_line,
    left_of_images,
    load_sums,
    multiply,
    multiply_both,
    pairs,
    right_of_images,
    right_tile,
    rounded_to,
    store_sums,
)
from fastrain.nets.plain import EDGE, STEP, TILE
from fastrain.nets.vectors import compiled


@cache
def usable() -> bool:
    """Tell whether the processor has the unit and the system lets this process use it; asks for it if need be."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    # A hypervisor may hide the one that multiplies bfloat16; torch 2.9 does not tell them apart.
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not known.get("amx_bf16", getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()):
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


@compiled
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
                right_tile(rows + column * stride + uintp(k) * uintp(64), stride, to)
                to += uintp(TILE)


@compiled
def pack_back(weights, to, channels_out, channels_in):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the right tiles of the way back to the maps: those of weights turned about, their channels swapped.

    Args:
        weights: (channel out; y, x, channel in) bfloat16, as the way there takes them.
        to: as many bytes.
        channels_out: how many, a multiple of 32.
        channels_in: how many, a multiple of 32.
    """
    row, filter_ = uintp(2) * uintp(channels_in), uintp(2 * 9) * uintp(channels_in)
    for block in range(uintp(channels_in) // uintp(STEP)):
        for shift in range(uintp(9)):
            start = weights + (uintp(8) - uintp(shift)) * row + uintp(block) * uintp(2 * STEP)
            for _ in range(uintp(channels_out) // uintp(STEP)):
                for half in range(uintp(2)):
                    at = start + uintp(half) * uintp(2 * EDGE)
                    for i in range(uintp(EDGE)):
                        pairs(at, at + filter_, to + uintp(i) * uintp(64))
                        at += uintp(2) * filter_
                    to += uintp(TILE)
                start += uintp(STEP) * filter_


@compiled
def regroup(maps, to, images, pixels, size):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Copy maps so that a pixel of all images lies together.

    Args:
        maps: (image, pixel), of `size` bytes.
        to: (pixel, 16 images).
        images: 16 at most.
        pixels: of a map.
        size: of a pixel, a multiple of 64 bytes.
    """
    for image in range(uintp(images)):
        for pixel in range(uintp(pixels)):
            start = to + (uintp(pixel) * uintp(EDGE) + uintp(image)) * uintp(size)
            for line in range(uintp(size) // uintp(64)):
                copy_line(maps, start + uintp(line) * uintp(64))
                maps += uintp(64)


@compiled
def convolve(grouped, weights, out, scratch, shape, kept, images, height, width, channels_in, channels_out, at_once):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the 3×3 convolution of 16 maps, with zeros around them.

    Args:
        grouped: (y, x, 16 images, channel in) bfloat16, as `regroup` makes them.
        weights: (channel out; y, x, channel in), as `pack` makes them.
        out: (image, y, x, channel out) bfloat16.
        scratch: 2 KiB.
        shape: of the tiles.
        kept: 64 bytes.
        images: that are wanted, 16 at most.
        height: y.
        width: x.
        channels_in: how many, a multiple of 32.
        channels_out: how many, a multiple of 16.
        at_once: rows that are written for all channels before the next.
    """
    configuration(kept)
    configure(shape)
    pixel, wide = uintp(2) * uintp(channels_in), uintp(2) * uintp(channels_out)
    steps = uintp(channels_in) // uintp(STEP)
    map_ = uintp(height) * uintp(width) * wide
    begin = uintp(0)
    while begin < uintp(height):
        end = min(uintp(height), begin + uintp(at_once))
        for block in range((uintp(channels_out) + uintp(STEP - 1)) // uintp(STEP)):
            both = (uintp(block) + uintp(1)) * uintp(STEP) <= uintp(channels_out)
            panel = weights + uintp(block) * uintp(9) * steps * uintp(2 * TILE)
            to = out + begin * uintp(width) * wide + uintp(block) * uintp(64)
            for y in range(begin, end):
                for x in range(uintp(width)):
                    clear_sums()
                    for shift in range(uintp(9)):
                        # Without a sign, what lies before the first is beyond the last.
                        row = uintp(y) + uintp(shift) // uintp(3) - uintp(1)
                        column = uintp(x) + uintp(shift) % uintp(3) - uintp(1)
                        if row < uintp(height) and column < uintp(width):
                            left = grouped + (row * uintp(width) + column) * uintp(EDGE) * pixel
                            right = panel + uintp(shift) * steps * uintp(2 * TILE)
                            for _ in range(steps):
                                multiply(left, pixel, right)
                                left += uintp(64)
                                right += uintp(2 * TILE)
                    store_sums(scratch, scratch + uintp(64), uintp(128))
                    for image in range(uintp(images)):
                        start = scratch + uintp(image) * uintp(128)
                        rounded_to(start, to + uintp(image) * map_)
                        if both:
                            rounded_to(start + uintp(64), to + uintp(image) * map_ + uintp(32))
                    to += wide
        begin = end
    configure(kept)


@compiled
def lefts(maps, to, zeros, images, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write 32 channels of 32 maps as left tiles.

    Args:
        maps: (image, pixel, channel) bfloat16, at the first of the 32 channels.
        to: (half of the channels, pixel), tiles.
        zeros: 32 bytes.
        images: 32 at most; what is missing is zeros.
        pixels: of a map.
        channels: of a pixel.
    """
    pixel = uintp(2) * uintp(channels)
    other = uintp(pixels) * uintp(TILE)
    for _ in range(uintp(pixels)):
        left_of_images(maps, uintp(pixels) * pixel, uintp(images), zeros, to)
        left_of_images(maps + uintp(2 * EDGE), uintp(pixels) * pixel, uintp(images), zeros, to + other)
        maps += pixel
        to += uintp(TILE)


@compiled
def rights(maps, to, zeros, images, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write 32 maps as right tiles.

    Args:
        maps: (image, pixel, channel) bfloat16.
        to: (16 channels, pixel), tiles.
        zeros: 32 bytes.
        images: 32 at most; what is missing is zeros.
        pixels: of a map.
        channels: of a pixel, a multiple of 16.
    """
    pixel = uintp(2) * uintp(channels)
    for block in range(uintp(channels) // uintp(EDGE)):
        start = maps + uintp(block) * uintp(2 * EDGE)
        for _ in range(uintp(pixels)):
            right_of_images(start, uintp(pixels) * pixel, uintp(images), zeros, to)
            start += pixel
            to += uintp(TILE)


@compiled
def add_gradient(lefts, rights, sums, shape, kept, height, width, channels_in, at_once):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the gradient of a 3×3 convolution's weights over 32 maps, of 32 channels that went out.

    Args:
        lefts: the gradient of what went out, as `lefts` makes it.
        rights: what came in, as `rights` makes it.
        sums: (16 channels in, y, x, half of the channels out), tiles of float32.
        shape: of the tiles.
        kept: 64 bytes.
        height: y.
        width: x.
        channels_in: how many, a multiple of 16.
        at_once: rows whose tiles stay in the cache while all shifts and channels are gone through.
    """
    configuration(kept)
    configure(shape)
    pixels = uintp(height) * uintp(width)
    begin = uintp(0)
    while begin < uintp(height):
        end = min(uintp(height), begin + uintp(at_once))
        to = sums
        for block in range(uintp(channels_in) // uintp(EDGE)):
            for shift in range(uintp(9)):
                down, along = uintp(shift) // uintp(3), uintp(shift) % uintp(3)
                # The first column that has one to its left, and how many have one to the right.
                first = uintp(1) if along == uintp(0) else uintp(0)
                count = uintp(width) - (uintp(0) if along == uintp(1) else uintp(1))
                load_sums(to, to + uintp(TILE), uintp(64))
                for y in range(begin, end):
                    row = uintp(y) + down - uintp(1)
                    if row < uintp(height):
                        left = lefts + (uintp(y) * uintp(width) + first) * uintp(TILE)
                        right = rights + uintp(block) * pixels * uintp(TILE)
                        right += (row * uintp(width) + first + along - uintp(1)) * uintp(TILE)
                        for _ in range(count):
                            multiply_both(left, left + pixels * uintp(TILE), right)
                            left += uintp(TILE)
                            right += uintp(TILE)
                store_sums(to, to + uintp(TILE), uintp(64))
                to += uintp(2 * TILE)
        begin = end
    configure(kept)
