"""Tensors and a JSON description in one safetensors file, sealed by a checksum.

The format itself has no checksum: of single flipped bits nearly all would pass unseen. The SHA-256 in the header covers
the description and every tensor's name, type, shape and bytes. Loading executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .faults import InputError
from .files import atomic_output, open_input

__all__ = ["Array", "TensorFile", "read", "read_any", "write"]

Array = npt.NDArray[Any]
KEY = "fastsiren"


class TensorFile(NamedTuple):
    """What a file holds: `description` (plain JSON values) and `tensors` by name."""

    description: dict[str, Any]
    tensors: dict[str, Array]


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(description: dict[str, Any], tensors: dict[str, Array]) -> str:
    """SHA-256 over the description and, in order of name, each tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(_canonical(description).encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def write(path: str | os.PathLike[str], content: TensorFile) -> None:
    """Write the file so that `path` is the old file or the complete new one, never something between.

    Args:
        path: Where the file is to appear; an existing file is replaced.
        content: Description and tensors.

    Raises:
        OutputError: The file cannot be written; `NoSpaceError` when the file system is full.
    """
    from safetensors.numpy import save

    tensors = {name: np.asarray(array, order="C") for name, array in content.tensors.items()}
    sealed = {"description": content.description, "sha256": digest(content.description, tensors)}
    # One entry only: the library writes several in random order, and equal content is to give equal files.
    metadata = {KEY: _canonical(sealed)}
    with atomic_output(path) as file:
        file.write(save(tensors, metadata))


def read(path: str | os.PathLike[str]) -> TensorFile:
    """Read a file that `write` made and prove that nothing in it has changed.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, truncated, damaged or of another kind.
    """
    metadata, tensors = _parse(path)
    if KEY not in metadata:
        raise InputError(f"{path} was not written by fastsiren (no {KEY!r} entry in its header); fit an image first")
    return TensorFile(_proven(path, metadata[KEY], tensors), tensors)


def read_any(path: str | os.PathLike[str]) -> TensorFile:
    """Read a file that `write` made as `read` does, or one of another program, which has no checksum nor description.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, truncated, damaged or of another kind.
    """
    metadata, tensors = _parse(path)
    return TensorFile(_proven(path, metadata[KEY], tensors) if KEY in metadata else {}, tensors)


def _proven(path: str | os.PathLike[str], entry: str, tensors: dict[str, Array]) -> dict[str, Any]:
    """The description of a file, once the checksum in its header is known to hold."""
    try:
        sealed = json.loads(entry)
        description, intact = sealed["description"], digest(sealed["description"], tensors) == sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        description, intact = {}, False
    if not intact or not isinstance(description, dict):
        raise InputError(f"{path} is damaged: its SHA-256 checksum does not match; restore the file or fit again")
    return description


def _parse(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Array]]:
    from safetensors import SafetensorError, safe_open

    with open_input(path, "a checkpoint file") as file:
        size = os.fstat(file.fileno()).st_size
    try:
        # The library checks every claim of the header against the size of the file before it takes memory.
        with safe_open(os.fspath(path), framework="numpy") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} is not a checkpoint, or is truncated or damaged ({size} bytes; {why}); restore it or fit again"
        ) from None
