"""Full-waveform inversion: its data, its loss, what it writes, resumption."""

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import faults
from fastsiren.problems.experiment import solve
from fastsiren.problems.helmholtz_inverse import HelmholtzInverse, Settings, slowness
from stopped_runs import QUIET, goes_on_to_the_same_bits

SMALL = {
    "steps": 10, "rounds": 4, "hidden": 10, "layers": 1, "batch": 60, "round_batch": 80, "k": 5.0,
    "sigma": 0.1, "sources": 2, "receivers": 7,
}  # fmt: skip


def test_the_medium_of_the_absorbing_layer_is_one():
    x = torch.tensor([[0.0, 0.4], [0.51, 0.0], [0.0, -0.9], [-0.5, 0.5]])
    found = slowness(x, torch.tensor([[0.3], [0.3], [0.3], [-4.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.3], [1.0], [1.0], [1e-3]]))


def test_receivers_surround_the_cylinder_and_record_every_source():
    problem = HelmholtzInverse(Settings(**SMALL))
    assert problem.echoes.shape == (7, 2) and problem.features == (2, 5)
    np.testing.assert_allclose(np.abs(problem.receivers).max(-1), 0.42)
    # The cylinder changes what is recorded, and there is nothing else to see it by.
    assert problem.echoes.abs().max() > 0.01 * problem.sent.abs().mean()


class Right(torch.nn.Module):
    """The echoes and the medium as they are, from the grid."""

    def __init__(self, problem):
        super().__init__()
        self.problem, self.like = problem, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        problem, points = self.problem, x.detach().double().numpy()
        fields = np.stack([problem.grid.at(field, points) for field in problem.fields], -1)
        echoes = (torch.from_numpy(fields) - problem.uniform(x.detach())) / problem.unit
        parts = torch.view_as_real(echoes).flatten(-2)
        medium = torch.from_numpy(problem._true(points[:, 0], points[:, 1]))[:, None]
        return torch.cat([parts, medium - 1], -1).float()


def test_the_right_answer_has_no_error():
    problem = HelmholtzInverse(Settings(**SMALL))
    assert all(figure < 1e-5 for figure in problem.measure(Right(problem)).values())
    assert float(problem._missed(Right(problem))) < 1e-10


def twice(u, x):
    """Second derivatives of a complex field [N, 1] along x and along y, each [N, 1]."""
    found = []
    for axis in (0, 1):
        parts = [u.real, u.imag]
        for _ in range(2):
            parts = [torch.autograd.grad(part.sum(), x, create_graph=True)[0][:, axis : axis + 1] for part in parts]
        found.append(torch.complex(*parts))
    return found


def test_the_loss_is_the_equation_of_the_whole_field_in_plain_autograd():
    problem = HelmholtzInverse(Settings(**{**SMALL, "near": 1.0}))
    net, k = problem.siren(), problem.settings.k
    drawn = problem._points(0)
    # All points are in the physical part, a quarter of the square.
    assert (drawn.x.abs() <= 0.5).all() and (drawn.weight == 0.25).all()
    x = drawn.x.clone().requires_grad_()
    y, expected = net(x), 0.0
    m = slowness(x, y[:, -1:])
    for i in range(2):
        u, e = drawn.sent[:, i : i + 1], torch.complex(y[:, 2 * i : 2 * i + 1], y[:, 2 * i + 1 : 2 * i + 2])
        along_x, along_y = twice(e, x)
        # As Δu + k² u = f, this remains of Δ(u + e) + k² m (u + e) - f.
        rest = along_x + along_y + k**2 * (m * (u + e) - u)
        expected = expected + 0.25 / 2 * rest.abs().square().mean() / k**2
    echoes = (problem.echoes / problem.unit).to(torch.complex64)
    missed = torch.view_as_complex(
        net(torch.from_numpy(problem.receivers).float())[:, :4].unflatten(-1, (2, 2)).contiguous()
    )
    expected = expected + 3 * (missed - echoes).abs().square().sum() / echoes.abs().square().sum()
    torch.testing.assert_close(problem.loss(net, 0), expected, rtol=1e-4, atol=0)


def test_what_sources_send_into_a_uniform_medium_is_the_grids_solution():
    problem = HelmholtzInverse(Settings(**{**SMALL, "slowness": 1.0, "k": 12.0, "sigma": 0.03}))
    assert problem.echoes.abs().max() < 1e-3 * problem.sent.abs().mean()


def test_points_are_evenly_spread_when_weighted():
    drawn = HelmholtzInverse(Settings(**{**SMALL, "batch": 40000}))._points(0)
    assert abs(float(drawn.weight.mean()) - 1) < 0.02
    assert abs(float((drawn.weight * drawn.x.square().sum(-1, keepdim=True)).mean()) - 2 / 3) < 0.02


def test_it_writes_pictures(tmp_path):
    solution = solve(HelmholtzInverse, out=tmp_path, options=QUIET, **SMALL)
    assert set(solution.figures) == {"velocity error", "of the change", "of the echoes"}
    with Image.open(tmp_path / "pictures.png") as shown:
        assert shown.width == 2 * 480 + 3 * 16


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    goes_on_to_the_same_bits(HelmholtzInverse, tmp_path, monkeypatch, after=8, **SMALL)


def test_wrong_settings():
    with pytest.raises(faults.UsageError, match="--receivers must be a whole number of 1 or more; got 0"):
        solve(HelmholtzInverse, options=QUIET, **{**SMALL, "receivers": 0})
    with pytest.raises(faults.UsageError, match=r"--near must be at most 1; got 1\.5"):
        solve(HelmholtzInverse, options=QUIET, **{**SMALL, "near": 1.5})
