"""What a run prints: the machine, then one block per workload, ratios first."""

from __future__ import annotations

from .accuracy import Verdict
from .machine import Machine
from .records import Row


def heading(machine: Machine) -> str:
    """Return the line that says where a run takes place."""
    m = machine
    versions = f"fastsiren {m.fastsiren} ({m.commit}), torch {m.torch}, Python {m.python}"
    return f"{m.machine}, {m.isa}, {m.threads} threads, malloc {m.malloc}; {versions}"


def block(rows: list[Row], verdict: Verdict) -> str:
    """Return the lines of one workload: errors, then how much faster ours is than each peer.

    Args:
        rows: Ours first, then the peers.
        verdict: Errors of ours and of eager.
    """
    r = rows[0]
    shape = f"d={r.d} o={r.o}, {r.layers} hidden matrices of width {r.width}, {r.points:,} points"
    pairs = [f"{name} {mine:.1e} / {verdict.eager[name]:.1e}" for name, mine in verdict.ours.items()]
    lines = [
        f"\n{r.workload}: {shape}, malloc {r.malloc}, {r.rounds} rounds",
        f"  errors against fp64, ours / eager: {', '.join(pairs)}",
        "  ours faster than   median    best          ms    (p20 .. p80)           % of mm    peak MB",
    ]
    return "\n".join([*lines, *(line(row) for row in [*rows[1:], r])])


def line(row: Row) -> str:
    """Return one contender's line."""
    ratios = f"{'':8} {'':7}" if row.peer == "ours" else f"{row.ratio_median:7.2f}x {row.ratio_best:6.2f}x"
    spread = f"({row.p20_ms:.4g} .. {row.p80_ms:.4g})"
    memory = "" if row.peak_mb is None else f"{row.peak_mb:.1f}"
    return f"    {row.peer:15} {ratios} {row.median_ms:11.4g}    {spread:22} {row.percent_of_mm:7.1f} {memory:>10}"
