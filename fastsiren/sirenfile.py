"""A picture as a small network in one file, `.siren`: a header, the parameters rounded and entropy-coded, a checksum.

All numbers are little-endian. The header is, in this order and without gaps:

| bytes | what |
|---:|---|
| 4 | 89 53 52 4E |
| 1 | version: 1 |
| 1 | how parameters are kept: 0 multiples of a step per tensor, 1 halves (binary16) |
| 1 | bits per sample of the picture: 8 or 16 |
| 1 | channels: 1 grey, 3 RGB |
| 1 | hidden layers behind the first sine layer |
| 2 | width of the sine layers |
| 4, 4 | height and width of the picture |
| 8, 8 | omega of the first sine layer and of the others (binary64) |
| 4 | bytes of the parameters, which follow |

Parameters are weight and bias of each layer in turn. Multiples: a signed byte e per tensor, whose step is 2^(e/4) in
binary32, then one stream of all tensors as `rangecoder` has it, each a group of its own. Halves: the numbers one after
another. The file ends with the CRC-32 of all before. A pixel (row, column) of a picture of height H is at the
coordinates 2 (row, column) / (H - 1) - 1, as in COIN, and the network's value v there is the sample (v + 1) / 2.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .faults import InputError
from .files import atomic_output, open_input
from .grids import Grid
from .hub import arguments
from .rangecoder import LARGEST, RangeDecoder, RangeEncoder
from .siren import Siren

__all__ = [
    "MOST_PARAMETERS",
    "SirenFile",
    "decode",
    "encode",
    "fault_of_size",
    "multiples",
    "pixel_grid",
    "read",
    "step",
    "write",
]

_HEADER = struct.Struct("<4sBBBBBHIIddI")
_MAGIC, _VERSION = b"\x89SRN", 1
_STEPS, _HALVES = 0, 1
_CRC = 4
MOST_PARAMETERS = 1 << 20
"""Of a network in a file: a header that claims more is refused before memory is taken."""
_MOST_LAYERS, _MOST_HIDDEN = 255, 65_535
_MOST_SIDE = 1 << 24
_EXPONENTS = range(-128, 128)
# Powers of two by quarters in binary32: those of other exponents are these, shifted, on every machine.
_QUARTERS = (1.0, 1.189207077026367, 1.4142135381698608, 1.6817928552627563)


class SirenFile(NamedTuple):
    """What a file holds."""

    net: Siren
    """Rows and columns to channels, float32; every parameter as it is in the file."""
    height: int
    width: int
    bits: int
    """Per sample of the picture, 8 or 16."""
    exponents: tuple[int, ...] | None
    """Per parameter tensor, four times the binary logarithm of its step; None for halves."""

    def grid(self, shape: tuple[int, int] | None = None) -> Grid:
        """Where the pixels are.

        Args:
            shape: Rows and columns to show the picture with; default its own.
        """
        return pixel_grid(self.height, self.width, shape)


def pixel_grid(height: int, width: int, shape: tuple[int, int] | None = None) -> Grid:
    """COIN's coordinates: pixels are squares, and rows span [-1, 1].

    Args:
        height: Of the picture.
        width: Of the picture.
        shape: Rows and columns to show it with; default its own.
    """
    spans = [2 * (n - 1) / max(height - 1, 1) for n in (height, width)]
    rows, columns = shape or (height, width)
    steps = tuple(span / (n - 1) if n > 1 else 0.0 for span, n in zip(spans, (rows, columns), strict=True))
    return Grid((rows, columns), (-1.0, -1.0), steps)


def step(exponent: int) -> float:
    """2^(exponent / 4), rounded to binary32 the same way everywhere."""
    return math.ldexp(_QUARTERS[exponent % 4], exponent // 4)


def multiples(values: Tensor, exponent: int) -> Tensor:
    """The integers whose products with a step are nearest to some numbers, int32 of the same shape."""
    return (values.detach() / step(exponent)).nan_to_num().round().clamp(-LARGEST, LARGEST).to(torch.int32)


def encode(file: SirenFile) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: The network is not one that `decode` gives back, bit by bit.
    """
    net = file.net
    first, hidden = net.first_omega_0, net.hidden_omega_0
    payload = _pack(list(net.parameters()), file.exponents)
    try:
        header = _HEADER.pack(
            _MAGIC, _VERSION, _HALVES if file.exponents is None else _STEPS, file.bits, net.out_features,
            net.hidden_layers, net.hidden_features, file.height, file.width, first, hidden, len(payload),
        )  # fmt: skip
        data = header + payload
        data += zlib.crc32(data).to_bytes(_CRC, "little")
        found = decode(data)
    except (struct.error, InputError) as error:
        raise ValueError(f"file: got a network or a size that a file cannot hold ({error})") from None
    if found[1:] != file[1:] or not _equal(found.net, net):
        raise ValueError(
            "file: got a network that is no plain one, or not rounded as its exponents say; round it first"
        )
    return data


