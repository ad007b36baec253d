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
from .digits import digits, magnitude, unit_scales
from .dot import guarded, narrow, powers_of_two, remainder


class Packed(NamedTuple):
    """A hidden layer's matrix and biases; G networks."""

    matrix: Tensor
    """[G, parts, units, inputs], the high part first."""
    scales: Tensor
    """[G, units], what the matrix is multiplied by."""
    bias: Tensor
    """[G, units]"""
    inputs: int
    units: int
    """Padded sizes."""


@triton.jit
def parts_of(a, MODE: tl.constexpr):
    """The operands that make up a scaled number, the largest first."""
    if MODE == "int8":
        # Adding and subtracting it rounds to an integer.
        return digits(((a + 6755399441055744.0) - 6755399441055744.0).to(tl.int32))
    elif MODE == "fp32":
        high = narrow(a, MODE)
        return high, remainder(a, high)
    else:
        return (narrow(a, MODE),)


@triton.jit
def pack_rows(
    A, P, scales, b, bias, H, K, NP: tl.constexpr, KP: tl.constexpr, PARTS: tl.constexpr, KB: tl.constexpr,
    MODE: tl.constexpr,
):  # fmt: skip
    """One unit: its row of A [H, K] to P [PARTS, NP, KP], with zeros for padding."""
    n, net = tl.program_id(0), tl.program_id(1)
    row = A + (net * H + n) * K
    largest = tl.zeros((KB,), tl.int32)
    for start in range(0, KP, KB):
        k = start + tl.arange(0, KB)
        a = tl.load(row + k, mask=(k < K) & (n < H), other=0.0)
        largest = tl.maximum(largest, magnitude(a.to(tl.float32)))
    if MODE == "int8":
        up, down = unit_scales(tl.max(largest, axis=0))
    elif guarded(MODE):
        up, down = powers_of_two(tl.max(largest, axis=0).to(tl.float32, bitcast=True))
    else:
        up, down = 1.0, 1.0
    for start in range(0, KP, KB):
        k = start + tl.arange(0, KB)
        a = tl.load(row + k, mask=(k < K) & (n < H), other=0.0) * up
        at = P + (net * PARTS * NP + n) * KP + k
        parts = parts_of(a, MODE)
        for i in tl.static_range(PARTS):
            tl.store(at + i * NP * KP, parts[i].to(P.dtype.element_ty), mask=k < KP)
    tl.store(scales + net * NP + n, down)
    tl.store(bias + net * NP + n, tl.load(b + net * H + n, mask=n < H, other=0.0))


OPERANDS = {
    "fp32": torch.float16,
    "fp16": torch.float16,
    "tf32": torch.float16,
    "bf16": torch.bfloat16,
    "fp64": torch.float64,
    "int8": torch.int8,
}
PARTS = {"fp32": 2, "int8": 3}


def pack(matrices: Sequence[Tensor], biases: Sequence[Tensor], mode: str) -> list[Packed]:
    """Pack hidden matrices A [G, H, K] and biases [G, H] of layers 1..L of G networks, omega folded in.

    Layers of one shape lie behind one another in memory.
    """
    shapes = [(padded(A.shape[1]), padded(A.shape[2])) for A in matrices]
    count, parts = len(shapes), PARTS.get(mode, 1)
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
