"""The sine and cosine of the Triton kernels, interpreted, against 80-bit numbers."""

import math

import numpy
import pytest
import torch
import triton
import triton.language as tl
from fastsiren.kernels import sine as kernels
from torch import Tensor

import oracle

# The bound: so many units in the last place of the exact result, or so much absolute where that is more.
ULP, ABSOLUTE = 2.0, 1e-7
# Beyond the first the number of quarter turns is not always the nearest.
NEAR, FAR = (1e6, ABSOLUTE), (5e6, 1e-6)


@triton.jit
def both(Z, sine, cosine, alone, count, SINES: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < count
    z = tl.load(Z + i, mask=live, other=0.0)
    s, c = kernels.sincos(z, SINES)
    tl.store(sine + i, s, mask=live)
    tl.store(cosine + i, c, mask=live)
    tl.store(alone + i, kernels.sine(z, SINES), mask=live)


def run(z: Tensor, sines: str = "exact") -> tuple[Tensor, Tensor]:
    """Sine and cosine; the sine alone has the same bits."""
    sine, cosine, alone = (torch.full_like(z, 7.0) for _ in range(3))
    both[(triton.cdiv(len(z), 4096),)](z, sine, cosine, alone, len(z), SINES=sines, BLOCK=4096)
    bits = torch.int32 if z.dtype == torch.float32 else torch.int64
    same = (sine.view(bits) == alone.view(bits)) | (sine.isnan() & alone.isnan())
    assert same.all(), f"sine({z[~same][0].item()!r}) has other bits than that of sincos"
    return sine, cosine


def assert_accurate(z: Tensor) -> None:
    wide = z.numpy().astype(numpy.longdouble)
    for name, ours, wanted in zip(("sine", "cosine"), run(z), (numpy.sin(wide), numpy.cos(wide)), strict=True):
        error = numpy.abs(ours.numpy().astype(numpy.longdouble) - wanted)
        ulp = 2.0**-23 * numpy.exp2(numpy.floor(numpy.log2(numpy.maximum(numpy.abs(wanted), 2.0**-126))))
        bound = numpy.maximum(ULP * ulp, numpy.where(numpy.abs(wide) <= NEAR[0], *(b for _, b in (NEAR, FAR))))
        worst = int(numpy.argmax(error / bound))
        assert (error <= bound).all(), f"{name} of {z[worst].item()!r}: error {error[worst]:.2e} > {bound[worst]:.2e}"


@pytest.mark.parametrize("bound", [1.0, 30.0, 1e3, 1e5, NEAR[0], FAR[0]])
def test_random(bound):
    assert_accurate(oracle.uniform(100_000, bound=bound, seed=int(bound), dtype=torch.float32))


def test_around_quarter_turns():
    # Where the reduction changes its mind, and where sine or cosine vanish: the nearest numbers on both sides.
    k = torch.cat([torch.arange(-260, 261), torch.arange(60_000, 64_000, 7), torch.arange(3_000_000, 3_100_000, 501)])
    for step in (math.pi / 2, math.pi / 4):
        middle = (k.double() * step).float()
        infinity = torch.full_like(middle, math.inf)
        assert_accurate(
            torch.cat([middle, torch.nextafter(middle, -infinity), torch.nextafter(middle, infinity), -middle])
        )


def test_small_and_subnormal():
    z = torch.tensor([2.0**-149, 1e-40, 2.0**-126, 1e-30, 1e-10, 1e-4], dtype=torch.float32)
    z = torch.cat([z, -z])
    sine, cosine = run(z)
    # Relative too: the sine of a small number is that number.
    assert ((sine.double() / z.double() - 1).abs() <= ULP * 2.0**-23).all()
    assert ((cosine - 1).abs() <= 1e-7).all()


def test_special_values():
    sine, cosine = run(torch.tensor([0.0, -0.0, math.nan, math.inf, -math.inf, 1e7, -1e7, 3e38]))
    assert sine[:2].tolist() == [0.0, 0.0] and cosine[:2].tolist() == [1.0, 1.0]
    # Past the range that the constants reduce, the answer is NaN and not some number.
    assert sine[2:].isnan().all() and cosine[2:].isnan().all()


def test_symmetry_and_range():
    z = oracle.uniform(50_000, bound=1e4, seed=3, dtype=torch.float32)
    (sine, cosine), (mirrored, same) = run(z), run(-z)
    assert torch.equal(mirrored, -sine) and torch.equal(same, cosine)
    assert max(sine.abs().max().item(), cosine.abs().max().item()) <= 1 + 2.0**-23


@pytest.mark.parametrize("sines", ["unit", "half"])
def test_beside_narrow_operands(sines):
    # The interpreter has no special function unit: of that half this is the reduction alone.
    k = torch.arange(-4096, 4096, dtype=torch.float64)
    turns = torch.cat([(k * math.pi / 2).float(), torch.nextafter((k * math.pi / 2).float(), torch.tensor(math.inf))])
    # Each number as the first and as the second of a pair.
    z = torch.cat([oracle.uniform(50_000, bound=1e5, seed=4, dtype=torch.float32), turns]).repeat_interleave(2)
    for ours, wanted in zip(run(z, sines), (z.double().sin(), z.double().cos()), strict=True):
        assert (ours.double() - wanted).abs().max() <= 5e-7
    assert all(t.isnan().all() for t in run(torch.tensor([math.nan, math.nan, math.inf, math.inf]), sines))
    # Here fp32 numbers are half a period apart and more: no sine means anything, but it is one, or NaN.
    for found in run(torch.tensor([3e7, 3e7, -3e38, -3e38]), sines):
        assert (found.isnan() | (found.abs() <= 1)).all()


def test_half_of_the_sines_by_each_way():
    z = oracle.uniform(4096, bound=30.0, seed=6, dtype=torch.float32)
    half, unit = (torch.stack(run(z, sines)) for sines in ("half", "unit"))
    assert torch.equal(half[:, ::2], unit[:, ::2]) and not torch.equal(half[:, 1::2], unit[:, 1::2])


def test_float64():
    z = oracle.uniform(10_000, bound=1e5, seed=5)
    for ours, wanted in zip(run(z), (z.sin(), z.cos()), strict=True):
        assert (ours - wanted).abs().max() <= 1e-15