def _equal(one: Siren, other: Siren) -> bool:
    """Whether two networks are the same, bit by bit."""
    first, second = one.state_dict(), other.state_dict()
    return (
        arguments(one) == arguments(other)
        and first.keys() == second.keys()
        and all(a.dtype == b.dtype and torch.equal(a, b.cpu()) for a, b in zip(first.values(), second.values()))
    )


def _pack(parameters: list[Tensor], exponents: tuple[int, ...] | None) -> bytes:
    """Tensors as they follow the header."""
    if exponents is None:
        return b"".join(tensor.detach().cpu().numpy().astype("<f2").tobytes() for tensor in parameters)
    if len(exponents) != len(parameters) or any(exponent not in _EXPONENTS for exponent in exponents):
        raise ValueError(f"exponents: got {exponents}, expected {len(parameters)} from -128 to 127, one per tensor")
    encoder = RangeEncoder()
    for tensor, exponent in zip(parameters, exponents, strict=True):
        encoder.integers(multiples(tensor, exponent).flatten().tolist())
    return struct.pack(f"{len(exponents)}b", *exponents) + encoder.finish()


def _parameters(hidden: int, layers: int, channels: int) -> int:
    return hidden * (3 + layers * (hidden + 1) + channels) + channels


def fault_of_size(hidden: int, layers: int, channels: int) -> str | None:
    """Why no file holds a network, None where one does.

    Args:
        hidden: Width of the sine layers.
        layers: Hidden layers behind the first.
        channels: Of the picture.
    """
    count = _parameters(hidden, layers, channels)
    sizes = ((count, MOST_PARAMETERS, "parameters"), (hidden, _MOST_HIDDEN, "units"), (layers, _MOST_LAYERS, "layers"))
    return next((f"{each:,} {what}; at most {most:,} are read" for each, most, what in sizes if each > most), None)


class _Header(NamedTuple):
    magic: bytes
    version: int
    kept: int
    bits: int
    channels: int
    layers: int
    hidden: int
    height: int
    width: int
    first_omega: float
    hidden_omega: float
    length: int

    @property
    def parameters(self) -> int:
        return _parameters(self.hidden, self.layers, self.channels)

    def fault(self) -> str | None:
        """What is wrong with it."""
        if self.magic != _MAGIC:
            return "it is no .siren file"
        if self.version != _VERSION:
            return f"its version is {self.version}, this one reads {_VERSION}; update fastsiren"
        possible = (
            self.kept in (_STEPS, _HALVES)
            and self.bits in (8, 16)
            and self.channels in (1, 3)
            and self.hidden >= 1
            and 1 <= self.height <= _MOST_SIDE
            and 1 <= self.width <= _MOST_SIDE
            and all(math.isfinite(omega) and omega != 0 for omega in (self.first_omega, self.hidden_omega))
        )
        if not possible:
            return "its header describes no picture; it is damaged"
        large = fault_of_size(self.hidden, self.layers, self.channels)
        return large and f"its header claims {large}"


