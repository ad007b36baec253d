"""Pictures of surfaces: a mesh in light and shade, a distance along a slice."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..meshes import Mesh
from ..tensorfile import Array
from .pictures import PAPER
from .rays import hits

__all__ = ["shaded", "slice_picture"]

# The eye stands this far from the middle of a box 2 wide, to the right and above.
_DISTANCE = 5.0
_TURN, _TILT = 0.6, 0.5
# Samples along each axis of a pixel.
_SUPER = 2
_CLAY = np.array([0.93, 0.80, 0.66])
# Directions to lights, seen from the eye (right, up, to the eye), and their colours.
_LIGHTS = (
    ((-0.5, 0.7, 0.6), (0.85, 0.82, 0.78)),
    ((0.8, 0.1, 0.35), (0.16, 0.20, 0.28)),
    ((0.0, -1.0, 0.2), (0.10, 0.08, 0.07)),
)
_SHINE = 40
_BETWEEN = 0.1


def shaded(mesh: Mesh, side: int = 480) -> Image.Image:
    """A mesh as seen from above and one side; the inner side of a surface is blue.

    Args:
        mesh: In [-1, 1]^3; triangles are flat where it has no normals.
        side: Pixels along each side of the picture.
    """
    wide = side * _SUPER
    seen = mesh.vertices @ _view().T
    # Perspective, with 1 / distance as the depth: it changes evenly along a triangle, as its picture does.
    near = _DISTANCE / (_DISTANCE - seen[:, 2])
    zoom = wide / 2 / 1.3
    flat = np.stack([wide / 2 + zoom * seen[:, 0] * near, wide / 2 - zoom * seen[:, 1] * near, near], 1)
    found = hits(flat[mesh.faces], wide, wide)
    order = np.lexsort((-found.depth, found.ray))
    ray, first = np.unique(found.ray[order], return_index=True)
    face, share = found.face[order][first], found.share[order][first]
    if mesh.normals is None:
        a, b, c = mesh.corners()[face].swapaxes(0, 1)
        normal = np.cross(b - a, c - a)
    else:
        normal = (share[..., None] * mesh.normals[mesh.faces[face]]).sum(1)
    pixels = np.tile(np.array(PAPER) / 255, (wide * wide, 1))
    pixels[ray] = _lit(normal @ _view().T / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-9))
    small = pixels.reshape(side, _SUPER, side, _SUPER, 3).mean((1, 3))
    return Image.fromarray((small * 255).round().astype(np.uint8))


def _view() -> Array:
    """Rows: right, up, to the eye; the third axis of the box points up."""
    eye = np.array([np.cos(_TILT) * np.sin(_TURN), -np.cos(_TILT) * np.cos(_TURN), np.sin(_TILT)])
    right = np.array([np.cos(_TURN), np.sin(_TURN), 0.0])
    return np.stack([right, np.cross(eye, right), eye])


def _lit(normal: Array) -> Array:  # [n, 3] -> [n, 3]
    outside = normal[:, 2:] >= -0.05
    surface = np.where(outside, _CLAY, _CLAY[::-1])
    normal = np.where(outside, normal, -normal)
    # The sky gives more than the ground.
    light = 0.16 + 0.14 * normal[:, 1:2]
    shine = np.zeros_like(light)
    for direction, colour in _LIGHTS:
        to = np.array(direction) / np.linalg.norm(direction)
        light = light + (normal @ to).clip(0)[:, None] * np.array(colour)
        half = (to + [0, 0, 1]) / np.linalg.norm(to + [0, 0, 1])
        shine = shine + 0.3 * (normal @ half).clip(0)[:, None] ** _SHINE * np.array(colour)
    return np.sqrt((surface**2 * light + shine).clip(0, 1))


def slice_picture(distance: Array, width: float = 2.0) -> Image.Image:
    """A signed distance along a plane: blue inside, orange outside, a bright line at zero, a darker one every 0.1.

    Args:
        distance: [rows, columns].
        width: Length of the longer side.
    """
    pixel = width / max(distance.shape)
    slope = np.hypot(*np.gradient(distance, pixel)).clip(1e-3)
    inside = distance < 0
    strength = (np.abs(distance) / 0.8).clip(0, 1)[..., None]
    colour = np.where(inside[..., None], (70, 150, 255), (255, 160, 48)) * (0.25 + 0.6 * strength)
    off = np.abs(distance / _BETWEEN - np.rint(distance / _BETWEEN)) * _BETWEEN
    # Lines as wide everywhere: what counts is the way to them, not the change of the value.
    thin = (off / slope / pixel < 0.8)[..., None]
    zero = (np.abs(distance) / slope / pixel < 1.6)[..., None]
    colour = np.where(zero, (245, 245, 240), np.where(thin, 0.55 * colour, colour))
    return Image.fromarray(colour.round().astype(np.uint8))
