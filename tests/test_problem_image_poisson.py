"""Pictures from derivatives: targets that determine the picture, losses as written in the books, wrong inputs."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import faults
from fastsiren.fit import Options
from fastsiren.images import Picture
from fastsiren.problems import cosines
from fastsiren.problems.data import scaled
from fastsiren.problems.experiment import solve
from fastsiren.problems.image_poisson import (
    GradientSettings,
    ImageGradient,
    ImageLaplacian,
    LaplacianSettings,
)
from fastsiren.problems.plain_networks import PlainSiren

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"side": 16, "steps": 30, "hidden": 12, "layers": 1, "batch": 60}
QUIET = Options(progress=False)


def picture(height=12, width=10, channels=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    return Picture(noise.astype(np.uint8))


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_derivatives_of_waves_between_the_pixels(n):
    """Against central differences of the series itself, evaluated off the pixels."""
    values = torch.rand(n, dtype=torch.float64)
    amplitudes = np.linalg.solve(np.cos(math.pi * np.outer(np.arange(n) + 0.5, np.arange(n)) / n), values.numpy())

    def series(u):
        return sum(a * np.cos(math.pi * k * (u + 0.5) / n) for k, a in enumerate(amplitudes))

    u, h = np.arange(n), 1e-3
    np.testing.assert_allclose(cosines.differentiation(n, 0) @ values, values, atol=1e-12)
    np.testing.assert_allclose(
        cosines.differentiation(n, 1) @ values, (series(u + h) - series(u - h)) / (2 * h), atol=1e-4
    )
    curvature = (series(u + h) - 2 * series(u) + series(u - h)) / h**2
    np.testing.assert_allclose(cosines.differentiation(n, 2) @ values, curvature, atol=1e-4)


def test_the_picture_is_what_its_derivatives_say():
    """Solving the Poisson equation of the targets, and of the divergence of the gradient, returns the picture."""
    from scipy.fft import dctn, idctn

    wanted = torch.rand(12, 10, 1, dtype=torch.float64)
    step = 0.2
    squares = sum(np.meshgrid(*(-((math.pi * np.arange(n) / n / step) ** 2) for n in (12, 10)), indexing="ij"))
    squares[0, 0] = 1
    transformed = dctn(cosines.laplacian(wanted, step)[..., 0].numpy(), norm="ortho") / squares
    transformed[0, 0] = 0
    found = idctn(transformed, norm="ortho")
    np.testing.assert_allclose(found - found.mean(), (wanted[..., 0] - wanted.mean()).numpy(), atol=1e-10)


def test_a_gaussian_keeps_the_mean_and_damps_each_wave():
    wave = torch.cos(math.pi * 3 * (torch.arange(8).double() + 0.5) / 8)
    flat = (1 + wave)[:, None, None].expand(8, 5, 1)
    found = cosines.smoothed(flat, 0.7)
    damped = 1 + math.exp(-0.5 * (0.7 * 3 * math.pi / 8) ** 2) * wave
    assert torch.allclose(found, damped[:, None, None].expand(8, 5, 1))


def test_pixels_are_square():
    grid = cosines.square_grid(4, 8)
    assert grid.step == (0.25, 0.25)
    assert grid.coordinates()[:, :, 1].abs().max() == 0.875 and grid.coordinates()[:, :, 0].abs().max() == 0.375


def derivatives(net, x):
    """Gradient [N, O, 2] and Laplacian [N, O] by autograd, an output at a time."""
    x = x.detach().requires_grad_()
    y = net(x)
    rows = [torch.autograd.grad(y[:, o].sum(), x, create_graph=True)[0] for o in range(y.shape[1])]
    curvatures = [
        sum(torch.autograd.grad(row[:, axis].sum(), x, create_graph=True)[0][:, axis] for axis in range(2))
        for row in rows
    ]
    return torch.stack(rows, 1), torch.stack(curvatures, 1)


@pytest.mark.parametrize("plain", [False, True])
def test_the_gradient_loss_is_its_formula(plain):
    problem = ImageGradient(GradientSettings(**SMALL, contrast=0.5), picture())
    net = problem.network()
    index = problem.sampler(3)
    found = derivatives(PlainSiren(net), problem.grid.at(index))[0]
    wanted = 0.5 * cosines.gradient(scaled(picture(), 16), 2 / 12).flatten(0, 1)
    expected = (found - wanted[index]).square().sum(-1).mean() / wanted.square().mean()
    (loss,) = problem.loss(PlainSiren(net) if plain else net, 3)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("plain", [False, True])
def test_the_laplacian_loss_is_its_formula(plain):
    problem = ImageLaplacian(LaplacianSettings(**SMALL, contrast=0.5, blur=0.0, border=7.0), picture())
    net = problem.network()
    index = problem.sampler(3)
    found = derivatives(PlainSiren(net), problem.grid.at(index))[1]
    wanted = 0.5 * cosines.laplacian(scaled(picture(), 16), 2 / 12).flatten(0, 1)
    values = torch.as_tensor(picture().normalised()).view(12, 10, 3)
    edge = torch.ones(12, 10, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    at_edge = net(problem.grid.coordinates()[edge]) / 0.5 - values[edge]
    expected = (found - wanted[index]).square().mean() / wanted.square().mean() + 7 * at_edge.square().mean()
    loss = sum(problem.loss(PlainSiren(net) if plain else net, 3))
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=0)


def test_without_a_border_the_laplacian_is_all():
    problem = ImageLaplacian(LaplacianSettings(**SMALL, border=0.0), picture())
    assert len(list(problem.loss(problem.network(), 0))) == 1


def test_the_mean_is_not_counted_and_the_contrast_is():
    problem = ImageGradient(GradientSettings(**SMALL, contrast=0.5), picture())
    net = problem.network()
    before = problem.measure(net)
    with torch.no_grad():
        net.net[-1].bias += 0.25
    assert problem.measure(net) == pytest.approx(before, rel=1e-3)
    values = net(problem.grid.coordinates()) / 0.5
    shift = torch.as_tensor(picture().normalised()).mean(0) - values.mean((0, 1))
    torch.testing.assert_close(problem.found(net).float(), (values + shift).detach(), rtol=1e-4, atol=1e-4)


def test_reduction_keeps_the_shape_and_drops_the_alpha():
    assert scaled(picture(40, 20, 4), 10).shape == (10, 5, 3)
    assert scaled(picture(40, 20, 2), 64).shape == (40, 20, 1)
    ramp = Picture(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 1)))
    small = (scaled(ramp, 16) / 2 + 0.5) * 255
    np.testing.assert_allclose(small[2:-2, :, 0], (np.arange(16) * 4 + 1.5)[2:-2, None].repeat(16, 1), atol=0.1)


def test_a_directory_holds_the_pictures(tmp_path):
    solve(ImageLaplacian, picture(), out=tmp_path, options=QUIET, **SMALL)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"pictures.png", "found.png", "psnr.png", "gradient_psnr.png", "ssim.png"} < names
    with Image.open(tmp_path / "found.png") as found:
        assert found.size == (10, 12)
    figures = json.loads((tmp_path / "result.json").read_text())["networks"]["sine"]["figures"]
    assert set(figures) == {"PSNR", "SSIM", "gradient_PSNR"}


@pytest.mark.parametrize("kind", [ImageGradient, ImageLaplacian])
def test_a_finished_comparison_goes_on(kind, tmp_path):
    """Also with networks whose last bias no loss depends on."""
    solve(kind, picture(), out=tmp_path, compare=True, options=QUIET, **SMALL)
    rest = solve(kind, picture(), out=tmp_path, compare=True, resume=True, options=QUIET, steps=35)
    assert list(rest.trained) == ["sine", "relu", "relu_pe", "tanh", "rbf"]
    assert all(each.steps == 35 for each in rest.trained.values())


def test_a_network_without_a_laplacian_learns_nothing_from_it(tmp_path):
    solution = solve(ImageLaplacian, picture(), compare=True, options=QUIET, **SMALL, border=0.0)
    assert solution.trained["relu"].figures["PSNR"] < solution.figures["PSNR"]


def test_another_picture_is_refused(tmp_path):
    solve(ImageGradient, picture(), out=tmp_path, options=QUIET, **SMALL)
    with pytest.raises(faults.InputError, match="another picture"):
        solve(ImageGradient, picture(seed=1), out=tmp_path, resume=True, options=QUIET)
    with pytest.raises(faults.UsageError, match=r"--contrast 1\.0 does not fit"):
        solve(ImageGradient, picture(), out=tmp_path, resume=True, options=QUIET, contrast=1.0)
