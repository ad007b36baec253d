"""Video clips in and out, through PyAV, which is imported when a clip is first read or written."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Any, NamedTuple

import numpy as np

from .faults import InputError, UsageError
from .files import open_input
from .tensorfile import Array

__all__ = ["Clip", "ClipWriter", "check_size", "read"]

_MISSING = "the package av, which is not installed; run: pip install 'fastsiren[data]'"
# Of H.264 with this number the eye sees no loss.
_QUALITY = "17"
_BT709 = 1
_LIMITED = 1
_LONGEST_SIDE = 16384


class Clip(NamedTuple):
    """Frames and how many of them a second has."""

    frames: Array
    """uint8, [frames, height, width, 3]; height and width are even."""
    rate: Fraction
    """Frames per second."""

    def fingerprint(self) -> str:
        """SHA-256 over shape, rate and frames."""
        sha = hashlib.sha256(f"{self.frames.shape} {self.rate}\n".encode())
        sha.update(np.ascontiguousarray(self.frames).tobytes())
        return sha.hexdigest()


def read(path: str | os.PathLike[str], *, width: int, frames: int, every: int = 1) -> Clip:
    """Read a clip, scaled down as it is read: what is left out needs no memory.

    Args:
        path: Any video file that PyAV decodes.
        width: Largest width; wider frames are scaled down, keeping their shape. Sizes are rounded to even numbers.
        frames: Largest number of frames, from the first on.
        every: Take each so-manyth frame only.

    Raises:
        InputError: The file is missing or damaged, or holds no video of 2 frames that are taken; PyAV is missing.
    """
    with open_input(path, "a video file"):
        pass
    if importlib.util.find_spec("av") is None:
        raise InputError(f"cannot read {path}: that needs {_MISSING}")
    import av

    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise InputError(f"cannot read {path}: it holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            taken = list(_taken(container.decode(stream), width, frames, every))
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25) / every
    except av.error.FFmpegError as error:
        raise InputError(f"cannot read {path}: it is no video, or damaged ({error.strerror})") from None
    if len(taken) < 2:
        raise InputError(f"cannot read {path}: {len(taken)} frames of it were taken, at least 2 are needed")
    return Clip(np.stack(taken), rate)


def _taken(decoded: Iterator[Any], width: int, frames: int, every: int) -> Iterator[Array]:
    count = 0
    for i, frame in enumerate(decoded):
        if i % every == 0:
            scale = min(1.0, width / frame.width)
            size = {"width": _even(frame.width * scale), "height": _even(frame.height * scale)}
            yield frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray()
            count += 1
            if count == frames:
                return


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def check_size(width: int, height: int) -> None:
    """Refuse frames that an mp4 file cannot hold.

    Raises:
        UsageError: A side is odd or too long, or PyAV is missing.
    """
    if width % 2 or height % 2:
        nearest = f"{_even(width)}x{_even(height)}"
        raise UsageError(f"mp4 files hold frames of even width and height, not {width}x{height}; use {nearest}")
    if max(width, height) > _LONGEST_SIDE:
        raise UsageError(f"mp4 files have at most {_LONGEST_SIDE} pixels along a side, not {max(width, height)}")
    if importlib.util.find_spec("av") is None:
        raise UsageError(f"mp4 files need {_MISSING}")


class ClipWriter:
    """Writes an mp4 file (H.264) frame by frame.

    Args:
        file: Where to write; a pipe gets a fragmented file.
        width: Pixels, an even number.
        height: Pixels, an even number.
        rate: Frames per second.

    Raises:
        UsageError: An mp4 file cannot hold such frames, or PyAV is missing.
    """

    def __init__(self, file: IO[bytes], width: int, height: int, rate: Fraction) -> None:
        check_size(width, height)
        import av

        options = {} if file.seekable() else {"movflags": "frag_keyframe+empty_moov"}
        self._container = av.open(file, "w", format="mp4", container_options=options)
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options={"crf": _QUALITY})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED

    def write(self, frame: Array) -> None:
        """Append a frame, uint8 [height, width, 1 or 3]."""
        import av

        colours = np.ascontiguousarray(np.broadcast_to(frame, (*frame.shape[:2], 3)))
        made = av.VideoFrame.from_ndarray(colours, format="rgb24")
        made = made.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
        self._container.mux(self._stream.encode(made))

    def close(self) -> None:
        """Write what the encoder holds back, and the end of the file."""
        self._container.mux(self._stream.encode())
        self._container.close()
