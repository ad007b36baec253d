"""Conditioned networks against the formula itself, in float64: values, derivatives, losses, grids and inner loops."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import fastsiren
import oracle
from fastsiren.modulation import Conditioned, modulated

OMEGAS = [20.0, -7.0]
WIDTHS = (2, 5, 4, 3)
G, N = 3, 6
KINDS = ("frequency", "scale", "shift", "phase", "gain")


def parameters(networks=None):
    """Weights and biases, some of them per network."""
    weights = [oracle.normal(n_out, n_in, seed=i) / n_in for i, (n_in, n_out) in enumerate(pairwise(WIDTHS))]
    biases = [oracle.normal(n_out, seed=10 + i) for i, n_out in enumerate(WIDTHS[1:])]
    if networks:
        weights[1] = weights[1] + 0.1 * oracle.normal(networks, *weights[1].shape, seed=20)
    return oracle.tracked(*weights), oracle.tracked(*biases)


def modulations(kinds=KINDS, networks=None, wide=True):
    """One tensor per sine layer and kind, of the layer's width or of one number."""
    leading = () if networks is None else (networks,)
    return {
        kind: oracle.tracked(
            *(
                (omega if kind == "frequency" else 1)
                * (1 + 0.3 * oracle.normal(*leading, width if wide else 1, seed=30 + 7 * KINDS.index(kind) + l))
                for l, (width, omega) in enumerate(zip(WIDTHS[1:], OMEGAS))
            )
        )
        for kind in kinds
    }


def formula(x, weights, biases, omegas, frequency=None, scale=None, shift=None, phase=None, gain=None):
    """m sin(alpha (s (W h + b) + t) + phi), with an axis of networks in front of x where there is one."""
    h = x
    for l, (W, b) in enumerate(zip(weights, biases, strict=True)):
        h = h @ W.mT + (b if b.ndim == 1 else b.unsqueeze(-2))
        if l == len(omegas):
            break
        given = [None if kind is None else kind[l] for kind in (frequency, scale, shift, phase, gain)]
        per_point = [k if k is None or k.ndim < 2 else k.unsqueeze(-2) for k in given]
        defaults = (omegas[l], 1, 0, 0, 1)
        alpha, s, t, phi, m = (default if k is None else k for k, default in zip(per_point, defaults))
        h = m * torch.sin(alpha * (s * h + t) + phi)
    return h


def flat(mods):
    return [tensor for kind in mods.values() for tensor in kind]


def assert_equal(found, expected, tolerance=1e-10):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert oracle.relative_error(ours, theirs) <= tolerance or theirs.abs().max() == 0 == ours.abs().max()


@pytest.mark.parametrize("wide", [True, False], ids=["per neuron", "per layer"])
@pytest.mark.parametrize("networks", [None, G])
@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids="+".join)
def test_conditioned_network_is_the_modulated_one(kinds, networks, wide):
    found = []
    for fold in (True, False):
        weights, biases = parameters(networks)
        mods = modulations(kinds, networks, wide)
        x = oracle.uniform(*([networks] if networks else []), N, 2).requires_grad_()
        leaves = [x, *weights, *biases, *flat(mods)]
        if fold:
            net = modulated(Conditioned(weights, biases, OMEGAS), **mods)
            y = fastsiren.functional.siren(x, net.weights, net.biases, omegas=net.omegas)
        else:
            y = formula(x, weights, biases, OMEGAS, **mods)
        first = oracle.gradients([y], [oracle.normal(*y.shape, seed=50)], leaves)
        bars = [oracle.normal(*g.shape, seed=60 + i) for i, g in enumerate(first)]
        found.append([y, *first, *oracle.gradients(first, bars, leaves)])
    assert_equal(*found)


def test_what_is_shared_and_what_is_per_network_mix():
    weights, biases = parameters()
    mods = {
        "frequency": [torch.tensor(11.0).double(), None], "scale": [oracle.normal(5), oracle.normal(G, 4)],
        "shift": [oracle.normal(G, 1), None], "gain": [None, oracle.normal(1)],
    }  # fmt: skip
    x = oracle.uniform(N, 2)
    found = fastsiren.value_and_jacobian(modulated(Conditioned(weights, biases, OMEGAS), **mods), x).value
    assert_equal([found], [formula(x, weights, biases, OMEGAS, **mods)], 1e-12)


def derivatives(y, x):
    """Jacobian and Hessian of y [G, N, O] at points x [G, N, 2] that do not see each other."""
    rows = [torch.autograd.grad(y[..., o].sum(), x, create_graph=True)[0] for o in range(y.shape[-1])]
    second = [[torch.autograd.grad(r[..., i].sum(), x, create_graph=True)[0] for i in range(2)] for r in rows]
    return torch.stack(rows, -2), torch.stack([torch.stack(pair, -2) for pair in second], -3)


def terms(jacobian, hessian):
    return jacobian, hessian, hessian.diagonal(dim1=-2, dim2=-1).sum(-1)


