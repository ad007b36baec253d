"""Where a function of space is zero, as a mesh: marching cubes in blocks near the surface, never a volume of all."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..faults import NonFiniteError, UsageError
from ..meshes import Mesh
from ..progress import Progress
from ..tensorfile import Array

__all__ = ["check_resolution", "isosurface"]

# Cells along a block: smaller ones lie closer to the surface, but share more of their nodes with neighbours.
_BLOCK = 16
# With so few blocks along an axis, differences between their middles say nothing of the slope: all are taken.
_FEW = 3
# Beyond it the blocks alone take gigabytes.
_LARGEST = 4096
# Nodes evaluated at a time: their values and coordinates take a few MB.
_TILE = 1 << 17
# The gradient is known at some points only: it may be this much longer between them.
_SAFETY = 1.25
_TINY = 1e-12

Index = tuple[int, int, int]
Values = Callable[[Tensor], Tensor]


def isosurface(
    values: Callable[[Tensor], Tensor], resolution: int, *, slope: float | None = None, progress: bool = False
) -> Mesh:
    """The surface where a function on [-1, 1]^3 is zero, negative inside; closed, for the border counts as outside.

    The function is first evaluated in the middle of every block of 16^3 cells. Where it is so large that, changing by
    `slope` per unit of length, it has no zero in the block, the block is left out. A block that the surface reaches
    from another is never left out, so that the mesh has no holes whatever the slope.

    Args:
        values: Maps points [N, 3] to values [N], float32.
        resolution: Grid points along each axis, both ends included; 8 to 4096.
        slope: About the largest length of the gradient; default from differences between the middles of blocks.
        progress: Show progress on standard error.

    Returns:
        Vertices in [-1, 1]^3 and triangles, without normals; both are empty where there is no zero.

    Raises:
        UsageError: scikit-image is not installed, or the resolution is out of range.
        NonFiniteError: The function gives NaN or infinity.

    Example:
        >>> ball = isosurface(lambda x: x.norm(dim=-1) - 0.5, 20)
        >>> ball.is_watertight(), float(abs(np.linalg.norm(ball.vertices, axis=1) - 0.5).max()) < 0.01
        (True, True)
    """
    if importlib.util.find_spec("skimage") is None:
        raise UsageError("meshes need scikit-image, which is not installed; run: pip install 'fastsiren[data]'")
    check_resolution(resolution)
    blocks = _Blocks(values, resolution)
    todo = blocks.near(slope)
    pieces: list[tuple[Array, Array]] = []
    done: set[Index] = set()
    first = len(todo)
    with Progress("mesh", first, unit="blocks", enabled=progress) as shown:
        while todo:
            done |= todo
            reached: set[Index] = set()
            for evaluated, (place, volume) in enumerate(blocks.volumes(sorted(todo)), len(done) - len(todo) + 1):
                pieces += _pieces(volume, place)
                reached |= _reached(volume, place)
                shown.update(min(evaluated, first))
            todo = reached - done
    return _welded(pieces, 2 / (resolution - 1))


def check_resolution(resolution: int) -> None:
    """Refuse a number of grid points that no mesh is made of.

    Raises:
        UsageError: It is out of range.
    """
    if not isinstance(resolution, int) or not 8 <= resolution <= _LARGEST:
        raise UsageError(f"--resolution of a mesh must be a whole number from 8 to {_LARGEST}; got {resolution!r}")


class _Blocks:
    """A function on blocks of a grid; block (i, j, k) begins at node 16 (i, j, k)."""

    def __init__(self, values: Values, resolution: int) -> None:
        self._values, self._last = values, resolution - 1
        self._count = -(-self._last // _BLOCK)

    def near(self, slope: float | None) -> set[Index]:
        """Blocks in whose middle the function is not too large for a zero in the block."""
        if slope is None and self._count <= _FEW:
            along = range(self._count)
            return set(itertools.product(along, along, along))
        ends = np.minimum(np.arange(self._count + 1) * _BLOCK, self._last)
        middles = torch.from_numpy((ends[1:] + ends[:-1]) / self._last - 1)
        shape = (self._count,) * 3
        found = np.empty(shape)
        flat, total = found.reshape(-1), self._count**3
        for first in range(0, total, _TILE):
            index = np.unravel_index(np.arange(first, min(first + _TILE, total)), shape)
            x = torch.stack([middles[torch.from_numpy(axis)] for axis in index], -1).float()
            flat[first : first + _TILE] = self._evaluated(x)
        width = 2 * _BLOCK / self._last
        slope = _SAFETY * (_steepest(found, width) if slope is None else slope)
        places = np.argwhere(np.abs(found) <= slope * width * 3**0.5 / 2)
        return {(int(i), int(j), int(k)) for i, j, k in places}

    def volumes(self, places: list[Index]) -> Iterator[tuple[Index, Array]]:
        """Values at the nodes of some blocks, many blocks evaluated at a time."""
        at_once = max(1, _TILE // (_BLOCK + 1) ** 3)
        for first in range(0, len(places), at_once):
            part = places[first : first + at_once]
            nodes = [[self._nodes(begin) for begin in place] for place in part]
            x = torch.cat([self._points(axes) for axes in nodes])
            sizes = [tuple(map(len, axes)) for axes in nodes]
            found = np.split(self._evaluated(x), np.cumsum([np.prod(size) for size in sizes])[:-1])
            for place, axes, size, flat in zip(part, nodes, sizes, found, strict=True):
                yield place, self._closed(flat.reshape(size), axes)

    def _nodes(self, begin: int) -> Array:
        return np.arange(begin * _BLOCK, min((begin + 1) * _BLOCK, self._last) + 1)

    def _points(self, axes: list[Array]) -> Tensor:
        # From the numbers of the nodes alone: neighbours find the same coordinates, to the last bit.
        places = [torch.from_numpy(nodes * (2 / self._last) - 1).float() for nodes in axes]
        return torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3)

    def _evaluated(self, x: Tensor) -> Array:
        found: Array = self._values(x).detach().cpu().float().numpy()
        if not np.isfinite(found).all():
            raise NonFiniteError("the network gives NaN or infinity, so its surface is not known; fit it again")
        # A zero is outside, here and in marching cubes alike.
        return np.where(found == 0, np.float32(_TINY), found)

    def _closed(self, volume: Array, axes: list[Array]) -> Array:
        """The nodes on the border of the grid put outside."""
        least = 1e-3 / self._last
        for axis, nodes in enumerate(axes):
            border = np.isin(nodes, (0, self._last)).reshape([-1 if i == axis else 1 for i in range(3)])
            volume = np.where(border, np.maximum(volume, least), volume)
        return volume


def _steepest(found: Array, width: float) -> float:
    """The largest slope along an axis between neighbours."""
    slopes = [np.abs(np.diff(found, axis=axis)).max(initial=0) / width for axis in range(3)]
    return float(max(1.0, *slopes))


def _pieces(volume: Array, place: Index) -> list[tuple[Array, Array]]:
    """Vertices, in cells of the whole grid, and triangles of a block; none where the surface misses it."""
    from skimage.measure import marching_cubes

    if (volume < 0).all() or (volume >= 0).all():
        return []
    vertices, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="descent")
    return [(vertices.astype(np.float64) + _BLOCK * np.array(place), faces.astype(np.int64))]


def _reached(volume: Array, place: Index) -> set[Index]:
    """Neighbours whose common face the surface crosses."""
    found = set()
    for axis, way in itertools.product(range(3), (0, -1)):
        face = np.take(volume, way, axis) < 0
        # The border of the grid is outside throughout, so that no neighbour beyond it is ever named.
        if face.any() and not face.all():
            steps = [0, 0, 0]
            steps[axis] = 1 if way else -1
            found.add((place[0] + steps[0], place[1] + steps[1], place[2] + steps[2]))
    return found


def _welded(pieces: list[tuple[Array, Array]], cell: float) -> Mesh:
    """One mesh; vertices of neighbours on their common face have the same coordinates."""
    if not pieces:
        return Mesh(np.empty((0, 3)), np.empty((0, 3), np.int64))
    firsts = np.cumsum([0, *(len(vertices) for vertices, _ in pieces)])
    faces = np.concatenate([faces + first for (_, faces), first in zip(pieces, firsts)])
    vertices = np.concatenate([each for each, _ in pieces])
    shared = np.flatnonzero((vertices % _BLOCK == 0).any(1))
    _, first, same = np.unique(vertices[shared], axis=0, return_index=True, return_inverse=True)
    same_as = np.arange(len(vertices))
    same_as[shared] = shared[first][same.reshape(-1)]
    faces = same_as[faces]
    # Where a node is zero, triangles around it may have become points and lines.
    used, faces = np.unique(faces[(faces != np.roll(faces, 1, 1)).all(1)], return_inverse=True)
    return Mesh(vertices[used] * cell - 1, faces.reshape(-1, 3))
