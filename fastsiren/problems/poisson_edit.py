"""The experiment "poisson-edit": a part of one picture moved seamlessly into another, by its gradient."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from .. import images
from ..faults import InputError, UsageError
from ..fit import Shuffle, operators, option, settings
from ..images import Picture, psnr
from . import cosines
from .data import photograph, samples
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source, solve
from .pictures import curves, grey, save, sheet
from .plain_networks import plain_networks

__all__ = ["PoissonEdit", "Settings", "cloned", "fit"]

# Pixels of the target around the source that the network sees.
_MARGIN = 8
# The width of the seam, as a part of the ellipse's radius.
_SOFT = 0.15
Given = str | os.PathLike[str] | Picture | None


@dataclass(frozen=True)
class Settings(settings.Settings):
    """Where the source goes, and how the result is found."""

    row: float = option(0.365, "middle of the source in the target, as a part of its height", least=0, fixed=True)
    column: float = option(0.48, "middle of the source in the target, as a part of its width", least=0, fixed=True)
    mix: bool = option(False, "keep the stronger of both gradients inside the mask", fixed=True)
    contrast: float = option(0.1, "the network holds the picture, in [-1, 1], times this", fixed=True)
    anchor: float = option(10.0, "weight of the target's values outside the mask")
    steps: int = option(2000, "training steps", least=1)
    hidden: int = option(128, "width of the sine layers", least=1, fixed=True)
    omega: float = option(10.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(2048, "pixels per step", least=1)


class PoissonEdit(Experiment):
    """Seamless cloning (Pérez, Gangnet and Blake 2003), every colour at once.

    Args:
        settings: Where the source goes, and how the result is found.
        target: A file imageio reads or a `Picture`, as the next two; None takes the coffee of scikit-image.
        source: None takes an eye of the cat of scikit-image.
        mask: White where the source's gradient counts, as large as the source; None takes an ellipse with soft edges.
    """

    name = "poisson-edit"
    data = "set of pictures"
    merit = "PSNR"
    options = Settings
    quick = Settings(hidden=64, steps=1200, batch=1024)
    bound = 28.0
    measured = 12
    sources = (
        Source("target", "picture to edit (default: the coffee of scikit-image)"),
        Source("source", "picture to take a part of (default: an eye of the cat of scikit-image)"),
        Source("mask", "which part of it: white, as large as the source (default: an ellipse)"),
    )

    def __init__(self, settings: Settings, target: Given = None, source: Given = None, mask: Given = None) -> None:
        super().__init__(settings)
        pictures = [_read(target, _coffee), _read(source, _eye), None if mask is None else _read(mask, _eye)]
        self._fingerprints = [each.fingerprint() for each in pictures if each is not None]
        self.target, self.source = _same_channels(*(samples(each) for each in pictures[:2] if each is not None))
        self.mask = _ellipse(*self.source.shape[:2]) if pictures[2] is None else _checked(pictures[2], self.source)
        self._place()
        self.grid = cosines.square_grid(*self.inside.shape)
        self.reference = cloned(self.before, self.pasted, self.inside, mix=settings.mix)
        self._targets = settings.contrast * self._guidance().float().flatten(0, 1)  # [N, C, 2]
        self._unit = 1 / max(float(self._targets.square().mean()), 1e-30)
        self._values = settings.contrast * self.before.float().flatten(0, 1)  # [N, C]
        self._anchors = (self.inside.flatten() == 0).nonzero()[:, 0]  # [A]
        self._pixels = Shuffle(self.grid.numel, settings.batch, seed=settings.seed)
        self._fixed = Shuffle(len(self._anchors), settings.batch, seed=settings.seed)

    def _place(self) -> None:
        """Cut what the network sees out of the target, and lay the source and its mask over it."""
        s = self.settings
        spans = []
        for part, size, own in zip((s.row, s.column), self.target.shape, self.source.shape, strict=False):
            first = round(part * size - own / 2)
            low, high = max(0, first - _MARGIN), min(size, first + own + _MARGIN)
            # In the target, in what is cut out of it, and in the source.
            begin, end = max(first, 0), min(first + own, size)
            spans.append((slice(low, high), slice(begin - low, end - low), slice(begin - first, end - first)))
        self.region, there, taken = zip(*spans, strict=True)
        self.before = self.target[self.region]  # [H, W, C]
        self.pasted = self.before.clone()
        self.inside = torch.zeros(self.before.shape[:2], dtype=torch.float64)  # [H, W]
        self.slopes = torch.zeros(*self.before.shape, 2, dtype=torch.float64)  # [H, W, C, 2], of the source
        if self.pasted[there].numel():
            self.pasted[there] = self.source[taken]
            self.inside[there] = self.mask[taken]
            # Of the whole source: cut off at the border of the target it would be another one.
            self.slopes[there] = cosines.gradient(self.source, 1.0)[taken]
        if not bool((self.inside > 0).any()):
            raise UsageError(f"--row {s.row:g} --column {s.column:g}: the mask lies outside the target")
        if bool((self.inside > 0).all()):
            raise UsageError("mask: it covers the whole target, which must be known somewhere; use a smaller one")

    def _guidance(self) -> Tensor:  # [H, W, C, 2]
        """The gradient to have: that of the source inside the mask, that of the target outside."""
        step = self.grid.step[0]
        theirs, ours = cosines.gradient(self.before, step), self.slopes / step
        if self.settings.mix:
            ours = torch.where(ours.norm(dim=-1, keepdim=True) > theirs.norm(dim=-1, keepdim=True), ours, theirs)
        return torch.lerp(theirs, ours, self.inside[..., None, None])

    @property
    def features(self) -> tuple[int, int]:
        """Row and column to channels."""
        return 2, self.before.shape[2]

    def loss(self, net: nn.Module, step: int) -> Iterable[Tensor]:
        """Error of the gradient, in units of its mean square, and of values outside the mask; mean squares."""
        index, s = self._pixels(step), self.settings
        yield self._unit * operators(net).gradient_mse(net, self.grid.at(index), self._targets[index])
        index = self._anchors[self._fixed(step)]
        yield s.anchor / s.contrast**2 * operators(net).value_mse(net, self.grid.at(index), self._values[index])

    def identity(self) -> dict[str, Any]:
        """Fingerprints of the pictures."""
        return {"sha256": self._fingerprints}

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding, tanh and radial basis functions."""
        s, (inputs, outputs) = self.settings, self.features
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=max(self.grid.shape), seed=s.seed)
        return {self.ours: self.network, **others}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """PSNR in dB inside the mask against a direct solution; error of values just outside it, in 1/255, RMS."""
        values, inside = on_grid(net, self.grid).double() / self.settings.contrast, self.inside > 0
        error = (values.clamp(-1, 1) - self.reference.clamp(-1, 1))[inside] / 2
        near = torch.nn.functional.max_pool2d(inside[None].double(), 3, stride=1, padding=1)[0] > 0
        seam = (values - self.before)[near & ~inside] * 255 / 2
        return {"PSNR": psnr(float(error.square().mean())), "seam": float(seam.square().mean().sqrt())}

    def edited(self, net: nn.Module) -> Tensor:  # [H, W, C]
        """The whole target in [-1, 1] with the network's values inside the mask."""
        return self._composed(on_grid(net, self.grid).double() / self.settings.contrast)

    def _composed(self, values: Tensor) -> Tensor:
        made = self.target.clone()
        made[self.region] = torch.where(self.inside[..., None] > 0, values, self.before)
        return made

    def write(self, solution: Solution, home: Path) -> None:
        """The edited target, a sheet of what it is made of and the direct solution, and the figures over the steps."""
        mask = self.mask[..., None].numpy()
        cells = [
            ("target", _shown(self.target)),
            ("source", _shown(self.source)),
            ("mask", grey(mask, 0, 1)),
            ("cut and paste", _shown(self._composed(self.pasted))),
            ("direct solution", _shown(self._composed(self.reference))),
        ]
        for label, each in solution.trained.items():
            cells.append((f"{label}, {each.figures['PSNR']:.1f} dB", _shown(self.edited(each.net))))
        save(sheet(cells), home / "pictures.png")
        save(_shown(self.edited(solution.net)), home / "edited.png")
        for figure in solution.figures:
            save(curves(solution.over_steps(figure), x="step", y=figure), home / f"{figure.lower()}.png")


