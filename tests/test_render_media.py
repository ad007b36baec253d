"""Clips and sounds straight from a network: the right values at the right times, and refusals before any work."""

import importlib.util
import os
from fractions import Fraction

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import cli, clips, sounds, tensorfile, wav
from fastsiren.clips import Clip
from fastsiren.faults import InputError, NonFiniteError, UsageError
from fastsiren.fit import Options
from fastsiren.grids import Grid
from fastsiren.problems import audio, contents, video
from fastsiren.problems.content import Asked
from fastsiren.render import render_file
from fastsiren.render.picture import quantise
from fastsiren.sounds import Sound
from fastsiren.tensorfile import TensorFile

SMALL = {"steps": 3, "hidden": 6, "layers": 1, "batch": 20}
NEEDS_AV = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV is not installed")


def network(inputs, outputs, omega=2.0):
    torch.manual_seed(1)
    return fastsiren.Siren(inputs, 16, 1, outputs, first_omega_0=omega, hidden_omega_0=omega)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A checkpoint of a sound: 100 samples of two channels at 8000 Hz, half as loud as can be."""
    home = tmp_path_factory.mktemp("sound")
    samples = 0.5 * np.sin(np.arange(200, dtype=np.float32)).reshape(100, 2)
    samples /= 2 * abs(samples).max()
    audio.fit(Sound(samples, 8000), out=home / "a", options=Options(progress=False), **SMALL)
    return home / "a" / "sine.safetensors"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A checkpoint of a clip: 5 frames of 24x14, at 25 per second."""
    home = tmp_path_factory.mktemp("clip")
    video.fit(video.moving_shapes(5, 24), out=home / "a", options=Options(progress=False), **SMALL)
    return home / "a" / "sine.safetensors"


def call(*words):
    try:
        return cli.main([str(word) for word in words])
    except SystemExit as leaving:
        return leaving.code


@NEEDS_AV
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tile", [7, 320, 1000, 10**6])
def test_a_clip_holds_the_values(tmp_path, tile, channels):
    net, grid = network(3, channels), Grid.over((4, 16, 20))
    path = render_file(net, grid, tmp_path / "a.mp4", tile=tile, rate=Fraction(24), progress=False)
    found = clips.read(path, width=20, frames=9)
    assert found.rate == 24
    wanted = quantise(fastsiren.render(net, grid, progress=False).numpy() / 2 + 0.5, 8)
    assert found.frames.shape == (4, 16, 20, 3)
    # H.264 keeps smooth colours within a few levels.
    assert abs(found.frames.astype(int) - wanted).mean() < 3
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("tile", [7, 1000])
def test_a_sound_holds_the_rounded_values(tmp_path, tile, channels):
    net, grid = network(1, channels), Grid.over(33)
    path = render_file(net, grid, tmp_path / "a.wav", tile=tile, rate=Fraction(96000), gain=0.5, progress=False)
    found = sounds.read(path)
    assert found.rate == 96000
    wanted = wav.pcm(fastsiren.render(net, grid, progress=False).numpy() * np.float32(0.5))
    np.testing.assert_array_equal(found.samples * 32768, wanted)


