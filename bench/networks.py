"""Many independent networks trained together: fastsiren on stacked parameters, and what PyTorch offers for the same.

A step takes every network: its loss, its gradients and Adam. All contenders have the same weights, points and targets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

import fastsiren
from fastsiren.modulation import Conditioned

from .official import RATE
from .problem import Call, Contender, Problem, one_after_another


def stacked(problem: Problem) -> Conditioned:
    """Return our networks with the problem's weights, put together."""
    w, nets = problem.workload, []
    for module in problem.modules:
        net = fastsiren.Siren(w.d, w.width, w.layers, w.o, precision=problem.precision, device=problem.x.device)
        net.load_state_dict(module.state_dict())
        nets.append(net)
    return fastsiren.functional.stack(nets)


def ours(problem: Problem) -> Contender:
    """Return fastsiren through its fused loss."""
    every, x, target = stacked(problem), problem.x, problem.target
    loss = lambda: fastsiren.losses.value_mse(every, x, target, reduction="per_network")  # noqa: E731
    return training("ours", in_layers(every), loss)


def unfused(problem: Problem) -> Contender:
    """Return a fastsiren step whose loss is ordinary PyTorch on the values of all networks."""
    every, x, target = stacked(problem), problem.x, problem.target

    def loss() -> Tensor:
        values = fastsiren.functional.siren(x, every.weights, every.biases, omegas=every.omegas)
        return (values - target).square().mean((1, 2))

    return training("unfused", in_layers(every), loss)


def in_layers(every: Conditioned) -> list[Tensor]:
    """Return weight and bias of the first layer, then those of the next, as a module's parameters stand."""
    return [parameter for layer in zip(every.weights, every.biases, strict=True) for parameter in layer]


def eager_fused(problem: Problem) -> Contender:
    """Return eager PyTorch, one network after another, each with the fused Adam."""
    own = copy.deepcopy(problem)
    return Contender("eager_fused", one_after_another(own, fused=True), own.parameters)


def vmapped(problem: Problem) -> Contender:
    """Return torch.func.vmap over stacked parameters."""
    parameters, losses = batched(problem)
    return training("vmap", parameters, losses)


def compiled_vmap(problem: Problem) -> Contender:
    """Return torch.compile of torch.func.vmap over stacked parameters."""
    parameters, losses = batched(problem)
    return training("compile_vmap", parameters, torch.compile(losses, dynamic=False, fullgraph=True))


def batched(problem: Problem) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """Return stacked parameters, and the losses of all networks by torch.func.vmap."""
    params, _ = stack_module_state(problem.modules)
    base = copy.deepcopy(problem.modules[0]).to("meta")
    x, target = problem.x, problem.target

    def loss(params: dict[str, Tensor], target: Tensor) -> Tensor:
        return ((functional_call(base, params, (x,)) - target) ** 2).mean()

    return list(params.values()), lambda: vmap(loss)(params, target)


def training(name: str, parameters: list[Tensor], losses: Callable[[], Tensor]) -> Contender:
    """Return a step over stacked parameters: the losses of all networks, one backward, one fused Adam."""
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)

    def call() -> tuple[Tensor, ...]:
        optimizer.zero_grad(set_to_none=True)
        total = losses().sum()
        total.backward()
        optimizer.step()
        return (total.detach(),)

    found: Call = call
    return Contender(name, found, parameters)
