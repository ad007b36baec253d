"""Fused losses against their equations in nested autograd: values, all gradients, weights, reductions, errors."""

import pytest
import torch
from torch import Tensor

import fastsiren
import oracle
from fastsiren import losses
from fastsiren.engine.composed_loss import REDUCTIONS

KINDS = ("value", "gradient", "laplacian", "eikonal")
FUNCTIONS = {
    "value": losses.value_mse,
    "gradient": losses.gradient_mse,
    "laplacian": losses.laplacian_mse,
    "eikonal": losses.eikonal,
}
SIZES = {"1-5x0-1": (1, 5, 0, 1), "2-16x1-1": (2, 16, 1, 1), "3-7x2-3": (3, 7, 2, 3), "4-9x1-2": (4, 9, 1, 2)}
kinds = pytest.mark.parametrize("kind", KINDS)
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


def make(sizes: tuple[int, int, int, int], dtype: torch.dtype = torch.float64, **options) -> fastsiren.Siren:
    return fastsiren.Siren(*sizes, dtype=dtype, hidden_omega_0=20.0, **options)


def target_of(kind: str, net: fastsiren.Siren, x: Tensor) -> tuple[Tensor, ...]:
    """The positional arguments after x: a target of about the size of what it is compared with, or none."""
    if kind == "eikonal":
        return ()
    leading, dtype = x.shape[:-1], x.dtype
    if kind == "gradient":
        return (10 * oracle.normal(*leading, net.out_features, net.in_features, seed=5, dtype=dtype),)
    return ((1.0 if kind == "value" else 1e3) * oracle.normal(*leading, net.out_features, seed=5, dtype=dtype),)


def exact_loss(
    kind: str, net: fastsiren.Siren, x: Tensor, target: tuple[Tensor, ...], weight: Tensor | None, reduction: str
) -> Tensor:
    """The equation of the docstring, in plain torch."""
    plain = oracle.Net(*net.siren_parameters()[:3])
    if kind == "value":
        terms = (oracle.value(plain, x) - target[0]) ** 2
    elif kind == "gradient":
        terms = ((oracle.jacobian(plain, x) - target[0]) ** 2).sum(-1)
    elif kind == "laplacian":
        terms = (oracle.hessian(plain, x).diagonal(dim1=-2, dim2=-1).sum(-1) - target[0]) ** 2
    else:
        terms = (oracle.jacobian(plain, x).norm(dim=-1) - 1) ** 2
    assert terms.shape == (len(x), net.out_features)
    if weight is not None:
        terms = weight[:, None] * terms
    return terms.sum() / (1 if reduction == "sum" else terms.numel())


@kinds
@reductions
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_loss_and_parameter_gradients(kind, reduction, weighted, sizes):
    net, x = make(sizes), oracle.uniform(7, sizes[0])
    target = target_of(kind, net, x)
    weight = oracle.normal(7, seed=2) if weighted else None
    ours = FUNCTIONS[kind](net, x, *target, weight=weight, reduction=reduction)
    exact = exact_loss(kind, net, x, target, weight, reduction)
    assert ours.shape == ()
    assert oracle.relative_error(ours, exact) <= 1e-10
    pairs = [torch.autograd.grad(3 * loss, list(net.parameters()), allow_unused=True, materialize_grads=True)
             for loss in (ours, exact)]  # fmt: skip
    for mine, right in zip(*pairs, strict=True):
        assert oracle.relative_error(mine, right) <= 1e-10


@kinds
def test_gradients_in_coordinates_target_and_weight(kind):
    net, x = make(SIZES["3-7x2-3"]), oracle.uniform(5, 3).requires_grad_()
    target = tuple(t.requires_grad_() for t in target_of(kind, net, x))
    weight = oracle.uniform(5, seed=2).requires_grad_()
    inputs = [x, *target, weight, *net.parameters()]
    pairs = [
        torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        for loss in (
            FUNCTIONS[kind](net, x, *target, weight=weight),
            exact_loss(kind, net, x, target, weight, "mean"),
        )
    ]
    for mine, right in zip(*pairs, strict=True):
        assert oracle.relative_error(mine, right) <= 1e-10


@kinds
@reductions
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (1, 1, 4)], ids=str)
def test_any_leading_shape(kind, reduction, leading):
    net, x = make(SIZES["3-7x2-3"]), oracle.uniform(*leading, 3)
    target, weight = target_of(kind, net, x), oracle.normal(*leading, seed=2)
    shaped = FUNCTIONS[kind](net, x, *target, weight=weight, reduction=reduction)
    flat = [t.reshape(-1, *t.shape[len(leading) :]) for t in (x, *target)]
    assert shaped.item() == FUNCTIONS[kind](net, *flat, weight=weight.reshape(-1), reduction=reduction).item()


@kinds
def test_the_sum_over_no_points_is_zero_with_zero_gradients(kind):
    net, x = make(SIZES["3-7x2-3"]), torch.zeros(0, 3, dtype=torch.float64)
    loss = FUNCTIONS[kind](net, x, *target_of(kind, net, x), reduction="sum")
    assert loss.item() == 0
    loss.backward()
    assert all(torch.count_nonzero(p.grad) == 0 for p in net.parameters() if p.grad is not None)


@kinds
def test_fp32_is_as_accurate_as_plain_torch(kind):
    torch.manual_seed(1)
    net = fastsiren.Siren(3, 32, 2, 2)
    exact_net = fastsiren.Siren(3, 32, 2, 2, dtype=torch.float64)
    exact_net.load_state_dict({name: tensor.double() for name, tensor in net.state_dict().items()})
    x = oracle.uniform(300, 3, dtype=torch.float32)
    target = target_of(kind, net, x)
    wide = tuple(t.double() for t in target)
    found = FUNCTIONS[kind](net, x, *target)
    plain = exact_loss(kind, net, x, target, None, "mean")
    exact = exact_loss(kind, exact_net, x.double(), wide, None, "mean")
    assert abs(found.item() - exact.item()) <= 1e-5 * exact.item()
    gradients = [
        list(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, materialize_grads=True))
        for loss, network in ((found, net), (plain, net), (exact, exact_net))
    ]
    oracle.assert_error_rule(*gradients, quantity="eikonal_weight_grad" if kind == "eikonal" else "weight_grad")


@kinds
def test_frozen_parameters_get_no_gradient(kind):
    net, x = make(SIZES["2-16x1-1"]), oracle.uniform(5, 2)
    target = target_of(kind, net, x)
    net.requires_grad_(False)
    assert not FUNCTIONS[kind](net, x, *target).requires_grad
    net.net[0].linear.weight.requires_grad_(True)
    FUNCTIONS[kind](net, x, *target).backward()
    assert net.net[0].linear.weight.grad.abs().max() > 0
    assert net.net[1].linear.weight.grad is None


def test_a_last_sine_layer_is_a_layer_of_the_loss():
    net, x = make((2, 8, 1, 2), outermost_linear=False), oracle.uniform(5, 2)
    target = oracle.normal(5, 2)
    assert oracle.relative_error(losses.value_mse(net, x, target), (net(x) - target).square().mean()) <= 1e-12
    norm = fastsiren.value_and_jacobian(net, x).jacobian.norm(dim=-1)
    assert oracle.relative_error(losses.eikonal(net, x), (norm - 1).square().mean()) <= 1e-12
