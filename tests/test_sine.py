"""The sine of every kernel, sin(pi u) and cos(pi u), on every instruction set, and the first layer built on it."""

import math
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import oracle
from passes import Engine, extension, instruction_sets, isa_selected, on_every_isa

# The bound: so many units in the last place of the exact result, or so much absolute where that is more.
ULP = 2.0
ABSOLUTE = {torch.float32: 1e-7, torch.float64: 3e-16}
SUFFIX = {torch.float32: "f32", torch.float64: "f64"}

on_every_set = pytest.mark.parametrize("isa", instruction_sets())
DTYPES = pytest.mark.parametrize("dtype", list(SUFFIX), ids=list(SUFFIX.values()))


def sinpi(isa: str, u: Tensor) -> tuple[Tensor, Tensor]:
    """The kernels' sin(pi u) and cos(pi u)."""
    sine, cosine = torch.full_like(u, 7.0), torch.full_like(u, 7.0)
    with isa_selected(isa):
        getattr(extension(), f"sinpi_{SUFFIX[u.dtype]}")(u.data_ptr(), sine.data_ptr(), cosine.data_ptr(), u.numel())
    return sine, cosine


def exact(u: Tensor) -> tuple[Any, Any]:
    """sin(pi u) and cos(pi u) in 80-bit numbers, after an exact reduction to |r| <= 1/4."""
    # fmod and the differences below lose nothing: their results are multiples of the last bit of u.
    turns = numpy.fmod(u.double().numpy(), 2.0)
    quadrant = numpy.rint(2 * turns)
    r = (turns - quadrant / 2).astype(numpy.longdouble) * numpy.longdouble("3.14159265358979323846264338327950288")
    s, c, q = numpy.sin(r), numpy.cos(r), quadrant.astype(int) % 4
    return numpy.choose(q, [s, c, -s, -c]), numpy.choose(q, [c, -s, -c, s])


def assert_accurate(isa: str, u: Tensor) -> None:
    info = torch.finfo(u.dtype)
    for name, ours, wanted in zip(("sine", "cosine"), sinpi(isa, u), exact(u), strict=True):
        error = numpy.abs(ours.numpy().astype(numpy.longdouble) - wanted)
        # ulp of the exact result: eps times the power of two below it.
        ulp = info.eps * numpy.exp2(numpy.floor(numpy.log2(numpy.maximum(numpy.abs(wanted), info.tiny))))
        bound = numpy.maximum(ULP * ulp, ABSOLUTE[u.dtype])
        worst = int(numpy.argmax(error / bound))
        assert (error <= bound).all(), f"{name} of {u[worst].item()!r}: error {error[worst]:.2e} > {bound[worst]:.2e}"


def test_the_oracle_knows_enough():
    assert numpy.finfo(numpy.longdouble).nmant > numpy.finfo(numpy.float64).nmant, "no 80-bit numbers on this machine"
    sine, cosine = exact(torch.tensor([1 / 6, 0.5, -1.5, 1e15 + 0.5, 1.0, 2**60], dtype=torch.float64))
    assert numpy.abs(sine - [0.5, 1, 1, 1, 0, 0]).max() < 1e-16
    assert numpy.abs(cosine - [math.sqrt(0.75), 0, 0, 0, -1, 1]).max() < 2e-16


@on_every_set
@DTYPES
@pytest.mark.parametrize("bound", [0.25, 1.0, 30.0, 1e3, 1e5])
def test_random(bound, dtype, isa):
    assert_accurate(isa, oracle.uniform(100_000, bound=bound, seed=int(bound), dtype=dtype))


@on_every_set
@DTYPES
def test_around_every_eighth(dtype, isa):
    # Where the reduction changes its mind, and where sine or cosine vanish: neighbours on both sides.
    middle = torch.cat(
        [torch.arange(-64, 65) / 8, torch.arange(2**12, 2**12 + 33) / 8, torch.tensor([1e5, 32768.25])]
    ).to(dtype)
    infinity = torch.full_like(middle, math.inf)
    below, above = torch.nextafter(middle, -infinity), torch.nextafter(middle, infinity)
    assert_accurate(isa, torch.cat([middle, below, above]))


@on_every_set
@DTYPES
def test_huge(dtype, isa):
    # From where fractions end to where integers of 32 and 64 bits end, and beyond; all of it exact multiples of a bit.
    powers = [2.0**k for k in (20, 21, 22, 23, 24, 30, 31, 32, 51, 52, 53, 62, 63, 64, 100)] + [1e30, 1e38]
    u = torch.tensor(powers, dtype=torch.float64)
    offsets = torch.cat([torch.arange(-40, 41) / 8, torch.arange(-4, 5) * 1e5])
    u = (u[:, None] * (1 + oracle.uniform(9, bound=0.3, seed=1)) + offsets[:, None, None]).flatten().to(dtype)
    assert_accurate(isa, torch.cat([u, -u]))


