"""Weight gradients: sums over rows and channels, in splits of fixed rows and a fixed order; no atomics.

Every program sums SPLIT rows of one network; the partial sums are added up afterwards, one after the other.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from .configs import COUNTS, SPLIT_ROWS, divisor, gradient_tile, launch
from .dot import dot, guarded, narrow, powers_of_two, remainder
from .tiles import load_tile


@triton.jit
def _split(N, SPLIT: tl.constexpr):
    """First row of this program's split, and the number of its rows."""
    splits = tl.cdiv(N, SPLIT)
    first = (tl.program_id(2) % splits) * SPLIT
    return (tl.program_id(2) // splits) * N + first, tl.minimum(N - first, SPLIT)


@triton.jit(do_not_specialize=COUNTS)
def weight_grad(
    Z_bar, X, partial, rows, N, z_channel, x_channel,
    C: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr, SPLIT: tl.constexpr, MODE: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(10): partial [splits, WIDTH, INNER] = sum over C channels and rows of Z_bar (x) X.

    Z_bar and X begin at channel 0; their channels are z_channel and x_channel elements apart.
    """
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    total = tl.zeros((BN, BK), Z_bar.dtype.element_ty)
    first, count = _split(N, SPLIT)
    for c in range(C):
        for start in tl.range(0, count, BR, num_stages=STAGES):
            row = first + start + tl.arange(0, BR)
            live = start + tl.arange(0, BR) < count
            a = tl.trans(load_tile(Z_bar + c * z_channel, row, live, n, WIDTH))
            b = load_tile(X + c * x_channel, row, live, k, INNER)
            if guarded(MODE):
                up_n, down_n = powers_of_two(tl.max(tl.abs(a), axis=1))
                up_k, down_k = powers_of_two(tl.max(tl.abs(b), axis=0))
                b = b * up_k[None, :]
                high = narrow(b, MODE)
                total += dot(a * up_n[:, None], high, remainder(b, high), MODE) * down_n[:, None] * down_k[None, :]
            else:
                high = narrow(b, MODE)
                total += dot(a, high, high, MODE)
    tl.store(partial + (tl.program_id(2) * WIDTH + n[:, None]) * INNER + k[None, :], total)


@triton.jit(do_not_specialize=[*COUNTS, "J"])
def thin_grad(
    Z_bar, S, partial, rows, N, J, z_channel, s_channel,
    C: tl.constexpr, WIDTH: tl.constexpr, SPLIT: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """The same for few columns: partial [splits, J + 1, WIDTH], S [C, rows, J]; the last column sums channel 0 alone.

    Program axes: blocks of units, columns, splits.
    """
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    j = tl.program_id(1)
    total = tl.zeros((BR, BN), Z_bar.dtype.element_ty)
    first, count = _split(N, SPLIT)
    for c in tl.static_range(C):
        for start in range(0, count, BR):
            row = first + start + tl.arange(0, BR)
            live = start + tl.arange(0, BR) < count
            s = tl.load(S + c * s_channel + row * J + j, mask=live & (j < J), other=0.0)
            if c == 0:
                s += tl.where(live & (j == J), 1.0, 0.0)
            total += load_tile(Z_bar + c * z_channel, row, live, n, WIDTH) * s[:, None]
    tl.store(partial + (tl.program_id(2) * (J + 1) + j) * WIDTH + n, tl.sum(total, axis=0))


class WeightGrads:
    """Sums of A_bar and beta_bar of every layer, over as many chunks of rows as are added; G networks."""

    def __init__(self) -> None:
        self.matrices: dict[int, Tensor] = {}
        self.biases: dict[int, Tensor] = {}

    def add_wide(self, layer: int, Z_bar: Tensor, X: Tensor, N: int, mode: str) -> None:
        """Add a hidden layer's sum over the channels of Z_bar [C, rows, width] and X [C, rows, inner], both padded."""
        (C, rows, width), inner = Z_bar.shape, X.shape[2]
        networks, splits = rows // N, triton.cdiv(N, SPLIT_ROWS)
        partial = Z_bar.new_empty(networks, splits, width, inner)
        tile = gradient_tile(width, inner, mode)
        grid = (width // tile["BN"], inner // tile["BK"], networks * splits)
        sizes: dict[str, Any] = {"C": C, "WIDTH": width, "INNER": inner, "SPLIT": SPLIT_ROWS, "MODE": mode}
        launch(weight_grad, grid, Z_bar, X, partial, rows, N, Z_bar.stride(0), X.stride(0), **sizes, **tile)
        _add(self.matrices, layer, partial.sum(1))

    def add_thin(self, layer: int, Z_bar: Tensor, S: Tensor, N: int) -> None:
        """The same where one side is thin, S [C, rows, J] in full precision: a matrix [G, width, J]."""
        found, _ = self._thin(Z_bar, S, N)
        _add(self.matrices, layer, found)

    def add_output(self, layer: int, X: Tensor, bars: Tensor, N: int) -> None:
        """The same for the linear output layer, bars [C, rows, O] and X [C, rows, width]; its bias has channel 0."""
        self.add_thin(layer, X, bars, N)
        _add(self.biases, layer, bars[0].reshape(-1, N, bars.shape[2]).sum(1))

    def add_bias(self, layer: int, theta_bar: Tensor, N: int) -> None:
        """Add the sum over the rows of theta_bar [rows, width]."""
        _, found = self._thin(theta_bar[None], theta_bar.new_empty(1, theta_bar.shape[0], 0), N)
        _add(self.biases, layer, found)

    def _thin(self, Z_bar: Tensor, S: Tensor, N: int) -> tuple[Tensor, Tensor]:
        (C, rows, width), J = Z_bar.shape, S.shape[2]
        networks, splits = rows // N, triton.cdiv(N, SPLIT_ROWS)
        partial = Z_bar.new_empty(networks, splits, J + 1, width)
        tile = {"BN": divisor(width, 64), "BR": 32, "num_warps": 4}
        grid = (width // tile["BN"], J + 1, networks * splits)
        sizes: dict[str, Any] = {"C": C, "WIDTH": width, "SPLIT": SPLIT_ROWS}
        launch(thin_grad, grid, Z_bar, S, partial, rows, N, J, Z_bar.stride(0), S.stride(0), **sizes, **tile)
        total = partial.sum(1)
        return total[:, :-1].mT, total[:, -1]


def _add(sums: dict[int, Tensor], layer: int, value: Tensor) -> None:
    sums[layer] = sums[layer] + value if layer in sums else value
