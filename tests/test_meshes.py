"""Files of meshes and points: every format and byte order, polygons, what is damaged, what is written."""

import struct

import numpy as np
import pytest

from fastsiren import meshes
from fastsiren.faults import InputError, UsageError
from fastsiren.meshes import Mesh

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
# A cube of six squares, counterclockwise from outside.
SQUARES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
# The same with one of its squares as two triangles.
MIXED = [*SQUARES[:5], [1, 5, 7], [1, 7, 3]]


def header(form, faces=0, normals=False, kind="float"):
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else [])]
    lines = ["ply", f"format {form} 1.0", "comment made by hand", "element vertex 8"]
    lines += [f"property {kind} {name}" for name in names] + ["property uchar red"]
    if faces:
        lines += [f"element face {faces}", "property uchar flags", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "element edge 0", "property int vertex1", "end_header", ""]).encode()


def ply_file(form, polygons=(), normals=False):
    rows = [[*corner, *((corner - 0.5) if normals else []), 200] for corner in CORNERS]
    if form == "ascii":
        text = "\n".join(" ".join(map(str, [*row[:-1], int(row[-1])])) for row in rows) + "\n"
        text += "\n".join(f"7 {len(each)} " + " ".join(map(str, each)) for each in polygons)
        return header(form, len(polygons), normals) + text.encode()
    order = "<" if form == "binary_little_endian" else ">"
    body = b"".join(struct.pack(f"{order}{len(row) - 1}fB", *row) for row in rows)
    body += b"".join(struct.pack(f"{order}BB{len(each)}i", 7, len(each), *each) for each in polygons)
    return header(form, len(polygons), normals) + body


def off_file(polygons):
    lines = ["OFF  # by hand", f"8 {len(polygons)} 0", "", *(" ".join(map(str, corner)) for corner in CORNERS)]
    return "\n".join([*lines, *(f"{len(each)} " + " ".join(map(str, each)) + " 255 0 0" for each in polygons)]).encode()


def obj_file(polygons):
    lines = ["# by hand", "o cube", *("v " + " ".join(map(str, corner)) for corner in CORNERS), "vt 0 0", "vn 0 0 1"]
    words = [[f"{k + 1}/1/1", f"{k + 1}//1", f"{k - 8}"] for k in range(8)]
    return "\n".join([*lines, *("f " + " ".join(words[k][i % 3] for k in p) for i, p in enumerate(polygons))]).encode()


FORMS = ("ascii", "binary_little_endian", "binary_big_endian")
CUBES = {
    **{f"{form}.ply": lambda polygons, form=form: ply_file(form, polygons) for form in FORMS},
    "cube.off": off_file,
    "cube.obj": obj_file,
}


def volume(mesh):
    a, b, c = mesh.corners().swapaxes(0, 1)
    return float((np.cross(a, b) * c).sum() / 6)


@pytest.mark.parametrize("polygons", [SQUARES, MIXED], ids=["squares", "mixed"])
@pytest.mark.parametrize("name", CUBES)
def test_every_format_gives_the_cube(name, polygons, tmp_path):
    (tmp_path / name).write_bytes(CUBES[name](polygons))
    mesh = meshes.read(tmp_path / name)
    np.testing.assert_array_equal(mesh.vertices, CORNERS)
    assert mesh.faces.shape == (12, 3) and mesh.is_watertight() and volume(mesh) == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
def test_points_with_normals(form, tmp_path):
    (tmp_path / "a.ply").write_bytes(ply_file(form, normals=True))
    mesh = meshes.read(tmp_path / "a.ply")
    assert len(mesh.faces) == 0
    np.testing.assert_allclose(mesh.normals, (CORNERS - 0.5) / 0.75**0.5, rtol=1e-6)


