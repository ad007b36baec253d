"""Derivatives of compositions, to fourth order, against plain torch: what checks of one operator cannot see."""

import concurrent.futures
import itertools

import pytest
import torch
from torch import Tensor

import fastsiren
import op_cases
import oracle
from fastsiren import functional
from fastsiren.engine import backends
from oracle import Net
from passes import unless_interpreted

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

BOUND = 1e-9
WIDTHS = {1: (2, 5, 2), 2: (2, 4, 5, 2), 3: (3, 4, 3, 4, 1)}
LAYERS = unless_interpreted(list(WIDTHS), [2])


def ours(net: Net, x: Tensor) -> Tensor:
    return functional.siren(x, net.weights, net.biases, omegas=net.omegas)


def slopes(z: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(z.sum(), x, create_graph=True)[0]


def laplacian(y: Tensor, x: Tensor) -> Tensor:
    first = slopes(y, x)
    return sum(slopes(first[:, i], x)[:, i] for i in range(x.shape[1]))


# Scalars of a network f: the orders in x are 0, 1, 2 and 3.
LOSSES = {
    "mse": lambda f, net, x: (f(net, x).tanh() - 0.3).square().mean(),
    "eikonal": lambda f, net, x: (slopes(f(net, x).sin(), x).norm(dim=-1) - 1).square().mean(),
    "laplacian": lambda f, net, x: (laplacian(f(net, x), x) - 0.5).square().mean(),
    "laplacian of a function": lambda f, net, x: laplacian(f(net, x).tanh(), x).square().mean(),
    "third order": lambda f, net, x: slopes(laplacian(f(net, x), x), x).square().sum(),
}  # fmt: skip


def setting(layers: int, wanted: tuple[bool, ...] = (True, True, True)) -> tuple[Net, Tensor, list[Tensor]]:
    """A network and points, of which those of (x, weights, biases) that are wanted require a gradient."""
    net = op_cases.network(WIDTHS[layers])
    groups = [[oracle.points(net, 6)], net.weights, net.biases]
    made = [oracle.tracked(*group) if flag else group for flag, group in zip(wanted, groups, strict=True)]
    return Net(made[1], made[2], net.omegas), made[0][0], [t for t in itertools.chain(*made) if t.requires_grad]


def assert_same(ours: list[Tensor], plain: list[Tensor]) -> None:
    for a, b in zip(ours, plain, strict=True):
        assert oracle.relative_error(a, b) <= BOUND or float((a - b).abs().max()) <= 1e-14


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layers", LAYERS)
def test_gradients_of_losses(layers, loss, backend):
    net, x, leaves = setting(layers)
    found = [torch.autograd.grad(LOSSES[loss](f, net, x), leaves, materialize_grads=True) for f in (ours, oracle.value)]
    assert_same(*found)


SUBSETS = [flags for flags in itertools.product((False, True), repeat=3) if any(flags)][: unless_interpreted(None, 2)]


@pytest.mark.parametrize("wanted", SUBSETS, ids=["".join(n for n, f in zip("xWb", flags) if f) for flags in SUBSETS])
def test_every_subset_that_requires_gradients(wanted, backend):
    for loss in ("mse", "laplacian of a function") if wanted[0] else ("mse",):
        net, x, leaves = setting(2, wanted)
        results = []
        for f in (ours, oracle.value):
            for leaf in leaves:
                leaf.grad = None
            LOSSES[loss](f, net, x).backward()
            results.append([leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in leaves])
        assert_same(*results)


@pytest.mark.parametrize("only", ["first weight", "last bias"])
def test_one_parameter_requires_gradients(only, backend):
    net, x, _ = setting(2, (False, False, False))
    leaf = (net.weights[0] if only == "first weight" else net.biases[-1]).requires_grad_()
    assert_same(*[torch.autograd.grad(LOSSES["mse"](f, net, x), [leaf]) for f in (ours, oracle.value)])


@pytest.mark.parametrize("order", unless_interpreted([1, 2, 3, 4, 5], [3]))
def test_nested_gradients(order, backend):
    net, x, leaves = setting(1 if order > 4 else 2)

    def nested(f):
        s = f(net, x).sin().sum()
        for _ in range(order - 1):
            s = slopes(s, x).square().sum()
        return torch.autograd.grad(s, leaves, materialize_grads=True)

    assert_same(nested(ours), nested(oracle.value))


def test_mixed_second_order_through_parameters(backend):
    """Gradients of a gradient norm of the weights: cotangents of W_bar reach the second backward."""
    net, x, leaves = setting(2)

    def penalty(f):
        params = [*net.weights, *net.biases]
        first = torch.autograd.grad(f(net, x).tanh().square().sum(), [x, *params], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first[:3]), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.sin().sum() for g in second), leaves, materialize_grads=True)

    assert_same(penalty(ours), penalty(oracle.value))


def everything(net: Net, x: Tensor, V: Tensor, M: Tensor, E: Tensor, plain: bool) -> list[Tensor]:
    if plain:
        return [*oracle.jet(net, x, V, M)[1:], *oracle.adjoint(net, x, E)[1:], *oracle.sandwich(net, x, V, E)]
    params, options = (net.weights, net.biases), {"omegas": net.omegas}
    jet = functional.jet(x, *params, V, M, **options)
    adjoint = functional.adjoint(x, *params, E, **options)
    return [*jet[1:], *adjoint[1:], *functional.sandwich(x, *params, V, E, **options)]


@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per-point"])
def test_outputs_of_engines_differentiate_twice_more(per_point, backend):
    net, x, leaves = setting(2)
    V, M, E = op_cases.operands("jet_fwd", net, 6, per_point=per_point)[1:] + [
        op_cases.operands("adjoint_fwd", net, 6, per_point=per_point)[1]
    ]
    leaves += [seed.requires_grad_() for seed in (V, M, E)]

    def second(plain):
        loss = sum((result * (i + 1)).tanh().sum() for i, result in enumerate(everything(net, x, V, M, E, plain)))
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        again = torch.autograd.grad(sum(g.sin().sum() for g in first), leaves, materialize_grads=True)
        return [*first, *again]

    assert_same(second(plain=False), second(plain=True))


def test_two_networks_in_a_row(backend):
    """Saved tensors that depend on each other: x of the second network is a result of the first."""
    first, x, leaves = setting(1)
    second, _, more = setting(1, (False, True, True))

    def chained(f):
        loss = laplacian(f(second, f(first, x)), x).square().sum()
        return torch.autograd.grad(loss, [*leaves, *more], materialize_grads=True)

    assert_same(chained(ours), chained(oracle.value))


@pytest.mark.skipif(backends.INTERPRETED, reason="the interpreter of Triton is for one thread")
def test_threads_do_not_meet(backend):
    """Forward and two backwards in four threads at a time give the numbers of one thread."""
    net, x, leaves = setting(2)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(LOSSES["eikonal"](ours, net, x), leaves, materialize_grads=True))

    def work() -> list[list[Tensor]]:
        with fastsiren.use_backend(backend):
            return [gradients() for _ in range(10)]

    expected = gradients()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: work(), range(4), timeout=60):
            for found in rows:
                assert_same(found, expected)
