"""Engine T, a layer at a time: a jet forward and backward. A value is a jet without directions.

Numbers in parentheses are equations of README.md. Channels are theta or h, then K of p or t, then R of q or s.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import COUNTS, launch, layer_tile
from .network import Network
from .sine import sincos
from .tiles import load_tile, rows_of, store_tile, thin_product, wide_product
from .weight_grad import WeightGrads


@triton.jit
def form(M, m_row, m_channel, live):
    """One coefficient of a form for every row [BM, 1]; m_row [BM] are offsets, all zero where forms are shared."""
    return tl.load(M + m_row + m_channel, mask=live, other=0.0)[:, None]


@triton.jit
def apply_form(M, m_row, live, p, r: tl.constexpr, k: tl.constexpr, K: tl.constexpr):
    """sum_j M^r_kj p^j, [BM, BN]."""
    total = form(M, m_row, (r * K + k) * K, live) * p[0]
    for j in tl.static_range(1, K):
        total += form(M, m_row, (r * K + k) * K + j, live) * p[j]
    return total


@triton.jit
def curvature(M, m_row, live, p, r: tl.constexpr, K: tl.constexpr):
    """(2): u^r = sum_kj M^r_kj p^k p^j, [BM, BN]."""
    total = apply_form(M, m_row, live, p, r, 0, K) * p[0]
    for k in tl.static_range(1, K):
        total += apply_form(M, m_row, live, p, r, k, K) * p[k]
    return total


@triton.jit
def entering(
    X, rows, row, live, W_dot, dot_scales, bias_dot, net, n, H,
    THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, TANGENT: tl.constexpr,
    MODE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(28): A' h + beta', what a tangent of a layer's parameters adds to its slopes, [BM or 1, BN]."""
    b = tl.load(bias_dot + net * H + n, mask=n < H, other=0.0)[None, :]
    if TANGENT == "biases":
        return b
    elif THIN:
        return thin_product(X, rows, row, live, W_dot + net * H * INNER, n, INNER, 1, 1, 1, INNER, H, BM, BN)[0] + b
    else:
        z = wide_product(
            X, rows, row, live, W_dot + net * PARTS * WIDTH * INNER, dot_scales + net * WIDTH, n, 1, INNER, WIDTH,
            False, True, MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
        return z[0] + b


@triton.jit(do_not_specialize=COUNTS)
def jet_layer(
    X, W, scales, bias, W_dot, dot_scales, bias_dot, M, Y, Z, rows, N, H, m_stride,
    K: tl.constexpr, R: tl.constexpr, THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
    TANGENT: tl.constexpr, KEEP: tl.constexpr, SINES: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(1) to (3): channels [1 + K + R, rows, INNER] through one sine layer.

    THIN: the first layer, X [1 + K, rows, INNER] and W [networks, H, INNER]; else W is packed. Y gets h, t, s and, with
    KEEP, Z gets theta, p, q, both [1 + K + R, rows, WIDTH]. M holds forms [R, K, K] at every multiple of m_stride.
    TANGENT: "none"; or "biases" or "all" for (28), with K = 1 and R = 0, W_dot as W and bias_dot [networks, H].
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    C: tl.constexpr = 1 + K + R
    if THIN:
        z = thin_product(X, rows, row, live, W + net * H * INNER, n, INNER, 1, C, 1 + K, INNER, H, BM, BN)
        b = tl.load(bias + net * H + n, mask=n < H, other=0.0)
    else:
        z = wide_product(
            X, rows, row, live, W + net * PARTS * WIDTH * INNER, scales + net * WIDTH, n, C, INNER, WIDTH, False, True,
            MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
        b = tl.load(bias + net * WIDTH + n)
    if TANGENT != "none":
        more = entering(
            X, rows, row, live, W_dot, dot_scales, bias_dot, net, n, H, THIN, INNER, WIDTH, PARTS, TANGENT, MODE,
            BM, BN, BK, STAGES,
        )  # fmt: skip
        z = (z[0], z[1] + more)
    theta = z[0] + b[None, :]
    sine, cosine = sincos(theta, SINES)
    store_tile(Y, row, live, n, WIDTH, sine)
    if KEEP:
        store_tile(Z, row, live, n, WIDTH, theta)
    p = ()
    for k in tl.static_range(K):
        p = p + (z[1 + k],)
        store_tile(Y + (1 + k) * rows * WIDTH, row, live, n, WIDTH, cosine * z[1 + k])
        if KEEP:
            store_tile(Z + (1 + k) * rows * WIDTH, row, live, n, WIDTH, z[1 + k])
    for r in tl.static_range(R):
        q = z[1 + K + r]
        s = cosine * q
        if K > 0:
            s -= sine * curvature(M, row * m_stride, live, p, r, K)
        store_tile(Y + (1 + K + r) * rows * WIDTH, row, live, n, WIDTH, s)
        if KEEP:
            store_tile(Z + (1 + K + r) * rows * WIDTH, row, live, n, WIDTH, q)


@triton.jit(do_not_specialize=COUNTS)
def jet_layer_bwd(
    B, W, scales, W_dot, dot_scales, Z, M, Z_bar, M_bar, rows, N, H, m_stride,
    K: tl.constexpr, R: tl.constexpr, THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
    TANGENT: tl.constexpr, NEED_M: tl.constexpr, SINES: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(11) or (5), then (6) to (9): cotangents [1 + K + R, rows, INNER] above to those of this layer's phases.

    THIN: B are cotangents of the outputs and W [networks, INNER, H]; else W is the packed matrix of the layer above. Z
    is what jet_layer kept. M_bar [units / BN, R, K, K, rows] is added to. TANGENT: (29), with K = 1, R = 0 and W_dot as
    W.
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    C: tl.constexpr = 1 + K + R
    if THIN:
        bar = thin_product(B, rows, row, live, W + net * H * INNER, n, 1, H, C, C, INNER, H, BM, BN)
    else:
        bar = wide_product(
            B, rows, row, live, W + net * PARTS * WIDTH * INNER, scales + net * INNER, n, C, INNER, WIDTH, True, False,
            MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
    if TANGENT:
        p_bars = B + rows * INNER
        if THIN:
            more = thin_product(p_bars, rows, row, live, W_dot + net * H * INNER, n, 1, H, 1, 1, INNER, H, BM, BN)
        else:
            more = wide_product(
                p_bars, rows, row, live, W_dot + net * PARTS * WIDTH * INNER, dot_scales + net * INNER, n, 1, INNER,
                WIDTH, True, False, MODE, BM, BN, BK, STAGES,
            )  # fmt: skip
        bar = (bar[0] + more[0], bar[1])
    sine, cosine = sincos(load_tile(Z, row, live, n, WIDTH), SINES)
    p = ()
    for k in tl.static_range(K):
        p = p + (load_tile(Z + (1 + k) * rows * WIDTH, row, live, n, WIDTH),)
    theta_bar = cosine * bar[0]
    for k in tl.static_range(K):
        theta_bar -= sine * bar[1 + k] * p[k]
    for r in tl.static_range(R):
        s_bar = bar[1 + K + r]
        theta_bar -= s_bar * sine * load_tile(Z + (1 + K + r) * rows * WIDTH, row, live, n, WIDTH)
        if K > 0:
            theta_bar -= s_bar * cosine * curvature(M, row * m_stride, live, p, r, K)
        store_tile(Z_bar + (1 + K + r) * rows * WIDTH, row, live, n, WIDTH, cosine * s_bar)
    store_tile(Z_bar, row, live, n, WIDTH, theta_bar)
    for k in tl.static_range(K):
        p_bar = cosine * bar[1 + k]
        for r in tl.static_range(R):
            p_bar -= 2 * sine * bar[1 + K + r] * apply_form(M, row * m_stride, live, p, r, k, K)
        store_tile(Z_bar + (1 + k) * rows * WIDTH, row, live, n, WIDTH, p_bar)
    if NEED_M:
        for r in tl.static_range(R):
            for k in tl.static_range(K):
                for j in tl.static_range(K):
                    at = M_bar + (((tl.program_id(1) * R + r) * K + k) * K + j) * rows + row
                    found = tl.sum(bar[1 + K + r] * sine * p[k] * p[j], axis=1)
                    tl.store(at, tl.load(at, mask=live, other=0.0) - found, mask=live)


class Trace(NamedTuple):
    """What a forward pass keeps for its backward: of every sine layer, its input channels and theta, p, q."""

    inputs: list[Tensor]  # [1 + K (+ R but in the first), rows, width below]
    phases: list[Tensor]  # [1 + K + R, rows, width]


def jet_sweep(net: Network, S: Tensor, M: Tensor, N: int, *, keep: bool) -> tuple[Tensor, Trace]:
    """Channels [1 + K + R, rows, width] after the last sine layer, and the trace, empty unless asked for.

    Args:
        net: G networks.
        S: [1 + K, rows, D], points and directions; G * N rows.
        M: forms [R, K, K], or [rows, R, K, K].
        N: rows of each network.
        keep: whether a backward pass follows.
    """
    trace, X = Trace([], []), S
    for l in range(len(net.units)):
        Z, Y = sine_layer(net, l, X, M, N, keep)
        if keep:
            trace.inputs.append(X)
            trace.phases.append(Z)
        X = Y
    return X, trace


def sine_layer(net: Network, l: int, X: Tensor, M: Tensor, N: int, keep: bool) -> tuple[Tensor, Tensor]:
    """Channels X through sine layer l, and with `keep` its phases; see jet_sweep."""
    K, R, rows, width = M.shape[-1], M.shape[-3], X.shape[1], net.width(l)
    Y = X.new_empty(1 + K + R, rows, width, dtype=net.stored(l))
    Z = net.first.new_empty(Y.shape) if keep else Y
    W, scales = net.up(l)
    bias = net.hidden[l - 1].bias if l else net.first_bias
    # What has no tangent is not read.
    dots = (W, scales) if net.dots is None else net.dots.up(l)
    bias_dot = bias if net.tangent is None else net.tangent.biases[l]
    tile = layer_tile(X.device, 1 + K + R + (net.dots is not None), width, X.shape[2], net.mode, thin=l == 0)
    sizes: dict[str, Any] = {"K": K, "R": R, "THIN": l == 0, "INNER": X.shape[2], "WIDTH": width, "PARTS": W.shape[1]}
    modes: dict[str, Any] = {"TANGENT": net.moved, "KEEP": keep, "SINES": net.sines, "MODE": net.mode}
    grid = (rows // N * triton.cdiv(N, tile["BM"]), width // tile["BN"])
    counts = rows, N, net.units[l], M.stride(0) if M.ndim == 4 else 0
    launch(jet_layer, grid, X, W, scales, bias, *dots, bias_dot, M, Y, Z, *counts, **sizes, **modes, **tile)
    return Z, Y


def jet_reverse(
    net: Network, trace: Trace, last: Tensor, bars: Tensor, M: Tensor, N: int, sums: WeightGrads | None, need_M: bool
) -> tuple[Tensor, Tensor | None]:
    """Cotangents of the first layer's phases [1 + K + R, rows, width], and M_bar [R, K, K, rows] where asked for.

    Args:
        net: G networks.
        trace: what jet_sweep kept.
        last: the channels that jet_sweep returned.
        bars: [1 + K + R, rows, O], cotangents of the outputs of every channel.
        M: as for jet_sweep.
        N: rows of each network.
        sums: gradients of the parameters are added to it; None where they are not asked for.
        need_M: whether M_bar is asked for.
    """
    K, R, rows = M.shape[-1], M.shape[-3], bars.shape[1]
    if sums is not None:
        sums.add_output(len(net.units), last, bars, N)
    # At least as many as a layer has blocks of units.
    blocks = max(net.width(l) for l in range(len(net.units))) // 16
    M_bar = bars.new_zeros(blocks, R, K, K, rows) if need_M else None
    Z_bar = bars
    for l in reversed(range(len(net.units))):
        Z_bar = _sine_layer_bwd(net, l, Z_bar, trace.phases[l], M, M_bar, N)
        if sums is not None:
            sums.add_layer(l, Z_bar, trace.inputs[l], N, net.mode, bias=True)
    return Z_bar, None if M_bar is None else M_bar.sum(0)


def _sine_layer_bwd(net: Network, l: int, B: Tensor, Z: Tensor, M: Tensor, M_bar: Tensor | None, N: int) -> Tensor:
    C, rows, width = Z.shape
    K, R, top = M.shape[-1], M.shape[-3], l + 1 == len(net.units)
    W, scales = net.down(l)
    dots = (W, scales) if net.dots is None else net.dots.down(l)
    Z_bar = torch.empty_like(Z)
    # The sums of M_bar take the registers of another channel, and so does what a tangent adds.
    more = (M_bar is not None) + (net.dots is not None)
    tile = layer_tile(B.device, C + more, width, B.shape[2], net.mode, thin=top)
    sizes: dict[str, Any] = {"K": K, "R": R, "THIN": top, "INNER": B.shape[2], "WIDTH": width, "PARTS": W.shape[1]}
    modes: dict[str, Any] = {"TANGENT": net.dots is not None, "NEED_M": M_bar is not None}
    modes |= {"SINES": net.sines, "MODE": net.mode}
    grid = (rows // N * triton.cdiv(N, tile["BM"]), width // tile["BN"])
    sums = Z if M_bar is None else M_bar
    counts = rows, N, net.units[l], M.stride(0) if M.ndim == 4 else 0
    launch(jet_layer_bwd, grid, B, W, scales, *dots, Z, M, Z_bar, sums, *counts, **sizes, **modes, **tile)
    return Z_bar
