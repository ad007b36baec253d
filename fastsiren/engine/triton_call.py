"""A call of the Triton backend: its checked networks, packed a few at a time, its points and seeds, their cotangents.

A call has one network or G of them, with n rows each, those of one together. A chunk of its work is either all rows of
some networks or some rows of one network: sums over the rows of a network are then cut in the same places whatever
networks are beside it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastsiren.engine.network import check_parameters
from fastsiren.kernels import configs
from fastsiren.kernels.network import Network, along, prepare
from fastsiren.kernels.project import projected
from fastsiren.kernels.weight_grad import WeightGrads
from fastsiren.kernels.whole import fits

DEVICE = "cpu" if configs.INTERPRETED else "cuda"
# The second axis of a grid of programs has no more.
MOST_NETWORKS = 65535


class Chunk(NamedTuple):
    """Some rows of a call, and the networks that they are of."""

    kernels: Network
    networks: slice
    rows: slice
    """Of all rows of the call."""
    own: slice
    """Of the rows of every one of its networks."""

    @property
    def N(self) -> int:
        """Rows of each of its networks."""
        return self.own.stop - self.own.start

    def combinations(self, channels: Tensor) -> Tensor:
        """(23): [C, rows, O], channels of the last sine layer times W_o."""
        H = self.kernels.units[-1]
        return projected(channels, self.kernels.last, self.N, 1, H, H, self.kernels.outputs)

    def outputs(self, channels: Tensor) -> Tensor:
        """(4): the same with the bias in channel 0."""
        Y = self.combinations(channels)
        self._shift(Y[0], self.kernels.last_bias)
        return Y

    def slopes(self, channels: Tensor) -> Tensor:
        """(28): y' [rows, O] from h and t of the last sine layer, [2, rows, width]."""
        y_dot = self.combinations(channels[1:])[0]
        if self.dots is not None:
            y_dot += self.dots.combinations(channels[:1])[0]
        if self.kernels.tangent is not None:
            self._shift(y_dot, self.kernels.tangent.biases[-1])
        return y_dot

    def _shift(self, y: Tensor, bias: Tensor) -> None:
        """Add a bias [networks, O] to [rows, O]."""
        y.view(-1, self.N, y.shape[1]).add_(bias[:, None])

    def inputs(self, channels: Tensor) -> Tensor:
        """[C, rows, D]: channels of the first layer's phases times A_0."""
        H, D = self.kernels.units[0], self.kernels.inputs
        return projected(channels, self.kernels.first, self.N, D, 1, H, D)

    @property
    def dots(self) -> "Chunk | None":
        """The same with the tangent of the matrices in their place; None where they have none."""
        return None if self.kernels.dots is None else self._replace(kernels=self.kernels.dots)


