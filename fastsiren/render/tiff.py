"""Header of an uncompressed TIFF or BigTIFF file whose pixels follow in one run (TIFF 6.0, sections 2 and 8)."""

from __future__ import annotations

import struct

import numpy as np

__all__ = ["tiff_header"]

_SHORT, _LONG, _LONG8 = 3, 4, 16
_CODES = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
_STRIP = 1 << 20


def tiff_header(width: int, height: int, *, channels: int, bits: int) -> bytes:
    """Everything before the pixels: little-endian, chunky samples, strips of about a megabyte.

    Args:
        width: Pixels per row.
        height: Rows.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        bits: 8 or 16 per sample.
    """
    row = width * channels * bits // 8
    big = row * height > 2**32 - 2**26
    # A megabyte each, or a millionth part of a very large picture, keeps the table of strips small.
    rows = max(1, min(height, max(_STRIP, row * height >> 20) // row))
    counts = np.full(-(-height // rows), rows * row, np.uint64)
    counts[-1] = (height - (len(counts) - 1) * rows) * row
    place = _LONG8 if big else _LONG
    tags: list[tuple[int, int, list[int]]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [bits] * channels),
        (259, _SHORT, [1]),
        (262, _SHORT, [2 if channels > 2 else 1]),
        (273, place, [0] * len(counts)),
        (277, _SHORT, [channels]),
        (278, _LONG, [rows]),
        (279, place, counts.tolist()),
        (284, _SHORT, [1]),
        *([(338, _SHORT, [2])] if channels in (2, 4) else []),
    ]
    # The table has the same size whatever the offsets are, so a first draft tells where the pixels begin.
    begin = len(_table(tags, big))
    offsets = begin + np.cumsum(counts) - counts
    return _table([(tag, kind, offsets.tolist() if tag == 273 else values) for tag, kind, values in tags], big)


def _table(tags: list[tuple[int, int, list[int]]], big: bool) -> bytes:
    """File header, directory, and behind it the values that do not fit into their entries."""
    word, entry = ("Q", "<HHQ") if big else ("I", "<HHI")
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    inline = struct.calcsize(word)
    directory = struct.pack("<Q" if big else "<H", len(tags))
    spill_at = len(head) + len(directory) + len(tags) * (struct.calcsize(entry) + inline) + inline
    spill = b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        directory += struct.pack(entry, tag, kind, len(values))
        if len(packed) <= inline:
            directory += packed.ljust(inline, b"\0")
        else:
            directory += struct.pack(f"<{word}", spill_at + len(spill))
            spill += packed.ljust(-(-len(packed) // 8) * 8, b"\0")
    return head + directory + struct.pack(f"<{word}", 0) + spill
