"""The contenders of a workload: fastsiren, and every way PyTorch offers to compute the same numbers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

import fastsiren

from . import clients, handwritten, networks
from .official import CHUNK, loss_of
from .problem import Call, Contender, Problem, Unavailable, eager_call, training_call
from .workloads import MANY, RELEASE

FIRST_ORDER = ("gradient", "train_gradient", "train_eikonal")
SECOND_ORDER = ("laplacian", "train_laplacian")


class Entrants(NamedTuple):
    """Who takes part in a workload: the contenders, and the reason of each peer that cannot."""

    contenders: list[Contender]
    absent: dict[str, str]


def our_call(problem: Problem) -> tuple[fastsiren.Siren, Call]:
    """Return our module with the problem's weights, and the call through the fused loss or the operator."""
    w, x, target = problem.workload, problem.x, problem.target
    net = fastsiren.Siren(w.d, w.width, w.layers, w.o, precision=problem.precision, device=x.device)
    net.load_state_dict(problem.module.state_dict())
    operators: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "forward": lambda: (net(x),),
        "gradient": lambda: tuple(fastsiren.value_and_jacobian(net, x)),
        "laplacian": lambda: tuple(fastsiren.laplacian(net, x)),
    }
    losses: dict[str, Callable[[], Tensor]] = {
        "train_value": lambda: fastsiren.losses.value_mse(net, x, target),
        # The target's axis of outputs is a view; o = 1 for every loss on derivatives.
        "train_gradient": lambda: fastsiren.losses.gradient_mse(net, x, target.unsqueeze(1)),
        "train_laplacian": lambda: fastsiren.losses.laplacian_mse(net, x, target),
        "train_eikonal": lambda: fastsiren.losses.eikonal(net, x),
    }
    if w.training:
        return net, training_call(losses[w.kind], list(net.parameters()))
    return net, torch.no_grad()(operators[w.kind])


def ours(problem: Problem) -> Contender:
    """Return fastsiren through its operators, or through its fused loss."""
    if problem.workload.networks > 1:
        return networks.ours(problem)
    net, call = our_call(problem)
    return Contender("ours", call, list(net.parameters()) if problem.workload.training else [])


def unfused(problem: Problem) -> Contender:
    """Return a fastsiren training step whose loss is ordinary PyTorch on the outputs of an operator."""
    if problem.workload.networks > 1:
        return networks.unfused(problem)
    w, x, target = problem.workload, problem.x, problem.target
    net, _ = our_call(problem)
    parameters = list(net.parameters())
    losses: dict[str, Callable[[], Tensor]] = {
        "train_value": lambda: loss_of(w.kind, (net(x),), target),
        "train_gradient": lambda: loss_of(w.kind, (fastsiren.value_and_jacobian(net, x).jacobian[:, 0],), target),
        "train_laplacian": lambda: loss_of(w.kind, (fastsiren.laplacian(net, x).laplacian,), target),
        "train_eikonal": lambda: loss_of(w.kind, (fastsiren.value_and_jacobian(net, x).jacobian[:, 0],), target),
    }
    return Contender("unfused", training_call(losses[w.kind], parameters), parameters)


def eager(problem: Problem) -> Contender:
    """Return eager PyTorch with nested autograd, all points at once."""
    return Contender("eager", eager_call(problem), problem.parameters)


def chunks(problem: Problem) -> Contender:
    """Return eager PyTorch in chunks that fit the cache."""
    if problem.workload.points <= CHUNK:
        raise Unavailable(f"{problem.workload.points} points are one chunk of {CHUNK}: the same as eager")
    return Contender("chunks", eager_call(problem, CHUNK), problem.parameters)


def compiled(problem: Problem) -> Contender:
    """Return torch.compile of the module; for training, of the module and its loss."""
    w, module, x, target = problem.workload, problem.module, problem.x, problem.target
    if w.kind == "forward":
        forward = torch.compile(lambda x: (module(x),), dynamic=False, fullgraph=True)
        return Contender("compile", torch.no_grad()(lambda: forward(x)), [])
    loss = torch.compile(lambda x, t: loss_of(w.kind, (module(x),), t), dynamic=False, fullgraph=True)
    return Contender("compile", training_call(lambda: loss(x, target), problem.parameters), problem.parameters)


