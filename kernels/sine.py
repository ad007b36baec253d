"""One sine and cosine for all kernels.

fp32: reduction by multiples of pi / 2 in three constants (Cody and Waite) with fused multiply-adds, then the
polynomials of Cephes on [-pi/4, pi/4]. At most 2 ulp or 1e-7 from the exact sine of the fp32 argument for |z| up to
1e6, and 1e-6 up to 5e6; NaN for infinite z and beyond 2^22 quarter turns. No special function unit, no slow path.

fast: the same reduction to [-pi, pi], then the hardware's sin.approx and cos.approx: 5e-7 absolute. For fp16 and bf16
operands, whose own rounding is far coarser.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from .configs import INTERPRETED

# Adding and subtracting it rounds |t| < 2^22 to the nearest integer, on the ordinary pipe.
_ROUND = tl.constexpr(12582912.0)
_QUARTERS = tl.constexpr(4194304.0)


@triton.jit
def _reduced(z, per_period, first, second, third):
    """Nearest multiple of a period: its number, and what is left of z."""
    # Rounded once: t alone would be off by an eighth at |t| = 2^21, and leave more than the polynomials are for.
    k = tl.fma(z, per_period, _ROUND) - _ROUND
    r = tl.fma(k, -first, z)
    r = tl.fma(k, -second, r)
    r = tl.fma(k, -third, r)
    # Beyond, k is no longer the nearest integer and the polynomials would give anything: say so.
    return k, tl.where(tl.abs(k) < _QUARTERS, r, float("nan"))


@triton.jit
def _quarters(z):
    """Quarter turn of z, as an integer, and what is left of it in [-pi / 4, pi / 4]."""
    k, r = _reduced(z, 0.6366197466850281, 1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)
    return k.to(tl.int32), r


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
def _sincos_fast(z):
    _, r = _reduced(z, 0.15915494309189535, 6.2831854820251465, -1.7484555314695172e-07, -6.8604980400235275e-15)
    return _sincos_hardware(r)


@triton.jit
def sincos(z, FAST: tl.constexpr):
    """Sine and cosine of z in its own dtype, fp32 or fp64; FAST is for fp32 only."""
    if z.dtype == tl.float64:
        return tl.sin(z), tl.cos(z)
    elif FAST:
        return _sincos_fast(z)
    else:
        return _sincos_fp32(z)


@triton.jit
def sine(z, FAST: tl.constexpr):
    """The sine alone."""
    if z.dtype == tl.float64:
        return tl.sin(z)
    elif FAST:
        s, _ = _sincos_fast(z)
        return s
    else:
        return _sine_fp32(z)
