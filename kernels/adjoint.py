"""Engine A, and TxA with directions, a layer at a time: reverse Jacobian, second derivatives, and their backward.

Numbers in parentheses are equations of README.md. The phases theta and slopes p of every layer, channels of Z, come
from jet_sweep without forms.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import COUNTS, launch, layer_tile
from .jet import Trace, apply_form, curvature
from .network import Network
from .sine import sincos
from .tiles import load_tile, rows_of, store_tile, thin_product, wide_product
from .weight_grad import WeightGrads


@triton.jit(do_not_specialize=COUNTS)
def adjoint_layer(
    B, W, scales, Z, A, G, rows, N, H,
    C: tl.constexpr, THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
    SINES: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(13) to (15): g [C, rows, INNER] of the layer above to a and g = c a [C, rows, WIDTH] of this one.

    THIN: B are combinations of the outputs and W [networks, INNER, H]; else W is the packed matrix of the layer above.
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    if THIN:
        a = thin_product(B, rows, row, live, W + net * H * INNER, n, 1, H, C, C, INNER, H, BM, BN)
    else:
        a = wide_product(
            B, rows, row, live, W + net * PARTS * WIDTH * INNER, scales + net * INNER, n, C, INNER, WIDTH, True, False,
            MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
    _, cosine = sincos(load_tile(Z, row, live, n, WIDTH), SINES)
    for c in tl.static_range(C):
        store_tile(A + c * rows * WIDTH, row, live, n, WIDTH, a[c])
        store_tile(G + c * rows * WIDTH, row, live, n, WIDTH, cosine * a[c])


@triton.jit
def slopes(Z, rows, row, live, n, WIDTH: tl.constexpr, K: tl.constexpr):
    """p^k of a layer, a tuple of K tiles."""
    p = ()
    for k in tl.static_range(K):
        p = p + (load_tile(Z + (1 + k) * rows * WIDTH, row, live, n, WIDTH),)
    return p


@triton.jit(do_not_specialize=COUNTS)
def second_derivatives(
    Z, A, S, rows, N, C: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, SINES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """(19): subtract this layer's part from S [rows, C, K, K]; one program per tile of rows sums over all units."""
    _net, row, live = rows_of(tl.program_id(0), N, BM)
    for c in tl.static_range(C):
        for k in tl.static_range(K):
            for j in tl.static_range(k, K):
                total = tl.zeros((BM, BN), Z.dtype.element_ty)
                for start in range(0, WIDTH, BN):
                    n = start + tl.arange(0, BN)
                    sine, _cosine = sincos(load_tile(Z, row, live, n, WIDTH), SINES)
                    p_k = load_tile(Z + (1 + k) * rows * WIDTH, row, live, n, WIDTH)
                    p_j = load_tile(Z + (1 + j) * rows * WIDTH, row, live, n, WIDTH)
                    total += load_tile(A + c * rows * WIDTH, row, live, n, WIDTH) * sine * p_k * p_j
                at = S + ((row * C + c) * K + k) * K + j
                value = tl.load(at, mask=live, other=0.0) - tl.sum(total, axis=1)
                tl.store(at, value, mask=live)
                if j != k:
                    tl.store(S + ((row * C + c) * K + j) * K + k, value, mask=live)


