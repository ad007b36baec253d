"""WAV files: PCM of 8 to 32 bits and floats read exactly, 16 bits written as a stream.

Names follow "Multimedia Programming Interface and Data Specifications 1.0" and its extensible format. The module `wave`
of the standard library refuses floats and extensible headers.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from .faults import InputError, UsageError
from .tensorfile import Array

__all__ = ["SAMPLE_BYTES", "Format", "pcm", "read", "read_format", "wav_header"]

SAMPLE_BYTES = 2
_TOP = np.float32(32767)
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# What a program that writes to a pipe puts where it does not know the size yet.
_UNKNOWN = 0xFFFFFFFF
_LARGEST = 2**32 - 64
_KINDS = {
    (_PCM, 8): "u1",
    (_PCM, 16): "<i2",
    (_PCM, 24): "u1",
    (_PCM, 32): "<i4",
    (_FLOAT, 32): "<f4",
    (_FLOAT, 64): "<f8",
}


class Format(NamedTuple):
    """What the chunk "fmt " says."""

    tag: int
    channels: int
    rate: int
    bits: int

    @property
    def known(self) -> bool:
        """Whether `read` takes it."""
        return (self.tag, self.bits) in _KINDS


def read_format(data: bytes) -> Format | None:
    """The format when `data` begins like a WAV file, else None.

    Raises:
        InputError: It begins so, but says no format.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    chunk = _chunk(data, b"fmt ")
    if len(chunk) < 16:
        raise InputError("no format in its header; the file is damaged")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE and len(chunk) >= 26:
        tag = struct.unpack("<H", chunk[24:26])[0]
    return Format(tag, channels, rate, bits)


def read(data: bytes, form: Format) -> Array:
    """Decode a whole file.

    Args:
        data: The file's bytes.
        form: What `read_format` gave, a known one.

    Returns:
        float32 array [samples, channels], full scale at 1.

    Raises:
        InputError: The file is truncated or has no sound.
    """
    if form.channels < 1:
        raise InputError("its header says no channels; the file is damaged")
    sound = _chunk(data, b"data")
    frame = form.channels * form.bits // 8
    whole = np.frombuffer(sound[: len(sound) // frame * frame], _KINDS[form.tag, form.bits])
    return _scaled(whole, form).reshape(-1, form.channels)


def _scaled(samples: Array, form: Format) -> Array:
    if form.tag == _FLOAT:
        return samples.astype(np.float32)
    if form.bits == 8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    if form.bits == 24:
        # The three bytes become the upper ones of four.
        wide = np.zeros((len(samples) // 3, 4), np.uint8)
        wide[:, 1:] = samples.reshape(-1, 3)
        samples = wide.view("<i4")[:, 0]
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)


def _chunk(data: bytes, name: bytes) -> bytes:
    """Content of the first chunk of a name; empty when there is none."""
    place = 12
    while place + 8 <= len(data):
        found, size = struct.unpack("<4sI", data[place : place + 8])
        place += 8
        if found == name:
            if size != _UNKNOWN and place + size > len(data):
                raise InputError(f"its header claims {size:,} bytes, {len(data) - place:,} are left; it is truncated")
            return data[place:] if size == _UNKNOWN else data[place : place + size]
        # Chunks of odd size have a byte behind them.
        place += size + size % 2
    return b""


def wav_header(samples: int, channels: int, rate: int) -> bytes:
    """Everything before the samples of a 16-bit file.

    Raises:
        UsageError: A WAV file cannot hold as many samples, channels or samples per second.
    """
    frame = channels * SAMPLE_BYTES
    if samples * frame > _LARGEST:
        raise UsageError(f"wav files hold 4 GiB, {samples:,} samples of {channels} channels are more; use npy")
    if channels >= 2**16 or rate * frame >= 2**32:
        raise UsageError(f"wav files cannot hold {channels} channels at {rate:,} Hz; use npy")
    form = struct.pack("<HHIIHH", _PCM, channels, rate, rate * frame, frame, 8 * SAMPLE_BYTES)
    size = samples * frame
    return b"".join([struct.pack("<4sI4s4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16), form, b"data",
                     struct.pack("<I", size)])  # fmt: skip


def pcm(samples: Array) -> Array:
    """Samples in [-1, 1] to int16: clamped, rounded half to even; NaN becomes 0."""
    clamped = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1, 1).astype(np.float32)
    return np.rint(clamped * _TOP).astype(np.int16)