def decode(data: bytes) -> SirenFile:
    """What the bytes of a file hold.

    Raises:
        InputError: They are truncated, damaged or of another kind.
    """
    header = _header(data, len(data))
    if zlib.crc32(data[:-_CRC]) != int.from_bytes(data[-_CRC:], "little"):
        raise InputError("it is damaged: its checksum does not match; restore the file or fit again")
    tensors, exponents = _unpack(header, data[_HEADER.size : -_CRC])
    net = Siren(
        2, header.hidden, header.layers, header.channels, first_omega_0=header.first_omega,
        hidden_omega_0=header.hidden_omega, device="meta", dtype=torch.float32,
    )  # fmt: skip
    net.load_state_dict(dict(zip(net.state_dict(), tensors, strict=True)), assign=True)
    return SirenFile(net, header.height, header.width, header.bits, exponents)


def _header(data: bytes, size: int) -> _Header:
    """The header of a file of `size` bytes, once it is known to fit that."""
    if _MAGIC[: len(data)] != data[: len(_MAGIC)]:
        raise InputError("it is no .siren file")
    if len(data) < _HEADER.size:
        raise InputError(f"it is truncated: {size} bytes are less than a header")
    header = _Header(*_HEADER.unpack_from(data))
    fault = header.fault()
    if fault is not None:
        raise InputError(fault)
    whole = _HEADER.size + header.length + _CRC
    if size != whole:
        raise InputError(f"it is {'truncated' if size < whole else 'too long'}: {size} of {whole} bytes")
    return header


def _unpack(header: _Header, payload: bytes) -> tuple[list[Tensor], tuple[int, ...] | None]:
    """Parameters, and their exponents."""
    shapes = [(header.hidden, 2), (header.hidden,), *[(header.hidden, header.hidden), (header.hidden,)] * header.layers]
    shapes += [(header.channels, header.hidden), (header.channels,)]
    impossible = InputError("its parameters are none; it is damaged")
    if header.kept == _HALVES:
        if len(payload) != 2 * header.parameters:
            raise impossible
        numbers = torch.from_numpy(np.frombuffer(payload, "<f2").astype(np.float32))
        tensors, exponents = list(numbers.split([math.prod(shape) for shape in shapes])), None
    else:
        if len(payload) < len(shapes):
            raise impossible
        exponents = struct.unpack_from(f"{len(shapes)}b", payload)
        decoder = RangeDecoder(payload[len(shapes) :])
        groups = [decoder.integers(math.prod(shape)) for shape in shapes]
        tensors = [torch.tensor(q, dtype=torch.float32) * step(e) for q, e in zip(groups, exponents, strict=True)]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise impossible
    return [tensor.view(shape) for tensor, shape in zip(tensors, shapes, strict=True)], exponents


def read(path: str | os.PathLike[str]) -> SirenFile:
    """Read a file that `write` made and prove that nothing in it has changed.

    Raises:
        InputError: The file is missing, truncated, damaged or of another kind.
    """
    with open_input(path, "a .siren file") as file:
        try:
            # Nothing of a file is read that its header does not explain.
            _header(file.read(_HEADER.size), os.fstat(file.fileno()).st_size)
            file.seek(0)
            return decode(file.read())
        except InputError as error:
            raise InputError(f"cannot read {path}: {error}") from None


def write(path: str | os.PathLike[str], content: SirenFile) -> int:
    """Write a file so that `path` is the old file or the complete new one; the number of its bytes.

    Raises:
        ValueError: The parameters of the network are not rounded as the exponents say.
        OutputError: The file cannot be written; `NoSpaceError` when the file system is full.
    """
    data = encode(content)
    with atomic_output(path) as file:
        file.write(data)
    return len(data)
