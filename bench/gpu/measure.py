"""Measurements of `gpu`: every contender's results are compared with fp64, then all are timed in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import NamedTuple

import torch

import fastsiren

from .. import accuracy, roofline, timing
from ..accuracy import Verdict
from ..problem import Contender, Problem, results, truth
from ..records import Subject
from ..timing import Ratio
from ..workloads import QUICK, Workload, parse
from . import tuned
from .contenders import REDUCED, build, others, own, problem_of
from .items import DEVICE, INTERPRETED, Outcome, release
from .pool import Settings
from .rows import Timed

# Relative errors that narrowed products may show before they are timed; the checks are stricter.
REDUCED_LIMITS = {"value": 5e-3, "gradient": 1e-2, "Laplacian": 1e-2, "loss": 5e-2, "gradients": 0.1}
ROUNDS = 5
BIG, MIDDLE, LITTLE = 1 << 20, 1 << 18, 1 << 14
# The rows that matter first, with every peer.
FULL = (
    Workload("forward", points=BIG),
    Workload("train_laplacian", points=MIDDLE),
    Workload("laplacian", points=BIG),
    Workload("train_value", points=MIDDLE),
    Workload("train_eikonal", d=3, points=MIDDLE),
    Workload("train_gradient", points=MIDDLE),
    Workload("laplacian", d=3, points=MIDDLE),
    Workload("forward", width=64, points=BIG),
    Workload("forward", width=128, points=BIG),
    Workload("gradient", points=MIDDLE),
)
# The others, without compiled peers.
BRIEF = (
    Workload("forward", width=512, points=BIG),
    *(Workload("train_laplacian", width=width, points=MIDDLE) for width in (64, 128, 512)),
    *(Workload("laplacian", width=width, points=MIDDLE) for width in (64, 128, 512)),
    *(Workload("train_value", width=width, points=MIDDLE) for width in (64, 128, 512)),
    Workload("forward", points=4 * BIG),
    *(Workload(kind, points=LITTLE) for kind in ("forward", "laplacian", "train_value", "train_laplacian")),
    *(Workload("train_eikonal", d=3, width=width, points=MIDDLE) for width in (64, 128)),
    Workload("train_value", points=BIG),
    Workload("train_laplacian", points=BIG),
)


def items(settings: Settings) -> list[str]:
    """Return what is measured: the chip's own rates, calls with one point, and workloads."""
    tiny = [Workload("forward", width=16, points=64), Workload("train_laplacian", width=16, points=64)]
    chosen = tiny if INTERPRETED else QUICK if settings.quick else (*FULL, *BRIEF)
    return ["rates", "overhead", *(w.name for w in chosen)]


def run(name: str, settings: Settings) -> Outcome:
    """Measure one item."""
    if name == "rates":
        return rates()
    with fastsiren.use_backend("triton"), tuned.applied(settings):
        return overhead() if name == "overhead" else measure(parse(name), settings)


def clock(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the mean seconds of some calls, by events where there is a GPU."""
    return timing.clock(call, repeats) if INTERPRETED else timing.cuda_clock(call, repeats)


def rates() -> Outcome:
    """Measure what a large product and a large copy reach: the ceilings of everything else."""
    size, count = (64, 1 << 10) if INTERPRETED else (8192, 1 << 28)
    a, b = torch.randn(2, size, size, device=DEVICE).to(torch.float16)
    source = torch.randn(count, device=DEVICE)
    target = torch.empty_like(source)
    calls = {"product": lambda: a @ b, "copy": lambda: target.copy_(source)}
    seconds = {name: timing.spread(times).median for name, times in timed(calls, 0.2).items()}
    tflops, bandwidth = 2e-12 * size**3 / seconds["product"], 8e-12 * count / seconds["copy"]
    line = f"torch: fp16 product {tflops:.0f} TFLOP/s, copy {bandwidth:.2f} TB/s"
    return Outcome("measured", line, {"tflops": tflops, "bandwidth": bandwidth})


def timed(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Time calls in interleaved rounds."""
    rounds = 1 if INTERPRETED else ROUNDS
    return timing.interleave(calls, seconds=seconds, min_rounds=rounds, clock=clock)


def overhead() -> Outcome:
    """Measure the time on the host of calls with one point, against one layer of eager PyTorch."""
    width, kinds = 16 if INTERPRETED else 256, ("forward", "laplacian", "train_laplacian")
    problems = {kind: problem_of(Workload(kind, width=width, points=1)) for kind in kinds}
    layer = problems["forward"].module.net[0]
    calls: dict[str, Callable[[], object]] = {"eager layer": torch.no_grad()(lambda: layer(problems["forward"].x))}
    for kind, problem in problems.items():
        calls |= {f"{kind} {name}": build(name, problem).call for name in ("ours", "ours_fp16", "eager")}
    found = {name: 1e6 * on_host(call) for name, call in calls.items()}
    words = ", ".join(f"{name} {microseconds:.0f}" for name, microseconds in found.items())
    return Outcome("measured", f"microseconds per call with one point: {words}", {"microseconds": found})


def on_host(call: Callable[[], object]) -> float:
    """Return the seconds of a call in a long row of them, which the host issues one after the other."""
    count = 1 if INTERPRETED else 100
    best = float("inf")
    for _ in range(1 if INTERPRETED else 4):
        start = time.perf_counter()
        for _ in range(count):
            call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / count)
    return best


