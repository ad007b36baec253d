"""Weight gradients: sums over rows and channels, in splits of fixed rows and a fixed order; no atomics.

Every program sums SPLIT rows of one network; the partial sums are added up afterwards, one after the other.
"""

import copy
from typing import Any

import torch
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
            if b.dtype.primitive_bitwidth == 16 and guarded(MODE):
                up_n, down_n = powers_of_two(tl.max(tl.abs(a), axis=1))
                total += dot(a * up_n[:, None], b, b, MODE) * down_n[:, None]
            elif guarded(MODE):
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
    """The same for few columns: partial [splits, columns, WIDTH], S [C, rows, J]; column J sums channel 0 alone.

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
    tl.store(partial + (tl.program_id(2) * tl.num_programs(1) + j) * WIDTH + n, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["splits", "size", "stride"])
def add_splits(partial, total, splits, size, stride, BLOCK: tl.constexpr):
    """Add partial [networks, splits, size] to the first `size` numbers of total [networks, stride], split by split."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    net = tl.program_id(1).to(tl.int64)
    found = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for split in range(splits):
        found += tl.load(partial + (net * splits + split) * size + i, mask=i < size, other=0.0)
    at = total + net * stride + i
    tl.store(at, tl.load(at, mask=i < size, other=0.0) + found, mask=i < size)


class WeightGrads:
    """Sums of A_bar and beta_bar of every layer of G networks, over as many chunks of rows as are added.

    A sum is that of the network alone, bit for bit, whatever networks are summed beside it.
    """

    def __init__(self, networks: int) -> None:
        self.networks = networks
        self._wide: dict[int, Tensor] = {}
        # Columns of thin layers, and behind them the bias of a sine layer.
        self._thin: dict[int, Tensor] = {}
        self._output_bias: dict[int, Tensor] = {}
        self._first = 0

    def of(self, first: int) -> "WeightGrads":
        """The same sums, to which rows are added that begin with those of network `first`."""
        part = copy.copy(self)
        part._first = first
        return part

    def matrix(self, layer: int) -> Tensor | None:
        """A_bar [G, units, inputs], padded; for the output layer [G, inputs, units]; None where no row was added."""
        if layer in self._wide:
            return self._wide[layer]
        return self._thin[layer][:, :-1].mT if layer in self._thin else None

    def bias(self, layer: int) -> Tensor | None:
        """beta_bar [G, units], padded, and of the output layer in fp64; None where no row was added."""
        if layer in self._output_bias:
            return self._output_bias[layer]
        return self._thin[layer][:, -1] if layer in self._thin else None

    def add_layer(self, layer: int, Z_bar: Tensor, X: Tensor, N: int, mode: str, *, bias: bool) -> None:
        """Add a sine layer's sums over the channels of Z_bar [C, rows, width] and of what enters it; see the next two.

        With `bias`, channel 0 of Z_bar is added to that of the bias.
        """
        if not layer:
            self.add_thin(0, Z_bar[: X.shape[0]], X, N, bias=bias)
            return
        self.add_wide(layer, Z_bar, X, N, mode)
        if bias:
            self.add_thin(layer, Z_bar[:1], Z_bar.new_empty(1, Z_bar.shape[1], 0), N, bias=True)

    def add_wide(self, layer: int, Z_bar: Tensor, X: Tensor, N: int, mode: str) -> None:
        """Add a hidden layer's sum over the channels of Z_bar [C, rows, width] and X [C, rows, inner], both padded."""
        (C, rows, width), inner = Z_bar.shape, X.shape[2]
        # Digits of both sides would have to be transposed.
        mode = "fp32" if mode == "int8" else mode
        networks, splits = rows // N, triton.cdiv(N, SPLIT_ROWS)
        partial = Z_bar.new_empty(networks, splits, width, inner)
        tile = gradient_tile(width, inner, mode)
        grid = (width // tile["BN"], inner // tile["BK"], networks * splits)
        sizes: dict[str, Any] = {"C": C, "WIDTH": width, "INNER": inner, "SPLIT": SPLIT_ROWS, "MODE": mode}
        launch(weight_grad, grid, Z_bar, X, partial, rows, N, Z_bar.stride(0), X.stride(0), **sizes, **tile)
        if layer not in self._wide:
            self._wide[layer] = partial.new_zeros(self.networks, width, inner)
        self._add(partial, self._wide[layer])

    def add_thin(self, layer: int, Z_bar: Tensor, S: Tensor, N: int, *, bias: bool) -> None:
        """The same where one side is thin, S [C, rows, J] in full precision; with `bias`, also the sum of Z_bar[0]."""
        (C, rows, width), J = Z_bar.shape, S.shape[2]
        networks, splits, columns = rows // N, triton.cdiv(N, SPLIT_ROWS), J + bias
        partial = Z_bar.new_empty(networks, splits, columns, width)
        tile = {"BN": divisor(width, 64), "BR": 32, "num_warps": 4}
        grid = (width // tile["BN"], columns, networks * splits)
        sizes: dict[str, Any] = {"C": C, "WIDTH": width, "SPLIT": SPLIT_ROWS}
        launch(thin_grad, grid, Z_bar, S, partial, rows, N, J, Z_bar.stride(0), S.stride(0), **sizes, **tile)
        if layer not in self._thin:
            self._thin[layer] = partial.new_zeros(self.networks, J + 1, width)
        self._add(partial, self._thin[layer])

    def add_output(self, layer: int, X: Tensor, bars: Tensor, N: int) -> None:
        """The same for the linear output layer, bars [C, rows, O] and X [C, rows, width]; its bias has channel 0."""
        self.add_thin(layer, X, bars, N, bias=False)
        # In fp64, where the order of a sum does not show.
        found = bars[0].reshape(-1, N, bars.shape[2]).sum(1, dtype=torch.float64)
        if layer not in self._output_bias:
            self._output_bias[layer] = found.new_zeros(self.networks, bars.shape[2])
        self._output_bias[layer][self._first : self._first + found.shape[0]] += found

    def _add(self, partial: Tensor, total: Tensor) -> None:
        """Add partial [networks, splits, ..] to the networks that it is of."""
        networks, splits = partial.shape[:2]
        size = partial[0, 0].numel()
        part = total[self._first : self._first + networks]
        counts = splits, size, total.stride(0)
        launch(add_splits, (triton.cdiv(size, 1024), networks), partial, part, *counts, BLOCK=1024, num_warps=4)
