"""The SIREN of the WIRE repository, as its get_INR("siren", ...) makes it.

Kept: `scale`, `sidelength`, `fn_samples` and `use_nyquist` are taken and not used. Differs: pos_encode=True is a clear
error, where the original fails for want of an attribute.
"""

from typing import Any

from torch import Tensor, nn

from .base import SineLayer as _SineLayer
from .base import SineStack, linear_last, stack

__all__ = ["INR", "SineLayer"]


class SineLayer(_SineLayer):
    """sin(omega_0 (W x + b)).

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias.
        is_first: draws the weights as those of a first layer.
        omega_0: frequency factor.
        scale: not used.
        init_weights: False keeps the weights that nn.Linear draws.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        is_first: bool = False,
        omega_0: float = 30,
        scale: float = 10.0,
        init_weights: bool = True,
    ) -> None:
        self._drawn = init_weights
        super().__init__(in_features, out_features, bias, is_first, omega_0)

    def init_weights(self) -> None:
        """Draw the weights anew."""
        if self.__dict__.pop("_drawn", True):
            super().init_weights()


class INR(SineStack):
    """A SIREN that takes coordinates as they are and returns a tensor.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of the sine layers.
        hidden_layers: number of H x H layers.
        out_features: number O of outputs.
        outermost_linear: whether the last layer is linear.
        first_omega_0: omega of the first layer.
        hidden_omega_0: omega of the other layers.
        scale: not used.
        pos_encode: must be false.
        sidelength: not used.
        fn_samples: not used.
        use_nyquist: not used.

    Raises:
        ValueError: pos_encode is true.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import wire
        >>> wire.INR(2, 16, 1, 3)(torch.rand(1, 5, 2)).shape
        torch.Size([1, 5, 3])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        outermost_linear: bool = True,
        first_omega_0: float = 30,
        hidden_omega_0: float = 30.0,
        scale: float = 10.0,
        pos_encode: bool = False,
        sidelength: Any = 512,
        fn_samples: Any = None,
        use_nyquist: bool = True,
    ) -> None:
        super().__init__()
        if pos_encode:
            raise ValueError("pos_encode: got True, expected False: this network has no positional encoding")
        self.pos_encode = pos_encode
        self.nonlin = SineLayer

        def last() -> nn.Module:
            return linear_last(hidden_features, out_features, max(hidden_omega_0, 1e-12))

        layers = stack(
            SineLayer, in_features, hidden_features, hidden_layers, out_features,
            omegas=(first_omega_0, hidden_omega_0),
            last=last if outermost_linear else None,
        )  # fmt: skip
        self.net = nn.Sequential(*layers)

    def forward(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        return self.evaluate(coords)
