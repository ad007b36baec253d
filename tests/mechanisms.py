"""Three quantities of a network, by fastsiren and in plain torch: what every mechanism of PyTorch is tried on.

A test of a mechanism is named after its row of docs/pytorch.md and takes the columns it serves by `on`:

    @on("value", "jets")
    def test_name_of_the_row(quantity): ...

One that raises, as its row says, has the same name with `_raises` behind it.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastsiren
import oracle
from fastsiren import losses

COLUMNS = ("value", "jets", "losses")
BOUND = 1e-10


def on(*columns: str) -> Any:
    """Run a test for these columns of the table."""
    return pytest.mark.parametrize("quantity", columns)


def every(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test for all columns of the table."""
    return on(*COLUMNS)(test)


def siren(**options: Any) -> fastsiren.Siren:
    """A small network with moderate frequencies, in float64."""
    settings = {"first_omega_0": 2.0, "hidden_omega_0": 1.5, "dtype": torch.float64, **options}
    return fastsiren.Siren(2, 5, 1, 2, **settings)


def points(*shape: int) -> Tensor:
    """Coordinates [*shape, 2]."""
    return oracle.uniform(*(shape or (6,)), 2, seed=1)


# Quantities: of a network and coordinates [..., D], one tensor each.


def targets(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values and Jacobians to fit, of two outputs."""
    value = torch.stack([x.sum(-1).sin(), x.prod(-1)], -1)
    return value, torch.stack([x.cos(), x], -2)


def our_value(net: Any, x: Tensor) -> Tensor:
    return net(x)


def our_jets(net: Any, x: Tensor) -> Tensor:
    _, jacobian, laplacian = fastsiren.laplacian(net, x)
    first = fastsiren.value_and_jacobian(net, x).jacobian
    hessian = fastsiren.hessian(net, x).hessian
    return torch.cat([laplacian, *(part.flatten(x.ndim - 1) for part in (jacobian, first, hessian))], -1)


def our_losses(net: Any, x: Tensor) -> Tensor:
    value, jacobian = targets(x)
    found = (
        losses.value_mse(net, x, value),
        losses.gradient_mse(net, x, jacobian),
        losses.laplacian_mse(net, x, value),
        losses.eikonal(net, x),
    )
    return torch.stack(found)


def recurrences(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value [..., O], Jacobian [..., O, D] and Hessian [..., O, D, D], which every mechanism goes through."""
    D = x.shape[-1]
    h, t = x, torch.eye(D, dtype=x.dtype, device=x.device).expand(*x.shape, D)
    s = t.new_zeros(D, D, D)
    for layer in net.net:
        if isinstance(layer, nn.Linear):
            h, t, s = layer(h), t @ layer.weight.mT, s @ layer.weight.mT
            continue
        W, omega = layer.linear.weight, layer.omega_0
        z, p, q = omega * layer.linear(h), omega * (t @ W.mT), omega * (s @ W.mT)
        sine, cosine = z.sin(), z.cos()
        h, t = sine, cosine.unsqueeze(-2) * p
        s = cosine[..., None, None, :] * q - sine[..., None, None, :] * p.unsqueeze(-2) * p.unsqueeze(-3)
    return h, t.mT, s.movedim(-1, -3)


def plain_jets(net: Any, x: Tensor) -> Tensor:
    _, jacobian, hessian = recurrences(net, x)
    first, laplacian = jacobian.flatten(-2), hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.cat([laplacian, first, first, hessian.flatten(-3)], -1)


def plain_losses(net: Any, x: Tensor) -> Tensor:
    y, J, H = recurrences(net, x)
    value, jacobian = targets(x)
    residuals = (y - value, J - jacobian, H.diagonal(dim1=-2, dim2=-1).sum(-1) - value, J.norm(dim=-1) - 1)
    return torch.stack([residual.square().sum() / y.numel() for residual in residuals])


OURS = {"value": our_value, "jets": our_jets, "losses": our_losses}
PLAIN = {"value": lambda net, x: net.net(x), "jets": plain_jets, "losses": plain_losses}


class Measured(nn.Module):
    """A quantity of a network as a module of its own, which mechanisms that take modules are given."""

    def __init__(self, net: nn.Module, quantity: str, *, plain: bool = False) -> None:
        super().__init__()
        self.net, self.quantity, self.plain = net, quantity, plain

    def forward(self, x: Tensor) -> Tensor:
        return (PLAIN if self.plain else OURS)[self.quantity](self.net, x)


def both(quantity: str, net: fastsiren.Siren | None = None) -> tuple[Measured, Measured]:
    """The quantity by fastsiren and in plain torch, for two networks of the same numbers."""
    net = siren() if net is None else net
    return Measured(net, quantity), Measured(copy.deepcopy(net), quantity, plain=True)


# Comparison


def flat(results: Any) -> list[Tensor]:
    """All tensors of a nest of lists, tuples and dictionaries; a gradient that is None is left out."""
    if isinstance(results, Tensor):
        return [results.detach()]
    if results is None:
        return []
    parts = results.values() if isinstance(results, dict) else results
    return [tensor for part in parts for tensor in flat(part)]


def joined(results: Any) -> Tensor:
    """All numbers of all tensors, in one row."""
    return torch.cat([tensor.double().flatten() for tensor in flat(results)])


def assert_same(found: Any, expected: Any, bound: float = BOUND) -> None:
    """Raise unless all numbers are those of plain torch, which are not all zero."""
    ours, plain = joined(found), joined(expected)
    assert plain.any(), "nothing is compared: plain torch gives zeros"
    assert oracle.relative_error(ours, plain) <= bound


def gradients(measured: Measured, x: Tensor) -> list[Tensor]:
    """What one backward pass leaves in the parameters, in order; zeros where it leaves nothing."""
    measured.zero_grad()
    loss(measured(x)).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in measured.parameters()]


def loss(result: Tensor) -> Tensor:
    """A number that depends on every entry, each in its own way."""
    weights = torch.linspace(0.5, 1.5, result.shape[-1], dtype=result.dtype, device=result.device)
    return (result.sin() * weights).sum()
