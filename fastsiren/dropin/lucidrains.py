"""The classes of siren-pytorch: Sine, Siren (a layer), SirenNet, Modulator and SirenWrapper.

Kept: omega is 1 in hidden layers; biases are drawn as narrow as weights; coordinates are not detached; modulations
multiply the sines of all layers but the last. Options: SirenWrapper(persistent_grid=False) leaves the grid out of the
state dict (files of siren-pytorch 0.1.5 and older hold it with height and width swapped). Differs: Modulator and
SirenWrapper take batches of latents, which the original refuses; a number of modulations other than num_layers is an
error, where the original leaves layers out. Modulations that differ between points, and dropout in training, run layer
by layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.values import described, number
from ..modulation import Conditioned
from . import checks
from .base import Layer, WithLastLayer, draw, omega_of, siren_bound
from .meta import Params

__all__ = ["Modulator", "Sine", "Siren", "SirenNet", "SirenWrapper"]


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
        """Evaluate the sine."""
        checks.tensor("x", x)
        return torch.sin(self.w0 * x)


class Siren(nn.Module):
    """One layer: activation(W x + b), then dropout.

    Args:
        dim_in: width of the input.
        dim_out: width of the output.
        w0: frequency of the sine, and in the bound of the weights.
        c: constant in the bound of the weights.
        is_first: draws weight and bias as those of a first layer.
        use_bias: whether there is a bias.
        activation: in place of the sine.
        dropout: probability.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        w0: float = 1.0,
        c: float = 6.0,
        is_first: bool = False,
        use_bias: bool = True,
        activation: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_out=dim_out)
        checks.omegas(w0=w0)
        checks.bounds(c=c)
        checks.function("activation", activation)
        _check_dropout(dropout)
        self.dim_in = dim_in
        self.is_first = is_first
        self.dim_out = dim_out
        self.weight = nn.Parameter(torch.empty(dim_out, dim_in))
        self.bias = nn.Parameter(torch.empty(dim_out)) if use_bias else None
        draw(self, siren_bound(dim_in, w0, is_first=is_first, c=c), bias=True)
        self.activation = Sine(w0) if activation is None else activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:  # [..., dim_in] -> [..., dim_out]
        """Evaluate this layer alone."""
        checks.points("x", x, self.weight)
        return self.dropout(self.activation(nn.functional.linear(x, self.weight, self.bias)))


def _check_dropout(dropout: float) -> None:
    if not 0 <= number("dropout", dropout) <= 1:
        raise ValueError(f"dropout: got {dropout}, expected a probability in [0, 1]")


class SirenNet(WithLastLayer):
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
        dropout: probability, behind every sine.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import lucidrains
        >>> lucidrains.SirenNet(2, 16, 3, num_layers=2)(torch.rand(5, 2)).shape
        torch.Size([5, 3])
    """

    layers: Any

    def __init__(
        self,
        dim_in: int,
        dim_hidden: int,
        dim_out: int,
        num_layers: int,
        w0: float = 1.0,
        w0_initial: float = 30.0,
        use_bias: bool = True,
        final_activation: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_hidden=dim_hidden, dim_out=dim_out, num_layers=num_layers)
        checks.omegas(w0=w0, w0_initial=w0_initial)
        checks.function("final_activation", final_activation)
        _check_dropout(dropout)
        self.num_layers = num_layers
        self.dim_hidden = dim_hidden
        self.layers = nn.ModuleList(
            Siren(
                dim_hidden if i else dim_in, dim_hidden, w0=w0 if i else w0_initial, is_first=i == 0,
                use_bias=use_bias, dropout=dropout,
            )
            for i in range(num_layers)
        )  # fmt: skip
        final = nn.Identity() if final_activation is None else final_activation
        self.last_layer = Siren(dim_hidden, dim_out, w0=w0, use_bias=use_bias, activation=final)

    def hidden(self) -> list[Layer]:
        """The sine layers."""
        return [Layer(layer, omega_of(layer.activation)) for layer in self.layers]

    def siren_parameters(self, params: Params | None = None) -> Conditioned:
        """The network as it is now.

        Raises:
            RuntimeError: an inner module has hooks, or dropout is active.
            TypeError: the final activation is no part of a SIREN.
        """
        if self._drops():
            raise RuntimeError("dropout: is active, and no pass of fastsiren has it; call eval() first")
        return super().siren_parameters(params)

    def _drops(self) -> bool:
        return any(module.training and module.p for module in self.modules() if isinstance(module, nn.Dropout))

    def conditioned(self, mods: Tensor | Sequence[Tensor]) -> Conditioned:
        """The modulated network, which every operator takes.

        Args:
            mods: as in `forward`, each [H], or [B, H] or [B, 1, H] for B networks.

        Raises:
            TypeError: the final activation is no part of a SIREN.
            ValueError: there are not as many modulations as sine layers, or one differs between points.
        """
        return self._modulate(gain=self._gain(mods))

    def _gain(self, mods: Tensor | Sequence[Tensor]) -> list[Any]:
        gain: list[Any] = list(mods) if isinstance(mods, tuple) else [mods] * self.num_layers
        if len(gain) != self.num_layers:
            raise ValueError(f"mods: got {len(gain)} of them, expected {self.num_layers}, one per sine layer")
        for mod in gain:
            checks.tensor("mods", mod)
            if mod.ndim and mod.shape[-1] not in (1, self.dim_hidden):
                raise ValueError(f"mods: got shape {tuple(mod.shape)}, expected (..., {self.dim_hidden})")
        return gain

    def forward(self, x: Tensor, mods: Tensor | Sequence[Tensor] | None = None) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network.

        Args:
            x: coordinates [..., D].
            mods: a tuple with one tensor per sine layer, each a factor on its sines, [H] or broadcast against [..., H];
                one tensor that is no tuple serves all layers.

        Raises:
            ValueError: there are not as many modulations as sine layers.
        """
        gain = None if mods is None else self._gain(mods)
        if not self._drops():
            return self.evaluate(x) if gain is None else self.evaluate(x, gain=gain)
        for i, layer in enumerate(self.layers):
            x = layer(x) if gain is None else layer(x) * gain[i]
        return self.last_layer(x)


