"""Cut a grid into tiles: boxes that are one unbroken run of points in the grid's order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Tile", "tiles"]


class Tile(NamedTuple):
    """A box of a grid: first index and size per axis, and where its points stand in flat order."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    begin: int
    end: int


def tiles(shape: Sequence[int], limit: int) -> Iterator[Tile]:
    """All tiles of a grid, in order, each of at most `limit` points.

    Args:
        shape: Points along each axis, first axis slowest.
        limit: Largest number of points in a tile, 1 or more.

    Example:
        >>> [tile.start for tile in tiles((2, 5), 3)]
        [(0, 0), (0, 3), (1, 0), (1, 3)]
    """
    if limit < 1:
        raise ValueError(f"tile: must be 1 point or more; got {limit}")
    if math.prod(shape) == 0:
        return
    # Axes behind `cut` are whole, those before it fixed at one index, so that the box is contiguous.
    cut = next(axis for axis in range(len(shape)) if axis == len(shape) - 1 or math.prod(shape[axis + 1 :]) <= limit)
    row = math.prod(shape[cut + 1 :])
    length = min(shape[cut], limit // row)
    for outer in range(math.prod(shape[:cut])):
        fixed = _index(outer, shape[:cut])
        for first in range(0, shape[cut], length):
            size = min(length, shape[cut] - first)
            begin = (outer * shape[cut] + first) * row
            start = (*fixed, first, *(0 for _ in shape[cut + 1 :]))
            yield Tile(start, (*(1 for _ in fixed), size, *shape[cut + 1 :]), begin, begin + size * row)


def _index(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index per axis of a flat index."""
    index = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return tuple(reversed(index))
