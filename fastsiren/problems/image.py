"""A picture as a function of its coordinates: fit it, measure it, load it again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import images, losses
from ..faults import Fault, InputError, UsageError
from ..files import check_apart, check_output, output_lock
from ..fit import Log, Shuffle, Step, Trainer, decay, run
from ..fit import checkpoint as checkpoints
from ..fit.checkpoint import Checkpoint
from ..grids import Grid
from ..images import Picture
from ..png import MAX_SIDE
from ..progress import Progress
from ..render.decode import Decoder
from ..render.tiles import tiles
from ..siren import Siren
from ..stopping import Stop, stop_on_signals

__all__ = ["Fit", "Settings", "fit", "load", "measure"]

_STRUCTURE = ("hidden", "layers", "omega")


@dataclass(frozen=True)
class Settings:
    """How a picture is fitted.

    The defaults give the best PSNR per second of several batch sizes and rates on photographs of 512x512 pixels: small
    batches beat full pictures by far, and a rate of 1e-3 with them is already unsteady. They visit each pixel of such a
    picture 62 times. The paper's 50 dB take 10,000 full pictures, 160 times as much; more --steps give more quality.

    Args:
        steps: Training steps.
        hidden: Width of the sine layers.
        layers: Hidden layers behind the first.
        omega: Frequency factor of every sine layer.
        lr: Highest learning rate.
        batch: Pixels per step.
        seed: Of the initial weights and the order of the pixels.
    """

    steps: int = 4000
    hidden: int = 256
    layers: int = 3
    omega: float = 30.0
    lr: float = 7e-4
    batch: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("hidden", 1), ("layers", 0), ("batch", 1), ("seed", 0)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, Integral) or given < least:
                raise UsageError(f"--{name} must be a whole number of {least} or more; got {given}")
            object.__setattr__(self, name, int(given))
        for name in ("omega", "lr"):
            given = getattr(self, name)
            value = float(given) if not isinstance(given, bool) and isinstance(given, Real) else math.nan
            if not 0 < value < math.inf:
                raise UsageError(f"--{name} must be a positive number; got {given}")
            object.__setattr__(self, name, value)


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
    unknown = sorted(set(settings) - {field.name for field in fields(Settings)})
    if unknown:
        raise TypeError(f"fit: unknown setting {unknown[0]!r}; known are {', '.join(f.name for f in fields(Settings))}")
    _check_apart(image, out, log)
    with ExitStack() as stack:
        if out is not None:
            check_output(out, overwrite=overwrite or resume)
        picture = image if isinstance(image, Picture) else images.read(image)
        if out is not None:
            stack.enter_context(output_lock(out))
        session = _Session(picture, out, resume, settings, target, save_every, compact)
        session.log = None if log is None else stack.enter_context(closing(Log(log)))
        stop = stack.enter_context(stop_on_signals())
        return session.train(stop, progress)


def _check_apart(
    image: str | os.PathLike[str] | Picture, out: str | os.PathLike[str] | None, log: str | os.PathLike[str] | None
) -> None:
    """Refuse to write over what is read, or twice into one file."""
    for path, option in ((out, "-o"), (log, "--log")):
        if path is not None and not isinstance(image, Picture):
            check_apart(path, image, kind="the picture", option=option)
    if out is not None and log is not None:
        check_apart(log, out, kind="the checkpoint", option="--log")


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a fitted picture.

    Raises:
        InputError: The file is missing or damaged, or holds something else than a picture.
    """
    checkpoint = checkpoints.load(path)
    check(path, checkpoint)
    return checkpoint


