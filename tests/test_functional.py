"""The stateless functions: shapes, missing parts, losses, modes of torch, and what they refuse."""

import copy

import pytest
import torch
from torch import Tensor

import op_cases
import oracle
from fastsiren import functional
from oracle import Net

NET = op_cases.network()
OPTIONS = {"omegas": NET.omegas}
PARAMS = NET.weights, NET.biases


def assert_same(found: Tensor, expected: Tensor, bound: float = 1e-12) -> None:
    assert found.shape == expected.shape
    assert oracle.relative_error(found, expected) <= bound or not expected.numel()


@pytest.mark.parametrize("leading", [(), (4,), (1,), (0,), (2, 3), (2, 0, 3), (2, 1, 3, 2)], ids=str)
def test_any_leading_shape(leading, backend):
    x = oracle.uniform(*leading, 2).requires_grad_()
    rows = x.reshape(-1, 2)
    V, M, E = (t[0] for t in (*op_cases.operands("jet_fwd", NET, 1, per_point=True)[1:], torch.eye(2)[None].double()))
    jet, adjoint = functional.jet(x, *PARAMS, V, M, **OPTIONS), functional.adjoint(x, *PARAMS, E, **OPTIONS)
    sandwich = functional.sandwich(x, *PARAMS, V, E, **OPTIONS)
    found = [functional.siren(x, *PARAMS, **OPTIONS), *jet, *adjoint, *sandwich]
    expected = [oracle.value(NET, rows)]
    if len(rows):
        for made in (oracle.jet(NET, rows, V, M), oracle.adjoint(NET, rows, E), oracle.sandwich(NET, rows, V, E)):
            expected += made
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b.reshape(*leading, *b.shape[1:]))
    cores = [(2,), (2,), (2, 2), (1, 2), (2,), (2, 2), (2,), (2, 2), (2, 2, 2)]
    assert [t.shape for t in found] == [(*leading, *core) for core in cores]
    assert all(t.is_contiguous() for t in found)
    (slope,) = torch.autograd.grad(sum(t.sum() for t in found), x)
    assert slope.shape == x.shape and slope.isfinite().all()


def test_no_points_have_zero_gradients(backend):
    params = [p.clone().requires_grad_() for p in NET.parameters()]
    y = functional.siren(torch.zeros(0, 2).double(), params[:3], params[3:], **OPTIONS)
    y.sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in params)


@pytest.mark.parametrize(
    "lead", [(), (3,), (2, 3), (1, 3), (2, 1)], ids=["shared", "(3)", "(2, 3)", "(1, 3)", "(2, 1)"]
)
def test_seeds_broadcast(lead, backend):
    x = oracle.uniform(2, 3, 2)
    V, E = oracle.normal(*lead, 2, 2, seed=1).requires_grad_(), oracle.normal(*lead, 1, 2, seed=2)
    M = oracle.normal(*lead, 1, 2, 2, seed=3)
    M = M + M.mT
    full = [t.expand(2, 3, *t.shape[len(lead) :]).flatten(0, 1) for t in (V, M, E)]
    jet = functional.jet(x, *PARAMS, V, M, **OPTIONS)
    expected = oracle.jet(NET, x.flatten(0, 1), *full[:2])
    for a, b in zip(jet, expected, strict=True):
        assert_same(a.flatten(0, 1), b)
    sandwich = functional.sandwich(x, *PARAMS, V, E, **OPTIONS)
    for a, b in zip(sandwich, oracle.sandwich(NET, x.flatten(0, 1), full[0], full[2]), strict=True):
        assert_same(a.flatten(0, 1), b)
    slopes = [torch.autograd.grad(t.sin().sum(), V)[0] for t in (jet.second, expected[2])]
    assert_same(*slopes)


def test_forms_need_not_be_symmetric(backend):
    x, V, M = op_cases.operands("jet_fwd", NET, 4)
    skew = M + torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]).double()
    assert_same(functional.jet(x, *PARAMS, V, skew, **OPTIONS).second, oracle.jet(NET, x, V, M)[2])


