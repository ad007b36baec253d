"""The classes of COIN++: Sine, SirenLayer, Siren and ModulatedSiren.

Kept: `num_layers` counts all layers; 0.5 is added to the result; in modulations all scales come before all shifts, and
1 is added to each scale. Option: with use_latent=False and modulate_scale=True the original stores scales of 1 and adds
1 again, so the network starts with a scale of 2; identity_scale=True stores 0.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..modulation import Conditioned
from . import checks, coin
from .base import FusedSiren, Layer, evaluate, omega_of
from .lucidrains import Sine

__all__ = ["Bias", "LatentToModulation", "ModulatedSiren", "Sine", "Siren", "SirenLayer"]

OFFSET = 0.5
"""Added to the result, so that targets in [0, 1] lie around zero."""


class SirenLayer(coin.SirenLayer):
    """One layer: a sine layer, or a linear one with 0.5 added.

    Args:
        dim_in: width of the input.
        dim_out: width of the output.
        w0: frequency of the sine, and in the bound of the weights.
        c: constant in the bound of the weights.
        is_first: draws weight and bias as those of a first layer.
        is_last: leaves out the activation and adds 0.5.
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
        is_last: bool = False,
        use_bias: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(dim_in, dim_out, w0, c, is_first, use_bias, activation)
        self.dim_out = dim_out
        self.is_last = is_last

    def forward(self, x: Tensor) -> Tensor:  # [..., dim_in] -> [..., dim_out]
        """Evaluate this layer alone."""
        checks.points("x", x, self.linear.weight)
        return self.linear(x) + OFFSET if self.is_last else super().forward(x)


class Siren(FusedSiren):
    """A SIREN of num_layers layers, whose result is shifted by 0.5.

    Args:
        dim_in: number D of coordinates.
        dim_hidden: width H of the sine layers.
        dim_out: number O of outputs.
        num_layers: number of layers, the last one included.
        w0: frequency of the layers after the first.
        w0_initial: frequency of the first layer.
        use_bias: whether layers have a bias.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import coinpp
        >>> coinpp.Siren(2, 16, 3, num_layers=3)(torch.rand(4, 5, 2)).shape
        torch.Size([4, 5, 3])
    """

    net: Any
    last_layer: Any

    def __init__(
        self,
        dim_in: int,
        dim_hidden: int,
        dim_out: int,
        num_layers: int,
        w0: float = 30.0,
        w0_initial: float = 30.0,
        use_bias: bool = True,
    ) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_hidden=dim_hidden, dim_out=dim_out)
        checks.sizes(2, num_layers=num_layers)
        checks.omegas(w0=w0, w0_initial=w0_initial)
        self.dim_in = dim_in
        self.dim_hidden = dim_hidden
        self.dim_out = dim_out
        self.num_layers = num_layers
        self.net = nn.Sequential(
            *(
                SirenLayer(
                    dim_hidden if i else dim_in, dim_hidden, w0=w0 if i else w0_initial, is_first=i == 0,
                    use_bias=use_bias,
                )
                for i in range(num_layers - 1)
            )
        )  # fmt: skip
        self.last_layer = SirenLayer(dim_hidden, dim_out, w0=w0, use_bias=use_bias, is_last=True)

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last; the shift of the result is part of the last bias."""
        hidden = [Layer(layer.linear, omega_of(layer.activation)) for layer in self.net]
        return [*hidden, Layer(self.last_layer.linear, None, OFFSET)]

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network without modulations."""
        return self.evaluate(x)


