"""Equations that `fastsiren solve` knows, each with a solution computed another way, and equations of one's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..faults import UsageError
from ..fit import option
from .equation import PLACES, Condition, Equation
from .expression import Expression
from .pde import PdeExperiment, Settings

__all__ = ["AllenCahn", "Burgers", "Custom", "Eikonal", "Heat", "Poisson"]

# Amplitudes and numbers of half waves along x and y.
_POISSON = ((1.0, 1, 1), (0.5, 3, 2), (-0.3, 2, 4))
_HEAT = ((1.0, 1, 1), (0.6, 2, 1), (-0.4, 1, 3))


def _waves(terms: tuple[tuple[float, int, int], ...], factor: str = "") -> str:
    """Sum of sines that vanish on the sides of [-1, 1]², each times a factor in k and l."""
    parts = []
    for a, k, l in terms:
        scale = factor.format(k=k, l=l)
        parts.append(f"({a})*{scale}sin({k}*pi*(x+1)/2)*sin({l}*pi*(y+1)/2)")
    return " + ".join(parts)


class Poisson(PdeExperiment):
    """Δu = f on a square, zero on its sides; f is that of a sum of sines."""

    name = "poisson"
    quick = Settings(steps=220, rounds=12, batch=1024, layers=2)
    bound = 0.01
    equation = Equation(
        f"u__x__x + u__y__y + {_waves(_POISSON, '(pi**2/4*({k}**2+{l}**2))*')}",
        inputs="xy",
        outputs="u",
        box=[(-1, 1), (-1, 1)],
        conditions=[Condition("u", "boundary", weight=100.0)],
    )

    def reference(self, x: Tensor) -> Tensor:
        """The sum of sines."""
        return _of_text(_waves(_POISSON), x, "xy")


class Heat(PdeExperiment):
    """∂u/∂t = a Δu on a square, zero on its sides, from a sum of sines, each of which decays at its own rate."""

    name = "heat"
    quick = Settings(steps=150, rounds=10, batch=1024, layers=2)
    bound = 0.03
    equation = Equation(
        "u__t - a*(u__x__x + u__y__y)",
        inputs="txy",
        outputs="u",
        box=[(0, 1), (-1, 1), (-1, 1)],
        conditions=[Condition(f"u - ({_waves(_HEAT)})", {"t": 0}), Condition("u", "sides")],
        constants={"a": 0.1},
    )

    def reference(self, x: Tensor) -> Tensor:
        """The sum of decaying sines."""
        return _of_text(_waves(_HEAT, "exp(-0.1*pi**2/4*({k}**2+{l}**2)*t)*"), x, "txy")


class Burgers(PdeExperiment):
    """∂u/∂t + u ∂u/∂x = ν ∂²u/∂x², ν = 0.01/π, from -sin πx: a steep front at x = 0 (Raissi et al. 2019)."""

    name = "burgers"
    quick = Settings(steps=1240, rounds=40, batch=1024)
    bound = 0.05
    equation = Equation(
        "u__t + u*u__x - nu*u__x__x",
        inputs="tx",
        outputs="u",
        box=[(0, 1), (-1, 1)],
        conditions=[Condition("u + sin(pi*x)", {"t": 0}), Condition("u", "sides")],
        constants={"nu": 0.01 / math.pi},
    )

    def reference(self, x: Tensor) -> Tensor:
        """The formula of Cole and Hopf, its integrals by Gauss and Hermite's rule (Basdevant et al. 1986)."""
        nodes, weights = np.polynomial.hermite.hermgauss(120)
        t, where, nu = x[:, :1].double(), x[:, 1:].double(), 0.01 / math.pi
        shifted = math.pi * (where - torch.sqrt(4 * nu * t) * torch.from_numpy(nodes))  # [n, 120]
        exponent = -torch.cos(shifted) / (2 * math.pi * nu)
        # Relative to the largest term: the plain exponentials overflow.
        terms = torch.exp(exponent - exponent.amax(1, keepdim=True)) * torch.from_numpy(weights)
        inside = -(torch.sin(shifted) * terms).sum(1, keepdim=True) / terms.sum(1, keepdim=True)
        return torch.where(t == 0, -torch.sin(math.pi * where), inside)


@dataclass(frozen=True)
class AllenCahnSettings(Settings):
    """Where u is near zero errors grow by e^5 in the whole time: later times are learnt once earlier ones are right."""

    curriculum: float = option(0.8, "part of the steps during which the end of time moves out", least=0)
    focus: float = option(0.0, "part of the points that go where the residual is large", least=0)


