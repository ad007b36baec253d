"""The command `fastsiren render`: a fitted picture, clip, sound or shape at any size or rate, in any format."""

from __future__ import annotations

import argparse
import sys

from . import meshes
from .faults import UsageError
from .files import atomic_output, check_apart, check_output, output_lock
from .problems.content import Asked, Content
from .problems.contents import load
from .render import format_of, render_file, render_stream
from .render.outputs import MESH_FORMATS

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Render as the options say; see `fastsiren render --help`."""
    asked = Asked(_kind(options), options.size, options.scale, options.frames, options.rate, options.at,
                  options.resolution)  # fmt: skip
    content = load(options.checkpoint)
    content.check(asked)
    if asked.kind in MESH_FORMATS:
        return _mesh(content, asked, options)
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


def _mesh(content: Content, asked: Asked, options: argparse.Namespace) -> int:
    if options.quantity != "value" or options.bits is not None:
        raise UsageError(f"{asked.kind} files hold a mesh, without --quantity and --bits; leave them out")
    if options.out == "-":
        meshes.encode(sys.stdout.buffer, content.mesh(asked, progress=not options.quiet), asked.kind)
        return 0
    check_apart(options.out, options.checkpoint, kind="the checkpoint")
    target = check_output(options.out, overwrite=options.overwrite)
    with output_lock(target):
        mesh = content.mesh(asked, progress=not options.quiet)
        with atomic_output(target) as file:
            meshes.encode(file, mesh, asked.kind)
    if not options.quiet:
        print(f"{options.out}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles")
    return 0


def _kind(options: argparse.Namespace) -> str:
    if options.format is None and options.out == "-":
        raise UsageError("standard output has no extension; say which format with --format")
    return format_of(options.out if options.format is None else f"file.{options.format}")
