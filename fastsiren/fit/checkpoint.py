"""A network, how it came about and how to go on, in one file that holds no code."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import nn

from .. import __version__, tensorfile
from ..engine.backends import PRECISIONS
from ..faults import InputError
from ..hub import arguments
from ..siren import Siren
from ..tensorfile import Array, TensorFile
from .loop import MOMENTS, Trainer

__all__ = ["Checkpoint", "load", "read", "restore", "save"]

FORMAT = 1
_RANGES = {
    "in_features": range(1, 65),
    "hidden_features": range(1, 1 + (1 << 16)),
    "hidden_layers": range(1 + (1 << 10)),
    "out_features": range(1, 1 + (1 << 16)),
}
_OMEGAS = ("first_omega_0", "hidden_omega_0")
# All tensors of a file have the same one.
_DTYPES = [{np.dtype(name)} for name in ("float16", "float32", "float64")]


class Checkpoint(NamedTuple):
    """What a file holds."""

    net: Siren
    description: dict[str, Any]
    """Plain JSON values: "problem", "network" and what the problem adds."""
    state: dict[str, Array]
    """What `Trainer.load` takes; empty when the file was saved without it."""


def describe(net: nn.Module) -> dict[str, Any] | None:
    """The arguments that make a network of the same architecture; None for one that only its problem can make."""
    return arguments(net) if isinstance(net, Siren) else None


def save(
    path: str | os.PathLike[str], net: nn.Module, description: dict[str, Any], *, trainer: Trainer | None = None
) -> None:
    """Write a checkpoint; `path` is the old file or the complete new one, never something between.

    Args:
        path: The file; an existing one is replaced.
        net: The network. What is no `Siren` is kept by its parameters alone: `restore` needs a module to put them into.
        description: What the problem wants to keep, plain JSON values.
        trainer: Kept so that training can go on; None keeps the network only.

    Raises:
        ValueError: The network is one that `load` would refuse, or its frequencies were changed.
    """
    network = describe(net)
    if any(parameter.dtype == torch.bfloat16 for parameter in net.parameters()):
        raise ValueError("net: got parameters of torch.bfloat16, a checkpoint holds float16, float32 or float64")
    if trainer is None:
        tensors = {name: value.detach().cpu().numpy() for name, value in net.named_parameters()}
    else:
        tensors = trainer.state()
    if not (network is None or (_is_network(network) and _fits(_shapes(network), tensors))):
        raise ValueError(
            f"net: got {net}, a checkpoint holds networks with biases and at most {_RANGES['in_features'][-1]} inputs, "
            f"{_RANGES['hidden_features'][-1]} units and outputs, and {_RANGES['hidden_layers'][-1]} hidden layers"
        )
    fixed = {"format": FORMAT, "version": __version__, "network": network}
    tensorfile.write(path, TensorFile({**description, **fixed}, tensors))


def read(path: str | os.PathLike[str]) -> TensorFile:
    """Description and tensors of a checkpoint, after proving that nothing in it has changed.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, of another kind, or of another version.
    """
    found = tensorfile.read(path)
    if found.description.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {found.description.get('format')!r}, this version reads {FORMAT}; update fastsiren"
        )
    return found


def restore(path: str | os.PathLike[str], found: TensorFile, trainer: Trainer) -> None:
    """Have a trainer go on from a checkpoint.

    Args:
        path: Where it was read, for messages.
        found: What `read` gave.
        trainer: Its module has the architecture of the one that was saved.

    Raises:
        InputError: The tensors are those of another module, or what goes on needs was left out.
    """
    if "step" not in found.tensors:
        raise InputError(f"{path} was saved with --compact and cannot go on; use --overwrite to start anew")
    shapes = {name: tuple(parameter.shape) for name, parameter in trainer.net.named_parameters()}
    if found.description.get("network") != describe(trainer.net) or not _fits(shapes, found.tensors):
        raise InputError(f"{path} describes a network that its tensors do not fit; use --overwrite to start anew")
    trainer.load(found.tensors)


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint after proving that nothing in it has changed.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, of another kind, or of another version.
    """
    description, tensors = read(path)
    network = description.get("network")
    if network is None:
        raise InputError(f"{path} holds a network that is no SIREN by itself; go on with the command that wrote it")
    if not (isinstance(description.get("version"), str) and _is_network(network) and _fits(_shapes(network), tensors)):
        raise InputError(f"{path} describes a network that cannot be, or that its tensors do not fit; fit again")
    net = Siren(**network, dtype=torch.tensor(tensors["net.0.linear.weight"]).dtype)
    net.load_state_dict({name: torch.tensor(tensors[name]) for name in net.state_dict()})
    return Checkpoint(net, description, tensors if "step" in tensors else {})


def _is_network(network: Any) -> TypeGuard[dict[str, Any]]:
    """Whether these are the values that `describe` gives, each in its range."""
    # Files of before precisions were kept have none.
    if not isinstance(network, dict) or {*network, "precision"} != {
        *_RANGES,
        *_OMEGAS,
        "outermost_linear",
        "precision",
    }:
        return False
    if network.get("precision") not in (None, *PRECISIONS):
        return False
    if any(type(network[name]) is not int or network[name] not in numbers for name, numbers in _RANGES.items()):
        return False
    finite = all(type(network[name]) is float and network[name] != 0 for name in _OMEGAS)
    return finite and type(network["outermost_linear"]) is bool


def _fits(shapes: dict[str, tuple[int, ...]], tensors: dict[str, Array]) -> bool:
    """Whether the tensors are those `save` writes for parameters of these shapes; checked before anything is made."""
    step = tensors.get("step")
    if step is not None:
        if step.shape != () or step.dtype != np.int64 or step < 0:
            return False
        moments = MOMENTS if step > 0 else ()
        shapes = shapes | {f"adam.{moment}.{name}": shape for moment in moments for name, shape in shapes.items()}
    others = {name: tensor for name, tensor in tensors.items() if name != "step"}
    dtypes = {tensor.dtype for tensor in others.values()}
    return {name: tensor.shape for name, tensor in others.items()} == shapes and dtypes in _DTYPES


def _shapes(network: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of a described network."""
    inputs, hidden, layers, outputs = (network[name] for name in _RANGES)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(pairwise([inputs, *[hidden] * (layers + 1), outputs])):
        is_linear = network["outermost_linear"] and i == layers + 1
        name = f"net.{i}" if is_linear else f"net.{i}.linear"
        shapes |= {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}
    return shapes