def fit(target: Given = None, source: Given = None, mask: Given = None, **options: Any) -> Solution:
    """Move a part of one picture into another; see `PoissonEdit`, and `solve` for the options."""
    return solve(PoissonEdit, target, source, mask, **options)


def cloned(target: Tensor, source: Tensor, mask: Tensor, *, mix: bool = False) -> Tensor:  # [H, W, C]
    """The solution of the same problem in differences between neighbouring pixels, by conjugate gradients.

    Args:
        target: [H, W, C].
        source: [H, W, C].
        mask: [H, W] in [0, 1]: how much the source's differences count; where it is 0 the target is kept.
        mix: Take the larger of both differences, pair by pair, in place of the source's.
    """
    wanted = []
    for axis, (a, b) in enumerate(zip(_differences(target), _differences(source), strict=True)):
        if mix:
            b = torch.where(b.abs() > a.abs(), b, a)
        share = (mask.narrow(axis, 1, mask.shape[axis] - 1) + mask.narrow(axis, 0, mask.shape[axis] - 1)) / 2
        wanted.append(torch.lerp(a, b, share[..., None]))
    free = (mask > 0)[..., None]
    found = target.clone()
    residual = free * (_transposed(wanted) - _transposed(_differences(found)))
    along, square = residual, residual.square().sum()
    limit = 1e-16 * square
    # In exact arithmetic it ends after as many turns as there are unknowns.
    for _ in range(int(free.sum()) + 1):
        if square <= limit:
            break
        image = free * _transposed(_differences(along))
        rate = square / (along * image).sum()
        found, residual = found + rate * along, residual - rate * image
        before, square = square, residual.square().sum()
        along = residual + square / before * along
    return found


