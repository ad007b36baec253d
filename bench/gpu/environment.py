"""The first item: which device, driver and versions a run is about."""

from __future__ import annotations

import platform
import shutil
import subprocess
from typing import Any

import torch
import triton

import fastsiren

from .items import INTERPRETED, Outcome
from .pool import Settings

QUERY = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def items(settings: Settings) -> list[str]:
    """Return the one item."""
    return ["device"]


def driver() -> dict[str, str]:
    """Return what nvidia-smi tells about the first device; nothing without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, f"--query-gpu={QUERY}", "--format=csv,noheader", "--id=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if done.returncode:
        return {}
    return dict(zip(QUERY.split(","), (cell.strip() for cell in done.stdout.strip().split(","))))


def device() -> dict[str, Any]:
    """Return name, capability and sizes of the first device."""
    if INTERPRETED:
        return {"device": "interpreter", "capability": "", "devices": 0, "memory_gb": 0.0, "cuda": ""}
    found = torch.cuda.get_device_properties(0)
    return {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "devices": torch.cuda.device_count(),
        "memory_gb": round(found.total_memory / 1e9, 1),
        "multiprocessors": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "fastsiren": fastsiren.__version__,
    }


def run(name: str, settings: Settings) -> Outcome:
    """Describe the device."""
    fields = {**device(), **versions(), **driver(), "commit": settings.commit}
    sm = f", capability {fields['capability']}" if fields["capability"] else ""
    clocks = f", SM clock {fields['clocks.sm']} of {fields['clocks.max.sm']}" if "clocks.sm" in fields else ""
    line = (
        f"{fields['device']}{sm}, {fields['devices']} devices, driver {fields.get('driver_version', 'unknown')}, "
        f"CUDA {fields['cuda'] or 'none'}, torch {fields['torch']}, triton {fields['triton']}, "
        f"Python {fields['python']}{clocks}"
    )
    return Outcome("measured", line, fields)
