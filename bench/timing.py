"""Interleaved timing: A B C A B C ..., so that a slow phase of the machine hits everybody alike."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

# A sample shorter than this is the mean of several calls.
SHORTEST_SAMPLE = 0.005
MIN_ROUNDS = 3
MAX_ROUNDS = 200
# Collecting takes tens of milliseconds with torch loaded: only rounds that last longer than this are worth it.
COLLECT_ABOVE = 1.0


class Spread(NamedTuple):
    """Median, 20th and 80th percentile of samples."""

    median: float
    p20: float
    p80: float


class Ratio(NamedTuple):
    """How many times faster one side is: median of the per-round ratios, and ratio of the best times."""

    median: float
    best: float


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect once, then keep the collector off."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def clock(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the mean seconds of a number of calls in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def cuda_clock(call: Callable[[], object], repeats: int = 1) -> float:
    """Return the mean seconds of a number of calls in a row on the current CUDA device, by its own events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def interleave(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    min_rounds: int = MIN_ROUNDS,
    max_rounds: int = MAX_ROUNDS,
    clock: Callable[[Callable[[], object], int], float] = clock,
) -> dict[str, list[float]]:
    """Time calls in rounds, each round every call once, until the budget is spent.

    Args:
        calls: What to time, under one name each. Everything is called once before the first round.
        seconds: Budget for the rounds.
        min_rounds: Rounds that run even past the budget.
        max_rounds: Rounds after which the samples suffice.
        clock: What times a number of calls.

    Returns:
        Seconds of every sample: the same number, in the same order, for every name.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    with no_garbage_collection():
        repeats = {name: max(1, math.ceil(SHORTEST_SAMPLE / clock(call, 1))) for name, call in calls.items()}
        end, done = time.perf_counter() + seconds, 0
        while done < min_rounds or (done < max_rounds and time.perf_counter() < end):
            for name, call in calls.items():
                if repeats[name] > 1:
                    # Short calls live in the cache; without this the one behind the matrix product would find it cold.
                    call()
                samples[name].append(clock(call, repeats[name]))
            done += 1
            if sum(taken[-1] for taken in samples.values()) > COLLECT_ABOVE:
                gc.collect()
    return samples


def spread(samples: list[float]) -> Spread:
    """Return median, 20th and 80th percentile."""
    if len(samples) == 1:
        return Spread(*samples, *samples, *samples)
    fifths = statistics.quantiles(samples, n=5, method="inclusive")
    return Spread(statistics.median(samples), fifths[0], fifths[3])


def ratio(slow: list[float], fast: list[float]) -> Ratio:
    """Return how many times faster `fast` is than `slow`, from samples of the same rounds."""
    paired = [a / b for a, b in zip(slow, fast, strict=True)]
    return Ratio(statistics.median(paired), min(slow) / min(fast))