def test_xyz(tmp_path):
    table = np.concatenate([CORNERS, 2 * CORNERS - 1], 1)
    np.savetxt(tmp_path / "a.xyz", table, header="x y z nx ny nz")
    mesh = meshes.read(tmp_path / "a.xyz")
    np.testing.assert_allclose(mesh.vertices, CORNERS)
    np.testing.assert_allclose(mesh.normals, (2 * CORNERS - 1) / 3**0.5)


@pytest.mark.parametrize("length", ["1e-320", "1e-200", "1e300"])
def test_normals_of_any_length_become_units(length, tmp_path):
    mesh = meshes.read(_written(tmp_path, "a.xyz", XYZ.replace(b" 0 1\n", f" 0 {length}\n".encode())))
    np.testing.assert_allclose(mesh.normals, [[0, 0, 1]] * 3)


def test_a_mesh_with_a_hole_or_a_turned_face_is_not_watertight(tmp_path):
    closed = meshes.read(_written(tmp_path, "a.off", off_file(SQUARES)))
    assert not closed._replace(faces=closed.faces[1:]).is_watertight()
    turned = closed.faces.copy()
    turned[0] = turned[0, ::-1]
    assert not closed._replace(faces=turned).is_watertight()
    # Corners that each face has for itself are one all the same.
    apart = Mesh(closed.corners().reshape(-1, 3), np.arange(36).reshape(-1, 3))
    assert apart.is_watertight()
    flat = np.concatenate([closed.faces, [[0, 0, 1]]])
    assert closed._replace(faces=flat).is_watertight()


def _written(folder, name, data):
    (folder / name).write_bytes(data)
    return folder / name


def _with(data, old, new):
    assert old in data
    return data.replace(old, new, 1)


