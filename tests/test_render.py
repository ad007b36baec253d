"""Dense decoding: the right numbers at the right places, whatever the tile, and files that other readers agree with."""

import math
import os

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import fastsiren
from fastsiren.faults import NonFiniteError, NoSpaceError, OutputError, UsageError
from fastsiren.grids import Grid
from fastsiren.render import format_of, render_file, sinks
from fastsiren.render.picture import quantise
from fastsiren.render.tiles import tiles


def network(outputs=3, inputs=2, **options):
    torch.manual_seed(1)
    return fastsiren.Siren(inputs, 16, 1, outputs, first_omega_0=10, hidden_omega_0=10, **options)


def close(a, b):
    return float((a - b).abs().max()) <= 2e-5 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 21, 22, 10**9])
@pytest.mark.parametrize("shape", [(1,), (9,), (3, 7), (1, 1), (4, 3, 5), (2, 1, 3, 2)], ids=str)
def test_tiles_cover_every_point_once_and_in_order(shape, limit):
    flat = np.arange(math.prod(shape)).reshape(shape)
    seen = []
    for tile in tiles(shape, limit):
        box = flat[tuple(slice(first, first + size) for first, size in zip(tile.start, tile.shape, strict=True))]
        assert box.size <= limit
        assert box.ravel().tolist() == list(range(tile.begin, tile.end))
        seen += box.ravel().tolist()
    assert seen == list(range(flat.size))


def test_no_points_no_tiles():
    assert list(tiles((3, 0), 4)) == []
    with pytest.raises(ValueError, match="1 point"):
        next(tiles((3,), 0))


@pytest.mark.parametrize("tile", [None, 1000, 7, 1])
def test_values_are_those_of_the_network_and_do_not_depend_on_the_tile(tile):
    net, grid = network(), Grid.over((9, 13))
    found = fastsiren.render(net, grid, tile=tile, progress=False)
    assert found.shape == (9, 13, 3)
    assert close(found, net(grid.coordinates()).detach())
    assert torch.equal(found, fastsiren.render(net, grid, progress=False))


@pytest.mark.parametrize("shape", [(5,), (3, 4, 5)], ids=str)
def test_other_numbers_of_axes(shape):
    net, grid = network(inputs=len(shape)), Grid.over(shape, "centre")
    assert close(fastsiren.render(net, grid, tile=7, progress=False), net(grid.coordinates()).detach())


def test_sine_output_layer():
    net, grid = network(outermost_linear=False), Grid.over((4, 5), "unit")
    assert close(fastsiren.render(net, grid, progress=False), net(grid.coordinates()).detach())


def test_derivatives_are_those_of_the_operators():
    net, grid = network(), Grid.over((9, 13))
    x = grid.coordinates()
    gradient = fastsiren.render(net, grid, quantity="gradient", tile=20, progress=False)
    assert gradient.shape == (9, 13, 3, 2)
    assert close(gradient, fastsiren.value_and_jacobian(net, x).jacobian.detach())
    laplacian = fastsiren.render(net, grid, quantity="laplacian", tile=20, progress=False)
    assert laplacian.shape == (9, 13, 3)
    assert close(laplacian, fastsiren.laplacian(net, x).laplacian.detach())


def test_arrays_are_filled_in_place():
    net, grid = network(), Grid.over((4, 5))
    expected = fastsiren.render(net, grid, progress=False)
    array, tensor = np.zeros((4, 5, 3), np.float32), torch.zeros(4, 5, 3)
    assert fastsiren.render(net, grid, out=array, progress=False) is array
    assert fastsiren.render(net, grid, out=tensor, progress=False) is tensor
    assert torch.equal(torch.from_numpy(array), expected)
    assert torch.equal(tensor, expected)


@pytest.mark.parametrize("quantity", ["value", "laplacian"])
def test_the_precision_of_a_network_is_that_of_every_call(tmp_path, quantity):
    net, grid = network(precision="tf32"), Grid.over((4, 5))
    for out in (None, tmp_path / "a.png"):
        with pytest.raises(RuntimeError, match=r"^precision: got 'tf32'"):
            fastsiren.render(net, grid, quantity=quantity, out=out, progress=False)
    assert os.listdir(tmp_path) == []


