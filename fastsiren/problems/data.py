"""Real data that installed packages bring along; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import torch
from torch import Tensor

from ..faults import InputError
from ..images import Picture

__all__ = ["packaged", "photograph", "samples", "scaled"]


def packaged(distribution: str, file: str, *, what: str, instead: str) -> Path:
    """Path of a file of an installed distribution; the package is not imported.

    Args:
        distribution: As pip knows it, such as "scikit-image".
        file: Path inside it.
        what: For the message, such as "the photograph".
        instead: How to give a file of one's own, such as "a picture of your own with --image".

    Raises:
        InputError: It is not installed, or has no such file.

    Example:
        >>> packaged("scikit-image", "skimage/data/camera.png", what="the photograph", instead="another one").name
        'camera.png'
    """
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise InputError(
            f"{what} comes with {distribution}, which is not installed; run: pip install 'fastsiren[data]', or give "
            f"{instead}"
        )
    return path


def photograph(name: str = "astronaut.png") -> Path:
    """Path of one of the photographs that scikit-image brings along.

    Raises:
        InputError: scikit-image is not installed.
    """
    return packaged("scikit-image", f"skimage/data/{name}", what="the photograph", instead="a picture of your own")


def samples(picture: Picture) -> Tensor:  # [H, W, C]
    """Samples in [-1, 1] of a picture without its alpha, float64."""
    colours = picture.pixels.shape[2] - (picture.pixels.shape[2] + 1) % 2
    return torch.from_numpy(picture.normalised()).view(picture.pixels.shape)[..., :colours].double()


def scaled(picture: Picture, side: int) -> Tensor:  # [H, W, C]
    """Samples in [-1, 1] of a picture without its alpha, float64, reduced where it is larger.

    Args:
        picture: The picture.
        side: Most pixels along the longer side.

    Example:
        >>> import numpy as np
        >>> scaled(Picture(np.zeros((40, 20, 4), np.uint8)), 10).shape
        torch.Size([10, 5, 3])
    """
    values = samples(picture)
    height, width, _ = values.shape
    factor = side / max(height, width)
    if factor >= 1:
        return values
    size = max(1, round(height * factor)), max(1, round(width * factor))
    planes = values.movedim(-1, 0).unsqueeze(0)
    small = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False)
    return small[0].movedim(0, -1).clamp(-1, 1)
