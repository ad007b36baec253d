"""Products on tensor cores, with the precision of every operand named.

    MODE    operands                          products   range guard
    fp32    fp16 pairs hi + lo                3          powers of two
    fp16    fp16                              1          powers of two
    tf32    fp16, of the same 11 bits         1          powers of two
    bf16    bf16                              1          none needed
    fp64    fp64                              1          none needed
    int8    three digits, see digits.py       6          powers of two

"fp32" keeps 22 bits of each operand, which is at fp32 accuracy for sums of many terms: hi hi + lo hi + hi lo. A power
of two per row of the left and per column of the right operand brings the largest magnitude to [64, 128), so that fp16
neither overflows nor loses the low halves to subnormals, whatever the size of a tangent or a cotangent. Rows of sines
need no search: 2^14 saves their low halves, and fp16 alone holds them as they are. Each slice of
the inner dimension is summed by the tensor cores from zero and added outside of them: they round sums toward zero.
"""

import triton
import triton.language as tl

from .configs import INTERPRETED

# The interpreter multiplies the bit patterns of bf16: there, rounded operands are multiplied in fp32.
_UPCAST = tl.constexpr(INTERPRETED)


@triton.jit
def powers_of_two(largest):
    """For magnitudes m >= 0: 2^k that brings m to [64, 128), and 2^-k. Zero, infinity and NaN give finite powers."""
    exponent = (largest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.minimum(tl.maximum(exponent, 7), 254)
    up = ((260 - exponent) << 23).to(tl.float32, bitcast=True)
    down = ((exponent - 6) << 23).to(tl.float32, bitcast=True)
    return up, down


@triton.jit
def guarded(MODE: tl.constexpr):
    """Whether operands of this mode are scaled by powers of two."""
    return MODE == "fp32" or MODE == "fp16" or MODE == "tf32"


@triton.jit
def sine_powers(MODE: tl.constexpr):
    """What brings sines into the range of the operands, and what undoes it."""
    # fp16 ends at 65504, and what it leaves of a number is 2^-11 of it.
    return (16384.0, 1 / 16384.0) if MODE == "fp32" else (1.0, 1.0)


@triton.jit
def narrow(a, MODE: tl.constexpr):
    """The (high) operand that the tensor cores take for a."""
    if MODE == "fp64":
        return a
    elif MODE == "bf16":
        return a.to(tl.bfloat16)
    else:
        return a.to(tl.float16)


@triton.jit
def remainder(a, high):
    """What narrowing to fp16 left of a, in fp16."""
    return (a - high.to(tl.float32)).to(tl.float16)


@triton.jit
def dot(a, b_high, b_low, MODE: tl.constexpr):
    """a [M, K] @ b [K, N] from zero, in fp32 or fp64; a is scaled and not yet narrowed, b_low is for "fp32" only."""
    a_high = narrow(a, MODE)
    if MODE == "fp64":
        return tl.dot(a_high, b_high, input_precision="ieee", out_dtype=tl.float64)
    if MODE == "bf16" and _UPCAST:
        return tl.dot(a_high.to(tl.float32), b_high.to(tl.float32), input_precision="ieee")
    total = tl.dot(a_high, b_high, input_precision="ieee")
    if MODE == "fp32":
        # Small terms last: their sum is not rounded away term by term.
        total = tl.dot(a_high, b_low, total, input_precision="ieee")
        total = tl.dot(remainder(a, a_high), b_high, total, input_precision="ieee")
    return total
