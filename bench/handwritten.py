"""Derivatives written out by hand in plain PyTorch, to be compiled: the strongest baselines PyTorch offers.

Omega is folded into the weights and layer 0 exploits its constant directions, so after compilation only the traffic
between the GEMMs is left to win. One GEMM per channel: Inductor then fuses all pointwise work of a layer into one loop.
With the channels as rows of one GEMM it was up to 15 % slower (width 256, 65,536 points).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .official import OMEGA, loss_of


def jet(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,  # [N, D]
    second: bool,
) -> tuple[Tensor, ...]:
    """Return value [N, 1], gradient [N, D] and, when asked, Laplacian [N, 1] by forward tangents."""
    folded = OMEGA * weights[0]
    theta = torch.addmm(OMEGA * biases[0], x, folded.t())
    # One row for all points per direction, and no second-order phase: layer 0 is linear in x.
    h, t, s = activate(theta, list(folded.t()), None, second)
    for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
        folded = (OMEGA * weight).t()
        theta = torch.addmm(OMEGA * bias, h, folded)
        h, t, s = activate(theta, [channel @ folded for channel in t], None if s is None else s @ folded, second)
    last = weights[-1].t()
    first = (torch.addmm(biases[-1], h, last), torch.cat([channel @ last for channel in t], 1))
    return first if s is None else (*first, s @ last)


def activate(
    theta: Tensor, p: list[Tensor], q: Tensor | None, second: bool
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Return the channels behind a sine: h, the tangents c p and, when asked, c q - h sum p^2."""
    h, c = torch.sin(theta), torch.cos(theta)
    tangents = [c * channel for channel in p]
    if not second:
        return h, tangents, None
    bent = -h * torch.stack([channel * channel for channel in p]).sum(0)
    return h, tangents, bent if q is None else bent + c * q


def adjoint(
    weights: list[Tensor],
    biases: list[Tensor],
    x: Tensor,  # [N, D]
) -> tuple[Tensor, Tensor]:
    """Return value [N, 1] and gradient [N, D] of one output by a written-out reverse sweep."""
    folded = [OMEGA * weight for weight in weights[:-1]]
    h, cosines = x, []
    for weight, bias in zip(folded, biases[:-1], strict=True):
        theta = torch.addmm(OMEGA * bias, h, weight.t())
        h = torch.sin(theta)
        cosines.append(torch.cos(theta))
    value = torch.addmm(biases[-1], h, weights[-1].t())
    a = weights[-1]  # [1, H]: one row for all points
    for weight, c in zip(reversed(folded), reversed(cosines), strict=True):
        a = torch.mm(c * a, weight)
    return value, a


def jet_loss(kind: str, weights: list[Tensor], biases: list[Tensor], x: Tensor, target: Tensor) -> Tensor:
    """Return the loss of a training kind by the jet."""
    return loss_of(kind, jet(weights, biases, x, kind == "train_laplacian"), target)


def adjoint_loss(kind: str, weights: list[Tensor], biases: list[Tensor], x: Tensor, target: Tensor) -> Tensor:
    """Return the loss of a first-order training kind by the reverse sweep."""
    return loss_of(kind, adjoint(weights, biases, x), target)
