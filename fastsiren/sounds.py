"""Sounds in and out: any WAV file by itself, other formats with the package soundfile; 16-bit WAV out."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import wav
from .faults import InputError
from .files import atomic_output, open_input
from .tensorfile import Array

__all__ = ["Sound", "read", "snr", "write"]


class Sound(NamedTuple):
    """Samples and their rate."""

    samples: Array
    """float32, [samples, channels]; full scale of a file is 1."""
    rate: int
    """Samples per second."""

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return float(np.abs(self.samples).max())

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate

    def mono(self) -> Sound:
        """The mean of the channels."""
        return Sound(self.samples.mean(1, keepdims=True, dtype=np.float32), self.rate)

    def fingerprint(self) -> str:
        """SHA-256 over shape, rate and samples."""
        sha = hashlib.sha256(f"{self.samples.shape} {self.rate}\n".encode())
        sha.update(np.ascontiguousarray(self.samples, "<f4").tobytes())
        return sha.hexdigest()


def read(path: str | os.PathLike[str]) -> Sound:
    """Read a sound.

    Args:
        path: WAV with PCM of 8, 16, 24 or 32 bits or floats; with soundfile installed also FLAC, OGG, MP3 and more.

    Raises:
        InputError: The file is missing, empty or damaged, of a kind that cannot be read, or silent.
    """
    with open_input(path, "a sound file") as file:
        data = file.read()
    try:
        form = wav.read_format(data)
        sound = Sound(wav.read(data, form), form.rate) if form is not None and form.known else _soundfile(path)
        _check(sound)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return sound


def _soundfile(path: str | os.PathLike[str]) -> Sound:
    if importlib.util.find_spec("soundfile") is None:
        raise InputError(
            "it is no WAV file of PCM or floats; others need the package soundfile: pip install 'fastsiren[audio]'"
        )
    import soundfile

    try:
        samples, rate = soundfile.read(os.fspath(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise InputError(f"it is no sound, or damaged ({' '.join(str(error).split())[-120:]})") from None
    return Sound(samples, int(rate))


def _check(sound: Sound) -> None:
    if sound.rate < 1:
        raise InputError("its header says 0 samples per second; the file is damaged")
    if len(sound.samples) < 2:
        raise InputError(f"it has {len(sound.samples)} samples, at least 2 are needed")
    if not np.isfinite(sound.samples).all():
        raise InputError("it holds NaN or infinity; export it again")
    if sound.peak == 0:
        raise InputError("it is silent throughout")


def write(path: str | os.PathLike[str], sound: Sound) -> Path:
    """Write a 16-bit WAV file, which appears complete or not at all; what exceeds full scale is clipped.

    Raises:
        OutputError: It cannot be written.

    Example:
        >>> import tempfile
        >>> tone = np.sin(np.arange(2000, dtype=np.float32) * 0.3)[:, None]
        >>> with tempfile.TemporaryDirectory() as home:
        ...     read(write(f"{home}/tone.wav", Sound(tone, 8000))).seconds
        0.25
    """
    count, channels = sound.samples.shape
    header = wav.wav_header(count, channels, sound.rate)
    with atomic_output(path) as file:
        file.write(header)
        file.write(wav.pcm(sound.samples).astype("<i2").tobytes())
    return Path(path)


def snr(power: float, error: float) -> float:
    """Signal-to-noise ratio in dB.

    Args:
        power: Mean square of the signal.
        error: Mean square of the difference from it.

    Returns:
        10 log10 of the quotient; infinity for an exact fit.
    """
    return 10 * math.log10(power / error) if error > 0 else math.inf
