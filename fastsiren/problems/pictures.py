"""Pictures of results: numbers as colours, labelled panels on a sheet, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..files import atomic_output
from ..tensorfile import Array

__all__ = ["FAINT", "GAP", "INK", "PANEL", "PAPER", "curves", "grey", "save", "sheet", "signed"]

PANEL = 480
GAP = 16
_LABEL = 34
PAPER = (18, 20, 24)
INK = (232, 232, 228)
FAINT = (150, 154, 160)
ACCENT = (255, 176, 64)
_COLOURS = (ACCENT, (96, 176, 255), (120, 220, 140), (240, 120, 140), (190, 150, 255), FAINT)
# Blue over near-black to orange: zero recedes, as the paper of the sheet does.
_LOW, _ZERO, _HIGH = (np.array(colour, np.float64) for colour in ((70, 150, 255), (24, 26, 32), (255, 160, 48)))


def grey(values: Array, low: float | None = None, high: float | None = None) -> Image.Image:
    """Numbers [height, width] or [height, width, 1 or 3] as a picture, `low` black and `high` white.

    Args:
        values: The numbers; NaN is black.
        low: Default the smallest number.
        high: Default the largest.
    """
    finite = values[np.isfinite(values)]
    low = float(finite.min(initial=math.inf)) if low is None else low
    high = float(finite.max(initial=-math.inf)) if high is None else high
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-30), nan=0.0)
    pixels = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def signed(values: Array, scale: float | None = None) -> Image.Image:
    """Numbers [height, width] as colours: blue below zero, dark at zero, orange above.

    Args:
        values: The numbers; NaN counts as zero.
        scale: The number that has the full colour; default the largest magnitude.
    """
    values = np.nan_to_num(np.asarray(values, np.float64))
    scale = float(np.abs(values).max(initial=0)) if scale is None else scale
    t = (values / max(scale, 1e-30)).clip(-1, 1)[..., None]
    colours = np.where(t < 0, _ZERO + (_LOW - _ZERO) * -t, _ZERO + (_HIGH - _ZERO) * t)
    return Image.fromarray(colours.round().astype(np.uint8))


def sheet(cells: Sequence[tuple[str, Image.Image]], *, columns: int = 3, foot: int = 0) -> Image.Image:
    """Labelled panels in rows.

    Args:
        cells: Label and picture of each; a picture fills its panel without being distorted.
        columns: Panels in a row.
        foot: Free pixels below.
    """
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    shown = [(label, _fitted(panel)) for label, panel in cells]
    tall = max(panel.height for _, panel in shown)
    size = columns * PANEL + (columns + 1) * GAP, rows * (tall + _LABEL) + (rows + 1) * GAP + foot
    made = Image.new("RGB", size, PAPER)
    for i, (label, panel) in enumerate(shown):
        left, top = GAP + i % columns * (PANEL + GAP), GAP + i // columns * (tall + _LABEL + GAP)
        ImageDraw.Draw(made).text((left, top + 4), label, fill=INK, font=ImageFont.load_default(20))
        made.paste(panel, (left + (PANEL - panel.width) // 2, top + _LABEL + (tall - panel.height) // 2))
    return made


def _fitted(panel: Image.Image) -> Image.Image:
    """The picture as large as a panel; small ones pixel by pixel, so that nothing is made up."""
    scale = PANEL / max(panel.size)
    size = max(1, round(panel.width * scale)), max(1, round(panel.height * scale))
    how = Image.Resampling.NEAREST if scale >= 3 else Image.Resampling.LANCZOS
    return panel.convert("RGB").resize(size, how)


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str, size: tuple[int, int] = (960, 480)
) -> Image.Image:
    """A plot of lines.

    Args:
        lines: By name, points (x, y); those that are not finite are left out.
        x: What is along the horizontal axis.
        y: What is along the vertical axis.
        size: Width and height of the picture in pixels.
    """
    made = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(16)
    points = {name: [p for p in line if math.isfinite(p[0]) and math.isfinite(p[1])] for name, line in lines.items()}
    flat = [p for line in points.values() for p in line] or [(0.0, 0.0)]
    (x0, x1), (y0, y1) = (_range([p[axis] for p in flat]) for axis in (0, 1))
    left, top, right, bottom = 90, 40, size[0] - 150, size[1] - 50
    for k in range(5):
        u, v = left + (right - left) * k / 4, bottom - (bottom - top) * k / 4
        draw.line((left, v, right, v), fill=(50, 54, 60))
        draw.text((left - 8, v), f"{y0 + (y1 - y0) * k / 4:.4g}", fill=FAINT, font=font, anchor="rm")
        draw.text((u, bottom + 8), f"{x0 + (x1 - x0) * k / 4:.4g}", fill=FAINT, font=font, anchor="mt")
    draw.text((left, 12), y, fill=INK, font=font)
    draw.text((right, bottom + 28), x, fill=INK, font=font, anchor="rt")
    across, up = (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)
    for i, (name, line) in enumerate(points.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        draw.line([(left + across * (a - x0), bottom - up * (b - y0)) for a, b in line], fill=colour, width=3)
        draw.text((right + 12, top + 24 * i), name, fill=colour, font=font)
    return made


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def save(picture: Image.Image, path: Path) -> Path:
    """Write a picture; it appears complete or not at all."""
    with atomic_output(path) as file:
        picture.save(file, format="png")
    return path
