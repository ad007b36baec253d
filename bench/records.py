"""Rows of results and the CSV files that collect them, one file per kind of benchmark; rows are only ever appended."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from .machine import CHECKOUT, Machine
from .workloads import Workload

# What stands behind the workload's name in rows of each variant of ours.
SUFFIXES = {"ours": "", "unfused": "_unfused", "import_only": "_import_only", "diff_operators": "_diff_operators"}


@dataclass(frozen=True)
class Subject:
    """The columns of a row that say what was computed."""

    workload: str
    width: int
    layers: int
    points: int
    d: int
    o: int


@dataclass(frozen=True)
class Measured:
    """The columns of a row that belong to one contender."""

    peer: str
    rounds: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    ratio_median: float
    ratio_best: float
    percent_of_mm: float
    error_ours: float
    error_eager: float
    peak_mb: float | None


# Fields of base classes stand from right to left: machine, subject, measured.
@dataclass(frozen=True)
class Row(Measured, Subject, Machine):
    """One contender on one workload; README.md says what each column means."""

    @property
    def key(self) -> tuple[str, int, int, int, int, int, str, str]:
        """What was measured; of two rows with one key from the same machine, the later one counts."""
        return (self.workload, self.width, self.layers, self.points, self.d, self.o, self.peer, self.malloc)

    @property
    def variant(self) -> str:
        """What of ours it is or is compared with, one of SUFFIXES."""
        return next((name for name, suffix in SUFFIXES.items() if suffix and self.workload.endswith(suffix)), "ours")

    @property
    def kind(self) -> str:
        """Kind of the workload, without the variant."""
        return self.workload.removesuffix(SUFFIXES[self.variant])

    @property
    def run(self) -> tuple[str, str, int]:
        """Where it was measured: rows of different machines, instruction sets or threads are never compared."""
        return (self.machine, self.isa, self.threads)


COLUMNS = tuple(field.name for field in fields(Row))


def row(machine: Machine, workload: Workload, measured: Measured, *, variant: str = "ours") -> Row:
    """Join the parts of a row.

    Args:
        machine: Columns of the run.
        workload: What was computed.
        measured: Columns of the contender.
        variant: Of ours, one of SUFFIXES.
    """
    w = workload
    subject = Subject(w.kind + SUFFIXES[variant], w.width, w.layers, w.points, w.d, w.o)
    return Row(**asdict(machine), **asdict(subject), **asdict(measured))


def results_folder() -> Path:
    """Return bench/results of the source tree, or fastsiren-bench in the current folder for an installed wheel."""
    return CHECKOUT / "bench" / "results" if (CHECKOUT / "setup.py").exists() else Path("fastsiren-bench")


def text(value: object) -> str:
    """Write a cell: floats to six digits, nothing for None."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def append(path: Path, rows: Sequence[Any]) -> None:
    """Append rows to a CSV file, with a header when the file is new.

    Args:
        path: The file; its folder is made.
        rows: What to append, at least one: Row or another dataclass, all of one kind.

    Raises:
        ValueError: The file has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    columns = tuple(field.name for field in fields(rows[0]))
    if not new:
        check_header(path, columns)
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(columns)
        writer.writerows([text(value) for value in asdict(row).values()] for row in rows)


def check_header(path: Path, columns: Sequence[str] = COLUMNS) -> None:
    """Raise ValueError where the columns of a file are others."""
    with path.open(newline="") as file:
        header = next(csv.reader(file), [])
    if tuple(header) != tuple(columns):
        raise ValueError(f"{path} has the columns {', '.join(header)}; expected are {', '.join(columns)}")


def read(path: Path) -> list[Row]:
    """Read the rows of a CSV file, oldest first.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has other columns.
    """
    check_header(path)
    types = get_type_hints(Row)

    def value(name: str, cell: str) -> Any:
        if types[name] == float | None:
            return float(cell) if cell else None
        return types[name](cell)

    with path.open(newline="") as file:
        return [Row(**{name: value(name, cell) for name, cell in record.items()}) for record in csv.DictReader(file)]


def latest(rows: list[Row], *, isa: str | None = None, commit: str | None = None) -> list[Row]:
    """Return the last row of every key, from one machine, instruction set and thread count: those of the last row.

    Args:
        rows: Rows, oldest first.
        isa: Take only rows of this instruction set. Default: that of the last row.
        commit: Take only rows of this commit. Default: any.
    """
    rows = [r for r in rows if isa in (None, r.isa) and commit in (None, r.commit)]
    return list({r.key: r for r in rows if r.run == rows[-1].run}.values())
