"""GEMM units of a request and the arithmetic behind the percentages.

One unit is the GEMM work of one value forward. Every engine repeats the same GEMMs over its channels, so its cost is a
whole number of units. Assumptions, the same for every row of every table:

- Only GEMMs count: sines, cosines and the pointwise algebra of derivatives are free.
- The first and the last layer count in full in every channel, although constant directions cost nothing there; that
  overstates the derivative engines by less than (d + o) / (3 width), about 0.5 % at width 256.
- A training step is three forwards: every GEMM has one data gradient and one weight gradient. Recomputing a forward
  in the backward is overhead, not work, so it lowers the percentage.
- A peer is charged with the units of the cheapest engine, whatever it executes itself.
"""

from __future__ import annotations

from .workloads import Workload

MM_SIZE = 2048
MM_FLOPS = 2.0 * MM_SIZE**3


def unit_flops(points: int, d: int, o: int, width: int, layers: int) -> float:
    """Return the GEMM flops of one value forward: 2 N (d w + layers w^2 + w o).

    Args:
        points: Number of points N.
        d: Input features.
        o: Output features.
        width: Features of every sine layer.
        layers: Hidden width x width matrices.
    """
    return 2.0 * points * (d * width + layers * width**2 + width * o)


def jet_units(directions: int, forms: int = 0) -> int:
    """Return the units of a forward jet: the value, K tangents and R second-order channels."""
    return 1 + directions + forms


def adjoint_units(combinations: int) -> int:
    """Return the units of value and reverse Jacobian: the value and C adjoints."""
    return 1 + combinations


def sandwich_units(directions: int, combinations: int) -> int:
    """Return the units of the sandwich: the value, K tangents and C adjoints."""
    return 1 + directions + combinations


def first_order_units(d: int, o: int) -> int:
    """Return the units of the cheapest engine for value and Jacobian."""
    return min(jet_units(d), adjoint_units(o))


def laplacian_units(d: int, o: int) -> int:
    """Return the units of the cheapest engine for value, Jacobian and Laplacian."""
    return min(jet_units(d, 1), sandwich_units(d, o))


def units(kind: str, d: int, o: int) -> int:
    """Return the units of a workload under the assumptions at the top of this module.

    Args:
        kind: Kind of the workload, for example "laplacian" or "train_value".
        d: Input features.
        o: Output features.
    """
    quantity = kind.removeprefix("train_")
    forward = {
        "forward": 1,
        "value": 1,
        "256_networks": 1,
        "gradient": first_order_units(d, o),
        "eikonal": first_order_units(d, o),
        "laplacian": laplacian_units(d, o),
    }[quantity]
    return 3 * forward if kind.startswith("train_") else forward


def workload_flops(workload: Workload) -> float:
    """Return the GEMM flops that a workload is charged with, for ours and for every peer."""
    w = workload
    return w.networks * units(w.kind, w.d, w.o) * unit_flops(w.points, w.d, w.o, w.width, w.layers)


def percent_of_mm(workload: Workload, seconds: float, mm_seconds: float) -> float:
    """Return the rate of a run as a percentage of torch.mm's rate on two 2048 x 2048 matrices.

    Args:
        workload: What was run.
        seconds: Time of one run.
        mm_seconds: Time of the matrix product, measured in the same round.
    """
    return 100.0 * (workload_flops(workload) / seconds) / (MM_FLOPS / mm_seconds)
