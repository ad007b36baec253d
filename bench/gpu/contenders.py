"""Who is measured on a GPU: fastsiren in fp32 and fp16, and every way PyTorch offers; each is made when asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch

from .. import peers
from ..problem import Call, Contender, Problem, eager_call, make
from ..workloads import Workload
from .items import DEVICE, INTERPRETED, graphed, passes

# Points of a chunk of eager PyTorch where all at once do not fit into memory.
CHUNK = 1 << 16
# Names are name, name_fp16 (ours) or name_tf32 (peers); these modes have fp32 parameters and narrowed products.
REDUCED = ("_fp16", "_tf32")

Make = Callable[[Problem], Contender]


def grid_shape(points: int, d: int) -> list[int]:
    """Return the shape of a grid of so many points, a power of two: as near to a cube as powers of two are."""
    power = points.bit_length() - 1
    return [1 << (power // d + (axis < power % d)) for axis in range(d)]


def problem_of(workload: Workload) -> Problem:
    """Return a workload's inputs on the device; those of "forward" are the points of a grid."""
    problem = make(workload, device=DEVICE)
    if workload.kind != "forward":
        return problem
    axes = [-1.0 + 2.0 / n * torch.arange(n, dtype=torch.float64) for n in grid_shape(workload.points, workload.d)]
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, workload.d)
    return replace(problem, x=x.to(DEVICE, torch.float32))


def ours(problem: Problem, precision: str = "fp32") -> Contender:
    """Return fastsiren through its operators or fused losses."""
    return peers.ours(replace(problem, precision=precision))


def grid(problem: Problem, precision: str = "fp32") -> Contender:
    """Return fastsiren decoding the grid whose points the others are given."""
    w = problem.workload
    shape, (weights, biases) = grid_shape(w.points, w.d), peers.split(problem)
    weights, biases = [t.detach() for t in weights], [t.detach() for t in biases]
    out = torch.empty(w.points, w.o, device=DEVICE)
    decode = passes(precision).grid_fwd
    place = [-1.0] * w.d, [2.0 / n for n in shape], [0] * w.d, shape

    def call() -> tuple[torch.Tensor, ...]:
        decode(*place, weights, biases, [30.0] * (w.layers + 1), out=out, gain=1.0, offset=0.0)
        return (out,)

    return Contender("grid", call, [])


def eager_chunks(problem: Problem) -> Contender:
    """Return eager PyTorch in chunks that fit into memory."""
    return Contender("eager_chunks", eager_call(problem, CHUNK), problem.parameters)


def captured(name: str, build: Make) -> Make:
    """Return a maker of the same contender as the replay of a CUDA graph."""

    def make_graph(problem: Problem) -> Contender:
        contender = build(problem)
        graph, results = graphed(contender.call)
        gradients = [p.grad for p in contender.parameters]

        def call() -> tuple[torch.Tensor, ...]:
            graph.replay()
            # Contenders share parameters, and others put their own gradients there.
            for parameter, gradient in zip(contender.parameters, gradients):
                parameter.grad = gradient
            return results

        return Contender(name, call, contender.parameters)

    return make_graph


def in_tf32(build: Make) -> Make:
    """Return a maker of the same contender whose matrix products run in TF32."""

    def allowed(call: Call) -> tuple[torch.Tensor, ...]:
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return call()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False

    def make_tf32(problem: Problem) -> Contender:
        contender = build(problem)
        return contender._replace(call=functools.partial(allowed, contender.call))

    return make_tf32


MAKERS: dict[str, Make] = {
    "ours": ours,
    "ours_fp16": functools.partial(ours, precision="fp16"),
    "grid": grid,
    "grid_fp16": functools.partial(grid, precision="fp16"),
    "eager": peers.eager,
    "eager_chunks": eager_chunks,
    "eager_tf32": in_tf32(peers.eager),
    "eager_graph": captured("eager_graph", peers.eager),
    "compile": peers.compiled,
    "compile_jet": peers.compiled_jet,
    "compile_jet_tf32": in_tf32(peers.compiled_jet),
}
COMPILED = ("compile", "compile_jet", "compile_jet_tf32")


def own(workload: Workload) -> list[str]:
    """Return the names of ours for a workload."""
    return ["ours", "ours_fp16", *(["grid", "grid_fp16"] if workload.kind == "forward" else [])]


def others(workload: Workload, compiled: bool) -> list[str]:
    """Return the names of the peers of a workload.

    Args:
        workload: What is computed.
        compiled: Whether compiled peers take part; each costs many seconds.
    """
    if INTERPRETED:
        return ["eager"]
    # All that autograd keeps for so many points may not fit, and a graph would hold it for good.
    large = workload.points >= 1 << 20 and workload.kind != "forward"
    names = ["eager", "eager_tf32", "eager_chunks" if large else "eager_graph"]
    if not compiled:
        return names
    by_hand = workload.kind not in ("forward", "train_value")
    return [*names, *(["compile_jet", "compile_jet_tf32"] if by_hand else ["compile"])]


def build(name: str, problem: Problem) -> Contender:
    """Make a contender under its name."""
    return MAKERS[name](problem)._replace(name=name)
