"""Training: every pixel in turn, the same bits after a break, and a stop that leaves a good file."""

import json
import math
import os
import threading

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import faults, stopping
from fastsiren.fit import (
    Log,
    Shuffle,
    Step,
    Trainer,
    autograd_operators,
    checkpoint,
    decay,
    operators,
    run,
    uniform,
)
from fastsiren.images import Picture, psnr
from fastsiren.problems import image
from fastsiren.problems.metrics import ssim
from fastsiren.problems.plain_networks import PlainSiren

SMALL = {"hidden": 16, "layers": 1, "omega": 8.0, "lr": 0.02, "batch": 50, "progress": False}


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are so small that a second thread only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(height=12, width=10, channels=3, dtype=np.uint8):
    """A smooth picture over the whole range."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phases = np.arange(channels)
    waves = 0.5 + 0.5 * np.sin(3 * rows[..., None] + 4 * columns[..., None] + phases)
    return Picture((waves * np.iinfo(dtype).max).astype(dtype))


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (12, 4), (5, 5), (7, 100), (1, 1)])
def test_each_epoch_visits_every_sample_once(count, batch):
    sampler = Shuffle(count, batch, seed=3)
    for epoch in range(3):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        assert sorted(torch.cat([sampler(step) for step in steps]).tolist()) == list(range(count))


def test_samples_depend_on_seed_and_step_alone():
    forward = [Shuffle(100, 30, seed=1)(step).tolist() for step in range(8)]
    sampler = Shuffle(100, 30, seed=1)
    assert [sampler(step).tolist() for step in reversed(range(8))] == forward[::-1]
    assert Shuffle(100, 30, seed=2)(0).tolist() != forward[0]
    assert forward[4] != forward[0]


def test_learning_rate_rises_then_falls():
    rate = decay(2.0, 101, final=0.1, warmup=9)
    assert rate(0) == pytest.approx(0.2)
    assert rate(100) == pytest.approx(0.2)
    assert decay(2.0, 101)(50) == pytest.approx(1.01)
    assert decay(1.0, 1)(0) == 1.0


def trainer(steps=40):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    x = torch.randn(20, 3)
    return Trainer(net, lambda step: (net(x) - x[:, :2] * (1 + step % 3)).square().mean(), rate=decay(0.1, steps))


def test_adam_is_that_of_torch():
    ours, theirs = trainer(), trainer()
    optimiser = torch.optim.Adam(theirs.net.parameters(), fused=True)
    for step in range(40):
        optimiser.param_groups[0]["lr"] = theirs.rate(step)
        optimiser.zero_grad()
        theirs.loss(step).backward()
        optimiser.step()
    run(ours, 40)
    assert torch.equal(ours.net.weight, theirs.net.weight)


@pytest.mark.parametrize("pause", [0, 1, 16, 17, 39])
def test_a_break_changes_no_bit(pause):
    whole, first, second = trainer(), trainer(), trainer()
    run(whole, 40)
    run(first, pause)
    second.load(first.state())
    assert run(second, 40).number == 40
    assert equal(second.state(), whole.state())


def test_a_loaded_state_is_a_copy():
    first, second, third = trainer(), trainer(), trainer()
    run(first, 5)
    state = first.state()
    second.load(state)
    run(second, 20)
    third.load(state)
    assert third.step == 5
    assert equal(third.state(), first.state())


def test_a_non_finite_loss_sets_back_to_a_good_state():
    healthy, broken = trainer(), trainer()
    run(healthy, 16)
    original = broken.loss
    broken.loss = lambda step: original(step) * (math.nan if step == 20 else 1.0)
    with pytest.raises(faults.NonFiniteError, match=r"nan at step 21; the state of step 16.*--lr"):
        run(broken, 40)
    assert equal(broken.state(), healthy.state())


def test_a_non_finite_loss_right_after_loading_keeps_what_was_loaded():
    first, second = trainer(), trainer()
    run(first, 7)
    second.loss = lambda step: torch.tensor(math.inf)
    second.load(first.state())
    with pytest.raises(faults.NonFiniteError):
        run(second, 40)
    assert equal(second.state(), first.state())


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_smooth_picture_is_learnt_and_its_psnr_is_the_stated_one(channels, dtype):
    metrics = pytest.importorskip("skimage.metrics")
    target = picture(channels=channels, dtype=dtype)
    fitted = image.fit(target, steps=200, **SMALL)
    assert fitted.psnr > 30
    grid = fastsiren.grids.Grid.over((12, 10))
    shown = (fastsiren.render(fitted.net, grid, progress=False) / 2 + 0.5).clamp(0, 1).double().numpy()
    wanted = target.pixels / np.iinfo(dtype).max
    assert fitted.psnr == pytest.approx(metrics.peak_signal_noise_ratio(wanted, shown, data_range=1), abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)], ids=str)
def test_thin_pictures(size):
    assert image.fit(picture(*size), steps=150, **SMALL).psnr > 25


def test_rows_and_columns_are_not_swapped():
    pixels = np.zeros((8, 12, 1), np.uint8)
    pixels[:, 6:] = 255
    fitted = image.fit(Picture(pixels), steps=200, **SMALL)
    shown = fastsiren.render(fitted.net, fastsiren.grids.Grid.over((8, 12)), progress=False)[..., 0]
    assert (shown[:, :6] < 0).all()
    assert (shown[:, 6:] > 0).all()


def test_same_seed_same_bits_other_seed_other_bits():
    first, second = (image.fit(picture(), steps=20, seed=5, **SMALL).net.state_dict() for _ in range(2))
    other = image.fit(picture(), steps=20, seed=6, **SMALL).net.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["net.0.linear.weight"], other["net.0.linear.weight"])


def test_fitting_leaves_the_random_state_of_the_caller_alone():
    before = torch.random.get_rng_state()
    image.fit(picture(), steps=3, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


def interrupted(path, monkeypatch, at):
    """Fit with a stop asked for during step `at`."""
    advance = Trainer.advance
    with monkeypatch.context() as patch:

        def ask(self):
            if self.step == at:
                os.kill(os.getpid(), 2)
            return advance(self)

        patch.setattr(Trainer, "advance", ask)
        return image.fit(picture(), out=path, steps=60, **SMALL)


def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    whole = image.fit(picture(), out=tmp_path / "whole", steps=60, **SMALL)
    stopped = interrupted(tmp_path / "part", monkeypatch, at=24)
    assert (stopped.exit_code, stopped.steps) == (130, 25)
    assert checkpoint.load(tmp_path / "part").description["step"] == 25
    rest = image.fit(picture(), out=tmp_path / "part", resume=True, progress=False)
    assert (rest.exit_code, rest.steps, rest.psnr) == (0, 60, whole.psnr)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["part", "whole"]


def test_resume_without_a_file_starts(tmp_path):
    assert image.fit(picture(), out=tmp_path / "a", resume=True, steps=3, **SMALL).steps == 3


def test_resume_with_more_steps(tmp_path):
    image.fit(picture(), out=tmp_path / "a", steps=30, **SMALL)
    fitted = image.fit(picture(), out=tmp_path / "a", resume=True, steps=50, progress=False)
    assert fitted.steps == 50
    settings = checkpoint.load(tmp_path / "a").description["settings"]
    assert (settings["steps"], settings["hidden"]) == (50, 16)


def test_resume_refuses_what_does_not_belong_together(tmp_path):
    image.fit(picture(), out=tmp_path / "a", steps=3, **SMALL)
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(faults.InputError, match="another picture"):
        image.fit(picture(channels=1), out=tmp_path / "a", resume=True, progress=False)
    with pytest.raises(faults.UsageError, match="--hidden 32 does not fit"):
        image.fit(picture(), out=tmp_path / "a", resume=True, hidden=32, progress=False)
    with pytest.raises(faults.OutputError, match="--overwrite"):
        image.fit(picture(), out=tmp_path / "a", steps=3, **SMALL)
    assert (tmp_path / "a").read_bytes() == before
    image.fit(picture(), out=tmp_path / "b", steps=3, compact=True, **SMALL)
    assert (tmp_path / "b").stat().st_size < len(before)
    with pytest.raises(faults.InputError, match="--compact"):
        image.fit(picture(), out=tmp_path / "b", resume=True, progress=False)


def test_the_target_stops_early_and_is_reached(tmp_path):
    fitted = image.fit(picture(), out=tmp_path / "a", steps=5000, target=25.0, **SMALL)
    assert fitted.steps < 5000
    assert fitted.psnr >= 25
    assert fitted.steps % 50 == 0


def test_a_failing_fit_saves_the_last_good_state(tmp_path, monkeypatch):
    honest = image.ImageFit.loss
    monkeypatch.setattr(
        image.ImageFit, "loss", lambda self, net, step: honest(self, net, step) * (math.nan if step == 19 else 1.0)
    )
    with pytest.raises(faults.NonFiniteError, match="step 16 is kept"):
        image.fit(picture(), out=tmp_path / "a", steps=60, **SMALL)
    found = checkpoint.load(tmp_path / "a")
    assert found.description["step"] == 16
    assert all(np.isfinite(tensor).all() for tensor in found.state.values())


def test_the_log_holds_every_step(tmp_path):
    image.fit(picture(), steps=5, log=tmp_path / "log", **SMALL)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["loss"] > 0 for line in lines)


def test_a_log_goes_on_after_a_torn_line(tmp_path):
    (tmp_path / "log").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    image.fit(picture(), steps=2, log=tmp_path / "log", **SMALL)
    whole, torn, *added = (tmp_path / "log").read_text().splitlines()
    assert json.loads(whole)["step"] == 1 and torn.endswith('"lo')
    assert [json.loads(line)["step"] for line in added] == [1, 2]


def test_checkpoints_are_written_along_the_way(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(checkpoint, "save", lambda path, net, description, trainer: steps.append(description["step"]))
    image.fit(picture(), out=tmp_path / "a", steps=4, save_every=0.0, **SMALL)
    assert steps == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"steps": 0}, "--steps"), ({"lr": math.nan}, "--lr"), ({"omega": 0.0}, "--omega"), ({"batch": -1}, "--batch")],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(faults.UsageError, match=words):
        image.fit(picture(), progress=False, **settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="'width'; known are steps, hidden"):
        image.fit(picture(), width=3)


def test_fitting_works_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(image.fit(picture(), steps=3, **SMALL).steps))
    thread.start()
    thread.join()
    assert found == [3]


def test_a_second_ctrl_c_forces():
    with pytest.raises(KeyboardInterrupt), stopping.stop_on_signals() as stop:
        os.kill(os.getpid(), 2)
        assert stop.exit_code == 130
        os.kill(os.getpid(), 2)
        raise AssertionError("the second signal went unheard")


def test_measure_clips_the_prediction():
    net = fastsiren.Siren(2, 4, 0, 1)
    with torch.no_grad():
        net.net[1].weight.zero_()
        net.net[1].bias.fill_(3.0)
    assert image.measure(net, Picture(np.full((3, 4, 1), 255, np.uint8))) == math.inf
    assert image.measure(net, Picture(np.full((3, 4, 1), 51, np.uint8))) == pytest.approx(psnr(0.8**2))


def test_parts_of_a_loss_are_added_up():
    whole, parts = trainer(), trainer()
    original = parts.loss
    parts.loss = lambda step: (original(step) * share for share in (0.25, 0.5, 0.25))
    assert run(parts, 20).loss == pytest.approx(run(whole, 20).loss, rel=1e-5)
    torch.testing.assert_close(parts.net.weight, whole.net.weight)


def test_gradients_are_clipped_together():
    ours = trainer()
    ours.clip = 1e-3
    ours.loss(0).backward()
    wanted = [
        p.grad * 1e-3 / torch.sqrt(sum(q.grad.square().sum() for q in ours.net.parameters()))
        for p in ours.net.parameters()
    ]
    run(ours, 1)
    for parameter, gradient in zip(ours.net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def bent(lbfgs_from):
    """A problem that Adam is slow at: a narrow bent valley."""
    torch.manual_seed(0)
    net = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)

    def loss(step):
        a, b = net.weight[:, 0]
        return (1 - a) ** 2 + 100 * (b - a**2) ** 2

    return Trainer(net, loss, rate=lambda step: 0.01, lbfgs_from=lbfgs_from)


def test_lbfgs_ends_what_adam_began():
    assert run(bent(None), 40).loss > 1e-3
    assert run(bent(30), 40).loss < 1e-9


def test_a_break_among_steps_of_lbfgs_changes_no_bit():
    whole, first, second = bent(10), bent(10), bent(10)
    run(whole, 14)
    run(first, 12)
    second.load(first.state())
    run(second, 14)
    assert equal(second.state(), whole.state())


def test_uniform_points_fill_the_box_and_depend_on_all_three():
    x = uniform([-1, 2], [1, 5], 4000, seed=1, step=2)
    assert (x.amin(0) - torch.tensor([-1.0, 2.0])).abs().max() < 0.01
    assert (x.amax(0) - torch.tensor([1.0, 5.0])).abs().max() < 0.01
    assert torch.equal(x, uniform([-1, 2], [1, 5], 4000, seed=1, step=2))
    for other in ({"seed": 2, "step": 2}, {"seed": 1, "step": 3}, {"seed": 1, "step": 2, "stream": 1}):
        assert not torch.equal(x, uniform([-1, 2], [1, 5], 4000, **other))


def test_operators_of_any_network_agree_with_fused_ones():
    net = fastsiren.Siren(2, 16, 2, 3, first_omega_0=5, hidden_omega_0=5, dtype=torch.float64)
    x = torch.rand(11, 2, dtype=torch.float64)
    plain = PlainSiren(net)
    fused, autograd = operators(net), operators(plain)
    assert autograd is autograd_operators and fused is not autograd
    weights = torch.rand(11, 2, dtype=torch.float64)
    calls = {
        "value_and_jacobian": ((), {}),
        "hessian": ((), {"dims": [1]}),
        "laplacian": ((), {"weights": weights}),
        "value_mse": ((torch.rand(11, 3, dtype=torch.float64),), {"weight": torch.rand(11, dtype=torch.float64)}),
        "gradient_mse": ((torch.rand(11, 3, 2, dtype=torch.float64),), {"reduction": "sum"}),
        "laplacian_mse": ((torch.rand(11, 3, dtype=torch.float64),), {}),
        "eikonal": ((), {}),
    }
    for name, (arguments, options) in calls.items():
        found, wanted = (
            getattr(each, name)(m, x, *arguments, **options) for each, m in ((autograd, plain), (fused, net))
        )
        torch.testing.assert_close(
            tuple(found) if isinstance(found, tuple) else found, tuple(wanted) if isinstance(wanted, tuple) else wanted
        )
    named = {"names": ["u", "w__t", "v__t__x"], "inputs": "tx", "outputs": "uvw"}
    torch.testing.assert_close(autograd.derivatives(plain, x, **named), fused.derivatives(net, x, **named))


def test_events_for_tensorboard_need_their_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(faults.UsageError, match=r"pip install 'fastsiren\[tensorboard\]'"):
        Log(tensorboard=tmp_path)


def test_events_for_tensorboard(tmp_path, monkeypatch):
    import sys
    import types

    written = []
    writer = types.SimpleNamespace(
        add_scalar=lambda *event: written.append(event), close=lambda: written.append("closed")
    )
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=lambda path: writer)
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    log = Log(tensorboard=tmp_path)
    log.write(Step(3, 0.5), {"PSNR": 20.0})
    log.close()
    assert written == [("loss", 0.5, 3), ("PSNR", 20.0, 3), "closed"]


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a = torch.rand(20, 31, 3)
    b = (a + 0.1 * torch.rand(20, 31, 3)).clamp(0, 1)
    wanted = metrics.structural_similarity(a.double().numpy(), b.double().numpy(), data_range=1, channel_axis=2)
    assert ssim(a, b) == pytest.approx(wanted, abs=1e-6)