class AllenCahn(PdeExperiment):
    """∂u/∂t = d ∂²u/∂x² + 5 (u - u³), -1 at both ends, from x² cos πx: layers form out of a smooth beginning."""

    name = "allen-cahn"
    options = AllenCahnSettings
    quick = AllenCahnSettings(steps=1240, rounds=40, batch=1024)
    bound = 0.1
    equation = Equation(
        "u__t - d*u__x__x - 5*(u - u**3)",
        inputs="tx",
        outputs="u",
        box=[(0, 1), (-1, 1)],
        conditions=[Condition("u + 1", "sides")],
        start={"u": "x**2*cos(pi*x)"},
        constants={"d": 0.001},
    )

    def reference(self, x: Tensor) -> Tensor:
        """Strang splitting: diffusion exact in sines of u + 1, reaction by its formula, steps of 0.001."""
        size, step = 1024, 1e-3
        ends = np.linspace(-1, 1, size + 1)
        u = ends**2 * np.cos(np.pi * ends)
        waves = np.pi / 2 * np.arange(1, size)
        decay, moments = np.exp(-0.001 * waves**2 * step), [_sines(u + 1)]
        for _ in range(1000):
            u = _reacted(u, step / 2)
            u = _reacted(_from_sines(_sines(u + 1) * decay) - 1, step / 2)
            moments.append(_sines(u + 1))
        # The highest ones are rounding.
        kept = 256
        return _interpolated(torch.from_numpy(np.stack(moments)[:, :kept]), torch.from_numpy(waves[:kept]), x.double())


def _sines(v: Any) -> Any:
    """Amplitudes of sin(k π (x + 1) / 2), k from 1, of a function that vanishes at both ends of a grid."""
    odd = np.concatenate([v, -v[-2:0:-1]])
    return -np.fft.rfft(odd).imag[1:-1] / (len(v) - 1)


def _from_sines(amplitudes: Any) -> Any:
    """The inverse of `_sines`."""
    size = len(amplitudes) + 1
    spectrum = np.concatenate([[0.0], -1j * size * amplitudes, [0.0]])
    return np.fft.irfft(spectrum, 2 * size)[: size + 1]


def _reacted(u: Any, t: float) -> Any:
    """Solution of u' = 5 (u - u³) after a time t."""
    return u * np.exp(5 * t) / np.sqrt(1 + u**2 * (np.exp(10 * t) - 1))


def _interpolated(amplitudes: Tensor, waves: Tensor, x: Tensor) -> Tensor:
    """Values at points (t, x) of -1 plus sines whose amplitudes are known at 1001 times; linear in time."""
    place = x[:, 0] * (len(amplitudes) - 1)
    first = place.floor().clamp(max=len(amplitudes) - 2).long()
    share = (place - first).unsqueeze(-1)
    found = []
    for rows, part, between in zip(x.split(4096), first.split(4096), share.split(4096), strict=True):
        mixed = amplitudes[part] * (1 - between) + amplitudes[part + 1] * between
        found.append((mixed * torch.sin(waves * (rows[:, 1:] + 1))).sum(1, keepdim=True) - 1)
    return torch.cat(found)


