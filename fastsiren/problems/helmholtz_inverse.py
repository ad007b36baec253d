"""The experiment "helmholtz-inverse": a medium found from the waves that a few receivers record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..faults import UsageError
from ..fit import option, uniform
from ..fit import settings as base
from ..tensorfile import Array
from .experiment import Experiment, Solution, solve
from .helmholtz import direct_points, edge
from .helmholtz_direct import WIDTH, HelmholtzGrid, gaussian, need_scipy, point_source
from .helmholtz_residual import residual
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
class Settings(base.RoundSettings):
    """Settings of "helmholtz-inverse"; see `fastsiren.fit.Settings`."""

    steps: int = option(6, "training steps, rounds of L-BFGS included", least=1)
    hidden: int = option(80, "width of the sine layers", least=1, fixed=True)
    omega: float = option(18.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(3000, "points per step of Adam", least=1)
    rounds: int = option(6, "the last steps: rounds of 200 iterations of L-BFGS", least=0)
    round_batch: int = option(8000, "points per round", least=1)
    k: float = option(20.0, "wavenumber where the medium is 1", fixed=True)
    sigma: float = option(0.03, "standard deviation of the sources; the paper has 0.01", fixed=True)
    sources: int = option(5, "points that send", least=1, fixed=True)
    receivers: int = option(30, "points that record every source", least=1, fixed=True)
    slowness: float = option(0.5, "squared slowness of the cylinder that is looked for", fixed=True)
    radius: float = option(0.15, "of the cylinder", fixed=True)
    edge: float = option(0.05, "width over which the cylinder ends", least=0, fixed=True)
    near: float = option(0.5, "part of the points that the physical part gets beside its share, at most 1", least=0)
    data_weight: float = option(3.0, "of what receivers miss, beside the equation")


class _Drawn(NamedTuple):
    """Points of one step, the same for all its evaluations."""

    step: int
    x: Tensor
    """[N, 2]"""
    weight: Tensor
    """[N, 1]; with it a mean over the points is one over the square."""
    sent: Tensor
    """Fields in a uniform medium, complex, [N, sources]."""


class HelmholtzInverse(Experiment):
    """Full-waveform inversion: the echoes of all sources and the medium are one network (Sitzmann et al. 2020, 4.3).

    What a source sends into a uniform medium is known exactly; the network holds what the unknown medium adds to it.
    """

    name = "helmholtz-inverse"
    data = "medium"
    merit = "velocity error"
    higher_is_better = False
    options = Settings
    quick = Settings(steps=4, rounds=4, hidden=48, round_batch=3000, sources=3)
    bound = 0.035
    measured = 40
    lbfgs_round = 200

    def __init__(self, settings: Settings) -> None:
        need_scipy("the experiment helmholtz-inverse")
        super().__init__(settings)
        s = self.settings
        if s.near > 1:
            raise UsageError(f"--near must be at most 1; got {s.near:g}")
        heights = np.linspace(-_SOURCES_REACH, _SOURCES_REACH, s.sources) if s.sources > 1 else np.zeros(1)
        self.centres = [(_SOURCES_AT, float(y)) for y in heights]
        self.receivers = _around(s.receivers) * _RECEIVERS_AT
        self.axis = np.linspace(-(1 - WIDTH), 1 - WIDTH, _SHOWN)
        self.medium = self._true(self.axis[:, None], self.axis[None, :])
        grid = HelmholtzGrid(s.k, self._true, direct_points(s.k, s.sigma))
        x, y = grid.axis[:, None], grid.axis[None, :]
        self.fields = [grid.solve(gaussian(x, y, centre, s.sigma)) for centre in self.centres]
        recorded = np.stack([grid.at(field, self.receivers) for field in self.fields], -1)
        self.grid = grid
        self.points = torch.from_numpy(np.stack(np.meshgrid(self.axis, self.axis, indexing="ij"), -1)).flatten(0, 1)
        self.sent = self.uniform(self.points)
        # Networks learn numbers of about one.
        self.unit = float(self.sent.abs().square().mean().sqrt())
        self.echoes = torch.from_numpy(recorded) - self.uniform(
            torch.from_numpy(self.receivers)
        )  # [receivers, sources]
        self._drawn: _Drawn | None = None

    def uniform(self, x: Tensor) -> Tensor:  # [N, 2] -> [N, sources]
        """The complex fields of the sources in a uniform medium."""
        r = np.linalg.norm(x.double().numpy()[:, None] - np.array(self.centres), axis=-1)
        return torch.from_numpy(point_source(self.settings.k, self.settings.sigma, r))

    @property
    def features(self) -> tuple[int, int]:
        """x and y; two parts of the echo of each source, and the medium."""
        return 2, 2 * len(self.centres) + 1

    def network(self) -> nn.Module:
        """No echoes and a uniform medium to begin with."""
        return _silent(self.siren)

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then networks with other activations."""
        s = self.settings
        inputs, outputs = self.features
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=max(8, int(4 * s.k)), seed=s.seed)
        return {self.ours: self.network, **{label: partial(_silent, make) for label, make in others.items()}}

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """The equation of every echo, and what the receivers miss."""
        s, drawn = self.settings, self._points(step)
        # With m = 1 what is sent leaves no residual; with another m it leaves k² (m - 1) times itself.
        medium = partial(_medium, drawn.x)
        wrong, found = residual(net, drawn.x, s.k, torch.zeros_like(drawn.sent), medium, extra=["m"])
        wrong = wrong + s.k**2 * (medium(found) - 1) * drawn.sent
        equation = (torch.view_as_real(wrong).square().sum(-1) * drawn.weight).mean() / s.k**2
        return equation + s.data_weight * self._missed(net)

    def _points(self, step: int) -> _Drawn:
        if self._drawn is None or self._drawn.step != step:
            s = self.settings
            count = s.batch if step < s.adam_steps else s.round_batch
            more, reach = round(count * s.near), 1 - WIDTH
            everywhere = uniform([-1, -1], [1, 1], count - more, seed=s.seed, step=step)
            inner = uniform([-reach, -reach], [reach, reach], more, seed=s.seed, step=step, stream=1)
            x = torch.cat([everywhere, inner])
            density = (count - more + more * _physical(x) / reach**2) / count
            self._drawn = _Drawn(step, x, 1 / density, self.uniform(x).to(torch.complex64) / self.unit)
        return self._drawn

    def _missed(self, net: nn.Module) -> Tensor:
        """Squares of what the receivers miss, as a part of the echoes."""
        like = next(net.parameters())
        parts = net(torch.from_numpy(self.receivers).to(like))[:, :-1].unflatten(-1, (-1, 2))
        echoes = torch.view_as_real(self.echoes / self.unit).to(like)
        return (parts - echoes).square().sum() / echoes.square().sum()

    def _true(self, x: Array, y: Array) -> Array:
        s = self.settings
        return 1 - (1 - s.slowness) * edge(s.radius - np.hypot(x, y), s.edge)

    @torch.no_grad()
    def found(self, net: nn.Module) -> tuple[Array, Array]:
        """Squared slowness [n, n] and the fields [n, n, sources] in the physical part, rows being x."""
        x = self.points.to(next(net.parameters()))
        y = net(x)
        echoes = torch.view_as_complex(y[:, :-1].unflatten(-1, (-1, 2)).contiguous())
        fields = self.sent + self.unit * echoes
        shape = (_SHOWN, _SHOWN)
        return slowness(x, y[:, -1:]).double().numpy().reshape(shape), fields.numpy().reshape(*shape, -1)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Error of the velocity over the physical part, relative to it and to what there is to find; echoes missed."""
        velocity, true = (1 / np.sqrt(medium) for medium in (self.found(net)[0], self.medium))
        wrong = float(np.linalg.norm(velocity - true))
        with torch.no_grad():
            missed = float(self._missed(net).sqrt())
        return {
            self.merit: wrong / float(np.linalg.norm(true)),
            "of the change": wrong / max(float(np.linalg.norm(true - 1)), 1e-30),
            "of the echoes": missed,
        }

    def write(self, solution: Solution, home: Path) -> None:
        """Velocities, and the field of the middle source, on one sheet; the error over the steps."""
        middle = len(self.centres) // 2
        field = self.grid.at(self.fields[middle], self.points.numpy()).reshape(_SHOWN, _SHOWN)
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
    return torch.where(_physical(x), (1 + output).clamp(min=_LEAST), 1.0)


def _silent(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with a last layer that gives zero.

    What the recordings do not tell stays as it began: ripples of the medium, with other initial weights.
    """
    net = make()
    with torch.no_grad():
        for parameter in list(net.parameters())[-2:]:
            parameter.zero_()
    return net


def _physical(x: Tensor) -> Tensor:  # [N, 2] -> [N, 1]
    """Whether points are outside of the absorbing layer."""
    return (x.abs() <= 1 - WIDTH).all(-1, keepdim=True)


def _medium(x: Tensor, found: dict[str, Tensor]) -> Tensor:  # [N, 1]
    return slowness(x, found["m"])


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
        >>> small = {"steps": 3, "rounds": 2, "hidden": 8, "layers": 1, "batch": 50, "round_batch": 50}
        >>> solution = fit(options=Options(progress=False), k=4.0, sigma=0.1, **small)
        >>> solution.experiment.found(solution.net)[0].shape
        (101, 101)
    """
    return solve(HelmholtzInverse, **options)