@pytest.mark.parametrize("shared", [True, False], ids=["shared points", "own points"])
def test_every_operator_takes_it(backend, shared):
    """Jacobian, Laplacian and Hessian, and gradients of them, also in the modulations."""
    found = []
    for fold in (True, False):
        weights, biases = parameters(G)
        mods = modulations(networks=G)
        x = oracle.uniform(*([] if shared else [G]), N, 2)
        if fold:
            net = modulated(Conditioned(weights, biases, OMEGAS), **mods)
            value, jacobian, laplacian = fastsiren.laplacian(net, x)
            assert_equal(fastsiren.value_and_jacobian(net, x), (value, jacobian), 1e-12)
            results = [value, jacobian, fastsiren.hessian(net, x).hessian, laplacian]
        else:
            at = x.expand(G, N, 2).clone().requires_grad_()
            value = formula(at, weights, biases, OMEGAS, **mods)
            results = [value, *terms(*derivatives(value, at))]
        bars = [oracle.normal(*result.shape, seed=i) for i, result in enumerate(results)]
        found.append([*results, *oracle.gradients(results, bars, [*weights, *biases, *flat(mods)])])
    assert_equal(*found)


LOSSES = {
    "value": (fastsiren.losses.value_mse, (3,), lambda y, J, lap, t: (y - t).square().mean()),
    "gradient": (fastsiren.losses.gradient_mse, (3, 2), lambda y, J, lap, t: (J - t).square().sum(-1).mean()),
    "laplacian": (fastsiren.losses.laplacian_mse, (3,), lambda y, J, lap, t: (lap - t).square().mean()),
    "eikonal": (fastsiren.losses.eikonal, None, lambda y, J, lap, t: (J.norm(dim=-1) - 1).square().mean()),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_takes_it(backend, kind):
    fused, core, plain = LOSSES[kind]
    target = None if core is None else oracle.normal(G, N, *core, seed=5)
    found = []
    for fold in (True, False):
        weights, biases = parameters()
        mods = modulations(networks=G)
        x = oracle.uniform(G, N, 2)
        if fold:
            net = modulated(Conditioned(weights, biases, OMEGAS), **mods)
            loss = fused(net, x) if target is None else fused(net, x, target)
        else:
            at = x.clone().requires_grad_()
            y = formula(at, weights, biases, OMEGAS, **mods)
            jacobian, _, laplacian = terms(*derivatives(y, at))
            loss = plain(y, jacobian, laplacian, target)
        leaves = [*weights, *biases, *flat(mods)]
        found.append([loss, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)])
    assert_equal(*found)


@pytest.mark.parametrize("quantity", ["value", "gradient", "laplacian"])
def test_each_network_decodes_grids(backend, quantity):
    weights, biases = parameters(G)
    mods = modulations(networks=G)
    net, grid = modulated(Conditioned(weights, biases, OMEGAS), **mods), fastsiren.grids.Grid.over((4, 3))
    pictures = [fastsiren.render(one, grid, quantity=quantity, progress=False) for one in net.networks()]
    at = grid.coordinates(dtype=torch.float64).reshape(-1, 2).expand(G, 12, 2).clone().requires_grad_()
    value = formula(at, weights, biases, OMEGAS, **mods)
    jacobian, _, laplacian = terms(*derivatives(value, at))
    expected = {"value": value, "gradient": jacobian, "laplacian": laplacian}[quantity]
    assert_equal([torch.stack(pictures).reshape(expected.shape)], [expected.detach()])
    alone = modulated(Conditioned(*parameters(), OMEGAS))
    assert alone.networks() == [alone]


def test_parameters_that_nothing_concerns_stay_as_they_are():
    weights, biases = parameters()
    shift = [None, torch.ones(3, 4, dtype=torch.float64)]
    net = modulated(Conditioned(weights, [biases[0], None, biases[2]], OMEGAS, precision="fp32"), shift=shift)
    assert all(a is b for a, b in zip(net.weights, weights, strict=True))
    assert net.biases[0] is biases[0] and torch.equal(net.biases[1], shift[1]) and net.biases[2] is biases[2]
    assert net.precision == "fp32" and net.outermost_linear
    assert all((bias == 0).all() for bias in Conditioned(weights, None, OMEGAS).biases)


@pytest.mark.parametrize("kinds", [("phase",), KINDS], ids="+".join)
@pytest.mark.parametrize("networks", [None, G])
def test_a_sine_layer_may_come_last(kinds, networks):
    weights, biases = (group[:2] for group in parameters())
    mods = modulations(kinds, networks)
    x = oracle.uniform(*([networks] if networks else []), N, 2)
    mods = {kind: entries[:2] for kind, entries in mods.items()}
    net = modulated(Conditioned(weights, biases, OMEGAS, outermost_linear=False), **mods)
    found = fastsiren.value_and_jacobian(net, x).value
    assert_equal([found], [formula(x, weights, biases, OMEGAS, **mods)], 1e-12)


def adapt(evaluate, params, x, target, *, remember=True, reentrant=True):
    """Parameters after three steps of gradient descent that can be derived, as in MAML, in a checkpoint or not."""

    def step(*now):
        # A checkpoint of the older kind runs this without gradients first.
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            loss = (evaluate(x, *now) - target).square().sum((-1, -2)).mean()
            grads = torch.autograd.grad(loss, now, create_graph=create_graph)
        return tuple(p - 1e-4 * g for p, g in zip(now, grads, strict=True))

    for _ in range(3):
        params = step(*params) if remember else checkpoint(step, *params, use_reentrant=reentrant)
    return params


