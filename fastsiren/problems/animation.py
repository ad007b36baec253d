"""Moving pictures of results: a GIF that every browser shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..files import atomic_output

__all__ = ["save_gif"]


def save_gif(frames: Sequence[Image.Image], path: Path, *, rate: float = 20.0) -> Path:
    """Write pictures that follow one another for ever; the file appears complete or not at all.

    Args:
        frames: Pictures of one size.
        path: Of the GIF.
        rate: Frames per second.
    """
    # One palette for all frames, that of their most colourful one: changing palettes flicker.
    palette = max(frames, key=lambda frame: len(frame.getcolors(1 << 24) or [])).quantize(256)
    made = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_output(path) as file:
        made[0].save(
            file, format="gif", save_all=True, append_images=made[1:], duration=round(1000 / rate), loop=0
        )  # fmt: skip
    return path
