"""Many networks at once: parameters with an axis of networks in front, against one network after the other."""

import functools
from importlib import import_module

import pytest
import torch
from torch import Tensor

import fastsiren
import oracle
from fastsiren import functional as F
from fastsiren.engine import backends
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


SHARED = {"none": [], "weight": [1], "first and last": [0, 2], "all weights": [0, 1, 2]}


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
@pytest.mark.parametrize("reduction", ["mean", "sum", "per_network"])
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
            assert loss.shape == ((G,) if reduction == "per_network" else ())
        else:
            losses = [
                F.loss(
                    kind, x[g], None if target is None else target[g], one(w, 2, g), one(b, 1, g), omegas=OMEGAS,
                    weight=weight[g], reduction=reduction,
                )
                for g in range(G)
            ]  # fmt: skip
            loss = torch.stack(losses)
            loss = loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
        # Another factor for each network, so that gradients of shared parameters are no plain sum.
        bar = oracle.normal(*loss.shape, seed=5)
        found.append([loss.detach(), *torch.autograd.grad(loss, params, bar)])
    for ours, wanted in zip(*found, strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-11


@pytest.mark.parametrize("kind", ["value", "gradient", "laplacian", "eikonal"])
def test_points_that_all_share_are_not_copied(backend, kind, parameters, monkeypatch):
    weights, biases = parameters
    shape = {"gradient": (G, N, 2, 3), "eikonal": None}.get(kind, (G, N, 2))
    target = None if shape is None else oracle.normal(*shape, seed=3)
    x, seen = points(N), []
    loss_fwd = backends.module(backend).loss_fwd
    monkeypatch.setattr(
        backends.module(backend),
        "loss_fwd",
        lambda kind, x, *rest, **o: seen.append(x) or loss_fwd(kind, x, *rest, **o),
    )
    found = []
    for given in (x, x.expand(G, N, 3).contiguous()):
        params = oracle.tracked(*weights, *biases)
        loss = F.loss(kind, given, target, params[:3], params[3:], omegas=OMEGAS)
        found.append([loss.detach(), *torch.autograd.grad(loss, params)])
    assert seen[0].data_ptr() == x.data_ptr()
    for shared, own in zip(*found, strict=True):
        assert torch.equal(shared, own)


def test_losses_to_second_order(backend, parameters):
    weights, biases = parameters
    x, target, found = points(N), oracle.normal(G, N, 2, seed=3), []
    for fused in (True, False):
        params = oracle.tracked(*weights, *biases)
        if fused:
            losses = F.loss("value", x, target, params[:3], params[3:], omegas=OMEGAS, reduction="per_network")
        else:
            y = F.siren(x, params[:3], params[3:], omegas=OMEGAS)
            losses = (y - target).square().mean((1, 2))
        grads = torch.autograd.grad(losses.square().sum(), params, create_graph=True)
        found.append([*grads, *torch.autograd.grad(sum(g.square().sum() for g in grads), params)])
    for ours, wanted in zip(*found, strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-10


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


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("inner", ["one network", "many networks", "some shared"])
def test_vmap_over_networks(backend, name, inner):
    function, seeds = CALLS[name]
    layers = [stacked(count=3)] if inner == "one network" else [stacked(count=G), stacked(count=G)]
    if inner == "one network":
        (weights, biases), x = layers[0], points(N)
    else:
        weights, biases = ([torch.stack([p, p.cos() / 3]) for p in group] for group in layers[0])
        x = points(G, N)
    dims = [0] * 6
    if inner == "some shared":
        # One by the elements of the batch, one by the networks of an element, one by both.
        weights[0], weights[1], biases[2] = weights[0][0], weights[1][:, 0], biases[2][0, 0]
        dims = [None, 0, 0, 0, 0, None]

    def total(*params: Tensor) -> Tensor:
        out = function(x, params[:3], params[3:], *seeds, omegas=OMEGAS)
        out = [out] if isinstance(out, Tensor) else out
        return sum((o * o.cos()).sum() for o in out)

    params = [*weights, *biases]
    value_and_gradients = torch.func.grad_and_value(total, argnums=tuple(range(6)))
    found, values = torch.func.vmap(value_and_gradients, tuple(dims))(*params)
    for i in range(len(values)):
        wanted, value = value_and_gradients(*(p if d is None else p[i] for p, d in zip(params, dims)))
        assert oracle.relative_error(values[i], value) <= 1e-12
        for ours, theirs in zip(found, wanted, strict=True):
            assert oracle.relative_error(ours[i], theirs) <= 1e-12


def test_vmap_over_networks_is_one_call(monkeypatch):
    net, calls = import_module("fastsiren.engine.cpp_net").Net, []
    call = net.call
    monkeypatch.setattr(net, "call", lambda net, name, *rest: calls.append(name) or call(net, name, *rest))
    weights, biases = stacked()
    x, target = points(N), points(G, N)[..., :2]
    torch.func.vmap(lambda w, b: F.siren(x, w, b, omegas=OMEGAS))(weights, biases)
    F.siren(x, weights, biases, omegas=OMEGAS)
    F.loss("value", x, target, weights, biases, omegas=OMEGAS)
    assert calls == ["jet_fwd", "jet_fwd", "jet_bwd"]
