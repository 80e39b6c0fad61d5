"""Loops over maps that do in one pass what takes torch several: the largest of each 2×2, a norm and a GELU.

Maps lie channels last and flat, as bfloat16 or float32. Loops over the channels of a pixel become vector instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import uintp
from numba.extending import intrinsic
from numpy import ndarray
from numpy.polynomial import chebyshev

from fastrain.nets.plain import LANES
from fastrain.nets.vectors import (
    HALVES,
    SINGLES,
    call,
    compiled,
    constant,
    emitted,
    fma,
    kind_of,
    largest_of,
    read,
    rounded,
    widened,
    write,
    write_where,
)

# The normal distribution up to z, and the slope of z times it, less a half, are z times even functions: polynomials in
# 2z²/25 − 1, fitted below. Of degree 10 they are off by 5e-6 and 8e-5 at most, of degree 14 by 3e-7 and 7e-6. Beyond ±5
# they are 0 and 1.
REACH = 5.0
DEGREES = {HALVES: 10, SINGLES: 14}


def _fitted(values: Callable[[ndarray], ndarray], degree: int) -> tuple[float, ...]:
    """Return the coefficients of z times a polynomial that is close to some values on 0 to REACH, less a half."""
    nodes = np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
    z = REACH * np.sqrt((nodes + 1) / 2)
    coefficients = chebyshev.cheb2poly(chebyshev.chebfit(nodes, (values(z) - 0.5) / z, degree, w=z))
    coefficients[0] += 0.5 / REACH - coefficients.sum()  # so that it is 0 and 1 from there on
    return tuple(float(c) for c in coefficients)


def _below(z: ndarray) -> ndarray:
    """Return the normal distribution up to z."""
    return np.asarray(torch.special.ndtr(torch.from_numpy(z)))


def _slope(z: ndarray) -> ndarray:
    """Return the slope of GELU."""
    return np.asarray(_below(z) + z * np.exp(-z * z / 2) / sqrt(2 * np.pi))


BELOW, SLOPE = ({kind: _fitted(f, degree) for kind, degree in DEGREES.items()} for f in (_below, _slope))

PARTIAL = 128  # pixels that are summed in float32; their sums are added in float64
_BYTES = ir.VectorType(ir.IntType(8), LANES)


# Of 16 channels of a pixel, at addresses.


def _near(builder: Any, z: Any, coefficients: tuple[float, ...]) -> Any:
    """Return a half and z times a polynomial."""
    near = call(builder, "minnum", call(builder, "maxnum", z, constant(-REACH)), constant(REACH))
    s = fma(builder, builder.fmul(near, near), constant(2 / REACH**2), constant(-1.0))
    value = constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = fma(builder, value, s, constant(coefficient))
    return fma(builder, value, near, constant(0.5))


def _add_both(builder: Any, value: Any, by: Any, of_values: Any, of_products: Any) -> None:
    """Add values to one sum, and them times others to another."""
    write(builder, builder.fadd(read(builder, of_values, SINGLES), value), of_values)
    write(builder, fma(builder, value, by, read(builder, of_products, SINGLES)), of_products)


@intrinsic  # type: ignore[untyped-decorator]
def _largest(typing, like, start, right, below, to, which):  # type: ignore[no-untyped-def]
    """Write the largest of 2×2 pixels and which of them it is, the first of several."""

    def emit(builder: Any, start: Any, right: Any, below: Any, to: Any, which: Any) -> None:
        under = builder.add(start, below)
        four = (start, builder.add(start, right), under, builder.add(under, right))
        best, place = largest_of(builder, [read(builder, address, kind_of(like)) for address in four])
        write(builder, best, to)
        write(builder, place, which)

    return emitted(emit, 5, like)


@intrinsic  # type: ignore[untyped-decorator]
def _sum(typing, like, start, of_values, of_squares):  # type: ignore[no-untyped-def]
    """Add values and their squares."""

    def emit(builder: Any, start: Any, of_values: Any, of_squares: Any) -> None:
        value = widened(builder, read(builder, start, kind_of(like)))
        _add_both(builder, value, value, of_values, of_squares)

    return emitted(emit, 3, like)


@intrinsic  # type: ignore[untyped-decorator]
def _bend(typing, like, start, scale, shift, to):  # type: ignore[no-untyped-def]
    """Write the GELU of scaled and shifted values."""

    def emit(builder: Any, start: Any, scale: Any, shift: Any, to: Any) -> None:
        value = widened(builder, read(builder, start, kind_of(like)))
        z = fma(builder, value, read(builder, scale, SINGLES), read(builder, shift, SINGLES))
        # The polynomial ends within 1e-8 of nothing, which is much of a million.
        low = builder.fcmp_ordered("<", z, constant(-REACH))
        share = builder.select(low, constant(0.0), _near(builder, z, BELOW[kind_of(like)]))
        write(builder, rounded(builder, builder.fmul(z, share), kind_of(like)), to)

    return emitted(emit, 4, like)


def _slope_at(builder: Any, like: Any, start: Any, gradient: Any, scale: Any, shift: Any) -> tuple[Any, Any]:
    """Return the values, and the gradient before the GELU of them scaled and shifted."""
    value = widened(builder, read(builder, start, kind_of(like)))
    z = fma(builder, value, read(builder, scale, SINGLES), read(builder, shift, SINGLES))
    given = widened(builder, read(builder, gradient, kind_of(like)))
    return value, builder.fmul(given, _near(builder, z, SLOPE[kind_of(like)]))


@intrinsic  # type: ignore[untyped-decorator]
def _slope_sum(typing, like, start, gradient, scale, shift, of_slopes, of_products):  # type: ignore[no-untyped-def]
    """Add the gradients before the GELU, and them times the values."""

    def emit(builder: Any, *places: Any) -> None:
        value, slope = _slope_at(builder, like, *places[:4])
        _add_both(builder, slope, value, *places[4:])

    return emitted(emit, 6, like)


def _before_norm(
    builder: Any, like: Any, start: Any, gradient: Any, scale: Any, shift: Any, along: Any, offset: Any
) -> Any:
    """Return the gradient before the norm, as the maps' numbers."""
    value, slope = _slope_at(builder, like, start, gradient, scale, shift)
    out = fma(builder, value, read(builder, along, SINGLES), read(builder, offset, SINGLES))
    return rounded(builder, fma(builder, slope, read(builder, scale, SINGLES), out), kind_of(like))


