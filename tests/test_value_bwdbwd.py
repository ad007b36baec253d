"""value_bwdbwd, the derivative of gradients in the parameters: what training through training steps needs."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import fastsiren
import oracle
from fastsiren.engine import ops
from oracle import Net
from pass_checks import A_DTYPE, LAYOUTS, assert_same, expanded
from passes import Engine, on_every_engine, on_every_kernel, threads, unless_interpreted

# Widths and rows around the tiles, segments of both sizes, one hidden matrix or none, chains of more than 128.
CASES = {
    "narrow": ((3, 33, 17, 2), (30.0, 10.0), 37),
    "no matrix": ((2, 20, 3), (30.0,), 1),
    "no points": ((2, 8, 1), (5.0,), 0),
    "deep": ((2, 64, 64, 64, 1), (30.0, 30.0, 30.0), unless_interpreted(1300, 64)),
    "wide": ((2, 8, 150, 8, 9), (5.0, 5.0, 5.0), 9 * 1152 + 5),
}
ALL = (True, True, True)
TANGENTS = unless_interpreted(
    [given for given in itertools.product((False, True), repeat=3) if any(given[1:])],
    [ALL, (False, False, True), (False, True, False)],
)


def tangents(net: Net, N: int, given: tuple[bool, bool, bool], dtype: torch.dtype, draw: int = 0) -> list:
    """Cotangents of x_bar, W_bar and b_bar; None where not given."""
    x_bar_bar = oracle.normal(N, net.weights[0].shape[1], seed=1, dtype=dtype)
    W_bar_bar = [oracle.normal(*W.shape, seed=100 * draw + 20 + l, dtype=dtype) for l, W in enumerate(net.weights)]
    b_bar_bar = [oracle.normal(*b.shape, seed=100 * draw + 30 + l, dtype=dtype) for l, b in enumerate(net.biases)]
    return [bars if flag else None for bars, flag in zip((x_bar_bar, W_bar_bar, b_bar_bar), given, strict=True)]


def to(dtype: torch.dtype, given: list) -> list:
    return [t if t is None else t.to(dtype) if isinstance(t, Tensor) else [e.to(dtype) for e in t] for t in given]


def by_autograd(bars: list, y_bar: Tensor, x: Tensor, net: Net) -> list[Tensor]:
    """y_bar_bar and the gradients of x, weights and biases, by nested autograd."""
    net, (x, y_bar) = net.tracked(), oracle.tracked(x, y_bar)
    firsts = oracle.gradients([oracle.value(net, x)], [y_bar], [x, *net.parameters()])
    layers = len(net.weights)
    flat = [bars[0], *(bars[1] or [None] * layers), *(bars[2] or [None] * layers)]
    full = [torch.zeros_like(t) if bar is None else bar for bar, t in zip(flat, firsts, strict=True)]
    return [t.detach() for t in oracle.gradients(firsts, full, [y_bar, x, *net.parameters()])]


def by_engine(engine: Engine, bars: list, y_bar: Tensor, x: Tensor, net: Net) -> list[Tensor]:
    y_bar_bar, grads = engine.call("value_bwdbwd", *bars, y_bar, x, *net)
    return [y_bar_bar, grads.x, *grads.weights, *grads.biases]


def made(name: str, given: tuple[bool, bool, bool], dtype: torch.dtype) -> tuple[list, Tensor, Tensor, Net]:
    widths, omegas, N = CASES[name]
    net = oracle.network(widths, omegas, dtype=dtype)
    y_bar = oracle.normal(N, widths[-1], seed=3, dtype=dtype)
    return tangents(net, N, given, dtype), y_bar, oracle.points(net, N), net


@pytest.mark.usefixtures("poisoned")
@on_every_engine
@pytest.mark.parametrize("given", TANGENTS)
@pytest.mark.parametrize("name", unless_interpreted(list(CASES), list(CASES)[:3]))
def test_float64(name, given, engine):
    call = made(name, given, torch.float64)
    for ours, exact in zip(by_engine(engine, *call), by_autograd(*call), strict=True):
        assert oracle.relative_error(ours, exact) <= 1e-12


@pytest.mark.usefixtures("poisoned")
@on_every_engine
@pytest.mark.parametrize("given", TANGENTS)
@pytest.mark.parametrize("name", unless_interpreted(["narrow", "deep", "wide"], ["deep"]))
def test_float32(name, given, engine):
    bars, y_bar, x, net = made(name, given, torch.float32)
    ours, plain = by_engine(engine, bars, y_bar, x, net), by_autograd(bars, y_bar, x, net)
    exact = by_autograd(to(torch.float64, bars), y_bar.double(), x.double(), net.double())
    for part in (slice(0, 1), slice(1, 2), slice(2, None)):
        oracle.assert_error_rule(ours[part], plain[part], exact[part])


@on_every_kernel
def test_bits_of_rows_and_threads(engine):
    bars, y_bar, x, net = made(unless_interpreted("wide", "narrow"), ALL, torch.float32)
    whole = by_engine(engine, bars, y_bar, x, net)
    with threads(5):
        assert all(map(torch.equal, by_engine(engine, bars, y_bar, x, net), whole))
    part = unless_interpreted(slice(100, 1000), slice(5, 30))
    some = by_engine(engine, [bars[0][part], *bars[1:]], y_bar[part], x[part], net)
    assert torch.equal(some[0], whole[0][part]) and torch.equal(some[1], whole[1][part])


@on_every_engine
@A_DTYPE
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout is not expanded])
def test_layouts(layout, dtype, engine):
    """Numbers count, not where they stand nor what lies behind them."""
    bars, y_bar, x, net = made("narrow", ALL, dtype)
    moved = net._replace(weights=[layout(W) for W in net.weights], biases=[layout(b) for b in net.biases])
    moved_bars = [layout(bars[0]), *([layout(t) for t in group] for group in bars[1:])]
    found = by_engine(engine, moved_bars, layout(y_bar), layout(x), moved)
    assert_same(engine, found, by_engine(engine, bars, y_bar, x, net))
    assert all(t.is_contiguous() for t in found)


@on_every_kernel
def test_a_bad_row_stays_alone(engine):
    bars, y_bar, x, net = made("narrow", ALL, torch.float32)
    clean, others = by_engine(engine, bars, y_bar, x, net), torch.arange(len(x)) != 21
    for tensor in unless_interpreted((x, y_bar, bars[0]), (x,)):
        before = tensor[21].clone()
        tensor[21] = math.nan
        spoiled = by_engine(engine, bars, y_bar, x, net)
        assert all(torch.equal(a[others], b[others]) for a, b in zip(spoiled[:2], clean[:2], strict=True))
        assert not spoiled[1][21].isfinite().any() and spoiled[0][21].isnan().all() == (tensor is not y_bar)
        tensor[21] = before


def assert_networks_alone(engine: Engine, rows: int) -> None:
    """The bits of several networks are those of each alone."""
    nets = [oracle.network((2, 33, 17, 2), (30.0, 10.0), dtype=torch.float32, seed=g) for g in range(3)]
    x, y_bar = oracle.uniform(3 * rows, 2, dtype=torch.float32), oracle.normal(3 * rows, 2, dtype=torch.float32)
    bars = [tangents(net, 3 * rows, ALL, torch.float32, draw=g) for g, net in enumerate(nets)]
    every = Net(*([torch.stack(column) for column in zip(*group)] for group in zip(*(n[:2] for n in nets))), nets[0][2])
    stacked = [[torch.stack(column) for column in zip(*group)] for group in zip(*(b[1:] for b in bars))]
    found = by_engine(engine, [bars[0][0], *stacked], y_bar, x, every)
    for g, net in enumerate(nets):
        own = slice(g * rows, (g + 1) * rows)
        alone = by_engine(engine, [bars[0][0][own], *bars[g][1:]], y_bar[own], x[own], net)
        assert torch.equal(found[0][own], alone[0]) and torch.equal(found[1][own], alone[1])
        assert all(torch.equal(a[g], b) for a, b in zip(found[2:], alone[2:], strict=True))


@on_every_kernel
@pytest.mark.parametrize("rows", unless_interpreted([0, 1, 393], [0, 19]))
def test_bits_of_networks(rows, engine):
    assert_networks_alone(engine, rows)


@pytest.fixture
def plain_passes(monkeypatch):
    """Names of the passes that plain torch ran."""
    names, original = [], ops.reference.value_bwdbwd

    def run(*args):
        names.append("value_bwdbwd")
        return original(*args)

    monkeypatch.setattr(ops.reference, "value_bwdbwd", run)
    return names


def adapted(siren, x: Tensor, target: Tensor, parameters: list[Tensor], rate: float = 1e-3) -> Tensor:
    """The loss after two steps of gradient descent."""
    for _ in range(2):
        loss = (siren(x, parameters) - target).square().mean()
        slopes = torch.autograd.grad(loss, parameters, create_graph=True)
        parameters = [parameter - rate * slope for parameter, slope in zip(parameters, slopes, strict=True)]
    return (siren(x, parameters) - target).square().mean()


CUTS = {"all": slice(None), "W": slice(0, 2), "b": slice(3, 5), "one b": slice(4, 5)}
COUNTS = {"one network": 0, "axis of one": 1, "networks": 3}


@pytest.mark.parametrize("cut", unless_interpreted(CUTS, ["b"]))
@pytest.mark.parametrize("count", unless_interpreted(COUNTS, ["networks"]))
def test_through_training_steps(count, cut, plain_passes, backend):
    """Any of the parameters adapts, alone or for each of several networks, others are shared; all of them learn."""
    net, count, cut = oracle.network((2, 12, 10, 2), (3.0, 2.0)), COUNTS[count], CUTS[cut]
    axis = (count,) if count else ()
    x, target = oracle.uniform(*axis, 9, 2), oracle.normal(*axis, 9, 2)
    own = net.parameters()[cut]
    own = [
        parameter.expand(*axis, *parameter.shape) + 0.1 * oracle.normal(*axis, *parameter.shape) for parameter in own
    ]
    found = []

    def fused(x: Tensor, parameters: list[Tensor]) -> Tensor:
        return fastsiren.functional.siren(x, parameters[:3], parameters[3:], omegas=net.omegas)

    def plain(x: Tensor, parameters: list[Tensor]) -> Tensor:
        for W, b, omega in zip(parameters[:2], parameters[3:5], net.omegas, strict=True):
            x = torch.sin(omega * (x @ W.mT + b.unsqueeze(-2)))
        return x @ parameters[2].mT + parameters[5].unsqueeze(-2)

    for siren in (fused, plain):
        shared, mine, points = oracle.tracked(*net.parameters()), oracle.tracked(*own), oracle.tracked(x, target)

        def whole(x: Tensor, given: list[Tensor], siren=siren, shared=shared) -> Tensor:
            full = list(shared)
            full[cut] = given
            return siren(x, full)

        loss = adapted(whole, *points, mine)
        wanted = [*points, *mine, *shared]
        found.append([loss, *torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)])
    for ours, exact in zip(*found, strict=True):
        assert oracle.relative_error(ours, exact) <= 1e-10
    assert bool(plain_passes) == (backend == "reference")
