"""The products of exact digits, without the tile unit that makes them fast: the same sums, bit for bit."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import oracle
import pass_checks
import test_loss
from oracle import Net
from pass_checks import assert_same
from passes import (  # fmt: skip
    CPP,
    OUTPUTS,
    Case,
    Engine,
    Operands,
    Results,
    by_autograd,
    by_engine,
    every,
    extension,
    isa_selected,
    operands,
    threads,
)

NAME = "amx-emulated"


def missing() -> str:
    """Why the emulation cannot run here; empty where it can."""
    if not CPP:
        return "the C++ backend is not among the tested ones"
    try:
        with isa_selected(NAME):
            return ""
    except ValueError:
        return "digits need AVX-512 with VBMI and VNNI, which this machine lacks"


pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.skipif(bool(missing()), reason=missing())]

DIGITS, PLAIN = Engine("cpp", NAME), Engine("cpp", "avx512")
every_pass = pytest.mark.parametrize("name", OUTPUTS)
# Rows around groups of 16 points and tiles of 64; widths around tiles of 64 features; 2 to 5 sine layers.
CASES = [
    Case((2, 33, 64, 1), (30.0, 30.0), 1, True, K=2, R=1, C=1),
    Case((1, 64, 33, 3), (3000.0, 30.0), 15, False, K=1, R=1, C=2),
    Case((3, 100, 64, 33, 2), (30.0, 3.0, 30.0), 16, True, K=3, R=2, C=2),
    Case((2, 64, 64, 64, 1), (30.0,) * 3, 17, False, K=2, R=3, C=1),
    Case((4, 33, 100, 20, 64, 2), (30.0, 30.0, 10.0, 30.0), 63, True, K=2, R=1, C=2),
    Case((2, 256, 100, 5), (30.0, 30.0), 65, False, K=0, R=0, C=3),
    Case((2, 64, 64, 64, 1), (30.0,) * 3, 1000, False, K=2, R=1, C=1),
    Case((2, 256, 256, 256, 1), (30.0,) * 3, 48, False, K=2, R=1, C=1),
    Case((2, 40, 48, 33, 64, 50, 1), (30.0,) * 5, 100, True, K=1, R=1, C=1),
]
ROWS_CASE = Case((3, 33, 100, 64, 2), (30.0, 20.0, 30.0), 73, True, K=2, R=2, C=2)


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the checks of every pass use layers that digits serve."""
    monkeypatch.setattr(pass_checks, "ROWS_CASE", ROWS_CASE)


@every_pass
@every(CASES)
def test_float32(case, name):
    pass_checks.assert_float32(DIGITS, name, case)


@every_pass
@every(CASES[2:7:2])
def test_digits_do_the_work(case, name):
    # Other bits than fp32 in every product: nothing was handed on.
    given = operands(name, case, torch.float32)
    ours, plain = (by_engine(engine, name, given) for engine in (DIGITS, PLAIN))
    hidden = slice(1, len(case.widths) - 2)
    pairs = zip(
        [*ours.outputs, ours.x, *ours.parameters[hidden]],
        [*plain.outputs, plain.x, *plain.parameters[hidden]],
        strict=True,
    )
    assert not any(torch.equal(a, b) for a, b in pairs if a.numel())


def test_float64_and_narrow_layers_are_those_of_avx512():
    narrow = Case((2, 16, 31, 64, 2), (30.0,) * 3, 100, True)
    for case, dtype in ((ROWS_CASE, torch.float64), (narrow, torch.float32)):
        for name in OUTPUTS:
            given = operands(name, case, dtype)
            assert_same(DIGITS, *(by_engine(engine, name, given).tensors() for engine in (DIGITS, PLAIN)))


@every_pass
def test_no_rows(name):
    ours = by_engine(DIGITS, name, operands(name, ROWS_CASE._replace(N=0, per_point=False), torch.float32))
    assert all(t.shape[0] == 0 for t in ours.outputs)
    assert not any(t.any() for t in ours.parameters)


@every_pass
@pytest.mark.parametrize(("rows", "cut"), [(73, 31), (200, 64), (1217, 1152)])
def test_rows_stand_for_themselves(rows, cut, name):
    for per_point in (False, True):
        pass_checks.check_rows(DIGITS, name, ROWS_CASE._replace(N=rows, per_point=per_point), torch.float32, cut)


