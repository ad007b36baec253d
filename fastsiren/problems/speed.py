"""fastsiren beside plain PyTorch on this machine: the same network, the same points, turn by turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import losses
from ..derivatives import laplacian
from ..siren import Siren

__all__ = ["Comparison", "compare", "plain_forward", "plain_laplacian"]


class Comparison(NamedTuple):
    """Median milliseconds of both for one kind of work."""

    work: str
    points: int
    fastsiren: float
    torch: float

    def line(self) -> str:
        """One line of a report."""
        times = f"fastsiren {self.fastsiren:8.1f} ms   PyTorch {self.torch:8.1f} ms"
        return f"{self.work:<28}{times}   {self.torch / self.fastsiren:5.1f} x   ({self.points} points)"


def plain_forward(net: Siren, x: Tensor) -> Tensor:  # [N, D] -> [N, O]
    """What everybody writes: linear, times omega, sine; a linear layer at the end."""
    parameters = net.siren_parameters()
    h = x
    for weight, bias, omega in zip(parameters.weights[:-1], parameters.biases[:-1], parameters.omegas, strict=True):
        h = torch.sin(omega * torch.nn.functional.linear(h, weight, bias))
    return torch.nn.functional.linear(h, parameters.weights[-1], parameters.biases[-1])


def plain_laplacian(net: Siren, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, gradient and Laplacian of a network with one output by nested autograd, as in the authors' code."""
    x = x.detach().requires_grad_()
    y = plain_forward(net, x)
    (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    parts = [
        torch.autograd.grad(gradient[:, i].sum(), x, retain_graph=True)[0][:, i : i + 1] for i in range(x.shape[1])
    ]
    return y, gradient, sum(parts[1:], parts[0])


def compare(*, points: int, repeats: int, hidden: int = 256, layers: int = 3) -> list[Comparison]:
    """Time a forward pass, value with gradient and Laplacian, and a training step of both.

    Args:
        points: Number of coordinates.
        repeats: Timings of each; the two take turns and the median counts.
        hidden: Width of the network.
        layers: Hidden layers behind the first.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Siren(2, hidden, layers, 1)
    x = torch.rand(points, 2, generator=generator) * 2 - 1  # [N, 2]
    target = torch.rand(points, 1, generator=generator)  # [N, 1]
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("forward", torch.no_grad()(lambda: net(x)), torch.no_grad()(lambda: plain_forward(net, x))),
        (
            "value, gradient, Laplacian",
            torch.no_grad()(lambda: laplacian(net, x)),
            lambda: plain_laplacian(net, x),
        ),
        (
            "loss and its gradients",
            lambda: _backward(net, losses.value_mse(net, x, target)),
            lambda: _backward(net, (plain_forward(net, x) - target).square().mean()),
        ),
    ]
    return [Comparison(work, points, *_medians(ours, theirs, repeats)) for work, ours, theirs in pairs]


def _backward(net: Siren, loss: Tensor) -> None:
    net.zero_grad(set_to_none=True)
    loss.backward()


def _medians(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median milliseconds of two functions that take turns, after one turn that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for function, taken in zip((ours, theirs), times, strict=True):
            begun = time.perf_counter()
            function()
            if turn:
                taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[0]), statistics.median(times[1])