def split(problem: Problem) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights and the biases of the plain module, as handwritten.py takes them."""
    parameters: list[Tensor] = list(problem.module.parameters())
    return parameters[0::2], parameters[1::2]


def compiled_jet(problem: Problem) -> Contender:
    """Return torch.compile of the hand-written jet."""
    return compiled_by_hand(
        problem,
        "compile_jet",
        lambda w, b, x: handwritten.jet(w, b, x, problem.workload.kind in SECOND_ORDER),
        handwritten.jet_loss,
    )


def compiled_adjoint(problem: Problem) -> Contender:
    """Return torch.compile of the hand-written reverse sweep."""
    return compiled_by_hand(problem, "compile_adjoint", handwritten.adjoint, handwritten.adjoint_loss)


def compiled_by_hand(
    problem: Problem, name: str, operator: Callable[..., tuple[Tensor, ...]], loss: Callable[..., Tensor]
) -> Contender:
    """Compile an operator, or its loss for training, and return it as a contender."""
    (weights, biases), x, target = split(problem), problem.x, problem.target
    kind = problem.workload.kind
    if not problem.workload.training:
        run = torch.compile(operator, dynamic=False, fullgraph=True)
        return Contender(name, torch.no_grad()(lambda: run(weights, biases, x)), [])
    fused = torch.compile(lambda w, b, x, t: loss(kind, w, b, x, t), dynamic=False, fullgraph=True)
    call = training_call(lambda: fused(weights, biases, x, target), problem.parameters)
    return Contender(name, call, problem.parameters)


def torch_jet(problem: Problem) -> Contender:
    """Return torch-jet's collapsed Taylor mode (PyPI: jet-for-pytorch)."""
    try:
        version = importlib.metadata.version("jet-for-pytorch")
    except importlib.metadata.PackageNotFoundError as error:
        raise Unavailable("jet-for-pytorch is not installed; it needs Python 3.12 or newer") from error
    if int(version.split(".")[0]) < 1:
        raise Unavailable(f"jet-for-pytorch {version} is installed; collapsed jets need 1.0 or newer")
    from jet import jet

    w, x, target = problem.workload, problem.x, problem.target
    seeds = (x, torch.eye(w.d, device=x.device).unsqueeze(1).expand(w.d, w.points, w.d), torch.zeros_like(x))
    transformed = jet(problem.module, (x,), collapsed=True)

    def outputs() -> tuple[Tensor, ...]:
        value, tangents, second = transformed(seeds)
        return value, tangents[..., 0].t(), second

    if not w.training:
        return Contender("torch_jet", torch.no_grad()(outputs), [])
    call = training_call(lambda: loss_of(w.kind, outputs(), target), problem.parameters)
    return Contender("torch_jet", call, problem.parameters)


# What is measured of ours.
VARIANTS: dict[str, Callable[[Problem], Contender]] = {
    "ours": ours,
    "unfused": unfused,
    "import_only": clients.import_only,
    "diff_operators": clients.with_operators,
}

# Nested autograd.grad through a compiled module fails in PyTorch (no double backward in aot_autograd), so kinds with
# derivatives have no plain "compile" row.
PEERS: dict[str, tuple[Callable[[Problem], Contender], tuple[str, ...]]] = {
    "eager": (eager, ("forward", "train_value", *FIRST_ORDER, *SECOND_ORDER, MANY)),
    "chunks": (chunks, ("forward", "train_value", *FIRST_ORDER, *SECOND_ORDER)),
    "compile": (compiled, ("forward", "train_value")),
    "compile_jet": (compiled_jet, (*FIRST_ORDER, *SECOND_ORDER)),
    "compile_adjoint": (compiled_adjoint, FIRST_ORDER),
    "torch_jet": (torch_jet, SECOND_ORDER),
    "eager_fused": (networks.eager_fused, (MANY,)),
    "vmap": (networks.vmapped, (MANY,)),
    "compile_vmap": (networks.compiled_vmap, (MANY,)),
}


def enter(problem: Problem, names: Iterable[str] = PEERS, variants: Iterable[str] = RELEASE) -> Entrants:
    """Return everybody who can run a problem: ours first, then eager, then the other peers that are asked for.

    Args:
        problem: The inputs.
        names: Peers to include, of PEERS. Eager always takes part: errors and ratios refer to it.
        variants: Variants of ours, of VARIANTS.
    """
    kind = problem.workload.kind
    wanted = {name: VARIANTS[name] for name in variants if name == "ours" or problem.workload.training}
    wanted |= {name: build for name, (build, kinds) in PEERS.items() if kind in kinds and name in ("eager", *names)}
    entered, absent = [], {}
    for name, build in wanted.items():
        try:
            entered.append(build(problem))
        except Unavailable as error:
            absent[name] = str(error)
    return Entrants(entered, absent)
