"""The experiment "helmholtz-inverse": a medium found from the waves that a few receivers record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..fit import decay, option
from ..fit import settings as base
from ..tensorfile import Array
from .experiment import Experiment, Solution, solve
from .helmholtz import direct_points, edge
from .helmholtz_direct import WIDTH, HelmholtzGrid, gaussian, need_scipy
from .helmholtz_residual import gaussians, near_sources, residual
from .pictures import curves, grey, save, sheet, signed
from .plain_networks import plain_networks

__all__ = ["HelmholtzInverse", "Settings", "fit"]

# Points along each axis of the physical part at which media are compared.
_SHOWN = 101
# Sources stand on a line at the left, receivers on a square around the middle.
_SOURCES_AT, _SOURCES_REACH, _RECEIVERS_AT = -0.35, 0.3, 0.42
# As the official code has it: squared slowness stays above.
_LEAST = 1e-3


@dataclass(frozen=True)
class Settings(base.Settings):
    """Settings of "helmholtz-inverse"; see `fastsiren.fit.Settings`."""

    steps: int = option(124, "training steps, rounds of L-BFGS included", least=1)
    hidden: int = option(80, "width of the sine layers", least=1, fixed=True)
    omega: float = option(16.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(3000, "points per step of Adam", least=1)
    rounds: int = option(24, "the last steps: rounds of 100 iterations of L-BFGS", least=0)
    pretrain: int = option(8, "of the rounds, the first ones, with slowness 1", least=0)
    round_batch: int = option(8000, "points per round", least=1)
    k: float = option(12.0, "wavenumber where the medium is 1; the paper has 20", fixed=True)
    sigma: float = option(0.03, "standard deviation of the sources; the paper has 0.01", fixed=True)
    sources: int = option(5, "points that send", least=1, fixed=True)
    receivers: int = option(30, "points that record every source", least=1, fixed=True)
    slowness: float = option(0.5, "squared slowness of the cylinder that is looked for", fixed=True)
    radius: float = option(0.15, "of the cylinder", fixed=True)
    edge: float = option(0.05, "width over which the cylinder ends", least=0, fixed=True)
    near: float = option(0.3, "part of the points that is near the sources", least=0)
    data_weight: float = option(10.0, "of what receivers miss, beside the equation")


class HelmholtzInverse(Experiment):
    """Full-waveform inversion: the fields of all sources and the medium are one network (Sitzmann et al. 2020, 4.3)."""

    name = "helmholtz-inverse"
    data = "medium"
    merit = "velocity error"
    higher_is_better = False
    options = Settings
    quick = Settings(
        steps=118,
        hidden=40,
        omega=10.0,
        batch=800,
        rounds=18,
        pretrain=2,
        round_batch=2000,
        k=8.0,
        sigma=0.05,
        sources=3,
    )
    bound = 0.08
    measured = 40
    lbfgs_round = 100

    def __init__(self, settings: Settings) -> None:
        need_scipy("the experiment helmholtz-inverse")
        super().__init__(settings)
        s = self.settings
        self._rate = decay(s.lr, max(1, s.steps - s.rounds), warmup=20)
        heights = np.linspace(-_SOURCES_REACH, _SOURCES_REACH, s.sources) if s.sources > 1 else np.zeros(1)
        self.centres = [(_SOURCES_AT, float(y)) for y in heights]
        self.receivers = _around(s.receivers) * _RECEIVERS_AT
        self.axis = np.linspace(-(1 - WIDTH), 1 - WIDTH, _SHOWN)
        self.medium = self._true(self.axis[:, None], self.axis[None, :])
        grid = HelmholtzGrid(s.k, self._true, direct_points(s.k, s.sigma))
        x, y = grid.axis[:, None], grid.axis[None, :]
        self.fields = [grid.solve(gaussian(x, y, centre, s.sigma)) for centre in self.centres]
        recorded = np.stack([grid.at(field, self.receivers) for field in self.fields], -1)
        self.recorded = torch.from_numpy(recorded.astype(np.complex64))  # [receivers, sources]
        self.grid = grid

    @property
    def features(self) -> tuple[int, int]:
        """x and y; two parts of the field of each source, and the medium."""
        return 2, 2 * len(self.centres) + 1

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then networks with other activations."""
        s = self.settings
        inputs, outputs = self.features
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=max(8, int(4 * s.k)), seed=s.seed)
        return {self.ours: self.network, **others}

    def lbfgs_from(self) -> int:
        """The rounds come last."""
        return max(0, int(self.settings.steps) - int(self.settings.rounds))

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The equation of every source and, once the fields are there, what the receivers recorded."""
        s = self.settings
        count = s.batch if step < self.lbfgs_from() else s.round_batch
        x, weight = near_sources(count, round(count * s.near), self.centres, s.sigma, seed=s.seed, step=step)
        source = gaussians(x, self.centres, s.sigma) + 0j
        pretraining = step < self.lbfgs_from() + s.pretrain
        medium = torch.ones(()) if pretraining else lambda found: slowness(x, found["m"])
        wrong, found = residual(net, x, s.k, source, medium, extra=["m"])
        equation = (torch.view_as_real(wrong).square().sum(-1) * weight).mean() * (16 * np.pi * s.sigma**2)
        if pretraining:
            return equation + found["m"].square().mean()
        return equation + s.data_weight * self._missed(net)

    def _missed(self, net: nn.Module) -> Tensor:
        """Squares of what the receivers miss, as a part of what they recorded."""
        at = torch.from_numpy(self.receivers).to(next(net.parameters()))
        parts = net(at)[:, :-1].unflatten(-1, (-1, 2))
        return (parts - torch.view_as_real(self.recorded)).square().sum() / self.recorded.abs().square().sum()

    def _true(self, x: Array, y: Array) -> Array:
        s = self.settings
        return 1 - (1 - s.slowness) * edge(s.radius - np.hypot(x, y), s.edge)

    @torch.no_grad()
    def found(self, net: nn.Module) -> tuple[Array, Array]:
        """Squared slowness [n, n] and the fields [n, n, sources] in the physical part, rows being x."""
        axis = torch.from_numpy(self.axis).to(next(net.parameters()))
        x = torch.cartesian_prod(axis, axis)
        y = net(x)
        fields = torch.view_as_complex(y[:, :-1].unflatten(-1, (-1, 2)).contiguous())
        shape = (_SHOWN, _SHOWN)
        return slowness(x, y[:, -1:]).double().numpy().reshape(shape), fields.numpy().reshape(*shape, -1)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Relative error of the velocity over the physical part, and as a part of what there is to find; recordings."""
        velocity, true = (1 / np.sqrt(medium) for medium in (self.found(net)[0], self.medium))
        wrong = float(np.linalg.norm(velocity - true))
        with torch.no_grad():
            missed = float(self._missed(net).sqrt())
        return {
            self.merit: wrong / float(np.linalg.norm(true)),
            "of the change": wrong / max(float(np.linalg.norm(true - 1)), 1e-30),
            "of the recordings": missed,
        }

    def write(self, solution: Solution, home: Path) -> None:
        """Velocities, and the field of the middle source, on one sheet; the error over the steps."""
        middle = len(self.centres) // 2
        points = np.stack(np.meshgrid(self.axis, self.axis, indexing="ij"), -1)
        field = self.grid.at(self.fields[middle], points.reshape(-1, 2)).reshape(_SHOWN, _SHOWN)
        scale = 1.7 * float(np.abs(field).mean())
        cells = [
            ("velocity, sources, receivers", self._velocity(self.medium, marks=True)),
            ("field of a source", signed(field.real.T, scale)),
        ]
        for label, each in solution.trained.items():
            medium, fields = self.found(each.net)
            cells.append((f"{label}, error {100 * each.figures[self.merit]:.1f} %", self._velocity(medium)))
            cells.append((f"{label}, field of that source", signed(fields[..., middle].real.T, scale)))
        save(sheet(cells, columns=2), home / "pictures.png")
        save(curves(solution.over_steps(self.merit), x="step", y=self.merit), home / "error.png")

    def _velocity(self, medium: Array, *, marks: bool = False) -> Image.Image:
        """A medium as grey levels; sources and receivers as dots."""
        fastest = max(1.0, self.settings.slowness**-0.5)
        made = grey(1 / np.sqrt(medium.T), 0.9, 1 + 1.3 * (fastest - 1) + 0.1).convert("RGB").resize((480, 480))
        for places, colour in ((self.centres, (255, 160, 48)), (self.receivers, (70, 150, 255))) if marks else ():
            for x, y in places:
                at = [479 * (each + 1 - WIDTH) / (2 * (1 - WIDTH)) for each in (x, y)]
                ImageDraw.Draw(made).ellipse((at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5), fill=colour)
        return made