ASCII, BINARY = ply_file("ascii", SQUARES), ply_file("binary_little_endian", SQUARES)
POINTS, OFF, OBJ = ply_file("ascii", normals=True), off_file(SQUARES), obj_file(SQUARES)
XYZ = b"0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n"
LONG = b"9" * 25
WRONG = {
    "short text": ("a.ply", ASCII[:-4], "ends before"),
    "short binary": ("a.ply", BINARY[:-4], "ends before"),
    "only a header": ("a.ply", header("binary_big_endian", 6), "ends before"),
    "short mixed": ("a.ply", ply_file("binary_big_endian", MIXED)[:-3], "ends before"),
    "more than memory": ("a.ply", _with(BINARY, b"vertex 8", b"vertex 900000000000"), "ends before"),
    "more faces than memory": ("a.ply", _with(BINARY, b"face 6", b"face 900000000000"), "ends before"),
    "rows of too many digits": ("a.ply", _with(ASCII, b"vertex 8", b"vertex " + 5000 * b"9"), "not understood"),
    "infinite list": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 inf 0 1 3 2"), "something else"),
    "infinite corner": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 4 0 1 3 inf"), "by a number that is none"),
    "corner beyond integers": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 4 0 1 3 1e300"), "by a number that is none"),
    "no header": ("a.ply", b"play", "no header"),
    "no end": ("a.ply", BINARY[:40], "no header"),
    "unknown type": ("a.ply", _with(BINARY, b"float x", b"quad x"), "not understood: 'property quad x'"),
    "no number": ("a.ply", _with(ASCII, b"1.0 1.0", b"one 1.0"), "something else"),
    "no x": ("a.ply", _with(ASCII, b"float x", b"float w"), "no vertices with x"),
    "nan": ("a.ply", _with(ASCII, b"1.0 1.0", b"nan 1.0"), "NaN or infinity"),
    "index": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 4 0 1 3 8"), "names vertex 8 of 8"),
    "negative index": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 4 0 -1 3 2"), "names vertex -1 of 8"),
    "two corners": ("a.ply", _with(ASCII, b"7 4 0 1 3 2", b"7 2 0 1"), "2 corners"),
    "neither": ("a.ply", ply_file("ascii"), "neither faces nor normals"),
    "no length": ("a.ply", _with(POINTS, b"-0.5 -0.5 -0.5", b"0 0 0"), "1 of its normals"),
    "no area": ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "area"),
    "no OFF": ("a.off", b"8 6 0\n", "OFF"),
    "short OFF": ("a.off", OFF[: OFF.rindex(b"\n")], "ends before"),
    "short face": ("a.off", _with(OFF, b"4 0 1 3 2 255 0 0", b"4 0 1"), "not as many corners"),
    "negative face": ("a.off", _with(OFF, b"4 0 1 3 2 255 0 0", b"-9 0 1 3 2"), "not as many corners"),
    "long index of OFF": ("a.off", _with(OFF, b"4 0 1 3 2", b"4 0 1 3 " + LONG), "not understood"),
    "empty OFF": ("a.off", b"", "OFF"),
    "word": ("a.off", _with(OFF, b"1.0", b"one"), "not understood"),
    "OBJ word": ("a.obj", _with(OBJ, b"v 0.0", b"v zero"), "not understood"),
    "OBJ of two numbers": ("a.obj", _with(OBJ, b"v 0.0 0.0 1.0", b"v 0.0 0.0"), "2 coordinates, expected 3"),
    "long index of OBJ": ("a.obj", _with(OBJ, b"f 1/1/1", b"f " + LONG), "not understood"),
    "OBJ zero": ("a.obj", _with(OBJ, b"f 1/1/1", b"f 99/1/1"), "names vertex 98 of 8"),
    "no faces": ("a.obj", OBJ[: OBJ.index(b"f ")], "no faces"),
    "no normals": ("a.xyz", b"0 0 0\n1 0 0\n0 1 0\n", "3 numbers, expected 6"),
    "ragged": ("a.xyz", XYZ + b"1 2\n", "not understood"),
    "empty": ("a.xyz", b"\n", "no points"),
    "only a comment": ("a.xyz", b"# x y z\n", "no points"),
    "far": ("a.xyz", XYZ + b"1e16 0 0 0 0 1\n", "magnitude 1e\\+16, at most 1e\\+15"),
    "too large to subtract": ("a.xyz", XYZ + b"1e308 0 0 0 0 1\n-1e308 0 0 0 0 1\n", "magnitude 1e\\+308"),
    "tiny": ("a.xyz", XYZ.replace(b"1 0 0 0", b"1e-16 0 0 0").replace(b"0 1 0 0", b"0 1e-16 0 0"), "1e-16 large"),
    "few": ("a.xyz", XYZ[:24], "2 points"),
    "same": ("a.xyz", b"0 0 0 0 0 1\n" * 5, "the same"),
    "other": ("a.stl", b"solid", "extension is none of .ply, .obj, .off, .xyz"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_say_what_is_wrong(case, tmp_path):
    name, data, said = WRONG[case]
    with pytest.raises(InputError, match=said) as raised:
        meshes.read(_written(tmp_path, name, data))
    assert str(tmp_path / name) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", meshes.FORMATS)
@pytest.mark.parametrize("normals", [False, True])
def test_what_is_written_is_read(kind, normals, tmp_path):
    random = np.random.default_rng(0)
    mesh = meshes.read(_written(tmp_path, "a.off", off_file(SQUARES)))
    mesh = mesh._replace(vertices=mesh.vertices + random.normal(size=(8, 3)))
    directions = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    path = meshes.write(tmp_path / f"b.{kind}", mesh._replace(normals=directions) if normals else mesh)
    found = meshes.read(path)
    np.testing.assert_allclose(found.vertices, mesh.vertices, rtol=1e-6)
    np.testing.assert_array_equal(found.faces, mesh.faces)
    words = path.read_bytes()
    assert ((b"float nz" in words) if kind == "ply" else (b"\nvn " in words)) == normals
    with pytest.raises(UsageError, match="none of ply, obj"):
        meshes.write(tmp_path / "b.stl", mesh)
