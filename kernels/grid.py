"""Points of a dense grid from the number of a pixel, and pixels from values: nothing of size N x D exists.

Coordinates are in fp64, origin + step * (start + i) along every axis, then rounded. Floats arrive as the integers that
have their bits, since a float argument of a kernel is an fp32.
"""

import struct
from collections.abc import Sequence

import triton
import triton.language as tl


@triton.jit
def coordinate(pixel, axis: tl.constexpr, D: tl.constexpr, origin, step, start, shape):
    """Coordinate of pixels [BM] along one axis, in fp64; the last axis varies fastest."""
    rest = pixel
    for a in tl.static_range(D - 1, axis, -1):
        rest = rest // shape[a]
    index = (rest % shape[axis] + start[axis]).to(tl.float64)
    return as_double(origin[axis]) + as_double(step[axis]) * index


@triton.jit
def as_double(bits):
    """The fp64 number whose bits an integer argument has."""
    return tl.full((), bits, tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def encoded(value, gain, offset, LEVELS: tl.constexpr):
    """gain * value + offset; with LEVELS, 0..1 as levels 0..LEVELS: clamped, rounded half to even, NaN to 0."""
    scaled = value.to(tl.float64) * as_double(gain) + as_double(offset)
    if LEVELS == 0:
        return scaled
    # Adding and subtracting 1.5 * 2^52 rounds to an integer, half to even.
    level = tl.minimum(tl.maximum(scaled, 0.0), 1.0) * LEVELS
    return tl.where(scaled == scaled, (level + 6755399441055744.0) - 6755399441055744.0, 0.0)


@triton.jit
def grid_points(S, first, n, origin, step, start, shape, D: tl.constexpr, BM: tl.constexpr):
    """S [1, n, D], the points of the pixels first, first + 1, ..."""
    # Wide, since a picture may have more than 2^31 pixels.
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    for axis in tl.static_range(D):
        x = coordinate(first + row, axis, D, origin, step, start, shape)
        tl.store(S + row * D + axis, x.to(S.dtype.element_ty), mask=row < n)


@triton.jit
def grid_pixels(Y, bias, out, n, OUT, gain, offset, LEVELS: tl.constexpr, BM: tl.constexpr):
    """out [n, OUT] from values Y [n, OUT] without their bias."""
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    live = i < n * OUT
    value = tl.load(Y + i, mask=live, other=0.0) + tl.load(bias + i % OUT, mask=live, other=0.0)
    tl.store(out + i, encoded(value, gain, offset, LEVELS).to(out.dtype.element_ty), mask=live)


def bits(values: Sequence[float]) -> tuple[int, ...]:
    """The integers that have the bits of fp64 numbers."""
    return struct.unpack(f"<{len(values)}q", struct.pack(f"<{len(values)}d", *values))
