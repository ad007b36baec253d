"""Differential equations by the squares of their residuals, written in the names of their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import fit as training
from ..files import atomic_output
from ..fit import option, uniform
from ..fit.sampler import generator
from ..grids import Grid
from .equation import Equation, Residual, derivatives
from .experiment import Experiment, Solution, solve
from .pictures import save, sheet, signed

__all__ = ["PdeExperiment", "Settings", "fit"]

# Points along each axis of the grid that a solution is compared on.
_GRID = 101


@dataclass(frozen=True)
class Settings(training.RoundSettings):
    """How an equation is solved. Coordinates are scaled to [-1, 1], so that omega means the same for every box."""

    steps: int = option(6000, "training steps, rounds of L-BFGS included", least=1)
    rounds: int = option(60, "the last steps: rounds of 25 iterations of L-BFGS", least=0)
    hidden: int = option(64, "width of the sine layers", least=1, fixed=True)
    layers: int = option(3, "hidden layers behind the first", least=0, fixed=True)
    omega: float = option(8.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(2e-3, "highest learning rate of Adam")
    batch: int = option(2048, "points in the box per step", least=1)
    boundary: int = option(256, "points per condition and step", least=1)
    weight: float = option(10.0, "factor of the conditions in the loss")
    focus: float = option(0.5, "part of the points that go where the residual is large", least=0)
    curriculum: float = option(
        0.0, "part of the steps during which the end of time, the first input, moves out", least=0
    )


class PdeExperiment(Experiment):
    """An equation with a known solution.

    Args:
        settings: How it is solved.
        equation: The equation; None takes that of the class.
    """

    data = "equation"
    merit = "error"
    higher_is_better = False
    options = Settings
    equation: Equation

    def __init__(self, settings: Settings, equation: Equation | None = None) -> None:
        super().__init__(settings)
        self.equation = self.equation if equation is None else equation
        self._interior = self.equation.interior
        self._drawn: tuple[nn.Module, int, Tensor] | None = None
        self._conditions = [(Residual(self.equation, c.residual), c) for c in self.equation.conditions]

    @property
    def features(self) -> tuple[int, int]:
        """Inputs and outputs of the equation."""
        return len(self.equation.inputs), len(self.equation.outputs)

    def _cube(self, count: int, step: int, stream: int) -> Tensor:
        ends = [1.0] * self.features[0]
        return uniform([-end for end in ends], ends, count, seed=self.settings.seed, step=step, stream=stream)

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean square of the residual in the box, and of those of the conditions times their weights."""
        s, equation = self.settings, self.equation
        x = self._points(net, step)
        total = self._interior(net, x).square().mean()
        for i, (residual, condition) in enumerate(self._conditions):
            part = equation.points(self._cube(s.boundary, step, 1 + i), condition.on)
            total = total + s.weight * condition.weight * residual(net, part).square().mean()
        for i, name in enumerate(equation.periodic):
            total = total + s.weight * self._mismatch(net, name, self._cube(s.boundary, step, -1 - i))
        return total

    def _points(self, net: nn.Module, step: int) -> Tensor:
        """Points of a step, [batch, D]: spread evenly, and drawn by their squared residuals from four times as many.

        The same for all evaluations of a step, which L-BFGS needs.
        """
        if self._drawn is None or self._drawn[:2] != (net, step):
            focused = min(round(self.settings.focus * self.settings.batch), self.settings.batch)
            x = self.equation.points(self._so_far(self._cube(self.settings.batch - focused, step, 0), step), {})
            if focused:
                candidates = self.equation.points(self._so_far(self._cube(4 * focused, step, 97), step), {})
                chances = self._interior(net, candidates).detach()[:, 0].square() + 1e-12
                drawn = torch.multinomial(chances, focused, generator=generator(self.settings.seed, step, 98))
                x = torch.cat([x, candidates[drawn]])
            self._drawn = (net, step, x)
        return self._drawn[2]

    def _so_far(self, cube: Tensor, step: int) -> Tensor:
        """Points of [-1, 1]^D as they are early in the curriculum: with the first input near its low end."""
        grown = step / max(self.settings.curriculum * self.settings.steps, 1e-9)
        if grown >= 1:
            return cube
        return torch.cat([(cube[:, :1] + 1) * max(grown, 0.02) - 1, cube[:, 1:]], 1)

    def _mismatch(self, net: nn.Module, name: str, cube: Tensor) -> Tensor:
        """Mean square of the jumps of the outputs and of their slopes from one end of an input to the other."""
        equation = self.equation
        axis = list(equation.inputs).index(name)
        ends = [equation.points(cube, {name: end}) for end in equation.box[axis]]
        wanted = [*equation.outputs, *(f"{output}__{name}" for output in equation.outputs)]
        found = derivatives(net, equation, torch.cat(ends), wanted)
        half = float(equation.half[axis])
        jumps = [values[: len(cube)] - values[len(cube) :] for values in found.values()]
        # Slopes per half a side: as large as values, whatever the box.
        scaled = [jump * (half if "__" in which else 1.0) for which, jump in zip(found, jumps, strict=True)]
        return torch.cat(scaled, -1).square().mean()

    def measure(self, net: nn.Module) -> dict[str, float]:
        """Relative L2 error against the reference over a grid, and the root mean square of the residual."""
        x = self.equation.points(self._cube(4 * self.settings.batch, 0, 99), {})
        figures = {"residual": float(self._interior(net, x).detach().square().mean().sqrt())}
        wanted = self.wanted()
        if wanted is not None:
            figures = {"error": float((self.solution(net) - wanted).norm() / wanted.norm()), **figures}
        return figures

    def reference(self, x: Tensor) -> Tensor | None:
        """The solution [n, O] at points of the box [n, D], computed another way; None where there is none."""
        return None

    def _grid(self) -> Grid:
        sides = self.features[0]
        return Grid.over((_GRID,) * sides if sides < 3 else (21,) * sides)

    def solution(self, net: nn.Module) -> Tensor:
        """The solution that a network stands for on a grid over the box, [*grid, O]."""
        x = self._grid().coordinates().reshape(-1, self.features[0])
        outputs = list(self.equation.outputs)
        found = [
            torch.cat(list(derivatives(net, self.equation, part, outputs).values()), 1).detach()
            for part in self.equation.points(x, {}).split(65536)
        ]
        return torch.cat(found).double().view(*self._grid().shape, -1)

    def wanted(self) -> Tensor | None:
        """The reference on the same grid."""
        grid = self._grid()
        found = self.reference(self.equation.points(grid.coordinates().reshape(-1, len(grid.shape)), {}))
        return None if found is None else found.double().view(*grid.shape, -1)

    def write(self, solution: Solution, home: Path) -> None:
        """Solution, reference and their difference as pictures, and the solution as numbers."""
        found, reference = self.solution(solution.net).numpy(), self.wanted()
        shown = {"solution": found}
        if reference is not None:
            wanted = reference.numpy()
            shown |= {"reference": wanted, "solution - reference": found - wanted}
        cells = []
        for label, values in shown.items():
            for o, name in enumerate(self.equation.outputs):
                plane = _plane(values[..., o])
                scale = float(np.abs(plane).max())
                cells.append((f"{name}: {label}, |.| <= {scale:.3g}", signed(plane, scale)))
        save(sheet(cells, columns=max(1, len(shown))), home / "solution.png")
        with atomic_output(home / "solution.npy") as file:
            np.save(file, found)


def _plane(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[height, width] of numbers with any number of axes: the last moment of a first one where there are three."""
    while values.ndim > 2:
        values = values[-1]
    return values.reshape(1, -1) if values.ndim < 2 else values


def fit(equation: Equation, *, quick: bool = False, **options: Any) -> Solution:
    """Solve an equation.

    Args:
        equation: The equation.
        quick: See `solve`.
        **options: Of `fastsiren.problems.experiment.solve` and fields of `Settings`.

    Example:
        >>> from fastsiren.problems.equation import Condition, Equation
        >>> start = Condition("u - 1", {"t": 0})
        >>> decay = Equation("u__t + 2*u", inputs="t", outputs="u", box=[(0, 1)], conditions=[start])
        >>> watched = training.Options(progress=False)
        >>> net = fit(decay, hidden=16, layers=1, steps=60, rounds=10, batch=64, boundary=1, options=watched).net
        >>> with torch.no_grad():
        ...     end = net(torch.tensor([1.0]))
        >>> abs(float(end) - 0.135) < 1e-2
        True
    """
    from .equations import Custom

    return solve(Custom, equation, quick=quick, **options)
