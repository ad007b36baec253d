"""The benchmark table of the README and its plot, rendered from recorded rows and from nothing else."""

from __future__ import annotations

from pathlib import Path

from .records import Row
from .workloads import MUST_SHOW, RELEASE
from .workloads import VARIANTS as BY_SET

Rows = dict[tuple[object, ...], Row]

TITLES = {
    "forward": "value",
    "gradient": "value + gradient",
    "laplacian": "value + gradient + Laplacian",
    "train_value": "training step, value loss",
    "train_gradient": "training step, gradient loss",
    "train_laplacian": "training step, Laplacian loss",
    "train_eikonal": "training step, eikonal loss",
    "train_256_networks": "256 networks trained together, with Adam",
}
VARIANTS = {
    "ours": "",
    "unfused": " written in PyTorch",
    "import_only": ", class imported from dropin",
    "diff_operators": ", class and derivative functions imported",
}
COMPILED = ("compile", "compile_jet", "compile_adjoint", "torch_jet", "compile_vmap")
HEADER = (
    "workload",
    "vs eager",
    "vs eager, tuned malloc",
    "vs eager in chunks",
    "vs strongest compiled",
    "ms",
    "% of mm rate",
    "peak MB, ours / eager",
)


def title(row: Row) -> str:
    """Return the first cell of a row: what, shape, points."""
    name = TITLES[row.kind] + VARIANTS[row.variant]
    outputs = "" if row.o == 1 else f", o={row.o}"
    return f"{name}, d={row.d}{outputs}, {row.layers}x{row.width}, {row.points:,} points"


def order(row: Row) -> tuple[int, int, int, int, int, int]:
    """Return the sorting key of the table: kinds in the order of TITLES, then shapes."""
    return (list(TITLES).index(row.kind), list(VARIANTS).index(row.variant), row.d, row.o, row.width, row.points)


def index(rows: list[Row]) -> Rows:
    """Return the rows by their keys."""
    return {row.key: row for row in rows}


def peer(rows: Rows, row: Row, name: str, malloc: str = "default") -> Row | None:
    """Return a peer's row beside one of ours."""
    return rows.get((row.workload, row.width, row.layers, row.points, row.d, row.o, name, malloc))


def strongest(rows: Rows, row: Row) -> Row | None:
    """Return the row of the fastest peer that is more than eager PyTorch."""
    found = [r for r in (peer(rows, row, name) for name in COMPILED) if r is not None]
    return min(found, key=lambda r: r.ratio_median, default=None)


def times(row: Row | None, *, named: bool = False) -> str:
    """Return a ratio's cell; empty without a row."""
    if row is None:
        return ""
    return f"{row.ratio_median:.1f}x" + (f" ({row.peer})" if named else "")


def cells(rows: Rows, row: Row) -> list[str]:
    """Return the cells of one line of the table, from our row with the default malloc."""
    plain = peer(rows, row, "eager")
    peaks = [f"{r.peak_mb:,.0f}" for r in (row, plain) if r is not None and r.peak_mb is not None]
    return [
        title(row),
        times(plain),
        times(peer(rows, row, "eager", "tuned")),
        times(peer(rows, row, "chunks")),
        times(strongest(rows, row), named=True),
        f"{row.median_ms:.4g}",
        f"{row.percent_of_mm:.0f}",
        " / ".join(peaks),
    ]


def caption(row: Row) -> str:
    """Return the line under the table: where and with what it was measured."""
    return (
        f"{row.machine}, {row.isa}, {row.threads} threads; torch {row.torch}, Python {row.python}, "
        f"fastsiren {row.fastsiren} ({row.commit}), {row.date[:10]}. Ratios are medians over interleaved rounds."
    )


def ours(rows: list[Row], *, sweep: bool, dropin: bool = False) -> list[Row]:
    """Return our rows with the default malloc in the order of the table.

    Args:
        rows: The rows that count, at most one of a key.
        sweep: Show every workload, not only those of MUST_SHOW.
        dropin: Show all workloads of drop-in classes, in place of those of a release.
    """
    shown = {(w.kind, w.width, w.layers, w.points, w.d, w.o) for w in MUST_SHOW}
    variants = BY_SET["dropin"] if dropin else RELEASE

    def wanted(r: Row) -> bool:
        shape = (r.kind, r.width, r.layers, r.points, r.d, r.o)
        chosen = r.variant in variants and (sweep or dropin or shape in shown)
        return chosen and r.peer == "ours" and r.malloc == "default"

    return sorted((r for r in rows if wanted(r)), key=order)


def markdown(rows: list[Row], *, sweep: bool = False, dropin: bool = False) -> str:
    """Render the table.

    Args:
        rows: The rows that count, at most one of a key.
        sweep: Show every workload, not only those of MUST_SHOW.
        dropin: Show all workloads of drop-in classes, in place of those of a release.

    Raises:
        ValueError: No row of ours is among them.
    """
    lines = ours(rows, sweep=sweep, dropin=dropin)
    if not lines:
        raise ValueError("no rows of ours to show; run `python -m fastsiren.bench cpu` first, or pass --sweep")
    by_key = index(rows)
    body = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *(cells(by_key, row) for row in lines)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in body)
    return f"{table}\n\n{caption(max(lines, key=lambda r: r.date))}\n"


def plot(rows: list[Row], path: Path, *, sweep: bool = False) -> None:
    """Draw how much faster ours is, one group of bars per workload, into a PNG.

    Args:
        rows: The rows that count, at most one of a key.
        path: The picture; its folder is made.
        sweep: Show every workload, not only those of MUST_SHOW.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError("the plot needs matplotlib: pip install 'fastsiren[bench]'") from error
    lines, by_key = ours(rows, sweep=sweep)[::-1], index(rows)
    series = {
        "eager": [peer(by_key, row, "eager") for row in lines],
        "eager, tuned malloc": [peer(by_key, row, "eager", "tuned") for row in lines],
        "strongest compiled": [strongest(by_key, row) for row in lines],
    }
    figure = Figure(figsize=(10, 1.5 + 0.6 * len(lines)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (label, found) in enumerate(series.items()):
        heights = [i + 0.27 * (1 - place) for i in range(len(lines))]
        bars = axes.barh(heights, [0.0 if r is None else r.ratio_median for r in found], height=0.25, label=label)
        axes.bar_label(bars, [times(r) for r in found], padding=3, fontsize=8)
    axes.set_yticks(range(len(lines)), [title(row) for row in lines], fontsize=8)
    axes.margins(x=0.1)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel(f"how many times faster fastsiren is ({lines[0].isa}, {lines[0].threads} threads)")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
