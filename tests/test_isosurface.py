"""Meshes of functions: near the surface, closed, in few evaluations; what no block near a surface leaves out."""

import math

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren.faults import NonFiniteError, UsageError
from fastsiren.render.isosurface import isosurface

pytestmark = pytest.mark.usefixtures("one_thread")


def ball(x):
    return x.norm(dim=-1) - 0.6


def torus(x):
    return torch.stack([x[:, :2].norm(dim=-1) - 0.6, x[:, 2]], -1).norm(dim=-1) - 0.25


def volume(mesh):
    a, b, c = mesh.corners().swapaxes(0, 1)
    return float((np.cross(a, b) * c).sum() / 6)


def euler(mesh):
    return len(mesh.vertices) - len(mesh.faces) * 3 // 2 + len(mesh.faces)


class Counted:
    def __init__(self, function):
        self.function, self.points = function, 0

    def __call__(self, x):
        self.points += len(x)
        return self.function(x)


# Around multiples of 16, with a block of one cell at the end, and far below one block.
@pytest.mark.parametrize("resolution", [8, 16, 17, 18, 33, 50])
def test_a_torus_of_any_resolution_is_closed_and_right(resolution):
    mesh = isosurface(torus, resolution)
    assert mesh.is_watertight() and euler(mesh) == 0
    cell = 2 / (resolution - 1)
    assert float(torus(torch.from_numpy(mesh.vertices)).abs().max()) < cell**2
    # Positive: the triangles are counterclockwise from outside.
    assert volume(mesh) == pytest.approx(2 * math.pi**2 * 0.6 * 0.25**2, rel=4 * cell)


def test_blocks_give_the_mesh_of_the_whole_volume():
    from skimage.measure import marching_cubes

    x = fastsiren.grids.Grid.over((40, 40, 40)).coordinates()
    vertices, faces, _, _ = marching_cubes(torus(x.view(-1, 3)).view(40, 40, 40).numpy(), 0.0)
    mesh = isosurface(torus, 40)
    assert mesh.faces.shape == faces.shape
    np.testing.assert_allclose(
        np.unique(mesh.vertices.round(5), axis=0), np.unique((vertices / 39 * 2 - 1).round(5), axis=0), atol=2e-5
    )


def test_few_points_are_evaluated():
    counted = Counted(ball)
    isosurface(counted, 257)
    assert counted.points < 0.2 * 257**3


def test_a_wrong_slope_leaves_no_hole():
    """With a slope far too small only the blocks in the middle are near; the surface leads to the others."""
    wanted = isosurface(lambda x: 40 * ball(x), 65)
    found = isosurface(lambda x: 40 * ball(x), 65, slope=14.0)
    assert found.is_watertight() and len(found.faces) == len(wanted.faces)
    assert len(isosurface(lambda x: 40 * ball(x), 65, slope=8.0).faces) == 0


@pytest.mark.parametrize("resolution", [8, 17, 33, 40, 50])
def test_steep_functions_keep_their_surface(resolution):
    wanted = isosurface(ball, resolution)
    found = isosurface(lambda x: 100 * ball(x), resolution)
    assert len(found.faces) == len(wanted.faces) > 0 and found.is_watertight()


@pytest.mark.parametrize("resolution", [-1, 7, 4097, 10**8, 20.0, "20"])
def test_wrong_resolutions_are_refused(resolution):
    with pytest.raises(UsageError, match="from 8 to 4096; got"):
        isosurface(ball, resolution)


def test_what_leaves_the_box_is_closed_at_its_border():
    mesh = isosurface(lambda x: x.norm(dim=-1) - 1.2, 40)
    assert mesh.is_watertight() and np.abs(mesh.vertices).max() <= 1


def test_zeros_at_nodes():
    """A plane through nodes, where every value on it is zero."""
    mesh = isosurface(lambda x: x[:, 0] * 1.0, 33)
    assert mesh.is_watertight() and volume(mesh) == pytest.approx(4, rel=0.1)


def test_a_network_of_many_pieces_is_closed():
    torch.manual_seed(0)
    net = fastsiren.Siren(3, 24, 2, 1)
    mesh = isosurface(lambda x: net(x).detach()[:, 0], 60)
    assert mesh.is_watertight() and len(mesh.faces) > 10_000


def test_no_surface_is_an_empty_mesh():
    mesh = isosurface(lambda x: x.norm(dim=-1) + 0.1, 20)
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3) and not mesh.is_watertight()


def test_numbers_that_are_none_are_refused():
    with pytest.raises(NonFiniteError, match="NaN"):
        isosurface(lambda x: torch.where(x[:, 0] > 0.5, torch.nan, ball(x)), 20)
