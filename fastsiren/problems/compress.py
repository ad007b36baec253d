"""The experiment "compress": a photograph as a small network in a file of a few kilobytes, beside JPEG."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import images, sirenfile
from ..faults import UsageError
from ..files import atomic_output, check_apart, check_output, output_lock
from ..fit import Options, Shuffle, operators, option, settings
from ..fit.sampler import generator
from ..images import Picture, psnr
from ..render.picture import ValuePainter, quantise
from ..siren import Siren
from ..sirenfile import SirenFile, pixel_grid
from ..stopping import Stop
from ..tensorfile import Array
from .data import photograph, scaled
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source, solve
from .metrics import picture_figures
from .pictures import curves, grey, save, sheet
from .plain_networks import plain_networks
from .rounding import Rounded, curvatures, exponents, finish

__all__ = ["Compress", "Compressed", "Settings", "compress", "decompress", "fit", "jpegs"]

# COIN keeps its networks in half precision.
HALVES = 16
_RATES = (3.0, 4.0, 5.0, 6.0, 8.0)
_PROBED = 16384
# Of the rate of the training before: faster ones undo what that found.
_FINISH_LR = 0.3


@dataclass(frozen=True)
class Settings(settings.Settings):
    """How a photograph is compressed.

    Width and depth are those of COIN's third network. A rate of 2e-3 is a little better with them, and unsteady with
    wider ones.
    """

    bits: float = option(5.0, "mean bits per parameter; 16 keeps halves, as COIN does", least=1)
    finish: int = option(1000, "steps in which parameters are rounded, after the others", least=0)
    side: int = option(768, "pixels of the longer side, to which a larger picture is reduced", least=8, fixed=True)
    steps: int = option(12000, "training steps", least=1)
    hidden: int = option(28, "width of the sine layers", least=1, fixed=True)
    layers: int = option(9, "hidden layers behind the first", least=0, fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(16384, "pixels per step", least=1)


class Compress(Experiment):
    """A photograph as a network whose rounded parameters are the file (Dupont et al. 2021, "COIN").

    Args:
        settings: How it is compressed.
        picture: A file imageio reads or a `Picture`, without its alpha; None takes a photograph of scikit-image.
    """

    name = "compress"
    data = "picture"
    merit = "PSNR"
    options = Settings
    quick = Settings(side=96, bits=4.0, steps=1200, finish=400, hidden=20, layers=4, batch=4096, lr=2e-3)
    bound = 24.7
    published = "26.41 dB at 0.307 bits per pixel, the mean over the pictures of Kodak (COIN, 10 x 28 in halves)"
    sources = (Source("photo", "photograph to compress (default: the cup of coffee of scikit-image)"),)

    def __init__(self, settings: Settings, picture: str | os.PathLike[str] | Picture | None = None) -> None:
        super().__init__(settings)
        if settings.bits > HALVES:
            raise UsageError(f"--bits must be a number from 1 to {HALVES}; got {settings.bits:g}")
        if not isinstance(picture, Picture):
            picture = images.read(photograph("coffee.png") if picture is None else picture)
        self._fingerprint, self.depth = picture.fingerprint(), picture.bits
        self.picture = scaled(picture, settings.side)  # [H, W, C] in [-1, 1]
        large = self._too_large(settings.hidden)
        if large is not None:
            raise UsageError(
                f"--hidden {settings.hidden} and --layers {settings.layers} are too large for a file: {large}"
            )
        self.grid = pixel_grid(*self.picture.shape[:2])
        self.sampler = Shuffle(self.grid.numel, settings.batch, seed=settings.seed)
        self._targets = self.picture.float().flatten(0, 1)  # [H W, C]

    @property
    def features(self) -> tuple[int, int]:
        """Row and column to channels."""
        return 2, self.picture.shape[2]

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean squared error of a batch of pixels."""
        index = self.sampler(step)  # [batch]
        return operators(net).value_mse(net, self.grid.at(index), self._targets[index])

    def identity(self) -> dict[str, Any]:
        """The fingerprint of the picture."""
        return {"sha256": self._fingerprint}

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, a ReLU network of its size, and SIRENs with half and twice the parameters."""
        s = self.settings
        made: dict[str, Callable[[], nn.Module]] = {self.ours: self.network}
        made["relu"] = plain_networks(2, s.hidden, s.layers, self.features[1], resolution=1, seed=s.seed)["relu"]
        for width in (round(s.hidden / 2**0.5), round(s.hidden * 2**0.5)):
            if self._too_large(width) is None:
                made[f"sine_{width}"] = partial(self._of_width, width)
        return made

    def _too_large(self, width: int) -> str | None:
        return sirenfile.fault_of_size(width, self.settings.layers, self.features[1])

    def _of_width(self, width: int) -> Siren:
        s = self.settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            return Siren(2, width, s.layers, self.features[1], first_omega_0=s.omega, hidden_omega_0=s.omega)

    def finished(self, net: nn.Module, stop: Stop, *, progress: bool = False) -> Rounded:
        """The network with rounded parameters."""
        return self.rounded(net, self.settings.bits, stop=stop, progress=progress)

    def rounded(self, net: nn.Module, bits: float, *, stop: Stop | None = None, progress: bool = False) -> Rounded:
        """A trained network with its parameters rounded to so many bits on average.

        Args:
            net: The trained network; it stays as it is.
            bits: Per parameter; 16 makes halves.
            stop: Ends it early.
            progress: Show progress on standard error.
        """
        s, chosen = self.settings, None
        if bits < HALVES:
            index = torch.randperm(self.grid.numel, generator=generator(s.seed, 0))[:_PROBED]
            chosen = exponents(list(net.parameters()), curvatures(net, self.grid.at(index)), bits)
        return finish(
            net, chosen, self.loss, steps=s.finish, lr=_FINISH_LR * s.lr, seed=s.seed, stop=stop, progress=progress
        )

    def measure(self, net: nn.Module) -> dict[str, float]:
        """PSNR in dB and SSIM; of a rounded network also bits per pixel, and what JPEG does with no fewer bytes."""
        figures = picture_figures(self.shown(net), self.picture / 2 + 0.5)
        if not isinstance(net, Rounded):
            return figures
        bpp = self.bpp(net)
        return {**figures, "bpp": bpp, "jpeg_PSNR": self.jpeg_at(bpp).psnr}

    def estimate(self, loss: float) -> float:
        """PSNR before rounding, for samples in [-1, 1], twice as far apart as in [0, 1]."""
        return psnr(loss / 4)

    def shown(self, net: nn.Module) -> Tensor:  # [H, W, C]
        """The network's picture, in [0, 1] but for what is beyond."""
        return on_grid(net.net if isinstance(net, Rounded) else net, self.grid).double() / 2 + 0.5

    def bpp(self, net: Rounded) -> float:
        """Bits of the file, header and all, per pixel; for a network that has no file, of its code."""
        bits = 8 * len(sirenfile.encode(self.file(net))) if isinstance(net.net, Siren) else net.code_bits()
        return bits / self.grid.numel

    def file(self, net: Rounded) -> SirenFile:
        """What is written to a file."""
        if not isinstance(net.net, Siren):
            raise TypeError(f"net: got a rounded {type(net.net).__name__}, a file holds a Siren")
        height, width = self.grid.shape
        return SirenFile(net.net, height, width, self.depth, net.exponents)

    @cached_property
    def jpegs(self) -> list[Jpeg]:
        """The picture as JPEG."""
        return jpegs(_eight_bits(self.picture))

    def jpeg_at(self, bpp: float) -> Jpeg:
        """The smallest JPEG that is no smaller than this many bits per pixel; the largest if all are."""
        return next((each for each in self.jpegs if each.bpp >= bpp), self.jpegs[-1])

    def write(self, solution: Solution, home: Path) -> None:
        """The file; original, networks and JPEG side by side; and PSNR over bits per pixel."""
        net: Any = next(iter(solution.trained.values())).finished
        sirenfile.write(home / "photo.siren", self.file(net))
        save(grey(self.shown(net).numpy(), 0, 1), home / "decoded.png")
        save(sheet(self._cells(solution)), home / "pictures.png")
        rates = self.rates(solution)
        save(curves(rates, x="bits per pixel", y="PSNR in dB"), home / "rates.png")
        with atomic_output(home / "rates.json") as file:
            file.write(json.dumps(rates).encode() + b"\n")

    def _cells(self, solution: Solution) -> list[tuple[str, Image.Image]]:
        cells = [("original", grey(_eight_bits(self.picture), 0, 255))]
        for label, each in solution.trained.items():
            said = f"{label}, {each.figures['bpp']:.3f} bits per pixel, {each.figures['PSNR']:.1f} dB"
            cells.append((said, grey(self.shown(each.finished).numpy(), 0, 1)))
        found = self.jpeg_at(solution.figures["bpp"])
        said = f"JPEG, {found.bpp:.3f} bits per pixel, {found.psnr:.1f} dB"
        return [*cells[:2], (said, Image.open(io.BytesIO(found.data))), *cells[2:]]

    def rates(self, solution: Solution) -> dict[str, list[tuple[float, float]]]:
        """PSNR over bits per pixel of JPEG, and of every SIREN rounded to several numbers of bits."""
        lines = {}
        for label, each in solution.trained.items():
            if isinstance(each.net, Siren):
                made = [self.rounded(each.net, bits) for bits in _RATES]
                lines[label] = [(figures["bpp"], figures["PSNR"]) for figures in map(self.measure, made)]
        most = 1.5 * max(bpp for line in lines.values() for bpp, _ in line)
        return {**lines, "jpeg": [(each.bpp, each.psnr) for each in self.jpegs if each.bpp <= most]}


