"""A call of the Triton backend: its checked and packed network, its points and directions, its cotangents of seeds."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastsiren.engine.network import check_parameters
from fastsiren.kernels import configs
from fastsiren.kernels.network import Network, prepare
from fastsiren.kernels.project import projected
from fastsiren.kernels.sine import INTERPRETED
from fastsiren.kernels.weight_grad import WeightGrads

DEVICE = "cpu" if INTERPRETED else "cuda"


class Net:
    """One network, packed, with what it takes to hand results back."""

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float], precision: str
    ) -> None:
        self.like = weights[0]
        if self.like.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weights: got {self.like.dtype}, the Triton engine takes torch.float32 and torch.float64")
        check_parameters(weights, biases, omegas)
        self.weights = [self.check("weights", weight, *weight.shape) for weight in weights]
        self.biases = [self.check("biases", bias, *bias.shape) for bias in biases]
        self.omegas = [*omegas, 1.0]
        mode = configs.mode_of(self.like.dtype, precision)
        self.kernels: Network = prepare([w[None] for w in self.weights], [b[None] for b in self.biases], omegas, mode)
        # Seeds divided by a power of two near omega_0 keep every channel near one, and no bit of a result changes.
        self.sigma = 2.0 ** round(math.log2(abs(omegas[0]))) if omegas[0] else 1.0

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

    def chunk_rows(self, channels: int) -> int:
        """Rows of a chunk; they depend on the network and the channels alone."""
        widths = (self.kernels.width(l) for l in range(len(self.kernels.units)))
        return configs.chunk_rows(channels, max(*widths, self.kernels.inputs, self.kernels.outputs))

    def chunks(self, N: int, channels: int) -> Iterator[slice]:
        """Slices of N rows."""
        size = self.chunk_rows(channels)
        return (slice(start, min(start + size, N)) for start in range(0, N, size))

    def combinations(self, channels: Tensor) -> Tensor:
        """(23): [C, n, O], channels of the last sine layer times W_o."""
        H = self.kernels.units[-1]
        return projected(channels, self.kernels.last, channels.shape[1], 1, H, H, self.kernels.outputs)

    def outputs(self, channels: Tensor) -> Tensor:
        """(4): the same with the bias in channel 0."""
        Y = self.combinations(channels)
        Y[0] += self.kernels.last_bias[0]
        return Y

    def inputs(self, channels: Tensor) -> Tensor:
        """[C, n, D]: channels of the first layer's phases times A_0."""
        H, D = self.kernels.units[0], self.kernels.inputs
        return projected(channels, self.kernels.first, channels.shape[1], D, 1, H, D)

    def grads(self, sums: WeightGrads | None) -> tuple[list[Tensor], list[Tensor]]:
        """(12): the gradients of weights and biases; empty lists for None, zeros where no row was added."""
        if sums is None:
            return [], []
        weights, biases = [], []
        for l, (weight, bias, omega) in enumerate(zip(self.weights, self.biases, self.omegas, strict=True)):
            matrix, vector = sums.matrices.get(l), sums.biases.get(l)
            if matrix is None:
                weights.append(weight.new_zeros(weight.shape))
            else:
                matrix = matrix[0].mT if l == len(self.weights) - 1 else matrix[0]
                weights.append((matrix[: weight.shape[0], : weight.shape[1]] * omega).contiguous())
            biases.append(bias.new_zeros(bias.shape) if vector is None else vector[0, : bias.shape[0]] * omega)
        return weights, biases


class Points(NamedTuple):
    """Points and directions of a call, and forms where there are any."""

    net: Net
    x: Tensor  # [N, D]
    V: Tensor  # [K, D] or [N, K, D]
    M: Tensor  # [R, K, K] or [N, R, K, K], symmetric

    def bottom(self, rows: slice) -> Tensor:
        """[1 + K, n, D], what enters the first layer."""
        x, V = self.x[rows], self.V[rows] if self.V.ndim == 3 else self.V
        if not V.shape[-2]:
            return x[None].contiguous()
        V = (V / self.net.sigma).expand(x.shape[0], *V.shape[-2:])
        return torch.cat([x[None], V.movedim(1, 0)]).contiguous()

    def forms(self, rows: slice) -> Tensor:
        """[R, K, K] or [n, R, K, K]."""
        return (self.M[rows] if self.M.ndim == 4 else self.M).contiguous()


def points_of(net: Net, x: Tensor, directions: Tensor, forms: Tensor | None = None) -> Points:
    """The points of a call, after checks; without forms, those of a pass that has none."""
    N, K, D = x.shape[0], directions.shape[-2], net.kernels.inputs
    M = x.new_empty(0, K, K) if forms is None else net.seeds("forms", forms, N, forms.shape[-3], K, K)
    return Points(net, net.check("x", x, N, D), net.seeds("directions", directions, N, K, D), (M + M.mT) / 2)


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
