"""Regular coordinate grids: what a dense decode visits, described by a few numbers and never stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .engine.arguments import number, whole_number

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

    Example:
        >>> Grid.over((2, 3)).coordinates().tolist()[1]
        [[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]]
    """

    shape: tuple[int, ...]
    origin: tuple[float, ...]
    step: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.shape), len(self.origin), len(self.step)}
        if len(lengths) != 1 or not self.shape:
            raise ValueError(
                "Grid: shape, origin and step need the same number of axes, one at least; "
                f"got {len(self.shape)}, {len(self.origin)} and {len(self.step)}"
            )
        for name, read in (("shape", _size), ("origin", number), ("step", number)):
            object.__setattr__(self, name, tuple(read(name, given) for given in getattr(self, name)))
        if not all(math.isfinite(v) for v in (*self.origin, *self.step)):
            raise ValueError(f"Grid: origin and step must be finite; got {self.origin!r} and {self.step!r}")

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
        shape = tuple(_size("shape", n) for n in (shape if isinstance(shape, Iterable) else (shape,)))
        if convention not in CONVENTIONS:
            raise ValueError(f"Grid: convention must be one of {', '.join(CONVENTIONS)}; got {convention!r}")
        if convention == "centre":
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
        """
        start = (0,) * len(self.shape) if start is None else start
        shape = self.shape if shape is None else shape
        axes = [
            (origin + step * torch.arange(first, first + n, dtype=torch.float64)).to(dtype)
            for origin, step, first, n in zip(self.origin, self.step, start, shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def at(self, index: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Coordinates of points named by their flat index.

        Args:
            index: [N] integers, first axis slowest.
            dtype: Type of the result; default float32.

        Returns:
            Tensor of shape [N, axes], equal bit by bit to the rows of `coordinates`.
        """
        columns = []
        for n, origin, step in zip(reversed(self.shape), reversed(self.origin), reversed(self.step), strict=True):
            columns.append((origin + step * (index % n).double()).to(dtype))
            index = index // n
        return torch.stack(columns[::-1], -1)


def _size(name: str, given: int) -> int:
    return whole_number(name, given, least=0)
