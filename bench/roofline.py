"""What a GPU can do at best: bytes, matrix flops and sines of a workload, and the time that each of them takes.

The bound of a workload is the largest of four times, as if everything else were hidden behind it:

- bytes: every input read once, every output written once. Activations stay on the chip.
- matrix: products with hidden matrices on tensor cores, at the dense rate. "fp32" is three products of fp16 halves.
- thin: the first and the last layer, by multiply-adds in full precision.
- sines: fp16 and bf16 on the special function units; fp32 and fp64 as polynomials on the ordinary lanes.

Units, the repetitions of one forward, are those of units.py: the cheapest engine, three times that for training, and
recomputed forwards count as nothing. Training takes the sine and cosine of every phase once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from .units import unit_flops, units
from .workloads import Workload

MODES = ("fp16", "bf16", "fp32", "fp64")
# Tensor-core products of one product of a mode.
PRODUCTS = {"fp16": 1, "bf16": 1, "fp32": 3, "fp64": 1}
# Lane instructions of one sine in polynomial form, reduction included, and of sine and cosine together: counted in the
# kernels, fp64 from the device library.
LANE_SINE = {"fp32": (16, 24), "fp64": (40, 60)}
SPECIAL_PER_CLOCK = 16


@dataclass(frozen=True)
class Chip:
    """Peak rates of one GPU, dense, from its public data sheet.

    Args:
        name: As in the table.
        fp16: Tensor-core rate of fp16 and bf16 in TFLOP/s, fp32 sums.
        fp32: Rate of ordinary fp32 multiply-adds in TFLOP/s.
        fp64: Tensor-core rate of fp64 in TFLOP/s.
        bandwidth: Of device memory, in TB/s.
        multiprocessors: Their number.
        clock: Boost clock in GHz, the one the rates are quoted at.
    """

    name: str
    fp16: float
    fp32: float
    fp64: float
    bandwidth: float
    multiprocessors: int
    clock: float

    @property
    def special(self) -> float:
        """Results of the special function units, in 10^12 per second."""
        return SPECIAL_PER_CLOCK * self.multiprocessors * self.clock / 1e3


CHIPS = {
    # NVIDIA A100 Tensor Core GPU data sheet, SXM4 80 GB.
    "A100": Chip("A100", fp16=312.0, fp32=19.5, fp64=19.5, bandwidth=2.039, multiprocessors=108, clock=1.41),
    # NVIDIA H100 Tensor Core GPU data sheet, SXM5; half of the rates quoted with sparsity.
    "H100": Chip("H100", fp16=989.4, fp32=66.9, fp64=66.9, bandwidth=3.35, multiprocessors=132, clock=1.83),
    # NVIDIA H200 Tensor Core GPU data sheet, SXM: the chip of the H100 with faster memory.
    "H200": Chip("H200", fp16=989.4, fp32=66.9, fp64=66.9, bandwidth=4.8, multiprocessors=132, clock=1.83),
    # NVIDIA HGX B200 data sheet, an eighth of the board.
    "B200": Chip("B200", fp16=2250.0, fp32=75.0, fp64=37.0, bandwidth=7.7, multiprocessors=148, clock=1.85),
}


class Work(NamedTuple):
    """What a workload cannot avoid."""

    bytes: float
    matrix_flops: float
    """On tensor cores, with all products of the mode."""
    thin_flops: float
    sines: float
    """Phases whose sine is taken."""
    cosines: float
    """Phases whose cosine is taken with it."""


class Bound(NamedTuple):
    """Milliseconds by each resource."""

    bytes: float
    matrix: float
    thin: float
    sines: float

    @property
    def ms(self) -> float:
        """No implementation is faster."""
        return max(self)

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return self._fields[self.index(self.ms)]


def weights(w: Workload) -> int:
    """Return the number of weights and biases."""
    sines = w.width * (w.d + 1) + w.layers * w.width * (w.width + 1)
    return sines + w.o * (w.width + 1)


def moved(w: Workload, mode: str, *, grid: bool = False) -> float:
    """Return the bytes of coordinates, targets, results, parameters and gradients.

    Args:
        w: The workload.
        mode: Of the products; fp64 has tensors of fp64, the others of fp32.
        grid: Whether coordinates are those of a grid, which nobody reads.
    """
    size = 8 if mode == "fp64" else 4
    quantity = w.kind.removeprefix("train_")
    read = 0 if grid else w.d
    if w.training:
        target = {"gradient": w.d, "eikonal": 0}.get(quantity, w.o)
        return size * (w.points * (read + target) + 2 * weights(w))
    written = {"gradient": w.o + w.d, "laplacian": 2 * w.o + w.d}.get(quantity, w.o)
    return size * (w.points * (read + written) + weights(w))


def work(w: Workload, mode: str, *, grid: bool = False) -> Work:
    """Return what a workload takes in a mode; see `moved` for the arguments."""
    count = units(w.kind, w.d, w.o)
    all_flops = unit_flops(w.points, w.d, w.o, w.width, w.layers)
    hidden = 2.0 * w.points * w.layers * w.width**2
    sines = float(w.points * w.width * (w.layers + 1))
    cosines = 0.0 if w.kind == "forward" else sines
    thin = count * (all_flops - hidden)
    return Work(moved(w, mode, grid=grid), count * hidden * PRODUCTS[mode], thin, sines, cosines)


def bound(w: Workload, mode: str, chip: Chip, *, grid: bool = False) -> Bound:
    """Return the times of a workload on a chip; see `moved` for the arguments."""
    found = work(w, mode, grid=grid)
    tensor = chip.fp64 if mode == "fp64" else chip.fp16
    lanes = chip.fp64 / 2 if mode == "fp64" else chip.fp32
    if mode in LANE_SINE:
        alone, both = LANE_SINE[mode]
        # A multiply-add counts as two flops and is one instruction.
        sines = 2 * (both * found.cosines + alone * (found.sines - found.cosines)) / lanes
    else:
        sines = (found.sines + found.cosines) / chip.special
    times = found.bytes / chip.bandwidth, found.matrix_flops / tensor, found.thin_flops / lanes, sines
    return Bound(*(1e3 * time / 1e12 for time in times))


def chip_of(name: str) -> Chip | None:
    """Return the chip of a device by the name that CUDA gives it; None for one without rates here."""
    words = set(re.findall(r"\w+", name.upper()))
    # Cards for PCIe slots and parts of a chip have other rates.
    return None if words & {"PCIE", "NVL", "MIG"} else next((CHIPS[key] for key in CHIPS if key in words), None)


# What a run on a GPU is compared with: the rows that matter first.
TABLE = (
    *(Workload("forward", width=width, points=1 << 20) for width in (64, 128, 256, 512)),
    *(Workload("laplacian", d=d, points=1 << 20) for d in (2, 3)),
    *(Workload("train_value", width=width, points=1 << 18) for width in (64, 128, 256, 512)),
    Workload("train_gradient", points=1 << 18),
    Workload("train_laplacian", points=1 << 18),
    Workload("train_eikonal", d=3, points=1 << 18),
)


def table(workloads: Iterable[Workload] = TABLE, modes: Iterable[str] = ("fp16", "fp32", "fp64")) -> str:
    """Return the bounds of workloads in every mode on every chip, as text."""
    chips = list(CHIPS.values())
    lines = [f"{'ms, and what limits':38} {'mode':5}" + "".join(f"{chip.name:>16}" for chip in chips)]
    for w in workloads:
        for mode in modes:
            bounds = [bound(w, mode, chip) for chip in chips]
            lines.append(f"{w.name:38} {mode:5}" + "".join(f"{b.ms:9.4g} {b.limit:6}" for b in bounds))
    return "\n".join(lines)
