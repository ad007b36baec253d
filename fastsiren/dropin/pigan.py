"""The generators of pi-GAN: FiLM networks whose frequencies and phases a mapping network makes of a noise vector.

Kept: frequencies 15 g + 30; 25 in the bounds of initial weights; `output_dim` is ignored, by SPATIALSIRENBASELINE
`input_dim` too, which takes 3 inputs scaled by 2 / 0.24; results are rgb, then density. The eight FiLM layers are one
fused pass per batch, with frequencies and phases folded into weights per sample; the heads are plain torch. What such a
network evaluates depends on the noise, so it has no `siren_parameters`; `conditioned` gives the densities of noise.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..modulation import Conditioned, modulated
from . import checks
from .base import FusedSiren, Layer, draw, evaluate, refuse_hooks, siren_bound, spell

__all__ = ["CustomMappingNetwork", "FiLMLayer", "SPATIALSIRENBASELINE", "TALLSIREN", "UniformBoxWarp"]

OMEGA = 30.0
"""The mean frequency, in whose place those of the noise come."""


class FiLMLayer(nn.Module):
    """sin(freq (W x + b) + phase_shift).

    Args:
        input_dim: width of the input.
        hidden_dim: width of the output.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        checks.sizes(input_dim=input_dim, hidden_dim=hidden_dim)
        self.layer = nn.Linear(input_dim, hidden_dim)

    def forward(self, x: Tensor, freq: Tensor, phase_shift: Tensor) -> Tensor:  # [B, N, n_in] -> [B, N, n_out]
        """Evaluate the layer.

        Args:
            x: points of each sample.
            freq: [B, n_out].
            phase_shift: [B, n_out].
        """
        checks.points("x", x, self.layer.weight)
        for name, given in (("freq", freq), ("phase_shift", phase_shift)):
            checks.tensor(name, given, ("B", self.layer.out_features))
        return torch.sin(freq.unsqueeze(1) * self.layer(x) + phase_shift.unsqueeze(1))


class CustomMappingNetwork(nn.Module):
    """Frequencies and phases of a noise vector.

    Args:
        z_dim: width of the noise.
        map_hidden_dim: width of the layers.
        map_output_dim: width of frequencies and phases together.
    """

    network: Any

    def __init__(self, z_dim: int, map_hidden_dim: int, map_output_dim: int) -> None:
        super().__init__()
        checks.sizes(z_dim=z_dim, map_hidden_dim=map_hidden_dim, map_output_dim=map_output_dim)
        layers: list[nn.Module] = []
        for n_in in (z_dim, map_hidden_dim, map_hidden_dim):
            layers += [nn.Linear(n_in, map_hidden_dim), nn.LeakyReLU(0.2, inplace=True)]
        self.network = nn.Sequential(*layers, nn.Linear(map_hidden_dim, map_output_dim))
        for linear in self.network[::2]:
            nn.init.kaiming_normal_(linear.weight, a=0.2, mode="fan_in", nonlinearity="leaky_relu")
        with torch.no_grad():
            self.network[-1].weight *= 0.25

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # [B, z_dim] -> [B, map_output_dim / 2] twice
        """Frequencies, then phases."""
        checks.points("z", z, self.network)
        frequencies, phase_shifts = self.network(z).chunk(2, -1)
        return frequencies, phase_shifts


class UniformBoxWarp(nn.Module):
    """Scales a box of this side length to [-1, 1].

    Args:
        sidelength: of the box.
    """

    def __init__(self, sidelength: float) -> None:
        super().__init__()
        checks.omegas(sidelength=sidelength)
        self.scale_factor = 2 / sidelength

    def forward(self, coordinates: Tensor) -> Tensor:  # [...] -> [...]
        """Scale coordinates."""
        checks.tensor("coordinates", coordinates)
        return coordinates * self.scale_factor


