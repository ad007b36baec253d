"""Sizes of tiles: what each kernel is launched with, and how.

The choice depends on the pass, the number of channels, the padded widths, the mode and the chip, never on the number of
points: the bits of a row are then the same in any batch. compile_report.csv shows what the compiler makes of it.
"""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

# Triton's own switch, read where Triton reads it: when kernels are defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Rows of one call of a layerwise kernel: bounds what a pass allocates, and every offset in its buffers to 32 bits.
BUFFER_ELEMENTS = 1 << 28
CHUNK_ROWS = 1 << 15
# Pixels whose points and values are stored at once.
PIXEL_ROWS = 1 << 20
# Rows of one partial sum of weight gradients.
SPLIT_ROWS = 1024
# Arguments that follow the number of points: code that Triton specialises to them could round a row in another way.
COUNTS = ["rows", "N", "s_channel"]
# Bytes of shared memory that a program may have, by chip; 86 stands for every chip that has no more than 99 KB.
SHARED = {80: 166912, 86: 101376, 90: 232448, 100: 232448}
# Registers of a thread for sums, which leave enough for mixing the channels afterwards; on sm_100 they come from a
# memory of 512 columns, and beyond it the compiler makes an empty kernel.
SUMS = {80: 40, 86: 40, 90: 80, 100: 64}
# The same for digits, whose sums are integers and which multiply a channel at a time; seen to be kept in registers.
DIGIT_SUMS = {80: 128, 86: 128, 90: 224, 100: 128}


