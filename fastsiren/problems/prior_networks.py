"""Networks of "prior": from some pixels of each image to a SIREN per image, by a hypernetwork or by gradient steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ..dropin import functa, official
from ..dropin.official.encoders import Conv2dResBlock
from ..dropin.official.modules import init_weights_normal
from ..modulation import Conditioned

__all__ = [
    "Context",
    "ConvEncoder",
    "HyperPrior",
    "Inferred",
    "LatentPrior",
    "PlainNetworks",
    "PlainPrior",
    "Prior",
    "SetEncoder",
    "values_at",
]


class Context(NamedTuple):
    """What is known of B images: M pixels of each."""

    pixels: Tensor
    """Which, [B, M], counted along rows."""
    x: Tensor
    """Their coordinates, [B, M, 2]."""
    values: Tensor
    """Their samples, [B, M, C]."""


class PlainNetworks(nn.Module):
    """G networks layer by layer in plain torch, by their weights and biases.

    Args:
        given: The networks; any parameter may be shared by all.
        activation: "sine", with the frequency factors of `given`, or "relu".
    """

    def __init__(self, given: Conditioned, activation: str = "sine") -> None:
        super().__init__()
        self.given, self.activation = given, activation

    def forward(self, x: Tensor) -> Tensor:  # [N, D] or [G, N, D] -> [G, N, O]
        """Evaluate every network."""
        weights, biases, omegas = self.given[:3]
        for weight, bias, omega in zip(weights[:-1], biases[:-1], omegas, strict=True):
            z = x @ weight.mT + bias.unsqueeze(-2)
            x = torch.sin(omega * z) if self.activation == "sine" else torch.relu(z)
        return x @ weights[-1].mT + biases[-1].unsqueeze(-2)


def values_at(net: Conditioned | PlainNetworks, x: Tensor) -> Tensor:  # [N, D] -> [G, N, O]
    """Values of many networks at the same points."""
    if isinstance(net, PlainNetworks):
        found: Tensor = net(x)
        return found
    return functional.siren(x, net.weights, net.biases, omegas=net.omegas)


class Inferred(NamedTuple):
    """What a prior makes of a context."""

    net: Conditioned | PlainNetworks
    """A network per image."""
    latent: Tensor
    """[B, L]."""
    predicted: list[Tensor]
    """Parameters that a hypernetwork made, each with an axis of images in front; empty without one."""


class Prior(nn.Module):
    """A space of images: maps a context to a latent per image, and a latent to a network.

    Args:
        omega: Frequency factor of every sine layer.
        activation: "sine", or "relu" for comparison.
    """

    predicts = False
    """Whether the latent decides every parameter of the network."""

    def __init__(self, omega: float, activation: str) -> None:
        super().__init__()
        self.omega, self.activation = omega, activation

    def embed(self, context: Context, *, plain: bool = False) -> Tensor:  # [B, L]
        """Latents of images, by what is known of them."""
        raise NotImplementedError(f"{type(self).__name__}.embed")

    def parameters_of(self, latent: Tensor) -> Conditioned:  # [B, L]
        """Parameters of a network per latent."""
        raise NotImplementedError(f"{type(self).__name__}.parameters_of")

    def networks(self, latent: Tensor, *, plain: bool = False) -> Conditioned | PlainNetworks:  # [B, L]
        """A network per latent; SIRENs are such as every operator of fastsiren takes."""
        return self._evaluated(self.parameters_of(latent), plain)

    def _evaluated(self, found: Conditioned, plain: bool) -> Conditioned | PlainNetworks:
        return PlainNetworks(found, self.activation) if plain or self.activation != "sine" else found

    def forward(self, context: Context, *, plain: bool = False) -> Inferred:
        """Networks and latents of images.

        Args:
            context: What is known of them.
            plain: Whether to do without the fused engine, for comparisons of speed.
        """
        latent = self.embed(context, plain=plain)
        found = self.parameters_of(latent)
        predicted = [*found.weights, *found.biases] if self.predicts else []
        return Inferred(self._evaluated(found, plain), latent, predicted)


class PlainPrior(nn.Module):
    """The parameters of a prior run in plain torch, for comparisons of speed."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, context: Context) -> Inferred:
        """Networks and latents of images."""
        found: Inferred = self.prior(context, plain=True)
        return found