def through_operator(kinds, x, *params):
    net = Conditioned(params[:3], params[3:6], OMEGAS)
    mods = {kind: params[6 + 2 * k : 8 + 2 * k] for k, kind in enumerate(kinds)}
    return fastsiren.value_and_jacobian(modulated(net, **mods), x).value


def through_siren(kinds, x, *params):
    net = Conditioned(params[:3], params[3:6], OMEGAS)
    net = modulated(net, **{kind: params[6 + 2 * k : 8 + 2 * k] for k, kind in enumerate(kinds)})
    return fastsiren.functional.siren(x, net.weights, net.biases, omegas=net.omegas)


def through_formula(kinds, x, *params):
    mods = {kind: params[6 + 2 * k : 8 + 2 * k] for k, kind in enumerate(kinds)}
    return formula(x, params[:3], params[3:6], OMEGAS, **mods)


WAYS = {
    "kept": {}, "checkpoint, reentrant": {"remember": False},
    "checkpoint": {"remember": False, "reentrant": False},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("evaluate", [through_siren, through_operator])
@pytest.mark.parametrize("inner", ["modulations", "weights", "both"])
def test_inner_loops_have_the_meta_gradients_of_plain_torch(backend, inner, evaluate, way):
    x, target = oracle.uniform(G, N, 2), oracle.normal(G, N, 3, seed=1)
    found = []
    for run, how in ((partial(evaluate, KINDS), way), (partial(through_formula, KINDS), {})):
        weights, biases = parameters()
        mods = flat(modulations(networks=G))
        meta = [*weights, *biases, *mods]
        own = [p.expand(G, *p.shape) for p in meta[:6]] if inner != "modulations" else []
        fast = [*own, *(mods if inner != "weights" else [])]

        def full(now, own=own, meta=meta):
            return [*(now[:6] if own else meta[:6]), *(now[len(own) :] or meta[6:])]

        adapted = adapt(lambda x, *now, run=run, full=full: run(x, *full(now)), fast, x, target, **how)
        outer = (run(x, *full(adapted)) - target).square().mean()
        outer.backward()
        found.append([outer, *(p.grad for p in meta)])
    assert_equal(*found, 1e-9)


def test_under_autocast_modulations_take_the_dtype_of_the_network():
    net = fastsiren.Siren(2, 8, 1, 3)
    shift = [torch.randn(4, 8, dtype=torch.bfloat16), None]
    with torch.autocast("cpu"):
        found = modulated(net, shift=shift).biases[0]
    assert torch.equal(found, net.siren_parameters().biases[0] + shift[0].float())
    with pytest.raises(TypeError, match=r"shift\[0\]: got dtype torch.bfloat16, expected torch.float32"):
        modulated(net, shift=shift)


BAD = {
    "count": ({"scale": [None]}, ValueError, "scale: got 1 of them, expected 2, one per sine layer"),
    "width": ({"gain": [None, oracle.normal(5)]}, ValueError, r"gain\[1\]: got shape \(5,\), expected \(4,\) or"),
    "rank": ({"gain": [None, oracle.normal(3, 1, 4)]}, ValueError, r"gain\[1\]: got shape \(3, 1, 4\), expected"),
    "scalar": ({"shift": [1.0, None]}, TypeError, r"shift\[0\]: got 1.0 of type float, expected a torch.Tensor"),
    "no list": ({"shift": torch.ones(2, 5)}, TypeError, "shift: got .*expected a list of tensors"),
    "omega": ({"phase": [oracle.normal(5), None]}, ValueError, r"phase\[0\]: got one for a layer with omega 0"),
    "frequency": ({"frequency": [oracle.normal(5), None]}, ValueError, r"frequency\[0\]: got one for a layer with"),
    "networks": ({"scale": [oracle.normal(2, 5), oracle.normal(3, 4)]}, ValueError,
                 r"scale\[1\]: got shape \(3, 4\), expected an axis of 2 networks in front"),
    "dtype": ({"scale": [torch.ones(5), None]}, TypeError, r"scale\[0\]: got dtype torch.float32, expected"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "error", "match"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(given, error, match):
    with pytest.raises(error, match=match):
        modulated(Conditioned(*parameters(), [0.0, 1.0]), **given)


def test_networks_of_the_network_count():
    with pytest.raises(ValueError, match=r"shift\[0\]: got shape \(2, 5\), expected an axis of 3 networks in front"):
        modulated(Conditioned(*parameters(G), OMEGAS), shift=[oracle.normal(2, 5), None])
    with pytest.raises(TypeError, match="net: got"):
        modulated(torch.nn.Linear(2, 3))
    weights, biases = parameters()
    with pytest.raises(ValueError, match="weights, biases, omegas: got 3, 4 and 2 of them"):
        fastsiren.value_and_jacobian(Conditioned(weights, [*biases, biases[0]], OMEGAS), oracle.uniform(N, 2))
