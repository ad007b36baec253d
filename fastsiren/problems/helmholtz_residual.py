"""The Helmholtz equation with its absorbing layer, as a residual of a network whose outputs are complex fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..fit.operators import operators
from ..fit.sampler import generator, uniform
from .helmholtz_direct import STRENGTH, WIDTH

__all__ = ["absorption", "field_names", "gaussians", "near_sources", "residual"]

Centre = tuple[float, float]
Medium = Callable[[dict[str, Tensor]], Tensor]

# Standard deviations of a source within which points are added.
_REACH = 5.0


def field_names(count: int) -> list[str]:
    """Names of the outputs of `count` complex fields: real and imaginary parts in turn."""
    return [f"{part}{i}" for i in range(count) for part in ("re", "im")]


def residual(
    net: nn.Module, x: Tensor, k: float, source: Tensor, slowness: Tensor | Medium, *, extra: Sequence[str] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """(∂x(A ∂x u) + ∂y(B ∂y u)) / C + m k² u - f of every field, multiplied out: one fused pass.

    With A = e(y) / e(x), B = e(x) / e(y), C = e(x) e(y). Without the division the absorbing layer, where the field
    vanishes, would outweigh all else: |C| grows to 26.

    Args:
        net: Maps [N, 2] to the parts of the fields, `field_names`, followed by `extra`.
        x: Points [N, 2].
        k: Wavenumber where m is 1.
        source: f, complex, [N, fields].
        slowness: m, [N, 1], or what makes it of the values found by this pass.
        extra: Names of the outputs behind the fields, whose values are returned too.

    Returns:
        The residual, complex, [N, fields]; what the pass found, by name.
    """
    parts = field_names(source.shape[-1])
    wanted = [name + end for name in parts for end in ("", "__x", "__y", "__x__x", "__y__y")]
    found = operators(net).derivatives(net, x, [*wanted, *extra], inputs="xy", outputs=[*parts, *extra])

    def field(end: str) -> Tensor:
        columns = torch.cat([found[name + end] for name in parts], -1).unflatten(-1, (-1, 2))
        return torch.view_as_complex(columns)

    (ex, dx), (ey, dy) = (_stretch(x[:, axis : axis + 1]) for axis in (0, 1))
    m = slowness(found) if callable(slowness) else slowness
    along_x = (field("__x__x") - dx / ex * field("__x")) / ex.square()
    along_y = (field("__y__y") - dy / ey * field("__y")) / ey.square()
    return along_x + along_y + k**2 * m * field("") - source, found


def absorption(x: Tensor) -> Tensor:  # [N, 2] -> [N, 1]
    """C, complex; 1 in the physical part."""
    return _stretch(x[:, :1])[0] * _stretch(x[:, 1:])[0]


def _stretch(x: Tensor) -> tuple[Tensor, Tensor]:
    """e(x) = 1 - i s (depth / width)² and its derivative."""
    depth = (x.abs() - (1 - WIDTH)).clamp(min=0) / WIDTH
    one = torch.ones_like(x)
    slope = -2 * STRENGTH / WIDTH * depth * x.sign()
    return torch.complex(one, -STRENGTH * depth.square()), torch.complex(0 * one, slope)


def gaussians(x: Tensor, centres: Sequence[Centre], sigma: float) -> Tensor:  # [N, 2] -> [N, S]
    """Sources of integral 1."""
    squares = (x.unsqueeze(-2) - torch.tensor(centres, dtype=x.dtype, device=x.device)).square().sum(-1)
    return torch.exp(-squares / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def near_sources(
    count: int, near: int, centres: Sequence[Centre], sigma: float, *, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Points of [-1, 1]², of which `near` more are spread over discs of 5 sigma around the sources.

    Args:
        count: Points in all.
        near: How many of them, the last ones, are drawn from the discs.
        centres: Of the sources.
        sigma: Of the sources.
        seed: Another seed, other points.
        step: Each step has its own points.

    Returns:
        The points [count, 2]; a weight for each [count, 1], with which a mean over them is one over the square.
    """
    radius, everywhere = _REACH * sigma, uniform([-1, -1], [1, 1], count - near, seed=seed, step=step)
    draw = torch.rand(near, 2, generator=generator(seed, step, 1))
    r, angle = radius * draw[:, 0].sqrt(), 2 * math.pi * draw[:, 1]
    places = torch.tensor(centres)
    offset = torch.stack([r * angle.cos(), r * angle.sin()], -1)
    x = torch.cat([everywhere, places[torch.arange(near) % len(centres)] + offset])
    inside = ((x.unsqueeze(-2) - places).square().sum(-1) < radius**2).sum(-1, keepdim=True)
    density = (count - near) / count + near / count * inside * (4 / (len(centres) * math.pi * radius**2))
    return x, 1 / density
