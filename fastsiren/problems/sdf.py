"""The experiment "sdf": a signed distance from points with normals, decoded to a mesh."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import meshes
from ..faults import InputError, UsageError
from ..fit import operators, option, uniform
from ..fit import settings as base
from ..fit.sampler import generator
from ..grids import Grid
from ..meshes import Mesh
from ..render.isosurface import check_resolution
from ..tensorfile import Array
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source, solve
from .pictures import curves, save, sheet
from .plain_networks import plain_networks
from .sdf_figures import figures, nearest, network_mesh
from .sdf_pictures import shaded, slice_picture
from .solids import SOLIDS
from .surface import Surface, of_file, of_solid

__all__ = ["Sdf", "Settings", "fit"]

# Cosines of directions of no length are zero.
_SHORTEST = 1e-8
# Points along each side of the slice at z = 0.
_SLICE = 480
_SLICED = Grid((_SLICE, _SLICE, 1), (-1.0, -1.0, 0.0), (2 / (_SLICE - 1), 2 / (_SLICE - 1), 0.0))


@dataclass(frozen=True)
class Settings(base.Settings):
    """Settings of "sdf"; see `fastsiren.fit.Settings`."""

    steps: int = option(1500, "training steps", least=1)
    hidden: int = option(128, "width of the sine layers; the paper has 256 and 1024", least=1, fixed=True)
    omega: float = option(20.0, "frequency factor of every sine layer; the paper has 30", fixed=True)
    lr: float = option(2e-3, "highest learning rate of Adam")
    batch: int = option(10000, "points on the surface per step, and as many in space", least=1)
    shape: str = option("knot", "what is learnt where no file is given", choices=tuple(SOLIDS), fixed=True)
    points: int = option(100_000, "samples of a surface that is not given by points", least=10, fixed=True)
    margin: float = option(0.1, "around the shape of a file in [-1, 1]; 0 as the official code", least=0, fixed=True)
    surface: float = option(3000.0, "weight of |f| on the surface", least=0)
    space: float = option(100.0, "weight of exp(-100 |f|) off it; the paper has that of |f|", least=0)
    normals: float = option(100.0, "weight of 1 - cos(gradient, normal)", least=0)
    eikonal: float = option(50.0, "weight of | |gradient| - 1 |", least=0)
    resolution: int = option(256, "grid points along each axis for the mesh that is written", least=8)
    mesh: str = option("ply", "format of the mesh", choices=meshes.FORMATS)


class Sdf(Experiment):
    """|∇f| = 1, f = 0 and ∇f = n at points of a surface (Sitzmann et al. 2020, section 4.2).

    Args:
        settings: How it is learnt.
        file: What `fastsiren.meshes.read` reads, or a `Mesh`; None takes the solid that the settings name.
    """

    name = "sdf"
    data = "shape"
    merit = "IoU"
    options = Settings
    quick = Settings(steps=1000, hidden=96, layers=2, omega=30.0, batch=750, shape="blend", resolution=96)
    bound = 0.94
    published = "pictures only: 50,000 steps (the paper's thread #47)"
    sources = (Source("file", "points with normals (.xyz, .ply) or a mesh (.ply, .obj, .off); default: --shape"),)
    # That of the official code.
    clip = 1.0
    measured = 5

    def __init__(self, settings: Settings, file: str | os.PathLike[str] | Mesh | None = None) -> None:
        super().__init__(settings)
        check_resolution(self.settings.resolution)
        self.surface = _surface(file, self.settings)
        self._points = torch.from_numpy(self.surface.known.points).float()
        self._normals = torch.from_numpy(self.surface.known.normals).float()
        if self.surface.space is None:
            # Nobody knows what is inside.
            self.merit, self.higher_is_better = "Chamfer", False

    @property
    def features(self) -> tuple[int, int]:
        """Three coordinates to a distance."""
        return 3, 1

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding."""
        s = self.settings
        others = plain_networks(3, s.hidden, s.layers, 1, resolution=s.resolution, seed=s.seed)
        return {self.ours: self.network, **{name: others[name] for name in ("relu", "relu_pe")}}

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The official sum: each of its parts is a mean over all points, those on the surface and those in space."""
        s = self.settings
        index = torch.randint(len(self._points), (s.batch,), generator=generator(s.seed, step))
        space = uniform([-1.0] * 3, [1.0] * 3, s.batch, seed=s.seed, step=step, stream=1)
        value, jacobian = operators(net).value_and_jacobian(net, torch.cat([self._points[index], space]))
        value, gradient = value[:, 0], jacobian[:, 0]
        length = gradient.norm(dim=-1)
        cosine = (gradient[: s.batch] * self._normals[index]).sum(-1) / length[: s.batch].clamp(min=_SHORTEST)
        parts = (
            s.surface * value[: s.batch].abs().sum(),
            s.space * torch.exp(-100 * value[s.batch :].abs()).sum(),
            s.normals * (1 - cosine).sum(),
            s.eikonal * (length - 1).abs().sum(),
        )
        return sum(parts[1:], parts[0]) / len(value)

    def identity(self) -> dict[str, Any]:
        """Fingerprint of the points, and how a network's coordinates belong to those of the file."""
        surface = self.surface
        return {"shape": {"sha256": surface.fingerprint(), "scale": surface.scale, "shift": list(surface.shift)}}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """IoU where the inside is known, Chamfer distance, agreement of normals, error of the distance."""
        return figures(net, self.surface, self.settings.seed)

    def mesh(self, net: nn.Module, resolution: int) -> Mesh:
        """The zero level of a network, with its gradients as normals, in the coordinates of the file.

        Args:
            net: The network.
            resolution: Grid points along each axis of [-1, 1]^3.
        """
        return self._in_file(network_mesh(net, resolution))

    def write(self, solution: Solution, home: Path) -> None:
        """Meshes, pictures of them and of the distance along a slice, figures over the steps."""
        s, given = self.settings, self.surface.mesh
        seen = {} if given is None else {"given": shaded(given)}
        slices = {} if given is None else {"given": slice_picture(self._given_slice())}
        for label, each in solution.trained.items():
            mesh = network_mesh(each.net, s.resolution)
            meshes.write(home / f"{label}.{s.mesh}", self._in_file(mesh))
            seen[f"{label}, {self.merit} {each.figures[self.merit]:.4g}"] = shaded(mesh)
            slices[label] = slice_picture(_slice(each.net))
        cells = [*seen.items(), *((f"{label}, distance at z = 0", picture) for label, picture in slices.items())]
        save(sheet(cells, columns=len(seen)), home / "pictures.png")
        for figure in solution.figures:
            save(curves(solution.over_steps(figure), x="step", y=figure), home / f"{figure.lower()}.png")

    def _in_file(self, mesh: Mesh) -> Mesh:
        return mesh._replace(vertices=(mesh.vertices - self.surface.shift) / self.surface.scale)

    def _given_slice(self) -> Array:
        """Distance to the nearest sample, on the side that its normal says."""
        x, dense = _SLICED.coordinates(dtype=torch.float64).view(-1, 3).numpy(), self.surface.dense()
        distance, index = nearest(x, dense)
        outside = ((x - dense.points[index]) * dense.normals[index]).sum(1) >= 0
        return _upright(np.where(outside, distance, -distance))


def fit(file: str | os.PathLike[str] | Mesh | None = None, **options: Any) -> Solution:
    """Learn the signed distance of a shape.

    Args:
        file: Points with normals or a mesh, or a `Mesh`; None takes the solid that the setting `shape` names.
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        InputError: The file is missing or damaged.
        UsageError: scikit-image is not installed.
    """
    return solve(Sdf, file, **options)


def _surface(given: str | os.PathLike[str] | Mesh | None, settings: Any) -> Surface:
    if given is None:
        return of_solid(SOLIDS[settings.shape], settings.points, settings.seed)
    if settings.margin >= 1:
        raise UsageError(f"--margin must be less than 1; got {settings.margin:g}")
    mesh = given if isinstance(given, Mesh) else meshes.read(given)
    try:
        meshes.check(mesh)
        return of_file(mesh, settings.points, settings.seed, settings.margin)
    except InputError as error:
        raise InputError(f"cannot use {'the mesh' if given is mesh else given}: {error}") from None


def _slice(net: nn.Module) -> Array:
    return _upright(on_grid(net, _SLICED).numpy())


def _upright(values: Array) -> Array:
    """Rows from the top: the second axis points up."""
    return values.reshape(_SLICE, _SLICE).T[::-1].astype(np.float64)
