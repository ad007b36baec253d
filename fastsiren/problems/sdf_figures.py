"""The surface of a network of signed distance, and how near it is to the one that was given."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..faults import UsageError
from ..fit import operators
from ..meshes import Mesh
from ..render.isosurface import isosurface
from ..tensorfile import Array
from .surface import Oriented, Surface, sampled

__all__ = ["figures", "nearest", "network_mesh"]

# Points at a time.
_TILE = 65536
# Grid points along each axis, and samples, of a mesh that is measured.
_RESOLUTION, _SAMPLES = 96, 100_000
_HELD = 20_000


def network_mesh(net: nn.Module, resolution: int, *, progress: bool = False) -> Mesh:
    """The zero level of a network in [-1, 1]^3, with the directions of its gradients as normals.

    Args:
        net: A SIREN or any module that maps [N, 3] to [N, 1].
        resolution: Grid points along each axis.
        progress: Show progress on standard error.

    Raises:
        NonFiniteError: The network gives NaN or infinity.
    """
    mesh = isosurface(lambda x: _values(net, x), resolution, progress=progress)
    gradients = _in_tiles(lambda x: operators(net).value_and_jacobian(net, x).jacobian[:, 0], net, mesh.vertices)
    return mesh._replace(normals=gradients / np.linalg.norm(gradients, axis=1, keepdims=True).clip(1e-30))


@torch.no_grad()
def _values(net: nn.Module, x: Tensor) -> Tensor:
    """Values [N] at points [N, 3]."""
    found: Tensor = net(x.to(next(net.parameters())))
    return found[:, 0]


def _in_tiles(quantity: Any, net: nn.Module, points: Array) -> Array:
    """What a function gives at points, float64."""
    x = torch.from_numpy(points).to(next(net.parameters()))
    found = [quantity(part).detach().cpu().double() for part in x.split(_TILE)]
    return torch.cat(found).numpy()


def figures(net: nn.Module, surface: Surface, seed: int) -> dict[str, float]:
    """How near a network's surface is to the given one.

    Args:
        net: The network.
        surface: The given one.
        seed: Of the samples.

    Returns:
        "IoU" of the insides, where it is known; "Chamfer", the mean distance from points of one surface to the nearest
        sample of the other, of both ways, in a box 2 wide (its diagonal where there is no surface); "normals", the mean
        cosine of the normals there; "distance", the mean error of |f| in the box.

    Raises:
        UsageError: SciPy is not installed.
    """
    found: dict[str, float] = {}
    if surface.space is not None and surface.inside is not None:
        inside = _in_tiles(lambda x: _values(net, x), net, surface.space) < 0
        found["IoU"] = float((inside & surface.inside).sum() / (inside | surface.inside).sum())
    dense = surface.dense()
    space = np.random.default_rng([seed, 2]).uniform(-1, 1, (_HELD, 3))
    wrong = np.abs(_in_tiles(lambda x: _values(net, x), net, space)) - nearest(space, dense)[0]
    mesh = network_mesh(net, _RESOLUTION)
    if len(mesh.faces):
        ours = sampled(mesh, _SAMPLES, seed)
        ways = _apart(ours.part(slice(_HELD)), dense), _apart(surface.held, ours)
        found |= {"Chamfer": (ways[0][0] + ways[1][0]) / 2, "normals": (ways[0][1] + ways[1][1]) / 2}
    else:
        found |= {"Chamfer": 2 * math.sqrt(3), "normals": 0.0}
    return {**found, "distance": float(np.abs(wrong).mean())}


def _apart(points: Oriented, others: Oriented) -> tuple[float, float]:
    """Mean distance to the nearest of the others, and mean cosine of the normals of both."""
    distance, index = nearest(points.points, others)
    return float(distance.mean()), float((points.normals * others.normals[index]).sum(1).mean())


def nearest(points: Array, others: Oriented) -> tuple[Array, Array]:
    """Distance to the nearest of the others, and which one it is."""
    if importlib.util.find_spec("scipy") is None:
        raise UsageError("distances of surfaces need scipy, which is not installed; run: pip install 'fastsiren[data]'")
    from scipy.spatial import cKDTree

    distance, index = cKDTree(others.points).query(points, workers=torch.get_num_threads())
    return distance, index
