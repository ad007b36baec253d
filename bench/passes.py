"""Passes one by one under pytest-benchmark: `pytest bench/passes.py`, with `--benchmark-compare` against a saved run.

The functions bear the names of the passes of the backend table. They are for work on one kernel; ratios to PyTorch come
from `python -m fastsiren.bench cpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fastsiren.engine import backends

from .official import OMEGA, OfficialSiren

POINTS, D, WIDTH, LAYERS = 16_384, 2, 256, 3
FULL = {"need_x": False, "need_seeds": False, "need_params": True}

Benchmark = Callable[..., Any]


class Case(NamedTuple):
    """Arguments of the passes: coordinates, the network and the seeds of every engine."""

    backend: ModuleType | SimpleNamespace
    x: Tensor  # [N, D]
    network: tuple[list[Tensor], list[Tensor], list[float]]
    directions: Tensor  # [D, D]
    forms: Tensor  # [1, D, D]
    combinations: Tensor  # [1, 1]


def make_case(points: int = POINTS, width: int = WIDTH) -> Case:
    """Return the arguments for a network of one output on the backend that fp32 on the CPU resolves to."""
    torch.manual_seed(0)
    parameters = [p.detach() for p in OfficialSiren(D, width, LAYERS, 1).parameters()]
    network = (parameters[0::2], parameters[1::2], [OMEGA] * (LAYERS + 1))
    backend = backends.module(backends.resolve(None, torch.device("cpu"), torch.float32))
    identity = torch.eye(D)
    return Case(backend, torch.rand(points, D) * 2 - 1, network, identity, identity.unsqueeze(0), torch.ones(1, 1))


@pytest.fixture(scope="module")
def case() -> Case:
    """The arguments of every pass."""
    return make_case()


def cotangents(case: Case, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Return random cotangents, one per shape of a point."""
    return [torch.randn(len(case.x), *shape) for shape in shapes]


def test_value_fwd(benchmark: Benchmark, case: Case) -> None:
    """Values."""
    benchmark(case.backend.value_fwd, case.x, *case.network)


def test_value_bwd(benchmark: Benchmark, case: Case) -> None:
    """Parameter gradients of values."""
    bars = cotangents(case, (1,))
    benchmark(case.backend.value_bwd, *bars, case.x, *case.network, need_x=False, need_params=True)


def test_jet_fwd(benchmark: Benchmark, case: Case) -> None:
    """Value, tangents and Laplacian."""
    benchmark(case.backend.jet_fwd, case.x, case.directions, case.forms, *case.network)


def test_jet_bwd(benchmark: Benchmark, case: Case) -> None:
    """Parameter gradients of value, tangents and Laplacian."""
    bars = cotangents(case, (1,), (D, 1), (1, 1))
    benchmark(case.backend.jet_bwd, *bars, case.x, case.directions, case.forms, *case.network, **FULL)


def test_adjoint_fwd(benchmark: Benchmark, case: Case) -> None:
    """Value and reverse Jacobian."""
    benchmark(case.backend.adjoint_fwd, case.x, case.combinations, *case.network)


def test_adjoint_bwd(benchmark: Benchmark, case: Case) -> None:
    """Parameter gradients of value and reverse Jacobian."""
    bars = cotangents(case, (1,), (1, D))
    benchmark(case.backend.adjoint_bwd, *bars, case.x, case.combinations, *case.network, **FULL)


def test_sandwich_fwd(benchmark: Benchmark, case: Case) -> None:
    """Value, Jacobian and Hessian."""
    benchmark(case.backend.sandwich_fwd, case.x, case.directions, case.combinations, *case.network)


def test_sandwich_bwd(benchmark: Benchmark, case: Case) -> None:
    """Parameter gradients of value, Jacobian and Hessian."""
    bars = cotangents(case, (1,), (1, D), (1, D, D))
    benchmark(case.backend.sandwich_bwd, *bars, case.x, case.directions, case.combinations, *case.network, **FULL)


def test_grid_fwd(benchmark: Benchmark, case: Case) -> None:
    """Dense decode of a grid with as many points, into fp32."""
    side = round(len(case.x) ** 0.5)
    out = torch.empty(side * side, 1)
    step = [2.0 / side] * D
    benchmark(
        case.backend.grid_fwd, [-1.0] * D, step, [0] * D, [side] * D, *case.network, out=out, gain=1.0, offset=0.0
    )


@pytest.mark.parametrize("kind", ["value", "gradient", "laplacian", "eikonal"])
def test_loss_fwd(benchmark: Benchmark, case: Case, kind: str) -> None:
    """Loss and parameter gradients in one pass."""
    if not hasattr(case.backend, "loss_fwd"):
        pytest.skip(f"{case.backend.__name__} has no fused losses")
    shapes = {"value": (1,), "gradient": (1, D), "laplacian": (1,)}
    target = cotangents(case, shapes[kind])[0] if kind in shapes else None
    arguments = (kind, case.x, target, None, *case.network)
    benchmark(case.backend.loss_fwd, *arguments, need_params=True, reduction="mean")
