"""From a network and a tile to numbers: values through the dense decoder, derivatives through the operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..derivatives import laplacian, value_and_jacobian
from ..engine import backends
from ..engine.arguments import unpack
from ..engine.network import Parameters, SirenModule, networks_of
from ..engine.values import described, one_of
from ..grids import Grid
from ..tensorfile import Array
from .tiles import Tile

__all__ = ["QUANTITIES", "Decoder"]

QUANTITIES = ("value", "gradient", "laplacian")


class Decoder:
    """Evaluates one quantity of a network on tiles of a grid.

    Args:
        net: A `Siren`, or any module that offers `siren_parameters()`.
        grid: The grid; it needs as many axes as the network has inputs.
        quantity: "value" [O], "gradient" [O, D] or "laplacian" [O] per point.

    Raises:
        TypeError: `net` is not a SIREN, or `grid` no grid.
        ValueError: Unknown quantity, or the grid does not fit the network.
        RuntimeError: The backend or the precision of the network cannot serve it.
    """

    def __init__(self, net: SirenModule, grid: Grid, quantity: str) -> None:
        params = unpack(net)
        if not isinstance(grid, Grid):
            raise TypeError(f"grid: got {described(grid)}, expected a fastsiren.grids.Grid, as Grid.over((4, 5))")
        self.net, self.grid, self.quantity = net, grid, one_of("quantity", quantity, QUANTITIES)
        self.weights, self.biases, self.omegas = _linear_last(params)
        if networks_of(self.weights, self.biases) is not None:
            raise ValueError("net: got many networks, with an axis of them in front, expected one; render each alone")
        inputs, outputs = self.weights[0].shape[1], self.weights[-1].shape[0]
        if len(grid.shape) != inputs:
            raise ValueError(f"grid: got {len(grid.shape)} axes, expected {inputs} as the network has inputs")
        self.suffix = (outputs, inputs) if quantity == "gradient" else (outputs,)
        self.dtype, self.device = self.weights[0].dtype, self.weights[0].device
        # NumPy has no bfloat16; float32 holds the same numbers.
        self.stored = torch.float32 if self.dtype == torch.bfloat16 else self.dtype
        self._backend = backends.resolve(None, self.device, self.dtype, params.precision)

    @torch.no_grad()
    def __call__(self, tile: Tile, out: Tensor | None = None) -> Tensor:  # [n, *suffix]
        """Numbers of a tile, in grid order.

        Args:
            tile: Which points.
            out: [n, *suffix], filled and returned when given.
        """
        if self.quantity == "value":
            return self._value(tile, out)
        x = self.grid.coordinates(tile.start, tile.shape, dtype=self.dtype).to(self.device).reshape(-1, len(tile.shape))
        if self.quantity == "gradient":
            found = value_and_jacobian(self.net, x).jacobian
        else:
            found = laplacian(self.net, x).laplacian
        return found if out is None else out.copy_(found)

    def numbers(self, tile: Tile) -> Array:  # [n, *suffix]
        """Numbers of a tile for NumPy."""
        return self(tile).cpu().to(self.stored).numpy()

    def _value(self, tile: Tile, out: Tensor | None) -> Tensor:
        if out is None:
            out = torch.empty(tile.end - tile.begin, *self.suffix, dtype=self.dtype, device=self.device)
        backend: Any = backends.module(self._backend)
        parameters = (self.weights, self.biases, self.omegas)
        backend.grid_fwd(
            list(self.grid.origin), list(self.grid.step), list(tile.start), list(tile.shape), *parameters,
            out=out, gain=1.0, offset=0.0,
        )  # fmt: skip
        return out


def _linear_last(params: Parameters) -> tuple[list[Tensor], list[Tensor], list[float]]:
    """Detached parameters of a network whose last layer is linear; a last sine layer gets an identity behind it."""
    weights, biases, omegas, outermost_linear, _ = params
    weights, biases = [w.detach() for w in weights], [b.detach() for b in biases]
    if not outermost_linear:
        outputs = weights[-1].shape[0]
        weights.append(torch.eye(outputs, dtype=weights[-1].dtype, device=weights[-1].device))
        biases.append(torch.zeros_like(biases[-1]))
    return weights, biases, [float(omega) for omega in omegas]
