"""Meshes and points with normals, in and out: PLY, OBJ, OFF and XYZ files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from . import ply
from .faults import InputError, UsageError
from .files import atomic_output, open_input
from .tensorfile import Array

__all__ = ["FORMATS", "Mesh", "check", "encode", "read", "write"]

FORMATS = ("ply", "obj")
_XYZ, _NORMALS = ("x", "y", "z"), ("nx", "ny", "nz")
# Areas and distances of larger coordinates, or of smaller shapes, are beyond float32.
_LARGEST, _SMALLEST = 1e15, 1e-15


class Mesh(NamedTuple):
    """Triangles, or points with normals where there are no triangles."""

    vertices: Array
    """[V, 3], float64."""
    faces: Array
    """[F, 3], int64: counterclockwise when seen from outside."""
    normals: Array | None = None
    """[V, 3], of unit length, outward."""

    def corners(self) -> Array:
        """Corners of every triangle, [F, 3, 3]."""
        return self.vertices[self.faces]

    def is_watertight(self) -> bool:
        """Whether every edge belongs to two triangles that run along it in opposite directions."""
        # Files repeat vertices where colours or textures have a seam.
        _, same = np.unique(self.vertices, axis=0, return_inverse=True)
        faces = same.reshape(-1)[self.faces]
        faces = faces[(faces != np.roll(faces, 1, 1)).all(1)]
        ahead = np.concatenate([faces[:, [i, (i + 1) % 3]] for i in range(3)])
        count = np.int64(len(self.vertices))
        there, back = np.sort(ahead @ [count, 1]), np.sort(ahead @ [1, count])
        return len(ahead) > 0 and bool((there == back).all() and (np.diff(there) > 0).all())


def read(path: str | os.PathLike[str]) -> Mesh:
    """Read a mesh, or points with normals.

    Args:
        path: .ply (text or binary), .obj or .off, whose polygons are cut into triangles; .xyz, a line of x y z nx ny nz
            per point. Normals of a file that has triangles are left out: triangles have their own.

    Raises:
        InputError: The file is missing, damaged or of another kind, or has neither triangles nor normals.
    """
    kind = Path(path).suffix.lower()
    if kind not in _READERS:
        raise InputError(f"cannot read {path}: its extension is none of {', '.join(_READERS)}")
    with open_input(path, "a mesh or points with normals") as file:
        data = file.read()
    try:
        mesh = _READERS[kind](data)
        check(mesh)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return mesh if mesh.normals is None else mesh._replace(normals=_unit(mesh.normals))


def check(mesh: Mesh) -> None:
    """Refuse a mesh that is no surface.

    Raises:
        InputError: Numbers are not finite, too large or too close to each other, faces name vertices that are none, or
            there are neither faces with an area nor normals.
    """
    vertices, faces, normals = mesh
    if len(vertices) < 3:
        raise InputError(f"it has {len(vertices)} points, at least 3 are needed")
    for numbers in (vertices, normals):
        if numbers is not None and not np.isfinite(numbers).all():
            raise InputError("it holds NaN or infinity; export it again")
    _check_size(vertices)
    if len(faces):
        _check_faces(mesh)
    elif normals is None:
        raise InputError("it has neither faces nor normals; export it with normals")
    if normals is not None and not normals.any(1).all():
        raise InputError(f"{int((~normals.any(1)).sum())} of its normals have no length; export it again")


def _check_size(vertices: Array) -> None:
    largest = np.abs(vertices).max()
    if largest > _LARGEST:
        raise InputError(f"it has a coordinate of magnitude {largest:.3g}, at most {_LARGEST:g} is read; scale it")
    size = np.ptp(vertices, 0).max()
    if size == 0:
        raise InputError("all its points are the same")
    if size < _SMALLEST:
        raise InputError(f"it is {size:.3g} large, at least {_SMALLEST:g} is needed; scale it")


def _check_faces(mesh: Mesh) -> None:
    vertices, faces, _ = mesh
    if not (faces.min() >= 0 and faces.max() < len(vertices)):
        wrong = faces.max() if faces.min() >= 0 else faces.min()
        raise InputError(f"a face names vertex {wrong} of {len(vertices)}, counted from 0")
    if not _areas(mesh).any():
        raise InputError("none of its faces has an area")


def _areas(mesh: Mesh) -> Array:
    a, b, c = mesh.corners().swapaxes(0, 1)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _unit(vectors: Array) -> Array:
    # Squares of very long or short ones are beyond float64.
    vectors = vectors / np.abs(vectors).max(1, keepdims=True)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _read_ply(data: bytes) -> Mesh:
    elements = ply.read(data)
    vertices = _columns(elements.get("vertex", {}), _XYZ)
    if vertices is None:
        raise InputError("it has no vertices with x, y and z")
    found = elements.get("face", {})
    polygons = found.get("vertex_indices", found.get("vertex_index"))
    if isinstance(polygons, ply.Lists) and len(polygons.lengths):
        return Mesh(vertices, _fans(polygons))
    return Mesh(vertices, _no_faces(), _columns(elements["vertex"], _NORMALS))


def _columns(found: ply.Columns, names: tuple[str, ...]) -> Array | None:
    columns = [found.get(name) for name in names]
    numbers = [each for each in columns if isinstance(each, np.ndarray)]
    return np.stack(numbers, 1) if len(numbers) == len(names) else None


def _read_obj(data: bytes) -> Mesh:
    vertices: list[list[bytes]] = []
    lengths: list[int] = []
    corners: list[int] = []
    try:
        # A backslash at the end of a line joins it to the next.
        for words in (line.split() for line in data.replace(b"\\\n", b" ").splitlines()):
            if words[:1] == [b"v"]:
                if len(words) < 4:
                    raise ValueError(f"a vertex has {len(words) - 1} coordinates, expected 3")
                vertices.append(words[1:4])
            elif words[:1] == [b"f"]:
                named = [int(word.partition(b"/")[0]) for word in words[1:]]
                # Numbers count from 1, negative ones from the last vertex so far.
                corners += [place - 1 if place > 0 else len(vertices) + place for place in named]
                lengths.append(len(named))
        points = np.array(vertices, np.float64).reshape(len(vertices), 3)
        indices = np.array(corners, np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"a line of it is not understood ({error})") from None
    if not lengths:
        raise InputError("it has no faces")
    return Mesh(points, _fans(ply.Lists(np.array(lengths), indices)))


def _read_off(data: bytes) -> Mesh:
    """Line by line: colours may stand behind coordinates and corners."""
    lines = [words for line in data.splitlines() if (words := line.partition(b"#")[0].split())]
    if not lines or lines[0][0] != b"OFF":
        raise InputError("it does not begin with OFF")
    lines = [lines[0][1:], *lines[1:]] if len(lines[0]) > 1 else lines[1:]
    try:
        count, polygons = int(lines[0][0]), int(lines[0][1])
        if min(count, polygons) < 0 or len(lines) < 1 + count + polygons:
            raise IndexError
        vertices = np.array([words[:3] for words in lines[1 : 1 + count]], np.float64).reshape(count, 3)
        rows = [[int(word) for word in words[: 1 + int(words[0])]] for words in lines[1 + count :][:polygons]]
        lengths = np.array([int(words[0]) for words in lines[1 + count :][:polygons]], np.int64)
        corners = np.array([corner for row in rows for corner in row[1:]], np.int64)
    except IndexError:
        raise InputError("it ends before the last of the elements that it counts") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"a line of it is not understood ({error})") from None
    if any(len(row) != 1 + length for row, length in zip(rows, lengths, strict=True)):
        raise InputError("a face has not as many corners as it says")
    return Mesh(vertices, _fans(ply.Lists(lengths, corners)))


def _read_xyz(data: bytes) -> Mesh:
    if not any(line.partition(b"#")[0].strip() for line in data.splitlines()):
        raise InputError("it has no points")
    try:
        table = np.loadtxt(io.BytesIO(data), np.float64, comments="#", ndmin=2)
    except ValueError as error:
        raise InputError(f"a line of it is not understood ({error})") from None
    if table.shape[1] != 6:
        raise InputError(f"its lines have {table.shape[1]} numbers, expected 6: x y z nx ny nz")
    return Mesh(table[:, :3], _no_faces(), table[:, 3:])


def _no_faces() -> Array:
    return np.empty((0, 3), np.int64)


def _fans(polygons: ply.Lists) -> Array:  # [F, 3]
    """Triangles that fan out from the first corner of each polygon."""
    lengths, corners = polygons.lengths.astype(np.int64), polygons.values
    # Of float64, integers up to this are exact.
    if not ((corners == np.rint(corners)) & (np.abs(corners) <= 2**53)).all():
        raise InputError("a face names a vertex by a number that is none")
    if (lengths < 3).any():
        raise InputError(f"a face has {lengths.min()} corners, at least 3 are needed")
    first = np.repeat(np.cumsum(lengths) - lengths, lengths - 2)
    each = lengths - 2
    step = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    return corners.astype(np.int64)[np.stack([first, first + step + 1, first + step + 2], 1)]


_READERS: dict[str, Callable[[bytes], Mesh]] = {
    ".ply": _read_ply,
    ".obj": _read_obj,
    ".off": _read_off,
    ".xyz": _read_xyz,
}


def encode(file: IO[bytes], mesh: Mesh, kind: str) -> None:
    """Write a mesh to an open file.

    Args:
        file: Where to write.
        mesh: What to write; of OBJ files also normals go with the vertices.
        kind: "ply" (binary) or "obj".
    """
    if kind == "ply":
        ply.write(file, *mesh)
        return
    text = io.StringIO()
    np.savetxt(text, mesh.vertices, "v %.7g %.7g %.7g")
    if mesh.normals is not None:
        np.savetxt(text, mesh.normals, "vn %.5f %.5f %.5f")
    corner = "%d" if mesh.normals is None else "%d//%d"
    indices = np.repeat(mesh.faces + 1, 1 if mesh.normals is None else 2, 1)
    np.savetxt(text, indices, "f " + " ".join([corner] * 3))
    file.write(text.getvalue().encode())


def write(path: str | os.PathLike[str], mesh: Mesh) -> Path:
    """Write a mesh; the file appears complete or not at all.

    Args:
        path: .ply or .obj.
        mesh: What to write.

    Raises:
        UsageError: The extension is another one.
        OutputError: It cannot be written.

    Example:
        >>> import tempfile
        >>> corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> solid = Mesh(corners, np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]))
        >>> with tempfile.TemporaryDirectory() as home:
        ...     read(write(f"{home}/solid.ply", solid)).is_watertight()
        True
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UsageError(f"cannot write {path}: its extension is none of {', '.join(FORMATS)}")
    with atomic_output(path) as file:
        encode(file, mesh, kind)
    return Path(path)
