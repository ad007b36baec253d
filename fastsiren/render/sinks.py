"""Where tiles go: each sink takes runs of points in grid order and never holds more than it must.

Flat sinks (npy, TIFF) know beforehand where every byte belongs and claim the space of the whole file at once.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import IO, Any, Protocol

import numpy as np

from .. import meshes
from ..clips import ClipWriter
from ..faults import NoSpaceError, UsageError, from_os_error, is_no_space
from ..png import MAX_SIDE, PngWriter
from ..tensorfile import Array
from ..wav import SAMPLE_BYTES, wav_header
from .tiff import tiff_header

__all__ = [
    "CLIP_FORMATS",
    "FORMATS",
    "MESH_FORMATS",
    "PICTURE_FORMATS",
    "RAW_FORMATS",
    "SOUND_FORMATS",
    "ClipSink",
    "Sink",
    "check_image",
    "image_sink",
    "npy_sink",
    "sound_sink",
]

RAW_FORMATS = ("npy",)
CLIP_FORMATS = ("mp4",)
SOUND_FORMATS = ("wav",)
MESH_FORMATS = meshes.FORMATS
_DEPTHS: dict[str, tuple[int, ...]] = {
    "png": (8, 16),
    "tiff": (8, 16),
    "jpg": (8,),
    "webp": (8,),
    "bmp": (8,),
    "gif": (8,),
}
_ALPHA = ("png", "tiff", "webp")
_LONGEST_SIDE = {"jpg": 65500, "webp": 16383, "gif": 65535, "png": MAX_SIDE, "tiff": 2**32 - 1, "bmp": 2**31 - 1}
PICTURE_FORMATS = tuple(_DEPTHS)
FORMATS = (*PICTURE_FORMATS, *CLIP_FORMATS, *SOUND_FORMATS, *RAW_FORMATS, *MESH_FORMATS)
# A whole picture in memory, for the formats that cannot be written in pieces.
_LARGEST_BUFFER = 2**31


class Sink(Protocol):
    """Takes the points of a grid in order."""

    def write(self, values: Array) -> None:
        """Take the next points, [n, channels]."""

    def close(self) -> None:
        """Finish the file; called only when every point was written."""


class FlatSink:
    """A header followed by the values as they come.

    Args:
        file: Where to write.
        header: Bytes before the first value.
        total: Bytes of all values.
    """

    def __init__(self, file: IO[bytes], header: bytes, total: int) -> None:
        self._file = file
        _reserve(file, len(header) + total)
        file.write(header)

    def write(self, values: Array) -> None:
        """Append values, little-endian."""
        self._file.write(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)

    def close(self) -> None:
        """Nothing is left to do."""


class PngSink:
    """Collects points into whole rows for the stream of a PNG file.

    Args:
        file: Where to write; need not be seekable.
        shape: (rows, columns).
        channels: 1 to 4.
        bits: 8 or 16.
    """

    def __init__(self, file: IO[bytes], shape: Sequence[int], *, channels: int, bits: int) -> None:
        self._width = shape[1]
        self._writer = PngWriter(file, shape[1], shape[0], channels=channels, bits=bits)
        self._waiting: list[Array] = []
        self._points = 0

    def write(self, values: Array) -> None:
        """Take points; whole rows go to the file."""
        self._waiting.append(values)
        self._points += len(values)
        rows = self._points // self._width
        if rows:
            points = np.concatenate(self._waiting)
            self._writer.write_rows(points[: rows * self._width].reshape(rows, self._width, -1))
            self._waiting = [points[rows * self._width :]]
            self._points -= rows * self._width

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


class BufferSink:
    """Holds the whole picture and hands it to imageio at the end, for formats that cannot be written in pieces.

    Args:
        file: Where to write.
        shape: (rows, columns).
        channels: 1 or 3.
        encode: Turns the picture into the file's bytes.
    """

    def __init__(self, file: IO[bytes], shape: Sequence[int], channels: int, encode: Callable[[Array], bytes]) -> None:
        self._file, self._encode = file, encode
        self._picture = np.empty((*shape, channels), np.uint8)
        self._points = 0

    def write(self, values: Array) -> None:
        """Take points."""
        self._picture.reshape(-1, values.shape[1])[self._points : self._points + len(values)] = values
        self._points += len(values)

    def close(self) -> None:
        """Encode and write."""
        self._file.write(self._encode(self._picture))


class ClipSink:
    """Collects points into whole frames for the stream of a clip.

    Args:
        file: Where to write.
        shape: (frames, rows, columns).
        channels: 1 or 3.
        rate: Frames per second.
    """

    def __init__(self, file: IO[bytes], shape: Sequence[int], channels: int, rate: Fraction) -> None:
        self._writer = ClipWriter(file, shape[2], shape[1], rate)
        self._frame = np.empty((*shape[1:], channels), np.uint8)
        self._points = 0

    def write(self, values: Array) -> None:
        """Take points; whole frames go to the encoder."""
        flat = self._frame.reshape(-1, values.shape[1])
        while len(values):
            taken = values[: len(flat) - self._points]
            flat[self._points : self._points + len(taken)] = taken
            self._points, values = self._points + len(taken), values[len(taken) :]
            if self._points == len(flat):
                self._writer.write(self._frame)
                self._points = 0

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def sound_sink(file: IO[bytes], samples: int, *, channels: int, rate: int) -> Sink:
    """A sound, [n, channels] int16 at a time."""
    return FlatSink(file, wav_header(samples, channels, rate), samples * channels * SAMPLE_BYTES)


def npy_sink(file: IO[bytes], shape: Sequence[int], dtype: np.dtype[Any]) -> Sink:
    """A NumPy array file of any shape."""
    header = io.BytesIO()
    description = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_2_0(header, description)
    return FlatSink(file, header.getvalue(), int(np.prod(shape, dtype=object)) * dtype.itemsize)


def image_sink(file: IO[bytes], kind: str, shape: Sequence[int], *, channels: int, bits: int) -> Sink:
    """A picture file.

    Args:
        file: Where to write.
        kind: One of `FORMATS` except the raw ones.
        shape: (rows, columns).
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        bits: 8 or 16 per sample.

    Raises:
        UsageError: The format cannot hold such a picture.
        NoSpaceError: The file would not fit.
    """
    check_image(kind, shape, channels=channels, bits=bits)
    total = shape[0] * shape[1] * channels * bits // 8
    # Deflate shrinks at most 1032-fold: what cannot fit even so is refused now.
    _refuse_without_space(file, total if kind == "tiff" else total // 1032)
    if kind == "png":
        return PngSink(file, shape, channels=channels, bits=bits)
    if kind == "tiff":
        return FlatSink(file, tiff_header(shape[1], shape[0], channels=channels, bits=bits), total)
    return BufferSink(file, shape, channels, lambda picture: _encode(picture, kind))


def check_image(kind: str, shape: Sequence[int], *, channels: int, bits: int) -> None:
    """Refuse what a picture format cannot hold; see `image_sink`."""
    if bits not in _DEPTHS[kind]:
        depths = " or ".join(map(str, _DEPTHS[kind]))
        raise UsageError(f"{kind} files hold {depths} bits per channel, not {bits}; png or tiff files hold 8 or 16")
    if channels > 4:
        raise UsageError(f"{kind} files hold 1 to 4 channels, the network has {channels} outputs; use npy")
    if channels in (2, 4) and kind not in _ALPHA:
        raise UsageError(f"{kind} files hold no transparency; use {', '.join(_ALPHA[:-1])} or {_ALPHA[-1]}")
    if max(shape) > _LONGEST_SIDE[kind]:
        raise UsageError(
            f"{kind} files have at most {_LONGEST_SIDE[kind]} pixels along a side, not {max(shape)}; use tiff"
        )
    if kind not in ("png", "tiff") and shape[0] * shape[1] * channels > _LARGEST_BUFFER:
        raise UsageError(f"a {kind} of {shape[1]}x{shape[0]} pixels would have to fit in memory; use png or tiff")


def _encode(picture: Array, kind: str) -> bytes:
    import imageio.v3 as iio

    options: dict[str, Any] = {"quality": 95} if kind in ("jpg", "webp") else {}
    # WebP has no grey pictures; a single channel goes in as three equal ones there.
    if picture.shape[2] == 1:
        picture = picture[:, :, 0] if kind != "webp" else np.repeat(picture, 3, 2)
    elif picture.shape[2] == 2:
        picture = picture[:, :, [0, 0, 0, 1]]
    encoded = iio.imwrite("<bytes>", picture, extension=f".{kind}", plugin="pillow", **options)
    return bytes(encoded)


def _reserve(file: IO[bytes], total: int) -> None:
    """Claim the space of the whole file now: a full disk shows before anything is computed."""
    _refuse_without_space(file, total)
    with suppress(io.UnsupportedOperation):
        try:
            os.posix_fallocate(file.fileno(), 0, max(total, 1))
        except AttributeError:
            return
        except OSError as error:
            # Pipes and some file systems cannot reserve; a real shortage still shows when the bytes are written.
            if is_no_space(error):
                raise from_os_error(error, str(file.name), "write") from None


def _refuse_without_space(file: IO[bytes], total: int) -> None:
    """Raise when the file system has less room than `total` bytes."""
    try:
        status = os.fstatvfs(file.fileno())
    except (OSError, AttributeError, io.UnsupportedOperation):
        return
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and total > free:
        raise NoSpaceError(
            f"no space left: the output needs {total:,} bytes, {free:,} are free; use a smaller --size or another place"
        )
