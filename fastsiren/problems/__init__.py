"""One module per experiment, each a small library and the work behind a command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..faults import UsageError

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["EXPERIMENTS", "find"]

# Name -> module and class of the experiment, and what it is; looked up without importing torch.
EXPERIMENTS = {
    "audio": ("audio", "AudioExperiment", "a waveform from its samples; --compare shows other activations"),
    "helmholtz": ("helmholtz", "Helmholtz", "the wave field of a point source, with an absorbing layer"),
    "helmholtz-inverse": ("helmholtz_inverse", "HelmholtzInverse", "a medium from the waves that receivers record"),
    "wave": ("wave", "Wave", "a pulse that spreads, after the wave equation"),
    "image": ("image_experiment", "ImageExperiment", "a picture from its pixels; --compare shows other activations"),
    "image-gradient": ("image_poisson", "ImageGradient", "a picture from its gradient alone"),
    "image-laplacian": ("image_poisson", "ImageLaplacian", "a picture from its Laplacian and its border"),
    "video": ("video", "VideoExperiment", "a clip from its voxels; --compare shows other activations"),
    "prior": ("prior", "PriorExperiment", "a space of images: the rest of one from a few of its pixels"),
    "sdf": ("sdf", "Sdf", "the signed distance of a shape, from points with normals or a mesh"),
    "compress": ("compress", "Compress", "a photograph as a network in a file of a few kilobytes, beside JPEG"),
    "poisson-edit": ("poisson_edit", "PoissonEdit", "a part of one picture moved seamlessly into another"),
    "poisson": ("equations", "Poisson", "Poisson's equation on a square"),
    "eikonal": ("equations", "Eikonal", "the distance to two circles from points with normals"),
    "heat": ("equations", "Heat", "the heat equation on a square"),
    "burgers": ("equations", "Burgers", "Burgers' equation: a steep front"),
    "allen-cahn": ("equations", "AllenCahn", "the Allen-Cahn equation: layers"),
    "custom": ("equations", "Custom", "any equation, written in names such as u__t + u*u__x - nu*u__x__x"),
}


def find(name: str) -> type[Experiment]:
    """The experiment of a name.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"no experiment is called {name!r}; there are {', '.join(EXPERIMENTS)}")
    module, kind, _ = EXPERIMENTS[name]
    found: type[Experiment] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