class HyperPrior(Prior):
    """An encoder makes a latent of a context; of that, one ReLU network per tensor makes the parameters of a SIREN.

    Args:
        encoder: Maps a context to latents.
        latent: L.
        width: Hidden units of the networks of the hypernetwork.
        hidden: Units of the sine layers.
        layers: Hidden layers behind the first.
        channels: C.
        omega: Frequency factor of every sine layer.
        activation: "sine", or "relu" for comparison.
    """

    predicts = True

    def __init__(
        self,
        encoder: nn.Module,
        *,
        latent: int,
        width: int,
        hidden: int,
        layers: int,
        channels: int,
        omega: float,
        activation: str = "sine",
    ) -> None:
        super().__init__(omega, activation)
        self.encoder = encoder
        hypo = official.SingleBVPNet(channels, activation, hidden_features=hidden, num_hidden_layers=layers)
        self.hyper = official.HyperNetwork(latent, 1, width, hypo)

    def embed(self, context: Context, *, plain: bool = False) -> Tensor:  # [B, L]
        """The encoder's latents."""
        found: Tensor = self.encoder(context)
        return found

    def parameters_of(self, latent: Tensor) -> Conditioned:  # [B, L]
        """The predicted parameters."""
        found = list(self.hyper(latent).values())
        weights, biases = found[::2], found[1::2]
        return Conditioned(weights, biases, [self.omega] * (len(weights) - 1))


class SetEncoder(nn.Module):
    """The official encoder of sets of pixels: the mean of what a ReLU network makes of each.

    Args:
        inputs: Channels of the images.
        latent: L, and the width of the network.
    """

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.pixels = official.SetEncoder(2 + inputs, latent, 2, latent, nonlinearity="relu")

    def forward(self, context: Context) -> Tensor:  # [B, L]
        """Encode known pixels."""
        found: Tensor = self.pixels(context.x, context.values)
        return found


class ConvEncoder(nn.Module):
    """The official encoder of sparse images at any size: convolutions, then one map of the pixels of every channel.

    With 256 channels, a latent of 256 and images of 32 x 32 pixels it is that of the paper.

    Args:
        inputs: Channels of the images.
        side: Their size.
        channels: Of the convolutions; a divisor of the latent.
        latent: L.
    """

    def __init__(self, inputs: int, side: int, channels: int, latent: int) -> None:
        super().__init__()
        self.side = side
        first, second = nn.Conv2d(inputs, channels // 2, 3, 1, 1), nn.Conv2d(channels // 2, channels, 3, 1, 1)
        blocks = [Conv2dResBlock(channels, channels) for _ in range(4)]
        self.net = nn.Sequential(
            first, nn.ReLU(), second, nn.ReLU(), *blocks, nn.Conv2d(channels, channels, 1, 1, 0), nn.ReLU()
        )
        self.fc = nn.Linear(side * side, latent // channels)

    def forward(self, context: Context) -> Tensor:  # [B, L]
        """Encode images that are 0 where they are not known."""
        count, _, channels = context.values.shape
        sparse = context.values.new_zeros(count, self.side**2, channels)
        sparse = sparse.scatter(1, context.pixels.unsqueeze(-1).expand_as(context.values), context.values)
        planes = sparse.mT.reshape(count, channels, self.side, self.side)
        found: Tensor = self.fc(self.net(planes).flatten(2)).flatten(1)
        return found


class LatentPrior(Prior):
    """One SIREN for all images, with shifts that are a linear function of a latent, as functa has them.

    The latent of an image is found by a few steps of gradient descent on the error of its known pixels. Their start and
    sizes are learnt: training goes through these steps.

    Args:
        latent: L.
        hidden: Units of the sine layers.
        layers: Hidden layers behind the first.
        channels: C.
        omega: Frequency factor of every sine layer.
        inner: Steps while the module is in training mode.
        refine: Steps in evaluation mode.
        rate: Step size to begin with.
        activation: "sine", or "relu" for comparison.
    """

    def __init__(
        self,
        *,
        latent: int,
        hidden: int,
        layers: int,
        channels: int,
        omega: float,
        inner: int,
        refine: int,
        rate: float,
        activation: str = "sine",
    ) -> None:
        super().__init__(omega, activation)
        self.inner, self.refine = inner, refine
        self.siren = functa.LatentModulatedSiren(
            2, hidden, layers + 2, channels, latent, layer_sizes=(), w0=omega, modulate_scale=False
        )
        if activation == "relu":
            self.siren.net.apply(init_weights_normal)
        self.rates = nn.Parameter(torch.full((latent,), rate))

    def embed(self, context: Context, *, plain: bool = False) -> Tensor:  # [B, L]
        """Latents after the steps on the known pixels."""
        with torch.enable_grad():
            latent = self.siren.latent.expand(len(context.x), -1)
            for _ in range(self.inner if self.training else self.refine):
                net = self.networks(latent, plain=plain)
                # The error of each image is its own: the sum of their means.
                loss = len(latent) * (values_at(net, context.x) - context.values).square().mean()
                (slope,) = torch.autograd.grad(loss, latent, create_graph=self.training)
                latent = latent - self.rates * slope
                latent = latent if self.training else latent.detach().requires_grad_()
        return latent if self.training else latent.detach()

    def parameters_of(self, latent: Tensor) -> Conditioned:  # [B, L]
        """The shared SIREN with the shifts of each latent."""
        return self.siren.conditioned(latent)
