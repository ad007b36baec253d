"""Dense decoding: tiles of a grid, evaluated one after another, into an array or straight into a file."""

from .decode import QUANTITIES
from .dense import format_of, render, render_file, render_stream
from .sinks import FORMATS

__all__ = ["FORMATS", "QUANTITIES", "format_of", "render", "render_file", "render_stream"]
