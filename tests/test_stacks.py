"""Networks put together and taken apart: the same numbers, training as one after another, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import fastsiren
import oracle
from fastsiren import functional as F
from fastsiren.functional import stack, unstack


def networks(count: int = 3, **options) -> list[fastsiren.Siren]:
    return [fastsiren.Siren(2, 8, 1, 3, dtype=torch.float64, **options) for _ in range(count)]


def parameters(nets: list[fastsiren.Siren]) -> list[torch.Tensor]:
    return [p.detach().clone() for net in nets for p in net.parameters()]


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"outermost_linear": False, "hidden_omega_0": 20.0}], ids=str)
def test_the_same_numbers(options, backend):
    nets, x = networks(**options), oracle.uniform(7, 2)
    every = stack(nets)
    y = F.siren(x, *every[:2], omegas=every.omegas, outermost_linear=every.outermost_linear)
    assert y.shape == (3, 7, 3)
    for i, net in enumerate(nets):
        assert oracle.relative_error(y[i], net(x)) <= 1e-14
    assert torch.equal(fastsiren.laplacian(every, x).value, y)


def test_training_is_that_of_one_after_another(backend):
    together = networks()
    alone = copy.deepcopy(together)
    x, images = oracle.uniform(11, 2), oracle.uniform(3, 11, 3, seed=1)
    every = stack(together)
    optimizer = torch.optim.Adam([*every.weights, *every.biases], lr=1e-3)
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in alone]
    for _ in range(5):
        optimizer.zero_grad()
        losses = fastsiren.losses.value_mse(every, x, images, reduction="per_network")
        losses.sum().backward()
        optimizer.step()
        for net, image, own, loss in zip(alone, images, optimizers, losses, strict=True):
            own.zero_grad()
            single = fastsiren.losses.value_mse(net, x, image)
            single.backward()
            own.step()
            assert oracle.relative_error(loss, single) <= 1e-12
    unstack(every, together)
    for ours, wanted in zip(parameters(together), parameters(alone), strict=True):
        assert oracle.relative_error(ours, wanted) <= 1e-11


@pytest.mark.parametrize("bias", [True, False])
def test_back_again(bias):
    nets = networks(bias=bias)
    before = parameters(nets)
    every = stack(nets)
    with torch.no_grad():
        for tensor in every.weights:
            tensor.add_(1)
    assert all(torch.equal(a, b) for a, b in zip(parameters(nets), before, strict=True)), "stack shares memory"
    unstack(every, nets)
    changed = [p + 1 if p.ndim == 2 else p for p in before]
    assert all(torch.equal(a, b) for a, b in zip(parameters(nets), changed, strict=True))
    assert all(p.requires_grad for net in nets for p in net.parameters())


def test_frozen_networks_stay_frozen():
    nets = networks()
    for net in nets:
        net.net[0].linear.weight.requires_grad_(False)
    assert [w.requires_grad for w in stack(nets).weights] == [False, True, True]


def with_norm() -> fastsiren.Siren:
    net = networks(1)[0]
    nn.utils.parametrizations.weight_norm(net.net[0].linear)
    return net


def test_computed_parameters():
    nets = [with_norm(), with_norm()]
    every, x = stack(nets), oracle.uniform(5, 2)
    y = F.siren(x, *every[:2], omegas=every.omegas)
    assert oracle.relative_error(y[1], nets[1](x)) <= 1e-14
    unstack(every, nets)
    with torch.no_grad():
        every.weights[0].mul_(2)
    with pytest.raises(ValueError, match=r"nets\[0\]: computes its parameters"):
        unstack(every, nets)


@pytest.mark.parametrize(
    ("others", "error", "words"),
    [
        ([], ValueError, "nets: got none"),
        ([nn.Linear(2, 3)], TypeError, r"nets\[1\]: got a module Linear"),
        ([fastsiren.Siren(2, 9, 1, 3, dtype=torch.float64)], ValueError, r"nets\[1\]: weights\[0\] is .*\(9, 2\)"),
        ([fastsiren.Siren(2, 8, 2, 3, dtype=torch.float64)], ValueError, r"nets\[1\]: has omegas"),
        (networks(1, first_omega_0=20.0), ValueError, r"nets\[1\]: has omegas \[20.0, 30.0\]"),
        (networks(1, precision="tf32"), ValueError, r"nets\[1\]: has precision tf32"),
        ([fastsiren.Siren(2, 8, 1, 3)], ValueError, r"nets\[1\]: weights\[0\] is .*float32"),
        ([stack(networks(2))], ValueError, r"nets\[1\]: has an axis of networks"),
    ],
)
def test_what_does_not_stack(others, error, words):
    with pytest.raises(error, match=words):
        stack([*networks(1), *others] if others else [])


def test_what_does_not_unstack():
    nets = networks()
    every = stack(nets)
    with pytest.raises(ValueError, match="nets: got 2, expected 3"):
        unstack(every, nets[:2])
    with pytest.raises(ValueError, match=r"nets\[2\]: weights\[0\]"):
        unstack(every, [*nets[:2], fastsiren.Siren(2, 9, 1, 3, dtype=torch.float64)])
    with pytest.raises(ValueError, match="stacked: got one network"):
        unstack(nets[0], nets[:1])
