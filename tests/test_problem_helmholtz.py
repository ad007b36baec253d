"""The Helmholtz experiment: its reference, its residual, its samples, what it writes and refuses."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

import fastsiren
from fastsiren import faults
from fastsiren.problems import helmholtz_direct
from fastsiren.problems.experiment import solve
from fastsiren.problems.helmholtz import Helmholtz, Settings
from fastsiren.problems.helmholtz_direct import HelmholtzGrid, gaussian, point_source
from fastsiren.problems.helmholtz_residual import absorption, gaussians, near_sources, residual
from stopped_runs import QUIET, goes_on_to_the_same_bits

SMALL = {"steps": 12, "rounds": 3, "hidden": 10, "layers": 1, "batch": 60, "round_batch": 80, "k": 6.0, "sigma": 0.1}


def uniform(x, y):
    return np.ones(np.broadcast_shapes(x.shape, y.shape))


def square(x, y):
    return np.where(np.maximum(abs(x), abs(y)) < 0.3, 0.25, 1.0)


def test_the_direct_field_is_the_hankel_function():
    grid = HelmholtzGrid(12.0, uniform, 111)
    x, y = grid.axis[:, None], grid.axis[None, :]
    field, expected = grid.solve(gaussian(x, y, (0, 0), 0.04)), point_source(12.0, 0.04, np.hypot(x, y))
    inside = np.maximum(abs(x), abs(y)) <= 0.5
    assert np.abs(field - expected)[inside].max() < 1e-3 * np.abs(expected)[inside].max()


def test_the_hankel_function_is_that_of_a_point_far_from_it():
    from scipy.special import hankel2

    r = np.array([0.5, 0.9, 2.0])
    expected = 0.25j * hankel2(0, 7.0 * r) * np.exp(-((7.0 * 0.05) ** 2) / 2)
    assert np.abs(point_source(7.0, 0.05, r) / expected - 1).max() < 1e-6


def test_the_direct_field_solves_the_sparse_system():
    """The operator put together another way: as a sparse matrix of the whole grid."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    k, count = 9.0, 31
    grid = HelmholtzGrid(k, square, count)
    between = -1 + grid.step * (np.arange(count + 1) + 0.5)

    def e(x):
        return 1 - 5j * (np.maximum(abs(x) - 0.5, 0) / 0.5) ** 2

    weights = np.array([1, -27, 27, -1]) / 24 / grid.step
    along = sparse.diags(list(weights), [-2, -1, 0, 1], shape=(count + 1, count))
    second, at = -along.T @ sparse.diags(1 / e(between)) @ along, sparse.diags(e(grid.axis))
    offsets = grid.step * (np.array([0.125, 0.375, 0.625, 0.875]) - 0.5)
    medium = sum(square(grid.axis[:, None] + a, grid.axis[None, :] + b) for a in offsets for b in offsets) / 16
    stretched = np.outer(e(grid.axis), e(grid.axis))
    mass = sparse.diags((k**2 * medium * stretched).ravel())
    source = gaussian(grid.axis[:, None], grid.axis[None, :], (-0.35, 0), 0.1)
    operator = sparse.kron(second, at) + sparse.kron(at, second) + mass
    expected = spsolve(operator.tocsc(), (source * stretched).ravel())
    assert np.abs(grid.solve(source).ravel() - expected).max() < 1e-5 * np.abs(expected).max()


def test_points_between_those_of_the_grid():
    grid = HelmholtzGrid(5.0, uniform, 41)
    field = np.exp(1j * grid.axis[:, None]) * (1 + grid.axis[None, :] ** 2)
    points = np.array([[0.123, -0.456], [0.4, 0.31]])
    expected = np.exp(1j * points[:, 0]) * (1 + points[:, 1] ** 2)
    assert np.abs(grid.at(field, points) - expected).max() < 1e-5


def by_autograd(net, x, k, slowness, source, first):
    """The formula as the paper has it, by nested autograd; real and imaginary parts are two outputs."""
    x = x.clone().requires_grad_()

    def d(u, axis):
        parts = [torch.autograd.grad(part.sum(), x, create_graph=True)[0][:, axis] for part in (u.real, u.imag)]
        return torch.complex(*parts)

    y = net(x)
    u = torch.complex(y[:, first], y[:, first + 1])
    depth = (x.abs() - 0.5).clamp(min=0) / 0.5
    ex, ey = (torch.complex(torch.ones_like(part), -5 * part**2) for part in depth.T)
    along = d(ey / ex * d(u, 0), 0) + d(ex / ey * d(u, 1), 1)
    return along + ex * ey * k**2 * slowness * u - source


