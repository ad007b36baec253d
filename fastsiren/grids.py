"""Regular coordinate grids: what a dense decode visits, described by a few numbers and never stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .engine.values import described, floating, listed, number, one_of, whole_number

__all__ = ["CONVENTIONS", "Grid"]

CONVENTIONS = ("corner", "centre", "unit")


@dataclass(frozen=True)
class Grid:
    """A regular grid; the coordinate of index i along axis a is `origin[a] + step[a] * i`.

    Make one with `Grid.over(shape, convention)`:

    - "corner": [-1, 1] with both ends, `linspace(-1, 1, n)`, as the SIREN paper's code has it;
    - "centre": the middles of n equal cells of [-1, 1];
    - "unit": [0, 1] with both ends, `linspace(0, 1, n)`.

    The first axis is the slowest: for a picture the shape is (rows, columns).

    Args:
        shape: Points along each axis.
        origin: Coordinate of index 0, per axis.
        step: Distance of neighbours, per axis.

    Raises:
        TypeError: A size is no integer, or another argument holds no numbers.
        ValueError: The arguments differ in length, or hold an impossible number.

    Example:
        >>> Grid.over((2, 3)).coordinates().tolist()[1]
        [[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """

    shape: tuple[int, ...]
    origin: tuple[float, ...]
    step: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, read in (("shape", _size), ("origin", _finite), ("step", _finite)):
            found = tuple(read(name, given) for given in listed(name, getattr(self, name), "numbers, one per axis"))
            object.__setattr__(self, name, found)
        lengths = (len(self.shape), len(self.origin), len(self.step))
        if len(set(lengths)) != 1 or not self.shape:
            raise ValueError(f"shape, origin, step: got {lengths} numbers, expected as many of each, one per axis")

    @classmethod
    def over(cls, shape: int | Sequence[int], convention: str = "corner") -> Grid:
        """The whole of the convention's cube, cut into `shape` points.

        Args:
            shape: Points along each axis; a single number makes a grid of one axis.
            convention: "corner", "centre" or "unit".

        Raises:
            TypeError: A size is no integer.
            ValueError: Unknown convention or impossible shape.
        """
        sizes = listed("shape", shape, "ints, one per axis") if isinstance(shape, Iterable) else [shape]
        shape = tuple(_size("shape", size) for size in sizes)
        if one_of("convention", convention, CONVENTIONS) == "centre":
            return cls(shape, tuple(-1 + 1 / max(n, 1) for n in shape), tuple(2 / max(n, 1) for n in shape))
        low, width = (-1.0, 2.0) if convention == "corner" else (0.0, 1.0)
        return cls(shape, (low,) * len(shape), tuple(width / (n - 1) if n > 1 else 0.0 for n in shape))

    @property
    def numel(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    def coordinates(
        self,
        start: Sequence[int] | None = None,
        shape: Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Coordinates of a box of the grid, computed in double and rounded once.

        Args:
            start: First index of the box on each axis; default the first point.
            shape: Size of the box; default the whole grid.
            dtype: Type of the result; default float32.

        Returns:
            Tensor of shape [*shape, axes].

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: The box does not lie inside the grid.
        """
        floating("dtype", dtype)
        start = self._box("start", (0,) * len(self.shape) if start is None else start)
        shape = self._box("shape", self.shape if shape is None else shape, start)
        axes = [
            (origin + step * torch.arange(first, first + n, dtype=torch.float64)).to(dtype)
            for origin, step, first, n in zip(self.origin, self.step, start, shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def at(self, index: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Coordinates of points named by their flat index.

        Args:
            index: [N] integers, first axis slowest; they count modulo the number of points, so that -1 is the last.
            dtype: Type of the result; default float32.

        Returns:
            Tensor of shape [N, axes], equal bit by bit to the rows of `coordinates`.

        Raises:
            TypeError: `index` is no tensor of integers, or `dtype` no floating-point dtype.
            ValueError: `index` has another number of dimensions, or the dtype is of another kind.
        """
        floating("dtype", dtype)
        if not isinstance(index, Tensor) or index.dtype not in _INTEGERS:
            said = f"dtype {index.dtype}" if isinstance(index, Tensor) else described(index)
            raise TypeError(f"index: got {said}, expected a torch.Tensor of integers")
        if index.ndim != 1:
            raise ValueError(f"index: got shape {tuple(index.shape)}, expected (N,)")
        columns = []
        for n, origin, step in zip(reversed(self.shape), reversed(self.origin), reversed(self.step), strict=True):
            columns.append((origin + step * (index % n).double()).to(dtype))
            index = index // n
        return torch.stack(columns[::-1], -1)

    def _box(self, name: str, given: Sequence[int], start: Sequence[int] | None = None) -> list[int]:
        """One index or size per axis, once it is known that the box from `start` lies inside the grid."""
        found = [_size(name, n) for n in listed(name, given, "ints, one per axis")]
        most = [n - first for n, first in zip(self.shape, start or (0,) * len(self.shape), strict=True)]
        if len(found) != len(most) or any(n > limit for n, limit in zip(found, most)):
            raise ValueError(f"{name}: got {found}, expected one int per axis and at most {most}")
        return found


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _size(name: str, given: int) -> int:
    return whole_number(name, given, least=0)


def _finite(name: str, given: float) -> float:
    value = number(name, given)
    if not math.isfinite(value):
        raise ValueError(f"{name}: got {value}, expected finite numbers")
    return value
