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
    "steps": 10, "rounds": 4, "pretrain": 2, "hidden": 10, "layers": 1, "batch": 60, "round_batch": 80, "k": 5.0,
    "sigma": 0.1, "sources": 2, "receivers": 7,
}  # fmt: skip


def test_the_medium_of_the_absorbing_layer_is_one():
    x = torch.tensor([[0.0, 0.4], [0.51, 0.0], [0.0, -0.9], [-0.5, 0.5]])
    found = slowness(x, torch.tensor([[0.3], [0.3], [0.3], [-4.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.3], [1.0], [1.0], [1e-3]]))


def test_receivers_surround_the_cylinder_and_record_every_source():
    problem = HelmholtzInverse(Settings(**SMALL))
    assert problem.recorded.shape == (7, 2) and problem.features == (2, 5)
    np.testing.assert_allclose(np.abs(problem.receivers).max(-1), 0.42)
    empty = HelmholtzInverse(Settings(**{**SMALL, "slowness": 1.0}))
    # The cylinder changes what is recorded, and there is nothing else to see it by.
    assert (problem.recorded - empty.recorded).abs().max() > 0.01 * empty.recorded.abs().max()


class Right(torch.nn.Module):
    """The fields and the medium as they are, from the grid."""

    def __init__(self, problem):
        super().__init__()
        self.problem, self.like = problem, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        problem, points = self.problem, x.detach().double().numpy()
        fields = np.stack([problem.grid.at(field, points) for field in problem.fields], -1)
        parts = torch.view_as_real(torch.from_numpy(fields)).flatten(-2)
        medium = torch.from_numpy(problem._true(points[:, 0], points[:, 1]))[:, None]
        return torch.cat([parts, medium - 1], -1).float()


def test_the_right_answer_has_no_error():
    problem = HelmholtzInverse(Settings(**SMALL))
    assert all(figure < 1e-5 for figure in problem.measure(Right(problem)).values())
    assert float(problem._missed(Right(problem))) < 1e-10


def test_pretraining_leaves_the_receivers_out():
    problem = HelmholtzInverse(Settings(**SMALL))
    net = problem.siren()
    before = [problem.loss(net, step).item() for step in (3, 8)]
    problem.recorded = 2 * problem.recorded
    after = [problem.loss(net, step).item() for step in (3, 8)]
    assert before[0] == after[0] and before[1] != after[1]


def test_it_writes_pictures(tmp_path):
    solution = solve(HelmholtzInverse, out=tmp_path, options=QUIET, **SMALL)
    assert set(solution.figures) == {"velocity error", "of the change", "of the recordings"}
    with Image.open(tmp_path / "pictures.png") as shown:
        assert shown.width == 2 * 480 + 3 * 16


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    goes_on_to_the_same_bits(HelmholtzInverse, tmp_path, monkeypatch, after=8, **SMALL)


def test_wrong_settings():
    with pytest.raises(faults.UsageError, match="--receivers must be a whole number of 1 or more; got 0"):
        solve(HelmholtzInverse, options=QUIET, **{**SMALL, "receivers": 0})