def test_the_residual_is_the_formula_with_all_its_gradients():
    torch.manual_seed(0)
    net = fastsiren.Siren(2, 12, 1, 5, first_omega_0=4, hidden_omega_0=4, dtype=torch.float64)
    x = torch.rand(40, 2, dtype=torch.float64) * 2 - 1
    source = torch.complex(*torch.rand(2, 40, 2, dtype=torch.float64))
    found, outputs = residual(net, x, 7.0, source, lambda found: found["m"] + 1, extra=["m"])
    found = found * absorption(x)
    for i in range(2):
        m = net(x)[:, 4] + 1
        expected = by_autograd(net, x, 7.0, m, source[:, i] * absorption(x)[:, 0], 2 * i)
        torch.testing.assert_close(found[:, i], expected, rtol=1e-8, atol=1e-8)
        gradients = [
            torch.autograd.grad(r.abs().sum(), list(net.parameters()), retain_graph=True, allow_unused=True)
            for r in (found[:, i], expected)
        ]
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(outputs["m"][:, 0], net(x)[:, 4])


def test_weighted_points_measure_the_square():
    centres = [(0.1, -0.2), (-0.3, 0.3), (0.15, -0.2)]
    x, weight = near_sources(60000, 20000, centres, 0.03, seed=1, step=2)
    assert x.abs().max() <= 1
    assert float((weight * x.square()).mean()) == pytest.approx(1 / 3, rel=0.02)
    integrals = (weight * gaussians(x, centres, 0.03)).mean(0) * 4
    assert integrals.tolist() == pytest.approx([1, 1, 1], rel=0.03)
    assert torch.equal(x, near_sources(60000, 20000, centres, 0.03, seed=1, step=2)[0])
    assert not torch.equal(x, near_sources(60000, 20000, centres, 0.03, seed=1, step=3)[0])


def test_losses_of_a_network_that_is_zero():
    """The squares are relative to it; the official sum has the weights of the official code."""
    for loss in ("squares", "absolute"):
        problem = Helmholtz(Settings(**SMALL, near=0.5, loss=loss))
        net = problem.siren()
        torch.nn.init.zeros_(net.siren_parameters().weights[-1])
        torch.nn.init.zeros_(net.siren_parameters().biases[-1])
        values = torch.stack([problem.loss(net, step).detach() for step in range(9)])
        if loss == "squares":
            assert float(values.mean()) == pytest.approx(1, rel=0.2)
            continue
        for step, value in enumerate(values):
            x, _ = near_sources(60, 30, [(0, 0)], 0.1, seed=0, step=step)
            source = gaussians(x, [(0, 0)], 0.1)
            assert float(value) == pytest.approx(
                float((source * torch.where(source > 1e-5, 0.06, 1.0)).sum()), rel=1e-5
            )


@pytest.mark.parametrize("medium", ["uniform", "square", "circle"])
def test_it_writes_pictures_and_waves_that_move(medium, tmp_path):
    solution = solve(Helmholtz, out=tmp_path, options=QUIET, medium=medium, **SMALL)
    assert 0 < solution.figures["relative error"] < 3
    with Image.open(tmp_path / "field.gif") as moving:
        assert moving.n_frames == 24 and moving.info["loop"] == 0
    with Image.open(tmp_path / "pictures.png") as shown:
        assert shown.size == (1008, 1076)
    assert (tmp_path / "error.png").exists()


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    goes_on_to_the_same_bits(Helmholtz, tmp_path, monkeypatch, after=10, **SMALL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"medium": "glass"}, "--medium must be one of uniform, square, circle"), ({"k": 0.0}, "--k must be a positive")],
)
def test_wrong_settings(settings, said):
    with pytest.raises(faults.UsageError, match=said):
        solve(Helmholtz, options=QUIET, **{**SMALL, **settings})


def test_without_scipy(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        helmholtz_direct.importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name)
    )
    with pytest.raises(faults.UsageError, match=r"needs the package scipy.*fastsiren\[data\]"):
        solve(Helmholtz, options=QUIET, **SMALL)
