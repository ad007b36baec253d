"""Checks of `gpu`: the sine of the kernels against fp64, over every size of phase and at special values."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from fastsiren.kernels.sine import sincos, sine
from torch import Tensor

from .items import DEVICE, INTERPRETED, Outcome, judged
from .pool import Settings

COUNT = 1 << (12 if INTERPRETED else 22)
# What kernels/sine.py promises: largest phase, and absolute error; in fp32 an error of 2 ulp will do as well.
PROMISES = {
    "exact": (1e6, 1e-7),
    "exact-far": (5e6, 1e-6),
    "unit": (1e5, 5e-7),
    "half": (1e5, 5e-7),
    "fp64": (1e5, 4e-16),
}
ULP = 2.0
# The interpreter's multiply-adds round twice: there, one period is as far as the reduction is exact.
EXACT_REACH = 2.0 if INTERPRETED else math.inf
SPECIAL = (0.0, -0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1e-3, math.pi / 4, math.pi / 2, math.pi, 105615.0, 1e5, 5e6)
BEYOND = (1e8, 3.4e38, math.inf, -math.inf, math.nan)


@triton.jit
def sweep(Z, alone, s, c, SINES: tl.constexpr, BLOCK: tl.constexpr):
    """Store sine(z), and sine and cosine of sincos(z)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    z = tl.load(Z + i)
    both_s, both_c = sincos(z, SINES)
    tl.store(alone + i, sine(z, SINES))
    tl.store(s + i, both_s)
    tl.store(c + i, both_c)


def items(settings: Settings) -> list[str]:
    """Return the sines."""
    return list(PROMISES)


def swept(z: Tensor, sines: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sine alone, and sine and cosine together, of numbers whose count is a multiple of 256."""
    alone, s, c = (torch.empty_like(z) for _ in range(3))
    sweep[(z.numel() // 256,)](z, alone, s, c, SINES=sines, BLOCK=256, num_warps=4, enable_fp_fusion=True)
    return alone, s, c


def arguments(reach: float, dtype: torch.dtype) -> Tensor:
    """Return special values, then phases evenly spaced in their logarithm and in themselves, of both signs."""
    generator = torch.Generator().manual_seed(0)
    even, spread = torch.rand(2, COUNT // 2, generator=generator, dtype=torch.float64)
    z = torch.cat([reach * (2 * even - 1), torch.exp2(spread * math.log2(reach * 2**20)) / 2**20])
    z[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64).clamp(max=reach)
    z[COUNT // 2 + COUNT // 4 :] *= -1
    return z.to(dtype).to(DEVICE)


def run(name: str, settings: Settings) -> Outcome:
    """Sweep one sine."""
    reach, allowed = PROMISES[name]
    reach = reach if name == "fp64" else min(reach, EXACT_REACH)
    z = arguments(reach, torch.float64 if name == "fp64" else torch.float32)
    kind = "exact" if name == "fp64" else name.removesuffix("-far")
    alone, s, c = swept(z, kind)
    sine_, cosine = torch.sin(z.double()), torch.cos(z.double())
    errors = [(found.double() - right, right) for found, right in ((alone, sine_), (s, sine_), (c, cosine))]
    absolute = max(error.abs().max().item() for error, _ in errors)
    # In units of what is allowed; a NaN stays one and fails.
    excess = max(excess_of(*pair, allowed, name.startswith("exact")).max().item() for pair in errors)
    same, lost = torch.equal(alone, s), name == "fp64" or beyond_reach(kind)
    line = f"worst ratio {excess:.2f}, largest absolute error {absolute:.1e} for |z| up to {reach:g}"
    line += "" if same else "; sine and sincos differ"
    line += "" if lost else "; a phase beyond the reduction gives a number that it must not"
    return judged(excess <= 1.0 and same and lost, line, ratio=excess, absolute=absolute, numbers=z.numel())


def excess_of(error: Tensor, exact: Tensor, allowed: float, single: bool) -> Tensor:
    """Return errors in units of what is allowed."""
    if not single:
        return error.abs() / allowed
    ulp = torch.exp2(exact.abs().clamp_min(2.0**-126).log2().floor() - 23)
    return torch.minimum(error.abs() / (ULP * ulp), error.abs() / allowed)


def beyond_reach(sines: str) -> bool:
    """Tell whether infinity, NaN and phases that cannot be reduced give NaN; the unit may give any sine."""
    z = torch.tensor(BEYOND, dtype=torch.float32).repeat(256)[:256].to(DEVICE)
    bounded = z.isfinite() if sines != "exact" else torch.zeros_like(z, dtype=torch.bool)
    return all(bool((found.isnan() | (bounded & (found.abs() <= 1 + 1e-6))).all()) for found in swept(z, sines))
