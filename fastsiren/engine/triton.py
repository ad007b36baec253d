"""Backend "triton": every pass by the kernels of fastsiren.kernels, for fp32 and fp64 tensors on NVIDIA GPUs.

Arguments are those of the other backends: x [N, D], directions [K, D] or [N, K, D], forms [R, K, K] or [N, R, K, K],
combinations [C, O] or [N, C, O]; and `precision`, of the operands of hidden products. Parameters may have an axis of G
networks in front, whose N / G points follow one another (pass_kind.py). Points are taken in chunks whose size does not
depend on N: nothing of size N x width is ever allocated, and a backward pass runs the forward pass of its chunk again.
Under TRITON_INTERPRET=1 the kernels are interpreted, on tensors of the CPU.
"""

import functools
import math
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from fastsiren.engine.network import Grads
from fastsiren.engine.triton_call import Bar, Networks, points_of
from fastsiren.engine.triton_chunk import (
    channels_last,
    jacobian,
    jet_bars,
    jet_outputs,
    jet_results,
    put_inputs,
    reverse_sandwich,
    sandwich,
    sums_of,
    tangent_reverse,
)
from fastsiren.engine.triton_loss import loss_fwd
from fastsiren.kernels.adjoint import contracted
from fastsiren.kernels.configs import PIXEL_ROWS
from fastsiren.kernels.jet import jet_reverse, jet_sweep
from fastsiren.kernels.weight_grad import WeightGrads
from fastsiren.kernels.whole import Grid, fused, grid_value

TAKES_NETWORKS = True

PIXELS = (torch.float16, torch.float32, torch.float64, torch.uint8, torch.uint16)


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


