"""Clips: frames come out as they went in, scaled and thinned as asked; what is no video is refused with one line."""

import importlib.util
import io
from fractions import Fraction

import numpy as np
import pytest

from fastsiren import clips
from fastsiren.clips import Clip, ClipWriter
from fastsiren.faults import InputError, UsageError

av = pytest.importorskip("av", reason="PyAV is not installed")

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)]


def flat(width=64, height=48):
    """Make a frame per colour."""
    frames = np.empty((len(COLOURS), height, width, 3), np.uint8)
    frames[:] = np.array(COLOURS, np.uint8)[:, None, None]
    return frames


def write(path, frames, rate=Fraction(25)):
    with open(path, "wb") as file:
        writer = ClipWriter(file, frames.shape[2], frames.shape[1], rate)
        for frame in frames:
            writer.write(frame)
        writer.close()
    return path


def test_colours_and_rate_survive(tmp_path):
    found = clips.read(write(tmp_path / "a.mp4", flat(), Fraction(30000, 1001)), width=1000, frames=100)
    assert found.rate == Fraction(30000, 1001)
    assert found.frames.shape == (6, 48, 64, 3) and found.frames.dtype == np.uint8
    # Other readers agree: the file says which colours it has.
    assert abs(found.frames.astype(int) - flat()).max() <= 4


def test_frames_are_scaled_and_left_out(tmp_path):
    path = write(tmp_path / "a.mp4", flat())
    found = clips.read(path, width=31, frames=2, every=3)
    assert found.frames.shape == (2, 24, 32, 3) and found.rate == Fraction(25, 3)
    assert abs(found.frames[:, 5, 5].astype(int) - np.array(COLOURS)[[0, 3]]).max() <= 4
    assert clips.read(path, width=32, frames=9, every=2).frames.shape == (3, 24, 32, 3)


def test_scaling_averages(tmp_path):
    """Columns of black and white become grey, not one or the other."""
    frames = flat()[:3]
    frames[:], frames[:, :, ::2] = 0, 255
    found = clips.read(write(tmp_path / "a.mp4", frames), width=32, frames=3).frames
    assert abs(found[:, 4:-4, 4:-4].astype(int) - 127).max() <= 12


def test_a_pipe_gets_a_clip_too(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    writer = ClipWriter(pipe, 64, 48, Fraction(25))
    for frame in flat():
        writer.write(frame)
    writer.close()
    (tmp_path / "a.mp4").write_bytes(pipe.data)
    assert len(clips.read(tmp_path / "a.mp4", width=64, frames=9).frames) == 6


def test_what_is_no_clip_is_refused(tmp_path):
    path = write(tmp_path / "a.mp4", flat())
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:300])
    (tmp_path / "text.mp4").write_text("no video")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        made = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        made.sample_rate = 8000
        container.mux(stream.encode(made))
    for name, words in (("cut.mp4", "damaged"), ("text.mp4", "no video"), ("sound.wav", "no video"), ("no", "no such")):
        with pytest.raises(InputError, match=f"cannot read .*{name}: .*{words}"):
            clips.read(tmp_path / name, width=64, frames=9)
    with pytest.raises(InputError, match="1 frames"):
        clips.read(path, width=64, frames=9, every=6)


def test_sizes_that_mp4_cannot_hold():
    for width, height, words in ((63, 48, "use 64x48"), (64, 47, "use 64x48"), (64, 20000, "at most 16384")):
        with pytest.raises(UsageError, match=words):
            ClipWriter(io.BytesIO(), width, height, Fraction(25))


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", flat())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'fastsiren\[data\]'"):
        clips.read(path, width=64, frames=9)
    with pytest.raises(UsageError, match=r"pip install 'fastsiren\[data\]'"):
        clips.check_size(64, 48)


def test_another_clip_has_another_fingerprint():
    frames = flat()
    made = [Clip(frames, Fraction(25)), Clip(frames, Fraction(24)), Clip(frames // 2, Fraction(25))]
    assert len({each.fingerprint() for each in made}) == 3
