"""Many networks at once: parameters with an axis of networks in front, against one network after the other."""

import functools

import pytest
import torch
from torch import Tensor

import fastsiren
import oracle
from fastsiren import functional as F
from fastsiren.engine.network import Parameters

OMEGAS = [30.0, 20.0]
WIDTHS = (3, 9, 7, 2)
G, N = 4, 11


def stacked(dtype: torch.dtype = torch.float64, count: int = G) -> tuple[list[Tensor], list[Tensor]]:
    """Weights [G, n_out, n_in] and biases [G, n_out] of networks with parameters of their own."""
    nets = [oracle.network(WIDTHS, OMEGAS, seed=g, dtype=dtype) for g in range(count)]
    return [torch.stack(ws) for ws in zip(*(net.weights for net in nets))], [
        torch.stack(bs) for bs in zip(*(net.biases for net in nets))
    ]


def one(parameters: list[Tensor], core: int, g: int) -> list[Tensor]:
    return [p[g] if p.ndim > core else p for p in parameters]


def each(function, x: Tensor, weights: list[Tensor], biases: list[Tensor], *seeds: Tensor):
    """The results of one network after the other, stacked."""
    found = [
        function(x[g] if x.ndim > 2 else x, one(weights, 2, g), one(biases, 1, g), *seeds, omegas=OMEGAS)
        for g in range(G)
    ]
    return [found] if isinstance(found[0], Tensor) else [list(column) for column in zip(*found)]