def test_sizes_may_be_numpy_integers():
    net = network()
    found = fastsiren.render(net, Grid.over(np.array([4, 5])), tile=np.int64(7), progress=False)
    assert torch.equal(found, fastsiren.render(net, Grid.over((4, 5)), progress=False))
    assert Grid.over(np.int32(4)) == Grid.over(4)


def test_samples_round_to_even_and_clamp():
    steps = np.array([0.5, 1.5, 2.5, 300, -1, np.nan, np.inf, -np.inf], np.float32)
    assert quantise(steps / np.float32(255), 8).tolist() == [0, 2, 2, 255, 0, 0, 255, 0]
    assert quantise(np.array([1.0], np.float32), 16).tolist() == [65535]


@pytest.mark.parametrize("tile", [5, 13, 1000])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_pictures_hold_the_rounded_values(tmp_path, kind, outputs, bits, tile):
    from fastsiren import images

    net, grid = network(outputs), Grid.over((9, 13))
    path = render_file(net, grid, tmp_path / f"a.{kind}", bits=bits, tile=tile, progress=False)
    values = fastsiren.render(net, grid, progress=False).numpy()
    np.testing.assert_array_equal(images.read(path).pixels, quantise(values * np.float32(0.5) + np.float32(0.5), bits))
    assert os.listdir(tmp_path) == [f"a.{kind}"]