class Modulator(nn.Module):
    """Modulations of a latent: ReLU layers, of which all but the first see the latent again.

    Args:
        dim_in: width of the latent.
        dim_hidden: width of the modulations.
        num_layers: number of layers.
    """

    def __init__(self, dim_in: int, dim_hidden: int, num_layers: int) -> None:
        super().__init__()
        checks.sizes(dim_in=dim_in, dim_hidden=dim_hidden, num_layers=num_layers)
        widths = [dim_in, *[dim_hidden + dim_in] * (num_layers - 1)]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, dim_hidden), nn.ReLU()) for width in widths)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:  # [..., dim_in] -> num_layers times [..., dim_hidden]
        """Modulations of each sine layer."""
        checks.points("z", z, self.layers)
        found: list[Tensor] = []
        for layer in self.layers:
            found.append(layer(torch.cat([found[-1], z], -1) if found else z))
        return tuple(found)


class SirenWrapper(nn.Module):
    """A SirenNet on the grid of an image.

    Args:
        net: the network.
        image_width: W.
        image_height: H.
        latent_dim: width of latents, which a Modulator maps to modulations; None for none.
        persistent_grid: whether the grid is part of the state dict.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import lucidrains
        >>> wrapper = lucidrains.SirenWrapper(lucidrains.SirenNet(2, 16, 3, num_layers=2), 5, 4)
        >>> wrapper().shape, wrapper(torch.rand(1, 3, 4, 5)).shape
        (torch.Size([1, 3, 4, 5]), torch.Size([]))
    """

    grid: Tensor

    def __init__(
        self,
        net: SirenNet,
        image_width: int,
        image_height: int,
        latent_dim: int | None = None,
        *,
        persistent_grid: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(net, SirenNet):
            raise TypeError(f"net: got {described(net)}, expected a SirenNet")
        checks.sizes(image_width=image_width, image_height=image_height)
        if latent_dim is not None:
            checks.sizes(latent_dim=latent_dim)
        self.net = net
        self.image_width = image_width
        self.image_height = image_height
        self.modulator = None if latent_dim is None else Modulator(latent_dim, net.dim_hidden, net.num_layers)
        axes = [torch.linspace(-1, 1, steps=steps) for steps in (image_height, image_width)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
        self.register_buffer("grid", grid, persistent=persistent_grid)

    def siren_parameters(self) -> Conditioned:
        """The network as it is now.

        Raises:
            TypeError: the network is modulated by latents.
        """
        if self.modulator is not None:
            raise TypeError("net: is modulated by latents, so there is no one network; use wrapper.conditioned(latent)")
        return self.net.siren_parameters()

    def conditioned(self, latent: Tensor) -> Conditioned:  # [latent_dim] or [B, latent_dim]
        """The network of a latent, or one per latent, which every operator takes.

        Raises:
            TypeError: the network is not modulated by latents.
        """
        if self.modulator is None:
            raise TypeError("latent: got one, but latent_dim was not given; use wrapper itself")
        checks.points("latent", latent, self.modulator)
        return self.net.conditioned(self.modulator(latent))

    def forward(self, img: Tensor | None = None, *, latent: Tensor | None = None) -> Tensor:
        """The image (B, C, H, W), with B = 1 without a batch of latents, or its mean squared error to another one.

        Args:
            img: another image, (B, C, H, W).
            latent: [latent_dim] or [B, latent_dim], exactly when latent_dim was given.
        """
        if (self.modulator is None) != (latent is None):
            said = "None" if latent is None else described(latent)
            raise ValueError(f"latent: got {said}, expected a tensor exactly when latent_dim was given")
        if latent is not None and self.modulator is not None:
            checks.points("latent", latent, self.modulator)
        coords = self.grid.clone().detach().requires_grad_()
        mods = None if self.modulator is None else self.modulator(latent)
        if mods is not None and mods[0].ndim == 2:
            mods, coords = tuple(mod.unsqueeze(1) for mod in mods), coords.unsqueeze(0)
        points = self.net(coords, mods)
        image = points.unflatten(-2, (self.image_height, self.image_width)).movedim(-1, -3)
        image = image if image.ndim == 4 else image.unsqueeze(0)
        if img is not None:
            checks.tensor("img", img, ("B", *image.shape[1:]))
        return image if img is None else nn.functional.mse_loss(img, image)
