"""SIRENs modulated as in functa, in PyTorch: a scale and a shift per neuron, given directly or made of a latent.

The originals are JAX; names and defaults are theirs, and `in_features` stands in front, which Haiku finds by itself.
Kept: one omega, 1 by default, for all layers; `depth` counts all layers; biases start at 0; 0.5 is added to the result;
from a latent, each layer's scale and shift follow one another and 1 is added to scales, while direct scales start at 1.
Differs: `use_meta_sgd`, which concerns the optimiser, is refused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..engine.values import listed
from ..init import initialize
from ..modulation import Conditioned, modulated
from . import checks
from .base import FusedSiren, Layer, evaluate
from .meta import Params

__all__ = ["LatentModulatedSiren", "LatentToModulation", "ModulatedSiren"]

OFFSET = 0.5


class _Modulated(FusedSiren):
    """A SIREN with scales and shifts on its sine layers."""

    called = ("latent_to_modulation",)
    points = "coords"

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_channels: int,
        w0: float,
        modulate_scale: bool,
        modulate_shift: bool,
        use_meta_sgd: bool,
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, width=width, out_channels=out_channels)
        checks.sizes(2, depth=depth)
        checks.omegas(w0=w0)
        if not (modulate_scale or modulate_shift):
            raise ValueError("modulate_scale, modulate_shift: got neither, expected at least one")
        if use_meta_sgd:
            raise ValueError("use_meta_sgd: got True, expected False: learned step sizes belong to the optimiser")
        self.width, self.depth, self.out_channels, self.w0 = width, depth, out_channels, w0
        self.modulate_scale, self.modulate_shift = modulate_scale, modulate_shift
        widths = [in_features, *[width] * (depth - 1), out_channels]
        self.net = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(depth))
        initialize(list(self.net), "functa", hidden_omega_0=w0)  # type: ignore[arg-type]

    def modulations(self) -> dict[str, list[Tensor]]:
        """Lists scale and shift, one entry per sine layer."""
        raise NotImplementedError(f"{type(self).__name__}.modulations")

    def siren_layers(self) -> list[Layer]:
        """The layers without modulations, first to last."""
        return [*(Layer(linear, self.w0) for linear in self.net[:-1]), Layer(self.net[-1], None, OFFSET)]

    def siren_parameters(self, params: Params | None = None) -> Conditioned:
        """The modulated network as it is now.

        Args:
            params: takes the place of the module's own weights and biases, not of its modulations.
        """
        return modulated(super().siren_parameters(params), **self.modulations())

    def forward(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the modulated network."""
        return self.evaluate(coords)


