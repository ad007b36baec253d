"""Checks of `gpu`: a few small passes, forward and backward, under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from .cases import Case, given, square
from .checks import ours
from .items import INTERPRETED, Outcome, judged, skipped, synchronize
from .pool import Settings

# The shapes of other checks, whose kernels are compiled by then, with rows that fill no tile.
CASES = (
    Case("value", square(64), 65, "fp16"),
    Case("jet", square(64), 33),
    Case("sandwich", square(64), 17, "fp16"),
    Case("value_bwdbwd", square(64), 33),
    Case("loss_laplacian", square(256), 49),
    Case("grid", square(256), 40),
)
# An exit code that nothing else uses.
FOUND = 77


def items(settings: Settings) -> list[str]:
    """Return the tools."""
    return ["memcheck", "racecheck"]


def tool() -> str | None:
    """Return the program, from the path or from the folder of CUDA."""
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    folders = [Path(folder) for folder in (*named, "/usr/local/cuda")]
    places = [str(folder / sub) for folder in folders for sub in ("bin", "compute-sanitizer")]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def run(name: str, settings: Settings) -> Outcome:
    """Run all cases under one tool."""
    program = tool()
    if INTERPRETED or program is None:
        return skipped(
            "needs a GPU" if INTERPRETED else "compute-sanitizer is neither on the path nor in CUDA's folder"
        )
    options = ["--tool", name, "--error-exitcode", str(FOUND), "--print-limit", "5"]
    command = [program, *options, sys.executable, "-m", "fastsiren.bench.gpu.sanitizer"]
    # The allocator's cache would hide accesses past the end of a tensor.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="\n")
    return verdict(name, done.returncode, done.stdout + done.stderr)


def verdict(name: str, code: int, printed: str) -> Outcome:
    """Read the result off what the tool printed."""
    marked = [line.strip("= \n") for line in printed.splitlines() if line.startswith("=========")]
    if code == 0 and "all cases ran" in printed:
        return judged(True, f"{name}: {len(CASES)} cases, no error")
    summary = [line for line in marked if "SUMMARY" in line]
    if code == FOUND or (summary and "0 errors" not in summary[-1]):
        first = next((line for line in marked if line and "COMPUTE-SANITIZER" not in line), "")
        return judged(False, f"{name}: {first}; {summary[-1] if summary else ''}")
    words = printed.strip().splitlines() or [""]
    if "No module named" in printed:
        return judged(False, f"{name}: {words[-1][:200]}")
    return skipped(f"{name} itself failed with code {code}: {(marked or words)[-1][:200]}")


def main() -> None:
    """Run every case once, kernels only."""
    torch.set_num_threads(1)
    for case in CASES:
        ours(case, given(case))
        synchronize()
    print("all cases ran")


if __name__ == "__main__":
    main()
