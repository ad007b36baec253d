"""What the official SingleBVPNet may have in front of its network: jitter, radial features, positional features."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks


class ImageDownsampling(nn.Module):
    """Jitters coordinates by up to a pixel, so that an expectation over calls is a bilinear blur.

    Args:
        sidelength: size of the image, a number or one per axis; None is for downsample=False.
        downsample: whether to jitter.
    """

    sidelength: Any

    def __init__(self, sidelength: Any, downsample: bool = False) -> None:
        super().__init__()
        if sidelength is None and downsample:
            raise AssertionError("sidelength: got None with downsample=True, expected the size of the image")
        sizes = None if sidelength is None else _sizes("sidelength", sidelength)
        if sizes is not None and not isinstance(sidelength, (list, tuple)):
            sizes = sizes * 2
        # A buffer moves with the module; the original's is no part of the state dict.
        self.register_buffer("sidelength", None if sizes is None else torch.tensor(sizes).float(), persistent=False)
        self.downsample = downsample

    def forward(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., D]
        """Jitter coordinates, if asked for."""
        checks.tensor("coords", coords)
        return coords + self.forward_bilinear(coords) if self.downsample else coords

    def forward_box(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., D]
        """Offsets of a box filter."""
        return 2 * (torch.rand_like(coords) - 0.5) / self.sidelength

    def forward_bilinear(self, coords: Tensor) -> Tensor:  # [..., D] -> [..., D]
        """Offsets of a bilinear filter."""
        left = torch.sqrt(torch.rand_like(coords)) - 1
        right = 1 - torch.sqrt(torch.rand_like(coords))
        return torch.where(torch.rand_like(coords) < 0.5, left, right) / self.sidelength


def _sizes(name: str, given: Any, least: int = 1) -> list[int]:
    """A size per axis, from a number for all axes or a list."""
    sizes = list(given) if isinstance(given, (list, tuple)) else [given]
    for size in sizes:
        checks.sizes(least, **{name: size})
    return sizes


class PosEncodingNeRF(nn.Module):
    """The coordinates with sines and cosines of their multiples by powers of two.

    Args:
        in_features: 1, 2 or 3 coordinates.
        sidelength: size of the image, for 2 coordinates.
        fn_samples: number of samples, for 1 coordinate.
        use_nyquist: whether these set the number of frequencies; else it is 4.
    """

    def __init__(
        self, in_features: int, sidelength: Any = None, fn_samples: int | None = None, use_nyquist: bool = True
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features)
        if in_features > 3:
            raise ValueError(f"in_features: got {in_features}, expected 1, 2 or 3")
        self.in_features = in_features
        if in_features == 3:
            self.num_frequencies = 10
        else:
            name, given = ("sidelength", sidelength) if in_features == 2 else ("fn_samples", fn_samples)
            if given is None:
                raise AssertionError(f"{name}: got None, expected the number of samples per axis")
            # Four samples are the fewest that tell a frequency.
            samples = min(_sizes(name, given, least=4 if use_nyquist else 1))
            self.num_frequencies = self.get_num_frequencies_nyquist(samples) if use_nyquist else 4
        self.out_dim = in_features * (1 + 2 * self.num_frequencies)

    def get_num_frequencies_nyquist(self, samples: int) -> int:
        """Number of frequencies that so many samples tell apart."""
        return math.floor(math.log2(samples / 4))

    def forward(self, coords: Tensor) -> Tensor:  # [B, ..., D] -> [B, N, out_dim]
        """Encode coordinates."""
        checks.tensor("coords", coords, ("...", self.in_features))
        coords = coords.reshape(coords.shape[0], -1, self.in_features)
        powers = torch.pi * 2.0 ** torch.arange(self.num_frequencies, dtype=coords.dtype, device=coords.device)
        phases = powers[:, None] * coords.unsqueeze(-2)  # [B, N, F, D]
        waves = torch.stack([phases.sin(), phases.cos()], -1)
        return torch.cat([coords, waves.flatten(-3)], -1)


class RBFLayer(nn.Module):
    """Radial features exp(-(sigma |x - c|^2)^2) of one batch.

    Args:
        in_features: number D of coordinates.
        out_features: number C of centres.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.centres = nn.Parameter(torch.empty(out_features, in_features))
        self.sigmas = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()
        # Not used by the original either, yet in its state dict.
        self.freq = nn.Parameter(torch.pi * torch.ones(1, out_features))

    def reset_parameters(self) -> None:
        """Draw the centres in [-1, 1]."""
        nn.init.uniform_(self.centres, -1, 1)
        nn.init.constant_(self.sigmas, 10)

    def forward(self, input: Tensor) -> Tensor:  # [1, N, D] -> [1, N, C]
        """Features of the first batch."""
        checks.tensor("input", input, ("B", "N", self.in_features))
        distances = (input[0].unsqueeze(1) - self.centres).square().sum(-1) * self.sigmas
        return self.gaussian(distances).unsqueeze(0)

    def gaussian(self, alpha: Tensor) -> Tensor:  # [...] -> [...]
        """exp(-alpha^2)."""
        return torch.exp(-alpha.square())
