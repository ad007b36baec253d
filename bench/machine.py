"""What a row says about where it was measured: processor, instruction set, versions, allocator. No host, no path."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

import torch

import fastsiren
from fastsiren.engine import backends

CHECKOUT = Path(__file__).resolve().parent.parent
# Serves every tensor from a heap that is never given back, so that no temporary is faulted in anew.
TUNED_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "1000000000",
}


@dataclass(frozen=True)
class Machine:
    """The columns of a row that are the same for a whole run."""

    commit: str
    date: str
    machine: str
    isa: str
    threads: int
    python: str
    torch: str
    fastsiren: str
    malloc: str


def malloc_environment(malloc: str) -> dict[str, str]:
    """Return this process's environment with glibc's malloc at its defaults or tuned.

    Args:
        malloc: "default" or "tuned". The settings are read when a process starts.
    """
    plain = {key: value for key, value in os.environ.items() if key not in TUNED_MALLOC}
    return {**plain, **TUNED_MALLOC} if malloc == "tuned" else plain


def malloc_active(malloc: str) -> bool:
    """Tell whether this process was started with these malloc settings."""
    return malloc_environment(malloc) == dict(os.environ)


def processor() -> str:
    """Return the model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def active_isa() -> str:
    """Return the instruction set that fp32 passes on the CPU use now, or the backend's name where it has none."""
    backend = backends.resolve(None, torch.device("cpu"), torch.float32)
    return import_module("fastsiren._C").isa_active() if backend == "cpp" else backend


def git(*arguments: str) -> str:
    """Return what git prints about the source tree; empty outside a checkout or without git."""
    if not (CHECKOUT / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def commit() -> str:
    """Return the commit of the source tree, marked where tracked files other than results differ from it."""
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
    return (git("rev-parse", "--short=12", "HEAD") or "release") + ("+changes" if changed else "")


def describe(malloc: str) -> Machine:
    """Return the columns of this run.

    Args:
        malloc: The allocator setting this process was started with.
    """
    return Machine(
        commit=commit(),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        machine=processor(),
        isa=active_isa(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        fastsiren=fastsiren.__version__,
        malloc=malloc,
    )
