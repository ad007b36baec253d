"""Pictures in: any file imageio reads, exactly as deep as it is stored; and the one definition of PSNR."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import warnings
from typing import NamedTuple

import numpy as np

from .engine.values import described, number
from .faults import InputError
from .files import open_input
from .png import Array, read_16_bit, read_header

__all__ = ["Picture", "psnr", "read"]

MAX_PIXELS = 2**31


class Picture(NamedTuple):
    """A picture exactly as deep as it is stored."""

    pixels: Array
    """uint8 or uint16, [height, width, channels]; channels: grey, grey and alpha, RGB or RGBA."""

    @property
    def bits(self) -> int:
        """8 or 16 per sample."""
        return self.pixels.itemsize * 8

    def fingerprint(self) -> str:
        """SHA-256 over size, depth and pixels."""
        sha = hashlib.sha256(f"{self.pixels.shape} {self.bits}\n".encode())
        sha.update(np.ascontiguousarray(self.pixels).tobytes())
        return sha.hexdigest()

    def normalised(self, index: Array | slice = slice(None)) -> Array:
        """Float32 samples in [-1, 1] of the pixels named by flat index, [N, channels]."""
        flat = self.pixels.reshape(-1, self.pixels.shape[2])[index]
        return flat.astype(np.float32) * np.float32(2 / np.iinfo(self.pixels.dtype).max) - np.float32(1)


def read(path: str | os.PathLike[str]) -> Picture:
    """Read a picture: 8 or 16 bits, grey or colour, with or without alpha; of an animation the first frame.

    Args:
        path: The file. A rotation noted by the camera (EXIF) is applied.

    Raises:
        TypeError: `path` is no path.
        InputError: The file is missing, empty, damaged, or holds no picture of a supported kind.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {described(path)}, expected a str or os.PathLike")
    data = _load(path)
    header = read_header(data)
    if header is not None and header.width * header.height > MAX_PIXELS:
        raise InputError(f"cannot read {path}: its header claims {header.width}x{header.height} pixels; crop it first")
    try:
        pixels = read_16_bit(data) if header is not None and header.bits == 16 else _imageio(path)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    except MemoryError:
        raise InputError(f"cannot read {path}: the picture does not fit in memory; scale it down first") from None
    return Picture(_as_stored(path, pixels))


def _load(path: str | os.PathLike[str]) -> bytes:
    with open_input(path, "an image file") as file:
        data = file.read()
    if not data:
        raise InputError(f"cannot read {path}: the file is empty")
    return data


def _imageio(path: str | os.PathLike[str]) -> Array:
    # Decoders raise whatever they like on damaged files (struct.error, SyntaxError, zlib.error, KeyError ...); it all
    # means the same to the user.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(_first_frame(path))
    except (MemoryError, InputError):
        raise
    except Exception as error:  # noqa: BLE001
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"not a picture, or damaged ({detail[:150]})") from None


def _first_frame(path: str | os.PathLike[str]) -> Array:
    import imageio.v3 as iio
    from PIL import Image, UnidentifiedImageError

    extension = os.path.splitext(os.fspath(path))[1].lower()
    if extension in (".tif", ".tiff") and importlib.util.find_spec("tifffile") is not None:
        return iio.imread(os.fspath(path), index=0, plugin="tifffile")
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        # Asking every other reader of imageio is slow and noisy, and pointless for the formats pillow knows.
        if not extension or extension in Image.registered_extensions():
            raise InputError("not a picture, or damaged; PNG, JPEG, TIFF, WebP, BMP and GIF are known") from None
        return iio.imread(os.fspath(path), index=0)
    return iio.imread(os.fspath(path), index=0, plugin="pillow", rotate=True)


def _as_stored(path: str | os.PathLike[str], pixels: Array) -> Array:
    """Check what the decoder returned and give it the shape [height, width, channels]."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"cannot read {path}: samples of type {pixels.dtype}; save it with 8 or 16 bits per channel")
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise InputError(f"cannot read {path}: shape {pixels.shape} is not a picture of 1 to 4 channels")
    if pixels.size == 0:
        raise InputError(f"cannot read {path}: the picture has no pixels ({pixels.shape[1]}x{pixels.shape[0]})")
    return np.ascontiguousarray(pixels)


def psnr(mean_squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB for samples in [0, 1].

    Args:
        mean_squared_error: Mean over all samples, prediction clipped to [0, 1].

    Returns:
        -10 log10 of the error; infinity for an exact fit, NaN for NaN.

    Raises:
        TypeError: The error is no number.
        ValueError: The error is negative.
    """
    error = number("mean_squared_error", mean_squared_error)
    if error < 0:
        raise ValueError(f"mean_squared_error: got {error}, expected a number >= 0")
    return -10 * math.log10(error) if error else math.inf
