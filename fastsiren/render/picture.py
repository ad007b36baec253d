"""From numbers to samples a picture file can hold."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..tensorfile import Array

__all__ = ["GradientPainter", "LaplacianPainter", "Painter", "ValuePainter", "painter", "quantise"]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# The scale leaves out the strongest hundredth, which would dim everything else.
_PERCENTILE = 99.0


class Painter(Protocol):
    """Turns numbers of points into samples in [0, 1]."""

    channels: int

    def __call__(self, numbers: Array) -> Array:
        """[n, ...] numbers -> [n, channels] float32 samples."""


def quantise(samples: Array, bits: int) -> Array:
    """Samples in [0, 1] to unsigned integers: clamped, rounded half to even; NaN becomes 0."""
    top = np.float32(2**bits - 1)
    clamped = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=0.0), 0, 1).astype(np.float32)
    return np.rint(clamped * top).astype(np.uint8 if bits == 8 else np.uint16)


def painter(quantity: str, preview: Array) -> Painter:
    """The painter of a quantity, its scale taken from a preview of the same picture.

    Args:
        quantity: "value", "gradient" or "laplacian".
        preview: Numbers of some points spread over the picture: [n, O], gradient [n, O, 2].
    """
    if quantity == "value":
        return ValuePainter(preview.shape[1])
    luma = _luma(preview)
    if quantity == "gradient":
        return GradientPainter(_scale(np.hypot(luma[:, 0], luma[:, 1])))
    return LaplacianPainter(_scale(abs(luma)))


def _scale(magnitudes: Array) -> float:
    finite = magnitudes[np.isfinite(magnitudes)]
    return max(float(np.percentile(finite, _PERCENTILE)), 1e-30) if finite.size else 1.0


def _luma(numbers: Array) -> Array:
    """Brightness of colour channels (axis 1); transparency is left out."""
    if numbers.shape[1] < 3:
        return numbers[:, 0]
    return np.einsum("nc...,c->n...", numbers[:, :3], _LUMA)


class ValuePainter:
    """The picture itself: [-1, 1] to [0, 1]."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, numbers: Array) -> Array:
        """[n, channels] -> [n, channels]."""
        return (numbers * np.float32(0.5) + np.float32(0.5)).astype(np.float32)


class GradientPainter:
    """The gradient of the brightness: direction as hue, length as lightness.

    Args:
        scale: Length that is shown at full lightness.
    """

    channels = 3

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(self, numbers: Array) -> Array:
        """[n, channels, 2] -> [n, 3]."""
        down, right = np.moveaxis(_luma(numbers), -1, 0)
        value = np.clip(np.hypot(down, right) / self._scale, 0, 1) ** 0.7
        angle = np.arctan2(-down, right)
        # Three cosines a third of a turn apart make a smooth wheel of hues.
        wheel = angle[:, None] + np.array([0, -2, 2], np.float32) * np.float32(np.pi / 3)
        return (value[:, None] * (0.6 + 0.4 * np.cos(wheel))).astype(np.float32)


class LaplacianPainter:
    """The Laplacian of the brightness: zero is middle grey.

    Args:
        scale: Magnitude that is shown as black or white.
    """

    channels = 1

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(self, numbers: Array) -> Array:
        """[n, channels] -> [n, 1]."""
        return (0.5 + 0.5 * np.clip(_luma(numbers) / self._scale, -1, 1)).astype(np.float32)[:, None]
