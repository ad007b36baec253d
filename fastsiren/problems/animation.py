"""Moving pictures of results: a GIF that every browser shows, and an mp4 file where PyAV is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..clips import ClipWriter
from ..files import atomic_output

__all__ = ["save_moving"]


def save_moving(frames: Sequence[Image.Image], path: Path, *, rate: int = 20) -> None:
    """Write pictures that follow one another, as `path`.gif, which goes on for ever, and as `path`.mp4.

    Args:
        frames: Pictures of one size; mp4 files lose the last row or column of an odd number.
        path: Of the files, without an ending.
        rate: Frames per second.
    """
    # One palette for all frames, that of their most colourful one: changing palettes flicker.
    palette = max(frames, key=lambda frame: len(frame.getcolors(1 << 24) or [])).quantize(256)
    made = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_output(path.with_suffix(".gif")) as file:
        made[0].save(file, format="gif", save_all=True, append_images=made[1:], duration=round(1000 / rate), loop=0)
    if importlib.util.find_spec("av") is not None:
        with atomic_output(path.with_suffix(".mp4")) as file:
            width, height = (size // 2 * 2 for size in frames[0].size)
            writer = ClipWriter(file, width, height, Fraction(rate))
            for frame in frames:
                writer.write(np.asarray(frame.convert("RGB"))[:height, :width])
            writer.close()
