"""What the passes of the Triton backend do with a chunk of their rows.

Tensors of the engine are [rows, C, ..], those of the kernels [C, rows, ..].
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastsiren.engine.triton_call import Bar, Chunk, Networks, Points
from fastsiren.kernels.adjoint import Adjoints, Cotangents, adjoint_sweep, sandwich_reverse
from fastsiren.kernels.jet import Trace, jet_reverse, jet_sweep
from fastsiren.kernels.weight_grad import WeightGrads
from fastsiren.kernels.whole import fused


def channels_first(channels: Tensor) -> Tensor:
    """[n, C, O] -> [C, n, O]."""
    return channels.movedim(1, 0)


def channels_last(channels: Tensor) -> Tensor:
    """[C, n, O] -> [n, C, O]."""
    return channels.movedim(0, 1)


def jet_outputs(points: Points, chunk: Chunk) -> Tensor:
    """[1 + K + R, rows, O], what leaves the last layer, values with their bias."""
    S, M = points.bottom(chunk), points.forms(chunk)
    C, rows = len(S) + M.shape[-3], S.shape[1]
    if not points.net.fit(C):
        last, _ = jet_sweep(chunk.kernels, S, M, chunk.N, keep=False)
        return chunk.outputs(last)
    # Forms without directions give zeros, which the kernel does not write.
    make = S.new_zeros if len(S) == 1 < C else S.new_empty
    Y = make(C, rows, points.net.outputs)
    each = S.view(len(S), -1, chunk.N, S.shape[2]), Y.view(C, -1, chunk.N, Y.shape[2])
    fused(chunk.kernels, *each, M if len(S) > 1 else None)
    return Y


def jet_results(net: Networks, Y: Tensor, K: int) -> tuple[Tensor, Tensor, Tensor]:
    """y [rows, O], T [rows, K, O] and S [rows, R, O] from what leaves the last layer."""
    return Y[0], channels_last(Y[1 : 1 + K]) * net.sigma, channels_last(Y[1 + K :]) * net.sigma**2


def sums_of(sums: WeightGrads | None, chunk: Chunk) -> WeightGrads | None:
    """The sums of a chunk's networks."""
    return None if sums is None else sums.of(chunk.networks.start)


def jet_bars(net: Networks, y_bar: Tensor, T_bar: Tensor, S_bar: Tensor) -> Tensor:
    """[1 + K + R, n, O] from cotangents of the results."""
    return torch.cat([y_bar[None], channels_first(T_bar) * net.sigma, channels_first(S_bar) * net.sigma**2])


def put_inputs(net: Networks, chunk: Chunk, Z_bar: Tensor, x_bar: Bar, V_bar: Bar) -> None:
    """(11), (27) below layer 0: cotangents of points and directions."""
    bars = chunk.inputs(Z_bar)
    x_bar.put(chunk.rows, bars[0])
    V_bar.put(chunk.rows, channels_last(bars[1:]) / net.sigma)


def tangent_reverse(chunk: Chunk, x: Tensor, x_dot: Tensor, y_bar: Tensor, sums: WeightGrads) -> tuple[Tensor, Tensor]:
    """Of networks that are moved: y' [rows, O] along the tangent, and the gradient of <y_bar, y'> in x [rows, D]."""
    net, forms = chunk.kernels, x.new_empty(0, 1, 1)
    last, trace = jet_sweep(net, torch.stack([x, x_dot]), forms, chunk.N, keep=True)
    bars = torch.stack([torch.zeros_like(y_bar), y_bar])
    Z_bar, _ = jet_reverse(net, trace, last, bars, forms, chunk.N, sums, False)
    y_dot, x_bar = chunk.slopes(last), chunk.inputs(Z_bar[:1])[0]
    return y_dot, x_bar if chunk.dots is None else x_bar + chunk.dots.inputs(Z_bar[1:])[0]


class Sandwich(NamedTuple):
    """A sandwich of one chunk, as far as its results."""

    E: Tensor  # [C, rows, O]
    last: Tensor
    trace: Trace
    adjoints: Adjoints


def sandwich(points: Points, combinations: Tensor, chunk: Chunk) -> Sandwich:
    """Run a chunk as far as the results; combinations [C, O], or [N, C, O] of all rows of the call."""
    net, bottom = chunk.kernels, points.bottom(chunk)
    E = combinations[chunk.rows] if combinations.ndim == 3 else combinations.expand(bottom.shape[1], -1, -1)
    E = channels_first(E).contiguous()
    last, trace = jet_sweep(net, bottom, points.forms(chunk), chunk.N, keep=True)
    return Sandwich(E, last, trace, adjoint_sweep(net, trace, E, chunk.N))


def jacobian(chunk: Chunk, made: Sandwich) -> Tensor:
    """(15): J [rows, C, D]."""
    return channels_last(chunk.inputs(made.adjoints.g[0]))


def reverse_sandwich(
    net: Networks, chunk: Chunk, made: Sandwich, y_bar: Tensor, J_bar: Tensor, H_bar: Tensor, sums: WeightGrads | None
) -> tuple[Tensor, Tensor]:
    """Cotangents of the first layer's phases and slopes and of the last adjoints, from those of the results."""
    S_bar = ((H_bar + H_bar.mT) * (net.sigma**2 / 2)).contiguous()
    bars = Cotangents(y_bar[None].contiguous(), channels_first(J_bar).contiguous(), S_bar)
    return sandwich_reverse(chunk.kernels, made.trace, made.adjoints, made.last, made.E, bars, chunk.N, sums)
