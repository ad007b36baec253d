"""A jet through a whole network in one kernel: activations never leave the chip, weights are loaded once per program.

For networks whose layers fit there; others go a layer at a time (jet.py). A value is a jet without directions; its
points come from memory, or are those of a grid, and it leaves as floats or as pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import launch, padded, whole_sines, whole_tile, widest
from .dot import dot, guarded, narrow, powers_of_two, sine_powers
from .grid import coordinate, encoded, grid_pixels, grid_points, parts_of
from .jet import curvature, jet_sweep
from .network import Network
from .project import projected
from .sine import sincos, sine


@triton.jit
def _matrix(P, l, net, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """High and low parts of hidden matrix l, [inputs, units]."""
    n = tl.arange(0, WIDTH)
    at = P + ((l * tl.num_programs(1) + net) * PARTS * WIDTH + n[None, :]) * WIDTH + n[:, None]
    high = tl.load(at)
    low = high
    if PARTS == 2:
        low = tl.load(at + WIDTH * WIDTH)
    return high, low


@triton.jit
def _product(a, high, low, weight, OF_SINES: tl.constexpr, MODE: tl.constexpr):
    """One channel [BM, WIDTH] times a hidden matrix; weight [WIDTH] undoes the scale of its units."""
    if OF_SINES and guarded(MODE):
        up, down = sine_powers(MODE)
        return dot(a * up, high, low, MODE) * (weight * down)[None, :]
    elif guarded(MODE):
        up, down = powers_of_two(tl.max(tl.abs(a), axis=1))
        return dot(a * up[:, None], high, low, MODE) * down[:, None] * weight[None, :]
    else:
        return dot(a, high, low, MODE)


@triton.jit
def _activated(z, M, m_row, live, K: tl.constexpr, R: tl.constexpr, SINES: tl.constexpr):
    """(2), (3): the channels h, t, s behind a sine, from theta, p, q."""
    if K == 0:
        return (sine(z[0], SINES),)
    h, c = sincos(z[0], SINES)
    channels = (h,)
    p = ()
    for k in tl.static_range(K):
        p = p + (z[1 + k],)
        channels = channels + (c * z[1 + k],)
    for r in tl.static_range(R):
        channels = channels + (c * z[1 + K + r] - h * curvature(M, m_row, live, p, r, K),)
    return channels


@triton.jit
def _hidden(
    z, high, low, scales, bias, l, net, M, m_row, live, K: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr,
    SINES: tl.constexpr, MODE: tl.constexpr,
):  # fmt: skip
    """(2), (3) and (1): the channels theta, p, q of sine layer l + 1 from those of layer l."""
    at = (l * tl.num_programs(1) + net) * WIDTH + tl.arange(0, WIDTH)
    weight = tl.load(scales + at)
    channels = _activated(z, M, m_row, live, K, R, SINES)
    found = (_product(channels[0], high, low, weight, True, MODE) + tl.load(bias + at)[None, :],)
    for c in tl.static_range(1, 1 + K + R):
        found = found + (_product(channels[c], high, low, weight, False, MODE),)
    return found


@triton.jit
def _first_bias(b, BM: tl.constexpr, WIDTH: tl.constexpr):
    """[BM, WIDTH], the bias for every row, by tensor cores: what is added to it then has their layout.

    Exact: three bf16 numbers hold an fp32.
    """
    if b.dtype == tl.float64:
        return tl.zeros((BM, WIDTH), tl.float64) + b[None, :]
    else:
        k = tl.arange(0, 16)
        high = b.to(tl.bfloat16).to(tl.float32)
        middle = (b - high).to(tl.bfloat16).to(tl.float32)
        parts = tl.where(
            k[:, None] == 0, high[None, :], tl.where(k[:, None] == 1, middle[None, :], (b - high - middle)[None, :])
        )
        parts = tl.where(k[:, None] < 3, parts, 0.0)
        ones = tl.where((k < 3)[None, :], 1.0, 0.0) + tl.zeros((BM, 16), tl.float32)
        return dot(ones, narrow(parts, "bf16"), parts, "bf16")


@triton.jit
def _first(
    S, first, b, origin, step, start, shape, N, H, net, pixel, live, D: tl.constexpr, K: tl.constexpr,
    R: tl.constexpr, WIDTH: tl.constexpr, GRID: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """(1) of the first layer in full precision: theta, p, and zeros for q."""
    n = tl.arange(0, WIDTH)
    channels = ()
    for c in tl.static_range(1 + K):
        total = _first_bias(b if c == 0 else b * 0, BM, WIDTH)
        for d in tl.static_range(D):
            if GRID:
                x = coordinate(pixel, d, D, origin, step, start, shape).to(total.dtype)
            else:
                x = tl.load(S + ((c * tl.num_programs(1) + net) * N + pixel) * D + d, mask=live, other=0.0)
            w = tl.load(first + (net * H + n) * D + d, mask=n < H, other=0.0)
            total += x[:, None] * w[None, :]
        channels = channels + (total,)
    for _ in tl.static_range(R):
        channels = channels + (tl.zeros_like(channels[0]),)
    return channels


# Not specialised on sizes: one compiled kernel serves every number of points.
@triton.jit(do_not_specialize=["N", "H", "H_last", "m_stride"])
def whole(
    S, first, first_bias, P, scales, bias, last, last_bias, M, Y, N, H, H_last, m_stride,
    origin, step, start, shape, gain, offset,
    D: tl.constexpr, O: tl.constexpr, L: tl.constexpr, K: tl.constexpr, R: tl.constexpr, WIDTH: tl.constexpr,
    PARTS: tl.constexpr, GRID: tl.constexpr, LEVELS: tl.constexpr, HOIST: tl.constexpr, SINES: tl.constexpr,
    MODE: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """(1) to (4) for tiles of BM points, program after program, of the networks on axis 1.

    S [1 + K, networks, N, D] or, with GRID and K = 0, a grid; first [networks, H, D]; P [L, networks, PARTS, WIDTH,
    WIDTH]; scales and bias [L, networks, WIDTH]; last [networks, O, H_last]; Y [1 + K + R, networks, N, O], values with
    their bias. M holds forms [R, K, K] at every multiple of m_stride.
    """
    net = tl.program_id(1)
    n = tl.arange(0, WIDTH)
    matrices = ()
    if HOIST:
        for l in tl.static_range(L):
            matrices = matrices + (_matrix(P, l, net, WIDTH, PARTS),)
    b = tl.load(first_bias + net * H + n, mask=n < H, other=0.0)
    # Rows of all channels may be more than 32 bits count.
    N = N.to(tl.int64)
    t = tl.program_id(0).to(tl.int64)
    while t * BM < N:
        pixel = t * BM + tl.arange(0, BM)
        live = pixel < N
        m_row = (net * N + pixel) * m_stride
        z = _first(S, first, b, origin, step, start, shape, N, H, net, pixel, live, D, K, R, WIDTH, GRID, BM)
        if HOIST:
            for l in tl.static_range(L):
                high, low = matrices[l]
                z = _hidden(z, high, low, scales, bias, l, net, M, m_row, live, K, R, WIDTH, SINES, MODE)
        else:
            for l in range(L):
                high, low = _matrix(P, l, net, WIDTH, PARTS)
                z = _hidden(z, high, low, scales, bias, l, net, M, m_row, live, K, R, WIDTH, SINES, MODE)
        channels = _activated(z, M, m_row, live, K, R, SINES)
        for o in range(O):
            w = tl.load(last + (net * O + o) * H_last + n, mask=n < H_last, other=0.0)
            for c in tl.static_range(1 + K + R):
                y = tl.sum(channels[c] * w[None, :], axis=1)
                if c == 0:
                    y += tl.load(last_bias + net * O + o)
                if GRID:
                    y = encoded(y, gain, offset, LEVELS)
                at = Y + ((c * tl.num_programs(1) + net) * N + pixel) * O + o
                tl.store(at, y.to(Y.dtype.element_ty), mask=live)
        t += tl.num_programs(0)


class Grid(NamedTuple):
    """A dense grid, the first axis slowest, and how values become pixels."""

    origin: Sequence[float]
    step: Sequence[float]
    start: Sequence[int]
    shape: Sequence[int]
    gain: float
    offset: float

    def arguments(self) -> tuple[Any, ...]:
        """As kernels take them."""
        return tuple(map(parts_of, (self.origin, self.step, self.start, self.shape, [self.gain], [self.offset])))


NO_GRID = Grid((0.0,), (0.0,), (0,), (1,), 1.0, 0.0)
LEVELS = {torch.uint8: 255, torch.uint16: 65535}


def fits(
    device: torch.device, inputs: int, units: Sequence[int], channels: int, mode: str, *, grid: bool = False
) -> bool:
    """Whether `whole` serves passes of so many channels through networks of these sizes; for any number of points."""
    width = padded(units[0])
    same = all(padded(count) == width for count in units) and width.bit_count() == 1
    return same and width <= widest(device, inputs, channels, mode, grid=grid)


def fused(net: Network, S: Tensor | None, Y: Tensor, M: Tensor | None = None, grid: Grid = NO_GRID) -> None:
    """Launch `whole` for networks and channels that `fits` allows.

    Args:
        net: G networks.
        S: points and directions [1 + K, G, N, D], contiguous; None for the points of the grid.
        Y: [1 + K + R, G, N, O], contiguous; of any floating dtype and, with a grid, uint8 and uint16.
        M: forms [R, K, K], or [G * N, R, K, K], contiguous; None without directions.
        grid: the grid, if there are no points.
    """
    (C, G, N, O), width, hidden = Y.shape, net.width(0), len(net.hidden)
    # Layers of one shape lie behind one another: the first one leads to all of them.
    weights = net.hidden[0][:3] if hidden else (net.first, net.first, net.first)
    parts = weights[0].shape[1] if hidden else 1
    R, K = (0, 0) if M is None else M.shape[-3:-1]
    tile = whole_tile(Y.device, C, width, hidden, parts)
    sizes: dict[str, Any] = {"D": net.inputs, "O": O, "L": hidden, "K": K, "R": R, "WIDTH": width, "PARTS": parts}
    sines = whole_sines(Y.device, C, width, net.sines)
    modes: dict[str, Any] = {"GRID": S is None, "LEVELS": LEVELS.get(Y.dtype, 0), "SINES": sines, "MODE": net.mode}
    points, forms = net.first if S is None else S, net.first if M is None else M
    stride = M.stride(0) if M is not None and M.ndim == 4 else 0
    buffers = points, net.first, net.first_bias, *weights, net.last, net.last_bias, forms, Y
    programs = min(triton.cdiv(N, tile["BM"]), _programs(Y.device))
    counts = N, net.units[0], net.units[-1], stride
    launch(whole, (programs, G), *buffers, *counts, *grid.arguments(), **sizes, **modes, **tile)


def _programs(device: torch.device) -> int:
    """Programs that keep a device busy; a few in the interpreter, so that each has more than one tile."""
    if device.type != "cuda":
        return 2
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count


def grid_value(net: Network, Y: Tensor, grid: Grid, rows: int) -> None:
    """The same for one network that does not fit with a grid: `rows` pixels at a time, whose points are stored."""
    N, O = Y.shape[1:]
    for first in range(0, N, rows):
        n = min(rows, N - first)
        S = net.first.new_empty(1, n, net.inputs)
        *axes, gain, offset = grid.arguments()
        launch(grid_points, (triton.cdiv(n, 128),), S, first, n, *axes, D=net.inputs, BM=128, num_warps=4)
        arguments = _values(net, S), Y[0, first : first + n], n * O, gain, offset, LEVELS.get(Y.dtype, 0)
        launch(grid_pixels, (triton.cdiv(n * O, 128),), *arguments, BM=128, num_warps=4)


def _values(net: Network, S: Tensor) -> Tensor:
    """Values [1, n, O] at points S [1, n, D]."""
    n, O, H = S.shape[1], net.outputs, net.units[-1]
    if fits(S.device, net.inputs, net.units, 1, net.mode):
        Y = S.new_empty(1, 1, n, O)
        fused(net, S[:, None], Y)
        return Y[0]
    last, _ = jet_sweep(net, S, S.new_empty(0, 0, 0), n, keep=False)
    return projected(last, net.last, n, 1, H, H, O) + net.last_bias