def test_a_value_has_the_same_bits_from_every_pass():
    given = {name: operands(name, ROWS_CASE, torch.float32) for name in OUTPUTS}
    first, *others = [DIGITS.forward(name, g.net, g.x, g.seeds)[0] for name, g in given.items()]
    assert_same(DIGITS, others, [first] * 3)


@every_pass
def test_number_of_threads(name):
    given = operands(name, ROWS_CASE._replace(N=3 * 1152 + 61), torch.float32)

    def run(count: int) -> list[Tensor]:
        with threads(count):
            grads = DIGITS.backward(name, given.bars, given.net, given.x, given.seeds)
            outputs = DIGITS.forward(name, given.net, given.x, given.seeds)
        return [*outputs, grads.x, *grads.seeds, *grads.weights, *grads.biases]

    first = run(1)
    for count in (2, 4, 2):
        assert_same(DIGITS, run(count), first)


@every_pass
def test_subsets_of_gradients(name, covered):
    for per_point in (False, True):
        pass_checks.check_needs(DIGITS, name, per_point=per_point)


@every_pass
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_rows_stay_alone(value, name, covered):
    for where in ("x", "bars", *(["seeds"] if name != "value" else [])):
        pass_checks.check_nonfinite_row(DIGITS, name, value, where)
        given = operands(name, ROWS_CASE, torch.float32)
        for tensor in {"x": [given.x], "seeds": given.seeds, "bars": given.bars}[where]:
            tensor[5] = value
        ours, plain = (by_engine(engine, name, given).tensors() for engine in (DIGITS, PLAIN))
        assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(ours, plain, strict=True))


@every_pass
def test_nan_parameters(name):
    for kind in (0, 1):
        for layer in range(4):
            for value in (math.nan, math.inf):
                given = operands(name, ROWS_CASE, torch.float32)
                given.net[kind][layer][1] = value
                ours, plain = (by_engine(engine, name, given).tensors() for engine in (DIGITS, PLAIN))
                assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(ours, plain, strict=True))


@every_pass
def test_cotangents_of_any_size(name):
    # Per point and per row scales: a power of two changes no bit, down to where fp32 itself serves.
    given = operands(name, ROWS_CASE, torch.float32)
    usual = DIGITS.backward(name, given.bars, given.net, given.x, given.seeds)
    for power in (-60, 40):
        bars = [bar * 2.0**power for bar in given.bars]
        grads = DIGITS.backward(name, bars, given.net, given.x, given.seeds)
        scaled = [t * 2.0**-power for t in (grads.x, *grads.weights, *grads.biases)]
        assert_same(DIGITS, scaled, [usual.x, *usual.weights, *usual.biases])
    tiny = DIGITS.backward(name, [bar * 2.0**-105 for bar in given.bars], given.net, given.x, given.seeds)
    for a, b in zip((tiny.x, *tiny.weights), (usual.x, *usual.weights), strict=True):
        assert oracle.relative_error(a.double() * 2.0**105, b.double()) <= 1e-5
    none = DIGITS.backward(name, [bar * 0 for bar in given.bars], given.net, given.x, given.seeds)
    assert not any(t.any() for t in (none.x, *none.seeds, *none.weights, *none.biases))


def uneven(net: Net, factor: float) -> Net:
    """One large weight in every row of the hidden matrices, rows as long as before."""
    weights = [W.clone() for W in net.weights]
    for W in weights[1:-1]:
        length = W.norm(dim=1, keepdim=True)
        W[range(len(W)), torch.arange(len(W)) * 7 % W.shape[1]] = factor * W.abs().max()
        W.mul_(length / W.norm(dim=1, keepdim=True))
    return net._replace(weights=weights)


def outlier(net: Net, factor: float) -> Net:
    """One weight in every row of the hidden matrices times a factor."""
    weights = [W.clone() for W in net.weights]
    for W in weights[1:-1]:
        W[range(len(W)), torch.arange(len(W)) * 7 % W.shape[1]] *= factor
    return net._replace(weights=weights)


