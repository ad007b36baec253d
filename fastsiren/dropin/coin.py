"""The classes of COIN: Sine, SirenLayer and Siren.

Kept: biases are drawn as narrow as weights, over the draw of nn.Linear; coordinates are not detached. The whole model
can be called in half precision, also on CPUs.
"""

from typing import Any

from torch import Tensor, nn

from . import checks
from .base import Layer, WithLastLayer, draw, omega_of, siren_bound
from .lucidrains import Sine

__all__ = ["Sine", "Siren", "SirenLayer"]


class SirenLayer(nn.Module):
    """One layer: activation(W x + b).

    Args:
        dim_in: width of the input.
        dim_out: width of the output.
        w0: frequency of the sine, and in the bound of the weights.
        c: constant in the bound of the weights.
        is_first: draws weight and bias as those of a first layer.
        use_bias: whether there is a bias.
        activation: in place of the sine.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        w0: float = 30.0,
        c: float = 6.0,
        is_first: bool = False,
        use_bias: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_out=dim_out)
        checks.omegas(w0=w0)
        checks.bounds(c=c)
        checks.function("activation", activation)
        self.dim_in = dim_in
        self.is_first = is_first
        self.linear = nn.Linear(dim_in, dim_out, bias=use_bias)
        draw(self.linear, siren_bound(dim_in, w0, is_first=is_first, c=c), bias=True)
        self.activation = Sine(w0) if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:  # [..., dim_in] -> [..., dim_out]
        """Evaluate this layer alone."""
        checks.points("x", x, self.linear.weight)
        return self.activation(self.linear(x))


class Siren(WithLastLayer):
    """A SIREN of num_layers + 1 layers.

    Args:
        dim_in: number D of coordinates.
        dim_hidden: width H of the sine layers.
        dim_out: number O of outputs.
        num_layers: number of sine layers.
        w0: frequency of the layers after the first.
        w0_initial: frequency of the first layer.
        use_bias: whether layers have a bias.
        final_activation: of the last layer; None leaves it linear.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import coin
        >>> net = coin.Siren(2, 16, 3, num_layers=2, final_activation=torch.nn.Sigmoid())
        >>> net.half()(torch.rand(5, 2).half()).dtype
        torch.float16
    """

    net: Any

    def __init__(
        self,
        dim_in: int,
        dim_hidden: int,
        dim_out: int,
        num_layers: int,
        w0: float = 30.0,
        w0_initial: float = 30.0,
        use_bias: bool = True,
        final_activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_hidden=dim_hidden, dim_out=dim_out, num_layers=num_layers)
        checks.omegas(w0=w0, w0_initial=w0_initial)
        checks.function("final_activation", final_activation)
        self.net = nn.Sequential(
            *(
                SirenLayer(
                    dim_hidden if i else dim_in, dim_hidden, w0=w0 if i else w0_initial, is_first=i == 0,
                    use_bias=use_bias,
                )
                for i in range(num_layers)
            )
        )  # fmt: skip
        final = nn.Identity() if final_activation is None else final_activation
        self.last_layer = SirenLayer(dim_hidden, dim_out, w0=w0, use_bias=use_bias, activation=final)

    def hidden(self) -> list[Layer]:
        """The sine layers."""
        return [Layer(layer.linear, omega_of(layer.activation)) for layer in self.net]

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        return self.evaluate(x)