class Networks:
    """The networks of a call, with what it takes to hand results back."""

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float], precision: str
    ) -> None:
        self.like = weights[0]
        if self.like.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weights: got {self.like.dtype}, the Triton engine takes torch.float32 and torch.float64")
        count = check_parameters(weights, biases, omegas)
        self.axis = () if count is None else (count,)
        self.count = 1 if count is None else count
        self.weights = self._parameters("weights", weights, [weight.shape[-2:] for weight in weights])
        self.biases = self._parameters("biases", biases, [bias.shape[-1:] for bias in biases])
        self.omegas = list(omegas)
        self.mode = configs.mode_of(self.like.dtype, precision)
        self._dots: tuple[list[Tensor] | None, list[Tensor]] | None = None
        # Seeds divided by a power of two near omega_0 keep every channel near one, and no bit of a result changes.
        self.sigma = 2.0 ** round(math.log2(abs(omegas[0]))) if omegas[0] else 1.0

    @property
    def inputs(self) -> int:
        """Coordinates of a point, D."""
        return self.weights[0].shape[2]

    @property
    def outputs(self) -> int:
        """Outputs, O."""
        return self.weights[-1].shape[1]

    @property
    def units(self) -> list[int]:
        """Units of every sine layer."""
        return [weight.shape[1] for weight in self.weights[:-1]]

    def check(self, name: str, tensor: Tensor, *shape: int) -> Tensor:
        """Return the numbers of a tensor as its address has them; raise unless kernels may read `shape` of them."""
        if tensor.dtype != self.like.dtype or tensor.device != self.like.device or tensor.device.type != DEVICE:
            expected = f"{self.like.dtype} on {self.like.device if self.like.device.type == DEVICE else DEVICE}"
            raise TypeError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {expected}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {shape}")
        # A zero tensor of forward-mode AD has no memory; a negated view has the numbers without their sign.
        return torch.zeros_like(tensor) if tensor._is_zerotensor() else tensor.detach().resolve_neg()

    def seeds(self, name: str, tensor: Tensor, N: int, *shape: int) -> Tensor:
        """The same for seeds, which are `shape` for all points or [N, *shape]."""
        return self.check(name, tensor, *([N] if tensor.ndim > len(shape) else []), *shape)

    def points(self, x: Tensor) -> Tensor:
        """Points [G n, D], or [1, n, D] that all networks share, after checks as [G, n, D]."""
        if x.ndim == 3:
            return self.check("x", x, 1, x.shape[1], self.inputs).expand(self.count, -1, -1)
        if x.shape[0] % self.count:
            raise ValueError(f"x: got {x.shape[0]} points for {self.count} networks, expected as many for each")
        return self.check("x", x, x.shape[0], self.inputs).view(self.count, -1, self.inputs)

    def fit(self, channels: int, *, grid: bool = False) -> bool:
        """Whether a forward pass of so many channels, or of a grid, stays on the chip."""
        return fits(self.like.device, self.inputs, self.units, channels, self.mode, grid=grid)

    def chunk_rows(self, channels: int, *, kept: bool = True) -> int:
        """Rows of a chunk, more where no layer's channels are kept; they depend on sizes and channels alone."""
        rows = configs.chunk_rows(channels, max(*map(configs.padded, self.units), self.inputs, self.outputs))
        # A launch for as many channels as a Laplacian has takes longer on a GPU than it takes to make.
        return rows if kept else rows * max(1, 4 // channels)

    def move(self, weights: Sequence[Tensor] | None, biases: Sequence[Tensor] | None) -> None:
        """Give the parameters a tangent, W_bar_bar and b_bar_bar of value_bwdbwd; None is zero."""
        cores = [[param.shape[1:] for param in group] for group in (self.weights, self.biases)]
        W = None if weights is None else self._parameters("W_bar_bar", weights, cores[0])
        zeros = [bias.new_zeros(bias.shape) for bias in self.biases]
        self._dots = W, zeros if biases is None else self._parameters("b_bar_bar", biases, cores[1])

    def _parameters(self, name: str, given: Sequence[Tensor], cores: Sequence[torch.Size]) -> list[Tensor]:
        """[G, ..] of every layer, after checks."""
        checked = [self.check(name, tensor, *self.axis, *core) for tensor, core in zip(given, cores, strict=True)]
        return checked if self.axis else [tensor[None] for tensor in checked]

    def packed(self, networks: slice) -> Network:
        """Some of the networks as kernels take them."""
        weights, biases = ([tensor[networks] for tensor in group] for group in (self.weights, self.biases))
        kernels = prepare(weights, biases, self.omegas, self.mode)
        if self._dots is None:
            return kernels
        W, b = self._dots
        W = None if W is None else [tensor[networks] for tensor in W]
        return along(kernels, W, [tensor[networks] for tensor in b], self.omegas)

    def chunks(self, N: int, channels: int, *, fused: bool = False, kept: bool = True) -> Iterator[Chunk]:
        """The work of a call on N rows; with `fused`, of one whose rows need no memory each."""
        n = N // self.count
        size = n if fused else self.chunk_rows(channels, kept=kept)
        widths = [configs.padded(units) for units in self.units]
        # Offsets in packed matrices and their gradients stay within 32 bits.
        most = min(MOST_NETWORKS, configs.BUFFER_ELEMENTS // (4 * len(widths) * max(widths) ** 2))
        step = max(1, most if fused else min(most, size // max(n, 1)))
        for first in range(0, self.count if n else 0, step):
            networks = slice(first, min(first + step, self.count))
            kernels = self.packed(networks)
            for start in range(0, n, size):
                own = slice(start, min(start + size, n))
                rows = slice(first * n + own.start, (networks.stop - 1) * n + own.stop)
                yield Chunk(kernels, networks, rows, own)

    def grads(self, sums: WeightGrads | None) -> tuple[list[Tensor], list[Tensor]]:
        """(12): the gradients of weights and biases; empty lists for None, zeros where no row was added."""
        if sums is None:
            return [], []
        weights, biases = [], []
        for l, (weight, bias, omega) in enumerate(zip(self.weights, self.biases, (*self.omegas, 1.0), strict=True)):
            matrix, vector = sums.matrix(l), sums.bias(l)
            if matrix is None or vector is None:
                weights.append(weight.new_zeros(*self.axis, *weight.shape[1:]))
                biases.append(bias.new_zeros(*self.axis, *bias.shape[1:]))
                continue
            matrix = (matrix.mT if l == len(self.omegas) else matrix)[:, : weight.shape[1], : weight.shape[2]]
            weights.append((matrix * omega).contiguous().view(*self.axis, *weight.shape[1:]))
            biases.append((vector[:, : bias.shape[1]] * omega).to(bias.dtype).view(*self.axis, *bias.shape[1:]))
        return weights, biases


class Points(NamedTuple):
    """Points and directions of a call, and forms where there are any."""

    net: Networks
    x: Tensor  # [G, n, D]
    V: Tensor  # [K, D] or [G n, K, D]
    M: Tensor  # [R, K, K] or [G n, R, K, K], symmetric

    def bottom(self, chunk: Chunk) -> Tensor:
        """[1 + K, rows, D], what enters the first layer."""
        x = self.x[chunk.networks, chunk.own].reshape(-1, self.x.shape[2])
        V = self.V[chunk.rows] if self.V.ndim == 3 else self.V
        if not V.shape[-2]:
            return x[None].contiguous()
        V = (V / self.net.sigma).expand(x.shape[0], *V.shape[-2:])
        return torch.cat([x[None], V.movedim(1, 0)]).contiguous()

    def forms(self, chunk: Chunk) -> Tensor:
        """[R, K, K] or [rows, R, K, K]."""
        return (self.M[chunk.rows] if self.M.ndim == 4 else self.M).contiguous()


def points_of(net: Networks, x: Tensor, directions: Tensor, forms: Tensor | None = None) -> Points:
    """The points of a call, after checks; without forms, those of a pass that has none."""
    points = net.points(x)
    N, K, D = points.shape[0] * points.shape[1], directions.shape[-2], net.inputs
    M = x.new_empty(0, K, K) if forms is None else net.seeds("forms", forms, N, forms.shape[-3], K, K)
    return Points(net, points, net.seeds("directions", directions, N, K, D), (M + M.mT) / 2)


class Bar:
    """The cotangent of x or of a seed, a chunk at a time: per point, or summed where all points share the seed."""

    def __init__(self, seed: Tensor, per_point: bool) -> None:
        self.per_point = per_point
        self.value = seed.new_empty(seed.shape) if per_point else seed.new_zeros(seed.shape)

    def put(self, rows: slice, bar: Tensor) -> None:
        """Take the cotangent of a chunk, per point."""
        if self.per_point:
            self.value[rows] = bar
        else:
            self.value += bar.sum(0)
