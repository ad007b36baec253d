"""The classes of the authors' notebook explore_siren.ipynb, the code that is copied most.

Kept: forward returns (output, coords) and detaches coords, so users differentiate by the returned ones;
forward_with_activations counts its keys by entries, two per sine layer; `Siren` has no switch for biases.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from . import checks
from .base import SineLayer, SineStack, linear_last, stack
from .diff_operators import divergence, gradient, laplace

__all__ = ["SineLayer", "Siren", "divergence", "get_mgrid", "gradient", "laplace"]


class Siren(SineStack):
    """The network of the notebook.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of the sine layers.
        hidden_layers: number of H x H layers.
        out_features: number O of outputs.
        outermost_linear: whether the last layer is linear.
        first_omega_0: omega of the first layer.
        hidden_omega_0: omega of the other layers.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import colab
        >>> output, coords = colab.Siren(2, 16, 1, 1, outermost_linear=True)(colab.get_mgrid(4))
        >>> output.shape, colab.laplace(output, coords).shape
        (torch.Size([16, 1]), torch.Size([16, 1]))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        outermost_linear: bool = False,
        first_omega_0: float = 30,
        hidden_omega_0: float = 30.0,
    ) -> None:
        super().__init__()
        layers = stack(
            SineLayer, in_features, hidden_features, hidden_layers, out_features,
            omegas=(first_omega_0, hidden_omega_0),
            last=(lambda: linear_last(hidden_features, out_features, hidden_omega_0)) if outermost_linear else None,
        )  # fmt: skip
        self.net = torch.nn.Sequential(*layers)

    def forward(self, coords: Tensor) -> tuple[Tensor, Tensor]:  # [..., D] -> [..., O], [..., D]
        """Evaluate at a detached copy of the coordinates, which is returned too."""
        coords = checks.leaf("coords", coords)
        return self.evaluate(coords), coords

    def forward_with_activations(self, coords: Tensor, retain_grad: bool = False) -> "OrderedDict[str, Tensor]":
        """Evaluate layer by layer: the input, then argument and sine of each sine layer, then the last layer.

        Args:
            coords: coordinates [..., D].
            retain_grad: whether every result keeps its gradient.
        """
        checks.points("coords", coords, self.net[0].linear.weight)
        x = checks.leaf("coords", coords)
        activations = OrderedDict(input=x)
        for layer in self.net:
            intermediate = []
            if hasattr(layer, "omega_0"):
                x, argument = layer.forward_with_intermediate(x)
                intermediate = [argument]
            else:
                x = layer(x)
            for result in (*intermediate, x):
                if retain_grad:
                    result.retain_grad()
                activations[f"{type(layer)}_{len(activations) - 1}"] = result
        return activations


def get_mgrid(sidelen: int, dim: int = 2) -> Tensor:  # [sidelen ** dim, dim]
    """Points of a square grid over [-1, 1], ends included, the first coordinate slowest.

    Args:
        sidelen: points per axis.
        dim: number of axes.
    """
    checks.sizes(sidelen=sidelen, dim=dim)
    axes = [torch.linspace(-1, 1, steps=sidelen)] * dim
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, dim)
