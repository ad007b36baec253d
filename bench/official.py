"""Eager PyTorch as SIREN code is written today: sine layers, nested autograd.grad with create_graph, mean losses.

The classes and operators follow the interface of the original paper's code, so a user's own script costs what is
timed here. Two choices favour this side: nn.Linear (one addmm) in place of matmul and add, and no copy of the
coordinates that nobody needs. The eikonal term is squared, (|grad| - 1)^2, as in the fused loss, where the paper's
code takes the absolute value; both cost the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .workloads import Workload

OMEGA = 30.0
CHUNK = 8192
# Of Adam, where a step has one.
RATE = 1e-4


class SineLayer(nn.Module):
    """sin(omega (W h + b)), with the initial weights of the paper."""

    def __init__(self, in_features: int, out_features: int, *, first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        bound = 1 / in_features if first else math.sqrt(6 / in_features) / OMEGA
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:  # [N, in] -> [N, out]
        """Return the activations of the layer."""
        return torch.sin(OMEGA * self.linear(x))


class OfficialSiren(nn.Module):
    """A SIREN in plain PyTorch; its state_dict loads into fastsiren.Siren."""

    def __init__(self, d: int, width: int, layers: int, o: int) -> None:
        super().__init__()
        last = nn.Linear(width, o)
        bound = math.sqrt(6 / width) / OMEGA
        nn.init.uniform_(last.weight, -bound, bound)
        hidden = [SineLayer(width, width, first=False) for _ in range(layers)]
        self.net = nn.Sequential(SineLayer(d, width, first=True), *hidden, last)

    def forward(self, x: Tensor) -> Tensor:  # [N, D] -> [N, O]
        """Return the values."""
        return self.net(x)


def gradient(y: Tensor, x: Tensor) -> Tensor:  # [N, 1], [N, D] -> [N, D]
    """Return the gradient of y, itself differentiable."""
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


def divergence(g: Tensor, x: Tensor) -> Tensor:  # [N, D], [N, D] -> [N, 1]
    """Return the sum over i of d g_i / d x_i, one backward pass per coordinate."""
    total = torch.zeros_like(x[:, :1])
    for i in range(g.shape[-1]):
        total = total + gradient(g[:, i], x)[:, i : i + 1]
    return total


def quantities(kind: str, module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Return (value,), (value, gradient) or (value, gradient, Laplacian), whichever the kind needs."""
    quantity = kind.removeprefix("train_")
    if quantity in ("forward", "value"):
        return (module(x),)
    x = x.detach().clone().requires_grad_(True)
    value = module(x)
    first = gradient(value, x)
    return (value, first, divergence(first, x)) if quantity == "laplacian" else (value, first)


def loss_of(kind: str, outputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    """Return the loss of a training kind from the last of its quantities."""
    last = outputs[-1]
    if kind == "train_gradient":
        return ((last - target) ** 2).sum(-1).mean()
    if kind == "train_eikonal":
        return ((last.norm(dim=-1) - 1) ** 2).mean()
    return ((last - target) ** 2).mean()


def infer(kind: str, module: nn.Module, x: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """Return the quantities of an inference kind, computed in chunks of points."""
    with torch.set_grad_enabled(kind != "forward"):
        parts = [tuple(q.detach() for q in quantities(kind, module, piece)) for piece in x.split(chunk)]
    return parts[0] if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts, strict=True))


def step(kind: str, module: nn.Module, x: Tensor, target: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """Leave the parameter gradients of the mean loss in the module and return (loss,), in chunks of points."""
    module.zero_grad(set_to_none=True)
    total = x.new_zeros(())
    for piece, wanted in zip(x.split(chunk), target.split(chunk), strict=True):
        loss = loss_of(kind, quantities(kind, module, piece), wanted) * (len(piece) / len(x))
        loss.backward()
        total += loss.detach()
    return (total,)


def fit_step(
    modules: list[OfficialSiren], optimizers: list[torch.optim.Adam], x: Tensor, targets: Tensor
) -> tuple[Tensor, ...]:
    """Train networks by one step each, one after another, and return (the sum of their losses,)."""
    total = x.new_zeros(())
    for module, optimizer, target in zip(modules, optimizers, targets, strict=True):
        optimizer.zero_grad(set_to_none=True)
        loss = ((module(x) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return (total,)


def target_of(workload: Workload, generator: torch.Generator) -> Tensor:
    """Return a random target of the workload's quantity, of the size that the quantity has at random weights."""
    n, quantity = workload.points, workload.kind.removeprefix("train_")
    columns = workload.d if quantity == "gradient" else workload.o
    scale = 20.0 if quantity == "laplacian" else 1.0
    networks = [] if workload.networks == 1 else [workload.networks]
    return scale * torch.randn(*networks, n, columns, generator=generator)
