"""The experiment "helmholtz": the wave field of a point source, with an absorbing layer around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..fit import decay, option
from ..fit import settings as base
from ..tensorfile import Array
from .animation import save_moving
from .experiment import Experiment, Solution, solve
from .helmholtz_direct import WIDTH, HelmholtzGrid, gaussian, need_scipy, point_source
from .helmholtz_residual import absorption, gaussians, near_sources, residual
from .pictures import curves, grey, save, sheet, signed
from .plain_networks import plain_networks

__all__ = ["Helmholtz", "Settings", "direct_points", "edge", "fit"]

# Points along each axis of the physical part at which the field is compared with the reference.
_SHOWN = 121
_FRAMES = 24
# Squared slowness inside, that of the paper: waves are twice as fast there.
_INSIDE = 0.25
# Below this the official code takes the source for zero.
_CUT = 1e-5


@dataclass(frozen=True)
class Settings(base.RoundSettings):
    """Settings of "helmholtz"; see `fastsiren.fit.Settings`."""

    steps: int = option(158, "training steps, rounds of L-BFGS included", least=1)
    hidden: int = option(80, "width of the sine layers", least=1, fixed=True)
    omega: float = option(24.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(3000, "points per step of Adam", least=1)
    rounds: int = option(8, "the last steps: rounds of 100 iterations of L-BFGS", least=0)
    round_batch: int = option(8000, "points per round", least=1)
    k: float = option(20.0, "wavenumber; the square is 2 wide, its physical part 1", fixed=True)
    sigma: float = option(0.03, "standard deviation of the source; the paper has 0.01", fixed=True)
    medium: str = option(
        "uniform", "where waves are twice as fast", choices=("uniform", "square", "circle"), fixed=True
    )
    edge: float = option(0.03, "width over which the medium changes; the paper has 0", least=0, fixed=True)
    loss: str = option("squares", "mean of squares, or the official sum of magnitudes", choices=("squares", "absolute"))
    near: float = option(0.2, "part of the points that is near the source; officially 0.002", least=0)


class Helmholtz(Experiment):
    """∂x(A ∂x u) + ∂y(B ∂y u) + C m k² u = f, u complex (Sitzmann et al. 2020, section 4.3).

    A, B and C make the outer half of the square [-1, 1]² absorb what comes from the inner half.
    """

    name = "helmholtz"
    data = "medium"
    merit = "relative error"
    higher_is_better = False
    options = Settings
    quick = Settings(steps=104, rounds=4, hidden=40, k=8.0, sigma=0.06, omega=10.0, batch=1000, round_batch=3000)
    bound = 0.03
    measured = 40
    lbfgs_round = 100

    def __init__(self, settings: Settings) -> None:
        need_scipy("the experiment helmholtz")
        super().__init__(settings)
        s = self.settings
        self._rate = decay(s.lr, max(1, s.adam_steps), warmup=20)
        self.centre = (0.0, 0.0) if s.medium == "uniform" else (-0.35, 0.0)
        self.axis = np.linspace(-(1 - WIDTH), 1 - WIDTH, _SHOWN)
        rows, columns = np.meshgrid(self.axis, self.axis, indexing="ij")
        self.points = torch.from_numpy(np.stack([rows, columns], -1).reshape(-1, 2)).float()
        self.reference = self._reference(rows, columns)

    @property
    def features(self) -> tuple[int, int]:
        """x and y; real and imaginary part."""
        return 2, 2

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then networks with other activations."""
        s = self.settings
        others = plain_networks(2, s.hidden, s.layers, 2, resolution=max(8, int(4 * s.k)), seed=s.seed)
        return {self.ours: self.network, **others}

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Residuals at points all over the square, and more of them near the source."""
        s = self.settings
        count = s.batch if step < s.adam_steps else s.round_batch
        near = min(count - 1, round(count * s.near))
        x, weight = near_sources(count, near, [self.centre], s.sigma, seed=s.seed, step=step)
        source = gaussians(x, [self.centre], s.sigma)
        found, _ = residual(net, x, s.k, source + 0j, self.slowness(x))
        if s.loss == "absolute":
            weight = torch.where(source > _CUT, count / 1e3, 1.0)
            return (torch.view_as_real(found * absorption(x)).abs().sum(-1) * weight).sum()
        # A part of what a network that is zero has.
        return (torch.view_as_real(found).square().sum(-1) * weight).mean() * (16 * np.pi * s.sigma**2)

    def slowness(self, x: Tensor) -> Tensor:  # [N, 2] -> [N, 1]
        """m at points."""
        return torch.from_numpy(self._medium(*x.double().numpy().T)).to(x.dtype).unsqueeze(-1)

    def _medium(self, x: Array, y: Array) -> Array:
        if self.settings.medium == "uniform":
            return np.ones(np.broadcast_shapes(np.shape(x), np.shape(y)))
        square = self.settings.medium == "square"
        depth = 0.3 - np.maximum(np.abs(x), np.abs(y)) if square else 0.1 - np.hypot(x, y)
        return 1 - (1 - _INSIDE) * edge(depth, self.settings.edge)

    def _reference(self, x: Array, y: Array) -> Array:
        s = self.settings
        if s.medium == "uniform":
            return point_source(s.k, s.sigma, np.hypot(x, y))
        grid = HelmholtzGrid(s.k, self._medium, direct_points(s.k, s.sigma))
        field = grid.solve(gaussian(grid.axis[:, None], grid.axis[None, :], self.centre, s.sigma))
        return grid.at(field, np.stack([x, y], -1).reshape(-1, 2)).reshape(x.shape)

    @torch.no_grad()
    def field(self, net: nn.Module) -> Array:  # [n, n]
        """The complex field in the physical part, rows being x."""
        like = next(net.parameters())
        parts = net(self.points.to(like)).cpu().double().numpy()
        return (parts[:, 0] + 1j * parts[:, 1]).reshape(_SHOWN, _SHOWN)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """‖u - reference‖ / ‖reference‖ over the physical part, the source included."""
        error = np.linalg.norm(self.field(net) - self.reference) / np.linalg.norm(self.reference)
        return {self.merit: float(error)}

    def write(self, solution: Solution, home: Path) -> None:
        """Reference, field and difference on one sheet; the waves as they move; the error over the steps."""
        scale = 1.7 * float(np.abs(self.reference).mean())
        found = {label: self.field(each.net) for label, each in solution.trained.items()}
        cells = [
            ("reference, real part", signed(self.reference.real.T, scale)),
            ("squared slowness", grey(self._medium(*np.meshgrid(self.axis, self.axis)), 0, 1)),
        ]
        for label, field in found.items():
            error = solution.trained[label].figures[self.merit]
            cells.append((f"{label}, error {100 * error:.1f} %", signed(field.real.T, scale)))
            cells.append((f"{label}, 10 x difference", signed(10 * (field - self.reference).real.T, scale)))
        save(sheet(cells, columns=2), home / "pictures.png")
        save_moving(_moving(self.reference, found[self.ours], scale), home / "field")
        save(curves(solution.over_steps(self.merit), x="step", y=self.merit), home / "error.png")


def _moving(reference: Array, field: Array, scale: float) -> Sequence[Any]:
    """Real parts of both during a period."""
    turns = np.exp(2j * np.pi * np.arange(_FRAMES) / _FRAMES)
    cells = [("reference", reference.T), ("SIREN", field.T)]
    return [sheet([(label, signed((turn * u).real, scale)) for label, u in cells], columns=2) for turn in turns]


def edge(depth: Array, width: float) -> Array:
    """0 outside of a shape, 1 inside, given the depth in it; half the width to each side between them."""
    return (depth > 0).astype(np.float64) if width == 0 else 0.5 + 0.5 * np.tanh(2 * depth / width)


def direct_points(k: float, sigma: float) -> int:
    """Points along an axis of the reference's grid: 25 and more per wavelength, two per standard deviation."""
    return max(95, round(8 * k), round(2 * 2 / sigma) - 1)


def fit(**options: Any) -> Solution:
    """Find the field of a point source.

    Args:
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        UsageError: A setting makes no sense, or scipy is not installed.

    Example:
        >>> from fastsiren.fit import Options
        >>> small = {"steps": 3, "rounds": 1, "hidden": 8, "layers": 1, "batch": 50, "round_batch": 50, "k": 4.0}
        >>> fit(options=Options(progress=False), **small).figures["relative error"] < 2
        True
    """
    return solve(Helmholtz, **options)
