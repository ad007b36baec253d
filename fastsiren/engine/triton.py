"""Backend "triton": every pass by the kernels of fastsiren.kernels, for fp32 and fp64 tensors on NVIDIA GPUs.

Arguments are those of the other backends: x [N, D], directions [K, D] or [N, K, D], forms [R, K, K] or [N, R, K, K],
combinations [C, O] or [N, C, O]; and `precision`, of the operands of hidden products. Points are taken in chunks whose
size does not depend on N: nothing of size N x width is ever allocated, and a backward pass runs the forward pass of its
chunk again. Under TRITON_INTERPRET=1 the kernels are interpreted, on tensors of the CPU.
"""

import functools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from fastsiren.engine.network import Grads
from fastsiren.engine.triton_call import Bar, Net, Points, points_of
from fastsiren.kernels.adjoint import Adjoints, Cotangents, adjoint_sweep, contracted, sandwich_reverse
from fastsiren.kernels.jet import Trace, jet_reverse, jet_sweep
from fastsiren.kernels.weight_grad import WeightGrads
from fastsiren.kernels.whole import Grid, fits, fused, grid_value

PIXELS = (torch.float16, torch.float32, torch.float64, torch.uint8, torch.uint16)


def _first(channels: Tensor) -> Tensor:
    """[n, C, O] -> [C, n, O]."""
    return channels.movedim(1, 0)


def _last(channels: Tensor) -> Tensor:
    """[C, n, O] -> [n, C, O]."""
    return channels.movedim(0, 1)


def value_fwd(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float], *, precision: str = "fp32"
) -> Tensor:
    """Return y [N, O]."""
    return jet_fwd(x, *_no_seeds(x), weights, biases, omegas, precision=precision)[0]


def value_bwd(
    y_bar: Tensor,  # [N, O]
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_params: bool,
    precision: str = "fp32",
) -> Grads:
    """Vector-Jacobian product of value_fwd."""
    none = y_bar.new_empty(y_bar.shape[0], 0, y_bar.shape[1])
    directions, forms = _no_seeds(x)
    return jet_bwd(
        y_bar, none, none, x, directions, forms, weights, biases, omegas,
        need_x=need_x, need_seeds=False, need_params=need_params, precision=precision,
    )  # fmt: skip


def _no_seeds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions and forms of a jet that is the value alone."""
    return x.new_empty(0, x.shape[-1]), x.new_empty(0, 0, 0)


def jet_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], T [N, K, O] and S [N, R, O]."""
    net = Net(weights, biases, omegas, precision)
    points, (N, O) = points_of(net, x, directions, forms), (x.shape[0], net.kernels.outputs)
    K, R = directions.shape[-2], forms.shape[-3]
    y, T, S = x.new_empty(N, O), x.new_empty(N, K, O), x.new_empty(N, R, O)
    # What stays on the chip needs no chunks.
    for rows in (slice(0, N),) if fits(net.kernels, 1 + K + R) else net.chunks(N, 1 + K + R):
        y[rows], T[rows], S[rows] = _jet_results(net, _jet_outputs(points, rows), K)
    return y, T, S


def _jet_outputs(points: Points, rows: slice) -> Tensor:
    """[1 + K + R, n, O], what leaves the last layer, values with their bias."""
    net, S, M = points.net, points.bottom(rows), points.forms(rows)
    C, n = len(S) + M.shape[-3], S.shape[1]
    if not fits(net.kernels, C):
        last, _ = jet_sweep(net.kernels, S, M, n, keep=False)
        return net.outputs(last)
    # Forms without directions give zeros, which the kernel does not write.
    make = S.new_zeros if len(S) == 1 < C else S.new_empty
    Y = make(C, 1, n, net.kernels.outputs)
    fused(net.kernels, S[:, None], Y, M if len(S) > 1 else None)
    return Y[:, 0]


def _jet_results(net: Net, Y: Tensor, K: int) -> tuple[Tensor, Tensor, Tensor]:
    """y [n, O], T [n, K, O] and S [n, R, O] from what leaves the last layer."""
    return Y[0], _last(Y[1 : 1 + K]) * net.sigma, _last(Y[1 + K :]) * net.sigma**2


