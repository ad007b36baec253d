"""Sizes of tiles: what each kernel is launched with, and how.

The choice depends on the pass, the number of channels, the padded widths, the mode and the chip, never on the number of
points: the bits of a row are then the same in any batch.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import triton

# Rows of one call of a layerwise kernel: bounds what a pass allocates, and every offset in its buffers to 32 bits.
BUFFER_ELEMENTS = 1 << 28
CHUNK_ROWS = 1 << 15
# Rows of one partial sum of weight gradients.
SPLIT_ROWS = 1024


def padded(width: int) -> int:
    """Width of a buffer for a layer: a power of two up to 64, then a multiple of 64."""
    return max(16, triton.next_power_of_2(width)) if width <= 64 else -(-width // 64) * 64


def chunk_rows(channels: int, width: int) -> int:
    """Rows that one launch of every layer handles."""
    return max(256, min(CHUNK_ROWS, BUFFER_ELEMENTS // (channels * width)))


def layer_tile(channels: int, width: int, inner: int, mode: str) -> dict[str, Any]:
    """Tile of a kernel that multiplies all channels with one matrix and mixes them afterwards."""
    BM, BN = (64, 128) if channels == 1 else (64, 64) if channels <= 5 else (32, 64) if channels <= 10 else (16, 32)
    BN = divisor(width, BN)
    return {"BM": BM, "BN": BN, "BK": divisor(inner, 32 if mode in ("fp32", "fp64") else 64), "num_warps": 4}


def gradient_tile(width: int, inner: int, mode: str) -> dict[str, Any]:
    """Tile of a weight gradient [width, inner]; BR is the slice of rows."""
    return {"BN": divisor(width, 64), "BK": divisor(inner, 64), "BR": 32, "num_warps": 4}


def divisor(width: int, most: int) -> int:
    """The largest power of two that divides a padded width, at most `most`."""
    return min(most, width & -width)


def launch(
    kernel: Any, grid: Sequence[int], *arguments: Any, num_warps: int, num_stages: int = 1, **sizes: Any
) -> None:
    """Launch on the current stream; nothing to do where the grid is empty."""
    if 0 in grid:
        return
    # Fusion is explicit, since its default changes between versions of Triton and the reduction of the sine needs it.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    device = arguments[0].device
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[tuple(grid)](*arguments, **sizes, **options)


def mode_of(dtype: torch.dtype, precision: str) -> str:
    """The mode of products for parameters of a dtype: "tf32" has the operands of "fp16", of the same 11 bits."""
    if dtype == torch.float64:
        return "fp64"
    return "fp16" if precision == "tf32" else precision
