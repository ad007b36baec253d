"""A picture as a function of its coordinates: fit it, measure it, load it again."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import images
from ..faults import InputError
from ..files import check_apart, check_output, output_lock
from ..fit import Options, Problem, Shuffle, found_settings, operators, option, settings, train
from ..fit import checkpoint as checkpoints
from ..fit.checkpoint import Checkpoint
from ..grids import Grid
from ..images import Picture
from ..png import MAX_SIDE
from ..render.tiles import tiles
from ..siren import Siren
from ..tensorfile import TensorFile
from .described import check, fits
from .evaluate import tile_values

__all__ = ["Fit", "ImageFit", "Settings", "fit", "is_fitted", "load", "measure"]


@dataclass(frozen=True)
class Settings(settings.Settings):
    """How a picture is fitted.

    The defaults give the best PSNR per second of several batch sizes and rates on photographs of 512x512 pixels: small
    batches beat full pictures by far, and a rate of 1e-3 with them is already unsteady. They visit each pixel of such a
    picture 62 times. The paper's 50 dB take 10,000 full pictures, 160 times as much; more --steps give more quality.
    """

    steps: int = option(4000, "training steps", least=1)
    lr: float = option(7e-4, "highest learning rate of Adam")
    batch: int = option(4096, "pixels per step", least=1)


class ImageFit(Problem):
    """A picture by its pixels.

    Args:
        settings: How it is fitted.
        picture: The picture.
    """

    name = "image"
    data = "picture"
    merit = "PSNR"

    def __init__(self, settings: Settings, picture: Picture) -> None:
        super().__init__(settings)
        self.picture = picture
        self.grid = Grid.over(picture.pixels.shape[:2])
        self.sampler = Shuffle(self.grid.numel, settings.batch, seed=settings.seed)

    @property
    def features(self) -> tuple[int, int]:
        """Row and column to channels."""
        return 2, self.picture.pixels.shape[2]

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean squared error of a batch of pixels."""
        index = self.sampler(step)  # [batch]
        wanted = torch.from_numpy(self.picture.normalised(index.numpy()))  # [batch, channels]
        return operators(net).value_mse(net, self.grid.at(index), wanted)

    def identity(self) -> dict[str, Any]:
        """Size, depth and fingerprint of the picture."""
        height, width, channels = self.picture.pixels.shape
        image = {"width": width, "height": height, "channels": channels, "bits": self.picture.bits}
        return {
            "image": {**image, "sha256": self.picture.fingerprint()},
            "range": [-1.0, 1.0],
            "grid": "corner",
        }

    def measure(self, net: nn.Module) -> dict[str, float]:
        """PSNR of the whole picture in dB."""
        return {"PSNR": measure(net, self.picture)}

    def estimate(self, loss: float) -> float:
        """PSNR for samples in [-1, 1], twice as far apart as in [0, 1]."""
        return images.psnr(loss / 4)


class Fit(NamedTuple):
    """A fitted picture."""

    net: Siren
    psnr: float
    """In dB over the whole picture, prediction clipped to [0, 1]."""
    steps: int
    seconds: float
    """Spent training in this call."""
    exit_code: int
    """0, or 128 + the number of the signal that stopped the training."""


def fit(
    image: str | os.PathLike[str] | Picture,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    target: float | None = None,
    progress: bool = True,
    save_every: float = 30.0,
    compact: bool = False,
    log: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Fit:
    """Fit a SIREN to a picture.

    Ctrl-C or SIGTERM finish the step, save and return; the same call with `resume` goes on as if nothing had happened.

    Args:
        image: A file imageio reads, or a `Picture`.
        out: Checkpoint to write; None writes nothing.
        resume: Go on from `out` if it exists.
        overwrite: Whether an existing `out` may be replaced by a new fit.
        target: Stop when this PSNR in dB is reached.
        progress: Show progress on standard error.
        save_every: Seconds between checkpoints.
        compact: Leave out of the final file what only --resume needs: a third of the size.
        log: JSON lines with every step's loss, appended; see `fastsiren.fit.Log`.
        **settings: Fields of `Settings`; on resume those of the file hold unless given.

    Raises:
        InputError: Picture or checkpoint are missing or damaged, or do not belong together.
        UsageError: A setting makes no sense, or `out` or `log` is the picture itself.
        OutputError: `out` or `log` cannot be written; `NoSpaceError` when they do not fit.
        NonFiniteError: The loss became NaN or infinite; the last good state is saved.

    Example:
        >>> import numpy as np
        >>> ramp = Picture(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4)
        >>> fit(ramp, hidden=32, layers=1, steps=300, progress=False).psnr > 40
        True
    """
    _check_apart(image, out, log)
    given, found = Settings.of(settings), None
    with ExitStack() as stack:
        if out is not None:
            check_output(out, overwrite=overwrite or resume)
        picture = image if isinstance(image, Picture) else images.read(image)
        if out is not None:
            stack.enter_context(output_lock(out))
            if resume and os.path.exists(out):
                kept = load(out)
                found = TensorFile(kept.description, kept.state)
                given = found_settings(found, out, ImageFit, Settings, settings)
        problem = ImageFit(given, picture)
        options = Options(target=target, progress=progress, save_every=save_every, compact=compact, log=log)
        net = problem.siren()
        trained = train(problem, net, out=out, found=found, options=options)
        return Fit(net, trained.figures["PSNR"], trained.steps, trained.seconds, trained.exit_code)


def _check_apart(
    image: str | os.PathLike[str] | Picture, out: str | os.PathLike[str] | None, log: str | os.PathLike[str] | None
) -> None:
    """Refuse to write over what is read, or twice into one file."""
    for path, flag in ((out, "-o"), (log, "--log")):
        if path is not None and not isinstance(image, Picture):
            check_apart(path, image, kind="the picture", option=flag)
    if out is not None and log is not None:
        check_apart(log, out, kind="the checkpoint", option="--log")


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a fitted picture.

    Raises:
        InputError: The file is missing or damaged, or holds something else than a picture.
    """
    checkpoint = checkpoints.load(path)
    if checkpoint.description.get("problem") != "image":
        raise InputError(f"{path} holds a {checkpoint.description.get('problem')!r}, not an image")
    check(path, checkpoint, "picture", is_fitted)
    return checkpoint


def is_fitted(checkpoint: Checkpoint) -> bool:
    """Whether the description is what a fit writes; its values may raise what they like otherwise."""
    picture = checkpoint.description["image"]
    numbers = [picture[name] for name in ("width", "height", "channels", "bits")]
    if not all(type(number) is int for number in numbers):
        return False
    width, height, channels, bits = numbers
    return (
        fits(checkpoint, Settings, "PSNR", 2, channels)
        and 1 <= width <= MAX_SIDE
        and 1 <= height <= MAX_SIDE
        and channels <= 4
        and bits in (8, 16)
        and isinstance(picture["sha256"], str)
    )


def measure(net: nn.Module, picture: Picture) -> float:
    """PSNR of the whole picture in dB: data range 1, prediction clipped."""
    grid = Grid.over(picture.pixels.shape[:2])
    values, total = tile_values(net, grid), 0.0
    for part in tiles(grid.shape, 65536):
        wanted = torch.from_numpy(picture.normalised(slice(part.begin, part.end)))
        error = values(part).cpu().clamp(-1, 1).double() - wanted.double()
        # Samples in [-1, 1] are twice as far apart as in [0, 1].
        total += float((error / 2).square().sum())
    return images.psnr(total / picture.pixels.size) if math.isfinite(total) else -math.inf
