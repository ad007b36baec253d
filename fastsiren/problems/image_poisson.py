"""The experiments "image-gradient" and "image-laplacian": a picture from its derivatives alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from .. import images
from ..fit import Shuffle, operators, option, settings
from ..images import Picture, psnr
from ..render.tiles import tiles
from . import cosines
from .data import photograph, scaled
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source, solve
from .metrics import picture_figures
from .pictures import curves, grey, save, sheet, signed
from .plain_networks import plain_networks

__all__ = ["GradientSettings", "ImageGradient", "ImageLaplacian", "LaplacianSettings", "fit_gradient", "fit_laplacian"]


@dataclass(frozen=True)
class GradientSettings(settings.Settings):
    """How a picture is found from its gradient.

    The defaults gave the best PSNR per second of several: the loss weighs a wave of frequency k by k², so that slow
    changes of brightness are learnt last. A lower omega, and a picture of little contrast help those.
    """

    side: int = option(256, "pixels of the longer side, to which a larger picture is reduced", least=8, fixed=True)
    blur: float = option(0.0, "standard deviation in pixels of a Gaussian on the picture", least=0, fixed=True)
    contrast: float = option(0.03, "the network holds the picture, in [-1, 1], times this", fixed=True)
    steps: int = option(4200, "training steps", least=1)
    hidden: int = option(128, "width of the sine layers", least=1, fixed=True)
    omega: float = option(10.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(4096, "pixels per step", least=1)


@dataclass(frozen=True)
class LaplacianSettings(GradientSettings):
    """How a picture is found from its Laplacian.

    The loss weighs a wave of frequency k by k⁴: a little blur takes away the finest, which would drown the rest.
    """

    side: int = option(128, "pixels of the longer side, to which a larger picture is reduced", least=8, fixed=True)
    blur: float = option(1.0, "standard deviation in pixels of a Gaussian on the picture", least=0, fixed=True)
    contrast: float = option(0.1, "the network holds the picture, in [-1, 1], times this", fixed=True)
    steps: int = option(8000, "training steps", least=1)
    omega: float = option(6.0, "frequency factor of every sine layer", fixed=True)
    batch: int = option(2048, "pixels per step", least=1)
    border: float = option(10.0, "weight of the values at the border; 0 leaves them free", least=0)


class _FromDerivative(Experiment):
    """A picture from a derivative of it.

    Args:
        settings: How it is found.
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
    """

    data = "picture"
    merit = "PSNR"
    sources = (Source("image", "picture to take derivatives of (default: the camera of scikit-image)"),)
    measured = 12
    kind: ClassVar[str]
    """The derivative that is given: gradient or laplacian."""

    def __init__(self, settings: Any, picture: str | os.PathLike[str] | Picture | None = None) -> None:
        super().__init__(settings)
        if not isinstance(picture, Picture):
            picture = images.read(photograph("camera.png") if picture is None else picture)
        self._fingerprint = picture.fingerprint()
        self.picture = cosines.smoothed(scaled(picture, settings.side), settings.blur)  # [H, W, C], float64
        self.grid = cosines.square_grid(*self.picture.shape[:2])
        self.sampler = Shuffle(self.grid.numel, settings.batch, seed=settings.seed)
        self.gradient = cosines.gradient(self.picture, self.grid.step[0])  # [H, W, C, 2]
        self.given = self.gradient if self.kind == "gradient" else cosines.laplacian(self.picture, self.grid.step[0])
        self._targets = (settings.contrast * self.given).float().flatten(0, 1)  # [H W, C] or [H W, C, 2]
        self._unit = 1 / max(float(self._targets.square().mean()), 1e-30)

    @property
    def features(self) -> tuple[int, int]:
        """Row and column to channels."""
        return 2, self.picture.shape[2]

    def loss(self, net: nn.Module, step: int) -> Iterable[Tensor]:
        """Mean squared error of the derivative at a batch of pixels, in units of its mean square."""
        index = self.sampler(step)  # [batch]
        error: Callable[..., Tensor] = getattr(operators(net), f"{self.kind}_mse")
        yield self._unit * error(net, self.grid.at(index), self._targets[index])

    def identity(self) -> dict[str, Any]:
        """The fingerprint of the picture."""
        return {"sha256": self._fingerprint}

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding, tanh and radial basis functions."""
        s, (inputs, outputs) = self.settings, self.features
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=max(self.grid.shape), seed=s.seed)
        return {self.ours: self.network, **others}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """PSNR in dB and SSIM of the picture, each channel shifted to its mean; PSNR of the gradient over its range."""
        figures = picture_figures(self.found(net) / 2 + 0.5, self.picture / 2 + 0.5)
        error = (self.derived(net, "gradient") - self.gradient) / (self.gradient.max() - self.gradient.min())
        return {**figures, "gradient_PSNR": psnr(float(error.square().mean()))}

    def found(self, net: nn.Module) -> Tensor:  # [H, W, C]
        """The network's picture in [-1, 1], each channel shifted to its mean, which derivatives do not tell."""
        values = on_grid(net, self.grid).double() / self.settings.contrast
        return values + (self.picture - values).mean((0, 1))

    def derived(self, net: nn.Module, kind: str) -> Tensor:  # [H, W, C] or [H, W, C, 2]
        """Gradient or Laplacian of the network's picture at the pixels."""
        parts = []
        for tile in tiles(self.grid.shape, 16384):
            x = self.grid.coordinates(tile.start, tile.shape).flatten(0, 1)
            if kind == "gradient":
                parts.append(operators(net).value_and_jacobian(net, x).jacobian.detach())
            else:
                parts.append(operators(net).laplacian(net, x).laplacian.detach())
        found = torch.cat(parts).double() / self.settings.contrast
        return found.view(*self.grid.shape, *found.shape[1:])

    def write(self, solution: Solution, home: Path) -> None:
        """Pictures and derivatives, given and found, on one sheet; the picture alone; the figures over the steps."""
        word = {"gradient": "gradient", "laplacian": "Laplacian"}[self.kind]
        cells = [("picture", _grey(self.picture)), (f"its {word}: what is given", self._shown(self.given))]
        for label, each in solution.trained.items():
            cells.append((f"{label}, {each.figures['PSNR']:.1f} dB", _grey(self.found(each.net))))
            cells.append((f"its {word}", self._shown(self.derived(each.net, self.kind))))
        save(sheet(cells, columns=2 if len(solution.trained) == 1 else 4), home / "pictures.png")
        save(_grey(self.found(solution.net)), home / "found.png")
        for figure in solution.figures:
            save(curves(solution.over_steps(figure), x="step", y=figure), home / f"{figure.lower()}.png")

    def _shown(self, derivative: Tensor) -> Image.Image:
        """The length of gradients, the sign of Laplacians; on one scale for all networks, channels averaged."""
        if self.kind == "gradient":
            longest = self.given.norm(dim=-1).quantile(0.99)
            return grey(derivative.norm(dim=-1).numpy(), 0, float(longest))
        return signed(derivative.mean(-1).numpy(), float(self.given.mean(-1).abs().quantile(0.99)))


