"""Pictures between their pixels: the cosine series through all of them, and its exact derivatives.

Along an axis of n pixels there is one sum f(u) = Σ_k a_k cos(π k (u + ½) / n), k < n, that meets pixel i at u = i. It
is mirrored at the borders, as scipy's filters do by default ("reflect"), and smooth, so that a network can have its
derivatives. Differences between pixels are derivatives of no function that meets the pixels, but of a blurred one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..grids import Grid

__all__ = ["differentiation", "gradient", "laplacian", "smoothed", "square_grid"]


def square_grid(height: int, width: int) -> Grid:
    """Middles of square pixels: the longer side of the picture spans [-1, 1], the other as much as is its share."""
    step = 2 / max(height, width)
    return Grid((height, width), (-step * (height - 1) / 2, -step * (width - 1) / 2), (step, step))


def differentiation(n: int, order: int, *, blur: float = 0.0) -> Tensor:  # [n, n]
    """The float64 matrix that maps pixels to derivatives of their cosine series at the pixels, per pixel.

    Args:
        n: Pixels along the axis.
        order: Of the derivative; 0 gives the identity.
        blur: Standard deviation, in pixels, of a Gaussian that the series is convolved with.

    Example:
        >>> wave = torch.cos(math.pi * 3 * (torch.arange(8).double() + 0.5) / 8)
        >>> torch.allclose(differentiation(8, 2) @ wave, -((math.pi * 3 / 8) ** 2) * wave)
        True
    """
    frequencies = math.pi / n * torch.arange(n, dtype=torch.float64)
    phases = (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) * frequencies  # [n, n]
    # The waves are orthogonal: the inverse of their matrix is its scaled transpose.
    scale = torch.full((n,), 2 / n, dtype=torch.float64)
    scale[0] = 1 / n
    damped = scale * frequencies**order * torch.exp(-0.5 * (blur * frequencies).square())
    return (torch.cos(phases + order * math.pi / 2) * damped) @ torch.cos(phases).mT


def smoothed(pixels: Tensor, blur: float) -> Tensor:  # [H, W, C] -> [H, W, C]
    """The picture convolved with a Gaussian.

    Args:
        pixels: The picture.
        blur: Standard deviation in pixels.
    """
    rows, columns = (differentiation(n, 0, blur=blur) for n in pixels.shape[:2])
    return torch.einsum("ij,jkc,lk->ilc", rows, pixels.double(), columns)


def gradient(pixels: Tensor, step: float) -> Tensor:  # [H, W, C] -> [H, W, C, 2]
    """Derivatives along rows and columns of the cosine series.

    Args:
        pixels: The picture.
        step: Distance of neighbouring pixels.
    """
    rows, columns = (differentiation(n, 1) for n in pixels.shape[:2])
    down = torch.einsum("ij,jkc->ikc", rows, pixels.double())
    across = torch.einsum("ij,kjc->kic", columns, pixels.double())
    return torch.stack([down, across], -1) / step


def laplacian(pixels: Tensor, step: float) -> Tensor:  # [H, W, C] -> [H, W, C]
    """Sum of the second derivatives of the cosine series.

    Args:
        pixels: The picture.
        step: Distance of neighbouring pixels.
    """
    rows, columns = (differentiation(n, 2) for n in pixels.shape[:2])
    down = torch.einsum("ij,jkc->ikc", rows, pixels.double())
    across = torch.einsum("ij,kjc->kic", columns, pixels.double())
    return (down + across) / step**2
