"""The kinds of content of a file, a picture, a clip, a sound or a shape: how each is rendered and described."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from .. import sirenfile
from ..faults import InputError, UsageError
from ..fit import checkpoint as checkpoints
from ..fit.checkpoint import Checkpoint
from ..grids import Grid
from ..meshes import Mesh
from ..png import MAX_SIDE
from ..render import FORMATS
from ..render.outputs import CLIP_FORMATS, MESH_FORMATS, PICTURE_FORMATS, SOUND_FORMATS
from ..sirenfile import SirenFile
from . import audio, described, image, sdf, video
from .content import Asked, Content
from .described import fits
from .sdf_figures import network_mesh

__all__ = ["find", "is_compressed", "load"]

_LONGEST = 2**31


class PictureContent(Content):
    """A picture by its pixels."""

    title, merit = "picture", "PSNR"
    ignores = ("frames", "rate", "at", "resolution")

    def grid(self, asked: Asked) -> Grid:
        """Rows and columns."""
        picture = self.description["image"]
        return Grid.over(_shape(asked, (picture["height"], picture["width"])))

    def options(self, asked: Asked) -> dict[str, Any]:
        """The depth of the original where the format can hold it."""
        return {"bits": self.description["image"]["bits"] if asked.kind in ("png", "tiff") else None}

    def size(self) -> str:
        """Pixels and channels."""
        picture = self.description["image"]
        kind = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}[picture["channels"]]
        return f"{picture['width']}x{picture['height']} {kind}, {picture['bits']} bits per channel"


class CompressedContent(PictureContent):
    """A picture in a .siren file of some bytes."""

    def __init__(self, file: SirenFile, size: int) -> None:
        self._file, self._bytes = file, size
        image = {"width": file.width, "height": file.height, "channels": file.net.out_features, "bits": file.bits}
        super().__init__(Checkpoint(file.net, {"image": image}, {}))

    def grid(self, asked: Asked) -> Grid:
        """Rows and columns, at the coordinates of the file."""
        return self._file.grid(_shape(asked, (self._file.height, self._file.width)))

    def facts(self) -> list[tuple[str, str]]:
        """Its size, and what the file takes."""
        kept = "halves" if self._file.exponents is None else "multiples of a step per tensor, entropy-coded"
        rate = 8 * self._bytes / (self._file.height * self._file.width)
        return [(self.title, self.size()), ("parameters", kept), ("rate", f"{rate:.4f} bits per pixel")]


class ClipContent(Content):
    """A clip by its voxels."""

    title, merit = "clip", "PSNR"
    ignores = ("resolution",)

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._clip = checkpoint.description["video"]
        self._rate = Fraction(self._clip["rate"])

    def check(self, asked: Asked) -> None:
        """One frame is asked for by its time, and has neither number nor rate."""
        super().check(asked)
        if asked.at is None and asked.kind in PICTURE_FORMATS:
            raise UsageError(
                f"a {asked.kind} shows one frame of a clip; say which with --at SECONDS, or use mp4 or npy"
            )
        if asked.at is not None and (asked.frames is not None or asked.rate is not None):
            raise UsageError("--at takes one frame, which has neither --frames nor --rate; leave them out")
        if asked.at is not None and asked.kind in CLIP_FORMATS:
            raise UsageError("--at takes one frame; use png or another picture format")

    def grid(self, asked: Asked) -> Grid:
        """Time, rows and columns; one frame where a time is given."""
        shape = _shape(asked, (self._clip["height"], self._clip["width"]), even=asked.kind in CLIP_FORMATS)
        if asked.at is None:
            return Grid.over((asked.frames or self._clip["frames"], *shape))
        last = float((self._clip["frames"] - 1) / self._rate)
        if not 0 <= asked.at <= last:
            raise UsageError(f"--at must be a time from 0 to {last:g} seconds; got {asked.at:g}")
        rows = Grid.over(shape)
        return Grid((1, *shape), (2 * asked.at / last - 1, *rows.origin), (0.0, *rows.step))

    def options(self, asked: Asked) -> dict[str, Any]:
        """The rate at which the clip lasts as long as the original, unless another is asked for."""
        if asked.rate is not None:
            return {"rate": Fraction(asked.rate).limit_denominator(100_000)}
        return {"rate": self._rate * (asked.frames or self._clip["frames"]) / self._clip["frames"]}

    def shown(self, grid: Grid) -> str:
        """Frames and their size."""
        frames = grid.shape[0]
        return super().shown(grid) if frames == 1 else f"{frames} frames of {super().shown(grid)}"

    def size(self) -> str:
        """Frames, their size and rate."""
        clip = self._clip
        return f"{clip['frames']} frames of {clip['width']}x{clip['height']}, {float(self._rate):g} per second"


class SoundContent(Content):
    """A sound by its samples."""

    title, merit = "sound", "SNR"
    ignores = ("size", "scale", "frames", "at", "resolution")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._sound = checkpoint.description["audio"]

    def check(self, asked: Asked) -> None:
        """Sounds go to files of sound."""
        super().check(asked)
        if asked.kind in FORMATS and asked.kind not in (*SOUND_FORMATS, "npy"):
            raise UsageError(f"a {asked.kind} holds no sound; use {', '.join(SOUND_FORMATS)} or npy")

    def grid(self, asked: Asked) -> Grid:
        """Samples at the rate that is asked for, from the first to the last."""
        count, rate = self._sound["samples"], self._rate(asked)
        between = Fraction(self._sound["rate"], rate)
        return Grid((int((count - 1) / between) + 1,), (-1.0,), (2 * float(between) / (count - 1),))

    def options(self, asked: Asked) -> dict[str, Any]:
        """The rate, and the loudness of the original."""
        return {"rate": Fraction(self._rate(asked)), "gain": min(self._sound["peak"], 1.0)}

    def _rate(self, asked: Asked) -> int:
        if asked.rate is None:
            return int(self._sound["rate"])
        if not 1 <= asked.rate < _LONGEST or asked.rate != int(asked.rate):
            raise UsageError(f"--rate of a sound must be a whole number of 1 Hz or more; got {asked.rate:g}")
        return int(asked.rate)

    def shown(self, grid: Grid) -> str:
        """Samples."""
        return f"{grid.numel:,} samples"

    def size(self) -> str:
        """Length, rate and channels."""
        sound = self._sound
        seconds = sound["samples"] / sound["rate"]
        return f"{seconds:.2f} s at {sound['rate']:,} Hz, {sound['samples']:,} samples, channels: {sound['channels']}"


class ShapeContent(Content):
    """A shape by its signed distance."""

    title, merit = "shape", "IoU"
    ignores = ("size", "scale", "frames", "rate", "at")

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._place = checkpoint.description["shape"]
        # Where nobody knows what is inside there is none.
        self.merit = "IoU" if "IoU" in self.description["figures"] else "Chamfer"

    def check(self, asked: Asked) -> None:
        """Shapes go to meshes, and their values to arrays."""
        super().check(asked)
        if asked.kind not in (*MESH_FORMATS, "npy"):
            raise UsageError(f"a {asked.kind} holds no shape; use {', '.join(MESH_FORMATS)} or npy")

    def grid(self, asked: Asked) -> Grid:
        """All of the box, the first coordinate slowest."""
        return Grid.over((self._resolution(asked),) * 3)

    def options(self, asked: Asked) -> dict[str, Any]:
        """Nothing."""
        return {}

    def mesh(self, asked: Asked, *, progress: bool) -> Mesh:
        """The zero level in the coordinates of the file, with the gradients as normals.

        Raises:
            InputError: There is none.
        """
        mesh = network_mesh(self.net, self._resolution(asked), progress=progress)
        if not len(mesh.faces):
            raise InputError("the network is zero nowhere: there is no surface; train it longer")
        return mesh._replace(vertices=(mesh.vertices - self._place["shift"]) / self._place["scale"])

    def _resolution(self, asked: Asked) -> int:
        return int(asked.resolution or self.description["settings"]["resolution"])

    def shown(self, grid: Grid) -> str:
        """Points along each axis."""
        return "x".join(map(str, grid.shape))

    def size(self) -> str:
        """Its place in the coordinates of the file."""
        scale = self._place["scale"]
        middle = ", ".join(f"{(0 - each) / scale:.4g}" for each in self._place["shift"])
        return f"in a box {2 / scale:.4g} wide around {middle}"

    def figure(self, value: float) -> str:
        """Without a unit."""
        return f"{value:.4g}"


def _shape(asked: Asked, original: tuple[int, int], *, even: bool = False) -> tuple[int, int]:
    """(rows, columns) that are asked for."""
    if asked.scale is None:
        return asked.size or original
    if not (math.isfinite(asked.scale) and asked.scale > 0):
        raise UsageError(f"--scale must be a positive number; got {asked.scale}")
    step = 2 if even else 1
    rows, columns = (max(step, step * round(length * asked.scale / step)) for length in original)
    return rows, columns


def _is_clip(checkpoint: Checkpoint) -> bool:
    clip = checkpoint.description["video"]
    return (
        fits(checkpoint, video.Settings, "PSNR", 3, 3)
        and all(type(clip[name]) is int for name in ("frames", "height", "width"))
        and 2 <= clip["frames"] < _LONGEST
        and 1 <= clip["height"] <= MAX_SIDE
        and 1 <= clip["width"] <= MAX_SIDE
        and isinstance(clip["rate"], str)
        and 1e-6 < Fraction(clip["rate"]) < 1e6
    )


def _is_sound(checkpoint: Checkpoint) -> bool:
    sound = checkpoint.description["audio"]
    return (
        all(type(sound[name]) is int for name in ("samples", "rate", "channels"))
        and fits(checkpoint, audio.Settings, "SNR", 1, sound["channels"])
        and 2 <= sound["samples"] < _LONGEST
        and 1 <= sound["rate"] < _LONGEST
        and type(sound["peak"]) is float
        and 0 < sound["peak"] < math.inf
    )


def _is_shape(checkpoint: Checkpoint) -> bool:
    place = checkpoint.description["shape"]
    numbers = [place["scale"], *place["shift"]]
    return (
        fits(checkpoint, sdf.Settings, "IoU", 3, 1)
        and len(numbers) == 4
        and all(type(each) is float and math.isfinite(each) for each in numbers)
        and place["scale"] > 0
    )


_CONTENTS: dict[str, tuple[type[Content], Callable[[Checkpoint], bool]]] = {
    "image": (PictureContent, image.is_fitted),
    "video": (ClipContent, _is_clip),
    "audio": (SoundContent, _is_sound),
    "sdf": (ShapeContent, _is_shape),
}


def find(path: str | os.PathLike[str], checkpoint: Checkpoint) -> Content | None:
    """What a checkpoint holds; None when it is something that cannot be rendered.

    Raises:
        InputError: Its description does not fit its network.
    """
    name = checkpoint.description.get("problem")
    if name not in _CONTENTS:
        return None
    kind, fitting = _CONTENTS[name]
    described.check(path, checkpoint, kind.title, fitting)
    return kind(checkpoint)


def is_compressed(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of `fastsiren.sirenfile`, by its extension."""
    return os.fspath(path).lower().endswith(".siren")


def load(path: str | os.PathLike[str]) -> Content:
    """Read what a checkpoint or a .siren file holds.

    Raises:
        InputError: The file is missing or damaged, or holds something that cannot be rendered.
    """
    if is_compressed(path):
        return CompressedContent(sirenfile.read(path), os.path.getsize(path))
    checkpoint = checkpoints.load(path)
    found = find(path, checkpoint)
    if found is None:
        raise InputError(
            f"{path} holds a {checkpoint.description.get('problem')!r}, not an image, a video, an audio or an sdf"
        )
    return found
