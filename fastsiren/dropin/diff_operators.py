"""The derivative functions of the official repository, with its arguments and shapes.

Where `y` is what a network of fastsiren returned for `x`, or its gradient, one fused pass serves a call, in place of up
to C (1 + D) walks through the graph. Everything else goes through torch.autograd.grad: another function of y, an x that
the network did not see, a network changed in place since. Both ways give the same numbers and are differentiable again.

All raise TypeError for what is no tensor, ValueError for shapes that do not fit, and RuntimeError where y or x requires
no gradients or y was not computed from x.

Differs: jacobian and hessian keep the dtype of y and take any strides and any leading shape.
"""

import torch
from torch import Tensor

from .. import functional
from ..derivatives import hessian as fused_hessian
from ..derivatives import laplacian, value_and_jacobian
from ..engine.values import described
from .graph import Evaluation, check_function, evaluation, fused, vjp

__all__ = ["divergence", "gradient", "hessian", "jacobian", "laplace"]


def gradient(y: Tensor, x: Tensor, grad_outputs: Tensor | None = None) -> Tensor:  # like x
    """Gradient of the sum of all channels of y.

    Args:
        y: [..., C], computed from x.
        x: [..., D].
        grad_outputs: factors on the entries of y, like y; None means ones.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.dropin import diff_operators
        >>> x = torch.rand(5, 2, requires_grad=True)
        >>> diff_operators.gradient(fastsiren.Siren(2, 16, 1, 3)(x), x).shape
        torch.Size([5, 2])
    """
    check_function(y, x, least=0)
    if grad_outputs is not None and not isinstance(grad_outputs, Tensor):
        raise TypeError(f"grad_outputs: got {described(grad_outputs)}, expected None or a torch.Tensor")
    if grad_outputs is not None and (grad_outputs.shape != y.shape or grad_outputs.device != y.device):
        raise ValueError(f"grad_outputs: got {described(grad_outputs)}, expected shape {tuple(y.shape)} on {y.device}")
    # One walk is one fused pass already.
    return vjp(y, x, grad_outputs)


def divergence(y: Tensor, x: Tensor) -> Tensor:  # [..., 1]
    """Divergence sum_i dy_i/dx_i, each point on its own.

    Args:
        y: [..., C], C at most D.
        x: [..., D].

    Raises:
        ValueError: y has more channels than x has coordinates.
    """
    check_function(y, x)
    channels, inputs = y.shape[-1], x.shape[-1]
    if channels > inputs:
        raise ValueError(f"y: got {channels} channels, expected at most {inputs}, the coordinates of x")
    found = evaluation(y, x)
    if found is not None:
        with torch.enable_grad():
            if found.y_bar is not None:
                return (laplacian(found, x).laplacian * found.y_bar).sum(-1, keepdim=True)
            jacobian = value_and_jacobian(found, x).jacobian
            return jacobian[..., :channels].diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    parts = [vjp(y[..., i], x)[..., i : i + 1] for i in range(channels)]
    return sum(parts[1:], start=parts[0])


def laplace(y: Tensor, x: Tensor) -> Tensor:  # [..., 1]
    """Laplacian of the sum of all channels of y.

    Args:
        y: [..., C], computed from x.
        x: [..., D].

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.dropin import diff_operators
        >>> net, x = fastsiren.Siren(2, 16, 1, 3).double(), torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
        >>> expected = fastsiren.laplacian(net, x).laplacian.sum(-1, keepdim=True)
        >>> torch.allclose(diff_operators.laplace(net(x), x), expected)
        True
    """
    check_function(y, x)
    found = fused(y, x)
    if found is None:
        return divergence(gradient(y, x), x)
    with torch.enable_grad():
        return laplacian(found, x).laplacian.sum(-1, keepdim=True)


def jacobian(y: Tensor, x: Tensor) -> tuple[Tensor, int]:  # [..., C, D]
    """Jacobian of each point, and a status: 0, or -1 where it holds a NaN.

    Args:
        y: [..., C], such as (batch, points, C).
        x: [..., D].
    """
    check_function(y, x, pointwise=True)
    found = evaluation(y, x)
    if found is None:
        rows = torch.stack([vjp(y[..., i], x) for i in range(y.shape[-1])], -2)
        result = rows.expand(*y.shape, x.shape[-1])
    else:
        with torch.enable_grad():
            result = _fused_jacobian(found, x)
    return result, _status(result)


def hessian(y: Tensor, x: Tensor) -> tuple[Tensor, int]:  # [..., C, D, D]
    """Hessian of each point and channel, and a status: 0, or -1 where it holds a NaN.

    Args:
        y: [..., C], such as (batch, points, C).
        x: [..., D].
    """
    check_function(y, x, pointwise=True)
    found = fused(y, x)
    if found is None:
        gradients = [vjp(y[..., i], x) for i in range(y.shape[-1])]
        rows = [torch.stack([vjp(g[..., j], x) for j in range(x.shape[-1])], -2) for g in gradients]
        result = torch.stack(rows, -3).expand(*y.shape, x.shape[-1], x.shape[-1])
    else:
        with torch.enable_grad():
            result = fused_hessian(found, x).hessian
    return result, _status(result)


def _fused_jacobian(found: Evaluation, x: Tensor) -> Tensor:
    if found.y_bar is None:
        return value_and_jacobian(found, x).jacobian
    weights, biases, omegas, outermost_linear, precision = found.params
    return functional.sandwich(
        x, weights, biases, combinations=found.y_bar.unsqueeze(-2),
        omegas=omegas, outermost_linear=outermost_linear, precision=precision,
    ).hessian.squeeze(-3)  # fmt: skip


def _status(result: Tensor) -> int:
    return -1 if bool(result.isnan().any()) else 0