def output_outlier(net: Net, factor: float) -> Net:
    """Cotangents of which one feature is larger than all others."""
    weights = [W.clone() for W in net.weights]
    weights[-1][:, 5] = factor * weights[-1].abs().max()
    return net._replace(weights=weights)


def heavy_tailed(given: Operands) -> Operands:
    """Every thousandth point a hundred times as far off."""
    bars = [bar.clone() for bar in given.bars]
    for bar in bars:
        bar[3::1000] *= 100
    return given._replace(bars=bars)


def assert_error_rule(name: str, change: Callable[[Operands], Operands], case: Case) -> None:
    """Outputs and gradients of two draws, judged together."""
    triples = []
    for seed in range(2):
        given = change(operands(name, case, torch.float32, seed))
        with oracle.one_thread():
            plain, exact = (by_autograd(name, given.to(dtype)) for dtype in (torch.float32, torch.float64))
        triples.append((by_engine(DIGITS, name, given), plain, exact))
    # Sums of biases are no products.
    weights = len(case.widths) - 1
    parts: list[Callable[[Results], list[Tensor]]] = [
        lambda r: r.outputs,
        lambda r: [r.x],
        lambda r: r.parameters[:weights],
    ]
    for pick in parts:
        oracle.assert_error_rule(*([t for r in group for t in pick(r)] for group in zip(*triples, strict=True)))


WIDE = Case((2, 256, 256, 256, 1), (30.0,) * 3, 50, K=2, R=1, C=1)
CHANGES = {
    **{f"weights-x{f:g}": functools.partial(outlier, factor=f) for f in (10.0, 50.0)},
    **{f"uneven-x{f:g}": functools.partial(uneven, factor=f) for f in (3.0, 30.0)},
    "output-x100": functools.partial(output_outlier, factor=100.0),
}


@pytest.mark.parametrize("name", ["jet"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_outliers(change, name):
    assert_error_rule(name, lambda given: given._replace(net=change(given.net)), WIDE)


@pytest.mark.parametrize("name", ["value", "jet", "adjoint"])
def test_heavy_tailed_residuals(name):
    assert_error_rule(name, heavy_tailed, Case((2, 128, 128, 1), (30.0,) * 2, 1000, K=2, R=1, C=1))


def test_phases_out_of_range():
    given = operands("jet", ROWS_CASE, torch.float32)
    given.net.weights[1].mul_(1e6)
    y, *_ = DIGITS.forward("jet", given.net, given.x, given.seeds)
    bound = given.net.weights[-1].abs().sum(1) + given.net.biases[-1].abs()
    assert (y.abs() <= bound * (1 + 1e-5)).all()


@test_loss.every_kind
def test_losses(kind):
    broken = []
    for seed in range(3):
        key = kind, (2, 64, 100, 33, 1), 300, True, torch.float32, seed
        plain, exact = (test_loss.expected(*key, computed=d, reduction="mean") for d in (torch.float32, torch.float64))
        ours = test_loss.run(DIGITS, test_loss.given(*key))
        assert_same(DIGITS, test_loss.run(DIGITS, test_loss.given(*key), need_params=False), ours[:1])
        try:
            oracle.assert_error_rule(ours, plain, exact)
        except AssertionError as error:
            broken.append(str(error))
    # The largest error of one network is one number: plain torch does not always keep the rule against itself.
    assert len(broken) <= 1, "\n".join(broken)


def test_grid():
    net = operands("value", ROWS_CASE._replace(widths=(2, 33, 100, 64, 2)), torch.float32).net
    shape, step = (13, 11), (0.125, 0.25)
    out = torch.empty(143, 2)
    DIGITS.call("grid_fwd", (-0.5, -0.75), step, (0, 0), shape, *net, out=out, gain=1.0, offset=0.0)
    axes = [torch.arange(n) * s + o for n, s, o in zip(shape, step, (-0.5, -0.75), strict=True)]
    assert_same(DIGITS, [out], DIGITS.forward("value", net, torch.cartesian_prod(*axes)))


def test_only_by_name():
    assert NAME not in extension().isa_available()
    with isa_selected(NAME):
        assert extension().isa_active() == NAME