class ModulatedSiren(_Modulated):
    """A SIREN with learned scales and shifts.

    Args:
        in_features: number D of coordinates.
        width: width H of the sine layers.
        depth: number of layers, the last one included.
        out_channels: number O of outputs.
        w0: frequency of all layers.
        modulate_scale: whether there are scales.
        modulate_shift: whether there are shifts.
        use_meta_sgd: must be false.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import functa
        >>> functa.ModulatedSiren(2, width=16, depth=3, w0=30.0)(torch.rand(4, 5, 2)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(
        self,
        in_features: int,
        width: int = 256,
        depth: int = 5,
        out_channels: int = 3,
        w0: float = 1.0,
        modulate_scale: bool = True,
        modulate_shift: bool = True,
        use_meta_sgd: bool = False,
    ) -> None:
        super().__init__(in_features, width, depth, out_channels, w0, modulate_scale, modulate_shift, use_meta_sgd)
        if modulate_scale:
            self.scale = nn.ParameterList(torch.ones(width) for _ in range(depth - 1))
        if modulate_shift:
            self.shift = nn.ParameterList(torch.zeros(width) for _ in range(depth - 1))

    def modulations(self) -> dict[str, list[Tensor]]:
        """Lists scale and shift, one entry [H] per sine layer."""
        kinds = [name for name in ("scale", "shift") if getattr(self, f"modulate_{name}")]
        return {name: list(getattr(self, name)) for name in kinds}


class LatentToModulation(nn.Module):
    """A ReLU network from a latent to modulations.

    Args:
        latent_dim: width of the latent.
        layer_sizes: widths of the layers between.
        width: width H of the sine layers.
        num_modulation_layers: number of sine layers.
        modulate_scale: whether there are scales.
        modulate_shift: whether there are shifts.
    """

    def __init__(
        self,
        latent_dim: int,
        layer_sizes: Sequence[int],
        width: int,
        num_modulation_layers: int,
        modulate_scale: bool = True,
        modulate_shift: bool = True,
    ) -> None:
        super().__init__()
        layer_sizes = listed("layer_sizes", layer_sizes, "ints")
        checks.sizes(latent_dim=latent_dim, width=width, num_modulation_layers=num_modulation_layers)
        for size in layer_sizes:
            checks.sizes(layer_sizes=size)
        self.kinds = [name for name, wanted in (("scale", modulate_scale), ("shift", modulate_shift)) if wanted]
        self.width = width
        widths = [latent_dim, *layer_sizes]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(widths, layer_sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-1], width * num_modulation_layers * len(self.kinds)))

    def forward(self, latent: Tensor) -> dict[str, list[Tensor]]:  # [..., latent_dim] -> entries [..., H]
        """Lists scale and shift, one entry per sine layer."""
        checks.points("latent", latent, self.net)
        pieces, step = self.net(latent).split(self.width, -1), len(self.kinds)
        found = {name: list(pieces[i::step]) for i, name in enumerate(self.kinds)}
        if "scale" in found:
            found["scale"] = [scale + 1 for scale in found["scale"]]
        return found


class LatentModulatedSiren(_Modulated):
    """A SIREN whose scales and shifts come from a learned latent, or from a batch of them.

    Args:
        in_features: number D of coordinates.
        width: width H of the sine layers.
        depth: number of layers, the last one included.
        out_channels: number O of outputs.
        latent_dim: width of the latent.
        layer_sizes: widths of the network from latent to modulations.
        w0: frequency of all layers.
        modulate_scale: whether there are scales.
        modulate_shift: whether there are shifts.
        latent_init_scale: bound of the initial latent.
        use_meta_sgd: must be false.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import functa
        >>> net = functa.LatentModulatedSiren(2, width=16, depth=3, latent_dim=8, layer_sizes=(12,))
        >>> net.modulated_forward(torch.rand(4, 5, 2), torch.rand(4, 8)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(
        self,
        in_features: int,
        width: int = 256,
        depth: int = 5,
        out_channels: int = 3,
        latent_dim: int = 64,
        layer_sizes: Sequence[int] = (256, 512),
        w0: float = 1.0,
        modulate_scale: bool = True,
        modulate_shift: bool = True,
        latent_init_scale: float = 0.01,
        use_meta_sgd: bool = False,
    ) -> None:
        super().__init__(in_features, width, depth, out_channels, w0, modulate_scale, modulate_shift, use_meta_sgd)
        checks.sizes(latent_dim=latent_dim)
        checks.bounds(latent_init_scale=latent_init_scale)
        self.latent = nn.Parameter(torch.empty(latent_dim).uniform_(-latent_init_scale, latent_init_scale))
        self.latent_to_modulation = LatentToModulation(
            latent_dim, layer_sizes, width, depth - 1, modulate_scale, modulate_shift
        )

    def modulations(self) -> dict[str, list[Tensor]]:
        """Lists scale and shift of the module's own latent, one entry [H] per sine layer."""
        return self.latent_to_modulation(self.latent)

    def conditioned(self, latent: Tensor) -> Conditioned:  # [B, latent_dim]
        """One network per latent, which every operator takes."""
        return modulated(FusedSiren.siren_parameters(self), **self.latent_to_modulation(latent))

    def modulated_forward(self, coords: Tensor, latent: Tensor) -> Tensor:  # [B, N, D], [B, latent_dim] -> [B, N, O]
        """Evaluate one network per latent.

        Args:
            coords: coordinates of each network, or [N, D] for all of them.
            latent: [B, latent_dim].
        """
        return evaluate(coords, self.conditioned(latent), "coords")
