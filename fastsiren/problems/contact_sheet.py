"""One picture that shows a fit: the original, the fit, an enlargement, the derivatives and the times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..images import Picture
from ..tensorfile import Array
from .pictures import ACCENT, FAINT, GAP, INK, PANEL, sheet
from .speed import Comparison

__all__ = ["contact_sheet"]

_FOOT = 150
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
    made = sheet(cells, foot=_FOOT)
    _write_times(made, rows)
    return made


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


def _write_times(sheet: Image.Image, rows: list[Comparison]) -> None:
    """A bar per kind of work and implementation, lengths relative to the slowest of the pair."""
    draw = ImageDraw.Draw(sheet)
    top = sheet.height - _FOOT
    text, small = ImageFont.load_default(20), ImageFont.load_default(16)
    for i, row in enumerate(rows):
        left = GAP + i * (PANEL + GAP)
        draw.text((left, top), f"{row.work}, {row.points} points", fill=INK, font=text)
        slowest = max(row.fastsiren, row.torch)
        for j, (name, taken, colour) in enumerate(
            (("fastsiren", row.fastsiren, ACCENT), ("PyTorch", row.torch, FAINT))
        ):
            y, length = top + 40 + 40 * j, round((PANEL - 190) * taken / slowest)
            draw.rectangle((left, y, left + length, y + 26), fill=colour)
            draw.text((left + length + 8, y + 3), f"{name} {taken:.1f} ms", fill=INK, font=small)
