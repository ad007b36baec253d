"""Losses composed of differentiable passes: slower than a fused loss, and right to any order in every argument.

They serve calls that also differentiate the points, the target or the weight, and transforms of torch.func.

    value      sum_no w_n (y_no - t_no)^2          laplacian   sum_no w_n (Lap_no - t_no)^2
    gradient   sum_no w_n |J_no - t_no|^2          eikonal     sum_no w_n (|J_no| - 1)^2

A mean divides by N O, and is NaN over no points, as in torch. Many networks have a loss each.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .network import networks_of

KINDS = ("value", "gradient", "laplacian", "eikonal")
REDUCTIONS = ("mean", "sum", "per_network")


def composed_loss(
    kind: str,
    passes: Any,
    x: Tensor,  # [N, D]
    target: Tensor | None,
    weight: Tensor | None,  # [N]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    reduction: str,
) -> Tensor:  # [], or [G]
    """The loss, by the functions of `passes`, which has the signatures of a backend."""
    found = _measured(kind, passes, x, weights, biases, omegas)
    if kind == "eikonal":
        residual = torch.linalg.vector_norm(found, dim=-1) - 1  # [N, O]
    else:
        residual = found if target is None else found - target
    squares = residual.square().flatten(1)  # [N, O] or [N, O D]
    squares = squares if weight is None else squares * weight.unsqueeze(-1)
    count, N = networks_of(weights, biases), x.shape[0]
    if count is None:
        total = squares.sum()
    else:
        N = N // max(count, 1)
        total = squares.reshape(count, N * squares.shape[1]).sum(1)
    return total / (N * weights[-1].shape[-2]) if reduction == "mean" else total


def _measured(
    kind: str, passes: Any, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]
) -> Tensor:
    """What the loss compares with its target: y [N, O], J [N, O, D] or the Laplacian [N, O]."""
    if kind == "value":
        y: Tensor = passes.value_fwd(x, weights, biases, omegas)
        return y
    if kind == "laplacian":
        axes = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return passes.jet_fwd(x, axes, axes.unsqueeze(0), weights, biases, omegas)[2].squeeze(-2)
    every = torch.eye(weights[-1].shape[-2], dtype=x.dtype, device=x.device)
    return passes.adjoint_fwd(x, every, weights, biases, omegas)[1]
