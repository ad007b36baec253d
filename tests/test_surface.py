"""Surfaces of solids and files: samples, what is inside, scaling; rays against triangles."""

import numpy as np
import pytest
import torch

from fastsiren.faults import InputError
from fastsiren.meshes import Mesh
from fastsiren.problems.rays import hits
from fastsiren.problems.solids import SOLIDS
from fastsiren.problems.surface import of_file, of_solid, sampled
from fastsiren.render.isosurface import isosurface

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_lie_in_the_box_and_change_about_as_a_distance(name):
    value = SOLIDS[name]
    x = torch.rand(4000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x.requires_grad_()
    found = value(x)
    length = torch.autograd.grad(found.sum(), x)[0].norm(dim=-1)
    assert found.shape == (4000,) and float(length.max()) < 1.3
    border = x.detach() / x.detach().abs().amax(-1, keepdim=True)
    assert float(value(border).min()) > 0.05 and 0.05 < float((found < 0).double().mean()) < 0.5


def test_the_distance_to_the_knot_is_that_to_its_nearest_point():
    t = torch.linspace(0, 2 * torch.pi, 20001, dtype=torch.float64)
    out = 2 + (3 * t).cos()
    line = 0.25 * torch.stack([out * (2 * t).cos(), out * (2 * t).sin(), 1.2 * (3 * t).sin()], -1)
    x = torch.rand(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = (SOLIDS["knot"](x) + 0.17 - torch.cdist(x, line).amin(1)).abs()
    # Where two strands are equally far the search may take the other one.
    assert float(error.median()) < 1e-4 and float(error.max()) < 0.02


def test_samples_of_a_solid_lie_on_it_with_its_normals():
    surface = of_solid(SOLIDS["torus"], 2000, 0)
    x = surface.known.points
    ring = np.stack([x[:, 0], x[:, 1]], 1)
    middle = np.concatenate([0.6 * ring / np.linalg.norm(ring, axis=1, keepdims=True), np.zeros((2000, 1))], 1)
    np.testing.assert_allclose(np.linalg.norm(x - middle, axis=1), 0.25, atol=1e-9)
    np.testing.assert_allclose(surface.known.normals, (x - middle) / 0.25, atol=1e-7)
    # Even by area: the outer half of a torus has more than half of it.
    outer = (np.linalg.norm(ring, axis=1) > 0.6).mean()
    assert outer == pytest.approx(0.5 + 0.25 / 0.6 / np.pi, abs=0.03)
    assert of_solid(SOLIDS["torus"], 2000, 0).fingerprint() == surface.fingerprint()
    assert of_solid(SOLIDS["torus"], 2000, 1).fingerprint() != surface.fingerprint()


def test_samples_of_triangles_are_even_by_area():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [3, 0, 0], [3, 3, 0], [9, 9, 0]])
    faces = np.array([[0, 1, 2], [0, 3, 4], [5, 5, 5]])
    found = sampled(Mesh(corners, faces), 20000, 0)
    np.testing.assert_array_equal(found.normals, np.tile([0.0, 0, 1], (20000, 1)))
    assert (found.points[:, 1] <= 3).all()
    # Areas 1/2 and 9/2, of which (x, y) with y < x and x < 1 is 1/2 of each... counted beyond x = 1: 4 of 5.
    assert (found.points[:, 0] > 1).mean() == pytest.approx(4 / 5, abs=0.02)


def _ball(resolution=24):
    return isosurface(lambda x: x.norm(dim=-1) - 0.5, resolution)


def test_a_file_is_scaled_as_the_official_code_does_and_back():
    ball = _ball()
    moved = ball._replace(vertices=ball.vertices * [30, 60, 30] + [100, 7, -5])
    surface = of_file(moved, 1000, 0, 0.0)
    centred = moved.vertices - moved.vertices.mean(0)
    official = (centred - centred.min()) / (centred.max() - centred.min()) * 2 - 1
    np.testing.assert_allclose(surface.mesh.vertices, official, atol=1e-12)
    np.testing.assert_allclose((surface.mesh.vertices - surface.shift) / surface.scale, moved.vertices, atol=1e-9)
    assert np.abs(of_file(moved, 1000, 0, 0.25).mesh.vertices).max() == pytest.approx(0.75)


def test_rays_tell_the_inside_of_a_watertight_mesh_only():
    ball = _ball()
    surface = of_file(ball, 1000, 0, 0.1)
    radius = np.linalg.norm(surface.space, axis=1)
    assert (surface.inside == (radius < 0.9)).mean() > 0.99
    clear = np.abs(radius - 0.9) > 0.02
    assert (surface.inside == (radius < 0.9))[clear].all()
    assert of_file(ball._replace(faces=ball.faces[1:]), 1000, 0, 0.1).inside is None


def test_hits_by_hand():
    """One triangle over columns 0 to 3; depth is what its plane says, the share that of each corner."""
    corners = np.array([[[0.1, 0.1, 0], [3.1, 0.1, 3.0], [0.1, 3.1, 0]], [[0, 0, 9], [1, 1, 9], [2, 2, 9]]], np.float64)
    found = hits(corners, 4, 3)
    assert sorted(found.ray.tolist()) == [1 * 3 + 1, 1 * 3 + 2, 2 * 3 + 1] and set(found.face.tolist()) == {0}
    np.testing.assert_allclose(found.depth, found.ray % 3 - 0.1)
    np.testing.assert_allclose(
        np.einsum("nk,nkd->nd", found.share, corners[found.face])[:, :2], np.stack([found.ray % 3, found.ray // 3], 1)
    )
    assert hits(corners[:0], 4, 3).ray.shape == (0,) and len(hits(corners + 100, 4, 3).ray) == 0


def test_hits_do_not_depend_on_how_many_are_looked_at_together(monkeypatch):
    from fastsiren.problems import rays

    corners = np.random.default_rng(0).uniform(-5, 25, (200, 3, 3))
    whole = hits(corners, 20, 20)
    monkeypatch.setattr(rays, "_PAIRS", 50)
    for found, wanted in zip(hits(corners, 20, 20), whole, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_points_are_split_into_known_and_held():
    random = np.random.default_rng(0)
    normals = random.normal(size=(200, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    surface = of_file(Mesh(normals * 7, np.empty((0, 3), np.int64), normals), 1000, 0, 0.1)
    assert len(surface.known.points) == 180 and len(surface.held.points) == 20 and surface.inside is None
    with pytest.raises(InputError, match="at least 10"):
        of_file(Mesh(normals[:9], np.empty((0, 3), np.int64), normals[:9]), 1000, 0, 0.1)