@pytest.mark.parametrize("kind", ["jpg", "webp", "bmp", "gif"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_other_formats_hold_the_picture(tmp_path, kind, outputs):
    torch.manual_seed(1)
    net, grid = fastsiren.Siren(2, 16, 1, outputs, first_omega_0=1, hidden_omega_0=1), Grid.over((40, 60))
    path = render_file(net, grid, tmp_path / f"a.{kind}", progress=False)
    found = np.atleast_3d(iio.imread(path))[..., :3].astype(int).reshape(40, 60, -1)
    expected = quantise(fastsiren.render(net, grid, progress=False).numpy() / 2 + 0.5, 8).astype(int)
    assert abs(found - expected).mean() <= 8


@pytest.mark.parametrize("quantity", ["value", "gradient", "laplacian"])
def test_npy_holds_the_numbers_themselves(tmp_path, quantity):
    net, grid = network(), Grid.over((9, 13))
    path = fastsiren.render(net, grid, out=tmp_path / "a.npy", quantity=quantity, tile=10, progress=False)
    expected = fastsiren.render(net, grid, quantity=quantity, progress=False)
    np.testing.assert_array_equal(np.load(path), expected.numpy())


def test_bfloat16_is_stored_as_float32(tmp_path):
    net, grid = network(dtype=torch.bfloat16), Grid.over((9, 13))
    values = fastsiren.render(net, grid, progress=False)
    assert values.dtype == torch.bfloat16
    stored = np.load(fastsiren.render(net, grid, out=tmp_path / "a.npy", progress=False))
    np.testing.assert_array_equal(stored, values.float().numpy())
    picture = iio.imread(fastsiren.render(net, grid, out=tmp_path / "a.png", progress=False))
    np.testing.assert_array_equal(picture, quantise(stored * np.float32(0.5) + np.float32(0.5), 8))


def ramp():
    """A network whose brightness rises to the right: sin of a small phase."""
    net = fastsiren.Siren(2, 1, 0, 1, first_omega_0=1)
    with torch.no_grad():
        net.net[0].linear.weight.copy_(torch.tensor([[0.0, 1.0]]))
        net.net[0].linear.bias.zero_()
        net.net[1].weight.fill_(1.0)
        net.net[1].bias.zero_()
    return net


def test_derivative_pictures_show_direction_and_sign(tmp_path):
    grid = Grid.over((8, 9))
    colour = iio.imread(render_file(ramp(), grid, tmp_path / "g.png", quantity="gradient", progress=False))
    # Upwards to the right everywhere, strongest in the middle: red, and brightest there.
    assert (colour[..., 0] > colour[..., 1]).all()
    assert (colour[..., 0] > colour[..., 2]).all()
    assert colour[4, 4, 0] > colour[4, 0, 0]
    grey = iio.imread(render_file(ramp(), grid, tmp_path / "l.png", quantity="laplacian", progress=False))
    # The second derivative of sin is -sin: bright on the left, middle grey at zero, dark on the right.
    assert (grey[:, 0] > 200).all()
    assert (grey[:, 8] < 55).all()
    assert set(grey[:, 4].tolist()) <= {127, 128}


def test_non_finite_networks_are_refused_unless_allowed(tmp_path):
    net, grid = network(), Grid.over((9, 13))
    with torch.no_grad():
        net.net[-1].bias[1] = math.nan
    with pytest.raises(NonFiniteError, match=r"117 of the first 117 points"):
        render_file(net, grid, tmp_path / "a.png", progress=False)
    assert os.listdir(tmp_path) == []
    render_file(net, grid, tmp_path / "a.png", progress=False, allow_nonfinite=True)
    assert (iio.imread(tmp_path / "a.png")[..., 1] == 0).all()
    assert fastsiren.render(net, grid, progress=False).isnan().sum() == 117


def test_existing_files_stay_unless_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(OutputError, match="--overwrite"):
        fastsiren.render(network(), Grid.over((4, 5)), out=tmp_path / "a.png", progress=False)
    assert (tmp_path / "a.png").read_bytes() == b"old"
    fastsiren.render(network(), Grid.over((4, 5)), out=tmp_path / "a.png", progress=False, overwrite=True)
    assert iio.imread(tmp_path / "a.png").shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("name", "shape", "bits", "outputs", "words"),
    [
        ("a.jpg", (4, 5), 16, 3, "not 16; png or tiff"),
        ("a.png", (4, 5), 12, 3, "hold 8 or 16 bits per channel, not 12"),
        *((f"a.{kind}", (4, 5), 8, 5, "1 to 4 channels, the network has 5 outputs") for kind in ("png", "jpg", "tiff")),
        ("a.jpg", (4, 5), 8, 4, "transparency"),
        ("a.jpg", (4, 70_000), 8, 3, "at most 65500"),
        ("a.bmp", (60_000, 60_000), 8, 3, "fit in memory"),
        ("a.png", (0, 5), 8, 3, "no points"),
        ("a.xyz", (4, 5), 8, 3, r"'\.xyz'"),
        ("a", (4, 5), 8, 3, "no extension"),
    ],
)
def test_pictures_a_format_cannot_hold_are_refused(tmp_path, name, shape, bits, outputs, words):
    with pytest.raises(UsageError, match=words):
        render_file(network(outputs), Grid.over(shape), tmp_path / name, bits=bits, progress=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.npy", "a.tiff", "a.png"])
def test_what_cannot_fit_is_refused_before_anything_is_computed(tmp_path, name):
    net = network()
    net.forward = None
    with pytest.raises(NoSpaceError, match="no space left"):
        render_file(net, Grid.over((2**31 - 1, 2**30)), tmp_path / name, progress=False)
    assert os.listdir(tmp_path) == []


def test_three_axes_go_to_npy_only(tmp_path):
    net, grid = network(inputs=3), Grid.over((3, 4, 5))
    with pytest.raises(UsageError, match="use npy"):
        render_file(net, grid, tmp_path / "a.png", progress=False)
    assert np.load(render_file(net, grid, tmp_path / "a.npy", progress=False)).shape == (3, 4, 5, 3)


def test_every_format_has_an_extension():
    assert {format_of(f"x.{kind.upper()}") for kind in sinks.FORMATS} == set(sinks.FORMATS)
    assert (format_of("a.TIF"), format_of("b.jpeg")) == ("tiff", "jpg")