def points(*leading: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return oracle.uniform(*leading, 3, seed=7, dtype=dtype)


SHARED = {"none": [], "weight": [1], "first and last": [0, 2]}


@pytest.fixture(params=SHARED)
def parameters(request) -> tuple[list[Tensor], list[Tensor]]:
    """Of G networks; some layers are shared by all of them."""
    weights, biases = stacked()
    for i in SHARED[request.param]:
        weights[i] = weights[i][0]
    if SHARED[request.param]:
        biases[1] = biases[1][0]
    return weights, biases


CALLS = {
    "siren": (F.siren, []),
    "jet": (F.jet, [oracle.normal(2, 3, seed=1), oracle.normal(1, 2, 2, seed=2)]),
    "adjoint": (F.adjoint, []),
    "sandwich": (F.sandwich, [oracle.normal(2, 3, seed=1)]),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shared_points", [False, True])
def test_values_and_gradients(backend, name, shared_points, parameters):
    function, seeds = CALLS[name]
    weights, biases = parameters
    x = points(N) if shared_points else points(G, N)
    results = []
    together = functools.partial(function, omegas=OMEGAS)
    for run in (together, lambda *arguments: [torch.stack(column) for column in each(function, *arguments)]):
        inputs = oracle.tracked(x, *weights, *biases, *seeds)
        w, b = inputs[1 : 1 + len(weights)], inputs[1 + len(weights) : 1 + len(weights) + len(biases)]
        out = run(
            inputs[0],
            w,
            b,
            *inputs[1 + len(weights) + len(biases) :],
            **({} if run is not function else {"omegas": OMEGAS}),
        )
        out = [out] if isinstance(out, Tensor) else list(out)
        loss = sum((o * oracle.normal(*o.shape, seed=20 + i)).sum() for i, o in enumerate(out))
        results.append([*out, *torch.autograd.grad(loss, inputs)])
    for ours, wanted in zip(*results, strict=True):
        assert ours.shape == wanted.shape
        assert oracle.relative_error(ours, wanted) <= 1e-12


def test_second_and_third_order(backend, parameters):
    weights, biases = parameters
    found = []
    for batched in (True, False):
        x, *rest = oracle.tracked(points(G, N), *weights, *biases)
        w, b = rest[:3], rest[3:]
        y = F.siren(x, w, b, omegas=OMEGAS) if batched else torch.stack(each(F.siren, x, w, b)[0])
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        inner = torch.autograd.grad(y.square().sum(), rest, create_graph=True)
        total = second.square().sum() + sum(g.square().sum() for g in inner)
        found.append(torch.autograd.grad(total, [x, *rest]))
    for ours, wanted in zip(*found, strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-10


@pytest.mark.parametrize("kind", ["value", "gradient", "laplacian", "eikonal"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(backend, kind, reduction, parameters):
    weights, biases = parameters
    shape = {"gradient": (G, N, 2, 3), "eikonal": None}.get(kind, (G, N, 2))
    target = None if shape is None else oracle.normal(*shape, seed=3)
    weight = oracle.uniform(G, N, seed=4).abs()
    found = []
    for batched in (True, False):
        params = oracle.tracked(*weights, *biases)
        x, w, b = points(G, N), params[:3], params[3:]
        if batched:
            loss = F.loss(kind, x, target, w, b, omegas=OMEGAS, weight=weight, reduction=reduction)
        else:
            losses = [
                F.loss(
                    kind, x[g], None if target is None else target[g], one(w, 2, g), one(b, 1, g), omegas=OMEGAS,
                    weight=weight[g], reduction=reduction,
                )
                for g in range(G)
            ]  # fmt: skip
            loss = torch.stack(losses).mean() if reduction == "mean" else torch.stack(losses).sum()
        found.append([loss.detach(), *torch.autograd.grad(loss, params)])
    for ours, wanted in zip(*found, strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-11


class Stacked(torch.nn.Module):
    """A module of the user's that holds many networks."""

    def __init__(self) -> None:
        super().__init__()
        weights, biases = stacked()
        self.weights, self.biases = torch.nn.ParameterList(weights), torch.nn.ParameterList(biases)

    def siren_parameters(self) -> Parameters:
        return Parameters(list(self.weights), list(self.biases), OMEGAS)


def test_operators(backend):
    net, x = Stacked(), points(G, N)
    value, jacobian, laplacian = fastsiren.laplacian(net, x)
    assert (value.shape, jacobian.shape, laplacian.shape) == ((G, N, 2), (G, N, 2, 3), (G, N, 2))
    hessian = fastsiren.hessian(net, x).hessian
    assert oracle.relative_error(hessian.diagonal(dim1=-2, dim2=-1).sum(-1), laplacian) <= 1e-12
    weights, biases = list(net.weights), list(net.biases)
    alone = F.siren(x[2], one(weights, 2, 2), one(biases, 1, 2), omegas=OMEGAS)
    assert oracle.relative_error(value[2], alone) <= 1e-13


def test_compiled(backend):
    weights, biases = stacked(torch.float32)
    x = points(G, N, dtype=torch.float32)
    params = oracle.tracked(*weights, *biases)

    def step(x: Tensor, *params: Tensor) -> Tensor:
        return F.siren(x, params[:3], params[3:], omegas=OMEGAS).square().mean()

    found = []
    for run in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        loss = run(x, *params)
        found.append([loss.detach(), *torch.autograd.grad(loss, params)])
    for ours, wanted in zip(*found, strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-5


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_transforms(backend):
    weights, biases = stacked()
    x = points(G, N)

    def loss(weights: list[Tensor]) -> Tensor:
        return F.siren(x, weights, biases, omegas=OMEGAS).square().sum()

    found = torch.func.grad(loss)(weights)
    tracked = oracle.tracked(*weights)
    wanted = torch.autograd.grad(loss(tracked), tracked)
    assert all(oracle.relative_error(a, b) <= 1e-12 for a, b in zip(found, wanted))
    _, tangent = torch.func.jvp(loss, (weights,), ([torch.ones_like(w) for w in weights],))
    assert oracle.relative_error(tangent, sum(g.sum() for g in wanted)) <= 1e-12


@pytest.mark.parametrize("count", [0, 1])
def test_few_networks(backend, count):
    weights, biases = stacked(count=1)
    weights, biases = [w[:count] for w in weights], [b[:count] for b in biases]
    params = oracle.tracked(*weights, *biases)
    y = F.siren(points(count, N), params[:3], params[3:], omegas=OMEGAS)
    assert y.shape == (count, N, 2)
    assert [g.shape for g in torch.autograd.grad(y.sum(), params)] == [p.shape for p in params]


def test_leading_shapes(backend):
    weights, biases = stacked()
    y = F.siren(points(G, 3, 5), weights, biases, omegas=OMEGAS)
    assert y.shape == (G, 3, 5, 2)
    assert F.siren(points(1, N), weights, biases, omegas=OMEGAS).shape == (G, N, 2)
    assert F.siren(points(1, N, 1), weights, biases, omegas=OMEGAS).shape == (G, N, 1, 2)
    assert F.siren(points(), weights, biases, omegas=OMEGAS).shape == (G, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w, b, x: (w, [b[0][:3], *b[1:]], x), r"biases\[0\].*axis of 4 networks"),
        (lambda w, b, x: ([w[0][:2], *w[1:]], b, x), r"weights\[1\].*axis of 2 networks"),
        (lambda w, b, x: ([w[0][None], *w[1:]], b, x), r"weights\[0\].*3 with an axis of networks"),
        (lambda w, b, x: (w, b, x[:3]), r"x: got shape \(3, 11, 3\) for 4 networks"),
    ],
)
def test_what_does_not_fit(backend, change, words):
    weights, biases, x = change(*stacked(), points(G, N))
    with pytest.raises(ValueError, match=words):
        F.siren(x, weights, biases, omegas=OMEGAS)


@pytest.mark.parametrize("batched_points", [True, False])
def test_vmap_over_points(backend, batched_points):
    weights, biases = stacked()
    x = points(3, G, N) if batched_points else points(3, N)
    found = torch.func.vmap(lambda x: F.siren(x, weights, biases, omegas=OMEGAS))(x)
    wanted = torch.stack([F.siren(point, weights, biases, omegas=OMEGAS) for point in x])
    assert oracle.relative_error(found, wanted) <= 1e-12


def test_batched_cotangents(backend):
    weights, biases = stacked()
    (x,) = oracle.tracked(points(G, N))
    y = F.siren(x, weights, biases, omegas=OMEGAS)
    bars = oracle.normal(5, *y.shape, seed=9)
    (found,) = torch.autograd.grad(y, x, bars, is_grads_batched=True, retain_graph=True)
    wanted = torch.stack([torch.autograd.grad(y, x, bar, retain_graph=True)[0] for bar in bars])
    assert oracle.relative_error(found, wanted) <= 1e-12


def test_fused_losses_of_a_module(backend):
    net, x, target = Stacked(), points(N), oracle.normal(G, N, 2, seed=3)
    loss = fastsiren.losses.value_mse(net, x, target)
    wanted = (F.siren(x, list(net.weights), list(net.biases), omegas=OMEGAS) - target).square().mean()
    assert oracle.relative_error(loss, wanted) <= 1e-12


def test_rendering_refuses_many_networks():
    with pytest.raises(ValueError, match="net: got many networks"):
        fastsiren.render(Stacked(), fastsiren.grids.Grid.over((4, 5, 6)), progress=False)
