"""PNG files where the usual reader or writer falls short: 16-bit colour read exactly, any size written as a stream.

Equations and names follow the PNG specification (third edition), sections 7 and 9. Pillow reads 16-bit colour as 8 bits
without a word, and cannot write it; everything else is left to imageio.
"""

from __future__ import annotations

import struct
import zlib
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .faults import InputError

__all__ = ["MAX_SIDE", "Array", "Header", "PngWriter", "read_16_bit", "read_header"]

Array = npt.NDArray[Any]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 2**31 - 1
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class Header(NamedTuple):
    """The IHDR chunk."""

    width: int
    height: int
    bits: int
    colour_type: int
    compression: int
    filtering: int
    interlace: int

    @property
    def channels(self) -> int:
        """Samples per pixel."""
        return _CHANNELS.get(self.colour_type, 0)


def read_header(data: bytes) -> Header | None:
    """The header if `data` begins like a PNG file, else None."""
    if data[:8] != SIGNATURE or data[12:16] != b"IHDR" or len(data) < 29:
        return None
    return Header(*struct.unpack(">IIBBBBB", data[16:29]))


def read_16_bit(data: bytes) -> Array:
    """Decode a whole 16-bit PNG file.

    Args:
        data: The file's bytes.

    Returns:
        uint16 array [height, width, channels].

    Raises:
        InputError: The data is damaged, or the picture is interlaced.
    """
    header = read_header(data)
    if header is None or header.bits != 16 or header.channels == 0:
        raise InputError("not a 16-bit PNG file")
    if header.interlace:
        raise InputError("interlaced 16-bit PNG files are not supported; save it without interlacing")
    row = header.width * header.channels * 2
    expected = header.height * (row + 1)
    packed = b"".join(_chunks(data, b"IDAT"))
    # Deflate cannot shrink more than 1032-fold: a larger claim is refused before memory is taken.
    if expected > 1032 * len(packed) + 1032:
        raise InputError(f"its header claims {header.width}x{header.height} pixels, the file is far too short for that")
    decoder = zlib.decompressobj()
    try:
        raw = decoder.decompress(packed, expected)
    except zlib.error as error:
        raise InputError(f"its pixel data cannot be decompressed ({error})") from None
    if len(raw) != expected:
        raise InputError(f"its pixel data ends early: {len(raw)} of {expected} bytes")
    lines = np.frombuffer(raw, np.uint8).reshape(header.height, row + 1)
    pixels = _unfilter(lines[:, 0], lines[:, 1:].reshape(header.height, header.width, header.channels * 2))
    return pixels.view(">u2").astype(np.uint16)


def _chunks(data: bytes, kind: bytes) -> list[bytes]:
    """The contents of every chunk of a kind; each chunk's checksum is verified."""
    found, offset = [], 8
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name, end = data[offset + 4 : offset + 8], offset + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[offset + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise InputError(f"its {name.decode('latin-1')} chunk is damaged (checksum)")
        if name == kind:
            found.append(data[offset + 8 : end])
        if name == b"IEND":
            return found
        offset = end + 4
    raise InputError("the file is truncated")


def _unfilter(filters: Array, filtered: Array) -> Array:
    """Undo the row filters: [H] filter types, [H, W, B] bytes -> [H, W, B] bytes.

    A pixel needs its left, upper and upper left neighbours, so the pixels of one antidiagonal are independent.
    """
    if filters.size and filters.max() > 4:
        raise InputError(f"unknown row filter {filters.max()}")
    height, width, size = filtered.shape
    # One column and one row of zeros stand for the neighbours outside the picture.
    out = np.zeros((height + 1, width + 1, size), np.uint8)
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        columns = diagonal - rows
        left, up, corner = out[rows + 1, columns], out[rows, columns + 1], out[rows, columns]
        predicted = _predict(filters[rows, None], left.astype(np.int16), up.astype(np.int16), corner.astype(np.int16))
        out[rows + 1, columns + 1] = filtered[rows, columns] + predicted
    return np.ascontiguousarray(out[1:, 1:])


def _predict(filters: Array, left: Array, up: Array, corner: Array) -> Array:
    """Prediction of each byte under its row's filter: none, sub, up, average or Paeth."""
    average = (left + up) >> 1
    return np.choose(filters, [np.zeros_like(left), left, up, average, _paeth(left, up, corner)]).astype(np.uint8)


def _paeth(left: Array, up: Array, corner: Array) -> Array:
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    nearest = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)


class PngWriter:
    """Write a PNG of any size row by row; at most a few rows are held in memory.

    Args:
        file: Where to write; need not be seekable.
        width: Pixels per row.
        height: Rows.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        bits: 8 or 16 per sample.
    """

    def __init__(self, file: IO[bytes], width: int, height: int, *, channels: int, bits: int) -> None:
        self._file = file
        self._pixel = channels * bits // 8
        self._above = np.zeros((1, width * self._pixel), np.uint8)
        self._deflate = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
        file.write(SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPE[channels], 0, 0, 0))

    def _chunk(self, name: bytes, body: bytes) -> None:
        crc = struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
        self._file.write(struct.pack(">I", len(body)) + name + body + crc)

    def write_rows(self, rows: Array) -> None:
        """Append rows: uint8 or uint16 array [n, width, channels]."""
        raw = rows.astype(rows.dtype.newbyteorder(">"), copy=False)
        raw = np.ascontiguousarray(raw).view(np.uint8).reshape(len(rows), -1)
        packed = self._deflate.compress(self._filter(raw).tobytes())
        self._above = raw[-1:].copy()
        if packed:
            self._chunk(b"IDAT", packed)

    def _filter(self, raw: Array) -> Array:
        """Each row under the filter that leaves the smallest sum of magnitudes (the usual rule of thumb)."""
        up = np.concatenate([self._above, raw[:-1]])
        shift = ((0, 0), (self._pixel, 0))
        left, corner = (np.pad(part, shift)[:, : raw.shape[1]] for part in (raw, up))
        wide = [part.astype(np.int16) for part in (left, up, corner)]
        average, paeth = (wide[0] + wide[1]) >> 1, _paeth(*wide)
        guesses = [np.zeros_like(raw), left, up, average.astype(np.uint8), paeth.astype(np.uint8)]
        lines = np.stack([raw - guess for guess in guesses])
        costs = abs(lines.view(np.int8).astype(np.int16)).sum(-1, dtype=np.int64)
        best = costs.argmin(0)
        chosen = lines[best, np.arange(len(raw))]
        return np.concatenate([best.astype(np.uint8)[:, None], chosen], 1)

    def close(self) -> None:
        """Write what is left and the end mark."""
        self._chunk(b"IDAT", self._deflate.flush())
        self._chunk(b"IEND", b"")
