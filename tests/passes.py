"""Every pass on every engine: how to call it, cases to try, and what nested autograd makes of them.

An engine is a backend, and for the C++ one an instruction set. What the cases expect is computed once by nested
autograd and shared by all engines, so the engine is the parameter that varies fastest.
"""

import contextlib
import functools
import itertools
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import oracle
from conftest import WANTED
from fastsiren.engine import backends
from fastsiren.engine.network import Grads
from fastsiren.engine.pass_kind import Tape
from oracle import Net

# Sizes around every tile, block and segment of the kernels, and the smallest ones.
WIDTHS = (1, 3, 15, 16, 17, 31, 33, 64, 127, 128, 256, 2)
ROWS = (0, 1, 2, 15, 16, 17, 47, 48, 49, 63, 65, 127, 1000, 1153)
# Points whose gradients are summed by one thread: SEGMENT_POINTS of csrc/engine.h.
SEGMENT = 384
OMEGAS = (30.0, 1.0, 3000.0)
OUTPUTS = {
    "value": ("value",),
    "jet": ("value", "first", "second"),
    "adjoint": ("value", "first"),
    "sandwich": ("value", "first", "second"),
}


def unless_interpreted(many: Any, few: Any) -> Any:
    """What a test tries: few cases where kernels are interpreted, which takes a thousand times as long."""
    return few if backends.INTERPRETED else many


def extension() -> Any:
    """fastsiren._C, which only exists where the engine was built."""
    from fastsiren import _C

    return _C


def instruction_sets() -> list[str]:
    """What the C++ engine can run on here, best first; empty where it is not tested."""
    return extension().isa_available() if "cpp" in WANTED and not backends.missing("cpp") else []


@contextlib.contextmanager
def isa_selected(name: str | None) -> Iterator[None]:
    """Let the C++ engine use one instruction set; None leaves it as it is."""
    if name is None:
        yield
        return
    before = extension().isa_active()
    extension().isa_select(name)
    try:
        yield
    finally:
        extension().isa_select(before)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine(NamedTuple):
    """A backend and, for the C++ one, an instruction set."""

    backend: str
    isa: str | None = None

    def __str__(self) -> str:
        return f"{self.backend}-{self.isa}" if self.isa else self.backend

    def call(self, function: str, *arguments: Any, **options: Any) -> Any:
        with isa_selected(self.isa):
            return getattr(backends.module(self.backend), function)(*arguments, **options)

    def forward(self, name: str, net: Net, x: Tensor, seeds: Sequence[Tensor] = (), **kept: Tape) -> tuple[Tensor, ...]:
        outputs = self.call(f"{name}_fwd", x, *seeds, *net, **kept)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def backward(
        self, name: str, bars: Sequence[Tensor], net: Net, x: Tensor, seeds: Sequence[Tensor] = (), **need: bool | Tape
    ) -> Grads:
        wanted = {"need_x": True, "need_params": True, **({} if name == "value" else {"need_seeds": True}), **need}
        return self.call(f"{name}_bwd", *bars, x, *seeds, *net, **wanted)


# A wanted backend that is missing stays in the list: its tests fail with the reason.
ENGINES = [Engine(b, isa) for b in WANTED for isa in (instruction_sets() or [None] if b == "cpp" else [None])]
CPP = [engine for engine in ENGINES if engine.backend == "cpp"]
# Those whose rows stand for themselves, bit for bit.
KERNELS = [engine for engine in ENGINES if engine.backend != "reference"]

on_every_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
on_every_kernel = pytest.mark.parametrize("engine", KERNELS, ids=str)
on_every_isa = pytest.mark.parametrize("engine", CPP, ids=str)


