"""Fitting a picture: what is learnt, the same bits after a break, and a stop that leaves a good file."""

import json
import math
import os
import threading

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import faults, stopping
from fastsiren.fit import checkpoint
from fastsiren.images import Picture, psnr
from fastsiren.problems import image
from stopped_runs import stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"hidden": 16, "layers": 1, "omega": 8.0, "lr": 0.02, "batch": 50, "progress": False}


def picture(height=12, width=10, channels=3, dtype=np.uint8):
    """A smooth picture over the whole range."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phases = np.arange(channels)
    waves = 0.5 + 0.5 * np.sin(3 * rows[..., None] + 4 * columns[..., None] + phases)
    return Picture((waves * np.iinfo(dtype).max).astype(dtype))


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
    with stop_in_step(monkeypatch, at + 1):
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
