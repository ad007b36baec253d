"""Derivatives and losses of any network under the names of fastsiren's own: fused ones for SIRENs, autograd for others.

An experiment is written once, against these names, and runs on a SIREN as on a ReLU network that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .. import losses
from ..derivatives import Hessian, Laplacian, ValueAndJacobian, derivatives, hessian, laplacian, value_and_jacobian
from ..engine.jet import parse_derivatives
from ..engine.network import SirenModule

__all__ = ["autograd_operators", "operators"]


def operators(net: nn.Module | SirenModule) -> SimpleNamespace:
    """The functions that serve a network.

    Args:
        net: A SIREN, that is a module with `siren_parameters`, or any module that maps [..., D] to [..., O] row by row.

    Returns:
        value_and_jacobian, laplacian, hessian, derivatives and the four losses: each as the function of its name in
        `fastsiren` or `fastsiren.losses`.

    Example:
        >>> import torch, fastsiren
        >>> x, net = torch.rand(5, 2), fastsiren.Siren(2, 16, 1, 1)
        >>> plain = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> [operators(each).laplacian(each, x).laplacian.shape for each in (net, plain)]
        [torch.Size([5, 1]), torch.Size([5, 1])]
    """
    return _FUSED if isinstance(net, SirenModule) else autograd_operators


def _value_and_jacobian(net: nn.Module, x: Tensor) -> ValueAndJacobian:
    x = x if x.requires_grad else x.detach().requires_grad_()
    y = net(x)
    rows = [_grad(y[..., o], x) for o in range(y.shape[-1])]
    return ValueAndJacobian(y, torch.stack(rows, -2))


def _hessian(net: nn.Module, x: Tensor, *, dims: Sequence[int] | None = None) -> Hessian:
    """Second derivatives along `dims` only: a row each, so that a Laplacian costs what a user's own code would."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    y, J = _value_and_jacobian(net, x)
    axes = list(range(x.shape[-1]) if dims is None else dims)
    rows = [[_grad(J[..., o, i], x)[..., axes] for i in axes] for o in range(y.shape[-1])]
    return Hessian(y, J, torch.stack([torch.stack(row, -2) for row in rows], -3))


def _laplacian(
    net: nn.Module, x: Tensor, *, dims: Sequence[int] | None = None, weights: Sequence[float] | Tensor | None = None
) -> Laplacian:
    y, J, H = _hessian(net, x, dims=dims)
    curvature = H.diagonal(dim1=-2, dim2=-1)
    if weights is not None:
        curvature = curvature * torch.as_tensor(weights, dtype=x.dtype, device=x.device).unsqueeze(-2)
    return Laplacian(y, J, curvature.sum(-1))


def _derivatives(
    net: nn.Module, x: Tensor, names: Sequence[str], *, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Tensor]:
    x = x if x.requires_grad else x.detach().requires_grad_()
    y = net(x)
    found: dict[tuple[int, tuple[int, ...]], Tensor] = {}

    def along(output: int, axes: tuple[int, ...]) -> Tensor:
        if not axes:
            return y[..., output]
        gradient = found.get((output, axes[:-1]))
        if gradient is None:
            gradient = found[output, axes[:-1]] = _grad(along(output, axes[:-1]), x)
        return gradient[..., axes[-1]]

    return {name: along(output, axes).unsqueeze(-1) for name, output, axes in parse_derivatives(names, inputs, outputs)}


def _grad(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def _loss(quantity: Callable[[nn.Module, Tensor, Any], Tensor]) -> Callable[..., Tensor]:
    """A weighted sum or mean over points and outputs of what `quantity` gives, [..., O]."""

    def loss(
        net: nn.Module,
        x: Tensor,
        target: Tensor | None = None,
        *,
        weight: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        terms = quantity(net, x, target)
        terms = terms if weight is None else terms * weight.unsqueeze(-1)
        return terms.mean() if reduction == "mean" else terms.sum()

    return loss


_FUSED = SimpleNamespace(
    value_and_jacobian=value_and_jacobian,
    laplacian=laplacian,
    hessian=hessian,
    derivatives=derivatives,
    value_mse=losses.value_mse,
    gradient_mse=losses.gradient_mse,
    laplacian_mse=losses.laplacian_mse,
    eikonal=losses.eikonal,
)
autograd_operators = SimpleNamespace(
    value_and_jacobian=_value_and_jacobian,
    laplacian=_laplacian,
    hessian=_hessian,
    derivatives=_derivatives,
    value_mse=_loss(lambda net, x, target: (net(x) - target).square()),
    gradient_mse=_loss(lambda net, x, target: (_value_and_jacobian(net, x)[1] - target).square().sum(-1)),
    laplacian_mse=_loss(lambda net, x, target: (_laplacian(net, x)[2] - target).square()),
    eikonal=_loss(lambda net, x, target: (_value_and_jacobian(net, x)[1].norm(dim=-1) - 1).square()),
)
