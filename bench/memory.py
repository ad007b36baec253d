"""Peak extra memory of one call, measured in a process of its own: `python -m fastsiren.bench.memory W NAME`."""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

import fastsiren

from . import peers
from .problem import Contender, make
from .workloads import Workload, parse

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CONTENDERS = {**peers.VARIANTS, "eager": peers.eager}


def status_mb(field: str) -> float:
    """Return a field of /proc/self/status in MB (VmRSS: resident now, VmHWM: most so far)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"{STATUS} has no field {field}")


def settle() -> None:
    """Give free memory back, so that a call cannot hide in it, and reset the high-water mark to what is resident."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    CLEAR.write_text("5")


def build(workload: Workload, name: str) -> Contender:
    """Return a contender by the name of its row."""
    return CONTENDERS[name](make(workload))


def peak(workload: Workload, name: str) -> float:
    """Return the MB that a first call adds to what is resident before it: outputs, gradients and temporaries.

    A call of a tiny network comes first, so that loading libraries and starting threads are not counted; workspaces
    of the real size are.

    Args:
        workload: What to compute.
        name: One of CONTENDERS.
    """
    build(replace(workload, points=64, width=16), name).call()
    contender = build(workload, name)
    settle()
    before = status_mb("VmRSS")
    held = contender.call()
    after = status_mb("VmHWM")
    del held
    return max(0.0, after - before)


def peak_in_child(workload: Workload, name: str, *, backend: str) -> float | None:
    """Return peak() from a fresh process, or None where the system has no /proc.

    Args:
        workload: What to compute.
        name: One of CONTENDERS.
        backend: Backend of ours.

    Raises:
        RuntimeError: The process failed; the message holds what it printed.
    """
    if not CLEAR.exists():
        return None
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-m", "fastsiren.bench.memory", workload.name, name, threads, backend]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} on {workload.name} failed: {done.stderr.strip()[-2000:]}")
    return float(done.stdout)


def main() -> None:
    """Print the MB of one contender on one workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", type=parse)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("threads", type=int)
    parser.add_argument("backend")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with fastsiren.use_backend(arguments.backend):
        print(peak(arguments.workload, arguments.name))


if __name__ == "__main__":
    main()
