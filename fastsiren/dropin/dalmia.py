"""The classes of dalmia/siren (siren-torch on PyPI): Sine, SIREN and the initialiser siren_uniform_.

Kept: no omega in the bounds of initial weights, so all are sqrt(c / n_in), the first layer's too; omega is 1 in hidden
layers; `layers` is a list, also as an attribute, where it holds the modules. Differs: Sine takes tensors of any dtype.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..engine.values import described, one_of
from . import checks
from .base import FusedSiren, Layer, omega_of

__all__ = ["SIREN", "Sine", "siren_uniform_"]


def siren_uniform_(tensor: Tensor, mode: Literal["fan_in", "fan_out"] = "fan_in", c: float = 6) -> Tensor:
    """Draw a tensor uniformly in +-sqrt(c / fan), in place.

    Args:
        tensor: of two dimensions or more.
        mode: "fan_in" or "fan_out".
        c: constant of the bound.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the tensor has fewer dimensions or holds no floats, the mode is unknown, or c is not positive.
    """
    checks.tensor("tensor", tensor)
    if tensor.ndim < 2 or not tensor.is_floating_point():
        raise ValueError(f"tensor: got {described(tensor)}, expected floats in two dimensions or more")
    one_of("mode", mode.lower() if isinstance(mode, str) else mode, ("fan_in", "fan_out"))
    checks.bounds(c=c)
    fan = nn.init._calculate_correct_fan(tensor, mode)
    bound = math.sqrt(c) * (1 / math.sqrt(fan))
    with torch.no_grad():
        return tensor.uniform_(-bound, bound)


class Sine(nn.Module):
    """sin(w0 x).

    Args:
        w0: frequency.
    """

    def __init__(self, w0: float = 1.0) -> None:
        super().__init__()
        checks.omegas(w0=w0)
        self.w0 = w0

    def forward(self, x: Tensor) -> Tensor:  # [...] -> [...]
        """Evaluate the sine.

        Raises:
            TypeError: x is no tensor.
        """
        checks.tensor("x", x)
        return torch.sin(self.w0 * x)


class SIREN(FusedSiren):
    """A SIREN with a width per layer.

    Args:
        layers: widths of the sine layers, a list.
        in_features: number D of coordinates.
        out_features: number O of outputs.
        w0: frequency of the layers after the first.
        w0_initial: frequency of the first layer.
        bias: whether layers have a bias.
        initializer: "siren", or None for the weights that nn.Linear draws.
        c: constant in the bound of the weights.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import dalmia
        >>> dalmia.SIREN([16, 12], 2, 1)(torch.rand(5, 2)).shape
        torch.Size([5, 1])
    """

    network: Any
    points = "X"

    def __init__(
        self,
        layers: list[int],
        in_features: int,
        out_features: int,
        w0: float = 1.0,
        w0_initial: float = 30.0,
        bias: bool = True,
        initializer: str | None = "siren",
        c: float = 6,
    ) -> None:
        super().__init__()
        if not isinstance(layers, list) or not layers:
            raise AssertionError(f"layers: got {described(layers)}, expected a list of at least one width")
        for width in layers:
            checks.sizes(layers=width)
        checks.sizes(in_features=in_features, out_features=out_features)
        checks.omegas(w0=w0, w0_initial=w0_initial)
        checks.bounds(c=c)
        one_of("initializer", initializer, ("siren",), or_none=True)
        widths = [in_features, *layers]
        self.layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            self.layers += [nn.Linear(n_in, n_out, bias=bias), Sine(w0 if i else w0_initial)]
        self.layers.append(nn.Linear(layers[-1], out_features, bias=bias))
        self.network = nn.Sequential(*self.layers)
        if initializer == "siren":
            for linear in self.network[::2]:
                siren_uniform_(linear.weight, mode="fan_in", c=c)

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last."""
        modules: Sequence[nn.Module] = [*self.network, nn.Identity()]
        return [Layer(modules[i], omega_of(modules[i + 1])) for i in range(0, len(modules), 2)]

    def forward(self, X: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        return self.evaluate(X)