@dataclass(frozen=True)
class EikonalSettings(Settings):
    """A distance is smooth but for its kinks: higher frequencies end in solutions that are none of the viscous kind."""

    layers: int = option(2, "hidden layers behind the first", least=0, fixed=True)
    omega: float = option(4.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")


class Eikonal(PdeExperiment):
    """|∇u| = 1 with u = 0 and outward normals on two circles: the signed distance to them.

    A little viscosity, of the sign of u, picks the solution that is a distance where fronts meet.
    """

    name = "eikonal"
    options = EikonalSettings
    quick = EikonalSettings(steps=300, rounds=12, batch=1024)
    bound = 0.08
    circles = ((-0.4, -0.2, 0.35), (0.45, 0.35, 0.25))

    @staticmethod
    def _on_circles(x: Tensor) -> Tensor:
        """Points of the square, by their first coordinate, to points of the circles."""
        circles = torch.tensor(Eikonal.circles)[torch.arange(len(x)) % 2]
        angle = math.pi * x[:, :1]
        return circles[:, :2] + circles[:, 2:] * torch.cat([angle.cos(), angle.sin()], 1)

    @staticmethod
    def _slope(u__x: Tensor, u__y: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Slope along the outward normal of the nearest circle, minus one."""
        at = torch.cat([x, y], 1)
        offsets = torch.stack([at - torch.tensor(c[:2]) for c in Eikonal.circles])  # [2, n, 2]
        nearest = (offsets.norm(dim=-1) - torch.tensor([[c[2]] for c in Eikonal.circles])).abs().argmin(0)
        normal = nn.functional.normalize(offsets[nearest, torch.arange(len(at))], dim=-1)
        return (u__x * normal[:, :1] + u__y * normal[:, 1:]) - 1

    def reference(self, x: Tensor) -> Tensor:
        """The smaller of the distances to both."""
        distances = [(x - torch.tensor(c[:2]).to(x)).norm(dim=-1, keepdim=True) - c[2] for c in Eikonal.circles]
        return torch.minimum(*distances)


Eikonal.equation = Equation(
    "sqrt(u__x**2 + u__y**2 + 1e-12) - 1 - eps*tanh(20*u)*(u__x__x + u__y__y)",
    inputs="xy",
    outputs="u",
    box=[(-1, 1), (-1, 1)],
    conditions=[Condition("u", Eikonal._on_circles, weight=30.0), Condition(Eikonal._slope, Eikonal._on_circles)],
    constants={"eps": 0.01},
)


@dataclass(frozen=True)
class CustomSettings(Settings):
    """An equation in words, and how it is solved."""

    steps: int = option(600, "training steps, those of L-BFGS included", least=1)
    equation: str = option("u__t__t + 0.4*u__t + 9*u", "what is zero, in names such as u__t or u__x__y", fixed=True)
    inputs: str = option("t", "names of the inputs, a letter each or separated by commas", fixed=True)
    outputs: str = option("u", "names of the outputs, likewise", fixed=True)
    box: str = option("0:5", "low:high end of each input, separated by commas", fixed=True)
    conditions: str = option(
        "t=0: u - 1; t=0: u__t", "PLACE: what is zero there; ...; PLACE is t=0,x=1 or boundary or sides", fixed=True
    )
    periodic: str = option("", "inputs along which both ends are the same", fixed=True)
    exact: str = option("", "a solution to compare with, a formula of the inputs for each output, separated by ;")


class Custom(PdeExperiment):
    """An equation of one's own.

    Args:
        settings: How it is solved, and the equation in words.
        equation: The equation; None reads that of the settings.
    """

    name = "custom"
    merit = "residual"
    options = CustomSettings
    quick = CustomSettings(steps=120, rounds=20, hidden=32, batch=256, boundary=1)
    bound = 0.05

    def __init__(self, settings: CustomSettings, equation: Equation | None = None) -> None:
        super().__init__(settings, _read(settings) if equation is None else equation)
        self._exact = None
        if settings.exact:
            self._exact = [Expression(text) for text in settings.exact.split(";")]
            unknown = {name for each in self._exact for name in each.names} - {*self.equation.inputs}
            if unknown or len(self._exact) != len(self.equation.outputs):
                raise UsageError(
                    f"--exact must be a formula of {', '.join(self.equation.inputs)} for each of "
                    f"{', '.join(self.equation.outputs)}; got {settings.exact!r}"
                )

    def identity(self) -> dict[str, Any]:
        """The equation, in words where it has them."""
        formulas = [self.equation.residual, *(condition.residual for condition in self.equation.conditions)]
        return {"equation": [each if isinstance(each, str) else each.__name__ for each in formulas]}

    def reference(self, x: Tensor) -> Tensor | None:
        """The exact solution where one is given."""
        if self._exact is None:
            return None
        values = {name: x[:, i : i + 1] for i, name in enumerate(self.equation.inputs)}
        return torch.cat([torch.as_tensor(each(values)).expand(len(x), 1) for each in self._exact], 1)


def _of_text(text: str, x: Tensor, inputs: str) -> Tensor:
    return torch.as_tensor(Expression(text)({name: x[:, i : i + 1] for i, name in enumerate(inputs)}))


def _read(s: CustomSettings) -> Equation:
    """The equation of the settings.

    Raises:
        UsageError: A text cannot be read.
    """
    inputs, outputs = _names("--inputs", s.inputs), _names("--outputs", s.outputs)
    box = [_numbers("--box", side.split(":")) for side in s.box.split(",")]
    if any(len(side) != 2 for side in box):
        raise UsageError(f"--box must be low:high for each input, separated by commas; got {s.box!r}")
    conditions = [_condition(text) for text in s.conditions.split(";") if text.strip()]
    periodic = _names("--periodic", s.periodic) if s.periodic else ()
    return Equation(s.equation, inputs, outputs, [(side[0], side[1]) for side in box], conditions, periodic)


def _condition(text: str) -> Condition:
    place, colon, formula = text.partition(":")
    place = place.strip()
    if not colon:
        raise UsageError(f"--conditions must be PLACE: FORMULA, separated by ;, such as 't=0: u - 1'; got {text!r}")
    if place in PLACES:
        return Condition(formula.strip(), place)
    pairs = [part.partition("=") for part in place.split(",")]
    if any(not equals for _, equals, _ in pairs):
        raise UsageError(f"--conditions: a place is t=0 or t=0,x=1 or one of {', '.join(PLACES)}; got {place!r}")
    values = _numbers("--conditions", [value for _, _, value in pairs])
    return Condition(formula.strip(), {name.strip(): value for (name, _, _), value in zip(pairs, values, strict=True)})


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")] if "," in text else list(text.strip())
    if not names or not all(name.isidentifier() for name in names):
        raise UsageError(f"{option} must be names, a letter each or separated by commas; got {text!r}")
    return names


def _numbers(option: str, texts: list[str]) -> list[float]:
    """Numbers or formulas of numbers, such as 2*pi."""
    try:
        return [float(Expression(text)({})) for text in texts]
    except KeyError as error:
        raise UsageError(f"{option} must hold numbers; got {error.args[0]!r}") from None
