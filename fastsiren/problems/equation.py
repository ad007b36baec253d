"""A boundary or initial value problem in the names of its derivatives: a residual, conditions, a box."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.jet import parse_derivatives
from ..faults import UsageError
from ..fit import operators
from .expression import Expression

__all__ = ["PLACES", "Condition", "Equation", "Residual"]

Formula = str | Callable[..., Tensor]
Place = Mapping[str, float] | str | Callable[[Tensor], Tensor]
PLACES = ("boundary", "sides")


@dataclass(frozen=True)
class Condition:
    """What holds on a part of the box.

    Args:
        residual: Zero there: a formula, or a function whose parameters are named as what it needs.
        on: Coordinates that are fixed, by name, such as {"t": 0}; "boundary", all sides of the box; "sides", all but
            those of the first input; or a function that maps points [n, D] spread evenly over the box to that part.
        weight: Factor of its mean square in the loss.

    Example:
        >>> Condition("u + sin(pi*x)", {"t": 0}).on
        {'t': 0}
    """

    residual: Formula
    on: Place
    weight: float = 1.0


@dataclass(frozen=True)
class Equation:
    """residual = 0 in the box, with conditions.

    Args:
        residual: A formula of inputs, outputs, their derivatives (u__t, u__x__y, up to second order) and constants; or
            a function whose parameters are named so, of tensors [n, 1].
        inputs: Name of each input; a text names each by one letter.
        outputs: Name of each output; likewise.
        box: Ends of each input.
        conditions: Boundary and initial conditions.
        start: By output, a formula of inputs and constants for the low end of the first input. Such an output is that
            formula plus time since then times the network, so that it holds exactly.
        periodic: Inputs along which solution and first derivative are the same at both ends.
        constants: Numbers by name.

    Raises:
        UsageError: Names and numbers do not fit together.

    Example:
        >>> heat = Equation("u__t - a*u__x__x", inputs="tx", outputs="u", box=[(0, 1), (-1, 1)], constants={"a": 0.1},
        ...     conditions=[Condition("u - cos(pi*x/2)", {"t": 0}), Condition("u", "sides")])
        >>> sorted(heat.interior.names)
        ['a', 'u__t', 'u__x__x']
    """

    residual: Formula
    inputs: Sequence[str]
    outputs: Sequence[str]
    box: Sequence[tuple[float, float]]
    conditions: Sequence[Condition] = ()
    periodic: Sequence[str] = ()
    start: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.box) != len(self.inputs) or any(not low < high for low, high in self.box):
            raise UsageError(
                f"box: got {list(self.box)}, expected a low and a high end for each of {', '.join(self.inputs)}"
            )
        for name in (*self.periodic, *(name for c in self.conditions if isinstance(c.on, Mapping) for name in c.on)):
            if name not in self.inputs:
                raise UsageError(f"conditions: {name!r} is none of the inputs {', '.join(self.inputs)}")
        for name, start in self.formulas.items():
            unknown = start.names - {*self.inputs} - self.constants.keys()
            if name not in self.outputs or unknown:
                raise UsageError(
                    f"start: got {name!r}: {start.text!r}, expected formulas of inputs and constants, by output"
                )
        if any(c.on not in PLACES for c in self.conditions if isinstance(c.on, str)):
            raise UsageError(f"conditions: a place is one of {', '.join(PLACES)}, or a coordinate such as t=0")
        for formula in (self.residual, *(condition.residual for condition in self.conditions)):
            Residual(self, formula)

    @property
    def interior(self) -> Residual:
        """The residual in the box."""
        return Residual(self, self.residual)

    @functools.cached_property
    def formulas(self) -> dict[str, Expression]:
        """What outputs start from, by name."""
        return {name: Expression(text) for name, text in self.start.items()}

    @functools.cached_property
    def middle(self) -> Tensor:  # [D]
        """Centre of the box."""
        return torch.tensor([(low + high) / 2 for low, high in self.box])

    @functools.cached_property
    def half(self) -> Tensor:  # [D]
        """Half the length of each side."""
        return torch.tensor([(high - low) / 2 for low, high in self.box])

    def values(self, x: Tensor) -> dict[str, Any]:
        """Inputs [n, 1] at points of the box, and constants, by name."""
        return {**self.constants, **{name: x[:, i : i + 1] for i, name in enumerate(self.inputs)}}

    def points(self, cube: Tensor, on: Place) -> Tensor:  # [n, D]
        """Points of a part of the box from points [n, D] of [-1, 1]^D."""
        if isinstance(on, str):
            first = PLACES.index(on)
            rows = torch.arange(len(cube))
            cube = cube.clone()
            # Each point goes to one of the sides, which take turns.
            cube[rows, first + rows // 2 % (cube.shape[1] - first)] = 1.0 - 2.0 * (rows % 2)
        x = self.middle + self.half * cube
        if callable(on):
            return on(x)
        if isinstance(on, str):
            return x
        for name, value in on.items():
            x[:, list(self.inputs).index(name)] = value
        return x


class Residual:
    """A formula or a function of named values, evaluated on a network in one pass.

    Args:
        equation: Whose names it uses.
        formula: A text, or a function whose parameters are named as what it needs.

    Raises:
        UsageError: A name is no input, output, derivative or constant.
    """

    def __init__(self, equation: Equation, formula: Formula) -> None:
        self.equation = equation
        self._call: Callable[[Mapping[str, Any]], Any]
        if callable(formula):
            self.names = frozenset(inspect.signature(formula).parameters)
            self._call = lambda values: formula(**values)
        else:
            expression = Expression(formula)
            self.names, self._call = expression.names, expression
        self.derivatives = sorted(self.names - {*equation.inputs} - equation.constants.keys())
        try:
            parse_derivatives(self.derivatives, equation.inputs, equation.outputs)
        except ValueError as error:
            raise UsageError(f"{formula if isinstance(formula, str) else 'residual'}: {error}") from None

    def __call__(self, net: nn.Module, x: Tensor) -> Tensor:  # [n, 1]
        """The residual of a network of coordinates that are scaled to [-1, 1], at points [n, D] of the box."""
        equation = self.equation
        found = derivatives(net, equation, x, self.derivatives)
        given = {name: value for name, value in equation.values(x).items() if name in self.names}
        return torch.as_tensor(self._call({**found, **given})).expand(len(x), 1)


def derivatives(net: nn.Module, equation: Equation, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Derivatives of the solution by name, [n, 1] each, at points of the box."""
    wanted = parse_derivatives(names, equation.inputs, equation.outputs)
    started = [derivative for derivative in wanted if equation.outputs[derivative.output] in equation.start]
    needed = dict.fromkeys(names) | {
        _name(equation, d.output, axes): None for d in started for _, axes in _product_rule(d.axes)
    }
    network = _of_network(net, equation, x, list(needed))
    found = {name: network[name] for name in names}
    time = x[:, :1] - equation.box[0][0]
    for name, output, axes in started:
        parts = [
            (time if rest == axes else count) * network[_name(equation, output, rest)]
            for count, rest in _product_rule(axes)
        ]
        found[name] = sum(parts[1:], parts[0]) + _of_formula(equation, equation.outputs[output], axes, x)
    return found


