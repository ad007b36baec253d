"""Images of one size for "prior": faces of scikit-image or a directory of pictures, and variations of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import images
from ..engine.values import described
from ..faults import InputError
from ..tensorfile import Array
from .data import packaged, samples

__all__ = ["Given", "augmented", "faces", "fingerprint", "folder", "loaded", "square"]

Given = str | os.PathLike[str] | Array | None

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}
_CHANNELS = ((), (1,), (3,))
# Of lfw_subset.npy the first hundred are faces.
_FACES = 100
# At strength 1: part of the side, radians, logarithm of the zoom and of the contrast, and brightness.
_SHIFT, _TURN, _ZOOM, _CONTRAST, _LIGHT = 0.08, 0.1, 0.08, 0.2, 0.2


def loaded(given: Given, side: int) -> Tensor:  # [N, side, side, C] uint8
    """All images, of one size and with one number of channels.

    Args:
        given: A directory of pictures, an array [N, H, W] or [N, H, W, C], C 1 or 3, of uint8, or None for the faces.
        side: Pixels along each side.

    Raises:
        InputError: There are no pictures, one cannot be read, or grey and coloured ones are mixed.
        TypeError: It is something else.
    """
    if given is None:
        return faces(side)
    if isinstance(given, (str, os.PathLike)):
        return folder(given, side)
    fitting = isinstance(given, np.ndarray) and given.dtype == np.uint8 and given.ndim in (3, 4) and given.size > 0
    if not isinstance(given, np.ndarray) or not fitting or given.shape[3:] not in _CHANNELS:
        expected = "a directory or uint8 [N, H, W] or [N, H, W, C], C 1 or 3"
        raise TypeError(f"images: got {described(given)}, expected {expected}")
    pixels = torch.from_numpy(given.reshape(*given.shape[:3], -1))
    return torch.stack([square(image.double() / 127.5 - 1, side) for image in pixels])


def faces(side: int) -> Tensor:  # [100, side, side, 1] uint8
    """Faces of 25 x 25 pixels in grey that scikit-image brings along.

    Raises:
        InputError: scikit-image is not installed.
    """
    file = "skimage/data/lfw_subset.npy"
    path = packaged("scikit-image", file, what="the set of faces", instead="a directory of pictures")
    found = torch.from_numpy(np.load(path)[:_FACES]).double()[..., None] * 2 - 1
    return torch.stack([square(image, side) for image in found])


def folder(path: str | os.PathLike[str], side: int) -> Tensor:  # [N, side, side, C] uint8
    """The pictures that lie in a directory itself, by name; alpha is left out.

    Raises:
        InputError: It is no directory, holds no pictures, one cannot be read, or grey and coloured ones are mixed.
    """
    home = Path(path)
    if not home.is_dir():
        raise InputError(f"{path}: no such directory; give one of pictures")
    files = sorted(each for each in home.iterdir() if each.suffix.lower() in _SUFFIXES and each.name[0] != ".")
    if not files:
        raise InputError(f"{path} holds no pictures ({', '.join(sorted(_SUFFIXES))}); give a directory that does")
    found = [square(samples(images.read(file)), side) for file in files]
    for file, image in zip(files, found, strict=True):
        if image.shape != found[0].shape:
            kinds = ["grey" if each.shape[-1] == 1 else "in colour" for each in (found[0], image)]
            raise InputError(f"{path} mixes kinds: {files[0].name} is {kinds[0]}, {file.name} {kinds[1]}; convert them")
    return torch.stack(found)


def square(image: Tensor, side: int) -> Tensor:  # [H, W, C] -> [side, side, C] uint8
    """The middle of an image as large as it can be cut out of it, at another size.

    Args:
        image: Samples in [-1, 1].
        side: Pixels along each side of the result.

    Example:
        >>> square(torch.ones(10, 20, 3), 4).shape
        torch.Size([4, 4, 3])
    """
    height, width, _ = image.shape
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    planes = image[top : top + least, left : left + least].movedim(-1, 0).unsqueeze(0)
    scaled = torch.nn.functional.interpolate(planes, (side, side), mode="bicubic", antialias=True, align_corners=False)
    return (scaled[0].movedim(0, -1).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)


def fingerprint(pixels: Tensor) -> str:
    """SHA-256 over shape and samples of uint8 images."""
    sha = hashlib.sha256(f"{tuple(pixels.shape)}\n".encode())
    sha.update(np.ascontiguousarray(pixels.numpy()).tobytes())
    return sha.hexdigest()


def augmented(batch: Tensor, strength: float, source: torch.Generator) -> Tensor:  # [B, S, S, C]
    """Images mirrored at random, moved, turned, zoomed, and with another contrast and brightness.

    Args:
        batch: Samples in [-1, 1], [B, S, S, C].
        strength: 1 moves by up to 8 % of the side, turns by 0.1, zooms by 8 %, lights by 0.2; 0 changes nothing.
        source: Of the random numbers.
    """
    if strength == 0:
        return batch
    count = len(batch)

    def within(limit: float) -> Tensor:
        return (torch.rand(count, generator=source) * 2 - 1) * limit * strength

    turn, zoom = within(_TURN), within(_ZOOM).exp()
    mirror = torch.randint(2, (count,), generator=source) * 2.0 - 1
    across = torch.stack([zoom * turn.cos() * mirror, -zoom * turn.sin(), within(2 * _SHIFT)], -1)
    down = torch.stack([zoom * turn.sin() * mirror, zoom * turn.cos(), within(2 * _SHIFT)], -1)
    planes = batch.movedim(-1, 1)
    grid = torch.nn.functional.affine_grid(torch.stack([across, down], 1), list(planes.shape), align_corners=True)
    moved = torch.nn.functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=True).movedim(1, -1)
    contrast, light = (each[:, None, None, None] for each in (within(_CONTRAST).exp(), within(_LIGHT)))
    return (moved * contrast + light).clamp(-1, 1)
