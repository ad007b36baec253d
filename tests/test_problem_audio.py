"""The experiment "audio": its loss and merit by the formula, its coordinates, its files, resumption."""

import json
import os

import numpy as np
import pytest
import torch

from fastsiren import cli, faults, sounds
from fastsiren.fit import Options
from fastsiren.problems import audio
from fastsiren.problems.experiment import solve
from fastsiren.sounds import Sound
from stopped_runs import stop_in_step

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"steps": 30, "hidden": 12, "layers": 1, "first_omega": 40.0, "lr": 0.01, "batch": 64}
QUIET = Options(progress=False)


def tone(channels=2, shift=0.0):
    time = np.arange(300, dtype=np.float32)[:, None]
    return Sound((0.5 * np.sin(0.1 * time * np.arange(1, channels + 1) + shift)).astype(np.float32), 8000)


def run(out=None, sound=None, **options):
    return audio.fit(sound or tone(), out=out, options=QUIET, **{**SMALL, **options})


def test_the_loss_is_that_of_plain_autograd():
    problem = audio.AudioExperiment(audio.Settings(**SMALL), tone())
    net, index = problem.network(), problem.sampler(3)
    ours = torch.autograd.grad(problem.loss(net, 3), list(net.parameters()))
    x = torch.linspace(-1, 1, 300, dtype=torch.float64)[index, None]
    wanted = torch.from_numpy(tone().samples).double()[index] / tone().peak
    (w, b), (w2, b2), (w3, b3) = [(p.double(), q.double()) for p, q in zip(*[iter(net.parameters())] * 2, strict=True)]
    parameters = [each.detach().requires_grad_() for each in (w, b, w2, b2, w3, b3)]
    w, b, w2, b2, w3, b3 = parameters
    y = torch.sin(30 * (torch.sin(40 * (x @ w.mT + b)) @ w2.mT + b2)) @ w3.mT + b3
    plain = torch.autograd.grad((y - wanted).square().mean(), parameters)
    for found, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_the_merit_is_the_ratio_of_powers():
    problem = audio.AudioExperiment(audio.Settings(**SMALL), tone())
    half = torch.nn.Linear(1, 2)
    torch.nn.init.zeros_(half.weight)
    torch.nn.init.zeros_(half.bias)
    figures = problem.measure(half)
    assert figures["SNR"] == pytest.approx(0, abs=1e-9)
    assert figures["MSE"] == pytest.approx(problem.power)
    assert problem.estimate(problem.power / 100) == pytest.approx(20)


def test_channels_are_outputs_unless_averaged():
    assert run(steps=1).net.out_features == 2
    mono = run(steps=1, mono=True)
    assert mono.net.out_features == 1
    assert mono.experiment.identity()["audio"]["channels"] == 1


def test_a_directory_holds_sounds_and_pictures(tmp_path):
    solution = run(tmp_path, compare=True)
    labels = ["sine", "relu", "relu_pe", "tanh"]
    assert list(solution.trained) == labels
    found = set(os.listdir(tmp_path))
    assert found >= {"original.wav", "spectrograms.png", "waveform.png", "snr.png", "result.json"}
    for label in ["original", *labels]:
        heard = sounds.read(tmp_path / f"{label}.wav")
        assert heard.samples.shape == (300, 2) and heard.rate == 8000
    played = solution.experiment.played(solution.net)
    np.testing.assert_allclose(sounds.read(tmp_path / "sine.wav").samples, played.samples.clip(-1, 1), atol=1e-4)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["networks"]["sine"]["figures"] == solution.figures


def test_the_loudness_is_that_of_the_original():
    loud, soft = tone(), Sound(tone().samples / 8, 8000)
    found = [run(sound=sound, steps=20) for sound in (loud, soft)]
    first, second = [each.experiment.played(each.net).samples for each in found]
    np.testing.assert_array_equal(first, 8 * second)


def test_a_stopped_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    with stop_in_step(monkeypatch, 20):
        assert run(tmp_path / "part").exit_code == 130
    with pytest.raises(faults.InputError, match="another sound"):
        solve(audio.AudioExperiment, tone(shift=1.0), out=tmp_path / "part", resume=True, options=QUIET)
    rest = solve(audio.AudioExperiment, tone(), out=tmp_path / "part", resume=True, options=QUIET)
    assert rest.exit_code == 0
    assert (tmp_path / "part" / "sine.safetensors").read_bytes() == (
        tmp_path / "whole" / "sine.safetensors"
    ).read_bytes()


def test_the_chord_is_the_same_everywhere():
    found = audio.chord(0.1)
    assert found.samples.shape == (2205, 1) and found.peak == pytest.approx(0.9)
    assert float(found.samples[1000, 0]) == pytest.approx(float(audio.chord(0.1).samples[1000, 0]))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no.wav"], 3, "no such file"),
        (["TEXT"], 3, "cannot read"),
        (["--first-omega", "0"], 2, "--first-omega must be a positive number"),
    ],
    ids=["missing", "no sound", "omega"],
)
def test_wrong_commands_are_one_line(words, code, said, capsys, tmp_path):
    (tmp_path / "TEXT").write_text("no sound")
    words = [str(tmp_path / word) if word == "TEXT" else word for word in words]
    assert cli.main(["solve", "audio", *words, "-o", str(tmp_path / "out")]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
