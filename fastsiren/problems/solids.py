"""Solids given by formulas: negative inside, zero on the surface, and near it about the distance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["SOLIDS"]

# Points of the knot's middle line that the search for the nearest one begins from.
_STARTS = 96


def _length(*parts: Tensor) -> Tensor:
    return torch.stack(parts, -1).norm(dim=-1)


def _union(a: Tensor, b: Tensor, round: float) -> Tensor:
    """Both, with a fillet where they meet."""
    share = (0.5 + 0.5 * (b - a) / round).clamp(0, 1)
    return b + (a - b) * share - round * share * (1 - share)


def _common(a: Tensor, b: Tensor, round: float) -> Tensor:
    """What both share, with rounded edges."""
    return -_union(-a, -b, round)


def _sphere(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.75


def _torus(x: Tensor) -> Tensor:
    return _length(_length(x[..., 0], x[..., 1]) - 0.6, x[..., 2]) - 0.25


def _box(x: Tensor) -> Tensor:
    """Edges and corners are rounded."""
    beyond = x.abs() - torch.tensor([0.7, 0.5, 0.4], dtype=x.dtype, device=x.device)
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0) - 0.08


def _blend(x: Tensor) -> Tensor:
    """A ring around a pillar with a ball on top, holes along both horizontal axes."""
    ring = _length(_length(x[..., 0], x[..., 1]) - 0.68, x[..., 2] + 0.45) - 0.17
    pillar = _length(x[..., 0], x[..., 1], x[..., 2] - x[..., 2].clamp(-0.6, 0.1)) - 0.2
    spokes = torch.minimum(_length(x[..., 0], x[..., 2] + 0.45), _length(x[..., 1], x[..., 2] + 0.45)) - 0.08
    inner = _common(spokes, _length(x[..., 0], x[..., 1]) - 0.68, 0.02)
    ball = x.sub(torch.tensor([0, 0, 0.42], dtype=x.dtype, device=x.device)).norm(dim=-1) - 0.4
    holes = torch.minimum(_length(x[..., 0], x[..., 2] - 0.42), _length(x[..., 1], x[..., 2] - 0.42)) - 0.16
    return _union(_union(ring, inner, 0.1), _union(pillar, _common(ball, -holes, 0.05), 0.15), 0.1)


def _gyroid(x: Tensor) -> Tensor:
    """A sheet of Schoen's gyroid within a ball."""
    k = 6.5
    s, c = (k * x).sin(), (k * x).cos()
    waves = (s * c.roll(-1, -1)).sum(-1)
    return _common(waves.abs() / (1.5 * k) - 0.055, x.norm(dim=-1) - 0.85, 0.04)


def _knot(x: Tensor) -> Tensor:
    """A tube along a trefoil."""
    with torch.no_grad():
        starts = torch.arange(_STARTS, dtype=x.dtype, device=x.device) * (2 * math.pi / _STARTS)
        at, _ = _trefoil(starts)
        nearest = torch.cat([(at.square().sum(-1) - 2 * part @ at.mT).argmin(-1) for part in x.split(8192)])
        t = starts[nearest]
        for _ in range(4):
            at, ahead = _trefoil(t)
            step = ((at - x) * ahead).sum(-1) / ahead.square().sum(-1)
            # Near the axis of a bend Newton's steps are far too long.
            t = t - step.clamp(-math.pi / _STARTS, math.pi / _STARTS)
    # The nearest point moves along the line only: to first order that does not change the distance.
    return (x - _trefoil(t)[0]).norm(dim=-1) - 0.17


def _trefoil(t: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the line and their derivatives."""
    c2, s2, c3, s3 = (2 * t).cos(), (2 * t).sin(), (3 * t).cos(), (3 * t).sin()
    out = 2 + c3
    at = [out * c2, out * s2, 1.2 * s3]
    ahead = [-3 * s3 * c2 - 2 * out * s2, -3 * s3 * s2 + 2 * out * c2, 3.6 * c3]
    return 0.25 * torch.stack(at, -1), 0.25 * torch.stack(ahead, -1)


SOLIDS: dict[str, Callable[[Tensor], Tensor]] = {
    "knot": _knot,
    "blend": _blend,
    "gyroid": _gyroid,
    "box": _box,
    "torus": _torus,
    "sphere": _sphere,
}
"""By name, functions from points [N, 3] of [-1, 1]^3 to numbers [N]."""