@intrinsic  # type: ignore[untyped-decorator]
def _back(typing, like, start, gradient, scale, shift, along, offset, to):  # type: ignore[no-untyped-def]
    """Write the gradient before the norm."""

    def emit(builder: Any, *places: Any) -> None:
        write(builder, _before_norm(builder, like, *places[:6]), places[6])

    return emitted(emit, 7, like)


@intrinsic  # type: ignore[untyped-decorator]
def _back_to_largest(typing, like, start, gradient, scale, shift, along, offset, to, which, right, below):  # type: ignore[no-untyped-def]
    """Write the gradient before the norm to the largest of 2×2 pixels, nothing to the others."""

    def emit(builder: Any, *places: Any) -> None:
        found = _before_norm(builder, like, *places[:6])
        to, which, right, below = places[6:]
        place = read(builder, which, _BYTES)
        under = builder.add(to, below)
        for number, address in enumerate((to, builder.add(to, right), under, builder.add(under, right))):
            write_where(builder, found, place, number, address)

    return emitted(emit, 10, like)


@intrinsic  # type: ignore[untyped-decorator]
def _nothing(typing, like, to):  # type: ignore[no-untyped-def]
    """Write zeros."""

    def emit(builder: Any, to: Any) -> None:
        write(builder, ir.Constant(kind_of(like), [0] * LANES), to)

    return emitted(emit, 1, like)


# Over whole maps: (image, y, x, channel) at an address, a multiple of 16 channels; per channel float32. `like` is how
# many bytes a number of theirs has, as uint16 or uint32.


