"""The command `fastsiren render`: a fitted picture, clip or sound at any size or rate, in any format."""

from __future__ import annotations

import argparse
import sys

from .faults import UsageError
from .files import check_apart
from .problems.contents import Asked, load
from .render import format_of, render_file, render_stream

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Render as the options say; see `fastsiren render --help`."""
    asked = Asked(_kind(options), options.size, options.scale, options.frames, options.rate, options.at)
    content = load(options.checkpoint)
    content.check(asked)
    grid = content.grid(asked)
    settings = {**content.options(asked), "kind": asked.kind, "quantity": options.quantity, "tile": options.tile,
                "progress": not options.quiet, "allow_nonfinite": options.allow_nonfinite}  # fmt: skip
    if options.bits is not None or options.quantity != "value":
        settings["bits"] = options.bits
    if options.out == "-":
        render_stream(content.net, grid, sys.stdout.buffer, **settings)
        return 0
    check_apart(options.out, options.checkpoint, kind="the checkpoint")
    render_file(content.net, grid, options.out, overwrite=options.overwrite, **settings)
    if not options.quiet:
        print(f"{options.out}: {content.shown(grid)} {options.quantity}")
    return 0


def _kind(options: argparse.Namespace) -> str:
    if options.format is None and options.out == "-":
        raise UsageError("standard output has no extension; say which format with --format")
    return format_of(options.out if options.format is None else f"file.{options.format}")
