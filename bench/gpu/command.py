"""`python -m fastsiren.bench gpu`: checks, tunes and measures on an NVIDIA GPU within a budget of time.

Every item runs in a worker process with a limit of its own, so that a crash, a hang or a device that is lost costs that
item. Records go to one file of JSON lines per stage and rows to gpu.csv, each as soon as it is there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO

import torch

from .. import records
from .items import INTERPRETED
from .pool import Record, Settings, run_items
from .rows import GpuRow, device_of, rows_of
from .summary import failures, summary
from .worker import listed

# The file of each group; groups of one stage run side by side.
FILES = {
    "environment": "environment",
    "pass": "checks",
    "behaviour": "checks",
    "sine": "checks",
    "sanitizer": "checks",
    "prepare": "prepare",
    "product": "tuning",
    "tune": "tuning",
    "measure": "measure",
}


@dataclass(frozen=True)
class Stage:
    """Groups that run side by side.

    Args:
        groups: Names of worker.GROUPS.
        end: Share of the budget at which the stage is over.
        alone: Whether one item runs at a time, because it is timed.
        limit: Seconds after which an item hangs.
    """

    groups: tuple[str, ...]
    end: float
    alone: bool
    limit: float


STAGES = (
    Stage(("environment",), 0.1, True, 60),
    Stage(("sine", "behaviour", "pass", "prepare"), 0.42, False, 150),
    # Later, since it then finds its kernels compiled.
    Stage(("sanitizer",), 0.52, False, 150),
    Stage(("tune", "product"), 0.62, True, 60),
    Stage(("measure",), 0.98, True, 180),
)


@dataclass
class Run:
    """The records and rows of a run so far.

    Args:
        settings: For the items.
        records: Of all items.
        rows: Of gpu.csv.
    """

    settings: Settings
    records: list[Record] = field(default_factory=list)
    rows: list[GpuRow] = field(default_factory=list)

    def take(self, record: Record) -> None:
        """Write a record down and print its line."""
        self.records.append(record)
        folder, group = Path(self.settings.out), record["item"].split(":")[0]
        with (folder / f"{FILES[group]}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{record['state']:11} {record['item']}  {record['line']}  [{record['seconds']:.1f} s]", flush=True)
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
        rows = rows_of(record, device_of(self.records[0], date))
        if rows:
            self.rows += rows
            records.append(folder / "gpu.csv", rows)


def run(settings: Settings, budget: float) -> int:
    """Run everything and print the summary.

    Args:
        settings: For the items; results go to its folder.
        budget: Seconds for all stages.

    Returns:
        Exit code: 1 if any item failed, crashed or hung.

    Raises:
        ValueError: There is no GPU.
    """
    if not (INTERPRETED or torch.cuda.is_available()):
        raise ValueError("no NVIDIA GPU: PyTorch sees none; TRITON_INTERPRET=1 tries the command on this CPU")
    folder, start = Path(settings.out), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    done = Run(settings)
    with (folder / "gpu.log").open("ab") as log:
        for stage in STAGES:
            run_stage(stage, done, log, start + stage.end * budget)
    print(summary(done.records, done.rows), flush=True)
    return 1 if failures(done.records) else 0


def run_stage(stage: Stage, done: Run, log: IO[bytes], deadline: float) -> None:
    """Run the items of a stage until its time is over."""
    # One process at a time where a measurement runs, and in the interpreter, which is slow enough by itself.
    workers = 1 if stage.alone or INTERPRETED else max(1, min(12, (os.cpu_count() or 1) - 2))
    limit = 10 * stage.limit if INTERPRETED else stage.limit
    items = spread(listed(group, done.settings) for group in stage.groups)
    run_items(items, done.settings, log, workers=workers, deadline=deadline, limit=limit, done=done.take)


def spread(groups: Iterable[list[str]]) -> list[str]:
    """Take items of several groups in turn: the first ones, which matter most, come first in each."""
    turns = chain.from_iterable(zip_longest(*groups))
    return [item for item in turns if item is not None]
