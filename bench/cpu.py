"""The runner: every chosen workload is checked, timed in interleaved rounds, printed and appended to cpu.csv."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

import fastsiren

from . import accuracy, records, timing
from .accuracy import Verdict
from .machine import Machine, describe, malloc_active, malloc_environment
from .memory import CONTENDERS, peak_in_child
from .peers import enter
from .printing import block, heading
from .problem import Contender, Problem, make, results, truth
from .records import SUFFIXES, Measured, Row
from .timing import Ratio
from .units import MM_SIZE, percent_of_mm
from .workloads import RELEASE, Workload

OURS = tuple(SUFFIXES)


@dataclass(frozen=True)
class Settings:
    """Options of a run.

    Args:
        peers: Names of the peers that take part; eager always does.
        seconds: Time budget of the rounds of one workload.
        rounds: Least rounds, even past the budget.
        memory: Whether to measure peak memory in child processes.
        backend: Backend of ours.
        variants: Variants of ours.
    """

    peers: tuple[str, ...]
    seconds: float
    rounds: int
    memory: bool
    backend: str
    variants: tuple[str, ...] = RELEASE


class WrongResult(RuntimeError):
    """Ours or eager does not compute the workload's numbers; nothing is timed."""


def run_with_malloc(malloc: str, arguments: list[str], run: Callable[[], int]) -> int:
    """Run here where this process has the malloc settings, else again in a child that has them.

    Args:
        malloc: "default" or "tuned".
        arguments: The command line of the child.
        run: What to do here; returns the exit code.
    """
    if malloc_active(malloc):
        return run()
    sys.stdout.flush()
    command = [sys.executable, "-m", "fastsiren.bench", *arguments]
    return subprocess.run(command, env=malloc_environment(malloc)).returncode


def run(workloads: list[Workload], settings: Settings, malloc: str, out: Path) -> int:
    """Measure workloads one after the other and append the rows of each as soon as they are there.

    Args:
        workloads: What to measure.
        settings: How.
        malloc: The allocator setting of this process, for the rows.
        out: Folder of cpu.csv.

    Returns:
        Exit code: 1 if any result was wrong.
    """
    wrong = 0
    with fastsiren.use_backend(settings.backend):
        machine = describe(malloc)
        print(heading(machine), flush=True)
        for workload in workloads:
            try:
                records.append(out / "cpu.csv", measure(workload, settings, machine))
            except WrongResult as error:
                wrong += 1
                print(f"\n{workload.name}\n  WRONG RESULT, not timed: {error}", flush=True)
    return 1 if wrong else 0


def measure(workload: Workload, settings: Settings, machine: Machine) -> list[Row]:
    """Check, time and print one workload and return its rows."""
    # Each workload compiles its own functions; without this they would count against Dynamo's recompile limit.
    torch.compiler.reset()
    problem = make(workload)
    entrants = enter(problem, settings.peers, settings.variants)
    contenders, verdicts, absent = check(problem, entrants.contenders)
    samples = time_all(contenders, settings)
    peaks = measure_peaks(workload, contenders, settings) if settings.memory else {}
    rows: list[Row] = []
    for variant in [c.name for c in contenders if c.name in OURS]:
        part = rows_of(workload, machine, samples, verdicts, peaks, variant)
        print(block(part, verdicts[variant]), flush=True)
        rows += part
    for name, reason in {**entrants.absent, **absent}.items():
        print(f"  {name} left out: {reason}", flush=True)
    return rows


class Checked(NamedTuple):
    """Those with equal results and their verdicts; the reason of each peer that fell out."""

    contenders: list[Contender]
    verdicts: dict[str, Verdict]
    absent: dict[str, str]


def check(problem: Problem, contenders: list[Contender]) -> Checked:
    """Compare everybody with fp64.

    Raises:
        WrongResult: Ours or eager computes something else.
    """
    expected = truth(problem)
    eager = accuracy.errors(results(problem.workload, next(c for c in contenders if c.name == "eager")), expected)
    checked = Checked([], {}, {})
    for contender in contenders:
        required = contender.name in (*OURS, "eager")
        try:
            mine = eager
            # A call of eager can take ten seconds, and its errors are known already.
            if contender.name != "eager":
                mine = accuracy.errors(results(problem.workload, contender), expected)
        except RuntimeError as error:
            # Compilers fail on some systems (no C++ compiler, unsupported graph); ours and eager have no excuse.
            if required:
                raise
            checked.absent[contender.name] = str(error).strip().splitlines()[0]
            continue
        rule = accuracy.OURS if contender.name in OURS else accuracy.PEER
        verdict = accuracy.judge(mine, eager, rule)
        if verdict.passed:
            checked.contenders.append(contender)
            checked.verdicts[contender.name] = verdict
        elif required:
            raise WrongResult(f"{contender.name} has the errors {verdict.ours}, eager {verdict.eager}; allowed: {rule}")
        else:
            checked.absent[contender.name] = f"wrong result, errors {verdict.ours}"
    return checked


def time_all(contenders: list[Contender], settings: Settings) -> dict[str, list[float]]:
    """Time the contenders and the matrix product that is the yardstick of this machine, interleaved."""
    a, b = torch.randn(MM_SIZE, MM_SIZE), torch.randn(MM_SIZE, MM_SIZE)
    product = torch.empty(MM_SIZE, MM_SIZE)
    calls: dict[str, Callable[[], object]] = {c.name: c.call for c in contenders}
    calls["mm"] = lambda: torch.mm(a, b, out=product)
    return timing.interleave(calls, seconds=settings.seconds, min_rounds=settings.rounds)


def measure_peaks(workload: Workload, contenders: list[Contender], settings: Settings) -> dict[str, float | None]:
    """Return the peak memory of ours and of eager."""
    # The children need the memory that the gradients of this process hold.
    for contender in contenders:
        for parameter in contender.parameters:
            parameter.grad = None
    names = [c.name for c in contenders if c.name in CONTENDERS]
    return {name: peak_in_child(workload, name, backend=settings.backend) for name in names}


def rows_of(
    workload: Workload,
    machine: Machine,
    samples: dict[str, list[float]],
    verdicts: dict[str, Verdict],
    peaks: dict[str, float | None],
    variant: str,
) -> list[Row]:
    """Return the rows of one variant of ours: its own first, then those of the peers."""
    names = [variant, *(name for name in samples if name not in (*OURS, "mm"))]
    rows = []
    for name in names:
        times = samples[name]
        ratio = Ratio(1.0, 1.0) if name == variant else timing.ratio(times, samples[variant])
        percent = [percent_of_mm(workload, t, mm) for t, mm in zip(times, samples["mm"], strict=True)]
        measured = Measured(
            "ours" if name == variant else name,
            len(times),
            *timing.spread([1e3 * seconds for seconds in times]),
            *ratio,
            timing.spread(percent).median,
            *verdicts[variant].worst,
            peaks.get(name),
        )
        rows.append(records.row(machine, workload, measured, variant=variant))
    return rows
