"""A space of images: losses in plain autograd, encoders as the official ones, data, what is written, resumption."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from fastsiren import cli, faults, tensorfile
from fastsiren.dropin import official
from fastsiren.modulation import Conditioned
from fastsiren.problems import prior
from fastsiren.problems.experiment import solve
from fastsiren.problems.prior import PriorExperiment, Settings
from fastsiren.problems.prior_data import augmented, folder, square
from fastsiren.problems.prior_networks import ConvEncoder, PlainPrior
from stopped_runs import QUIET, goes_on_to_the_same_bits

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "steps": 6, "hidden": 8, "layers": 1, "latent": 8, "hyper": 5, "channels": 4, "batch": 3, "side": 12, "test": 4,
    "inner": 2, "refine": 2,
}  # fmt: skip
MODELS = ("latent", "set", "conv")


def blobs(count=12, side=14, channels=1):
    """Bright discs anywhere."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:1:1j*side, 0:1:1j*side]  # fmt: skip
    centres = random.uniform(0.2, 0.8, (count, 2, 1, 1))
    discs = np.exp(-20 * ((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2))
    return (255 * discs[..., None].repeat(channels, -1)).astype(np.uint8)


def problem(**settings):
    return PriorExperiment(Settings(**{**SMALL, **settings}), blobs(channels=settings.pop("colours", 1)))


@pytest.mark.parametrize("model", MODELS)
def test_the_fused_engine_gives_loss_and_gradients_of_plain_modules(model):
    """For latents these are gradients of steps along gradients."""
    given = problem(model=model, augment=0.0)
    net = given.network().double()
    given.x, given._images = given.x.double(), lambda index: given.pixels[index].double() / 127.5 - 1
    ours = given.loss(net, 3)
    found = torch.autograd.grad(ours, list(net.parameters()), allow_unused=True)
    theirs = given.loss(PlainPrior(net), 3)
    wanted = torch.autograd.grad(theirs, list(net.parameters()), allow_unused=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    for mine, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()) + 1e-15)


def test_the_loss_of_a_hypernetwork_has_the_penalties_of_the_paper():
    """By the official classes: image loss, 0.1 mean z^2, 100 times the mean square of all predicted weights."""
    given = problem(model="set", weight_penalty=100.0, augment=0.0, omega=30.0)
    net = given.network()
    hypo = official.SingleBVPNet(1, hidden_features=8, num_hidden_layers=1)
    values = given._images(given.learnt[given.sampler(3)]).flatten(1, 2)
    known = given._known(3, 3)
    z = net.encoder.pixels(given.x[known], values.gather(1, known[..., None]))
    params = net.hyper(z)
    shown = hypo({"coords": given.x.expand(3, -1, -1)}, params=params)["model_out"]
    squares = sum(float(each.detach().square().sum()) for each in params.values())
    count = sum(each.numel() for each in params.values())
    fitted = float(((shown - values).square().mean() + 0.1 * z.square().mean()).detach())
    expected = fitted + 100 * squares / count
    assert given.loss(net, 3).item() == pytest.approx(expected, rel=1e-4)


def test_latents_take_steps_down_the_error_of_the_known_pixels():
    given = problem(model="latent")
    net, context = given.network(), given.contexts["100"]
    found = net(context)
    start = net.siren.latent.detach().expand(4, -1).clone().requires_grad_()
    latent = start
    for _ in range(2):
        error = (net.siren.modulated_forward(context.x, latent) - context.values).square().mean((1, 2)).sum()
        latent = latent - net.rates * torch.autograd.grad(error, latent, create_graph=True)[0]
    torch.testing.assert_close(found.latent, latent, rtol=1e-4, atol=1e-6)
    # Training goes through the steps.
    weight = net.siren.net[0].weight
    ours, theirs = (torch.autograd.grad(each.square().sum(), weight)[0] for each in (found.latent, latent))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_the_convolutions_are_the_official_ones():
    theirs, ours = official.ConvImgEncoder(3, 32), ConvEncoder(3, 32, 256, 256)
    ours.load_state_dict(dict(zip(ours.state_dict(), _in_order(theirs), strict=True)))
    given = PriorExperiment(Settings(side=32, test=2), blobs(4, 32, 3))
    context = given.contexts["100"]
    sparse = torch.zeros(2, 1024, 3).scatter(1, context.pixels[..., None].expand(-1, -1, 3), context.values)
    torch.testing.assert_close(ours(context), theirs(sparse.mT.reshape(2, 3, 32, 32)))


def _in_order(encoder):
    state = encoder.state_dict()
    return [state[name] for part in ("conv_theta", "cnn", "fc") for name in state if name.split(".")[0] == part]