def check(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that `fit` did not write.

    Raises:
        InputError: It holds something else than a picture, or its description does not fit its network.
    """
    if checkpoint.description.get("problem") != "image":
        raise InputError(f"{path} holds a {checkpoint.description.get('problem')!r}, not an image")
    try:
        fitted = _is_fitted(checkpoint)
    except (KeyError, TypeError, ValueError, OverflowError):
        fitted = False
    if not fitted:
        raise InputError(f"{path} describes a picture that its network does not fit; fit again")


def _is_fitted(checkpoint: Checkpoint) -> bool:
    """Whether the description is the one of `_Session._save`; its values may raise what they like otherwise."""
    net, description, state = checkpoint
    settings, picture, step = Settings(**description["settings"]), description["image"], description["step"]
    numbers = [*(picture[name] for name in ("width", "height", "channels", "bits")), step]
    if not all(type(number) is int for number in numbers) or not isinstance(description["psnr"], float | None):
        return False
    width, height, channels, bits, _ = numbers
    sizes = (net.in_features, net.hidden_features, net.hidden_layers, net.out_features)
    return (
        sizes == (2, settings.hidden, settings.layers, channels)
        and net.siren_parameters().weights[0].dtype == torch.float32
        and 1 <= width <= MAX_SIDE
        and 1 <= height <= MAX_SIDE
        and channels <= 4
        and bits in (8, 16)
        and isinstance(picture["sha256"], str)
        and 0 <= step == (state["step"] if state else step)
    )


@torch.no_grad()
def measure(net: Siren, picture: Picture) -> float:
    """PSNR of the whole picture in dB: data range 1, prediction clipped."""
    grid = Grid.over(picture.pixels.shape[:2])
    decoder, total = Decoder(net, grid, "value"), 0.0
    for part in tiles(grid.shape, 65536):
        wanted = torch.from_numpy(picture.normalised(slice(part.begin, part.end)))
        error = decoder(part).cpu().clamp(-1, 1).double() - wanted.double()
        # Samples in [-1, 1] are twice as far apart as in [0, 1].
        total += float((error / 2).square().sum())
    return images.psnr(total / picture.pixels.size) if math.isfinite(total) else -math.inf


class _Session:
    """One call of `fit`: network, trainer, and what is shown and saved along the way."""

    log: Log | None = None

    def __init__(
        self,
        picture: Picture,
        out: str | os.PathLike[str] | None,
        resume: bool,
        settings: dict[str, Any],
        target: float | None,
        save_every: float,
        compact: bool,
    ) -> None:
        self.picture, self.out, self.target, self.save_every, self.compact = picture, out, target, save_every, compact
        found = load(out) if resume and out is not None and os.path.exists(out) else None
        self.settings = Settings(**settings) if found is None else self._resumed(found, settings)
        self.net = self._new_net() if found is None else found.net
        rate = decay(self.settings.lr, self.settings.steps, warmup=min(100, self.settings.steps // 10))
        self.trainer = Trainer(self.net, self._loss(), rate=rate)
        if found is not None:
            self.trainer.load(found.state)
        self.smooth, self.psnr = math.nan, math.nan

    def _resumed(self, found: Checkpoint, given: dict[str, Any]) -> Settings:
        """Settings of the file with those given now; refused when file, picture and settings do not belong together."""
        if found.description["image"]["sha256"] != self.picture.fingerprint():
            raise InputError(
                f"{self.out} was fitted to another picture; give that one, or use --overwrite to start anew"
            )
        if not found.state:
            raise InputError(f"{self.out} was saved with --compact and cannot go on; use --overwrite to start anew")
        kept = Settings(**found.description["settings"])
        for name in _STRUCTURE:
            if given.get(name, getattr(kept, name)) != getattr(kept, name):
                raise UsageError(
                    f"--{name} {given[name]} does not fit {self.out}, which has {getattr(kept, name)}; "
                    "leave it out, or use --overwrite to start anew"
                )
        return replace(kept, **given)

    def _new_net(self) -> Siren:
        s, channels = self.settings, self.picture.pixels.shape[2]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            return Siren(2, s.hidden, s.layers, channels, first_omega_0=s.omega, hidden_omega_0=s.omega)

    def _loss(self) -> Callable[[int], Tensor]:
        grid = Grid.over(self.picture.pixels.shape[:2])
        sampler = Shuffle(grid.numel, self.settings.batch, seed=self.settings.seed)

        def loss(step: int) -> Tensor:
            index = sampler(step)  # [batch]
            wanted = torch.from_numpy(self.picture.normalised(index.numpy()))  # [batch, channels]
            return losses.value_mse(self.net, grid.at(index), wanted)

        return loss

    def train(self, stop: Stop, progress: bool) -> Fit:
        steps, first = self.settings.steps, self.trainer.step
        begun = self.saved = time.monotonic()
        try:
            with Progress("fit", steps, done=first, enabled=progress) as shown:
                run(self.trainer, steps, lambda step: self._after(step, shown) or bool(stop))
        except Fault:
            # What was trained so far is worth keeping, whatever went wrong.
            self._save(compact=False)
            raise
        seconds = time.monotonic() - begun
        self.psnr = measure(self.net, self.picture)
        self._save(compact=self.compact and not stop)
        return Fit(self.net, self.psnr, self.trainer.step, seconds, stop.exit_code)

    def _after(self, step: Step, shown: Progress) -> bool:
        """Show, log and save after a step; True when the target is reached."""
        # The loss of one batch is noisy: show a running mean over about 20 steps.
        self.smooth = step.loss if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * step.loss
        estimate = images.psnr(self.smooth / 4)
        shown.update(step.number, loss=f"{self.smooth:.3e}", PSNR=f"{estimate:.2f} dB")
        if self.log is not None:
            self.log.write(step)
        if time.monotonic() - self.saved >= self.save_every:
            self._save(compact=False)
        return self.target is not None and step.number % 50 == 0 and self._reached(estimate)

    def _reached(self, estimate: float) -> bool:
        """Whether the exact PSNR is at the target; measured only when the estimate says it may be."""
        return self.target is not None and estimate >= self.target and measure(self.net, self.picture) >= self.target

    def _save(self, *, compact: bool) -> None:
        if self.out is None:
            return
        height, width, channels = self.picture.pixels.shape
        image = {"width": width, "height": height, "channels": channels, "bits": self.picture.bits}
        description = {
            "problem": "image",
            "image": {**image, "sha256": self.picture.fingerprint()},
            "range": [-1.0, 1.0],
            "grid": "corner",
            "settings": asdict(self.settings),
            "step": self.trainer.step,
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
        }
        checkpoints.save(self.out, self.net, description, trainer=None if compact else self.trainer)
        self.saved = time.monotonic()