class ModulatedSiren(Siren):
    """A SIREN whose sine layers are sin(w0 (scale z + shift)), with scales and shifts from a latent.

    Args:
        dim_in: number D of coordinates.
        dim_hidden: width H of the sine layers.
        dim_out: number O of outputs.
        num_layers: number of layers, the last one included.
        w0: frequency of the layers after the first.
        w0_initial: frequency of the first layer.
        use_bias: whether layers have a bias.
        modulate_scale: whether there are scales.
        modulate_shift: whether there are shifts.
        use_latent: whether a network maps latents to modulations; else a latent is the modulations themselves.
        latent_dim: width of latents.
        modulation_net_dim_hidden: width of that network.
        modulation_net_num_layers: number of its layers.
        identity_scale: stores scales of 0 at the start, in place of 1.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import coinpp
        >>> net = coinpp.ModulatedSiren(2, 16, 3, num_layers=3, use_latent=True, latent_dim=8)
        >>> net.modulated_forward(torch.rand(4, 5, 6, 2), torch.rand(4, 8)).shape
        torch.Size([4, 5, 6, 3])
    """

    called = ("modulation_net",)

    def __init__(
        self,
        dim_in: int,
        dim_hidden: int,
        dim_out: int,
        num_layers: int,
        w0: float = 30.0,
        w0_initial: float = 30.0,
        use_bias: bool = True,
        modulate_scale: bool = False,
        modulate_shift: bool = True,
        use_latent: bool = False,
        latent_dim: int = 64,
        modulation_net_dim_hidden: int = 64,
        modulation_net_num_layers: int = 1,
        *,
        identity_scale: bool = False,
    ) -> None:
        super().__init__(dim_in, dim_hidden, dim_out, num_layers, w0, w0_initial, use_bias)
        if not (modulate_scale or modulate_shift):
            raise AssertionError("modulate_scale, modulate_shift: got neither, expected at least one")
        self.modulate_scale = modulate_scale
        self.modulate_shift = modulate_shift
        self.w0 = w0
        self.w0_initial = w0_initial
        scales = dim_hidden * (num_layers - 1)
        self.num_modulations = scales * (modulate_scale + modulate_shift)
        self.modulation_net: Any
        if use_latent:
            checks.sizes(latent_dim=latent_dim, modulation_net_dim_hidden=modulation_net_dim_hidden)
            checks.sizes(0, modulation_net_num_layers=modulation_net_num_layers)
            self.modulation_net = LatentToModulation(
                latent_dim, self.num_modulations, modulation_net_dim_hidden, modulation_net_num_layers
            )
        else:
            self.modulation_net = Bias(self.num_modulations)
            if modulate_scale and not identity_scale:
                with torch.no_grad():
                    self.modulation_net.bias[:scales] = 1

    def conditioned(self, latent: Tensor) -> Conditioned:
        """One network per latent, which every operator takes.

        Args:
            latent: [B, latent_dim], or the modulations [B, num_modulations] without use_latent.
        """
        checks.tensor("latent", latent, ("...", self.modulation_net.latent_dim))
        pieces = self.modulation_net(latent).split(self.dim_hidden, -1)
        sines = self.num_layers - 1
        modulations = {}
        if self.modulate_scale:
            modulations["scale"] = [scale + 1.0 for scale in pieces[:sines]]
        if self.modulate_shift:
            modulations["shift"] = list(pieces[-sines:])
        return self._modulate(**modulations)

    def modulated_forward(self, x: Tensor, latent: Tensor) -> Tensor:  # [B, ..., D], [B, latent_dim] -> [B, ..., O]
        """Evaluate one network per latent.

        Args:
            x: coordinates of each network, [B, ..., D].
            latent: as in `conditioned`.
        """
        checks.points("x", x, self.net[0].linear.weight)
        if x.ndim < 2:
            raise ValueError(f"x: got shape {tuple(x.shape)}, expected (B, ..., {self.dim_in}), B networks in front")
        rows = x.reshape(len(x), -1, x.shape[-1])
        return evaluate(rows, self.conditioned(latent)).reshape(*x.shape[:-1], self.dim_out)


class LatentToModulation(nn.Module):
    """A ReLU network from latents to modulations.

    Args:
        latent_dim: width of latents.
        num_modulations: width of the result.
        dim_hidden: width of the layers between.
        num_layers: number of layers; 1 is a linear map.
    """

    def __init__(self, latent_dim: int, num_modulations: int, dim_hidden: int, num_layers: int) -> None:
        super().__init__()
        checks.sizes(latent_dim=latent_dim, num_modulations=num_modulations, dim_hidden=dim_hidden)
        checks.sizes(0, num_layers=num_layers)
        self.latent_dim = latent_dim
        self.num_modulations = num_modulations
        self.dim_hidden = dim_hidden
        self.num_layers = num_layers
        self.net: nn.Module
        if num_layers == 1:
            self.net = nn.Linear(latent_dim, num_modulations)
            return
        layers: list[nn.Module] = []
        # The original has two layers at least where it does not have one.
        for i in range(max(num_layers, 2) - 1):
            layers += [nn.Linear(dim_hidden if i else latent_dim, dim_hidden), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(dim_hidden, num_modulations))

    def forward(self, latent: Tensor) -> Tensor:  # [..., latent_dim] -> [..., num_modulations]
        """Modulations of latents."""
        checks.points("latent", latent, self.net)
        return self.net(latent)


class Bias(nn.Module):
    """Modulations that are given as they are, relative to learned ones.

    Args:
        size: number of modulations.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        checks.sizes(size=size)
        self.bias = nn.Parameter(torch.zeros(size))
        self.latent_dim = size

    def forward(self, x: Tensor) -> Tensor:  # [..., size] -> [..., size]
        """Modulations of latents."""
        checks.points("x", x, self.bias)
        return x + self.bias
