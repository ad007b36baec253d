"""The demonstration: fit a photograph, look at it and its derivatives, measure the speed on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from .. import images
from ..files import check_apart
from ..grids import Grid
from ..images import Picture
from ..render import render_file
from ..siren import Siren
from . import image as image_problem
from .contact_sheet import contact_sheet
from .data import photograph
from .speed import Comparison, compare

__all__ = ["run"]

_LARGEST_SIDE = 512
_CHECKPOINT, _SHEET = "photo.safetensors", "contact_sheet.png"
# Each picture of its own: scale and quantity.
_PANELS = {"fit": (1, "value"), "fit_4x": (4, "value"), "gradient": (1, "gradient"), "laplacian": (1, "laplacian")}
_QUICK: dict[str, int] = {"steps": 300, "hidden": 64}
_TIMING = {"points": 16384, "repeats": 7}
_QUICK_TIMING = {"points": 4096, "repeats": 3}


def run(
    directory: str | os.PathLike[str], *, image: str | None = None, quick: bool = False, progress: bool = True
) -> str:
    """Fit, render, compare; everything is written into `directory`.

    Args:
        directory: An existing directory; files of an earlier demo are replaced.
        image: Another picture; None takes the photograph of scikit-image.
        quick: A smaller network, fewer steps and shorter timings.
        progress: Show progress on standard error.

    Returns:
        A report of a few lines.

    Raises:
        UsageError: The picture is one of the files to be written.
    """
    begun = time.monotonic()
    home = Path(directory)
    if image is not None:
        for name in (_CHECKPOINT, _SHEET, *(f"{panel}.png" for panel in _PANELS)):
            check_apart(home / name, image, kind="the picture")
    picture = _reduced(images.read(image or photograph()))
    settings: dict[str, Any] = _QUICK if quick else {}
    fitted = image_problem.fit(picture, out=home / _CHECKPOINT, overwrite=True, progress=progress, **settings)
    if fitted.exit_code:
        raise SystemExit(fitted.exit_code)
    names = _render_all(home, picture, fitted.net, progress)
    rows = compare(**(_QUICK_TIMING if quick else _TIMING))
    sheet = contact_sheet(picture, names, fitted.psnr, rows)
    sheet.save(home / _SHEET)
    return _report(home, picture, fitted, rows, time.monotonic() - begun)


def _reduced(picture: Picture) -> Picture:
    """The picture, every n-th pixel of it when it is large: the demo is to take minutes."""
    step = -(-max(picture.pixels.shape[:2]) // _LARGEST_SIDE)
    return Picture(picture.pixels[::step, ::step].copy())


def _render_all(home: Path, picture: Picture, net: Siren, progress: bool) -> dict[str, Path]:
    """Write the renderings; the paths by panel."""
    height, width = picture.pixels.shape[:2]
    paths = {}
    for name, (scale, quantity) in _PANELS.items():
        grid = Grid.over((height * scale, width * scale))
        paths[name] = render_file(net, grid, home / f"{name}.png", quantity=quantity, progress=progress, overwrite=True)
    return paths


def _report(home: Path, picture: Picture, fitted: image_problem.Fit, rows: list[Comparison], seconds: float) -> str:
    height, width = picture.pixels.shape[:2]
    lines = [
        f"fitted {width}x{height} pixels in {fitted.seconds:.0f} s ({fitted.steps} steps): PSNR {fitted.psnr:.2f} dB",
        *(row.line() for row in rows),
        f"pictures in {home}{os.sep}: {_SHEET} shows them all; {seconds:.0f} s in all",
    ]
    return "\n".join(lines)
