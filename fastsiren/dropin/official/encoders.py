"""Encoders of the official hypernetworks, in plain torch: of sets of pixels, and of sparse images of 32 x 32."""

from typing import Any

import torch
from torch import Tensor, nn

from ...engine.values import described
from .. import checks
from .modules import Sine, init_weights_normal, sine_init


def known(name: str, given: str) -> None:
    """Raise, as the original does, unless an argument names the activation of an encoder."""
    if not isinstance(given, str) or given not in ("relu", "sine"):
        raise AssertionError(f"{name}: got {described(given)}, expected 'relu' or 'sine'")


class SetEncoder(nn.Module):
    """The mean embedding of a set of observations.

    Args:
        in_features: width of an observation.
        out_features: width of the embedding.
        num_hidden_layers: number of H x H layers.
        hidden_features: width H.
        nonlinearity: "relu" or "sine".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_hidden_layers: int,
        hidden_features: int,
        nonlinearity: str = "relu",
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features, hidden_features=hidden_features)
        checks.sizes(0, num_hidden_layers=num_hidden_layers)
        known("nonlinearity", nonlinearity)
        activation, rule = (
            (nn.ReLU(inplace=True), init_weights_normal) if nonlinearity == "relu" else (Sine(), sine_init)
        )
        # In the order of the original, which is that of the draws.
        layers: list[nn.Module] = [nn.Linear(in_features, hidden_features), activation]
        for _ in range(num_hidden_layers):
            layers.append(nn.Sequential(nn.Linear(hidden_features, hidden_features), activation))
        self.net = nn.Sequential(*layers, nn.Linear(hidden_features, out_features), activation)
        self.net.apply(rule)

    def forward(self, context_x: Tensor, context_y: Tensor, ctxt_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The mean over observations, of those in the mask.

        Args:
            context_x: coordinates [B, M, D].
            context_y: values [B, M, C].
            ctxt_mask: [B, M, 1], 1 for observations that count.
            kwargs: not used.
        """
        checks.tensor("context_x", context_x, ("...", "M", "D"))
        checks.tensor("context_y", context_y, (*context_x.shape[:-1], "C"))
        found, wanted = (context_x.shape[-1], context_y.shape[-1]), self.net[0].in_features
        if sum(found) != wanted:
            raise ValueError(f"context_x, context_y: got widths {found}, expected {wanted} together")
        embeddings = self.net(torch.cat((context_x, context_y), dim=-1))
        if ctxt_mask is None:
            return embeddings.mean(dim=-2)
        checks.tensor("ctxt_mask", ctxt_mask, (*context_x.shape[:-1], 1))
        return (embeddings * ctxt_mask).sum(dim=-2) / ctxt_mask.sum(dim=-2)


class Conv2dResBlock(nn.Module):
    """Two convolutions of 5 x 5 around which the input is added.

    Args:
        in_channel: channels of the input.
        out_channel: channels of the result, as many.
    """

    def __init__(self, in_channel: int, out_channel: int = 128) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channel, out_channel, 5, 1, 2),
            nn.ReLU(),
            nn.Conv2d(out_channel, out_channel, 5, 1, 2),
            nn.ReLU(),
        )
        self.final_relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        """Evaluate the block."""
        return self.final_relu(self.convs(x) + x)


class ConvImgEncoder(nn.Module):
    """The embedding of an image of 32 x 32 pixels, 256 numbers.

    Args:
        channel: channels of the image.
        image_resolution: kept as an attribute.
    """

    def __init__(self, channel: int, image_resolution: Any) -> None:
        super().__init__()
        checks.sizes(channel=channel)
        self.conv_theta = nn.Conv2d(channel, 128, 3, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        first = nn.Conv2d(128, 256, 3, 1, 1)
        blocks = [Conv2dResBlock(256, 256) for _ in range(4)]
        self.cnn = nn.Sequential(first, nn.ReLU(), *blocks, nn.Conv2d(256, 256, 1, 1, 0))
        self.relu_2 = nn.ReLU(inplace=True)
        self.fc = nn.Linear(1024, 1)
        self.image_resolution = image_resolution

    def forward(self, I: Tensor) -> Tensor:  # [B, C, 32, 32] -> [B, 256]
        """Encode an image."""
        checks.tensor("I", I, ("B", self.conv_theta.in_channels, 32, 32))
        features = self.relu_2(self.cnn(self.relu(self.conv_theta(I))))
        return self.fc(features.flatten(2)).squeeze(-1)


class PartialConv2d(nn.Conv2d):
    """A convolution over the observed pixels of each window, scaled by the size of the window over their number."""

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:  # [B, C, H, W] -> [B, C', H', W']
        """Convolve.

        Args:
            input: the image.
            mask: [B, 1, H, W], 1 for observed pixels; None observes all of them, so that it is the rim that scales.
        """
        with torch.no_grad():
            observed = input.new_ones(1, 1, *input.shape[2:]) if mask is None else mask
            window = input.new_ones(1, 1, *self.kernel_size)
            count = nn.functional.conv2d(observed, window, None, self.stride, self.padding, self.dilation)
            ratio = window.numel() / (count + 1e-8) * count.clamp(0, 1)
        return super().forward(input if mask is None else input * mask) * ratio


class BasicBlock(nn.Module):
    """Two partial convolutions of 3 x 3 with batch norms around which the input is added.

    Args:
        inplanes: channels of the input.
        planes: channels of the result, as many.
    """

    def __init__(self, inplanes: int, planes: int) -> None:
        super().__init__()
        self.conv1 = PartialConv2d(inplanes, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = PartialConv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H, W]
        """Evaluate the block."""
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class PartialConvImgEncoder(nn.Module):
    """The embedding of a sparse image of 32 x 32 pixels, 256 numbers; pixels above 0 in the first channel are observed.

    Args:
        channel: channels of the image.
        image_resolution: kept as an attribute.
    """

    def __init__(self, channel: int, image_resolution: Any) -> None:
        super().__init__()
        checks.sizes(channel=channel)
        self.conv1 = PartialConv2d(channel, 256, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(256)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = (BasicBlock(256, 256) for _ in range(4))
        self.image_resolution = image_resolution
        self.channel = channel
        self.fc = nn.Linear(1024, 1)
        for module in self.modules():
            if isinstance(module, PartialConv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, I: Tensor) -> Tensor:  # [B, C, 32, 32] -> [B, 256]
        """Encode an image."""
        checks.tensor("I", I, ("B", self.channel, 32, 32))
        x = self.relu(self.bn1(self.conv1(I, (I[:, :1] > 0).to(I.dtype))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.flatten(2)).squeeze(-1)