def jet_bwd(
    y_bar: Tensor,  # [N, O]
    T_bar: Tensor,  # [N, K, O]
    S_bar: Tensor,  # [N, R, O]
    x: Tensor,  # [N, D]
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
    precision: str = "fp32",
) -> Grads:
    """Vector-Jacobian product of jet_fwd; seeds are V_bar and M_bar."""
    net = Net(weights, biases, omegas, precision)
    points, (N, O) = points_of(net, x, directions, forms), (x.shape[0], net.kernels.outputs)
    K, R = directions.shape[-2], forms.shape[-3]
    y_bar, T_bar = net.check("y_bar", y_bar, N, O), net.check("T_bar", T_bar, N, K, O)
    S_bar, sums = net.check("S_bar", S_bar, N, R, O), WeightGrads() if need_params else None
    x_bar, V_bar, M_bar = Bar(x, True), Bar(directions, directions.ndim == 3), Bar(forms, forms.ndim == 4)
    # M_bar has R K K numbers per point and block of at least 16 units.
    for rows in net.chunks(N, 1 + K + R + R * K * K // 16):
        bottom, M = points.bottom(rows), points.forms(rows)
        last, trace = jet_sweep(net.kernels, bottom, M, bottom.shape[1], keep=True)
        bars = _jet_bars(net, y_bar[rows], T_bar[rows], S_bar[rows])
        Z_bar, found = jet_reverse(net.kernels, trace, last, bars, M, bottom.shape[1], sums, need_seeds)
        if need_x or need_seeds:
            _put_inputs(net, rows, Z_bar[: 1 + K], x_bar, V_bar)
        if found is not None:
            found = found.movedim(-1, 0)
            M_bar.put(rows, (found + found.mT) / 2)
    seeds = (V_bar.value, M_bar.value) if need_seeds else ()
    return Grads(x_bar.value if need_x else None, seeds, *net.grads(sums))


def _jet_bars(net: Net, y_bar: Tensor, T_bar: Tensor, S_bar: Tensor) -> Tensor:
    """[1 + K + R, n, O] from cotangents of the results."""
    return torch.cat([y_bar[None], _first(T_bar) * net.sigma, _first(S_bar) * net.sigma**2])


def _put_inputs(net: Net, rows: slice, Z_bar: Tensor, x_bar: Bar, V_bar: Bar) -> None:
    """(11), (27) below layer 0: cotangents of points and directions."""
    bars = net.inputs(Z_bar)
    x_bar.put(rows, bars[0])
    V_bar.put(rows, _last(bars[1:]) / net.sigma)


class _Sandwich(NamedTuple):
    """A sandwich of one chunk, as far as its results."""

    bottom: Tensor  # [1 + K, n, D]
    E: Tensor  # [C, n, O]
    last: Tensor
    trace: Trace
    adjoints: Adjoints


def _sandwich(points: Points, combinations: Tensor, rows: slice) -> _Sandwich:
    net, bottom = points.net.kernels, points.bottom(rows)
    n = bottom.shape[1]
    E = combinations[rows] if combinations.ndim == 3 else combinations.expand(n, *combinations.shape)
    E = _first(E).contiguous()
    last, trace = jet_sweep(net, bottom, points.forms(rows), n, keep=True)
    return _Sandwich(bottom, E, last, trace, adjoint_sweep(net, trace, E, n))


def _jacobian(net: Net, made: _Sandwich) -> Tensor:
    """(15): J [n, C, D]."""
    return _last(net.inputs(made.adjoints.g[0]))


def sandwich_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], J [N, C, D] and H [N, C, K, K]."""
    net = Net(weights, biases, omegas, precision)
    points, (N, D), O = points_of(net, x, directions), x.shape, net.kernels.outputs
    K, C = directions.shape[-2], combinations.shape[-2]
    E = net.seeds("combinations", combinations, N, C, O)
    y, J, H = x.new_empty(N, O), x.new_empty(N, C, D), x.new_empty(N, C, K, K)
    for rows in net.chunks(N, 1 + K + 2 * C):
        made = _sandwich(points, E, rows)
        y[rows], J[rows] = net.outputs(made.last[:1])[0], _jacobian(net, made)
        H[rows] = contracted(net.kernels, made.trace, made.adjoints, made.E.shape[1]) * net.sigma**2
    return y, J, H


def sandwich_bwd(
    y_bar: Tensor,  # [N, O]
    J_bar: Tensor,  # [N, C, D]
    H_bar: Tensor,  # [N, C, K, K]
    x: Tensor,  # [N, D]
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
    precision: str = "fp32",
) -> Grads:
    """Vector-Jacobian product of sandwich_fwd; seeds are V_bar and E_bar."""
    net = Net(weights, biases, omegas, precision)
    points, (N, D), O = points_of(net, x, directions), x.shape, net.kernels.outputs
    K, C = directions.shape[-2], combinations.shape[-2]
    E, y_bar = net.seeds("combinations", combinations, N, C, O), net.check("y_bar", y_bar, N, O)
    J_bar, H_bar = net.check("J_bar", J_bar, N, C, D), net.check("H_bar", H_bar, N, C, K, K)
    sums = WeightGrads() if need_params else None
    x_bar, V_bar = Bar(x, True), Bar(directions, directions.ndim == 3)
    E_bar = Bar(combinations, combinations.ndim == 3)
    for rows in net.chunks(N, 2 + 2 * K + 4 * C):
        made = _sandwich(points, E, rows)
        Z_bar, up = _sandwich_reverse(net, made, y_bar[rows], J_bar[rows], H_bar[rows], sums)
        if need_x or need_seeds:
            _put_inputs(net, rows, Z_bar, x_bar, V_bar)
        if need_seeds:
            E_bar.put(rows, _last(net.combinations(up)))
    seeds = (V_bar.value, E_bar.value) if need_seeds else ()
    return Grads(x_bar.value if need_x else None, seeds, *net.grads(sums))


def _sandwich_reverse(
    net: Net, made: _Sandwich, y_bar: Tensor, J_bar: Tensor, H_bar: Tensor, sums: WeightGrads | None
) -> tuple[Tensor, Tensor]:
    S_bar = ((H_bar + H_bar.mT) * (net.sigma**2 / 2)).contiguous()
    bars = Cotangents(y_bar[None].contiguous(), _first(J_bar).contiguous(), S_bar)
    n = made.bottom.shape[1]
    return sandwich_reverse(net.kernels, made.trace, made.adjoints, made.last, made.E, bars, n, sums)


def adjoint_fwd(
    x: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Return y [N, O] and J [N, C, D]: a sandwich without directions."""
    none = x.new_empty(0, x.shape[1])
    return sandwich_fwd(x, none, combinations, weights, biases, omegas, precision=precision)[:2]


