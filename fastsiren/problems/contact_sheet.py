"""One picture that shows a fit: the original, the fit, an enlargement, the derivatives and the times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..images import Picture
from ..tensorfile import Array
from .speed import Comparison

__all__ = ["contact_sheet"]

_PANEL = 480
_GAP = 16
_LABEL = 34
_FOOT = 150
_PAPER = (18, 20, 24)
_INK = (232, 232, 228)
_FAINT = (150, 154, 160)
_ACCENT = (255, 176, 64)
# The enlarged part: its corner and side as parts of the picture's shorter side.
_CROP = (0.08, 0.33, 0.25)


def contact_sheet(picture: Picture, panels: Mapping[str, Path], psnr: float, rows: list[Comparison]) -> Image.Image:
    """Draw the sheet.

    Args:
        picture: The original.
        panels: Paths of the renderings "fit", "fit_4x", "gradient" and "laplacian".
        psnr: Of the fit, in dB.
        rows: Times to show at the foot.
    """
    original = Image.fromarray(_eight_bits(picture))
    box = _crop_box(original.size)
    large = Image.open(panels["fit_4x"]).convert("RGB")
    cells = [
        ("original", original),
        (f"SIREN, {psnr:.1f} dB", Image.open(panels["fit"])),
        ("gradient of the SIREN: hue is direction", Image.open(panels["gradient"])),
        ("4x, pixels of the original", original.crop(box).resize(_fitting(box), Image.Resampling.NEAREST)),
        ("4x, SIREN", large.crop((4 * box[0], 4 * box[1], 4 * box[2], 4 * box[3]))),
        ("Laplacian of the SIREN: grey is zero", Image.open(panels["laplacian"])),
    ]
    size = 3 * _PANEL + 4 * _GAP, 2 * (_PANEL + _LABEL) + 3 * _GAP + _FOOT
    sheet = Image.new("RGB", size, _PAPER)
    for i, (label, panel) in enumerate(cells):
        _place(sheet, i, label, panel)
    _write_times(sheet, rows)
    return sheet


def _eight_bits(picture: Picture) -> Array:
    """The original as 8-bit RGB."""
    pixels = picture.pixels if picture.bits == 8 else (picture.pixels // 257).astype(np.uint8)
    return np.repeat(pixels[:, :, :1], 3, 2) if pixels.shape[2] < 3 else np.ascontiguousarray(pixels[:, :, :3])


def _crop_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the part that is enlarged."""
    width, height = size
    down, right, side = _CROP
    length = max(1, round(side * min(size)))
    left, top = int(right * (width - 1)), int(down * (height - 1))
    return left, top, min(width, left + length), min(height, top + length)


def _fitting(box: tuple[int, int, int, int]) -> tuple[int, int]:
    return 4 * (box[2] - box[0]), 4 * (box[3] - box[1])


def _place(sheet: Image.Image, index: int, label: str, panel: Image.Image) -> None:
    """Put a labelled panel at its place in the grid of three columns."""
    row, column = divmod(index, 3)
    left, top = _GAP + column * (_PANEL + _GAP), _GAP + row * (_PANEL + _LABEL + _GAP)
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top + 4), label, fill=_INK, font=ImageFont.load_default(20))
    scale = _PANEL / max(panel.size)
    size = max(1, round(panel.width * scale)), max(1, round(panel.height * scale))
    shown = panel.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    sheet.paste(shown, (left + (_PANEL - shown.width) // 2, top + _LABEL + (_PANEL - shown.height) // 2))


def _write_times(sheet: Image.Image, rows: list[Comparison]) -> None:
    """A bar per kind of work and implementation, lengths relative to the slowest of the pair."""
    draw = ImageDraw.Draw(sheet)
    top = sheet.height - _FOOT
    text, small = ImageFont.load_default(20), ImageFont.load_default(16)
    for i, row in enumerate(rows):
        left = _GAP + i * (_PANEL + _GAP)
        draw.text((left, top), f"{row.work}, {row.points} points", fill=_INK, font=text)
        slowest = max(row.fastsiren, row.torch)
        for j, (name, taken, colour) in enumerate(
            (("fastsiren", row.fastsiren, _ACCENT), ("PyTorch", row.torch, _FAINT))
        ):
            y, length = top + 40 + 40 * j, round((_PANEL - 190) * taken / slowest)
            draw.rectangle((left, y, left + length, y + 26), fill=colour)
            draw.text((left + length + 8, y + 3), f"{name} {taken:.1f} ms", fill=_INK, font=small)
