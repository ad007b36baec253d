"""A network as the kernels take it: omega folded in, hidden matrices packed."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .configs import padded
from .pack import Packed, pack


class Network(NamedTuple):
    """G networks of one shape."""

    first: Tensor
    """A_0 [G, H_0, D]"""
    first_bias: Tensor
    """beta_0 [G, H_0]"""
    hidden: list[Packed]
    """Layers 1..L."""
    last: Tensor
    """W_o [G, O, H_L]"""
    last_bias: Tensor
    """b_o [G, O]"""
    units: list[int]
    """H_0..H_L, not padded."""
    mode: str
    """Of the products, see dot.py."""
    tangent: "Tangent | None" = None
    """Of the parameters, for passes along one."""

    @property
    def sines(self) -> str:
        """What sines come from, see sine.py: the special function unit where products are no better than it."""
        return "unit" if self.mode in ("fp16", "tf32", "bf16") else "exact"

    def stored(self, l: int) -> torch.dtype:
        """What the channels behind sine layer l are stored as: what the products make of them, where its range will do.

        Tangents have the range of fp16 because seeds are scaled; the last ones are multiplied in full precision.
        """
        narrow = {"fp16": torch.float16, "bf16": torch.bfloat16}
        return narrow.get(self.mode, self.first.dtype) if l + 1 < len(self.units) else self.first.dtype

    @property
    def inputs(self) -> int:
        """Coordinates of a point, D."""
        return self.first.shape[2]

    @property
    def outputs(self) -> int:
        """Outputs, O."""
        return self.last.shape[1]

    @property
    def dots(self) -> "Network | None":
        """The tangent of the matrices, as those of a network; None where they have none."""
        return None if self.tangent is None else self.tangent.matrices

    @property
    def moved(self) -> str:
        """Which parameters have a tangent: "none", "biases" or "all"."""
        return "none" if self.tangent is None else "biases" if self.dots is None else "all"

    def width(self, l: int) -> int:
        """Padded units of sine layer l."""
        return padded(self.units[l])

    def up(self, l: int) -> tuple[Tensor, Tensor]:
        """The matrix that leads up to sine layer l and its scales; the first one is not packed and has none."""
        return (self.hidden[l - 1].matrix, self.hidden[l - 1].scales) if l else (self.first, self.first)

    def down(self, l: int) -> tuple[Tensor, Tensor]:
        """The same for the matrix that leads down to sine layer l, from the layer above it."""
        top = l + 1 == len(self.units)
        return (self.last, self.last) if top else (self.hidden[l].matrix, self.hidden[l].scales)


class Tangent(NamedTuple):
    """A tangent of the parameters of G networks, A' and beta'."""

    biases: list[Tensor]
    """beta'_0 .. beta'_L and b'_o, [G, units], not padded."""
    matrices: Network | None
    """A' folded and packed as A is; None where they are zero."""


def prepare(weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float], mode: str) -> Network:
    """Fold and pack the parameters of G networks.

    Args:
        weights: [G, H, K] per layer, the linear output layer last.
        biases: [G, H] per layer.
        omegas: one per sine layer.
        mode: of the products, see dot.py.
    """
    folded = torch._foreach_mul([w.detach() for w in (*weights[:-1], *biases[:-1])], [*omegas, *omegas])
    A, beta = folded[: len(omegas)], folded[len(omegas) :]
    hidden = pack(A[1:], beta[1:], mode)
    last, last_bias = weights[-1].detach().contiguous(), biases[-1].detach().contiguous()
    units = [w.shape[1] for w in weights[:-1]]
    return Network(A[0].contiguous(), beta[0].contiguous(), hidden, last, last_bias, units, mode)


def along(net: Network, weights: Sequence[Tensor] | None, biases: Sequence[Tensor], omegas: Sequence[float]) -> Network:
    """The same networks with a tangent of their parameters, of the shapes that `prepare` takes; None is zero."""
    folded = torch._foreach_mul([b.detach() for b in biases], [*omegas, 1.0])
    matrices = None if weights is None else prepare(weights, biases, omegas, net.mode)
    return net._replace(tangent=Tangent([b.contiguous() for b in folded], matrices))
