"""A surface as an experiment knows it: points with outward normals, and what is inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..faults import InputError
from ..meshes import Mesh
from ..render.isosurface import isosurface
from ..tensorfile import Array
from .rays import inside_along_rays

__all__ = ["Oriented", "Surface", "of_file", "of_solid", "sampled"]

# Points that a surface is measured at, and part of given points that is kept for that.
_HELD, _HELD_PART = 20_000, 0.1
# Points of space whose side is known; rays and places along each, where it takes rays.
_SPACE = 131_072
_RAYS, _PLACES = 64, 32
# Grid points along each axis of the mesh that a solid is sampled and shown by.
_FINE = 160


@dataclass(frozen=True)
class Oriented:
    """Points with normals."""

    points: Array
    """[P, 3]"""
    normals: Array
    """[P, 3], of unit length, outward."""

    def part(self, index: Array | slice) -> Oriented:
        """Some of them."""
        return Oriented(self.points[index], self.normals[index])


@dataclass(frozen=True)
class Surface:
    """A surface in [-1, 1]^3."""

    known: Oriented
    """What a network is trained on."""
    held: Oriented
    """What it is measured at."""
    mesh: Mesh | None
    """The surface as it is shown; None where only points are known."""
    space: Array | None
    """Points of space [S, 3] whose side is known; None where it is not."""
    inside: Array | None
    """[S], bool."""
    scale: float = 1.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """From the coordinates of the file: x scale + shift."""

    def dense(self) -> Oriented:
        """All points that are known of it."""
        points = np.concatenate([self.known.points, self.held.points])
        return Oriented(points, np.concatenate([self.known.normals, self.held.normals]))

    def fingerprint(self) -> str:
        """SHA-256 over points and normals."""
        sha = hashlib.sha256()
        for numbers in (self.known.points, self.known.normals):
            sha.update(np.ascontiguousarray(numbers, "<f8").tobytes())
        return sha.hexdigest()


def of_solid(value: Callable[[Tensor], Tensor], count: int, seed: int) -> Surface:
    """The surface of a solid.

    Args:
        value: Its formula, see `SOLIDS`.
        count: Points to sample for training.
        seed: Of the samples.
    """
    mesh = isosurface(lambda x: value(x.double()).float(), _FINE)
    mesh = mesh._replace(normals=_on_surface(value, mesh.vertices, 0).normals)
    drawn = sampled(mesh, count + _HELD, seed)
    samples = _on_surface(value, drawn.points, 3)
    space = np.random.default_rng([seed, 1]).uniform(-1, 1, (_SPACE, 3))
    inside = (value(torch.from_numpy(space)) < 0).numpy()
    return Surface(samples.part(slice(count)), samples.part(slice(count, None)), mesh, space, inside)


def _on_surface(value: Callable[[Tensor], Tensor], points: Array, steps: int) -> Oriented:
    """Points moved onto the surface by Newton's method, with its normals."""
    for step in range(steps + 1):
        x = torch.from_numpy(points).requires_grad_()
        found = value(x)
        (gradient,) = torch.autograd.grad(found.sum(), x)
        length = gradient.norm(dim=-1, keepdim=True)
        if step < steps:
            points = (x - found[:, None] * gradient / length.square()).detach().numpy()
    return Oriented(points, (gradient / length).numpy())


def of_file(mesh: Mesh, count: int, seed: int, margin: float) -> Surface:
    """The surface that a file holds, scaled as the official code does.

    Args:
        mesh: Triangles, or points with normals.
        count: Points to sample for training, where there are triangles.
        seed: Of the samples.
        margin: Distance to the border of [-1, 1]^3.

    Raises:
        InputError: There are too few points.
    """
    # Minus the mean, then the least and the largest of all coordinates together to the ends.
    centred = mesh.vertices - mesh.vertices.mean(0)
    low, high = centred.min(), centred.max()
    scale = float(2 * (1 - margin) / (high - low))
    shift = -(mesh.vertices.mean(0) + (low + high) / 2) * scale
    scaled = mesh._replace(vertices=mesh.vertices * scale + shift)
    x, y, z = map(float, shift)
    return (_of_triangles if len(mesh.faces) else _of_points)(scaled, count, seed, scale, (x, y, z))


def _of_triangles(mesh: Mesh, count: int, seed: int, scale: float, shift: tuple[float, float, float]) -> Surface:
    samples = sampled(mesh, count + _HELD, seed)
    space, inside = inside_along_rays(mesh, _RAYS, _PLACES, seed) if mesh.is_watertight() else (None, None)
    if inside is not None and not inside.any():
        # Of a shell so thin nothing can be counted.
        space, inside = None, None
    known, held = samples.part(slice(count)), samples.part(slice(count, None))
    return Surface(known, held, mesh, space, inside, scale, shift)


def _of_points(mesh: Mesh, count: int, seed: int, scale: float, shift: tuple[float, float, float]) -> Surface:
    if mesh.normals is None or len(mesh.vertices) < 10:
        raise InputError(f"it has {len(mesh.vertices)} points with normals, at least 10 are needed")
    order = np.random.default_rng(seed).permutation(len(mesh.vertices))
    held = min(_HELD, int(_HELD_PART * len(order)))
    all_points = Oriented(mesh.vertices, mesh.normals)
    return Surface(all_points.part(order[held:]), all_points.part(order[:held]), None, None, None, scale, shift)


def sampled(mesh: Mesh, count: int, seed: int) -> Oriented:
    """Points spread evenly, at random, over the triangles of a mesh, with normals.

    Args:
        mesh: With one triangle of some area at least.
        count: Number of points.
        seed: Another seed, other points.

    Returns:
        Normals are between those of the corners where the mesh has any, else those of the triangles.
    """
    random = np.random.default_rng(seed)
    a, b, c = mesh.corners().swapaxes(0, 1)
    across = np.cross(b - a, c - a)
    areas = np.linalg.norm(across, axis=1)
    face = random.choice(len(areas), count, p=areas / areas.sum())
    # Evenly over a triangle: half of the unit square folded onto the other half.
    u, v = random.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    if mesh.normals is None:
        return Oriented(points, across[face] / areas[face, None])
    na, nb, nc = mesh.normals[mesh.faces[face]].swapaxes(0, 1)
    normals = (1 - u - v) * na + u * nb + v * nc
    return Oriented(points, normals / np.linalg.norm(normals, axis=1, keepdims=True))
