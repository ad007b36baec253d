"""The classes of the FINER repository: its SIREN baseline, and Finer itself.

Kept: in `Siren`, `bias` reaches the first layer only; in `Finer` it reaches none. Finer's activation is
sin(omega (|z| + 1) z), which makes it no SIREN: it is plain torch here, and no operator of fastsiren takes it.
Option, as in the original: `scale_req_grad`. By default the factor |z| + 1 counts as a constant in derivatives.
"""

from functools import partial

import torch
from torch import Tensor, nn

from . import checks
from .base import SineLayer, SineStack, linear_last, stack

__all__ = ["Finer", "FinerLayer", "SineLayer", "Siren"]


class Siren(SineStack):
    """A SIREN whose last layer is linear.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of the sine layers.
        hidden_layers: number of H x H layers.
        out_features: number O of outputs.
        first_omega_0: omega of the first layer.
        hidden_omega_0: omega of the other layers.
        bias: whether the first layer has a bias; all others have one.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import finer
        >>> finer.Siren(2, 16, 1, 3)(torch.rand(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        first_omega_0: float = 30,
        hidden_omega_0: float = 30.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        layers = stack(
            SineLayer, in_features, hidden_features, hidden_layers, out_features,
            omegas=(first_omega_0, hidden_omega_0), bias=bias,
            last=lambda: linear_last(hidden_features, out_features, hidden_omega_0),
        )  # fmt: skip
        self.net = nn.Sequential(*layers)

    def forward(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        return self.evaluate(coords)


class FinerLayer(SineLayer):
    """sin(omega_0 (|z| + 1) z) with z = W x + b; no sine layer in the sense of fastsiren.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias.
        is_first: draws the weights, and the bias if it has a scale, as those of a first layer.
        omega_0: frequency factor.
        first_bias_scale: bound of the bias of a first layer; None keeps the draw of nn.Linear.
        scale_req_grad: whether |z| + 1 is differentiated.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        is_first: bool = False,
        omega_0: float = 30,
        first_bias_scale: float | None = None,
        scale_req_grad: bool = False,
    ) -> None:
        if first_bias_scale is not None:
            checks.bounds(first_bias_scale=first_bias_scale)
        super().__init__(in_features, out_features, bias, is_first, omega_0)
        self.scale_req_grad = scale_req_grad
        self.first_bias_scale = first_bias_scale
        if is_first and first_bias_scale is not None and bias:
            with torch.no_grad():
                self.linear.bias.uniform_(-first_bias_scale, first_bias_scale)

    def generate_scale(self, z: Tensor) -> Tensor:
        """The factor |z| + 1."""
        scale = z.abs() + 1
        return scale if self.scale_req_grad else scale.detach()

    def forward(self, input: Tensor) -> Tensor:  # [..., n_in] -> [..., n_out]
        """Evaluate this layer."""
        checks.points("input", input, self.linear.weight)
        z = self.linear(input)
        return torch.sin(self.omega_0 * self.generate_scale(z) * z)


class Finer(nn.Module):
    """FINER in plain torch.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of the layers.
        hidden_layers: number of H x H layers.
        out_features: number O of outputs.
        first_omega_0: omega of the first layer.
        hidden_omega_0: omega of the other layers.
        bias: not used; all layers have a bias.
        first_bias_scale: bound of the first layer's bias; None keeps the draw of nn.Linear.
        scale_req_grad: whether |z| + 1 is differentiated.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import finer
        >>> finer.Finer(2, 16, 1, 3, first_bias_scale=5.0)(torch.rand(5, 2)).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        first_omega_0: float = 30,
        hidden_omega_0: float = 30.0,
        bias: bool = True,
        first_bias_scale: float | None = None,
        scale_req_grad: bool = False,
    ) -> None:
        super().__init__()
        layers = stack(
            partial(FinerLayer, scale_req_grad=scale_req_grad),
            in_features, hidden_features, hidden_layers, out_features,
            omegas=(first_omega_0, hidden_omega_0), first_bias_scale=first_bias_scale,
            last=lambda: linear_last(hidden_features, out_features, hidden_omega_0),
        )  # fmt: skip
        self.net = nn.Sequential(*layers)

    def forward(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        checks.points("coords", coords, self.net)
        return self.net(coords)
