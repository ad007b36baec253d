"""The command `fastsiren render`: a fitted picture at any size, in any format."""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

from .faults import UsageError
from .files import check_apart
from .grids import Grid
from .problems.image import load
from .render import format_of, render_file, render_stream

__all__ = ["run"]

_DEEP = ("png", "tiff")


def run(options: argparse.Namespace) -> int:
    """Render as the options say; see `fastsiren render --help`."""
    kind = _kind(options)
    checkpoint = load(options.checkpoint)
    image = checkpoint.description["image"]
    grid = Grid.over(_shape(options, image))
    settings = {
        "kind": kind,
        "bits": options.bits or (image["bits"] if kind in _DEEP and options.quantity == "value" else 8),
        "quantity": options.quantity,
        "tile": options.tile,
        "progress": not options.quiet,
        "allow_nonfinite": options.allow_nonfinite,
    }
    if options.out == "-":
        render_stream(checkpoint.net, grid, sys.stdout.buffer, **settings)
        return 0
    check_apart(options.out, options.checkpoint, kind="the checkpoint")
    render_file(checkpoint.net, grid, options.out, overwrite=options.overwrite, **settings)
    if not options.quiet:
        print(f"{options.out}: {grid.shape[1]}x{grid.shape[0]} {options.quantity}")
    return 0


def _kind(options: argparse.Namespace) -> str:
    if options.format is None and options.out == "-":
        raise UsageError("standard output has no extension; say which format with --format")
    return format_of(options.out if options.format is None else f"file.{options.format}")


def _shape(options: argparse.Namespace, image: dict[str, Any]) -> tuple[int, int]:
    """(rows, columns) that were asked for."""
    original = image["height"], image["width"]
    if options.scale is None:
        return options.size or original
    if not (math.isfinite(options.scale) and options.scale > 0):
        raise UsageError(f"--scale must be a positive number; got {options.scale}")
    return max(1, round(original[0] * options.scale)), max(1, round(original[1] * options.scale))
