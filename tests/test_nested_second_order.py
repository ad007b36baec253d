"""Second derivatives by nested torch.autograd.grad, as existing code writes them: one Hessian serves all of them."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import fastsiren
import oracle
from clients import plain
from fastsiren.engine import ops

INPUTS = [1, 2, 3, 4, 5]


def network(inputs, outputs=2):
    torch.manual_seed(5)
    return fastsiren.Siren(inputs, 10, 2, outputs, first_omega_0=12.0, hidden_omega_0=12.0, dtype=torch.float64)


def layers(net, x):
    """The network in plain torch."""
    for layer in net.net[:-1]:
        x = torch.sin(layer.omega_0 * torch.nn.functional.linear(x, layer.linear.weight, layer.linear.bias))
    return torch.nn.functional.linear(x, net.net[-1].weight, net.net[-1].bias)


@pytest.fixture
def passes(monkeypatch):
    """Names of the passes that ran."""
    names, original = [], ops._run

    def run(which, *args):
        names.append(which.name)
        return original(which, *args)

    monkeypatch.setattr(ops, "_run", run)
    return names


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert oracle.relative_error(ours, theirs) <= 1e-10


@pytest.mark.parametrize("inputs", INPUTS)
def test_laplacian_in_one_hessian(inputs, passes):
    net, x = network(inputs), oracle.uniform(6, inputs).requires_grad_()
    found = []
    for y in (net(x), layers(net, x)):
        laplacian = plain.laplace(y, x)
        grads = torch.autograd.grad(laplacian.square().sum(), [x, *list(net.parameters())[:-1]])
        found.append([laplacian, *grads])
    assert_equal(*found)
    if inputs <= 4:
        assert passes == ["value_fwd", "value_bwd", "sandwich_fwd", "sandwich_bwd"]
    else:
        assert passes.count("value_bwdbwd") == inputs


@pytest.mark.parametrize("inputs", INPUTS)
def test_products_with_any_vector(inputs):
    """Vectors and cotangents that require gradients, and derivatives in them."""
    net, x = network(inputs), oracle.uniform(6, inputs).requires_grad_()
    v, y_bar = (oracle.normal(6, width, seed=3 + width).requires_grad_() for width in (inputs, 2))
    found = []
    for y in (net(x), layers(net, x)):
        slope = plain.gradient(y, x, y_bar)
        (product,) = torch.autograd.grad(slope, x, v, create_graph=True)
        wanted = [x, v, y_bar, *list(net.parameters())[:-1]]
        found.append([product, *torch.autograd.grad(product.square().sum(), wanted)])
    assert_equal(*found)


def test_networks_with_an_axis():
    params = [oracle.normal(3, 8, 2), oracle.normal(3, 2, 8, seed=1)]
    weights = oracle.tracked(*params)
    x = oracle.uniform(3, 5, 2).requires_grad_()
    found = []
    for run in (
        lambda: fastsiren.functional.siren(x, weights, None, omegas=[3.0]),
        lambda: torch.sin(3.0 * x @ weights[0].mT) @ weights[1].mT,
    ):
        laplacian = plain.laplace(run(), x)
        found.append([laplacian, *torch.autograd.grad(laplacian.square().sum(), [x, *weights])])
    assert_equal(*found)


def test_results_without_a_graph_are_not_taken_for_ones_with_it(passes):
    net, x = network(2), oracle.uniform(6, 2).requires_grad_()
    slope = plain.gradient(net(x), x)
    (bare,) = torch.autograd.grad(slope[:, 0].sum(), x, retain_graph=True)
    (curve,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
    assert not bare.requires_grad and curve.requires_grad and torch.equal(bare, curve)
    assert passes.count("sandwich_fwd") == 2
    assert len(torch.autograd.grad(curve.square().sum(), list(net.parameters())[:-1])) == 7


def test_a_graph_that_was_freed_is_made_again(passes):
    net, x = network(2), oracle.uniform(6, 2).requires_grad_()
    slope = plain.gradient(net(x), x)
    for count in (1, 2):
        curve = plain.gradient(slope[:, 0], x)
        torch.autograd.grad(curve.square().sum(), net.net[0].linear.weight)
        assert passes.count("sandwich_fwd") == count


def test_a_network_changed_since_is_an_error():
    net, x = network(2), oracle.uniform(6, 2).requires_grad_()
    slope = plain.gradient(net(x), x)
    plain.gradient(slope[:, 0], x)
    with torch.no_grad():
        net.net[1].linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        plain.gradient(slope[:, 1], x)


@pytest.mark.parametrize("reentrant", [True, False])
def test_inside_a_checkpoint(reentrant):
    net, x = network(2), oracle.uniform(6, 2).requires_grad_()

    def residual(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.requires_grad_()
            return plain.laplace(net(x), x).square().sum()

    found = []
    for loss in (residual(x), checkpoint(residual, x, use_reentrant=reentrant)):
        net.zero_grad()
        loss.backward()
        found.append([loss, *(p.grad.clone() for p in list(net.parameters())[:-1])])
    assert_equal(*found)


def test_several_cotangents_at_once():
    net, x = network(2), oracle.uniform(6, 2).requires_grad_()
    found = []
    for y in (net(x), layers(net, x)):
        slope = plain.gradient(y, x)
        vectors = oracle.normal(3, 6, 2, seed=4)
        found.append(torch.autograd.grad(slope, x, vectors, is_grads_batched=True, retain_graph=True))
        found[-1] += (plain.gradient(slope[:, 0], x),)
    assert_equal(*found)