@compiled
def largest(like, maps, pooled, which, images, height, width, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the largest of each 2×2 and, a byte each, which of them it is; a last odd row or column is left out."""
    pixel = uintp(like) * uintp(channels)
    row = uintp(width) * pixel
    for image in range(uintp(images)):
        for y in range(uintp(height) // uintp(2)):
            start = maps + (uintp(image) * uintp(height) + uintp(2) * uintp(y)) * row
            for _ in range(uintp(width) // uintp(2)):
                for _ in range(uintp(channels) // uintp(LANES)):
                    _largest(like, start, pixel, row, pooled, which)
                    start += uintp(LANES) * uintp(like)
                    pooled += uintp(LANES) * uintp(like)
                    which += uintp(LANES)
                start += pixel


@compiled
def sums(like, maps, of_values, of_squares, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add values and their squares to the sums of each channel, of PARTIAL pixels each: (part, channel)."""
    for pixel in range(uintp(pixels)):
        if pixel and uintp(pixel) % uintp(PARTIAL) == uintp(0):
            of_values += uintp(4) * uintp(channels)
            of_squares += uintp(4) * uintp(channels)
        for block in range(uintp(channels) // uintp(LANES)):
            of = uintp(4 * LANES) * uintp(block)
            _sum(like, maps, of_values + of, of_squares + of)
            maps += uintp(LANES) * uintp(like)


@compiled
def bend(like, maps, scale, shift, out, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the GELU of scaled and shifted maps."""
    for _ in range(uintp(pixels)):
        for block in range(uintp(channels) // uintp(LANES)):
            of = uintp(4 * LANES) * uintp(block)
            _bend(like, maps, scale + of, shift + of, out)
            maps += uintp(LANES) * uintp(like)
            out += uintp(LANES) * uintp(like)


@compiled
def slope_sums(like, maps, gradient, scale, shift, of_slopes, of_products, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add the gradients before the GELU, and them times the maps, to the sums of each channel, in parts as `sums`."""
    for pixel in range(uintp(pixels)):
        if pixel and uintp(pixel) % uintp(PARTIAL) == uintp(0):
            of_slopes += uintp(4) * uintp(channels)
            of_products += uintp(4) * uintp(channels)
        for block in range(uintp(channels) // uintp(LANES)):
            of = uintp(4 * LANES) * uintp(block)
            _slope_sum(like, maps, gradient, scale + of, shift + of, of_slopes + of, of_products + of)
            maps += uintp(LANES) * uintp(like)
            gradient += uintp(LANES) * uintp(like)


@compiled
def back(like, maps, gradient, scale, shift, along, offset, out, pixels, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the gradient before the norm: slope · scale + map · along + offset."""
    for _ in range(uintp(pixels)):
        for block in range(uintp(channels) // uintp(LANES)):
            of = uintp(4 * LANES) * uintp(block)
            _back(like, maps, gradient, scale + of, shift + of, along + of, offset + of, out)
            maps += uintp(LANES) * uintp(like)
            gradient += uintp(LANES) * uintp(like)
            out += uintp(LANES) * uintp(like)


@compiled
def back_to_largest(like, maps, gradient, scale, shift, along, offset, which, out, images, height, width, channels):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Write the same to where the largest of each 2×2 was, nothing elsewhere; height and width are those of `out`."""
    pixel = uintp(like) * uintp(channels)
    row = uintp(width) * pixel
    for image in range(uintp(images)):
        top = out + uintp(image) * uintp(height) * row
        for y in range(uintp(height) // uintp(2)):
            to = top + uintp(2) * uintp(y) * row
            for _ in range(uintp(width) // uintp(2)):
                for block in range(uintp(channels) // uintp(LANES)):
                    of = uintp(4 * LANES) * uintp(block)
                    _back_to_largest(
                        like, maps, gradient, scale + of, shift + of, along + of, offset + of, to, which, pixel, row
                    )
                    maps += uintp(LANES) * uintp(like)
                    gradient += uintp(LANES) * uintp(like)
                    which += uintp(LANES)
                    to += uintp(LANES) * uintp(like)
                to += pixel
            if uintp(width) % uintp(2):
                for block in range(uintp(channels) // uintp(LANES)):
                    _nothing(like, to + uintp(block) * uintp(LANES) * uintp(like))
                    _nothing(like, to + row + uintp(block) * uintp(LANES) * uintp(like))
        if uintp(height) % uintp(2):
            to = top + (uintp(height) - uintp(1)) * row
            for block in range(row // (uintp(LANES) * uintp(like))):
                _nothing(like, to + uintp(block) * uintp(LANES) * uintp(like))
