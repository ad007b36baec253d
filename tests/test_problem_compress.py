"""Photographs as networks: steps after curvature, rounding that is trained for, files, stops, and JPEG beside it."""

import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import Siren, cli, faults, sirenfile
from fastsiren.fit import Options
from fastsiren.images import Picture
from fastsiren.problems import compress, rounding
from fastsiren.problems.experiment import solve
from fastsiren.problems.plain_networks import PlainSiren
from fastsiren.tensorfile import read
from stopped_runs import goes_on_to_the_same_bits, stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 60, "finish": 20, "hidden": 10, "layers": 1, "lr": 0.01, "batch": 100, "bits": 5.0}
QUIET = Options(progress=False)


def picture(height=20, width=30, channels=3, seed=0):
    """Smooth noise."""
    noise = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)
    return Picture((smooth[0].movedim(0, -1) * 255).round().byte().numpy())


def run(out=None, **options):
    return solve(compress.Compress, picture(), out=out, options=QUIET, **{**SMALL, **options})


@pytest.mark.parametrize("plain", [False, True])
def test_the_loss_is_its_formula(plain):
    problem = compress.Compress(compress.Settings(**SMALL), picture())
    net, index = problem.network(), problem.sampler(2)
    x = problem.grid.coordinates().flatten(0, 1)[index]
    wanted = torch.as_tensor(picture().normalised())[index]
    expected = (PlainSiren(net)(x) - wanted).square().mean()
    torch.testing.assert_close(problem.loss(PlainSiren(net) if plain else net, 2), expected, rtol=1e-5, atol=0)


def test_curvatures_are_mean_squared_derivatives(monkeypatch):
    monkeypatch.setattr(rounding, "_PROBES", 3000)
    torch.manual_seed(0)
    net, x = Siren(2, 6, 1, 3), torch.rand(4, 2)
    tensors = {f"net.{name}": tensor.detach() for name, tensor in net.named_parameters()}
    jacobians = torch.func.jacrev(lambda p: torch.func.functional_call(PlainSiren(net), p, (x,)))(tensors)
    wanted = [float(jacobians[name].square().mean()) for name in tensors]
    np.testing.assert_allclose(rounding.curvatures(net, x), wanted, rtol=0.1)


@pytest.mark.parametrize("bits", [1.5, 3, 5, 8, 12])
def test_steps_do_equal_harm_and_meet_the_rate(bits):
    parameters = [torch.randn(40, 30) * scale for scale in (1, 0.01, 0.1)]
    harms = [2.0, 300.0, 0.05]
    found = rounding.exponents(parameters, harms, bits)
    weighed = [h * sirenfile.step(e) ** 2 for h, e in zip(harms, found, strict=True)]
    assert max(weighed) / min(weighed) < 2**0.51
    assert rounding.code_bits(parameters, found) / 3600 == pytest.approx(bits, abs=0.15)


def test_a_tensor_without_influence_has_a_step_all_the_same():
    found = rounding.exponents([torch.randn(9, 9), torch.randn(9, 9)], [1.0, 0.0], 4)
    assert found[0] == found[1]
    assert rounding.exponents([torch.zeros(9)], [0.0], 4) == (-128,)


def test_the_length_of_the_code_is_that_of_the_file():
    net = Siren(2, 60, 2, 3)
    steps = rounding.exponents(list(net.parameters()), rounding.curvatures(net, torch.rand(50, 2)), 5.0)
    made = rounding.finish(net, steps, lambda net, at: None, steps=0, lr=1.0)
    file = sirenfile.encode(sirenfile.SirenFile(made.net, 20, 30, 8, made.exponents))
    assert 8 * (len(file) - 43 - len(made.exponents)) == pytest.approx(made.code_bits(), rel=0.03)