def _product_rule(axes: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Derivatives of the network in that of time times network, and how often each: the first one times time."""
    times = axes.count(0)
    return [(1, axes), *([(times, tuple(sorted(axes))[1:])] if times else [])]


def _name(equation: Equation, output: int, axes: tuple[int, ...]) -> str:
    return "__".join([equation.outputs[output], *(equation.inputs[axis] for axis in axes)])


def _of_network(net: nn.Module, equation: Equation, x: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Derivatives of the network, whose coordinates are scaled to [-1, 1], in those of the box."""
    if not names:
        return {}
    z = (x - equation.middle) / equation.half
    found = operators(net).derivatives(net, z, names, inputs=equation.inputs, outputs=equation.outputs)
    for name, _, axes in parse_derivatives(names, equation.inputs, equation.outputs):
        found[name] = found[name] / math.prod(float(equation.half[axis]) for axis in axes)
    return found


def _of_formula(equation: Equation, output: str, axes: tuple[int, ...], x: Tensor) -> Tensor:
    """A derivative of what an output starts from."""
    x = x.detach().requires_grad_()
    value = torch.as_tensor(equation.formulas[output](equation.values(x))).expand(len(x), 1)
    for axis in axes:
        if not value.requires_grad:
            return torch.zeros_like(x[:, :1])
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True, materialize_grads=True)
        value = slope[:, axis : axis + 1]
    return value.detach()
