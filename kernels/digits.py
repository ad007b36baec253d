"""Products of eight-bit digits: every number is three signed base-256 digits, and six products are summed exactly.

|x| < 2^23 is 65536 d2 + 256 d1 + d0 with every d in [-128, 127]. Of the nine products of two numbers' digits the six of
weight 2^16 and more are kept, in three int32 sums by weight; digits are balanced, so those left out have zero mean.
Sums are exact and do not depend on their order, for up to 43690 terms.
"""

import triton
import triton.language as tl

from .dot import powers_of_two

# Adding it leaves x, of magnitude 2^22 at most, rounded to the nearest integer in the low bits.
_ROUND = tl.constexpr(12582912.0)
_ROUND_BITS = tl.constexpr(0x4B400000)
_INFINITY_BITS = tl.constexpr(0x7F800000)
# The largest number of three balanced digits.
_LARGEST = tl.constexpr(8355711.0)


@triton.jit
def magnitude(a):
    """Integers in the order of |a|, with NaN and infinity above the bits of all numbers."""
    return a.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def digit_scales(largest):
    """For the largest `magnitude` of a row: what brings it to [2^21, 2^22), and 2^16 times what undoes that.

    The second one is NaN for rows that are not finite, which digits could not show.
    """
    up, down = powers_of_two(largest.to(tl.float32, bitcast=True))
    return up * 32768.0, tl.where(largest < _INFINITY_BITS, down * 2.0, float("nan"))


@triton.jit
def unit_scales(largest):
    """The same for a row of weights, which is brought to all of three digits: in fp64, and what undoes it."""
    # The reciprocal of zero would not be finite.
    most = tl.maximum(largest.to(tl.float32, bitcast=True), 1e-37)
    return _LARGEST / most.to(tl.float64), tl.where(largest < _INFINITY_BITS, most / _LARGEST, float("nan"))


@triton.jit
def rounded(a, up):
    """a * up to the nearest integer, of magnitude 2^22 at most."""
    return tl.fma(a, up, _ROUND).to(tl.int32, bitcast=True) - _ROUND_BITS


@triton.jit
def digits(x):
    """d2, d1 and d0 of integers, in int8."""
    bytes = (x + 0x808080) ^ 0x808080
    return (bytes >> 16).to(tl.int8), (bytes >> 8).to(tl.int8), bytes.to(tl.int8)


@triton.jit
def digit_dot(x, w2, w1, w0, sums):
    """Add x [M, K] @ (65536 w2 + 256 w1 + w0) [K, N] to three int32 sums, of weight 2^32, 2^24 and 2^16."""
    x2, x1, x0 = digits(x)
    a4, a3, a2 = sums
    a4 = tl.dot(x2, w2, a4, out_dtype=tl.int32)
    a3 = tl.dot(x2, w1, a3, out_dtype=tl.int32)
    a3 = tl.dot(x1, w2, a3, out_dtype=tl.int32)
    a2 = tl.dot(x2, w0, a2, out_dtype=tl.int32)
    a2 = tl.dot(x1, w1, a2, out_dtype=tl.int32)
    a2 = tl.dot(x0, w2, a2, out_dtype=tl.int32)
    return a4, a3, a2


@triton.jit
def joined(sums):
    """The three sums as one fp32 number, in units of 2^16."""
    a4, a3, a2 = sums
    return tl.fma(tl.fma(a4.to(tl.float32), 256.0, a3.to(tl.float32)), 256.0, a2.to(tl.float32))
