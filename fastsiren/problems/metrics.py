"""Measures of pictures; PSNR has its one definition in `fastsiren.images`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..images import psnr

__all__ = ["picture_figures", "ssim"]

_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def ssim(found: Tensor, wanted: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over windows of 7 x 7 pixels and channels.

    Args:
        found: [height, width, channels] in [0, 1], 7 pixels at least along both axes.
        wanted: The same.

    Returns:
        1 for equal pictures. It is that of skimage.metrics.structural_similarity with data_range 1.

    Raises:
        ValueError: The shapes differ or are too small.

    Example:
        >>> picture = torch.rand(16, 16, 3)
        >>> ssim(picture, picture)
        1.0
    """
    if found.shape != wanted.shape or found.ndim != 3 or min(found.shape[:2]) < _WINDOW:
        raise ValueError(
            f"found, wanted: got shapes {tuple(found.shape)} and {tuple(wanted.shape)}, expected two equal ones, "
            f"[height, width, channels], of {_WINDOW} pixels at least"
        )
    a, b = (each.double().movedim(-1, 0).unsqueeze(0) for each in (found, wanted))
    mean = torch.nn.AvgPool2d(_WINDOW, stride=1)
    # The sample covariance, as skimage has it.
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = (unbiased * (mean(each * each) - m * m) for each, m in ((a, mean_a), (b, mean_b)))
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = _K1**2, _K2**2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2)
    return float((above / below).mean())


def picture_figures(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """PSNR in dB, and SSIM where the picture is large enough.

    Args:
        found: [height, width, channels]; clipped to [0, 1].
        wanted: The same shape, in [0, 1].
    """
    found = found.clamp(0, 1)
    figures = {"PSNR": psnr(float((found.double() - wanted.double()).square().mean()))}
    if min(found.shape[:2]) >= _WINDOW:
        figures["SSIM"] = ssim(found, wanted)
    return figures