@pytest.mark.parametrize("name", ["directions", "forms", "combinations"])
def test_none_of_a_seed(name, backend):
    x = oracle.points(NET, 3)
    V, E = torch.zeros(0 if name == "directions" else 2, 2).double(), torch.zeros(0, 2).double()
    jet = functional.jet(x, *PARAMS, V, None, **OPTIONS)
    assert jet.first.shape == (3, len(V), 2) and jet.second.shape == (3, 0, 2)
    assert_same(jet.value, oracle.value(NET, x))
    if name == "combinations":
        assert functional.sandwich(x, *PARAMS, V, E, **OPTIONS).hessian.shape == (3, 0, 2, 2)
        assert functional.adjoint(x, *PARAMS, E, **OPTIONS).jacobian.shape == (3, 0, 2)


def test_seeds_left_out_are_all_axes_and_outputs(backend):
    x = oracle.points(NET, 3)
    assert_same(functional.adjoint(x, *PARAMS, **OPTIONS).jacobian, oracle.jacobian(NET, x))
    assert_same(functional.sandwich(x, *PARAMS, **OPTIONS).hessian, oracle.hessian(NET, x))


@pytest.mark.parametrize("biases", [None, [None, NET.biases[1], None]], ids=["none", "some"])
def test_missing_biases_are_zeros(biases, backend):
    filled = [torch.zeros_like(b) if biases is None or biases[i] is None else b for i, b in enumerate(NET.biases)]
    x = oracle.points(NET, 3)
    assert_same(
        functional.siren(x, NET.weights, biases, **OPTIONS), oracle.value(Net(NET.weights, filled, NET.omegas), x)
    )


def test_last_layer_a_sine(backend):
    x, omegas = oracle.points(NET, 4).requires_grad_(), [*NET.omegas, 0.7]
    y = functional.siren(x, *PARAMS, omegas=omegas, outermost_linear=False)
    expected = (0.7 * oracle.value(NET, x)).sin()
    assert_same(y, expected)
    assert_same(*(torch.autograd.grad(t.sum(), x)[0] for t in (y, expected)))
    J = functional.adjoint(x, *PARAMS, omegas=omegas, outermost_linear=False).jacobian
    columns = [torch.autograd.grad((0.7 * oracle.value(NET, x)).sin()[:, o].sum(), x)[0] for o in range(2)]
    assert_same(J, torch.stack(columns, 1))


# Losses


def plain_loss(kind: str, net: Net, x: Tensor, target: Tensor | None, weight: Tensor | None, reduction: str) -> Tensor:
    if kind == "value":
        terms = (oracle.value(net, x) - target).square()
    elif kind == "laplacian":
        terms = (oracle.hessian(net, x).diagonal(dim1=-2, dim2=-1).sum(-1) - target).square()
    else:
        J = oracle.jacobian(net, x)
        terms = (J.norm(dim=-1) - 1).square() if target is None else (J - target).square().sum(-1)
    terms = terms if weight is None else terms * weight[:, None]
    return terms.mean() if reduction == "mean" else terms.sum()


KINDS = ["value", "gradient", "laplacian", "eikonal"]


def loss_arguments(kind: str, rows: int = 5) -> tuple[Tensor, Tensor | None, Tensor]:
    target = None if kind == "eikonal" else oracle.normal(rows, 2, *([2] if kind == "gradient" else []), seed=3)
    return oracle.points(NET, rows), target, oracle.uniform(rows, seed=4).abs()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("differentiated", ["parameters", "points too", "target and weight too"])