class Jpeg(NamedTuple):
    """A picture as JPEG."""

    data: bytes
    bpp: float
    """Bits per pixel, of all bytes."""
    psnr: float


def jpegs(pixels: Array) -> list[Jpeg]:
    """A picture at every quality of JPEG, the smallest first: progressive, with optimised tables.

    Args:
        pixels: uint8, [height, width, 1 or 3].
    """
    picture, found = grey(pixels, 0, 255), []
    for quality in range(1, 96):
        file = io.BytesIO()
        picture.save(file, format="jpeg", quality=quality, optimize=True, progressive=True)
        error = np.asarray(Image.open(file), np.float64).reshape(pixels.shape) - pixels
        data = file.getvalue()
        found.append(
            Jpeg(data, 8 * len(data) * pixels.shape[2] / pixels.size, psnr(float(np.mean((error / 255) ** 2))))
        )
    return sorted(found, key=lambda each: each.bpp)


def _eight_bits(picture: Tensor) -> Array:
    return quantise(picture.numpy() / 2 + 0.5, 8)


class Compressed(NamedTuple):
    """A compressed picture."""

    file: SirenFile
    psnr: float
    """In dB over the whole picture, decoded values clipped to [0, 1]."""
    bpp: float
    """Bits of the file per pixel."""