@pytest.mark.parametrize("model", MODELS)
def test_what_is_known_decides_the_image(model):
    given = problem(model=model)
    net, context = given.network(), given.contexts["100"]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    before = given.reconstructed(net, context)
    after = given.reconstructed(net, context._replace(values=-context.values))
    assert before.shape == (4, 144, 1) and not torch.allclose(before, after, atol=1e-4)


def test_contexts_are_as_many_pixels_as_they_say():
    given = problem()
    assert {name: each.pixels.shape for name, each in given.contexts.items()} == {
        "10": (4, 10), "100": (4, 100), "half": (4, 72), "full": (4, 144),
    }  # fmt: skip
    for context in given.contexts.values():
        assert all(len(set(row.tolist())) == len(row) for row in context.pixels)
        torch.testing.assert_close(given.x[context.pixels], context.x)
    assert not set(given.kept.tolist()) & set(given.learnt.tolist())
    assert "1000" in PriorExperiment(Settings()).contexts


def test_figures_are_against_the_mean_of_what_is_learnt():
    given = problem()
    truth, learnt = given.pixels[given.kept] / 255, given.pixels[given.learnt] / 255
    expected = float((truth - learnt.mean(0)).square().mean())
    given.reconstructed = lambda net, context: given.average + 0.2
    figures = given.measure(None)
    assert given.references()["mean image"]["MSE full"] == pytest.approx(expected, rel=1e-5)
    assert figures["gain"] == pytest.approx(10 * np.log10(expected / figures["MSE 100"]))
    assert given.references()["nearest pixel"]["MSE full"] == 0


def test_variations_are_mirrored_moved_and_lit_differently():
    batch = torch.linspace(-1, 1, 5 * 12 * 12).view(5, 12, 12, 1)
    assert augmented(batch, 0.0, torch.Generator()) is batch
    made = augmented(batch, 1.0, torch.Generator().manual_seed(0))
    assert made.shape == batch.shape and float(made.abs().max()) <= 1
    # Faint ones are the image itself or its mirror image.
    for one, image in zip(augmented(batch, 1e-6, torch.Generator().manual_seed(0)), batch):
        assert min(float((one - each).abs().max()) for each in (image, image.flip(1))) < 1e-4


