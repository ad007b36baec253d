"""PLY files: any header, text or binary of both byte orders, read into columns; binary meshes out."""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

import numpy as np

from .faults import InputError
from .tensorfile import Array

__all__ = ["Columns", "Lists", "read", "write"]

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_KINDS = {
    "i1": ("char", "int8"),
    "u1": ("uchar", "uint8"),
    "i2": ("short", "int16"),
    "u2": ("ushort", "uint16"),
    "i4": ("int", "int32"),
    "u4": ("uint", "uint32"),
    "f4": ("float", "float32"),
    "f8": ("double", "float64"),
}
_TYPES = {name: kind for kind, names in _KINDS.items() for name in names}
_LONGEST_HEADER = 1 << 16
_MOST_DIGITS = 18


class Lists(NamedTuple):
    """A list per row."""

    lengths: Array
    """[rows]"""
    values: Array
    """[sum of lengths], row after row."""


Columns = dict[str, "Array | Lists"]


class _Property(NamedTuple):
    name: str
    type: str
    """Of a number, as NumPy has it."""
    length: str | None
    """Type of the number in front of a list; None for a single number."""


class _Element(NamedTuple):
    name: str
    rows: int
    properties: list[_Property]


def read(data: bytes) -> dict[str, Columns]:
    """Columns of every element, by their names.

    Args:
        data: The whole file.

    Raises:
        InputError: It is no PLY file, ends too early, or holds something else than its header says.
    """
    order, elements, body = _header(data)
    rows = _Text(body) if not order else _Binary(body, order)
    try:
        return {element.name: rows.take(element) for element in elements}
    except (struct.error, IndexError):
        raise InputError("it ends before the last of the elements that its header counts") from None
    except (ValueError, OverflowError) as error:
        raise InputError(f"it holds something else than its header says ({error})") from None


def _header(data: bytes) -> tuple[str, list[_Element], bytes]:
    """Byte order, elements, and what follows the header."""
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise InputError("it has no header of a PLY file")
    order, elements = "", []
    for words in (line.split() for line in data[:end].decode("latin-1").splitlines()[1:]):
        match words:
            case ["format", name, *_] if name in _ORDERS:
                order = _ORDERS[name]
            case ["element", name, count] if count.isdecimal() and len(count) <= _MOST_DIGITS:
                elements.append(_Element(name, int(count), []))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= _TYPES.keys():
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[length]))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind], None))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise InputError(f"its header has a line that is not understood: {' '.join(words)[:60]!r}")
    return order, elements, data[newline + 1 :]


class _Text:
    """Numbers as words."""

    def __init__(self, body: bytes) -> None:
        self._words, self._place = body.split(), 0

    def take(self, element: _Element) -> Columns:
        """The next rows."""
        properties = element.properties
        if all(each.length is None for each in properties):
            table = self._numbers(element.rows * len(properties)).reshape(element.rows, len(properties))
            return {each.name: table[:, i] for i, each in enumerate(properties)}
        found: dict[str, list[Array]] = {each.name: [] for each in properties}
        for _ in range(element.rows):
            for each in properties:
                found[each.name].append(self._numbers(1 if each.length is None else int(self._numbers(1)[0])))
        return {each.name: _joined(found[each.name], each) for each in properties}

    def _numbers(self, count: int) -> Array:
        taken = self._words[self._place : self._place + count]
        self._place += count
        if len(taken) < count or count < 0:
            raise IndexError
        return np.array(taken, np.float64)


class _Binary:
    """Numbers as they are in memory."""

    def __init__(self, body: bytes, order: str) -> None:
        self._body, self._order, self._place = body, order, 0

    def take(self, element: _Element) -> Columns:
        """The next rows: at once where all lists of a column are as long as its first, else one by one."""
        properties, begun = element.properties, self._place
        if not element.rows or not properties:
            return {each.name: _joined([], each) for each in properties}
        lengths = [len(row) for row in self._row(properties)]
        self._place = begun
        fields: list[tuple[str, str] | tuple[str, str, int]] = []
        for i, (each, length) in enumerate(zip(properties, lengths, strict=True)):
            if each.length is None:
                fields.append((f"v{i}", self._order + each.type))
            else:
                fields += [(f"n{i}", self._order + each.length), (f"v{i}", self._order + each.type, length)]
        kind = np.dtype(fields)
        if element.rows * kind.itemsize <= len(self._body) - begun:
            rows = np.frombuffer(self._body, kind, element.rows, begun)
            listed = [i for i, each in enumerate(properties) if each.length is not None]
            if all((rows[f"n{i}"] == lengths[i]).all() for i in listed):
                self._place += rows.nbytes
                return {each.name: _column(rows, i, each) for i, each in enumerate(properties)}
        return self._one_by_one(element)

    def _one_by_one(self, element: _Element) -> Columns:
        if element.rows > len(self._body) - self._place:
            raise IndexError
        rows = [self._row(element.properties) for _ in range(element.rows)]
        return {each.name: _joined([row[i] for row in rows], each) for i, each in enumerate(element.properties)}

    def _row(self, properties: list[_Property]) -> list[Array]:
        return [
            self._numbers(each.type, 1 if each.length is None else int(self._numbers(each.length, 1)[0]))
            for each in properties
        ]

    def _numbers(self, kind: str, count: int) -> Array:
        dtype = np.dtype(self._order + kind)
        if count < 0 or self._place + count * dtype.itemsize > len(self._body):
            raise IndexError
        found = np.frombuffer(self._body, dtype, count, self._place)
        self._place += found.nbytes
        return found


def _column(rows: Array, i: int, each: _Property) -> Array | Lists:
    values = rows[f"v{i}"]
    if each.length is None:
        return values.astype(np.float64)
    values = values.reshape(len(rows), -1)
    return Lists(np.full(len(rows), values.shape[1]), values.reshape(-1).astype(np.float64))


def _joined(rows: list[Array], each: _Property) -> Array | Lists:
    values = np.concatenate([*rows, np.empty(0)]).astype(np.float64)
    return values if each.length is None else Lists(np.array([len(row) for row in rows], np.int64), values)


def write(file: IO[bytes], vertices: Array, faces: Array, normals: Array | None = None) -> None:
    """A binary PLY file, little-endian.

    Args:
        file: Where to write.
        vertices: [V, 3], kept as float32.
        faces: [F, 3], triangles.
        normals: [V, 3], of the vertices.
    """
    table = np.concatenate([vertices, *([] if normals is None else [normals])], 1).astype("<f4")
    names = ["x", "y", "z", "nx", "ny", "nz"][: table.shape[1]]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {name}" for name in names]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    file.write("\n".join(header).encode())
    file.write(table.tobytes())
    rows = np.empty(len(faces), np.dtype([("n", "u1"), ("v", "<i4", 3)]))
    rows["n"], rows["v"] = 3, faces
    file.write(rows.tobytes())