def padded(width: int) -> int:
    """Width of a buffer for a layer: a power of two up to 64, then a multiple of 64."""
    return max(16, triton.next_power_of_2(width)) if width <= 64 else -(-width // 64) * 64


def chunk_rows(channels: int, width: int) -> int:
    """Rows that one launch of every layer handles."""
    return max(256, min(CHUNK_ROWS, BUFFER_ELEMENTS // (channels * width)))


class Tile(NamedTuple):
    """Rows, columns and slice of the inner dimension of a product of all channels with one matrix."""

    BM: int
    BN: int
    BK: int
    num_warps: int
    STAGES: int

    def fits(self, channels: int, width: int, inner: int, mode: str, chip: int) -> bool:
        """Whether it divides the matrix, its sums stay in registers, and its slices and a result in shared memory."""
        if width % self.BN or inner % self.BK:
            return False
        number, digits = 8 if mode == "fp64" else 4, mode == "int8"
        # Digits: three sums, and what the compiler keeps of every further channel.
        held, loaded = (4 * channels - 1, 1) if digits else (channels, channels)
        sums = held * self.BM * self.BN * number // (128 * self.num_warps)
        rows = (self.STAGES - 1) * loaded * self.BM * self.BK
        shared = number * (rows + self.STAGES * self.BN * self.BK + self.BM * self.BN)
        # The sine of fp64 needs half of the registers.
        most = DIGIT_SUMS[chip] if digits else SUMS[chip] * 4 // number
        return sums <= most and shared <= SHARED[chip]


# By preference: a kernel reads its channels width / BN times. With 64 rows a warp group of sm_90 multiplies.
_WIDE = (
    Tile(128, 128, 32, 8, 2), Tile(64, 128, 32, 8, 2), Tile(64, 64, 32, 8, 2),
    # Half as many instructions as 64 x 32, which also spilled for six channels on sm_100.
    Tile(32, 64, 32, 8, 2), Tile(64, 32, 32, 8, 2), Tile(16, 32, 32, 4, 2), Tile(16, 16, 32, 4, 2),
    Tile(16, 16, 16, 4, 1),
)  # fmt: skip
# Without warp groups, whose operands come from shared memory, fewer rows spare registers.
_WIDE_SMALL = (
    Tile(64, 128, 32, 8, 2), Tile(32, 64, 32, 8, 2), Tile(16, 32, 32, 4, 2), Tile(16, 16, 32, 4, 2),
    Tile(16, 16, 16, 4, 1),
)  # fmt: skip
# Of two warp groups every one has rows of its own: their digits then stay where they were made.
_WIDE_DIGITS = (
    Tile(128, 128, 32, 8, 2), Tile(128, 64, 32, 8, 2), Tile(128, 32, 32, 8, 2), Tile(64, 32, 32, 8, 2),
    Tile(16, 32, 32, 4, 2),
)  # fmt: skip
_WIDE_FP64 = (Tile(16, 32, 16, 4, 1), Tile(16, 16, 16, 4, 1))
_THIN = (Tile(32, 64, 16, 4, 1), Tile(16, 64, 16, 4, 1), Tile(16, 32, 16, 4, 1), Tile(16, 16, 16, 4, 1))


def layer_tile(
    device: torch.device, channels: int, width: int, inner: int, mode: str, *, thin: bool = False
) -> dict[str, Any]:
    """Tile of a kernel that multiplies all channels with one matrix and mixes them afterwards.

    Args:
        device: of the channels.
        channels: how many are multiplied.
        width: padded columns of the result.
        inner: columns of the channels, padded unless thin.
        mode: of the products.
        thin: whether the channels have few columns, which are multiplied one by one.
    """
    chip = architecture(device)
    tuned = None if thin else _tuned().get(f"sm_{chip} {channels} {width} {inner} {mode}")
    if tuned:
        return Tile(*tuned)._asdict()
    inner, tiles = 16 if thin else inner, _THIN if thin else _wide(mode, chip)
    return next((tile for tile in tiles if tile.fits(channels, width, inner, mode, chip)), tiles[-1])._asdict()


def _wide(mode: str, chip: int) -> tuple[Tile, ...]:
    if mode == "fp64":
        return _WIDE_FP64
    if mode == "int8":
        return _WIDE_DIGITS if chip == 90 else _WIDE_SMALL
    return _WIDE if chip in (90, 100) else _WIDE_SMALL


@functools.cache
def _tuned() -> dict[str, Any]:
    """What was faster on a device than the first choice, where there is a file of it: tiles and sines."""
    path = Path(__file__).with_name("tuned.json")
    return json.loads(path.read_text()) if path.exists() else {}


def widest(device: torch.device, inputs: int, channels: int, mode: str, *, grid: bool) -> int:
    """The widest layers that `whole` keeps on the chip with so many inputs and channels, or of a grid; 0 for none."""
    # The first layer's code grows with every coordinate.
    if mode == "int8" or inputs > 16:
        return 0
    if mode == "fp64":
        return 64 if channels == 1 else 0
    if channels > 1:
        return 64 if channels <= 5 else 0
    # One operand of the widest matrices fits; the points of a grid and more coordinates need registers of theirs.
    single = mode in ("fp16", "tf32", "bf16") and inputs <= 3 and not grid
    return 256 if single and architecture(device) != 86 else 128


def whole_tile(device: torch.device, channels: int, width: int, hidden: int, parts: int) -> dict[str, Any]:
    """Tile of `whole`; hidden matrices are held for all tiles of a program where they leave room for activations."""
    held = hidden * parts * width * width * 2
    # As many rows as the compiler keeps in registers: every channel of a row is there at once.
    most = 32 if channels * width <= 256 else 16
    rows = {90: 128, 100: 64}.get(architecture(device), most) if channels == 1 else most
    rows = 64 if width > 128 else rows
    # Code is written out for every matrix that is held.
    room = min(100 * 1024, SHARED[architecture(device)] - 16 * 1024)
    return {"BM": rows, "HOIST": channels == 1 and hidden <= 8 and 0 < held <= room, "num_warps": 8}


def whole_sines(device: torch.device, channels: int, width: int, sines: str) -> str:
    """What the sines of `whole` come from, where its network takes those of the special function unit."""
    # Counted, the multiply-adds of half of the sines are more than that unit takes for them: kernels/README.md.
    tuned = _tuned().get(f"sm_{architecture(device)} sines {channels} {width}", "unit")
    return tuned if sines == "unit" else sines


def gradient_tile(width: int, inner: int, mode: str) -> dict[str, Any]:
    """Tile of a weight gradient [width, inner]; BR is the slice of rows."""
    if mode == "fp64":
        return {"BN": 16, "BK": 16, "BR": 16, "num_warps": 4, "STAGES": 1}
    return {"BN": divisor(width, 64), "BK": divisor(inner, 64), "BR": 32, "num_warps": 4, "STAGES": 2}


def divisor(width: int, most: int) -> int:
    """The largest power of two that divides a padded width, at most `most`."""
    return min(most, width & -width)


class Launch(NamedTuple):
    """What a kernel is launched with, but the grid."""

    kernel: Any
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class _Recording(NamedTuple):
    chip: int
    launches: list[Launch]


_recording: _Recording | None = None


@contextmanager
def recording(chip: int) -> Iterator[list[Launch]]:
    """Collect launches for a chip of SHARED instead of making them: tensors may be on the device "meta"."""
    global _recording
    _recording = _Recording(chip, [])
    try:
        yield _recording.launches
    finally:
        _recording = None


def architecture(device: torch.device) -> int:
    """The chip of SHARED that tiles are chosen for; sm_90 where the device is no GPU."""
    if _recording is not None:
        return _recording.chip
    if device.type != "cuda":
        return 90
    return {(8, 0): 80, (9, 0): 90, (10, 0): 100, (10, 3): 100}.get(torch.cuda.get_device_capability(device), 86)


def launch(
    kernel: Any, grid: Sequence[int], *arguments: Any, num_warps: int, num_stages: int = 1, **sizes: Any
) -> None:
    """Launch on the current stream; nothing to do where the grid is empty."""
    if 0 in grid:
        return
    # Fusion is explicit, since its default changes between versions of Triton and the reduction of the sine needs it.
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    if _recording is not None:
        _recording.launches.append(Launch(kernel, arguments, {**sizes, **options}))
        return
    device = arguments[0].device
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[tuple(grid)](*arguments, **sizes, **options)


def mode_of(dtype: torch.dtype, precision: str) -> str:
    """The mode of products for parameters of a dtype."""
    return "fp64" if dtype == torch.float64 else precision