def adjoint_bwd(
    y_bar: Tensor,  # [N, O]
    J_bar: Tensor,  # [N, C, D]
    x: Tensor,  # [N, D]
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
    precision: str = "fp32",
) -> Grads:
    """Vector-Jacobian product of adjoint_fwd; the one seed is E_bar."""
    none, H_bar = x.new_empty(0, x.shape[1]), x.new_empty(x.shape[0], combinations.shape[-2], 0, 0)
    needs = {"need_x": need_x, "need_seeds": need_seeds, "need_params": need_params}
    grads = sandwich_bwd(
        y_bar, J_bar, H_bar, x, none, combinations, weights, biases, omegas, **needs, precision=precision
    )
    return grads._replace(seeds=grads.seeds[1:])


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
    """Loss and parameter gradients in one pass over chunks of points; see the table of backends for the losses."""
    net = Net(weights, biases, omegas, precision)
    (N, D), O = x.shape, net.kernels.outputs
    if (target is None) != (kind == "eikonal"):
        raise ValueError(f"target: got {target}, expected a tensor for every loss but 'eikonal', which takes None")
    if target is not None:
        target = net.check("target", target, N, *((O, D) if kind == "gradient" else (O,)))
    weight = x.new_ones(1).expand(N) if weight is None else net.check("weight", weight, N)
    eye = torch.eye(D, dtype=x.dtype, device=x.device)
    directions = eye if kind == "laplacian" or (kind != "value" and D <= O) else eye[:0]
    forms = eye[None] if kind == "laplacian" else eye.new_empty(0, *[len(directions)] * 2)
    points, sums = points_of(net, x, directions, forms), WeightGrads() if need_params else None
    loss, count = x.new_zeros(()), N * O if reduction == "mean" else 1
    for rows in net.chunks(N, 2 * (1 + D + O)):
        wanted = None if target is None else target[rows]
        loss = loss + _loss_chunk(kind, points, rows, wanted, weight[rows], count, sums)
    if N == 0 and reduction == "mean":
        loss = loss + math.nan
    return loss, Grads(None, (), *net.grads(sums))


