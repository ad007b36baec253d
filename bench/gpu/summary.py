"""What a run of `gpu` prints last: failures first, then ratios, targets and rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .pool import FAILURES, Record
from .rows import GpuRow


class Target(NamedTuple):
    """What a row is meant to reach; one of the three is given."""

    workload: str
    points: int
    mode: str
    peer: str = "ours"
    ms: float | None = None
    ratio: float | None = None
    percent: float | None = None
    width: int = 256

    def met(self, row: GpuRow) -> bool:
        """Tell whether a row reaches it."""
        if self.ms is not None:
            return row.median_ms <= self.ms
        if self.ratio is not None:
            return row.ratio_median >= self.ratio
        return (row.percent_of_bound or 0.0) >= (self.percent or 0.0)

    @property
    def text(self) -> str:
        """The target in words."""
        if self.ms is not None:
            return f"<= {self.ms} ms"
        return f">= {self.ratio}x {self.peer}" if self.ratio is not None else f">= {self.percent:.0f} % of the bound"

    def reached(self, row: GpuRow) -> str:
        """What a row reaches, in words."""
        if self.ms is not None:
            return f"{row.median_ms:.4g} ms"
        return f"{row.ratio_median:.2f}x" if self.ratio is not None else f"{row.percent_of_bound or 0.0:.0f} %"


BIG, MIDDLE = 1 << 20, 1 << 18
TARGETS = (
    Target("forward_grid", BIG, "fp16", ms=0.7),
    Target("forward_grid", BIG, "fp32", ms=1.6),
    Target("laplacian", BIG, "fp16", ms=2.5),
    Target("laplacian", BIG, "fp32", ms=6.0),
    Target("train_laplacian", MIDDLE, "fp32", "eager", ratio=10.0),
    Target("train_laplacian", MIDDLE, "fp32", "compile_jet", ratio=3.0),
    *(Target("forward", BIG, mode, percent=60.0, width=w) for w in (64, 128) for mode in ("fp16", "fp32")),
)


def failures(records: Iterable[Record]) -> list[Record]:
    """Return the records that make the run fail."""
    return [record for record in records if record["state"] in FAILURES]


def summary(records: Sequence[Record], rows: Sequence[GpuRow]) -> str:
    """Return the text.

    Args:
        records: Of all items.
        rows: Of gpu.csv, of this run.
    """
    lines = ["", "FAILED" if failures(records) else "no check failed"]
    lines += [f"  {record['item']} {record['state']}: {record['line'][:400]}" for record in failures(records)]
    counts = Counter(f"{record['item'].split(':')[0]} {record['state']}" for record in records)
    lines.append("items: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    ratios = sorted((r for r in records if "ratio" in r), key=lambda r: -r["ratio"])[:5]
    lines += [f"  nearest to its bound: {r['item']} {r['line']}" for r in ratios]
    lines += ["", *table(rows), "", *targets(rows), ""]
    last = [r["line"] for r in records if r["item"] in ("measure:rates", "measure:overhead")]
    last += [f"{r['item']} {r['line']}" for r in records if r["item"].startswith("product:")]
    return "\n".join([*lines, *last])


def table(rows: Sequence[GpuRow]) -> Iterator[str]:
    """Yield a line per workload and mode: how much faster ours is than each peer, then its time, bound and memory."""
    for mine in (row for row in rows if row.peer == "ours"):
        shape = f"{mine.workload} d{mine.d} w{mine.width} n{mine.points} {mine.mode}"
        peers = [row for row in rows if row.peer != "ours" and key(row) == key(mine)]
        ratios = ", ".join(f"{row.peer} {row.ratio_median:.2f}x" for row in peers)
        bound = "" if mine.percent_of_bound is None else f", {mine.percent_of_bound:.0f} % of the bound"
        memory = "" if mine.peak_mb is None else f", {mine.peak_mb:.0f} MB"
        yield f"{shape:40} {ratios}; {mine.median_ms:.4g} ms{bound}{memory}"


def key(row: GpuRow) -> tuple[object, ...]:
    """Return what rows that were timed together share."""
    return (row.workload, row.d, row.width, row.points, row.mode)


def targets(rows: Sequence[GpuRow]) -> Iterator[str]:
    """Yield a line per target: met, missed or not measured."""
    for target in TARGETS:
        found = [r for r in rows if (r.workload, r.points, r.mode, r.peer, r.width, r.d) ==
                 (target.workload, target.points, target.mode, target.peer, target.width, 2)]  # fmt: skip
        name = f"{target.workload} w{target.width} n{target.points} {target.mode} {target.text}"
        state = "not measured"
        if found:
            state = f"{'met' if target.met(found[-1]) else 'MISSED'}, {target.reached(found[-1])}"
        yield f"target {name}: {state}"