@triton.jit(do_not_specialize=COUNTS)
def adjoint_layer_up(
    A_bar, W, scales, Z, A, S_bar, Y, E, rows, N, H,
    C: tl.constexpr, K: tl.constexpr, THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr,
    PARTS: tl.constexpr, SINES: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(16), (17), (20), (21): a_bar [C, rows, INNER] of the layer below to that of this one, Y [C, rows, WIDTH], and e.

    THIN: the first layer, A_bar are cotangents of J and W [networks, H, INNER]. S_bar [rows, C, K, K] is symmetric.
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    if THIN:
        g_bar = thin_product(A_bar, rows, row, live, W + net * H * INNER, n, INNER, 1, C, C, INNER, H, BM, BN)
    else:
        g_bar = wide_product(
            A_bar, rows, row, live, W + net * PARTS * WIDTH * INNER, scales + net * WIDTH, n, C, INNER, WIDTH, False,
            False, MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
    sine, cosine = sincos(load_tile(Z, row, live, n, WIDTH), SINES)
    p = slopes(Z, rows, row, live, n, WIDTH, K)
    e = tl.zeros((BM, BN), Z.dtype.element_ty)
    for c in tl.static_range(C):
        a = load_tile(A + c * rows * WIDTH, row, live, n, WIDTH)
        a_bar = cosine * g_bar[c]
        e -= a * sine * g_bar[c]
        if K > 0:
            u = curvature(S_bar, row * (C * K * K), live, p, c, K)
            a_bar -= sine * u
            e -= a * cosine * u
        store_tile(Y + c * rows * WIDTH, row, live, n, WIDTH, a_bar)
    store_tile(E, row, live, n, WIDTH, e)


@triton.jit(do_not_specialize=COUNTS)
def adjoint_layer_down(
    B, W, scales, Z, A, S_bar, E, Z_bar, rows, N, H,
    C: tl.constexpr, K: tl.constexpr, THIN: tl.constexpr, INNER: tl.constexpr, WIDTH: tl.constexpr,
    PARTS: tl.constexpr, SINES: tl.constexpr, MODE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(18), (24), (25), (27): cotangents [1 + K, rows, INNER] of theta and p above to those of this layer.

    THIN: B [1, rows, INNER] are cotangents of the outputs and W [networks, INNER, H]. E is this layer's e.
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    if THIN:
        bar = thin_product(B, rows, row, live, W + net * H * INNER, n, 1, H, 1 + K, 1, INNER, H, BM, BN)
    else:
        bar = wide_product(
            B, rows, row, live, W + net * PARTS * WIDTH * INNER, scales + net * INNER, n, 1 + K, INNER, WIDTH, True,
            False, MODE, BM, BN, BK, STAGES,
        )  # fmt: skip
    sine, cosine = sincos(load_tile(Z, row, live, n, WIDTH), SINES)
    p = slopes(Z, rows, row, live, n, WIDTH, K)
    theta_bar = cosine * bar[0] + load_tile(E, row, live, n, WIDTH)
    for k in tl.static_range(K):
        theta_bar -= sine * bar[1 + k] * p[k]
        p_bar = cosine * bar[1 + k]
        for c in tl.static_range(C):
            a = load_tile(A + c * rows * WIDTH, row, live, n, WIDTH)
            p_bar -= 2 * sine * a * apply_form(S_bar, row * (C * K * K), live, p, c, k, K)
        store_tile(Z_bar + (1 + k) * rows * WIDTH, row, live, n, WIDTH, p_bar)
    store_tile(Z_bar, row, live, n, WIDTH, theta_bar)


class Adjoints(NamedTuple):
    """a and g of every sine layer, [C, rows, width]."""

    a: list[Tensor]
    g: list[Tensor]


def adjoint_sweep(net: Network, trace: Trace, E: Tensor, N: int) -> Adjoints:
    """Adjoints of the combinations E [C, rows, O], from the phases that jet_sweep kept."""
    found, B = Adjoints([], []), E
    for l in reversed(range(len(net.units))):
        A = B.new_empty(E.shape[0], *trace.phases[l].shape[1:])
        G = torch.empty_like(A)
        _run(adjoint_layer, net, l, N, B, trace.phases[l], A, G, down=True, C=E.shape[0])
        found.a.insert(0, A)
        found.g.insert(0, G)
        B = G
    return found


def contracted(net: Network, trace: Trace, adjoints: Adjoints, N: int) -> Tensor:
    """(19): second derivatives [rows, C, K, K] along the directions of the trace."""
    C, K, rows = adjoints.a[0].shape[0], trace.phases[0].shape[0] - 1, adjoints.a[0].shape[1]
    S = adjoints.a[0].new_zeros(rows, C, K, K)
    if not S.numel():
        return S
    for Z, A in zip(trace.phases, adjoints.a, strict=True):
        sizes: dict[str, Any] = {
            "C": C,
            "K": K,
            "WIDTH": Z.shape[2],
            "SINES": net.sines,
            "BM": 16,
            "BN": min(64, Z.shape[2] & -Z.shape[2]),
        }
        launch(second_derivatives, (rows // N * triton.cdiv(N, 16),), Z, A, S, rows, N, **sizes, num_warps=4)
    return S


class Cotangents(NamedTuple):
    """Of the results of a sandwich."""

    y: Tensor  # [1, rows, O]
    J: Tensor  # [C, rows, D]
    S: Tensor  # [rows, C, K, K], symmetric


def sandwich_reverse(
    net: Network, trace: Trace, adjoints: Adjoints, last: Tensor, E: Tensor, bars: Cotangents, N: int,
    sums: WeightGrads | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Cotangents [1 + K, rows, width] of the first layer's theta and p, and those [C, rows, width] of the last a.

    Args:
        net: G networks.
        trace: what jet_sweep kept, without forms.
        adjoints: what adjoint_sweep returned.
        last: the channels that jet_sweep returned.
        E: combinations [C, rows, O].
        bars: cotangents of the results.
        N: rows of each network.
        sums: gradients of the parameters are added to it; None where they are not asked for.
    """
    K, C, layers = trace.phases[0].shape[0] - 1, E.shape[0], len(net.units)
    up, early = bars.J, []
    for l in range(layers):
        if sums is not None:
            sums.add_layer(l, adjoints.g[l], up, N, net.mode, bias=False)
        Y = torch.empty_like(adjoints.a[l])
        early.append(torch.empty_like(trace.phases[l][0]))
        _run(adjoint_layer_up, net, l, N, up, trace.phases[l], adjoints.a[l], bars.S, Y, early[l], down=False, C=C, K=K)
        up = Y
    if sums is not None:
        sums.add_output(layers, last[:1], bars.y, N)
        sums.add_thin(layers, up, E, N, bias=False)
    Z_bar = bars.y
    for l in reversed(range(layers)):
        out = torch.empty_like(trace.phases[l])
        arguments = Z_bar, trace.phases[l], adjoints.a[l], bars.S, early[l], out
        _run(adjoint_layer_down, net, l, N, *arguments, down=True, C=C, K=K)
        Z_bar = out
        if sums is not None:
            sums.add_layer(l, Z_bar, trace.inputs[l], N, net.mode, bias=True)
    return Z_bar, up


def _run(
    kernel: object, net: Network, l: int, N: int, B: Tensor, *buffers: Tensor, down: bool, C: int, **counts: int
) -> None:
    """Launch a kernel of layer l, which multiplies B with its matrix or, going down, with that of the layer above."""
    thin = l + 1 == len(net.units) if down else l == 0
    rows, width, inner = B.shape[1], net.width(l), B.shape[2]
    W, scales = net.down(l) if down else net.up(l)
    # Adjoints and slopes need registers next to the channels that are multiplied.
    tile = layer_tile(B.device, C + 1 + counts.get("K", 0), width, inner, net.mode, thin=thin)
    sizes: dict[str, Any] = {"C": C, **counts, "THIN": thin, "INNER": inner, "WIDTH": width, "PARTS": W.shape[1]}
    grid = (rows // N * triton.cdiv(N, tile["BM"]), width // tile["BN"])
    modes: dict[str, Any] = {"SINES": net.sines, "MODE": net.mode}
    launch(kernel, grid, B, W, scales, *buffers, rows, N, net.units[l], **sizes, **modes, **tile)