def test_what_is_moved_and_turned_keeps_its_shape():
    """A round spot stays round: equal second moments along both axes, none between them."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    spot = torch.exp(-30 * (rows**2 + columns**2))[None, :, :, None].expand(8, -1, -1, -1) / 2 - 0.25
    made = augmented(spot, 1.0, torch.Generator().manual_seed(0))[..., 0]
    weight = made - made[:, :1, :1]
    weight = weight / weight.sum((1, 2), keepdim=True)
    down, across = (each - (weight * each).sum((1, 2), keepdim=True) for each in (rows, columns))
    a, b, c = ((weight * one * other).sum((1, 2)) for one, other in ((down, down), (across, across), (down, across)))
    torch.testing.assert_close(a, b, rtol=0.02, atol=0)
    assert float((c / a).abs().max()) < 0.02 and float((a[0] / a[1] - 1).abs()) > 0.01


def test_the_middle_is_cut_out():
    image = torch.full((4, 8, 3), -1.0)
    image[:, 2:6] = 1
    assert (square(image, 4) == 255).all() and (square(image.mT.transpose(0, 2).mT, 4).shape == (4, 4, 3))


def saved(home, *pictures):
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels.squeeze()).save(home / f"{i}.png")
    (home / "notes.txt").write_text("no picture")
    return home


def test_a_directory_of_pictures(tmp_path):
    found = folder(saved(tmp_path, *blobs(3, 20, 3)), 12)
    assert found.shape == (3, 12, 12, 3) and found.dtype == torch.uint8
    torch.testing.assert_close(found[1], PriorExperiment(Settings(**SMALL), blobs(12, 20, 3)).pixels[1])


@pytest.mark.parametrize(
    ("pictures", "fault", "said"),
    [
        (None, faults.InputError, "no such directory"),
        ([], faults.InputError, "holds no pictures"),
        (list(blobs(3)), faults.InputError, "3 images are too few"),
        ([*blobs(5), blobs(1, 14, 3)[0]], faults.InputError, r"0.png is grey, 5.png in colour"),
    ],
    ids=["missing", "empty", "few", "mixed"],
)
def test_wrong_directories_are_refused(pictures, fault, said, tmp_path):
    home = tmp_path / "none" if pictures is None else saved(tmp_path, *pictures)
    with pytest.raises(fault, match=said):
        PriorExperiment(Settings(**SMALL), home)


def test_wrong_arrays_and_settings_are_refused():
    with pytest.raises(TypeError, match=r"images: got .*expected a directory or uint8"):
        PriorExperiment(Settings(**SMALL), blobs().astype(np.float32))
    for channels in (2, 4):
        with pytest.raises(TypeError, match="C 1 or 3"):
            PriorExperiment(Settings(**SMALL), blobs(channels=channels))
    with pytest.raises(faults.InputError, match="12 images are all the same"):
        PriorExperiment(Settings(**SMALL), np.zeros((12, 9, 9), np.uint8))
    with pytest.raises(faults.UsageError, match="--channels 3 does not divide --latent 8"):
        problem(channels=3)


def test_results_do_not_go_among_the_pictures(tmp_path):
    with pytest.raises(faults.UsageError, match="where results go"):
        prior.fit(saved(tmp_path, *blobs()), out=tmp_path, overwrite=True, options=QUIET, **SMALL)


def test_all_models_are_trained_and_shown(tmp_path):
    solution = prior.fit(blobs(channels=3), out=tmp_path, compare=True, model="conv", options=QUIET, **SMALL)
    assert list(solution.trained) == ["conv", "latent", "set", "relu"]
    assert set(os.listdir(tmp_path)) >= {
        "conv.safetensors", "relu.jsonl", "reconstructions.png", "between.png", "gain.png", "errors.txt", "result.json",
    }  # fmt: skip
    lines = (tmp_path / "errors.txt").read_text().splitlines()
    assert lines[0].split() == ["10", "100", "half", "full"] and len(lines) == 7
    with Image.open(tmp_path / "reconstructions.png") as shown:
        assert shown.width == 8 * 104 + 8
    net = solution.experiment.inferred(solution.net, solution.experiment.contexts["full"]).net
    assert isinstance(net, Conditioned) and len(net.networks()) == 4


@pytest.mark.parametrize("model", MODELS)
def test_a_stopped_run_goes_on_to_the_same_bits(model, tmp_path, monkeypatch):
    goes_on_to_the_same_bits(PriorExperiment, tmp_path, monkeypatch, after=4, model=model, **SMALL)


def test_the_command_goes_on_with_the_model_of_the_checkpoint(tmp_path, capsys):
    words = [f"--{name}={value}" for name, value in SMALL.items()]
    out = ["-o", str(tmp_path / "out"), "--quiet", "--threads=1"]
    assert cli.main(["solve", "prior", "--quick", "--model=set", *words, *out]) == 0
    assert cli.main(["solve", "prior", "--resume", "--steps=8", *out]) == 0
    solution = solve(PriorExperiment, out=tmp_path / "out", resume=True, options=QUIET)
    assert {label: each.steps for label, each in solution.trained.items()} == {"set": 8}
    assert cli.main(["solve", "prior", "--resume", "--model=latent", *out]) == 2
    assert "--model latent does not fit" in capsys.readouterr().err
    assert not (tmp_path / "out" / "latent.safetensors").exists()


def test_the_models_beside_the_first_do_not_decide_how_it_goes_on(tmp_path):
    watched = {"out": tmp_path, "options": QUIET}
    prior.fit(blobs(), compare=True, model="conv", **watched, **SMALL)
    again = prior.fit(blobs(), resume=True, steps=SMALL["steps"] + 1, **watched)
    assert {label: each.steps for label, each in again.trained.items()} == {"conv": SMALL["steps"] + 1}


@pytest.mark.parametrize(
    ("model", "context"), [("latent", "2 gradient steps"), ("set", "in any order"), ("conv", "zeros")]
)
def test_info_tells_model_images_and_context(model, context, tmp_path, capsys):
    prior.fit(blobs(channels=3), out=tmp_path, model=model, options=QUIET, **SMALL)
    assert cli.main(["info", str(tmp_path / f"{model}.safetensors")]) == 0
    told = capsys.readouterr().out
    for text in (f"{model}, 8 numbers per image", "12x12, channels: 3; 8 learnt from, 4 kept", context, "step 6 of 6"):
        assert text in told


def test_info_refuses_a_description_that_does_not_fit(tmp_path, capsys):
    prior.fit(blobs(), out=tmp_path, options=QUIET, **SMALL)
    found = tensorfile.read(tmp_path / "latent.safetensors")
    found.description["settings"]["layers"] = 7
    tensorfile.write(tmp_path / "odd.safetensors", found)
    assert cli.main(["info", str(tmp_path / "odd.safetensors")]) == faults.InputError.exit_code
    assert "describes a space of images" in capsys.readouterr().err