@pytest.mark.parametrize("label", ["sine", "relu"])
def test_rounding_that_is_trained_for_is_better(label):
    """And every parameter ends on its grid, and the trained network is left alone."""
    experiment = compress.Compress(compress.Settings(**{**SMALL, "hidden": 24, "layers": 2, "batch": 600}), picture())
    net = experiment.contenders()[label]()
    trainer = rounding.Trainer(net, lambda at: experiment.loss(net, at), rate=lambda at: 0.003 * (1 - at / 400))
    rounding.run(trainer, 400)
    before = [parameter.clone() for parameter in net.parameters()]
    steps = rounding.exponents(before, rounding.curvatures(net, experiment.grid.coordinates().flatten(0, 1)), 3.0)
    figures = {}
    for count in (0, 200):
        made = rounding.finish(net, steps, experiment.loss, steps=count, lr=1e-3)
        figures[count] = experiment.measure(made)["PSNR"]
        for parameter, exponent in zip(made.parameters(), steps, strict=True):
            assert torch.equal(parameter, rounding.rounded(parameter, exponent))
    assert figures[200] > figures[0] + 1
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("bits", [1.0, 2.5, 4.0, 8.0, 15.0, 16.0])
def test_a_directory_holds_the_file_of_what_was_measured(bits, tmp_path):
    solution = run(tmp_path, bits=bits)
    found = sirenfile.read(tmp_path / "photo.siren")
    experiment = solution.experiment
    shown = compress.decompress(tmp_path / "photo.siren").pixels
    with Image.open(tmp_path / "decoded.png") as decoded:
        assert np.array_equal(np.asarray(decoded), shown) and shown.shape == (20, 30, 3)
    assert experiment.measure(rounding.Rounded(found.net, found.exponents)) == solution.figures
    assert solution.figures["bpp"] == 8 * (tmp_path / "photo.siren").stat().st_size / 600
    assert (found.exponents is None) == (bits == 16)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["networks"]["sine"]["figures"] == solution.figures
    assert {"pictures.png", "rates.png", "rates.json"} < set(os.listdir(tmp_path))


def test_the_checkpoint_keeps_the_network_as_it_was_trained(tmp_path):
    """So that other bits take no other training."""
    solution = run(tmp_path)
    kept = read(tmp_path / "sine.safetensors").tensors["net.1.linear.weight"]
    assert np.array_equal(kept, solution.net.net[1].linear.weight.detach().numpy())
    more = solve(compress.Compress, picture(), out=tmp_path, resume=True, options=QUIET, bits=9.0)
    assert more.trained["sine"].steps == 60 and more.figures["bpp"] > 1.3 * solution.figures["bpp"]
    assert np.array_equal(kept, read(tmp_path / "sine.safetensors").tensors["net.1.linear.weight"])


def test_a_stopped_training_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    goes_on_to_the_same_bits(compress.Compress, tmp_path, monkeypatch, after=25, **SMALL, side=16)
    assert (tmp_path / "part" / "photo.siren").read_bytes() == (tmp_path / "whole" / "photo.siren").read_bytes()