def fit(
    image: str | os.PathLike[str] | Picture | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Compressed:
    """Compress a picture.

    Args:
        image: A file imageio reads or a `Picture`; None takes a photograph of scikit-image.
        out: File to write, `.siren`; None writes nothing.
        overwrite: Whether an existing file may be replaced.
        progress: Show progress on standard error.
        **settings: Fields of `Settings`.

    Raises:
        InputError: The picture is missing or damaged.
        UsageError: A setting makes no sense, or `out` is the picture itself.
        OutputError: `out` cannot be written; `NoSpaceError` when it does not fit.
        NonFiniteError: The loss became NaN or infinite.
        KeyboardInterrupt: Ctrl-C or SIGTERM came before there was a file.

    Example:
        >>> import numpy as np
        >>> ramp = Picture(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4)
        >>> found = fit(ramp, hidden=16, layers=1, steps=300, finish=100, bits=6, progress=False)
        >>> found.psnr > 35, decompress(found.file).pixels.shape
        (True, (8, 8, 1))
    """
    if out is not None:
        check_output(out, overwrite=overwrite)
        if isinstance(image, (str, os.PathLike)):
            check_apart(out, image, kind="the picture")
    solution = solve(Compress, image, options=Options(progress=progress), **settings)
    if solution.exit_code:
        raise KeyboardInterrupt
    made: Any = next(iter(solution.trained.values())).finished
    experiment: Any = solution.experiment
    return _kept(experiment.file(made), solution.figures, out)


def compress(
    net: Siren,
    image: str | os.PathLike[str] | Picture,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Compressed:
    """Round a network that was trained on a picture already, at the coordinates of `pixel_grid`, samples in [-1, 1].

    Args:
        net: The network; it stays as it is.
        image: The picture, for the training that rounding takes.
        out: File to write, `.siren`; None writes nothing.
        overwrite: Whether an existing file may be replaced.
        progress: Show progress on standard error.
        **settings: Fields of `Settings`; bits, finish, lr, batch, side and seed count.

    Raises:
        InputError: The picture is missing or damaged.
        UsageError: A setting makes no sense.
        ValueError: The network does not map rows and columns to the channels of the picture, or no file can hold it.
        OutputError: `out` cannot be written; `NoSpaceError` when it does not fit.
    """
    if out is not None:
        check_output(out, overwrite=overwrite)
    experiment = Compress(Settings.of(settings), image)
    if (net.in_features, net.out_features) != experiment.features:
        raise ValueError(
            f"net: got {net.in_features} inputs and {net.out_features} outputs, expected {experiment.features}"
        )
    made = experiment.rounded(net, experiment.settings.bits, progress=progress)
    return _kept(experiment.file(made), experiment.measure(made), out)


def _kept(file: SirenFile, figures: dict[str, float], out: str | os.PathLike[str] | None) -> Compressed:
    if out is not None:
        with output_lock(out):
            sirenfile.write(out, file)
    return Compressed(file, figures["PSNR"], figures["bpp"])


def decompress(file: str | os.PathLike[str] | SirenFile, shape: tuple[int, int] | None = None) -> Picture:
    """The picture that a file holds.

    Args:
        file: Its path, or what `fastsiren.sirenfile.read` gave.
        shape: Rows and columns; default those of the original.

    Raises:
        InputError: The file is missing, truncated, damaged or of another kind.
    """
    content = file if isinstance(file, SirenFile) else sirenfile.read(file)
    values = on_grid(content.net, content.grid(shape)).numpy()
    return Picture(quantise(ValuePainter(values.shape[-1])(values), content.bits))