class TALLSIREN(FusedSiren):
    """Eight FiLM layers, a density head, and a colour head that sees directions.

    Args:
        input_dim: number D of coordinates.
        z_dim: width of the noise.
        hidden_dim: width H.
        output_dim: not used.
        device: kept as an attribute.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import pigan
        >>> net = pigan.TALLSIREN(input_dim=3, z_dim=10, hidden_dim=16)
        >>> net(torch.rand(2, 5, 3), torch.randn(2, 10), torch.rand(2, 5, 3)).shape
        torch.Size([2, 5, 4])
    """

    network: Any
    points = "input"
    called: tuple[str, ...] = ("final_layer", "color_layer_sine", "color_layer_linear", "mapping_network")

    def __init__(
        self, input_dim: int = 2, z_dim: int = 100, hidden_dim: int = 256, output_dim: int = 1, device: Any = None
    ) -> None:
        super().__init__()
        checks.sizes(input_dim=input_dim, z_dim=z_dim, hidden_dim=hidden_dim)
        self.device = device
        self.input_dim = input_dim
        self.z_dim = z_dim
        self.hidden_dim = hidden_dim
        self.output_dim = output_dim
        self.network = nn.ModuleList(FiLMLayer(hidden_dim if i else input_dim, hidden_dim) for i in range(8))
        self.final_layer = nn.Linear(hidden_dim, 1)
        self.color_layer_sine = FiLMLayer(hidden_dim + 3, hidden_dim)
        self.color_layer_linear = self._color_head(hidden_dim)
        self.mapping_network = CustomMappingNetwork(z_dim, 256, (len(self.network) + 1) * hidden_dim * 2)
        for part in (self.network, self.final_layer, self.color_layer_sine, self.color_layer_linear):
            part.apply(_bounded(lambda n_in: siren_bound(n_in, 25, is_first=False)))
        self.network[0].apply(_bounded(lambda n_in: 1 / n_in))

    @staticmethod
    def _color_head(hidden_dim: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(hidden_dim, 3), nn.Sigmoid())

    def siren_layers(self) -> list[Layer]:
        """The FiLM layers.

        Raises:
            TypeError: always, when asked for as the layers of one network.
        """
        raise TypeError("net: is modulated by noise, so there is no one network; use net.conditioned(z) for densities")

    def conditioned(self, z: Tensor) -> Conditioned:  # [B, z_dim]
        """The densities of each noise as a network with one output, which every operator takes."""
        frequencies, phase_shifts = self.mapping_network(z)
        return self._film(frequencies, phase_shifts, Layer(self.final_layer, None))

    def _film(self, frequencies: Tensor, phase_shifts: Tensor, *last: Layer) -> Conditioned:
        """The FiLM layers at g [B, 9 H] and phases [B, 9 H], with another layer behind them."""
        refuse_hooks(self)
        trunk = spell([*(Layer(film.layer, OMEGA) for film in self.network), *last], self.precision)
        frequency, phase = (
            list(rows.split(self.hidden_dim, -1)[:-1]) for rows in (frequencies * 15 + 30, phase_shifts)
        )  # fmt: skip
        return modulated(trunk, frequency=frequency, phase=phase)

    def forward(self, input: Tensor, z: Tensor, ray_directions: Tensor, **kwargs: Any) -> Tensor:
        """Colours and densities of the scenes of some noise.

        Args:
            input: points [B, N, D].
            z: [B, z_dim].
            ray_directions: [B, N, 3].
            kwargs: not used.

        Returns:
            [B, N, 4]: rgb, then density.
        """
        frequencies, phase_shifts = self.mapping_network(z)
        return self.forward_with_frequencies_phase_shifts(input, frequencies, phase_shifts, ray_directions, **kwargs)

    def forward_with_frequencies_phase_shifts(
        self, input: Tensor, frequencies: Tensor, phase_shifts: Tensor, ray_directions: Tensor, **kwargs: Any
    ) -> Tensor:
        """The same from what the mapping network returns.

        Args:
            input: points [B, N, D].
            frequencies: g [B, 9 H]; 15 g + 30 are the frequencies, the last H those of the colour head.
            phase_shifts: [B, 9 H].
            ray_directions: [B, N, 3].
            kwargs: not used.
        """
        checks.tensor("input", input, ("B", "N", self.network[0].layer.in_features))
        checks.tensor("ray_directions", ray_directions, (*input.shape[:-1], 3))
        for name, given in (("frequencies", frequencies), ("phase_shifts", phase_shifts)):
            checks.tensor(name, given, (len(input), (len(self.network) + 1) * self.hidden_dim))
        x = evaluate(input, self._film(frequencies, phase_shifts), self.points)
        freq, phase = (rows[..., -self.hidden_dim :] for rows in (frequencies * 15 + 30, phase_shifts))
        color = self.color_layer_sine(torch.cat([ray_directions, x], -1), freq, phase)
        return torch.cat([self.color_layer_linear(color), self.final_layer(x)], -1)


class SPATIALSIRENBASELINE(TALLSIREN):
    """The generator of pi-GAN's experiments: three coordinates of a box of side 0.24, and a sigmoid behind the colours.

    Args:
        input_dim: not used but as an attribute.
        z_dim: width of the noise.
        hidden_dim: width H.
        output_dim: not used.
        device: kept as an attribute.
    """

    called = (*TALLSIREN.called, "gridwarper")

    def __init__(
        self, input_dim: int = 2, z_dim: int = 100, hidden_dim: int = 256, output_dim: int = 1, device: Any = None
    ) -> None:
        super().__init__(3, z_dim, hidden_dim, output_dim, device)
        self.input_dim = input_dim
        self.gridwarper = UniformBoxWarp(0.24)

    @staticmethod
    def _color_head(hidden_dim: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(hidden_dim, 3))

    def conditioned(self, z: Tensor) -> Conditioned:  # [B, z_dim]
        """The densities of each noise as a network with one output, which every operator takes."""
        found = super().conditioned(z)
        first, *others = found.weights
        return found._replace(weights=[first * self.gridwarper.scale_factor, *others])

    def forward_with_frequencies_phase_shifts(
        self, input: Tensor, frequencies: Tensor, phase_shifts: Tensor, ray_directions: Tensor, **kwargs: Any
    ) -> Tensor:
        """Colours and densities from what the mapping network returns; arguments as in TALLSIREN."""
        checks.points("input", input, self.network[0].layer.weight)
        found = super().forward_with_frequencies_phase_shifts(
            self.gridwarper(input), frequencies, phase_shifts, ray_directions, **kwargs
        )
        return torch.cat([found[..., :3].sigmoid(), found[..., 3:]], -1)


def _bounded(bound: Callable[[int], float]) -> Callable[[nn.Module], None]:
    def initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            draw(module, bound(module.in_features))

    return initialize
