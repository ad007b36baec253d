"""Points of a dense grid from the number of a pixel, and pixels from values: nothing of size N x D exists.

Coordinates are in fp64, origin + step * (start + i) along every axis, then rounded. Every number of a grid arrives as
the sum of three fp32: a float argument of a kernel is an fp32, and Triton compiles anew for integers of another kind.
"""

import struct
from collections.abc import Iterator, Sequence

import triton
import triton.language as tl


@triton.jit
def coordinate(pixel, axis: tl.constexpr, D: tl.constexpr, origin, step, start, shape):
    """Coordinate of pixels [BM] along one axis, in fp64; the last axis varies fastest."""
    rest = pixel
    for a in tl.static_range(D - 1, axis, -1):
        rest = rest // as_double(shape, a).to(tl.int64)
    index = (rest % as_double(shape, axis).to(tl.int64)).to(tl.float64) + as_double(start, axis)
    return as_double(origin, axis) + as_double(step, axis) * index


@triton.jit
def as_double(parts, i: tl.constexpr):
    """The fp64 number i of those that `parts_of` took apart."""
    total = tl.full((), parts[3 * i], tl.float32).to(tl.float64)
    for j in tl.static_range(1, 3):
        total += tl.full((), parts[3 * i + j], tl.float32).to(tl.float64)
    return total


@triton.jit
def encoded(value, gain, offset, LEVELS: tl.constexpr):
    """gain * value + offset; with LEVELS, 0..1 as levels 0..LEVELS: clamped, rounded half to even, NaN to 0."""
    scaled = value.to(tl.float64) * as_double(gain, 0) + as_double(offset, 0)
    if LEVELS == 0:
        return scaled
    # Adding and subtracting 1.5 * 2^52 rounds to an integer, half to even.
    level = tl.minimum(tl.maximum(scaled, 0.0), 1.0) * LEVELS
    return tl.where(scaled == scaled, (level + 6755399441055744.0) - 6755399441055744.0, 0.0)


@triton.jit(do_not_specialize=["first", "n"])
def grid_points(S, first, n, origin, step, start, shape, D: tl.constexpr, BM: tl.constexpr):
    """S [1, n, D], the points of the pixels first, first + 1, ..."""
    # Wide, since a picture may have more than 2^31 pixels.
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    for axis in tl.static_range(D):
        x = coordinate(first + row, axis, D, origin, step, start, shape)
        tl.store(S + row * D + axis, x.to(S.dtype.element_ty), mask=row < n)


@triton.jit(do_not_specialize=["count"])
def grid_pixels(Y, out, count, gain, offset, LEVELS: tl.constexpr, BM: tl.constexpr):
    """Pixels, `count` numbers, from values Y."""
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    live = i < count
    value = tl.load(Y + i, mask=live, other=0.0)
    tl.store(out + i, encoded(value, gain, offset, LEVELS).to(out.dtype.element_ty), mask=live)


def parts_of(values: Sequence[float]) -> tuple[float, ...]:
    """Every number as three fp32 whose sum it is; exact where fp32 has numbers 2^53 times smaller.

    Raises:
        OverflowError: a number is larger than any fp32.
    """
    return tuple(part for value in values for part in _split(value))


def _split(value: float) -> Iterator[float]:
    for _ in range(3):
        (part,) = struct.unpack("f", struct.pack("f", value))
        yield part
        value -= part
