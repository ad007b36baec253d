"""Calls of every operator: arguments in several layouts, and the two ways to start one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import oracle
from fastsiren.engine import ops
from fastsiren.engine.passes import PASSES, Call
from oracle import Net

NAMES = list(PASSES)
K, R, C = 2, 1, 2


def network(widths: tuple[int, ...] = (2, 4, 3, 2), dtype: torch.dtype = torch.float64) -> Net:
    """A small network with moderate frequencies, so that finite differences and high orders stay well conditioned."""
    return oracle.network(widths, [2.0, 1.5, 1.0, 1.2][: len(widths) - 2], dtype=dtype)


def layout(tensor: Tensor, kind: str) -> Tensor:
    """The same numbers contiguous, transposed in memory, or as every second row of a larger tensor.

    "expanded" is other numbers: the first row for all rows, stride 0.
    """
    if kind == "contiguous" or tensor.ndim == 0:
        return tensor
    if kind == "transposed":
        return tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor
    if kind == "sliced":
        return torch.stack([tensor, tensor], 1).flatten(0, 1)[::2]
    return tensor[:1].expand_as(tensor) if tensor.shape[0] else tensor


def operands(name: str, net: Net, N: int, *, per_point: bool = False, kind: str = "contiguous") -> list[Any]:
    """One tensor per operand of a pass; bars are laid out as `kind` says, x as well unless it is "expanded"."""
    D, O = net.weights[0].shape[1], net.weights[-1].shape[0]
    lead = (N,) if per_point else ()
    shapes = {
        "x": (N, D), "y_bar": (N, O), "x_bar_bar": (N, D),
        "T_bar": (N, K, O), "S_bar": (N, R, O), "J_bar": (N, C, D), "H_bar": (N, C, K, K),
        "directions": (*lead, K, D), "forms": (*lead, R, K, K), "combinations": (*lead, C, O),
        "target": (N, O), "weight": (N,),
    }  # fmt: skip
    made = []
    for i, operand in enumerate(PASSES[name].operands):
        tensor = oracle.normal(*shapes[operand.name], seed=20 + i)
        if operand.name == "forms":
            tensor = (tensor + tensor.mT) / 2
        plain = operand.seed or (operand.name == "x" and kind == "expanded")
        made.append(tensor if plain else layout(tensor, kind))
    return made


def options(name: str) -> tuple[Any, ...]:
    """Options that ask for everything."""
    given = {"kind": "value", "reduction": "sum"}
    return tuple(given.get(option.split()[1], True) for option in PASSES[name].options)


def cotangents(name: str, net: Net) -> list[Tensor]:
    """Cotangents of the parameters, for value_bwdbwd."""
    return [oracle.normal(*p.shape, seed=40 + i) for i, p in enumerate(net.parameters())]


def operator(name: str, net: Net, backend: str, with_cotangents: bool = True) -> Callable[..., Any]:
    """The operator of torch.library as a function of flat tensors."""
    return _flat(name, net, lambda call, args: ops._operator(PASSES[name], call, args), backend)


def dispatched(name: str, net: Net, backend: str) -> Callable[..., Any]:
    """What the package itself calls, as a function of flat tensors."""
    return _flat(name, net, lambda call, args: ops._dispatch(PASSES[name], call, args), backend)


def _flat(name: str, net: Net, start: Callable[..., Any], backend: str) -> Callable[..., Any]:
    call = Call(len(net.weights), tuple(net.omegas), backend, options(name))
    return lambda *args: start(call, args)


def schema_arguments(name: str, net: Net, backend: str, made: list[Any], extra: list[Tensor]) -> tuple[Any, ...]:
    """Arguments in the order of the schema."""
    lists = [net.weights, net.biases, *([extra] if PASSES[name].has_cotangents else [])]
    return (*made, *lists, net.omegas, backend, *options(name))
