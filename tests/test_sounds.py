"""Sounds: every kind of WAV is read exactly, what is no sound is refused, what is written is what others read."""

import importlib.util
import struct
import wave

import numpy as np
import pytest

from fastsiren import sounds, wav
from fastsiren.faults import InputError, OutputError, UsageError
from fastsiren.sounds import Sound

STEPS = [-128, -127, -1, 0, 1, 64, 126, 127]


def riff(tag, bits, data, *, channels=1, rate=8000, extensible=False, before=b"", size=None):
    """Make the bytes of a WAV file by hand."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * frame, frame, bits)
    if extensible:
        form += struct.pack("<HHIH14x", 22, bits, 0, tag)
    size = len(data) if size is None else size
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + before + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def integers(bits):
    """Pack STEPS / 128 as samples of this many bits."""
    if bits == 8:
        return bytes(step + 128 for step in STEPS)
    return b"".join((step << (bits - 8)).to_bytes(bits // 8, "little", signed=True) for step in STEPS)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_every_depth_of_pcm(tmp_path, bits, extensible):
    (tmp_path / "a.wav").write_bytes(riff(1, bits, integers(bits), extensible=extensible))
    found = sounds.read(tmp_path / "a.wav")
    assert found.rate == 8000 and found.samples.dtype == np.float32
    np.testing.assert_array_equal(found.samples[:, 0] * 128, STEPS)


@pytest.mark.parametrize("bits", [32, 64])
def test_floats_of_two_channels(tmp_path, bits):
    wanted = np.array([[0.5, -1.25], [0.125, 2.0], [0.0, -0.75]])
    (tmp_path / "a.wav").write_bytes(riff(3, bits, wanted.astype(f"<f{bits // 8}").tobytes(), channels=2))
    found = sounds.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(found.samples, wanted)
    np.testing.assert_array_equal(found.mono().samples[:, 0], wanted.mean(1))
    assert found.peak == 2


def test_other_chunks_and_sizes_that_a_pipe_left_open(tmp_path):
    note = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    for size in (None, 0xFFFFFFFF):
        (tmp_path / "a.wav").write_bytes(riff(1, 16, integers(16), before=note, size=size))
        assert len(sounds.read(tmp_path / "a.wav").samples) == len(STEPS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "WAV"),
        (b"hello world, this is no sound", "WAV"),
        (riff(1, 16, integers(16))[:-3], "truncated"),
        (riff(1, 16, integers(16))[:20], "truncated"),
        (riff(1, 16, b""), "0 samples"),
        (riff(1, 16, integers(16), channels=0), "no channels"),
        (riff(1, 16, integers(16), rate=0), "0 samples per second"),
        (riff(1, 16, bytes(40)), "silent"),
        (riff(3, 32, struct.pack("<2f", 1, float("nan"))), "NaN"),
        (riff(7, 8, bytes(40)), "PCM or floats"),
    ],
    ids=[
        "empty",
        "text",
        "cut",
        "cut in the header",
        "no samples",
        "no channels",
        "no rate",
        "silence",
        "NaN",
        "u-law",
    ],
)
def test_what_is_no_sound_is_refused(tmp_path, data, words, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(InputError, match=f"cannot read .*a.wav: .*{words}"):
        sounds.read(tmp_path / "a.wav")


def test_other_formats_with_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    wanted = np.array([[0.5, -0.25], [0.125, 0.75], [0.0, -0.75]])
    soundfile.write(tmp_path / "a.flac", wanted, 12345, subtype="PCM_24")
    found = sounds.read(tmp_path / "a.flac")
    assert found.rate == 12345
    np.testing.assert_array_equal(found.samples, wanted)
    (tmp_path / "b.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:20])
    with pytest.raises(InputError, match="no sound, or damaged"):
        sounds.read(tmp_path / "b.flac")


def test_written_files_are_what_others_read(tmp_path):
    samples = np.array([[0.0, 1.0], [-1.0, 2.0], [0.5, -3.0], [np.nan, np.inf]], np.float32)
    sounds.write(tmp_path / "a.wav", Sound(samples, 96000))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert file.getparams()[:4] == (2, 2, 96000, 4)
        found = np.frombuffer(file.readframes(4), "<i2").reshape(4, 2)
    # 16383.5 rounds to even.
    assert found.tolist() == [[0, 32767], [-32767, 32767], [16384, -32767], [0, 32767]]
    with pytest.raises(OutputError, match="no such"):
        sounds.write(tmp_path / "none" / "a.wav", Sound(samples, 96000))


def test_what_a_wav_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="4 GiB"):
        wav.wav_header(2**31, 1, 8000)
    with pytest.raises(UsageError, match="use npy"):
        wav.wav_header(10, 1, 2**31)


def test_another_sound_has_another_fingerprint():
    samples = np.arange(12, dtype=np.float32)[:, None]
    prints = [Sound(samples, 8000), Sound(samples, 8001), Sound(samples + 1, 8000), Sound(samples.reshape(6, 2), 8000)]
    assert len({each.fingerprint() for each in prints}) == 4


def test_noise_ratio():
    assert sounds.snr(1.0, 0.01) == pytest.approx(20)
    assert sounds.snr(1.0, 0.0) == float("inf")
