"""A workload made concrete: coordinates, target, the plain module and what every contender answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .official import CHUNK, RATE, OfficialSiren, fit_step, infer, step, target_of
from .workloads import Workload

Call = Callable[[], tuple[Tensor, ...]]


class Unavailable(RuntimeError):
    """A peer that cannot run here; the message is the reason."""


class Contender(NamedTuple):
    """One implementation of a workload.

    Args:
        name: A variant of ours, or a peer.
        call: What is timed. Training leaves the gradients in the parameters.
        parameters: The parameters that a training call fills, else empty.
    """

    name: str
    call: Call
    parameters: Sequence[Tensor]


@dataclass(frozen=True)
class Problem:
    """Inputs of a workload, made before anything is timed.

    Args:
        workload: What to compute.
        modules: The networks in plain PyTorch, one but for a workload of many; every contender has their weights.
        x: Coordinates in [-1, 1], [N, D].
        target: Target of the loss; a kind without one ignores it.
        precision: Of ours; None is fp32.
    """

    workload: Workload
    modules: list[OfficialSiren]
    x: Tensor  # [N, D]
    target: Tensor  # [N, O] or [N, D], with an axis of networks in front where there are many
    precision: str | None = None

    @property
    def module(self) -> OfficialSiren:
        """The network of a workload of one."""
        (module,) = self.modules
        return module

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Where training contenders leave their gradients: those of all networks in one place after the other."""
        if not self.workload.training:
            return []
        places = zip(*(module.parameters() for module in self.modules), strict=True)
        return [parameter for place in places for parameter in place]


def make(workload: Workload, seed: int = 0, device: torch.device | str = "cpu") -> Problem:
    """Return a workload's inputs in fp32; the same seed gives the same bits on every device.

    Args:
        workload: What to compute.
        seed: Of the weights, coordinates and targets.
        device: Where they lie.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = workload.d, workload.width, workload.layers, workload.o
        modules = [OfficialSiren(*shape).to(device) for _ in range(workload.networks)]
    x = torch.rand(workload.points, workload.d, generator=generator) * 2 - 1
    return Problem(workload, modules, x.to(device), target_of(workload, generator).to(device))


def eager_call(problem: Problem, chunk: int | None = None) -> Call:
    """Return the call of eager PyTorch, over all points at once or in chunks.

    Args:
        problem: The inputs.
        chunk: Points of one chunk. Default: all.
    """
    kind, size = problem.workload.kind, chunk or problem.workload.points
    if problem.workload.networks > 1:
        return one_after_another(problem)
    if problem.workload.training:
        return lambda: step(kind, problem.module, problem.x, problem.target, size)
    return lambda: infer(kind, problem.module, problem.x, size)


def one_after_another(problem: Problem, *, fused: bool | None = None) -> Call:
    """Return the call that trains many networks in eager PyTorch, each with an Adam of its own.

    Args:
        problem: The inputs.
        fused: As torch.optim.Adam takes it; None is its default.
    """
    optimizers = [torch.optim.Adam(module.parameters(), lr=RATE, fused=fused) for module in problem.modules]
    return lambda: fit_step(problem.modules, optimizers, problem.x, problem.target)


def training_call(loss: Callable[[], Tensor], parameters: list[torch.nn.Parameter]) -> Call:
    """Return a call that clears the gradients, evaluates the loss and runs its backward."""

    def call() -> tuple[Tensor, ...]:
        for parameter in parameters:
            parameter.grad = None
        total = loss()
        total.backward()
        return (total.detach(),)

    return call


def in_double(problem: Problem) -> Problem:
    """Return the same inputs, bit for bit, in fp64."""
    modules = [copy.deepcopy(module).double() for module in problem.modules]
    return Problem(problem.workload, modules, problem.x.double(), problem.target.double())


def truth(problem: Problem) -> dict[str, Tensor]:
    """Return the results in fp64 by nested autograd, in chunks so that memory stays small."""
    double = in_double(problem)
    return results(double.workload, Contender("fp64", eager_call(double, CHUNK), double.parameters))


def results(workload: Workload, contender: Contender) -> dict[str, Tensor]:
    """Run a contender once and name what it returns, as vectors: quantities, or the loss and all gradients.

    Args:
        workload: What it computes.
        contender: Who computes it.
    """
    outputs = contender.call()
    if not workload.training:
        names = ("value", "gradient", "Laplacian")
        return {name: out.detach().flatten() for name, out in zip(names, outputs, strict=False)}
    # A loss on derivatives does not reach the output bias: no gradient there means zero.
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in contender.parameters]
    return {"loss": outputs[0].detach().reshape(1), "gradients": torch.cat([g.flatten() for g in gradients])}
