"""Losses of the Triton backend: value and parameter gradients in one pass over chunks of points."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastsiren.engine.network import Grads
from fastsiren.engine.triton_call import Chunk, Networks, Points, points_of
from fastsiren.engine.triton_chunk import jacobian, jet_bars, jet_results, reverse_sandwich, sandwich, sums_of
from fastsiren.kernels.jet import jet_reverse, jet_sweep
from fastsiren.kernels.weight_grad import WeightGrads


def loss_fwd(
    kind: str,
    x: Tensor,  # [N, D]
    target: Tensor | None,  # [N, O], [N, O, D] for "gradient", None for "eikonal"
    weight: Tensor | None,  # [N]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_params: bool,
    reduction: str,
    precision: str = "fp32",
) -> tuple[Tensor, Grads]:
    """Loss, or [G], and parameter gradients in one pass over chunks of points; see composed_loss.py for the losses."""
    net = Networks(weights, biases, omegas, precision)
    points, D, O = net.points(x), net.inputs, net.outputs
    N, n = points.shape[0] * points.shape[1], points.shape[1]
    if (target is None) != (kind == "eikonal"):
        raise ValueError(f"target: got {target}, expected a tensor for every loss but 'eikonal', which takes None")
    if target is not None:
        target = net.check("target", target, N, *((O, D) if kind == "gradient" else (O,)))
    weight = x.new_ones(1).expand(N) if weight is None else net.check("weight", weight, N)
    eye = torch.eye(D, dtype=x.dtype, device=x.device)
    directions = eye if kind == "laplacian" or (kind != "value" and D <= O) else eye[:0]
    forms = eye[None] if kind == "laplacian" else eye.new_empty(0, *[len(directions)] * 2)
    given, sums = points_of(net, x, directions, forms), WeightGrads(net.count) if need_params else None
    # In fp64, where the order of a sum does not show.
    loss, count = x.new_zeros(net.count, dtype=torch.float64), n * O if reduction == "mean" else 1
    for chunk in net.chunks(N, 2 * (1 + D + O)):
        wanted = None if target is None else target[chunk.rows]
        squares = _loss_chunk(kind, given, chunk, wanted, weight[chunk.rows] / count, sums_of(sums, chunk))
        loss[chunk.networks] += squares.reshape(-1, chunk.N * squares[0].numel()).sum(1, dtype=torch.float64)
    if n == 0 and reduction == "mean":
        loss = loss + math.nan
    return loss.to(x.dtype).view(net.axis), Grads(None, (), *net.grads(sums))


def _loss_chunk(
    kind: str, points: Points, chunk: Chunk, target: Tensor | None, weight: Tensor, sums: WeightGrads | None
) -> Tensor:
    """Weighted squares of a chunk, [rows, ..]; their gradients are added to `sums`."""
    # Reverse mode where there are fewer outputs than inputs.
    part = _loss_by_adjoints if kind in ("gradient", "eikonal") and not points.V.shape[-2] else _loss_by_jet
    return part(kind, points, chunk, target, weight, sums)


def _loss_by_adjoints(
    kind: str, points: Points, chunk: Chunk, target: Tensor | None, weight: Tensor, sums: WeightGrads | None
) -> Tensor:
    made = sandwich(points, torch.eye(points.net.outputs, dtype=points.x.dtype, device=points.x.device), chunk)
    squares, J_bar = _residual(jacobian(chunk, made), target, weight)
    if sums is not None:
        none, y_bar = J_bar.new_empty(*J_bar.shape[:2], 0, 0), J_bar.new_zeros(J_bar.shape[:2])
        reverse_sandwich(points.net, chunk, made, y_bar, J_bar, none, sums)
    return squares


def _loss_by_jet(
    kind: str, points: Points, chunk: Chunk, target: Tensor | None, weight: Tensor, sums: WeightGrads | None
) -> Tensor:
    net, M = points.net, points.forms(chunk)
    last, trace = jet_sweep(chunk.kernels, points.bottom(chunk), M, chunk.N, keep=sums is not None)
    results = list(jet_results(net, chunk.outputs(last), points.V.shape[-2]))
    part = {"value": 0, "laplacian": 2}.get(kind, 1)
    quantity = {0: results[0], 1: results[1].mT, 2: results[2].squeeze(1)}[part]
    squares, slope = _residual(quantity, target, weight)
    if sums is not None:
        bars = [torch.zeros_like(result) for result in results]
        bars[part] = {0: slope, 1: slope.mT, 2: slope.unsqueeze(1)}[part]
        jet_reverse(chunk.kernels, trace, last, jet_bars(net, *bars).contiguous(), M, chunk.N, sums, False)
    return squares


def _residual(quantity: Tensor, target: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted squares, and the cotangent of the quantity, [rows, O] or [rows, O, D]; without target |J| is to be 1."""
    if target is not None:
        residual = slope = quantity - target
    else:
        norm = torch.linalg.vector_norm(quantity, dim=-1, keepdim=True)  # [rows, O, 1]
        residual = norm - 1
        # At norm 0 the gradient of the norm is taken as 0, as torch does: J / 1.
        slope = residual * (quantity / torch.where(norm == 0, torch.ones_like(norm), norm))
    w = weight.reshape(-1, *[1] * (quantity.ndim - 1))
    return w * residual.square(), 2 * w * slope
