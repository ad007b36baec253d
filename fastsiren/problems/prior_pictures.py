"""Pictures of "prior": what was known, what was made of it and what is true; and the way between two images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ..grids import Grid
from ..tensorfile import Array
from .pictures import GAP, INK, PAPER
from .prior_networks import Prior, values_at

if TYPE_CHECKING:
    from .prior import PriorExperiment

__all__ = ["between", "table"]

# Of the pictures, in pixels; images are shown pixel by pixel.
_CELL, _HEAD = 96, 26
_SHOWN = 6
# Pixels that nobody knows are neither dark nor light.
_UNKNOWN = (44, 52, 78)
_BETWEEN, _FINER = 9, 3


def table(problem: PriorExperiment, net: nn.Module) -> Image.Image:
    """A row per test image: for each context what is known and what is made of it; at last the truth."""
    columns: list[tuple[str, list[Array]]] = []
    for name, context in problem.contexts.items():
        title = f"{name} pixels" if name.isdigit() else name
        if name != "full":
            columns.append((title, [_sparse(problem, *each) for each in zip(context.pixels, context.values)]))
        found = problem.reconstructed(net, context)
        columns.append((f"from {name}", [_shown(each, problem.settings.side) for each in found]))
    columns.append(("truth", [_shown(each, problem.settings.side) for each in problem.truth]))
    return _mosaic([(title, cells[:_SHOWN]) for title, cells in columns])


def between(problem: PriorExperiment, net: Prior) -> Image.Image:
    """The way from one test image to another, straight in latents, at three times the resolution."""
    side = problem.settings.side * _FINER
    x = Grid.over((side, side)).coordinates().flatten(0, 1)
    latent = problem.inferred(net, problem.contexts["full"]).latent
    share = torch.linspace(0, 1, _BETWEEN)[:, None]
    rows = []
    with torch.no_grad():
        for i in range(0, min(_SHOWN, len(latent) - 1), 2):
            made = net.networks(torch.lerp(latent[i], latent[i + 1], share))
            rows.append(values_at(made, x).clamp(-1, 1))
    cells = [[_shown(row[k], side) for row in rows] for k in range(_BETWEEN)]
    return _mosaic([(f"{float(share[k]):.3g}", cells[k]) for k in range(_BETWEEN)])


def _mosaic(columns: list[tuple[str, list[Array]]]) -> Image.Image:
    """Columns of pictures with a title each."""
    rows, gap = len(columns[0][1]), GAP // 2
    size = gap + len(columns) * (_CELL + gap), _HEAD + rows * (_CELL + gap)
    made, font = Image.new("RGB", size, PAPER), ImageFont.load_default(14)
    for k, (title, cells) in enumerate(columns):
        left = gap + k * (_CELL + gap)
        ImageDraw.Draw(made).text((left + _CELL // 2, 6), title, fill=INK, font=font, anchor="mt")
        for i, cell in enumerate(cells):
            panel = Image.fromarray(cell).resize((_CELL, _CELL), Image.Resampling.NEAREST)
            made.paste(panel, (left, _HEAD + i * (_CELL + gap)))
    return made


def _shown(values: Tensor, side: int) -> Array:  # [P, C] -> [S, S, 3] uint8
    pixels = (values.reshape(side, side, -1) * 127.5 + 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.expand(side, side, 3).numpy())


def _sparse(problem: PriorExperiment, index: Tensor, values: Tensor) -> Array:
    """The known pixels of an image, the others in a colour of their own."""
    side = problem.settings.side
    known = (values * 127.5 + 127.5).round().to(torch.uint8).expand(-1, 3)
    made = torch.tensor(_UNKNOWN, dtype=torch.uint8).repeat(side * side, 1)
    made[index] = known
    return made.view(side, side, 3).numpy()
