"""Rows of gpu.csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..records import Subject


@dataclass(frozen=True)
class Device:
    """The columns of a row that are the same for a whole run."""

    commit: str
    date: str
    device: str
    capability: str
    driver: str
    cuda: str
    torch: str
    triton: str
    python: str
    fastsiren: str


@dataclass(frozen=True)
class Timed:
    """The columns of a row that belong to one contender.

    Args:
        mode: Products of ours, fp32 or fp16; `ratio` compares with ours in this mode.
        tiles: "tuned" where ours ran with tiles that this run found, else "shipped".
        peer: "ours" or a name of contenders.py.
        rounds: Number of samples.
        median_ms: Of the samples, by CUDA events; also p20_ms and p80_ms.
        ratio_median: How many times faster ours is: median of the ratios of the rounds; ratio_best of the best times.
        bound_ms: What the chip needs at least, by roofline.py; empty for an unknown chip.
        percent_of_bound: The bound as a share of the median.
        peak_mb: Peak memory that a call adds, in MB (10^6 bytes).
        error: Worst relative error against fp64, and error_eager eager's for the same quantity.
    """

    mode: str
    tiles: str
    peer: str
    rounds: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    ratio_median: float
    ratio_best: float
    bound_ms: float | None
    percent_of_bound: float | None
    peak_mb: float | None
    error: float
    error_eager: float


# Fields of base classes stand from right to left: device, subject, timed.
@dataclass(frozen=True)
class GpuRow(Timed, Subject, Device):
    """One contender on one workload in one mode."""


def device_of(environment: Mapping[str, Any], date: str) -> Device:
    """Return the columns of a run from the record of its environment."""
    names = {field.name for field in fields(Device)} - {"date", "driver"}
    known = {name: str(environment.get(name) or "") for name in names}
    return Device(**known, date=date, driver=str(environment.get("driver_version", "")))


def rows_of(record: Mapping[str, Any], device: Device) -> list[GpuRow]:
    """Return the rows of a measured item."""
    return [GpuRow(**asdict(device), **columns) for columns in record.get("rows", [])]
