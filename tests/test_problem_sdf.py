"""The experiment "sdf": its loss by the formula, its figures, what it writes and refuses, resumption."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import fastsiren
from fastsiren import cli, faults, meshes, tensorfile
from fastsiren.grids import Grid
from fastsiren.meshes import Mesh
from fastsiren.problems import contents, sdf, sdf_figures, sdf_pictures, surface
from fastsiren.problems.experiment import solve
from fastsiren.problems.plain_networks import PlainSiren
from fastsiren.problems.sdf_figures import figures, network_mesh
from fastsiren.problems.sdf_pictures import shaded, slice_picture
from fastsiren.problems.solids import SOLIDS
from fastsiren.problems.surface import of_file, of_solid
from fastsiren.render.isosurface import isosurface
from fastsiren.tensorfile import TensorFile
from stopped_runs import QUIET, goes_on_to_the_same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 12, "hidden": 12, "layers": 1, "batch": 40, "points": 500, "shape": "sphere", "resolution": 24}


@pytest.fixture
def coarse(monkeypatch):
    """What is measured and shown costs little."""
    monkeypatch.setattr(sdf.Sdf, "measured", 2)
    for module, small in (
        (sdf_figures, {"_RESOLUTION": 24, "_SAMPLES": 2000, "_HELD": 500}),
        (surface, {"_FINE": 40, "_HELD": 500, "_SPACE": 5000}),
        (sdf, {"_SLICE": 60, "_SLICED": Grid((60, 60, 1), (-1.0, -1.0, 0.0), (2 / 59, 2 / 59, 0.0))}),
        (sdf_pictures, {"_SUPER": 1}),
    ):
        for name, value in small.items():
            monkeypatch.setattr(module, name, value)


def ball(centre=(0, 0, 0), radius=0.5):
    mesh = isosurface(lambda x: x.norm(dim=-1) - 0.5, 20)
    return mesh._replace(vertices=mesh.vertices * radius / 0.5 + centre)


def official(problem, net, step):
    """The sum of the official code, in nested autograd and in double precision, with the weights of the settings."""
    s = problem.settings
    index = torch.randint(len(problem.surface.known.points), (s.batch,), generator=sdf.generator(s.seed, step))
    known = problem.surface.known.part(index.numpy())
    space = sdf.uniform([-1.0] * 3, [1.0] * 3, s.batch, seed=s.seed, step=step, stream=1)
    x = torch.cat([torch.from_numpy(known.points).float(), space]).double().requires_grad_()
    on_surface = torch.arange(2 * s.batch)[:, None] < s.batch
    normals = torch.cat([torch.from_numpy(known.normals), torch.zeros(s.batch, 3)]).float().double()
    f = net(x)
    gradient = torch.autograd.grad(f.sum(), x, create_graph=True)[0]
    zero = torch.zeros_like(f)
    terms = {
        "surface": torch.where(on_surface, f, zero).abs(),
        "space": torch.where(on_surface, zero, torch.exp(-1e2 * f.abs())),
        "normals": torch.where(on_surface, 1 - torch.cosine_similarity(gradient, normals, dim=-1)[:, None], zero),
        "eikonal": (gradient.norm(dim=-1) - 1).abs(),
    }
    return sum(getattr(s, name) * term.mean() for name, term in terms.items())


@pytest.mark.parametrize("weights", [{}, {"surface": 1.0, "space": 3000.0, "normals": 7.0, "eikonal": 2.0}])
def test_the_loss_is_the_official_one_with_all_its_gradients(weights):
    problem = sdf.Sdf(sdf.Settings(**SMALL, **weights))
    net = problem.network()
    found = problem.loss(net, 5)
    double = fastsiren.Siren(3, 12, 1, 1, first_omega_0=20.0, hidden_omega_0=20.0).double()
    double.load_state_dict({name: tensor.double() for name, tensor in net.state_dict().items()})
    expected = official(problem, PlainSiren(double), 5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    wanted = torch.autograd.grad(expected, list(double.parameters()))
    for a, b in zip(torch.autograd.grad(found, list(net.parameters())), wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_the_default_weights_are_those_of_the_official_code():
    s = sdf.Settings()
    assert (s.surface, s.space, s.normals, s.eikonal, sdf.Sdf.clip) == (3e3, 1e2, 1e2, 5e1, 1.0)


class Exact(torch.nn.Module):
    """The distance to a ball in place of a network."""

    def __init__(self, radius, centre=0.0):
        super().__init__()
        self.radius, self.centre = torch.nn.Parameter(torch.tensor(radius)), centre

    def forward(self, x):
        return (x - self.centre).norm(dim=-1, keepdim=True) - self.radius


def test_figures_of_balls():
    given = of_solid(SOLIDS["sphere"], 20_000, 0)
    right = figures(Exact(0.75), given, 0)
    assert right["IoU"] == 1 and right["normals"] > 0.999 and right["Chamfer"] < 0.01 and right["distance"] < 0.002
    smaller = figures(Exact(0.65), given, 0)
    assert smaller["IoU"] == pytest.approx((0.65 / 0.75) ** 3, abs=0.01)
    assert smaller["Chamfer"] == pytest.approx(0.1, abs=0.005)
    # | |f| - d | is 0.1 but between both spheres, where it is half of that in the mean.
    between = 4 / 3 * np.pi * (0.75**3 - 0.65**3) / 8
    assert smaller["distance"] == pytest.approx(0.1 * (1 - between / 2), abs=0.001)
    assert smaller["normals"] > 0.999
    nothing = figures(Exact(-1.0), given, 0)
    assert nothing["IoU"] == 0 and nothing["Chamfer"] > 3 and nothing["normals"] == 0


def test_without_an_inside_the_merit_is_the_chamfer_distance(coarse):
    mesh = ball()
    problem = sdf.Sdf(sdf.Settings(**SMALL), mesh._replace(faces=mesh.faces[1:]))
    found = problem.measure(Exact(0.9))
    assert problem.merit == "Chamfer" and problem.better(0.1, 0.2) and set(found) == {"Chamfer", "normals", "distance"}
    assert sdf.Sdf(sdf.Settings(**SMALL), mesh).merit == "IoU" == sdf.Sdf.merit
    # A closed shell in which no point is found.
    thin = mesh._replace(vertices=mesh.vertices * [1, 1, 1e-9])
    assert thin.is_watertight() and sdf.Sdf(sdf.Settings(**SMALL), thin).merit == "Chamfer"


def test_a_mesh_has_the_normals_of_the_network_and_the_coordinates_of_the_file(coarse):
    problem = sdf.Sdf(sdf.Settings(**SMALL), ball(centre=(10, 20, 30), radius=4))
    found = problem.mesh(Exact(0.9), 40)
    away = found.vertices - [10, 20, 30]
    # The mesh of the ball is coarse: its largest coordinate lies a little inside.
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), 4, rtol=0.02)
    np.testing.assert_allclose(found.normals, away / np.linalg.norm(away, axis=1, keepdims=True), atol=0.02)
    assert found.is_watertight()


def test_a_directory_holds_meshes_and_pictures(coarse, tmp_path):
    meshes.write(tmp_path / "ball.obj", ball(centre=(5, 0, 0)))
    solution = sdf.fit(tmp_path / "ball.obj", out=tmp_path / "a", options=QUIET, compare=True, **{**SMALL, "steps": 40})
    assert list(solution.trained) == ["sine", "relu", "relu_pe"]
    for label, each in solution.trained.items():
        found, wanted = meshes.read(tmp_path / "a" / f"{label}.ply"), solution.experiment.mesh(each.net, 24)
        np.testing.assert_array_equal(found.faces, wanted.faces)
        np.testing.assert_allclose(found.vertices, wanted.vertices, atol=1e-5)
    with Image.open(tmp_path / "a" / "pictures.png") as shown:
        assert shown.size[0] == 4 * 480 + 5 * 16
    assert {"iou.png", "chamfer.png", "normals.png", "distance.png"} <= {
        path.name for path in (tmp_path / "a").iterdir()
    }
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    assert result["networks"]["sine"]["figures"] == solution.figures


def test_an_obj_file_and_points(coarse, tmp_path):
    random = np.random.default_rng(0)
    normals = random.normal(size=(300, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.savetxt(tmp_path / "ball.xyz", np.concatenate([7 * normals, normals], 1))
    sdf.fit(tmp_path / "ball.xyz", out=tmp_path / "a", options=QUIET, mesh="obj", **{**SMALL, "steps": 150})
    assert abs(meshes.read(tmp_path / "a" / "sine.obj").vertices).max() > 6
    assert (tmp_path / "a" / "pictures.png").exists()


def test_a_stopped_run_goes_on_to_the_same_bits(coarse, tmp_path, monkeypatch):
    goes_on_to_the_same_bits(sdf.Sdf, tmp_path, monkeypatch, after=7, **SMALL)
    with pytest.raises(faults.InputError, match="another shape"):
        solve(sdf.Sdf, ball(), out=tmp_path / "part", resume=True, options=QUIET)


def test_a_shaded_mesh_is_light_where_it_faces_the_light_and_dark_around_it():
    mesh = network_mesh(Exact(0.8), 40)
    pixels = np.asarray(shaded(mesh, 60)).astype(int)
    assert (pixels[0, 0] == (18, 20, 24)).all() and pixels[20, 24].sum() > 2 * pixels[44, 36].sum() > 200
    flat = np.asarray(shaded(mesh._replace(normals=None), 60)).astype(int)
    assert abs(flat - pixels).mean() < 6
    # Seen from inside it is blue.
    inner = np.asarray(shaded(mesh._replace(normals=-mesh.normals), 60)).astype(int)
    assert pixels[30, 30, 0] > pixels[30, 30, 2] and inner[30, 30, 0] < inner[30, 30, 2]


def test_a_slice_is_blue_inside_and_orange_outside():
    x, y = np.meshgrid(np.linspace(-1, 1, 101), np.linspace(-1, 1, 101))
    pixels = np.asarray(slice_picture(np.hypot(x, y) - 0.55)).astype(int)
    assert pixels[50, 53, 2] > pixels[50, 53, 0] and pixels[3, 3, 0] > pixels[3, 3, 2]
    assert pixels[50, 50 + 27].min() > 200 or pixels[50, 50 + 28].min() > 200


def test_a_file_is_known_again_by_its_points():
    mesh = ball()
    first, second = (of_file(mesh._replace(vertices=mesh.vertices * k), 50, 0, 0.1) for k in (1, 2))
    assert first.fingerprint() == of_file(mesh, 50, 0, 0.1).fingerprint() and first.scale == 2 * second.scale


@pytest.mark.parametrize(
    ("change", "said"),
    [({"faces": np.array([[0, 1, 999]])}, "vertex 999"), ({"vertices": np.full((9, 3), np.nan)}, "NaN or infinity")],
)
def test_wrong_meshes_in_memory_are_refused(change, said):
    with pytest.raises(faults.InputError, match=f"cannot use the mesh: .*{said}"):
        sdf.Sdf(sdf.Settings(**SMALL), ball()._replace(**change))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no.ply"], 3, "no such file"),
        (["NAN"], 3, "NaN or infinity"),
        (["FIVE"], 3, "five.xyz: it has 5 points with normals, at least 10 are needed"),
        (["STL"], 3, "extension is none of"),
        (["BALL", "--margin", "1"], 2, "--margin must be less than 1"),
        (["--shape", "cow"], 2, "--shape must be one of knot"),
        (["--resolution", "4"], 2, "--resolution must be a whole number of 8 or more"),
        (["--resolution", "5000"], 2, "--resolution of a mesh must be a whole number from 8 to 4096; got 5000"),
        (["--eikonal", "-1"], 2, "--eikonal must be a number of 0 or more"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_wrong_commands_are_one_line(words, code, said, capsys, tmp_path):
    (tmp_path / "nan.xyz").write_text("0 0 0 0 0 1\n" * 20 + "nan 0 0 0 0 1\n")
    (tmp_path / "five.xyz").write_text("".join(f"{k} 0 0 0 0 1\n" for k in range(5)))
    (tmp_path / "a.stl").write_text("solid")
    meshes.write(tmp_path / "ball.ply", ball())
    files = {"no.ply": "no.ply", "NAN": "nan.xyz", "STL": "a.stl", "FIVE": "five.xyz", "BALL": "ball.ply"}
    words = [str(tmp_path / files[word]) if word in files else word for word in words]
    assert cli.main(["solve", "sdf", *words, "-o", str(tmp_path / "out")]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


@pytest.mark.parametrize(("module", "said"), [("skimage", "scikit-image"), ("scipy", "scipy")])
def test_a_package_that_is_missing_is_named(module, said, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(faults.UsageError, match=f"{said}, which is not installed.*data"):
        sdf.fit(Mesh(*ball()), options=QUIET, **SMALL)


def test_a_shape_around_the_origin_has_no_minus(coarse, tmp_path, capsys):
    solve(sdf.Sdf, out=tmp_path, options=QUIET, **{**SMALL, "shape": "sphere", "steps": 1})
    assert cli.main(["info", str(tmp_path / "sine.safetensors")]) == 0
    assert "around 0, 0, 0" in capsys.readouterr().out


@pytest.fixture
def checkpoint(coarse, tmp_path):
    sdf.fit(ball(centre=(10, 20, 30), radius=4), out=tmp_path / "a", options=QUIET, **SMALL)
    return tmp_path / "a" / "sine.safetensors"


def test_a_checkpoint_is_rendered_to_a_mesh(checkpoint, tmp_path, capsys):
    assert cli.main(["render", str(checkpoint), "-o", str(tmp_path / "b.ply"), "--resolution", "30"]) == 0
    assert "triangles" in capsys.readouterr().out
    found = meshes.read(tmp_path / "b.ply")
    assert found.is_watertight() and np.abs(found.vertices - [10, 20, 30]).max() < 5
    assert cli.main(["render", str(checkpoint), "-o", str(tmp_path / "b.obj"), "--quiet"]) == 0
    np.testing.assert_array_equal(meshes.read(tmp_path / "b.obj").faces, meshes.read(tmp_path / "a" / "sine.ply").faces)
    assert cli.main(["render", str(checkpoint), "-o", str(tmp_path / "b.npy"), "--resolution", "9", "--quiet"]) == 0
    assert np.load(tmp_path / "b.npy").shape == (9, 9, 9, 1)
    assert cli.main(["render", str(checkpoint), "-o", str(tmp_path / "c.npy"), "--resolution", "9"]) == 0
    assert "c.npy: 9x9x9 value" in capsys.readouterr().out
    assert cli.main(["info", str(checkpoint)]) == 0
    assert "wide around 10, 20, 30" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["b.png"], 2, "a png holds no shape; use ply, obj or npy"),
        (["b.ply", "--resolution", "99999999"], 2, "--resolution of a mesh must be a whole number from 8 to 4096"),
        (["b.ply", "--scale", "2"], 2, "--scale makes no sense for a shape"),
        (["b.ply", "--bits", "8"], 2, "without --quantity and --bits"),
        (["b.ply", "--resolution", "4"], 2, "8 or more"),
        (["a/sine.ply"], 1, "exists already"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_a_shape_has_not_is_refused(words, code, said, checkpoint, tmp_path, capsys):
    try:
        left = cli.main(["render", str(checkpoint), "-o", str(tmp_path / words[0]), *words[1:]])
    except SystemExit as leaving:
        left = leaving.code
    assert left == code and said in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"scale": 0.0}, {"scale": 1}, {"shift": [0.0, 0.0]}, {"shift": ["0", 0.0, 0.0]}], ids=str
)
def test_descriptions_are_those_a_training_writes(change, checkpoint, tmp_path):
    description, tensors = tensorfile.read(checkpoint)
    tensorfile.write(tmp_path / "b", TensorFile({**description, "shape": {**description["shape"], **change}}, tensors))
    with pytest.raises(faults.InputError, match="describes a shape that its network does not fit"):
        contents.load(tmp_path / "b")