@NEEDS_AV
def test_the_extension_is_enough(tmp_path):
    fastsiren.render(network(3, 3), Grid.over((2, 4, 4)), out=tmp_path / "a.mp4", progress=False)
    assert clips.read(tmp_path / "a.mp4", width=4, frames=9).rate == 25
    fastsiren.render(network(1, 1), Grid.over(5), out=tmp_path / "a.wav", progress=False)
    assert sounds.read(tmp_path / "a.wav").rate == 44100


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "options", "words"),
    [
        ("a.mp4", (4, 4), 3, {}, r"3 axes \(time, rows, columns\), the network 2; use npy"),
        ("a.wav", (4, 4), 3, {}, r"1 axes \(time\), the network 2; use npy"),
        ("a.png", (4, 4, 4), 3, {}, "2 axes, the network has 3 inputs; use npy"),
        ("a.png", (4,), 3, {}, "2 axes, the network has 1 inputs; use npy"),
        ("a.png", (1, 4, 4), 3, {"quantity": "gradient"}, "no gradient; use npy"),
        ("a.mp4", (4, 4, 4), 3, {"quantity": "laplacian"}, "no laplacian; use npy"),
        ("a.wav", (4,), 1, {"quantity": "gradient"}, "no gradient; use npy"),
        ("a.mp4", (4, 4, 4), 2, {}, "1 or 3 channels, the network has 2 outputs"),
        ("a.mp4", (4, 4, 4), 3, {"bits": 16}, "8 bits per sample, not 16"),
        ("a.wav", (4,), 1, {"bits": 8}, "16 bits per sample, not 8"),
        ("a.mp4", (4, 5, 4), 3, {}, "even width and height"),
        ("a.mp4", (4, 4, 4), 3, {"rate": Fraction(0)}, "--rate of a clip"),
        ("a.wav", (4,), 1, {"rate": Fraction(1, 2)}, "--rate of a sound"),
        ("a.wav", (2**31,), 1, {}, "4 GiB"),
        ("a.mp4", (0, 4, 4), 3, {}, "no points"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, name, shape, outputs, options, words):
    net = network(len(shape), outputs)
    net.forward = None
    with pytest.raises(UsageError, match=words):
        render_file(net, Grid.over(shape), tmp_path / name, progress=False, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "shape"), [("a.mp4", (3, 4, 4)), ("a.wav", (9,))])
def test_non_finite_networks_leave_nothing(tmp_path, name, shape):
    net = network(len(shape), 1)
    with torch.no_grad():
        net.net[-1].bias[0] = float("nan")
    if name == "a.mp4":
        pytest.importorskip("av", reason="PyAV is not installed")
    with pytest.raises(NonFiniteError, match="NaN"):
        render_file(net, Grid.over(shape), tmp_path / name, tile=4, progress=False)
    assert os.listdir(tmp_path) == []


@NEEDS_AV
def test_a_clip_at_another_size_and_number_of_frames(tmp_path, clip, capsys):
    out = tmp_path / "a.mp4"
    assert call("render", clip, "-o", out, "--frames", 10, "--size", "48x30", "--quiet") == 0
    found = clips.read(out, width=1000, frames=1000)
    # As long as the original.
    assert found.frames.shape == (10, 30, 48, 3) and found.rate == 50
    assert call("render", clip, "-o", out, "--scale", "1.5", "--rate", "12.5", "--overwrite") == 0
    found = clips.read(out, width=1000, frames=1000)
    assert found.frames.shape == (5, 20, 36, 3) and found.rate == Fraction(25, 2)
    assert "5 frames of 36x20" in capsys.readouterr().out


def test_one_frame_of_a_clip(tmp_path, clip):
    """0.08 s is the third of five frames at 25 per second."""
    import imageio.v3 as iio

    assert call("render", clip, "-o", tmp_path / "a.png", "--at", "0.08", "--quiet") == 0
    assert call("render", clip, "-o", tmp_path / "a.npy", "--quiet") == 0
    whole = np.load(tmp_path / "a.npy")
    assert whole.shape == (5, 14, 24, 3)
    wanted = quantise(whole[2] / 2 + 0.5, 8).astype(int)
    assert abs(iio.imread(tmp_path / "a.png").astype(int) - wanted).max() <= 1


def test_a_sound_at_another_rate_keeps_its_pitch_and_loudness(tmp_path, sound):
    for name, rate in (("a", 8000), ("b", 24000)):
        assert call("render", sound, "-o", tmp_path / f"{name}.wav", "--rate", rate, "--quiet") == 0
    slow, fast = (sounds.read(tmp_path / f"{name}.wav") for name in "ab")
    assert slow.samples.shape == (100, 2) and fast.samples.shape == (298, 2) and fast.rate == 24000
    # Every third sample stands where one of the original stood.
    assert abs(fast.samples[::3] - slow.samples).max() < 2e-3
    values = fastsiren.render(contents.load(sound).net, Grid.over(100), progress=False).numpy()
    assert abs(slow.samples - 0.5 * values).max() < 1e-4