def slowness(x: Tensor, output: Tensor) -> Tensor:
    """m from the last output of a network: 1 in the absorbing layer."""
    inside = (x.abs() <= 1 - WIDTH).all(-1, keepdim=True)
    return torch.where(inside, (1 + output).clamp(min=_LEAST), 1.0)


def _around(count: int) -> Array:  # [count, 2]
    """Points at equal distances around the square [-1, 1]²."""
    along = 8 * np.arange(count) / count
    corner, rest = (along // 2).astype(int), along % 2 - 1
    sides = {0: (rest, -1 + 0 * rest), 1: (1 + 0 * rest, rest), 2: (-rest, 1 + 0 * rest), 3: (-1 + 0 * rest, -rest)}
    return np.stack([np.choose(corner, [sides[i][axis] for i in range(4)]) for axis in (0, 1)], -1)


def fit(**options: Any) -> Solution:
    """Find a medium from what receivers around it record.

    Args:
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        UsageError: A setting makes no sense, or scipy is not installed.

    Example:
        >>> from fastsiren.fit import Options
        >>> small = {"steps": 3, "rounds": 2, "pretrain": 1, "hidden": 8, "layers": 1, "batch": 50, "round_batch": 50}
        >>> solution = fit(options=Options(progress=False), k=4.0, sigma=0.1, **small)
        >>> solution.experiment.found(solution.net)[0].shape
        (101, 101)
    """
    return solve(HelmholtzInverse, **options)
