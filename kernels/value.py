"""The value of a whole network in one kernel: activations never leave the chip, weights are loaded once per program.

For networks whose hidden matrices fit there together; others go a layer at a time (jet.py). Points come from memory, or
are those of a grid; values leave as floats or as pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import launch
from .dot import dot, guarded, powers_of_two
from .grid import bits, coordinate, encoded, grid_pixels, grid_points
from .jet import jet_sweep
from .network import Network
from .project import projected
from .sine import sine


@triton.jit
def _matrix(P, l, net, L: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """High and low parts of hidden matrix l, [inputs, units]."""
    n = tl.arange(0, WIDTH)
    at = P + ((l * tl.num_programs(1) + net) * PARTS * WIDTH + n[None, :]) * WIDTH + n[:, None]
    high = tl.load(at)
    low = high
    if PARTS == 2:
        low = tl.load(at + WIDTH * WIDTH)
    return high, low


@triton.jit
def _hidden(theta, high, low, scales, bias, l, net, WIDTH: tl.constexpr, FAST: tl.constexpr, MODE: tl.constexpr):
    """(3) and (1): phases of sine layer l + 1 from those of layer l."""
    at = (l * tl.num_programs(1) + net) * WIDTH + tl.arange(0, WIDTH)
    h = sine(theta, FAST)
    b = tl.load(bias + at)[None, :]
    if guarded(MODE):
        # A sine is at most 1, and 64 times it is in the range that powers_of_two gives other operands.
        return dot(h * 64.0, high, low, MODE) * (tl.load(scales + at) * 0.015625)[None, :] + b
    else:
        return dot(h, high, low, MODE) + b


@triton.jit
def _first_bias(b, BM: tl.constexpr, WIDTH: tl.constexpr):
    """[BM, WIDTH], the bias for every row, exactly, by tensor cores: what is added to it then has their layout.

    Three fp16 numbers hold an fp32, scaled by a power of two.
    """
    if b.dtype == tl.float64:
        return tl.zeros((BM, WIDTH), tl.float64) + b[None, :]
    k = tl.arange(0, 16)
    up, down = powers_of_two(tl.max(tl.abs(b), axis=0))
    b = b * up
    high = b.to(tl.float16).to(tl.float32)
    middle = (b - high).to(tl.float16).to(tl.float32)
    parts = tl.where(
        k[:, None] == 0, high[None, :], tl.where(k[:, None] == 1, middle[None, :], (b - high - middle)[None, :])
    )
    ones = tl.where((k < 3)[None, :], 1.0, 0.0) + tl.zeros((BM, 16), tl.float32)
    return tl.dot(ones.to(tl.float16), parts.to(tl.float16), input_precision="ieee") * down


@triton.jit
def value(
    X, first, first_bias, P, scales, bias, last, last_bias, Y, N, H, H_last, origin, step, start, shape, gain, offset,
    D: tl.constexpr, O: tl.constexpr, L: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr, GRID: tl.constexpr,
    LEVELS: tl.constexpr, HOIST: tl.constexpr, FAST: tl.constexpr, MODE: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """(1), (3), (4) for tiles of BM points, program after program, of the networks on axis 1.

    X [networks, N, D] or, with GRID, a grid; first [networks, H, D]; P [L, networks, PARTS, WIDTH, WIDTH]; scales and
    bias [L, networks, WIDTH]; last [networks, O, H_last]; Y [networks, N, O].
    """
    net = tl.program_id(1)
    n = tl.arange(0, WIDTH)
    matrices = ()
    if HOIST:
        for l in tl.static_range(L):
            matrices = matrices + (_matrix(P, l, net, L, WIDTH, PARTS),)
    b0 = tl.load(first_bias + net * H + n, mask=n < H, other=0.0)
    t = tl.program_id(0).to(tl.int64)
    while t * BM < N:
        pixel = t * BM + tl.arange(0, BM)
        live = pixel < N
        theta = _first_bias(b0, BM, WIDTH)
        for d in tl.static_range(D):
            if GRID:
                x = coordinate(pixel, d, D, origin, step, start, shape).to(theta.dtype)
            else:
                x = tl.load(X + (net * N + pixel) * D + d, mask=live, other=0.0)
            w = tl.load(first + (net * H + n) * D + d, mask=n < H, other=0.0)
            theta += x[:, None] * w[None, :]
        if HOIST:
            for l in tl.static_range(L):
                theta = _hidden(theta, matrices[l][0], matrices[l][1], scales, bias, l, net, WIDTH, FAST, MODE)
        else:
            for l in range(L):
                high, low = _matrix(P, l, net, L, WIDTH, PARTS)
                theta = _hidden(theta, high, low, scales, bias, l, net, WIDTH, FAST, MODE)
        h = sine(theta, FAST)
        for o in range(O):
            w = tl.load(last + (net * O + o) * H_last + n, mask=n < H_last, other=0.0)
            y = tl.sum(h * w[None, :], axis=1) + tl.load(last_bias + net * O + o)
            at = Y + (net * N + pixel) * O + o
            if GRID:
                tl.store(at, encoded(y, gain, offset, LEVELS).to(Y.dtype.element_ty), mask=live)
            else:
                tl.store(at, y, mask=live)
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
        ends = (*bits([self.gain]), *bits([self.offset]))
        return (bits(self.origin), bits(self.step), tuple(self.start), tuple(self.shape), *ends)


NO_GRID = Grid((0.0,), (0.0,), (0,), (1,), 1.0, 0.0)
LEVELS = {torch.uint8: 255, torch.uint16: 65535}


def fits(net: Network) -> bool:
    """Whether `value` serves this network; the same for any number of points."""
    widths = {net.width(l) for l in range(len(net.units))}
    return len(widths) == 1 and max(widths) <= (128 if net.mode != "fp64" else 64)


def fused_value(net: Network, X: Tensor | None, Y: Tensor, grid: Grid = NO_GRID) -> None:
    """Launch `value` for a network that `fits`.

    Args:
        net: G networks.
        X: points [G, N, D], contiguous; None for those of the grid.
        Y: values [G, N, O], contiguous; with a grid of fp32, fp64, fp16 or integers, that of 0..1 as full scale.
        grid: the grid, if there are no points.
    """
    (G, N, O), width, hidden = Y.shape, net.width(0), len(net.hidden)
    # Layers of one shape lie behind one another: the first one leads to all of them.
    weights = net.hidden[0][:3] if hidden else (net.first, net.first, net.first)
    parts = weights[0].shape[1] if hidden else 1
    tile = _tile(width, hidden, parts)
    sizes = {"D": net.inputs, "O": O, "L": hidden, "WIDTH": width, "PARTS": parts, "GRID": X is None}
    modes = {"LEVELS": LEVELS.get(Y.dtype, 0), "FAST": net.fast, "MODE": net.mode}
    programs = min(triton.cdiv(N, tile["BM"]), _programs(Y.device))
    points = net.first if X is None else X
    arguments = points, net.first, net.first_bias, *weights, net.last, net.last_bias, Y, N, net.units[0], net.units[-1]
    launch(value, (programs, G), *arguments, *grid.arguments(), **sizes, **modes, **tile)


def _tile(width: int, hidden: int, parts: int) -> dict[str, Any]:
    """Tile of `value`; the matrices are held for all tiles of a program where they fit with room for activations."""
    held = hidden * parts * width * width * 2
    return {"BM": 128, "HOIST": 0 < held <= 100 * 1024, "num_warps": 8}


def _programs(device: torch.device) -> int:
    """Programs that keep a device busy; a few in the interpreter, so that each has more than one tile."""
    if device.type != "cuda":
        return 2
    return 4 * torch.cuda.get_device_properties(device).multi_processor_count


def grid_value(net: Network, Y: Tensor, grid: Grid, rows: int) -> None:
    """The same a layer at a time, for one network that does not fit: `rows` pixels at a time."""
    N, O, H = *Y.shape[1:], net.units[-1]
    for first in range(0, N, rows):
        n = min(rows, N - first)
        S = net.first.new_empty(1, n, net.inputs)
        *axes, gain, offset = grid.arguments()
        launch(grid_points, (triton.cdiv(n, 128),), S, first, n, *axes, D=net.inputs, BM=128, num_warps=4)
        last, _ = jet_sweep(net, S, S.new_empty(0, 0, 0), n, keep=False)
        values, out = projected(last, net.last, n, 1, H, H, O), Y[0, first : first + n]
        arguments = values, net.last_bias, out, n, O, gain, offset, LEVELS.get(Y.dtype, 0)
        launch(grid_pixels, (triton.cdiv(n * O, 128),), *arguments, BM=128, num_warps=4)
