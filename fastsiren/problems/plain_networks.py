"""Networks that SIRENs are compared with, in plain torch: ReLU, positional encoding, tanh, radial basis functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..siren import Siren
from .speed import plain_forward

__all__ = ["PlainSiren", "PositionalEncoding", "RadialBasis", "plain_networks"]


class PositionalEncoding(nn.Module):
    """x followed by sin(2^k π x) and cos(2^k π x), as NeRF has them.

    Args:
        inputs: D.
        frequencies: How many k, from 0.
    """

    scales: Tensor

    def __init__(self, inputs: int, frequencies: int) -> None:
        super().__init__()
        self.out_features = inputs * (1 + 2 * frequencies)
        self.register_buffer("scales", 2.0 ** torch.arange(frequencies) * math.pi, persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., D (1 + 2 F)]
        """Encode."""
        phases = (x.unsqueeze(-1) * self.scales).flatten(-2)
        return torch.cat([x, phases.sin(), phases.cos()], -1)


class RadialBasis(nn.Module):
    """Gaussians exp(-(σ |x - c|)²) around centres c in [-1, 1]^D, all of it learnt.

    Args:
        inputs: D.
        centres: How many.
        sigma: σ at the beginning.
    """

    def __init__(self, inputs: int, centres: int = 1024, sigma: float = 10.0) -> None:
        super().__init__()
        self.out_features = centres
        self.centres = nn.Parameter(torch.rand(centres, inputs) * 2 - 1)
        self.sigmas = nn.Parameter(torch.full((centres,), sigma))

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., C]
        """Evaluate every Gaussian."""
        # Expanded, so that nothing of size N x C x D is made.
        squares = x.square().sum(-1, keepdim=True) + self.centres.square().sum(-1) - 2 * x @ self.centres.mT
        return torch.exp(-self.sigmas.square() * squares)


class PlainSiren(nn.Module):
    """A SIREN's own parameters run as everybody writes it: linear, times omega, sine. For comparisons of speed."""

    def __init__(self, net: Siren) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate layer by layer."""
        return plain_forward(self.net, x)


def plain_networks(
    inputs: int, hidden: int, layers: int, outputs: int, *, resolution: int, seed: int
) -> dict[str, Callable[[], nn.Module]]:
    """What makes each network, by its name; all have the widths of a SIREN with these numbers.

    Args:
        inputs: D.
        hidden: Width.
        layers: Hidden layers behind the first.
        outputs: O.
        resolution: Samples along the longest axis of [-1, 1]: positional encoding goes up to half of it, as NeRF's.
        seed: Of the initial weights.
    """
    widths = [hidden] * (layers + 1)
    frequencies = max(1, int(math.log2(max(resolution, 4) / 4)))

    def made(activation: Callable[[], nn.Module], encode: Callable[[], nn.Module] | None = None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = [] if encode is None else [encode()]
            size = int(first[0].out_features) if first else inputs  # type: ignore[arg-type]
            return nn.Sequential(*first, *_perceptron([size, *widths, outputs], activation))

    return {
        "relu": lambda: made(nn.ReLU),
        "relu_pe": lambda: made(nn.ReLU, lambda: PositionalEncoding(inputs, frequencies)),
        "tanh": lambda: made(nn.Tanh),
        "rbf": lambda: made(nn.ReLU, lambda: RadialBasis(inputs)),
    }


def _perceptron(widths: list[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Linear layers with an activation between them, with the official initial weights."""
    made: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        if activation is nn.Tanh:
            nn.init.xavier_normal_(linear.weight)
        else:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        made += [linear, activation()]
    return made[:-1]
