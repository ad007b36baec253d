"""Packing: a layer's matrix as the tensor cores take it, padded, scaled and split; made anew by every call.

Nothing is cached: a write through .data, an optimizer or a loaded checkpoint can then never meet stale weights, and a
CUDA graph that holds the call packs again at every replay. It costs one small kernel per layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .configs import launch, padded
from .dot import guarded, narrow, powers_of_two, remainder


class Packed(NamedTuple):
    """A hidden layer's matrix and biases; G networks."""

    matrix: Tensor
    """[G, 2, units, inputs], high and low parts; without low parts [G, 1, units, inputs]."""
    scales: Tensor
    """[G, units], what the matrix is multiplied by."""
    bias: Tensor
    """[G, units]"""
    inputs: int
    units: int
    """Padded sizes."""


@triton.jit
def pack_rows(
    A, P, scales, b, bias, H, K, NP: tl.constexpr, KP: tl.constexpr, PARTS: tl.constexpr, KB: tl.constexpr,
    MODE: tl.constexpr,
):  # fmt: skip
    """One unit: its row of A [H, K] to P [PARTS, NP, KP], with zeros for padding."""
    n, net = tl.program_id(0), tl.program_id(1)
    row = A + (net * H + n) * K
    largest = tl.zeros((KB,), tl.float32)
    for start in range(0, KP, KB):
        k = start + tl.arange(0, KB)
        a = tl.load(row + k, mask=(k < K) & (n < H), other=0.0)
        largest = tl.maximum(largest, tl.abs(a).to(tl.float32))
    if guarded(MODE):
        up, down = powers_of_two(tl.max(largest, axis=0))
    else:
        up = 1.0
        down = 1.0
    for start in range(0, KP, KB):
        k = start + tl.arange(0, KB)
        a = tl.load(row + k, mask=(k < K) & (n < H), other=0.0) * up
        high = narrow(a, MODE)
        at = P + (net * PARTS * NP + n) * KP + k
        tl.store(at, high.to(P.dtype.element_ty), mask=k < KP)
        if PARTS == 2:
            tl.store(at + NP * KP, remainder(a, high), mask=k < KP)
    tl.store(scales + net * NP + n, down)
    tl.store(bias + net * NP + n, tl.load(b + net * H + n, mask=n < H, other=0.0))


OPERANDS = {"fp32": torch.float16, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}


def pack(matrices: Sequence[Tensor], biases: Sequence[Tensor], mode: str) -> list[Packed]:
    """Pack hidden matrices A [G, H, K] and biases [G, H] of layers 1..L of G networks, omega folded in.

    Layers of one shape lie behind one another in memory.
    """
    shapes = [(padded(A.shape[1]), padded(A.shape[2])) for A in matrices]
    count, parts = len(shapes), 2 if mode == "fp32" else 1
    if len(set(shapes)) > 1:
        return [pack([A], [b], mode)[0] for A, b in zip(matrices, biases, strict=True)]
    if not matrices:
        return []
    (NP, KP), like, G = shapes[0], matrices[0], matrices[0].shape[0]
    P = like.new_empty((count, G, parts, NP, KP), dtype=OPERANDS[mode])
    scales, bias = like.new_empty(count, G, NP), like.new_empty(count, G, NP)
    sizes = {"NP": NP, "KP": KP, "PARTS": parts, "KB": min(triton.next_power_of_2(KP), 1024), "MODE": mode}
    for l, (A, b) in enumerate(zip(matrices, biases, strict=True)):
        _, H, K = A.shape
        launch(pack_rows, (NP, G), A.contiguous(), P[l], scales[l], b.contiguous(), bias[l], H, K, **sizes, num_warps=4)
    return [Packed(P[l], scales[l], bias[l], KP, NP) for l in range(count)]