def value_bwdbwd(
    x_bar_bar: Tensor | None,  # [N, D]
    W_bar_bar: Sequence[Tensor] | None,
    b_bar_bar: Sequence[Tensor] | None,
    y_bar: Tensor,  # [N, O]
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    precision: str = "fp32",
) -> tuple[Tensor, Grads]:
    """Vector-Jacobian product of value_bwd: y_bar_bar [N, O] and the gradients of x and the parameters."""
    # These tangents are cotangents, of any magnitude: "tf32" multiplies as "fp16" does and stores them in full range.
    net = Networks(weights, biases, omegas, "tf32" if precision == "fp16" else precision)
    net.move(W_bar_bar, b_bar_bar)
    points, N, D = net.points(x).flatten(0, 1), x.shape[0], net.inputs
    x_dot = torch.zeros_like(points) if x_bar_bar is None else net.check("x_bar_bar", x_bar_bar, N, D)
    y_bar, sums = net.check("y_bar", y_bar, N, net.outputs), WeightGrads(net.count)
    y_dot, x_bar = y_bar.new_empty(y_bar.shape), points.new_empty(points.shape)
    for chunk in net.chunks(N, 2):
        rows, own = chunk.rows, sums.of(chunk.networks.start)
        y_dot[rows], x_bar[rows] = tangent_reverse(chunk, points[rows], x_dot[rows], y_bar[rows], own)
    return y_dot, Grads(x_bar, (), *net.grads(sums))


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
    net = Networks(weights, biases, omegas, precision)
    points, (N, O) = points_of(net, x, directions, forms), (x.shape[0], net.outputs)
    K, R = directions.shape[-2], forms.shape[-3]
    y, T, S = x.new_empty(N, O), x.new_empty(N, K, O), x.new_empty(N, R, O)
    # What stays on the chip needs no chunks of rows.
    for chunk in net.chunks(N, 1 + K + R, fused=net.fit(1 + K + R), kept=False):
        rows = chunk.rows
        y[rows], T[rows], S[rows] = jet_results(net, jet_outputs(points, chunk), K)
    return y, T, S


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
    net = Networks(weights, biases, omegas, precision)
    points, (N, O) = points_of(net, x, directions, forms), (x.shape[0], net.outputs)
    K, R = directions.shape[-2], forms.shape[-3]
    y_bar, T_bar = net.check("y_bar", y_bar, N, O), net.check("T_bar", T_bar, N, K, O)
    S_bar, sums = net.check("S_bar", S_bar, N, R, O), WeightGrads(net.count) if need_params else None
    x_bar, V_bar, M_bar = Bar(x, True), Bar(directions, directions.ndim == 3), Bar(forms, forms.ndim == 4)
    # M_bar has R K K numbers per point and block of at least 16 units.
    for chunk in net.chunks(N, 1 + K + R + R * K * K // 16):
        rows, M = chunk.rows, points.forms(chunk)
        last, trace = jet_sweep(chunk.kernels, points.bottom(chunk), M, chunk.N, keep=True)
        bars = jet_bars(net, y_bar[rows], T_bar[rows], S_bar[rows])
        Z_bar, found = jet_reverse(chunk.kernels, trace, last, bars, M, chunk.N, sums_of(sums, chunk), need_seeds)
        if need_x or need_seeds:
            put_inputs(net, chunk, Z_bar[: 1 + K], x_bar, V_bar)
        if found is not None:
            found = found.movedim(-1, 0)
            M_bar.put(rows, (found + found.mT) / 2)
    seeds = (V_bar.value, M_bar.value) if need_seeds else ()
    return Grads(x_bar.value if need_x else None, seeds, *net.grads(sums))


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
    net = Networks(weights, biases, omegas, precision)
    points, (N, D), O = points_of(net, x, directions), x.shape, net.outputs
    K, C = directions.shape[-2], combinations.shape[-2]
    E = net.seeds("combinations", combinations, N, C, O)
    y, J, H = x.new_empty(N, O), x.new_empty(N, C, D), x.new_empty(N, C, K, K)
    for chunk in net.chunks(N, 1 + K + 2 * C):
        rows, made = chunk.rows, sandwich(points, E, chunk)
        y[rows], J[rows] = chunk.outputs(made.last[:1])[0], jacobian(chunk, made)
        H[rows] = contracted(chunk.kernels, made.trace, made.adjoints, chunk.N) * net.sigma**2
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
    net = Networks(weights, biases, omegas, precision)
    points, (N, D), O = points_of(net, x, directions), x.shape, net.outputs
    K, C = directions.shape[-2], combinations.shape[-2]
    E, y_bar = net.seeds("combinations", combinations, N, C, O), net.check("y_bar", y_bar, N, O)
    J_bar, H_bar = net.check("J_bar", J_bar, N, C, D), net.check("H_bar", H_bar, N, C, K, K)
    sums = WeightGrads(net.count) if need_params else None
    x_bar, V_bar = Bar(x, True), Bar(directions, directions.ndim == 3)
    E_bar = Bar(combinations, combinations.ndim == 3)
    for chunk in net.chunks(N, 2 + 2 * K + 4 * C):
        rows, made = chunk.rows, sandwich(points, E, chunk)
        Z_bar, up = reverse_sandwich(net, chunk, made, y_bar[rows], J_bar[rows], H_bar[rows], sums_of(sums, chunk))
        if need_x or need_seeds:
            put_inputs(net, chunk, Z_bar, x_bar, V_bar)
        if need_seeds:
            E_bar.put(rows, channels_last(chunk.combinations(up)))
    seeds = (V_bar.value, E_bar.value) if need_seeds else ()
    return Grads(x_bar.value if need_x else None, seeds, *net.grads(sums))


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
    """Decode a grid straight into `out`; coordinates of more than a few of its points are never stored."""
    net = Networks(weights, biases, omegas, precision)
    size = math.prod(shape), net.outputs
    if out.device != net.like.device or out.dtype not in PIXELS or tuple(out.shape) != size or not out.is_contiguous():
        raise ValueError(
            f"out: got {out.dtype} of shape {tuple(out.shape)} on {out.device}, expected contiguous {size} on "
            f"{net.like.device}, one of {list(PIXELS)}"
        )
    grid = Grid(origin, step, start, shape, gain, offset)
    kernels = net.packed(slice(0, 1))
    if net.fit(1, grid=True):
        fused(kernels, None, out[None, None], grid=grid)
    else:
        grid_value(kernels, out[None], grid, PIXEL_ROWS if net.fit(1) else net.chunk_rows(1, kept=False))


def with_precision(precision: str) -> SimpleNamespace:
    """The passes of this module with operands of hidden products of this precision."""
    forward = (value_fwd, jet_fwd, adjoint_fwd, sandwich_fwd, grid_fwd)
    passes = (*forward, value_bwd, value_bwdbwd, jet_bwd, adjoint_bwd, sandwich_bwd, loss_fwd)
    functions = {each.__name__: functools.partial(each, precision=precision) for each in passes}
    return SimpleNamespace(TAKES_NETWORKS=TAKES_NETWORKS, **functions)