class ImageGradient(_FromDerivative):
    """A picture from its gradient alone (Sitzmann et al. 2020, section 4.2).

    Args:
        settings: How it is found.
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
    """

    name = "image-gradient"
    kind = "gradient"
    options = GradientSettings
    quick = GradientSettings(side=64, contrast=0.05, hidden=64, steps=800, batch=1024)
    bound = 30.0


class ImageLaplacian(_FromDerivative):
    """A picture from its Laplacian, and its values at the border (Sitzmann et al. 2020, section 4.2).

    The Laplacian leaves open any harmonic function, one for every choice of values at the border. The paper leaves that
    to the network; here the border is given unless its weight is zero.

    Args:
        settings: How it is found.
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
    """

    name = "image-laplacian"
    kind = "laplacian"
    options = LaplacianSettings
    quick = LaplacianSettings(side=64, hidden=64, omega=10.0, steps=800, batch=1024)
    bound = 28.0

    def __init__(self, settings: Any, picture: str | os.PathLike[str] | Picture | None = None) -> None:
        super().__init__(settings, picture)
        index = torch.arange(self.grid.numel).view(self.grid.shape)
        border = torch.cat([index[0], index[-1], index[1:-1, 0], index[1:-1, -1]])
        self._border = self.grid.at(border)  # [B, 2]
        self._values = (settings.contrast * self.picture).float().flatten(0, 1)[border]  # [B, C]

    def loss(self, net: nn.Module, step: int) -> Iterable[Tensor]:
        """That of the Laplacian and, weighted, the mean squared error of the values at the border."""
        yield from super().loss(net, step)
        if self.settings.border > 0:
            unit = self.settings.border / self.settings.contrast**2
            yield unit * operators(net).value_mse(net, self._border, self._values)


def _grey(values: Tensor) -> Image.Image:
    return grey(values.numpy() / 2 + 0.5, 0, 1)


def fit_gradient(picture: str | os.PathLike[str] | Picture | None = None, **options: Any) -> Solution:
    """Find a picture from its gradient.

    Args:
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
        **options: Those of `solve`, and fields of `GradientSettings`.

    Raises:
        InputError: The file is missing or damaged.
        UsageError: A setting makes no sense.
    """
    return solve(ImageGradient, picture, **options)


def fit_laplacian(picture: str | os.PathLike[str] | Picture | None = None, **options: Any) -> Solution:
    """Find a picture from its Laplacian and its border.

    Args:
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
        **options: Those of `solve`, and fields of `LaplacianSettings`.

    Raises:
        InputError: The file is missing or damaged.
        UsageError: A setting makes no sense.
    """
    return solve(ImageLaplacian, picture, **options)