@on_every_set
@DTYPES
def test_small_and_subnormal(dtype, isa):
    info = torch.finfo(dtype)
    u = torch.tensor(
        [info.tiny * info.eps, info.tiny / 3, info.tiny, info.tiny * 5, 1e-30, 1e-7, 1e-4], dtype=torch.float64
    )
    u = torch.cat([u, -u]).to(dtype)
    assert_accurate(isa, u)
    sine, cosine = sinpi(isa, u)
    # Relative too: nothing is flushed to zero where pi u can be represented.
    usual = (u.abs() >= info.tiny) & (u.abs() <= 1e-20)
    relative = (sine.double() / (math.pi * u.double()) - 1).abs()
    assert (relative[usual] <= ULP * info.eps).all()
    assert (sine != 0).all() and (sine.sign() == u.sign()).all() and (cosine[u.abs() <= 1e-20] == 1).all()


@on_every_set
@DTYPES
def test_special_values(dtype, isa):
    sine, cosine = sinpi(isa, torch.tensor([math.nan, math.inf, -math.inf] * 11, dtype=dtype))
    assert sine.isnan().all() and cosine.isnan().all()
    sine, cosine = sinpi(isa, torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 1.5], dtype=dtype))
    assert sine.tolist() == [0, 0, 0, 0, 0, 1, -1, -1]
    assert cosine.tolist() == [1, 1, -1, -1, 1, 0, 0, 0]


@on_every_set
@DTYPES
def test_symmetry_and_range(dtype, isa):
    u = oracle.uniform(50_000, bound=1e4, seed=3, dtype=dtype)
    (sine, cosine), (mirrored, same) = sinpi(isa, u), sinpi(isa, -u)
    assert torch.equal(mirrored, -sine) and torch.equal(same, cosine)
    assert max(sine.abs().max().item(), cosine.abs().max().item()) <= 1 + torch.finfo(dtype).eps


@on_every_set
@DTYPES
@pytest.mark.parametrize("count", [1, 2, 7, 15, 17])
def test_any_length(count, dtype, isa):
    u = oracle.uniform(32, bound=4.0, seed=4, dtype=dtype)
    whole, part = sinpi(isa, u), sinpi(isa, u[:count].clone())
    assert all(torch.equal(a[:count], b) for a, b in zip(whole, part, strict=True))


def first_layer(largest: float, dtype: torch.dtype, D: int = 3) -> oracle.Net:
    """A sine layer with phases up to `largest`, read by an output layer that takes its units one by one."""
    weights = [oracle.uniform(24, D, bound=1.0, seed=5, dtype=dtype), torch.eye(24, dtype=dtype)]
    biases = [oracle.uniform(24, bound=1.0, seed=6, dtype=dtype), torch.zeros(24, dtype=dtype)]
    return oracle.Net(weights, biases, [largest / (D + 1)])


@on_every_isa
@pytest.mark.parametrize("largest", [1.0, 100.0, 1e4, 1e5])
def test_first_layer_float32(largest: float, engine: Engine):
    net = first_layer(largest, torch.float32)
    x = oracle.points(net, 500)
    plain, wanted = oracle.value(net, x), oracle.value(net.double(), x.double())
    (y,) = engine.forward("value", net, x)
    oracle.assert_error_rule(y, plain, wanted, quantity="value", capped=False)
    # The rule says little where plain torch is lost. Phases are sums of D + 1 = 4 terms, each reduced to one turn and
    # rounded once, as is every sum: 8 roundings of up to 4 half turns, then the sine's own error.
    eps = torch.finfo(torch.float32).eps
    assert (y.double() - wanted).abs().max().item() <= math.pi * 8 * eps + ABSOLUTE[torch.float32]


@on_every_isa
@pytest.mark.parametrize("largest", [1.0, 1e5])
def test_first_layer_float64(largest: float, engine: Engine):
    net = first_layer(largest, torch.float64, D=2)
    x = oracle.points(net, 200)
    (y,) = engine.forward("value", net, x)
    omega, pi = numpy.longdouble(net.omegas[0]), numpy.longdouble("3.14159265358979323846264338327950288")
    W, b = (t[0].numpy().astype(numpy.longdouble) for t in (net.weights, net.biases))
    phases = omega * (x.numpy().astype(numpy.longdouble) @ W.T + b)
    reduced = phases - 2 * pi * numpy.rint(phases / (2 * pi))
    # 80-bit phases of 1e5 are good to 1e5 * 2^-64; ours have 6 roundings of up to 3 half turns.
    bound = math.pi * 6 * 2.2e-16 + ABSOLUTE[torch.float64] + 4 * largest * 2.0**-64
    assert numpy.abs(y.numpy() - numpy.sin(reduced)).max() <= bound


@on_every_isa
def test_first_layer_slopes(engine: Engine):
    # Slopes of 1e5 at phases of 1e5: their relative error is that of the cosine.
    net = first_layer(1e5, torch.float32)
    x = oracle.points(net, 200)
    _, J = engine.forward("adjoint", net, x, [torch.eye(24)])
    wanted = oracle.jacobian(net.double(), x.double()).detach()
    assert oracle.relative_error(J, wanted) <= 2e-6
