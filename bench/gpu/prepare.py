"""Compiles ahead, beside the checks, what is tuned and measured later: compilers keep their results on disk."""

from __future__ import annotations

from itertools import zip_longest

import fastsiren

from ..workloads import parse
from . import tune
from .contenders import COMPILED, build, others, problem_of
from .items import Outcome
from .measure import FULL
from .pool import Settings


def items(settings: Settings) -> list[str]:
    """Return the compiled peers' workloads and the keys of tuning, interleaved."""
    if settings.quick:
        return []
    pairs = zip_longest((w.name for w in FULL), (f"tune:{name}" for name in tune.items(settings)))
    return [name for pair in pairs for name in pair if name]


def run(name: str, settings: Settings) -> Outcome:
    """Compile by running once."""
    if name.startswith("tune:"):
        return tune.prepared(name.removeprefix("tune:"))
    workload = parse(name)
    problem = problem_of(workload)
    names = [peer for peer in others(workload, True) if peer in COMPILED]
    with fastsiren.use_backend("triton"):
        for peer in ("ours", "ours_fp16", *names):
            try:
                build(peer, problem).call()
            except RuntimeError as error:
                # A compiler's failure, or too little memory beside the other workers; the measurement tells.
                return Outcome("skipped", f"{peer}: {(str(error).splitlines() or [''])[0][:200]}")
    return Outcome("passed", f"compiled {', '.join(names)}")
