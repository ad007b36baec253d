"""The bars of a release: ratios to PyTorch and shares of torch.mm's rate, checked against recorded rows."""

from __future__ import annotations

from typing import NamedTuple

from .records import SUFFIXES, Row
from .workloads import MANY, MUST_SHOW, Workload

WIDTH, LAYERS, THREADS = 256, 3, 2
ISAS = ("avx512", "amx")
UNFUSED_SHARE = 0.7


class Bar(NamedTuple):
    """A least value of one column.

    Args:
        workload: Name of the kind, with the suffix of a variant such as "_unfused".
        points: Number of points.
        d: Input features.
        peer: Row to look at: a peer for a ratio, ours for a percentage.
        column: "ratio_median" or "percent_of_mm".
        least: Least value on each of ISAS.
        width: Features of every sine layer.
    """

    workload: str
    points: int
    d: int
    peer: str
    column: str
    least: tuple[float, float]
    width: int = WIDTH


class Outcome(NamedTuple):
    """A bar against the rows: the least value, the value found (None without a row), whether it passes."""

    bar: Bar
    least: float
    value: float | None
    passed: bool


RATIOS = (
    *(Bar("forward", n, 2, "eager", "ratio_median", (3.5, 10.0)) for n in (65_536, 262_144)),
    *(Bar("forward", n, 2, "compile", "ratio_median", (2.0, 6.0)) for n in (65_536, 262_144)),
    Bar("laplacian", 65_536, 2, "eager", "ratio_median", (9.0, 20.0)),
    Bar("laplacian", 65_536, 2, "compile_jet", "ratio_median", (1.8, 4.0)),
    Bar("laplacian", 65_536, 3, "eager", "ratio_median", (10.0, 22.0)),
    Bar("train_value", 65_536, 2, "eager", "ratio_median", (2.4, 6.0)),
    Bar("train_value", 65_536, 2, "compile", "ratio_median", (1.6, 4.0)),
    Bar("train_gradient", 65_536, 2, "eager", "ratio_median", (3.3, 7.0)),
    Bar("train_eikonal", 65_536, 3, "eager", "ratio_median", (3.6, 9.0)),
    Bar("train_laplacian", 65_536, 2, "eager", "ratio_median", (5.5, 12.0)),
    Bar("train_laplacian", 65_536, 2, "compile_jet", "ratio_median", (1.7, 4.0)),
)


# What existing programs must get from a drop-in class, at the size of the notebook's image, 256 x 256.
DROPIN = (
    Bar("train_value_import_only", 65_536, 2, "eager", "ratio_median", (2.5, 2.5)),
    Bar("train_laplacian_import_only", 65_536, 2, "eager", "ratio_median", (5.0, 5.0)),
    Bar("train_laplacian_diff_operators", 65_536, 2, "eager", "ratio_median", (5.0, 5.0)),
)


# Images of 64 x 64, one to each of many small networks.
NETWORKS = (
    Bar(MANY, 4_096, 2, "eager", "ratio_median", (8.0, 8.0), width=32),
    Bar(MANY, 4_096, 2, "vmap", "ratio_median", (2.0, 2.0), width=32),
)


def unfused(bar: Bar) -> Bar:
    """Return the bar of the same step through an ordinary loss."""
    least = (UNFUSED_SHARE * bar.least[0], UNFUSED_SHARE * bar.least[1])
    return bar._replace(workload=bar.workload + SUFFIXES["unfused"], least=least)


def share(workload: Workload) -> Bar:
    """Return the bar on the rate of a workload, which does not depend on the machine."""
    least = (80.0, 220.0) if workload.training else (85.0, 250.0 if workload.kind == "forward" else 220.0)
    return Bar(workload.kind, workload.points, workload.d, "ours", "percent_of_mm", least)


BARS = (
    *RATIOS,
    *(unfused(bar) for bar in RATIOS if bar.workload.startswith("train_") and bar.peer == "eager"),
    *(share(workload) for workload in MUST_SHOW),
    *DROPIN,
    *NETWORKS,
)


def check(rows: list[Row], isa: str, factor: float = 1.0) -> list[Outcome]:
    """Compare rows with every bar of an instruction set.

    Args:
        rows: The rows that count, at most one of a key.
        isa: One of ISAS.
        factor: Multiplies every bar; shared machines are noisy, so continuous integration asks for less.

    Raises:
        ValueError: There are no bars for this instruction set.
    """
    if isa not in ISAS:
        raise ValueError(f"isa is {isa!r}; there are gates for {', '.join(ISAS)}")
    return [outcome(rows, bar, factor * bar.least[ISAS.index(isa)]) for bar in BARS]


def outcome(rows: list[Row], bar: Bar, least: float) -> Outcome:
    """Return how one bar fares; a missing row and a value that is not a number are misses."""
    wanted = (bar.workload, bar.width, LAYERS, bar.points, bar.d, 1, bar.peer, "default")
    found = [getattr(row, bar.column) for row in rows if row.key == wanted and row.threads == THREADS]
    value = found[-1] if found else None
    return Outcome(bar, least, value, value is not None and value >= least)


def describe(result: Outcome) -> str:
    """Return the printed line of an outcome."""
    bar, percent = result.bar, result.bar.column == "percent_of_mm"
    unit = " %" if percent else "x"
    what = "of the torch.mm rate" if percent else f"vs {bar.peer}"
    value = "no row" if result.value is None else f"{result.value:.2f}{unit}"
    verdict = "PASS" if result.passed else "MISS"
    name = f"{bar.workload} d={bar.d} n={bar.points:,} {what}"
    return f"{verdict}  {name:58} {value:>10}   at least {result.least:.2f}{unit}"
