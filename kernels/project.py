"""The thin end of a network: channels to outputs, and cotangents of the first layer to those of the inputs."""

import triton
import triton.language as tl
from torch import Tensor

from .configs import COUNTS, divisor, launch
from .tiles import load_tile, rows_of


@triton.jit(do_not_specialize=COUNTS)
def project(
    X, W, Y, rows, N, H, OUT, unit, out, WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr
):
    """(4), and (11) below layer 0: Y [C, rows, OUT] = X [C, rows, WIDTH] times a matrix, in full precision.

    The matrix of a network, H * OUT numbers, has unit n and output o at W + n * unit + o * out. Program axes: tiles of
    rows, channels, blocks of BO outputs.
    """
    net, row, live = rows_of(tl.program_id(0), N, BM)
    channel = tl.program_id(1)
    for i in range(BO):
        o = tl.program_id(2) * BO + i
        total = tl.zeros((BM, BN), X.dtype.element_ty)
        for start in range(0, WIDTH, BN):
            n = start + tl.arange(0, BN)
            w = tl.load(W + net * H * OUT + n * unit + o * out, mask=(n < H) & (o < OUT), other=0.0)
            total += load_tile(X + channel * rows * WIDTH, row, live, n, WIDTH) * w[None, :]
        tl.store(Y + (channel * rows + row) * OUT + o, tl.sum(total, axis=1), mask=live & (o < OUT))


def projected(X: Tensor, W: Tensor, N: int, unit: int, out: int, H: int, outputs: int) -> Tensor:
    """Launch `project`: X [C, rows, width], W one matrix of H * outputs numbers per network; [C, rows, outputs]."""
    C, rows, width = X.shape
    Y = X.new_empty(C, rows, outputs)
    tile = {"BM": 32, "BN": divisor(width, 64), "BO": min(4, triton.next_power_of_2(outputs))}
    grid = (rows // N * triton.cdiv(N, tile["BM"]), C, triton.cdiv(outputs, tile["BO"]))
    launch(project, grid, X, W, Y, rows, N, H, outputs, unit, out, WIDTH=width, **tile, num_warps=4)
    return Y
