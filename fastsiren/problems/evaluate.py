"""Values of any network on a grid, a tile at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..engine.network import SirenModule
from ..grids import Grid
from ..render import render
from ..render.decode import Decoder
from ..render.tiles import Tile, tiles

__all__ = ["on_grid", "tile_values"]

# A plain network keeps every layer's activations of a tile.
_TILE = 65536


def tile_values(net: nn.Module, grid: Grid) -> Callable[[Tile], Tensor]:
    """A function from a tile to the network's values there, [n, O], without gradients.

    Args:
        net: A SIREN, whose values come from the dense decoder, or any module that maps [n, D] to [n, O].
        grid: Where to evaluate.
    """
    if isinstance(net, SirenModule):
        return Decoder(net, grid, "value")
    like = next(net.parameters())

    @torch.no_grad()
    def values(tile: Tile) -> Tensor:
        x = grid.coordinates(tile.start, tile.shape, dtype=like.dtype).to(like.device)
        found: Tensor = net(x.reshape(-1, len(tile.shape)))
        return found

    return values


def on_grid(net: nn.Module, grid: Grid) -> Tensor:  # [*grid.shape, O]
    """Values of a network on a whole grid, without gradients and without progress."""
    if isinstance(net, SirenModule):
        found = render(net, grid, progress=False)
        return torch.as_tensor(found)
    values = tile_values(net, grid)
    return torch.cat([values(tile) for tile in tiles(grid.shape, _TILE)]).view(*grid.shape, -1)
