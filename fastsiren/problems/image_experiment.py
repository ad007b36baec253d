"""The experiment "image": a photograph from its pixels by a SIREN, and by networks with other activations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import images
from ..images import Picture
from .data import photograph
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source
from .image import ImageFit, Settings
from .metrics import picture_figures
from .pictures import curves, grey, save, sheet
from .plain_networks import plain_networks

__all__ = ["ImageExperiment"]


class ImageExperiment(ImageFit, Experiment):
    """A picture by its pixels (Sitzmann et al. 2020, section 4.1 and figure 1).

    Args:
        settings: How it is fitted.
        picture: A file imageio reads or a `Picture`; None takes a photograph of scikit-image.
    """

    options = Settings
    quick = Settings(steps=400, hidden=128, batch=8192)
    sources = (Source("image", "picture to fit (default: the astronaut of scikit-image)"),)
    bound = 25.0
    measured = 12

    def __init__(self, settings: Settings, picture: str | os.PathLike[str] | Picture | None = None) -> None:
        super().__init__(settings, _picture(picture))

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding, tanh and radial basis functions."""
        s, (inputs, outputs) = self.settings, self.features
        resolution = max(self.picture.pixels.shape[:2])
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=resolution, seed=s.seed)
        return {self.ours: self.network, **others}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """PSNR in dB, and SSIM."""
        return picture_figures(on_grid(net, self.grid) / 2 + 0.5, self._wanted())

    def _wanted(self) -> Tensor:
        """The picture in [0, 1]."""
        return torch.from_numpy(self.picture.normalised()).view(self.picture.pixels.shape) / 2 + 0.5

    def write(self, solution: Solution, home: Path) -> None:
        """Original and fits on one sheet, and PSNR over the steps."""
        cells = [("original", grey(self._wanted().numpy(), 0, 1))]
        for label, each in solution.trained.items():
            shown = on_grid(each.net, self.grid) / 2 + 0.5
            cells.append((f"{label}, {each.figures['PSNR']:.1f} dB", grey(shown.numpy(), 0, 1)))
        save(sheet(cells), home / "pictures.png")
        for figure in solution.figures:
            save(curves(solution.over_steps(figure), x="step", y=figure), home / f"{figure.lower()}.png")


def _picture(given: str | os.PathLike[str] | Picture | None) -> Picture:
    return given if isinstance(given, Picture) else images.read(photograph() if given is None else given)
