"""Real data that installed packages bring along; nothing is downloaded."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from ..faults import InputError

__all__ = ["packaged", "photograph"]


def packaged(distribution: str, file: str, *, what: str, instead: str) -> Path:
    """Path of a file of an installed distribution; the package is not imported.

    Args:
        distribution: As pip knows it, such as "scikit-image".
        file: Path inside it.
        what: For the message, such as "the photograph".
        instead: How to give a file of one's own, such as "a picture of your own with --image".

    Raises:
        InputError: It is not installed, or has no such file.

    Example:
        >>> packaged("scikit-image", "skimage/data/camera.png", what="the photograph", instead="another one").name
        'camera.png'
    """
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise InputError(
            f"{what} comes with {distribution}, which is not installed; run: pip install 'fastsiren[data]', or give "
            f"{instead}"
        )
    return path


def photograph(name: str = "astronaut.png") -> Path:
    """Path of one of the photographs that scikit-image brings along.

    Raises:
        InputError: scikit-image is not installed.
    """
    return packaged("scikit-image", f"skimage/data/{name}", what="the photograph", instead="a picture of your own")
