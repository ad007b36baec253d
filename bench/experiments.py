"""Every experiment of `fastsiren solve` at its default size: figures of merit, time, memory, and the speed of a step.

`python -m fastsiren.bench experiments` runs each in a process of its own, writes pictures and figures into a folder and
rows into experiments.csv, and prints the table. A row's ratio is the time of a step of the same loss with the same
parameters as plain modules and autograd, over that of a step as it is; both take turns in one process, after their
losses and gradients were found equal.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastsiren.engine import backends
from fastsiren.fit import Options
from fastsiren.problems import EXPERIMENTS, find
from fastsiren.problems.experiment import Experiment, solve

from . import machine, records, timing
from .machine import Machine
from .memory import status_mb

# How far loss and gradients of both ways may differ: rounding of derivatives of second order, at initial weights.
TOLERANCE = 1e-3
SECONDS = 8.0


@dataclass(frozen=True)
class Outcome:
    """The columns that belong to one network of one experiment."""

    experiment: str
    settings: str
    """Those of the defaults, "default", or of --quick, "quick"."""
    network: str
    backend: str
    merit: str
    figure: float
    published: str
    steps: int
    seconds: float
    peak_mb: float | None
    step_ms: float | None
    plain_step_ms: float | None
    ratio: float | None


@dataclass(frozen=True)
class ExperimentRow(Outcome, Machine):
    """One network of one experiment."""


def gradients(net: nn.Module, experiment: Experiment) -> tuple[float, list[Tensor]]:
    """Loss of the first step and its gradients, those of unused parameters as zeros."""
    net.zero_grad(set_to_none=True)
    loss = experiment.loss(net, 0)
    total = 0.0
    for part in [loss] if isinstance(loss, Tensor) else loss:
        part.backward()
        total += float(part.detach())
    return total, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


def step_times(experiment: Experiment, seconds: float = SECONDS) -> tuple[float, float, float] | None:
    """Milliseconds of a step, of the same step in plain torch, and their ratio; None where there is no plain one.

    Raises:
        ValueError: Both ways do not compute the same.
    """
    net = experiment.network()
    plain = experiment.plain(net)
    if plain is None:
        return None
    (ours, found), (theirs, wanted) = gradients(net, experiment), gradients(plain, experiment)
    worst = max(
        float((a - b).norm() / b.norm().clamp_min(1e-12)) for a, b in zip(found, wanted, strict=True) if b.norm() > 0
    )
    if abs(ours - theirs) > TOLERANCE * abs(theirs) or worst > TOLERANCE:
        raise ValueError(f"{experiment.name}: losses {ours} and {theirs}, gradients apart by {worst:.1e} of their size")
    calls = {"ours": lambda: gradients(net, experiment), "plain": lambda: gradients(plain, experiment)}
    samples = timing.interleave(calls, seconds=seconds)
    fast, slow = (1e3 * timing.spread(samples[name]).median for name in ("ours", "plain"))
    return fast, slow, timing.ratio(samples["plain"], samples["ours"]).median


def measure(name: str, home: Path, *, quick: bool, compare: bool = False) -> list[dict[str, Any]]:
    """Run one experiment in this process; a dictionary of the columns of `Outcome` per network."""
    kind = find(name)
    compare = compare and len(kind(kind.quick).contenders()) > 1
    solution = solve(
        kind, out=home / name, overwrite=True, quick=quick, compare=compare, options=Options(progress=False)
    )
    if solution.exit_code:
        raise SystemExit(solution.exit_code)
    peak = status_mb("VmHWM") if Path("/proc/self/status").exists() else None
    times = step_times(solution.experiment, SECONDS / 8 if quick else SECONDS)
    first = next(solution.net.parameters())
    backend = backends.resolve(None, first.device, first.dtype)
    rows = []
    for label, each in solution.trained.items():
        ours, settings = label == kind.ours, "quick" if quick else "default"
        done = (kind.merit, each.figures[kind.merit], kind.published, each.steps, each.seconds)
        cost = (peak, *times) if ours and times else (peak if ours else None, None, None, None)
        rows.append(asdict(Outcome(name, settings, label, backend if ours else "torch", *done, *cost)))
    return rows


def run(names: Sequence[str], home: Path, out: Path, *, quick: bool, compare: bool = False) -> int:
    """Run experiments one after another; one that fails is reported and the others go on.

    Args:
        names: Of `EXPERIMENTS`; none means all.
        home: Folder of pictures and figures, one folder per experiment.
        out: Folder of experiments.csv.
        quick: With the settings of `--quick`.
        compare: Train the networks that each is compared with, too, where there are any.

    Returns:
        1 if one failed, else 0.
    """
    described, failed = machine.describe("default"), []
    for name in names or EXPERIMENTS:
        command = [
            sys.executable,
            "-m",
            "fastsiren.bench.experiments",
            name,
            str(home),
            *(["--quick"] if quick else []),
            *(["--compare"] if compare else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            failed.append(name)
            print(f"{name}: failed\n{done.stderr.strip()[-2000:]}", flush=True)
            continue
        rows = [ExperimentRow(**asdict(described), **columns) for columns in json.loads(done.stdout.splitlines()[-1])]
        records.append(out / "experiments.csv", rows)
        for each in rows:
            print(line(each), flush=True)
    return 1 if failed else 0


def line(row: ExperimentRow) -> str:
    """One line of the report while it runs."""
    speed = (
        "" if row.ratio is None else f"  step {row.step_ms:.1f} ms, plain {row.plain_step_ms:.1f} ms: {row.ratio:.1f}x"
    )
    memory = "" if row.peak_mb is None else f"  {row.peak_mb:.0f} MB"
    return f"{row.experiment} {row.network}: {row.merit} {row.figure:.4g}  {row.seconds:.0f} s{memory}{speed}"


def table(path: Path, *, settings: str = "default") -> str:
    """The last row of every network of every experiment as Markdown."""
    records.check_header(path, [field.name for field in dataclasses.fields(ExperimentRow)])
    with path.open(newline="") as file:
        rows = {(row["experiment"], row["network"]): row for row in csv.DictReader(file) if row["settings"] == settings}
    head = "| experiment | network | figure | published | steps | time | memory | step against plain torch |"
    lines = [head, "|---" * 8 + "|"]
    for row in rows.values():
        ratio = f"{float(row['ratio']):.1f}x ({row['step_ms']} ms)" if row["ratio"] else ""
        memory = f"{float(row['peak_mb']):.0f} MB" if row["peak_mb"] else ""
        figure, seconds = f"{row['merit']} {row['figure']}", f"{float(row['seconds']):.0f} s"
        cells = (row["experiment"], row["network"], figure, row["published"], row["steps"], seconds, memory, ratio)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print one experiment's columns as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("home", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--compare", action="store_true")
    given = parser.parse_args()
    print(json.dumps(measure(given.name, given.home, quick=given.quick, compare=given.compare)))


if __name__ == "__main__":
    main()
