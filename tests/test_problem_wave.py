"""The wave experiment: its exact wave, its loss, what it writes and refuses, resumption."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import clips, faults
from fastsiren.fit import operators
from fastsiren.problems.animation import save_moving
from fastsiren.problems.experiment import solve
from fastsiren.problems.plain_networks import PlainSiren
from fastsiren.problems.wave import Settings, Wave, spread
from stopped_runs import QUIET, goes_on_to_the_same_bits

SMALL = {"steps": 12, "rounds": 3, "hidden": 10, "layers": 1, "batch": 64, "round_batch": 80, "omega": 5.0}


def test_a_wave_on_a_line_is_two_that_travel():
    times = np.array([0.0, 0.2, 0.35])
    x, found = spread(times, 1, 0.08, 1.5)

    def pulse(x):
        return np.exp(-(x**2) / (2 * 0.08**2))

    expected = [(pulse(x - 1.5 * t) + pulse(x + 1.5 * t)) / 2 for t in times]
    assert np.abs(found - np.stack(expected)).max() < 1e-10
    assert x.min() >= -1 and x.max() <= 1


def test_a_wave_in_the_plane_obeys_finite_differences():
    """The step of leapfrog, an independent scheme of second order, from one moment to the next."""
    dt = 0.01
    x, (before, now, after) = spread(0.3 + dt * np.arange(3), 2, 0.15, 1.0)
    h = x[1] - x[0]
    laplacian = sum(np.roll(now, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * now
    stepped = 2 * now - before + (dt / h) ** 2 * laplacian
    inside = (slice(1, -1),) * 2
    assert np.abs(stepped - after)[inside].max() < 0.03 * np.abs(after - now).max()
    still, gone = spread(np.array([0.0, dt]), 2, 0.15, 1.0)[1]
    assert np.abs(gone - still).max() < dt


def by_hand(problem, net, step):
    """The official sum of magnitudes, in nested autograd."""
    s = problem.settings
    x, initial = problem._points(step)
    x = x.double().requires_grad_()
    u = net(x)
    gradient = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
    curved = [torch.autograd.grad(gradient[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(1 + s.space)]
    wave = curved[0] - s.speed**2 * sum(curved[1:])
    pulse = torch.exp(-(x[initial:, 1:] ** 2).sum(-1) / (2 * s.sigma**2))
    at_zero = (u[initial:, 0] - pulse).abs().sum() / 10 + gradient[initial:, 0].abs().sum() / 100
    return wave.abs().sum() + len(x) * at_zero


@pytest.mark.parametrize("space", [1, 2])
def test_the_absolute_loss_is_the_official_one_with_all_its_gradients(space):
    problem = Wave(Settings(**SMALL, space=space, speed=1.2, duration=0.4, loss="absolute"))
    net = problem.siren().double()
    original, problem._points = problem._points, lambda step: (original(step)[0].double(), original(step)[1])
    found = problem.loss(net, 5)
    problem._points = original
    expected = by_hand(problem, PlainSiren(net), 5)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(loss, list(net.parameters())) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_squares_vanish_for_a_wave_that_is_right(monkeypatch):
    """Two travelling pulses in place of the network."""
    problem = Wave(Settings(**SMALL, space=1))

    class Exact(torch.nn.Module):
        def forward(self, x):
            t, x = x[..., :1], x[..., 1:]
            return sum(torch.exp(-((x + way * t) ** 2) / (2 * 0.1**2)) for way in (1, -1)) / 2

    net = Exact()
    assert operators(net) is not operators(problem.siren())
    assert problem.loss(net, 3).item() < 1e-8
    assert problem.loss(net, 11).item() < 1e-8
    monkeypatch.setattr(Exact, "forward", lambda self, x: torch.exp(-(x[..., 1:] ** 2) / 0.02) * (1 + 0 * x[..., :1]))
    assert problem.loss(net, 11).item() > 1


def test_times_grow_while_adam_trains():
    problem = Wave(Settings(**SMALL))
    latest = [float(problem._points(step)[0][:, 0].max()) for step in range(12)]
    assert latest[0] <= 0.5 / 9 and 0.3 < latest[8] <= 0.5 and min(latest[9:]) > 0.45
    x, initial = problem._points(4)
    assert len(x) == 64 and bool((x[initial:, 0] == 0).all()) and bool((x[:initial, 0] > 0).all())


@pytest.mark.parametrize("space", [1, 2])
def test_it_writes_snapshots_and_an_animation(space, tmp_path):
    solution = solve(Wave, out=tmp_path, options=QUIET, space=space, **SMALL)
    assert set(solution.figures) == {"relative error", "at the end"}
    with Image.open(tmp_path / "wave.gif") as moving:
        assert moving.n_frames > 30
    clip = clips.read(tmp_path / "wave.mp4", width=2000, frames=100)
    assert (len(clip.frames), clip.frames.shape[2], clip.rate) == (40, 1008, 20)
    with Image.open(tmp_path / "pictures.png") as shown:
        assert shown.width == 4 * 480 + 5 * 16
    assert (tmp_path / "error.png").exists()


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    goes_on_to_the_same_bits(Wave, tmp_path, monkeypatch, after=10, **SMALL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"space": 3}, "--space must be 1 or 2; got 3"),
        ({"duration": 0.9}, "--duration 0.9: the wave reaches the border at 0.7"),
        ({"speed": -1.0}, "--speed must be a positive number"),
    ],
)
def test_wrong_settings(settings, said):
    with pytest.raises(faults.UsageError, match=said):
        solve(Wave, options=QUIET, **{**SMALL, **settings})


def test_without_pyav_there_is_a_gif_only(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    save_moving([Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")], tmp_path / "two")
    assert [path.name for path in tmp_path.iterdir()] == ["two.gif"]


def test_an_mp4_file_of_odd_pictures_is_cropped(tmp_path):
    save_moving([Image.new("RGB", (99, 67), colour) for colour in ("red", "blue")], tmp_path / "two")
    assert clips.read(tmp_path / "two.mp4", width=200, frames=5).frames.shape == (2, 66, 98, 3)