def test_losses(differentiated, kind, weighted, reduction, backend):
    """To second order, whoever else is differentiated."""
    results = []
    for ours in (True, False):
        net = NET.tracked()
        x, target, weight = loss_arguments(kind)
        leaves = net.parameters()
        if differentiated == "points too":
            leaves.append(x.requires_grad_())
        elif differentiated != "parameters":
            leaves += [t.requires_grad_() for t in (target, weight if weighted else None) if t is not None]
        given = weight if weighted else None
        if ours:
            options = {"omegas": net.omegas, "weight": given, "reduction": reduction}
            loss = functional.loss(kind, x, target, net.weights, net.biases, **options)
        else:
            loss = plain_loss(kind, net, x, target, given, reduction)
        options = {"allow_unused": True, "materialize_grads": True}
        first = torch.autograd.grad(loss.sin(), leaves, create_graph=True, **options)
        second = torch.autograd.grad(sum(g.sin().sum() for g in first), leaves, **options)
        results.append([loss, *first, *second])
    for a, b in zip(*results, strict=True):
        assert oracle.relative_error(a.detach(), b.detach()) <= 1e-10 or not (a.any() or b.any())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_over_no_points(reduction, kind, backend):
    """As in torch: a mean is NaN, a sum is 0, and gradients of parameters are zeros."""
    for differentiated in (False, True):
        net, (x, target, _) = NET.tracked(), loss_arguments(kind, 0)
        options = {"omegas": net.omegas, "reduction": reduction}
        loss = functional.loss(kind, x.requires_grad_(differentiated), target, net.weights, net.biases, **options)
        assert loss.isnan() if reduction == "mean" else loss == 0
        slopes = torch.autograd.grad(loss, net.parameters(), materialize_grads=True)
        assert all(torch.equal(slope, torch.zeros_like(slope)) for slope in slopes)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_any_leading_shape(kind, backend):
    x, target, weight = loss_arguments(kind, 6)
    shaped = [None if t is None else t.reshape(2, 3, *t.shape[1:]) for t in (x, target, weight)]
    losses = [functional.loss(kind, x, t, *PARAMS, weight=w, **OPTIONS) for x, t, w in (shaped, (x, target, weight))]
    assert torch.equal(*losses)


def test_losses_record_nothing_without_gradients(backend):
    x, target, _ = loss_arguments("value")
    net = NET.tracked()
    with torch.no_grad():
        assert not functional.loss("value", x, target, net.weights, net.biases, **OPTIONS).requires_grad


# Modes of torch


def test_inference_mode(backend):
    x = oracle.points(NET, 4)
    with torch.inference_mode():
        assert_same(functional.siren(x, *PARAMS, **OPTIONS), oracle.value(NET, x))


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing_but_x(given, backend):
    net = NET.to(torch.float32)
    x = oracle.points(net, 4).to(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = functional.jet(x, net.weights, net.biases, torch.eye(2), torch.eye(2)[None], **OPTIONS)
        looked = torch.func.vmap(lambda p: functional.siren(p, net.weights, net.biases, **OPTIONS))(x)
    expected = oracle.jet(net.double(), x.double(), torch.eye(2).double(), torch.eye(2).double()[None])
    for a, b in zip([looked, *found], [expected[0], *expected], strict=True):
        assert a.dtype == torch.float32
        assert oracle.relative_error(a, b) <= 1e-5


def test_meta_tensors_give_shapes():
    net = Net([w.to("meta") for w in NET.weights], [b.to("meta") for b in NET.biases], NET.omegas)
    y = functional.siren(torch.zeros(4, 2, device="meta").double().requires_grad_(), net.weights, net.biases, **OPTIONS)
    assert y.device.type == "meta" and y.shape == (4, 2)
    y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parameters_take_the_reference(dtype):
    net = NET.to(dtype)
    y = functional.siren(oracle.points(net, 4), net.weights, net.biases, **OPTIONS)
    assert y.dtype == dtype
    assert oracle.relative_error(y, oracle.value(net.double(), oracle.points(net, 4).double())) <= 0.05


def test_saved_tensors_may_be_moved_away(backend):
    net, x = NET.tracked(), oracle.points(NET, 4).requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        y = functional.siren(x, net.weights, net.biases, **OPTIONS)
    y.sin().sum().backward()
    (expected,) = torch.autograd.grad(oracle.value(net, x).sin().sum(), x)
    assert_same(x.grad, expected)


def test_arguments_are_not_changed(backend):
    weights, omegas = copy.copy(NET.weights), copy.copy(NET.omegas)
    functional.siren(oracle.points(NET, 4), weights, [None] * 3, omegas=[*omegas, 1.0], outermost_linear=False)
    assert [id(w) for w in weights] == [id(w) for w in NET.weights] and omegas == NET.omegas