def _differences(values: Tensor) -> list[Tensor]:
    return [values.diff(dim=axis) for axis in range(2)]


def _transposed(differences: list[Tensor]) -> Tensor:
    """The transpose of `_differences`: minus the divergence."""
    down, across = differences
    pad = torch.nn.functional.pad
    return -(pad(down, (0, 0, 0, 0, 1, 1)).diff(dim=0) + pad(across, (0, 0, 1, 1)).diff(dim=1))


def _read(given: Given, default: Callable[[], Picture]) -> Picture:
    if given is None:
        return default()
    return given if isinstance(given, Picture) else images.read(given)


def _coffee() -> Picture:
    return images.read(photograph("coffee.png"))


def _eye() -> Picture:
    return Picture(images.read(photograph("chelsea.png")).pixels[72:162, 122:226].copy())


def _same_channels(*pictures: Tensor) -> list[Tensor]:
    most = max(each.shape[2] for each in pictures)
    return [each.expand(*each.shape[:2], most) for each in pictures]


def _ellipse(height: int, width: int) -> Tensor:  # [H, W]
    """1 in the middle, falling to 0 at the borders."""
    rows, columns = ((torch.arange(n, dtype=torch.float64) * 2 + 1 - n) / n for n in (height, width))
    radius = (rows[:, None].square() + columns.square()).sqrt()
    return ((1 - radius) / _SOFT).clamp(0, 1)


def _checked(mask: Picture, source: Tensor) -> Tensor:  # [H, W]
    values = samples(mask).mean(-1) / 2 + 0.5
    if values.shape != source.shape[:2]:
        (height, width), (rows, columns) = values.shape, source.shape[:2]
        raise InputError(f"mask: it has {width}x{height} pixels, the source {columns}x{rows}; give it the same size")
    return values


def _shown(values: Tensor) -> Image.Image:
    return grey(values.numpy() / 2 + 0.5, 0, 1)