def test_a_stop_while_rounding_leaves_no_file(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    with stop_in_step(monkeypatch, 70):
        assert run(tmp_path / "part").exit_code == 130
    assert not (tmp_path / "part" / "photo.siren").exists()
    rest = solve(compress.Compress, picture(), out=tmp_path / "part", resume=True, options=QUIET)
    assert rest.figures == whole.figures


def test_a_comparison_shows_other_sizes(tmp_path):
    solution = run(tmp_path, compare=True)
    assert list(solution.trained) == ["sine", "relu", "sine_7", "sine_14"]
    lines = solution.experiment.rates(solution)
    assert list(lines) == ["sine", "sine_7", "sine_14", "jpeg"]
    assert lines["sine_7"][0][0] < lines["sine"][0][0] < lines["sine_14"][0][0]


def test_a_comparison_leaves_out_sizes_that_no_file_holds():
    problem = compress.Compress(compress.Settings(**{**SMALL, "hidden": 1000}), picture())
    assert list(problem.contenders()) == ["sine", "relu", "sine_707"]


def test_jpeg_is_given_no_fewer_bytes():
    experiment = compress.Compress(compress.Settings(**SMALL), picture())
    sizes = [len(each.data) for each in experiment.jpegs]
    assert sizes == sorted(sizes) and len(sizes) == 95
    bpp = 8 * (sizes[10] + sizes[11]) / 2 / 600
    chosen = experiment.jpeg_at(bpp)
    assert chosen.bpp >= bpp and chosen.bpp == min(each.bpp for each in experiment.jpegs if each.bpp >= bpp)
    error = np.asarray(Image.open(io.BytesIO(chosen.data)), float) - picture().pixels
    assert chosen.psnr == pytest.approx(20 * np.log10(255) - 10 * np.log10((error**2).mean()))
    assert experiment.jpeg_at(1e9) == experiment.jpegs[-1]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_fit_writes_what_decompress_reads(channels, tmp_path):
    """Pictures of any kind, without their alpha."""
    found = compress.fit(picture(channels=channels), out=tmp_path / "a.siren", progress=False, **SMALL)
    assert found.bpp == 8 * (tmp_path / "a.siren").stat().st_size / 600
    shown = compress.decompress(tmp_path / "a.siren")
    assert np.array_equal(shown.pixels, compress.decompress(found.file).pixels)
    assert shown.pixels.shape == (20, 30, 1 if channels < 3 else 3)
    assert compress.decompress(found.file, (5, 8)).pixels.shape[:2] == (5, 8)
    with pytest.raises(faults.OutputError, match="exists already"):
        compress.fit(picture(), out=tmp_path / "a.siren", progress=False, **SMALL)


def test_a_picture_of_16_bits_comes_back_with_16():
    deep = Picture(picture().pixels.astype(np.uint16) * 257)
    found = compress.fit(deep, progress=False, **SMALL)
    assert compress.decompress(found.file).pixels.dtype == np.uint16


def test_a_network_at_hand_is_compressed(tmp_path):
    net = run().net
    kept = {name: getattr(compress.Settings(**SMALL), name) for name in ("finish", "lr", "batch", "bits")}
    found = compress.compress(net, picture(), out=tmp_path / "a.siren", progress=False, **kept)
    assert found.file.net is not net and found.psnr == run().figures["PSNR"]
    with pytest.raises(ValueError, match="net: got 2 inputs and 3 outputs"):
        compress.compress(net, picture(channels=1), progress=False)


def test_wrong_settings_and_files(tmp_path):
    with pytest.raises(faults.UsageError, match="--bits must be a number from 1 to 16; got 17"):
        run(bits=17.0)
    with pytest.raises(faults.UsageError, match="--side"):
        run(side=4)
    for large in ({"hidden": 1100}, {"layers": 256, "hidden": 2}, {"hidden": 70_000, "layers": 0, "steps": 1}):
        with pytest.raises(faults.UsageError, match=r"--hidden .* and --layers .* are too large for a file"):
            run(**large)
    Image.fromarray(picture().pixels).save(tmp_path / "a.png")
    with pytest.raises(faults.UsageError, match="is the picture itself"):
        compress.fit(tmp_path / "a.png", out=tmp_path / "a.png", overwrite=True)
    with pytest.raises(faults.InputError, match="no such file"):
        compress.decompress(tmp_path / "none.siren")
    with pytest.raises(TypeError, match="a file holds a Siren"):
        experiment = compress.Compress(compress.Settings(**SMALL), picture())
        experiment.file(rounding.Rounded(experiment.contenders()["relu"](), None))


def test_the_command_line_shows_files(tmp_path, capsys):
    found = compress.fit(picture(), out=tmp_path / "a.siren", progress=False, **SMALL)
    assert cli.main(["info", str(tmp_path / "a.siren")]) == 0
    said = capsys.readouterr().out
    assert "CRC-32 ok" in said and "30x20 RGB, 8 bits" in said and f"{found.bpp:.4f} bits per pixel" in said
    for size, words in (((30, 20), []), ((90, 60), ["--scale", "3"]), ((8, 5), ["--size", "8x5"])):
        path = tmp_path / f"{size[0]}.png"
        assert cli.main(["render", str(tmp_path / "a.siren"), "-o", str(path), "--quiet", *words]) == 0
        with Image.open(path) as shown:
            assert shown.size == size
            assert np.array_equal(np.asarray(shown), compress.decompress(found.file, size[::-1]).pixels)


def test_the_command_line_refuses_damaged_files(tmp_path, capsys):
    found = compress.fit(picture(), out=tmp_path / "a.siren", progress=False, **SMALL)
    data = sirenfile.encode(found.file)
    wrong = {"cut": data[:-9], "flipped": data[:60] + bytes([data[60] ^ 4]) + data[61:], "other": b"PNG" * 40}
    for name, content in wrong.items():
        path = tmp_path / f"{name}.siren"
        path.write_bytes(content)
        for words in (["info", path], ["render", path, "-o", tmp_path / "out.png"]):
            assert cli.main([str(word) for word in words]) == 3
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1 and lines[0].startswith(f"fastsiren: error: cannot read {path}: ")
    assert cli.main(["render", str(tmp_path / "a.siren"), "-o", str(tmp_path / "a.siren")]) == 2
    assert not (tmp_path / "out.png").exists() and (tmp_path / "a.siren").read_bytes() == data
