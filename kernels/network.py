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

    def width(self, l: int) -> int:
        """Padded units of sine layer l."""
        return padded(self.units[l])


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
