"""What the items of `gpu` share: the device, what an item returns, and the oracle of the tests."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from fastsiren.engine import backends

from ..machine import CHECKOUT

MODES = ("fp32", "fp16", "bf16", "fp64")
# Under TRITON_INTERPRET=1 kernels are interpreted, on tensors of the CPU: the command is tried, nothing is measured.
INTERPRETED = backends.INTERPRETED
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


class Outcome(NamedTuple):
    """What an item returns."""

    state: str
    """passed, failed, skipped or measured."""
    line: str
    """For people."""
    fields: Mapping[str, Any] = MappingProxyType({})
    """For the JSON lines."""


def judged(passed: bool, line: str, **fields: Any) -> Outcome:
    """Return a check's outcome."""
    return Outcome("passed" if passed else "failed", line, fields)


def skipped(reason: str) -> Outcome:
    """Return the outcome of an item that cannot run here."""
    return Outcome("skipped", reason)


def dtype_of(mode: str) -> torch.dtype:
    """Return the dtype of the parameters of a mode."""
    return torch.float64 if mode == "fp64" else torch.float32


def precision_of(mode: str) -> str:
    """Return the precision that asks for a mode."""
    return "fp32" if mode == "fp64" else mode


def passes(mode: str) -> ModuleType | SimpleNamespace:
    """Return the functions of the Triton backend in a mode."""
    return backends.module(backends.resolve("triton", DEVICE, dtype_of(mode), precision_of(mode)))


def synchronize() -> None:
    """Wait for the device; raises where a kernel failed."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def release() -> None:
    """Give memory back that nobody uses: other processes share the device."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def graphed(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture a call after it ran on a side stream, and return the graph and what the captured call returned."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


@cache
def oracle() -> Any:
    """Return tests/oracle.py, which holds the error rule.

    Raises:
        FileNotFoundError: This is no checkout.
    """
    path = CHECKOUT / "tests" / "oracle.py"
    if not path.exists():
        raise FileNotFoundError("tests/oracle.py is missing: run the benchmark of the GPU from a checkout")
    spec = importlib.util.spec_from_file_location("oracle", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass or NamedTuple looks its module up by name.
    sys.modules["oracle"] = module
    spec.loader.exec_module(module)
    return module