def test_info_tells_what_is_held(sound, clip, capsys):
    assert call("info", sound) == 0
    shown = capsys.readouterr().out
    assert "0.01 s at 8,000 Hz, 100 samples, channels: 2" in shown and "SNR " in shown and "first 3000" in shown
    assert call("info", clip) == 0
    assert "5 frames of 24x14, 25 per second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "words", "said"),
    [
        ("clip", ["-o", "a.png"], "--at SECONDS"),
        ("clip", ["-o", "a.png", "--at", "0.17"], "from 0 to 0.16 seconds"),
        ("clip", ["-o", "a.png", "--at", "0", "--frames", "3"], "leave them out"),
        ("clip", ["-o", "a.mp4", "--at", "0"], "picture format"),
        ("clip", ["-o", "a.mp4", "--size", "5x5"], "even"),
        ("clip", ["-o", "a.mp4", "--scale", "0"], "--scale"),
        ("clip", ["-o", "a.mp4", "--frames", "0"], "1 or more"),
        ("sound", ["-o", "a.png"], "holds no sound; use wav or npy"),
        ("sound", ["-o", "a.wav", "--size", "5x5"], "--size makes no sense for a sound"),
        ("sound", ["-o", "a.wav", "--frames", "5"], "--frames makes no sense for a sound"),
        ("sound", ["-o", "a.wav", "--rate", "0.5"], "--rate"),
    ],
)
def test_what_makes_no_sense_is_one_line(held, words, said, request, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call("render", request.getfixturevalue(held), *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert os.listdir(tmp_path) == []


# An empty one stands for a description that is none.
WRONG_SOUNDS = [{"samples": 1}, {"rate": 0}, {"rate": 8e3}, {"peak": 1}, {"peak": 0.0}, {"channels": 3}, {}]
WRONG_CLIPS = [{"frames": 1}, {"rate": 25}, {"rate": "1/0"}, {"rate": "many"}, {"width": 0}, {"height": 1 << 40}, {}]


@pytest.mark.parametrize(
    ("held", "change"),
    [
        *(("sound", {"audio": each}) for each in WRONG_SOUNDS),
        *(("clip", {"video": each}) for each in WRONG_CLIPS),
        ("clip", {"settings": {}}),
        ("clip", {"step": -1}),
        ("sound", {"figures": {"SNR": "high"}}),
    ],
    ids=str,
)
def test_descriptions_are_those_a_training_writes(held, change, request, tmp_path):
    description, tensors = tensorfile.read(request.getfixturevalue(held))
    for name, values in change.items():
        kept = description[name]
        description[name] = (
            {**kept, **values} if values and isinstance(kept, dict) else None if values == {} else values
        )
    tensorfile.write(tmp_path / "a", TensorFile(description, tensors))
    with pytest.raises(InputError, match=f"describes a {held} that its network does not fit"):
        contents.load(tmp_path / "a")


def test_a_loud_file_is_not_played_beyond_full_scale(tmp_path):
    loud = Sound(np.array([[4.0], [-2.0], [1.0], [0.5]], np.float32), 8000)
    audio.fit(loud, out=tmp_path / "a", options=Options(progress=False), **SMALL)
    held = contents.load(tmp_path / "a" / "sine.safetensors")
    assert held.options(Asked("wav")) == {"rate": Fraction(8000), "gain": 1.0}


def test_frames_of_a_clip_in_memory_are_its_own():
    frames = video.moving_shapes(3, 24).frames
    assert video.VideoExperiment(video.Settings(), Clip(frames, Fraction(25))).original.frames is frames