def _loss_chunk(
    kind: str, points: Points, rows: slice, target: Tensor | None, weight: Tensor, count: int, sums: WeightGrads | None
) -> Tensor:
    """Loss of a chunk; its gradients are added to `sums`. Reverse mode when there are fewer outputs than inputs."""
    net, K = points.net, points.V.shape[-2]
    if kind in ("gradient", "eikonal") and not K:
        E = torch.eye(net.kernels.outputs, dtype=points.x.dtype, device=points.x.device)
        made = _sandwich(points, E, rows)
        loss, J_bar = _residual(kind, _jacobian(net, made), target, weight, count)
        if sums is not None:
            none = J_bar.new_empty(*J_bar.shape[:2], 0, 0)
            _sandwich_reverse(
                net, made, torch.zeros_like(made.last[0, :, :1]).expand(-1, J_bar.shape[1]), J_bar, none, sums
            )
        return loss
    bottom, M = points.bottom(rows), points.forms(rows)
    last, trace = jet_sweep(net.kernels, bottom, M, bottom.shape[1], keep=sums is not None)
    results = list(_jet_results(net, net.outputs(last), K))
    part = {"value": 0, "laplacian": 2}.get(kind, 1)
    quantity = {0: results[0], 1: results[1].mT, 2: results[2].squeeze(1)}[part]
    loss, slope = _residual(kind, quantity, target, weight, count)
    if sums is not None:
        bars = [torch.zeros_like(result) for result in results]
        bars[part] = {0: slope, 1: slope.mT, 2: slope.unsqueeze(1)}[part]
        jet_reverse(net.kernels, trace, last, _jet_bars(net, *bars).contiguous(), M, bottom.shape[1], sums, False)
    return loss


def _residual(kind: str, quantity: Tensor, target: Tensor | None, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The loss and the cotangent of the quantity, [n, O] or [n, O, D]."""
    if target is not None:
        residual = slope = quantity - target
    else:
        norm = torch.linalg.vector_norm(quantity, dim=-1, keepdim=True)  # [n, O, 1]
        residual = norm - 1
        # At norm 0 the gradient of the norm is taken as 0, as torch does: J / 1.
        slope = residual * (quantity / torch.where(norm == 0, torch.ones_like(norm), norm))
    w = weight.reshape(-1, *[1] * (quantity.ndim - 1)) / count
    return (w * residual.square()).sum(), 2 * w * slope


def grid_fwd(
    origin: Sequence[float],
    step: Sequence[float],
    start: Sequence[int],
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    out: Tensor,  # [prod(shape), O]
    gain: float,
    offset: float,
    precision: str = "fp32",
) -> None:
    """Decode a grid straight into `out`; its coordinates are never stored."""
    net = Net(weights, biases, omegas, precision)
    size = math.prod(shape), net.kernels.outputs
    if out.device != net.like.device or out.dtype not in PIXELS or tuple(out.shape) != size or not out.is_contiguous():
        raise ValueError(
            f"out: got {out.dtype} of shape {tuple(out.shape)} on {out.device}, expected contiguous {size} on "
            f"{net.like.device}, one of {list(PIXELS)}"
        )
    grid = Grid(origin, step, start, shape, gain, offset)
    if fits(net.kernels, 1):
        fused(net.kernels, None, out[None, None], grid=grid)
    else:
        grid_value(net.kernels, out[None], grid, net.chunk_rows(1))


def with_precision(precision: str) -> SimpleNamespace:
    """The passes of this module with operands of hidden products of this precision."""
    forward = (value_fwd, jet_fwd, adjoint_fwd, sandwich_fwd, grid_fwd)
    passes = (*forward, value_bwd, jet_bwd, adjoint_bwd, sandwich_bwd, loss_fwd)
    return SimpleNamespace(**{each.__name__: functools.partial(each, precision=precision) for each in passes})
