"""The reference backend in float64 against nested autograd: every pass, every gradient, every derivative of those."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

import oracle
from fastsiren.engine import recurrences, reference
from fastsiren.engine.network import Grads
from oracle import Net

BOUND = 1e-12
NEED = {"need_x": True, "need_params": True}
SIZES = list(itertools.product((1, 2, 3, 4), (1, 2, 3)))
SHARED = ("shared", "per_point")
PASSES = ("value", "jet", "adjoint", "sandwich")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with oracle.one_thread():
        yield


def case(d: int, o: int, seeds: str) -> tuple[Net, Tensor]:
    """A network of 0 to 5 hidden matrices with unequal widths of 1 to 64 and unequal omegas, and 5 points."""
    pick = random.Random(100 * d + 10 * o + len(seeds))
    depth = (3 * (d - 1) + o + (seeds == "shared")) % 6
    widths = [pick.choice((1, 2, 3, 5, 8, 17, 33, 64)) for _ in range(depth + 1)]
    omegas = [pick.choice((1.0, 3.0, 30.0)) for _ in widths]
    net = oracle.network((d, *widths, o), omegas, seed=d + o)
    return net, oracle.points(net, 5)


def seeds_of(name: str, net: Net, n: int, shared: str, K: int = 2, R: int = 3, C: int = 2) -> list[Tensor]:
    """Seeds of a pass, forms symmetric: random, shared by the points or one set for each."""
    lead = () if shared == "shared" else (n,)
    d, o = net.weights[0].shape[1], len(net.biases[-1])
    V, M = oracle.normal(*lead, K, d, seed=2), oracle.normal(*lead, R, K, K, seed=3)
    E = oracle.normal(*lead, C, o, seed=4)
    return {"value": [], "jet": [V, (M + M.mT) / 2], "adjoint": [E], "sandwich": [V, E]}[name]


def run(name: str, net: Net, x: Tensor, seeds: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = getattr(reference, f"{name}_fwd")(x, *seeds, *net)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def run_bwd(name: str, bars: Sequence[Tensor], net: Net, x: Tensor, seeds: Sequence[Tensor]) -> Grads:
    need = NEED if name == "value" else {**NEED, "need_seeds": True}
    return getattr(reference, f"{name}_bwd")(*bars, x, *seeds, *net, **need)


def exact(name: str, net: Net, x: Tensor, seeds: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = getattr(oracle, name)(net, x, *seeds)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def cotangents(outputs: Sequence[Tensor]) -> list[Tensor]:
    return [oracle.normal(*output.shape, seed=10 + i, dtype=output.dtype) for i, output in enumerate(outputs)]


def flat(grads: Grads) -> list[Tensor]:
    return [*([] if grads.x is None else [grads.x]), *grads.seeds, *grads.weights, *grads.biases]


def assert_equal(ours: Sequence[Tensor], expected: Sequence[Tensor], bound: float = BOUND) -> None:
    errors = [oracle.relative_error(a, b) for a, b in zip(ours, expected, strict=True)]
    assert all(error <= bound for error in errors), f"relative errors {[f'{error:.1e}' for error in errors]}"


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize(("d", "o"), SIZES)
def test_outputs_and_gradients(d: int, o: int, name: str, shared: str) -> None:
    net, x = case(d, o, shared)
    seeds = seeds_of(name, net, len(x), shared)
    ours = run(name, net, x, seeds)
    net, (x, *seeds) = net.tracked(), oracle.tracked(x, *seeds)
    expected = exact(name, net, x, seeds)
    assert_equal(ours, expected)
    bars = cotangents(ours)
    if name == "sandwich":
        # The Hessian is symmetric: only the symmetric part of its cotangent counts.
        assert not torch.equal(bars[2], bars[2].mT)
    grads = run_bwd(name, bars, net.to(torch.float64), x.detach(), [seed.detach() for seed in seeds])
    assert_equal(flat(grads), oracle.gradients(expected, bars, [x, *seeds, *net.parameters()]))


@pytest.mark.parametrize("hidden_matrices", range(6))
def test_every_depth(hidden_matrices: int) -> None:
    net = oracle.network((2, *[16] * (hidden_matrices + 1), 2), [30.0] * (hidden_matrices + 1))
    x = oracle.points(net, 4)
    for name in PASSES:
        seeds = seeds_of(name, net, 4, "shared")
        ours = run(name, net, x, seeds)
        tracked, inputs = net.tracked(), oracle.tracked(x, *seeds)
        expected = exact(name, tracked, inputs[0], inputs[1:])
        assert_equal(ours, expected)
        bars = cotangents(ours)
        grads = oracle.gradients(expected, bars, [*inputs, *tracked.parameters()])
        assert_equal(flat(run_bwd(name, bars, net, x, seeds)), grads)


@pytest.mark.parametrize(("name", "empty"), [("jet", "R"), ("jet", "KR"), ("sandwich", "K"), ("sandwich", "C")])
def test_without_channels(name: str, empty: str) -> None:
    net = oracle.network((3, 8, 7, 2), (30.0, 3.0))
    x = oracle.points(net, 5)
    seeds = seeds_of(name, net, 5, "per_point", **dict.fromkeys(empty, 0))
    net, (x, *seeds) = net.tracked(), oracle.tracked(x, *seeds)
    expected = exact(name, net, x, seeds)
    bars = cotangents(expected)
    plain, inputs = net.to(torch.float64), [x.detach(), *(seed.detach() for seed in seeds)]
    assert_equal(run(name, plain, inputs[0], inputs[1:]), expected)
    grads = oracle.gradients(expected, bars, [x, *seeds, *net.parameters()])
    assert_equal(flat(run_bwd(name, bars, plain, inputs[0], inputs[1:])), grads)


def test_named_operators() -> None:
    net = oracle.network((3, 24, 16, 2), (30.0, 30.0))
    x = oracle.points(net, 9)
    H = oracle.hessian(net, x).detach()
    eye = torch.eye(3, dtype=torch.float64)
    forms = torch.stack([eye, torch.diag(torch.tensor([1.0, -4.0, -4.0], dtype=torch.float64))])
    _, T, S = reference.jet_fwd(x, eye, forms, *net)
    assert_equal([T.mT], [oracle.jacobian(net, x)])
    assert_equal([S], [torch.einsum("rkj,nokj->nro", forms, H)])
    assert_equal([reference.sandwich_fwd(x, eye, torch.eye(2).double(), *net)[2]], [H])


def test_an_asymmetric_form_counts_by_its_symmetric_part() -> None:
    net = oracle.network((2, 9, 8, 1), (30.0, 30.0))
    x, V, M = oracle.points(net, 6), oracle.normal(2, 2), oracle.normal(2, 2, 2, seed=1)
    assert torch.equal(reference.jet_fwd(x, V, M, *net)[2], reference.jet_fwd(x, V, (M + M.mT) / 2, *net)[2])
    M_bar = run_bwd("jet", cotangents(run("jet", net, x, [V, M])), net, x, [V, M]).seeds[1]
    assert torch.equal(M_bar, M_bar.mT)


def test_second_derivatives_are_symmetric_to_the_bit() -> None:
    net = oracle.network((3, 17, 16, 2), (30.0, 30.0), dtype=torch.float32)
    H = reference.sandwich_fwd(oracle.points(net, 7), torch.eye(3), torch.eye(2), *net)[2]
    assert torch.equal(H, H.mT)


@pytest.mark.parametrize("omega", [0.0, 1.0, 30.0, 3000.0, -30.0])
def test_scaling_of_seeds_changes_no_bit(omega: float) -> None:
    net = oracle.network((2, 16, 16, 1), (omega, 30.0), dtype=torch.float32)
    x, V, M = oracle.points(net, 11), torch.eye(2), torch.eye(2).unsqueeze(0)
    (y, T, S), _ = recurrences.jet_sweep(x, V.unsqueeze(1), M, recurrences.Params(*net))
    expected = (y, T.movedim(0, 1), S.movedim(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(reference.jet_fwd(x, V, M, *net), expected, strict=True))


def test_value_has_the_bits_of_eager_torch() -> None:
    net = oracle.network((2, 32, 31, 3), (30.0, 30.0), dtype=torch.float32)
    x = oracle.points(net, 33)
    assert torch.equal(reference.value_fwd(x, *net), oracle.value(net, x))


@pytest.mark.parametrize("hidden_matrices", [0, 1, 3])
@pytest.mark.parametrize("given", ["x", "W", "b", "xWb", "some"])
def test_value_bwdbwd(given: str, hidden_matrices: int) -> None:
    net = oracle.network((3, *[9, 8, 7, 10][: hidden_matrices + 1], 2), [30.0, 3.0, 30.0, 2.0][: hidden_matrices + 1])
    x, y_bar = oracle.points(net, 5), oracle.normal(5, 2)
    x_bb = oracle.normal(5, 3, seed=1) if "x" in given else None
    W_bb = [oracle.normal(*W.shape, seed=20 + l) for l, W in enumerate(net.weights)] if "W" in given else None
    b_bb = [oracle.normal(*b.shape, seed=30 + l) for l, b in enumerate(net.biases)] if "b" in given else None
    if given == "some":
        W_bb = [None, *(torch.ones_like(W) for W in net.weights[1:])]
        b_bb = [*(torch.ones_like(b) for b in net.biases[:-1]), None]
    y_bar_bar, grads = reference.value_bwdbwd(x_bb, W_bb, b_bb, y_bar, x, *net)

    net, (x, y_bar) = net.tracked(), oracle.tracked(x, y_bar)
    firsts = oracle.gradients([oracle.value(net, x)], [y_bar], [x, *net.parameters()])
    none = [None] * len(net.weights)
    given_bars = [x_bb, *(W_bb or none), *(b_bb or none)]
    bars = [torch.zeros_like(t) if bar is None else bar for bar, t in zip(given_bars, firsts, strict=True)]
    expected = oracle.gradients(firsts, bars, [y_bar, x, *net.parameters()])
    assert_equal([y_bar_bar, *flat(grads)], expected)


def test_value_bwdbwd_of_x_alone_is_adjoint_bwd() -> None:
    net = oracle.network((3, 9, 8, 2), (30.0, 3.0))
    x, y_bar, x_bb = oracle.points(net, 5), oracle.normal(5, 2), oracle.normal(5, 3, seed=1)
    y_bar_bar, grads = reference.value_bwdbwd(x_bb, None, None, y_bar, x, *net)
    other = reference.adjoint_bwd(
        torch.zeros_like(y_bar), x_bb[:, None], x, y_bar[:, None], *net, need_seeds=True, **NEED
    )
    assert_equal(flat(other), [grads.x, y_bar_bar[:, None], *grads.weights, *grads.biases])


def pullback(function: Callable, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Vector-Jacobian product of a function of tensors through torch.func, random cotangents."""
    outputs, pull = torch.func.vjp(lambda *args: tuple(function(*args)), *inputs)
    return list(pull(tuple(cotangents(outputs))))


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("name", PASSES)
def test_derivatives_of_the_backward(name: str, shared: str) -> None:
    net = oracle.network((2, 6, 5, 2), (3.0, 2.0))
    x = oracle.points(net, 4)
    seeds = seeds_of(name, net, 4, shared)
    bars = cotangents(run(name, net, x, seeds))
    if name == "sandwich":
        bars[2] = bars[2] + bars[2].mT
    inputs, count = [*bars, x, *seeds, *net.parameters()], len(bars)

    def split(args: Sequence[Tensor]) -> tuple[Sequence[Tensor], Net, Tensor, Sequence[Tensor]]:
        bars, x, seeds, params = args[:count], args[count], args[count + 1 : -6], args[-6:]
        return bars, Net(list(params[:3]), list(params[3:]), net.omegas), x, seeds

    def ours(*args: Tensor) -> list[Tensor]:
        return flat(run_bwd(name, *split(args)))

    def plain(args: Sequence[Tensor]) -> list[Tensor]:
        bars, net, x, seeds = split(args)
        return oracle.gradients(exact(name, net, x, seeds), bars, [x, *seeds, *net.parameters()])

    tracked = oracle.tracked(*inputs)
    firsts = plain(tracked)
    # Forms and their cotangents are symmetric: compare along symmetric directions only.
    symmetric = [i for i, t in enumerate(tracked) if name == "jet" and t is tracked[count + 2]]
    expected = oracle.gradients(firsts, cotangents(firsts), tracked)
    for i, (a, b) in enumerate(zip(pullback(ours, inputs), expected, strict=True)):
        if i in symmetric or (name == "sandwich" and i == 2):
            a, b = a + a.mT, b + b.mT
        assert oracle.relative_error(a, b) <= BOUND, f"input {i}"
