"""One sine and cosine for all kernels.

exact: reduction by multiples of pi / 2 in three constants (Cody and Waite) with fused multiply-adds, then the
polynomials of Cephes on [-pi/4, pi/4]. At most 2 ulp or 1e-7 from the exact sine of the fp32 argument for |z| up to
1e6, and 1e-6 up to 5e6; NaN for infinite z and beyond 2^22 quarter turns. No special function unit, no slow path.

Beside fp16 and bf16 operands, whose own rounding is far coarser, 5e-7 absolute for |z| up to 1e5 is enough:

unit: sin.approx and cos.approx of the special function unit, after reduction to [-pi, pi]. Bounded for any finite z.
half: every other sine and cosine from shorter polynomials on [-pi/2, pi/2]. The unit has an eighth of the rate of
multiply-adds, so both work at once where sines take the time.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .configs import INTERPRETED

# Adding and subtracting it rounds |t| < 2^22 to the nearest integer, on the ordinary pipe.
_ROUND = tl.constexpr(12582912.0)
_QUARTERS = tl.constexpr(4194304.0)


@triton.jit
def _reduced(z, per_period, first, second):
    """Nearest multiple of a period: its number, what is left of z by two constants, and the number's low bits."""
    # Rounded once: t alone would be off by an eighth at |t| = 2^21, and leave more than the polynomials are for.
    k = tl.fma(z, per_period, _ROUND) - _ROUND
    # The same sum again: to keep it would cost a register, and k as an integer a turn of the special function unit.
    return k, tl.fma(k, -second, tl.fma(k, -first, z)), (k + _ROUND).to(tl.int32, bitcast=True)


@triton.jit
def _near(k, r):
    """r, or NaN where k need not be the nearest integer: polynomials would give anything."""
    return tl.where(tl.abs(k) < _QUARTERS, r, float("nan"))


@triton.jit
def _quarters(z):
    """Low bits of the quarter turn of z, and what is left of it in [-pi / 4, pi / 4]."""
    k, r, q = _reduced(z, 0.6366197466850281, 1.5707963705062866, -4.371138828673793e-08)
    return q, _near(k, tl.fma(k, 1.7151245100058819e-15, r))


@triton.jit
def _sincos_fp32(z):
    q, r = _quarters(z)
    r2 = r * r
    s = tl.fma(tl.fma(tl.fma(-1.9515295891e-4, r2, 8.3321608736e-3), r2, -1.6666654611e-1), r2 * r, r)
    c = tl.fma(tl.fma(2.443315711809948e-5, r2, -1.388731625493765e-3), r2, 4.166664568298827e-2)
    c = tl.fma(tl.fma(c, r2, -0.5), r2, 1.0)
    odd = (q & 1) != 0
    sine = tl.where(odd, c, s)
    cosine = tl.where(odd, s, c)
    return tl.where((q & 2) != 0, -sine, sine), tl.where(((q + 1) & 2) != 0, -cosine, cosine)


@triton.jit
def _sine_fp32(z):
    # One polynomial with the coefficients of the sine or of the cosine: a choice between two whole polynomials would be
    # compiled to a branch per number. Bit for bit the sine of _sincos_fp32.
    q, r = _quarters(z)
    r2 = r * r
    odd = (q & 1) != 0
    p = tl.where(odd, 2.443315711809948e-5, 0.0)
    p = tl.fma(p, r2, tl.where(odd, -1.388731625493765e-3, -1.9515295891e-4))
    p = tl.fma(p, r2, tl.where(odd, 4.166664568298827e-2, 8.3321608736e-3))
    p = tl.fma(p, r2, tl.where(odd, -0.5, -1.6666654611e-1))
    value = tl.fma(p, tl.where(odd, r2, r2 * r), tl.where(odd, 1.0, r))
    return tl.where((q & 2) != 0, -value, value)


if INTERPRETED:
    # The interpreter has no device library; its sine is exact to the last bit or so.
    @triton.jit
    def _sincos_hardware(r):
        return tl.sin(r), tl.cos(r)
else:

    @triton.jit
    def _sincos_hardware(r):
        return libdevice.fast_sinf(r), libdevice.fast_cosf(r)


@triton.jit
def _sincos_unit(z):
    _, r, _ = _reduced(z, 0.15915494309189535, 6.2831854820251465, -1.7484555314695172e-07)
    return _sincos_hardware(r)


@triton.jit
def _sincos_multiplied(z):
    # Polynomials of least error on [-pi / 2, pi / 2]: 5e-9 and 5e-8.
    k, r, turns = _reduced(z, 0.31830987334251404, 3.1415927410125732, -8.742277657347586e-08)
    r = _near(k, r)
    r2 = r * r
    s = tl.fma(tl.fma(2.6000057005148847e-06, r2, -0.00019806592899840325), r2, 0.008333017118275166)
    s = tl.fma(tl.fma(s, r2, -0.16666656732559204), r2 * r, r)
    c = tl.fma(tl.fma(2.3194388631964102e-05, r2, -0.001385592739097774), r2, 0.041663989424705505)
    c = tl.fma(tl.fma(c, r2, -0.4999993145465851), r2, 1.0)
    # After an odd number of half turns both have the other sign: the last bit becomes the first.
    sign = turns << 31
    return _signed(s, sign), _signed(c, sign)


@triton.jit
def _signed(x, sign):
    return (x.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _sincos_half(z):
    # Neighbours in a row are numbers of one thread.
    pairs = tl.reshape(z, (z.numel // 2, 2))
    even, odd = tl.split(pairs)
    s, c = _sincos_unit(even)
    s_odd, c_odd = _sincos_multiplied(odd)
    return tl.reshape(tl.join(s, s_odd), z.shape), tl.reshape(tl.join(c, c_odd), z.shape)


@triton.jit
def sincos(z, SINES: tl.constexpr):
    """Sine and cosine of z in its own dtype, fp32 or fp64; SINES is for fp32."""
    if z.dtype == tl.float64:
        return tl.sin(z), tl.cos(z)
    elif SINES == "exact":
        return _sincos_fp32(z)
    elif SINES == "unit":
        return _sincos_unit(z)
    else:
        tl.static_assert(SINES == "half")
        return _sincos_half(z)


@triton.jit
def sine(z, SINES: tl.constexpr):
    """The sine alone."""
    if z.dtype == tl.float64:
        return tl.sin(z)
    elif SINES == "exact":
        return _sine_fp32(z)
    else:
        s, _ = sincos(z, SINES)
        return s
