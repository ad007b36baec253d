"""Where rays meet the triangles of a mesh: what is inside it, and what is seen of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..meshes import Mesh
from ..tensorfile import Array

__all__ = ["Hits", "hits", "inside_along_rays"]

# Pairs of a ray and a triangle looked at together.
_PAIRS = 1 << 21


class Hits(NamedTuple):
    """Rays that meet triangles, in no order."""

    ray: Array
    """[hits], row * width + column."""
    face: Array
    """[hits]"""
    share: Array
    """[hits, 3], of each corner in the point."""
    depth: Array
    """[hits], the third coordinate of the point."""


def hits(corners: Array, height: int, width: int) -> Hits:
    """All points where rays along the third axis, one through each (column, row) of a picture, meet triangles.

    Args:
        corners: [F, 3, 3]: coordinates (column, row, depth) of the corners.
        height: Rows.
        width: Columns.
    """
    low = np.maximum(np.ceil(corners[..., :2].min(1)), 0).astype(np.int64)
    high = np.minimum(np.floor(corners[..., :2].max(1)), [width - 1, height - 1]).astype(np.int64)
    spans = np.maximum(high - low + 1, 0)
    found = [_met(corners, *pair, width) for pair in _pairs(low, spans)]
    empty = Hits(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3)), np.empty(0))
    return Hits(*(np.concatenate(parts) for parts in zip(empty, *found)))


def _pairs(low: Array, spans: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Faces with the columns and rows of their boxes, some at a time."""
    counts = spans.prod(1)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        done = ends[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(ends, done + _PAIRS, "right")))
        face = np.repeat(np.arange(first, last), counts[first:last])
        within = np.arange(len(face)) + done - (ends - counts)[face]
        yield face, low[face, 0] + within % spans[face, 0], low[face, 1] + within // spans[face, 0]
        first = last


def _met(corners: Array, face: Array, column: Array, row: Array, width: int) -> Hits:
    """Those of some pairs that meet."""
    from_ray = corners[face][..., :2] - np.stack([column, row], -1)[:, None]
    after = np.roll(from_ray, -1, 1)
    # Twice the area of the ray with each edge; the corner opposite to it has that share.
    areas = np.roll(from_ray[..., 0] * after[..., 1] - from_ray[..., 1] * after[..., 0], -1, 1)
    whole = areas.sum(1)
    met = ((areas >= 0).all(1) | (areas <= 0).all(1)) & (whole != 0)
    share = areas[met] / whole[met, None]
    depth = (share * corners[face[met], :, 2]).sum(1)
    return Hits(row[met] * width + column[met], face[met], share, depth)


def inside_along_rays(mesh: Mesh, rays: int, places: int, seed: int) -> tuple[Array, Array]:
    """Random points of [-1, 1]^3 and whether they lie inside a watertight mesh: an odd number of triangles is below.

    Args:
        mesh: In [-1, 1]^3.
        rays: Along each of the first two axes.
        places: Points on each ray.
        seed: Of the points.

    Returns:
        Points [rays² places, 3] and bools.
    """
    random = np.random.default_rng(seed)
    # No ray meets a corner or an edge, which would count twice or not at all.
    shift = random.uniform(0.2, 0.8, 2)
    corners = mesh.corners().copy()
    corners[..., :2] = (corners[..., :2] + 1) / 2 * rays - shift
    found = hits(corners, rays, rays)
    ray = np.repeat(np.arange(rays**2), places)
    z = random.uniform(-1, 1, len(ray))
    # One sorted list of all: rays in order, and along each its hits in order.
    keys = np.sort(found.ray + (found.depth + 1) / 4)
    below = np.searchsorted(keys, ray + (z + 1) / 4) - np.searchsorted(keys, ray)
    x, y = ((np.stack([ray % rays, ray // rays]) + shift[:, None]) / rays * 2 - 1).astype(np.float64)
    return np.stack([x, y, z], 1), below % 2 == 1