class Case(NamedTuple):
    """Sizes of a call. A trained network brings its own widths and omegas."""

    widths: tuple[int, ...]  # D, hidden widths, O
    omegas: tuple[float, ...]
    N: int
    per_point: bool = False  # seeds
    K: int = 2
    R: int = 2
    C: int = 2
    trained: str = ""

    def __str__(self) -> str:
        seeds = "point" if self.per_point else "shared"
        return f"{self.trained or '_'.join(map(str, self.widths))}-w{self.omegas[0]:g}-N{self.N}-{seeds}"

    @property
    def usual(self) -> bool:
        """Within the reach of the caps of the error rule."""
        hidden = self.widths[1:-1]
        return max(self.omegas) == min(self.omegas) == 30 and min(hidden) >= 64 and len(hidden) >= 3 and self.N > 40


class Operands(NamedTuple):
    net: Net
    x: Tensor
    seeds: list[Tensor]
    bars: list[Tensor]

    def to(self, dtype: torch.dtype) -> "Operands":
        return Operands(
            self.net.to(dtype),
            self.x.to(dtype),
            [seed.to(dtype) for seed in self.seeds],
            [bar.to(dtype) for bar in self.bars],
        )


def operands(name: str, case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> Operands:
    """Arguments of a pass and of its backward: random points, seeds (forms symmetric) and cotangents."""
    net = (
        oracle.trained(case.trained, dtype)
        if case.trained
        else oracle.network(case.widths, case.omegas, seed=seed, dtype=dtype)
    )
    N, K, R, C, D, O = case.N, case.K, case.R, case.C, case.widths[0], case.widths[-1]
    draw = functools.partial(oracle.normal, dtype=dtype)
    lead = (N,) if case.per_point else ()
    V, E = draw(*lead, K, D, seed=100 * seed + 2), draw(*lead, C, O, seed=100 * seed + 4)
    M = draw(*lead, R, K, K, seed=100 * seed + 3)
    seeds = {"value": [], "jet": [V, (M + M.mT) / 2], "adjoint": [E], "sandwich": [V, E]}[name]
    shapes = {
        "value": [(N, O)],
        "jet": [(N, O), (N, K, O), (N, R, O)],
        "adjoint": [(N, O), (N, C, D)],
        "sandwich": [(N, O), (N, C, D), (N, C, K, K)],
    }[name]
    bars = [draw(*shape, seed=100 * seed + 10 + i) for i, shape in enumerate(shapes)]
    return Operands(net, oracle.points(net, N, seed=100 * seed + 1), seeds, bars)


class Results(NamedTuple):
    outputs: list[Tensor]
    x: Tensor
    seeds: list[Tensor]
    parameters: list[Tensor]  # weights, then biases

    def tensors(self) -> list[Tensor]:
        return [*self.outputs, self.x, *self.seeds, *self.parameters]


def by_autograd(name: str, given: Operands) -> Results:
    """Values and gradients by nested autograd, in the dtype of the operands."""
    net, (x, *seeds) = given.net.tracked(), oracle.tracked(given.x, *given.seeds)
    outputs = getattr(oracle, name)(net, x, *seeds)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    grads = oracle.gradients(outputs, given.bars, [x, *seeds, *net.parameters()])
    found = [t.detach() for t in [*outputs, *grads]]
    n = len(outputs)
    return Results(found[:n], found[n], found[n + 1 : n + 1 + len(seeds)], found[n + 1 + len(seeds) :])


def by_engine(engine: Engine, name: str, given: Operands, **kept: Tape) -> Results:
    """Values and gradients; on two threads where there is work for them, since small work waits for the second."""
    with threads(1 if given.x.shape[0] <= SEGMENT else 2):
        outputs = engine.forward(name, given.net, given.x, given.seeds, **kept)
        grads = engine.backward(name, given.bars, given.net, given.x, given.seeds, **kept)
    return Results(list(outputs), grads.x, list(grads.seeds), [*grads.weights, *grads.biases])


@functools.lru_cache(maxsize=128)
def expected(name: str, case: Case, made: torch.dtype, computed: torch.dtype, seed: int = 0) -> Results:
    """Nested autograd in one dtype, from operands rounded to another."""
    with oracle.one_thread():
        return by_autograd(name, operands(name, case, made, seed).to(computed))


def _cases() -> Iterator[Case]:
    """Every number of rows with every width, each with other neighbours, in 3 sine layers."""
    for a, N in enumerate(ROWS):
        order = [WIDTHS[(5 * a + 7 * j) % len(WIDTHS)] for j in range(len(WIDTHS))]
        for g in range(4):
            i = 4 * a + g
            omegas = (OMEGAS[(a + g) % 3], 30.0 if i % 2 else 3.0, 30.0)
            D, O = (1 + (a + g) % 4, (1, 2, 3, 5, 9)[i % 5]) if N < 1000 else (1 + g % 2, 1 + a % 2)
            K, R, C = (1 + i % 3, 1 + i % 2, 1 + i % 3) if N < 1000 else (1 + i % 2, 1, 1)
            yield Case((D, *order[3 * g : 3 * g + 3], O), omegas, N, i % 2 == 1, K, R, C)


CASES = list(_cases())
# For float32: every number of rows, and layers as wide as they are used; narrower ones are in NARROW.
WIDE = [
    Case((D, w, widths[-1 - i], 33, O), (omega, 30.0, 30.0), N, i % 2 == 1, K=1 + i % 2, R=1, C=min(O, 2))
    for widths in [(15, 16, 17, 31, 33, 64, 127, 128, 256, 15, 17, 31, 64, 16)]
    for i, (w, N, D, O, omega) in enumerate(
        zip(widths, ROWS[1:] + ROWS[-1:], itertools.cycle((2, 3, 1)), itertools.cycle((1, 3)), itertools.cycle(OMEGAS))
    )
]
NARROW = [
    Case((2, 1, 3, 1), (30.0, 30.0), 49, False),
    Case((3, 3, 1, 2), (1.0, 30.0), 63, True),
    Case((1, 16, 3, 2), (3000.0, 3.0), 127, False),
]
DEPTHS = [Case((2, *[19] * n, 3), (30.0, 3.0, 30.0, 1.0, 10.0)[:n], 37, n % 2 == 0) for n in range(1, 6)]
USUAL = [
    Case((2, *[width] * 3, 1), (30.0,) * 3, N, N == 127, K=2, R=1, C=1)
    for width, N in ((64, 127), (128, 1153), (256, 48))
]
TRAINED = [
    Case(widths, (30.0,) * 3 if name != "audio" else (3000.0, 30.0, 30.0), 200, name == "sdf", trained=name)
    for name, widths in (("image", (2, 64, 64, 64, 3)), ("sdf", (3, 64, 64, 64, 1)), ("audio", (1, 64, 64, 64, 1)))
]
# For interpreted kernels: every edge of their tiles in few cases. Rows around tiles of 16 to 128; widths padded
# differently, and equal ones for the fused kernel; 0 to 3 hidden matrices; no directions, forms or combinations; 11
# channels.
EDGES = [
    Case((1, 17, 2), (30.0,), 0, False),
    Case((2, 1, 15, 1), (3000.0, 3.0), 1, True, K=1, R=1, C=1),
    Case((3, 33, 65, 16, 2), (30.0, 30.0, 3.0), 33, True, K=2, R=1, C=2),
    Case((4, 16, 16, 16, 5), (1.0, 30.0, 30.0), 131, False, K=1, R=0, C=1),
    Case((2, 17, 3, 15, 33, 1), (30.0, 3.0, 1.0, 2.0), 17, False, K=2, R=8, C=3),
    Case((2, 64, 1), (30.0,), 64, True, K=0, R=2, C=0),
]
FLOAT64 = unless_interpreted(CASES + DEPTHS, EDGES)
FLOAT32 = unless_interpreted(WIDE + NARROW + USUAL + TRAINED, [TRAINED[1]._replace(N=64)])


def every(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=str)


def child(code: str, *arguments: str, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process that imports what this one can."""
    path = os.pathsep.join(entry for entry in [str(Path(__file__).parent), *sys.path] if entry)
    line = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(line, env=variables, capture_output=True, text=True, timeout=timeout)