class Entered(NamedTuple):
    """Those with right results, and why the others are left out."""

    contenders: list[Contender]
    verdicts: dict[str, Verdict]
    absent: dict[str, str]


def measure(workload: Workload, settings: Settings) -> Outcome:
    """Check and time everybody on one workload."""
    torch.compiler.reset()
    problem = problem_of(workload)
    entered = enter(problem, [*own(workload), *others(workload, workload in FULL)])
    samples = timed({c.name: c.call for c in entered.contenders}, settings.seconds)
    peaks = {c.name: peak_mb(c) for c in entered.contenders}
    tiles = "tuned" if tuned.read(settings) else "shipped"
    right = [mine for mine in own(workload) if mine in samples]
    rows = [row for mine in right for row in rows_of(workload, mine, tiles, samples, entered.verdicts, peaks)]
    wrong = "; ".join(f"{mine} {entered.absent[mine]}" for mine in own(workload) if mine not in samples)
    fields = {"rows": rows, "absent": entered.absent}
    return Outcome("failed", f"not timed: {wrong}", fields) if wrong else Outcome("measured", line(rows), fields)


def enter(problem: Problem, names: list[str]) -> Entered:
    """Make contenders and compare each with fp64; the device's memory may be too small for some."""
    expected = truth(problem)
    eager = accuracy.errors(results(problem.workload, build("eager_chunks", problem)), expected)
    entered = Entered([], {}, {})
    for name in names:
        try:
            contender = build(name, problem)
            verdict = judge(name, accuracy.errors(results(problem.workload, contender), expected), eager)
        except RuntimeError as error:
            # Out of memory, or a compiler's failure.
            entered.absent[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            release()
            continue
        if verdict.passed:
            entered.contenders.append(contender)
            entered.verdicts[name] = verdict
        else:
            entered.absent[name] = f"wrong result, errors {verdict.ours}, eager {verdict.eager}"
    return entered


def judge(name: str, mine: dict[str, float], eager: dict[str, float]) -> Verdict:
    """Compare errors with eager's, or for narrowed products with fixed limits: do all compute the same thing?"""
    if name.endswith(REDUCED):
        return Verdict(mine, eager, all(mine[key] <= REDUCED_LIMITS[key] for key in mine))
    return accuracy.judge(mine, eager, accuracy.PEER)


def peak_mb(contender: Contender) -> float | None:
    """Return the MB that a call adds at its peak; a replayed graph has its memory already."""
    if INTERPRETED or contender.name == "eager_graph":
        return None
    for parameter in contender.parameters:
        parameter.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    held = contender.call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del held
    return peak / 1e6


def rows_of(
    workload: Workload,
    mine: str,
    tiles: str,
    samples: dict[str, list[float]],
    verdicts: dict[str, Verdict],
    peaks: dict[str, float | None],
) -> list[dict[str, object]]:
    """Return the rows of one of ours: its own first, then those of the peers."""
    mode, grid = "fp16" if mine.endswith("_fp16") else "fp32", mine.startswith("grid")
    chip = None if INTERPRETED else roofline.chip_of(torch.cuda.get_device_name())
    bound = None if chip is None else roofline.bound(workload, mode, chip, grid=grid).ms
    w, made = workload, []
    subject = Subject(w.kind + "_grid" * grid, w.width, w.layers, w.points, w.d, w.o)
    for name in [mine, *(name for name in samples if name not in own(workload))]:
        times = samples[name]
        ratio = Ratio(1.0, 1.0) if name == mine else timing.ratio(times, samples[mine])
        spread = timing.spread([1e3 * seconds for seconds in times])
        percent = None if bound is None else 100 * bound / spread.median
        columns = (
            mode,
            tiles,
            "ours" if name == mine else name,
            len(times),
            *spread,
            *ratio,
            bound,
            percent,
            peaks[name],
        )
        made.append({**asdict(subject), **asdict(Timed(*columns, *verdicts[name].worst))})
    return made


def line(rows: list[dict[str, object]]) -> str:
    """Say how much faster ours is."""
    words: list[str] = []
    for row in rows:
        if row["peer"] == "ours":
            percent = "" if row["percent_of_bound"] is None else f", {row['percent_of_bound']:.0f} % of the bound"
            words.append(f"{'; ' * bool(words)}{row['workload']} {row['mode']} {row['median_ms']:.4g} ms{percent}:")
        else:
            words.append(f"{row['peer']} {row['ratio_median']:.2f}x")
    return " ".join(words)
