"""A network, how it came about and how to go on, in one file that holds no code."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from .. import __version__, tensorfile
from ..faults import InputError
from ..siren import Siren
from ..tensorfile import Array, TensorFile
from .loop import Trainer

__all__ = ["Checkpoint", "load", "save"]

FORMAT = 1
_LARGEST = {"in_features": 64, "hidden_features": 1 << 16, "hidden_layers": 1 << 10, "out_features": 1 << 16}
_PREFIX = "net."


class Checkpoint(NamedTuple):
    """What a file holds."""

    net: Siren
    description: dict[str, Any]
    """Plain JSON values: "problem", "network" and what the problem adds."""
    state: dict[str, Array]
    """What `Trainer.load` takes; empty when the file was saved without it."""


def describe(net: Siren) -> dict[str, Any]:
    """The arguments that make a network of the same architecture."""
    return {
        "in_features": net.in_features,
        "hidden_features": net.hidden_features,
        "hidden_layers": net.hidden_layers,
        "out_features": net.out_features,
        "outermost_linear": net.outermost_linear,
        "first_omega_0": net.first_omega_0,
        "hidden_omega_0": net.hidden_omega_0,
    }


def save(
    path: str | os.PathLike[str], net: Siren, description: dict[str, Any], *, trainer: Trainer | None = None
) -> None:
    """Write a checkpoint; `path` is the old file or the complete new one, never something between.

    Args:
        path: The file; an existing one is replaced.
        net: The network.
        description: What the problem wants to keep, plain JSON values.
        trainer: Kept so that training can go on; None keeps the network only.
    """
    if trainer is None:
        tensors = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
    else:
        tensors = trainer.state()
    fixed = {"format": FORMAT, "version": __version__, "network": describe(net)}
    tensorfile.write(path, TensorFile({**description, **fixed}, tensors))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint after proving that nothing in it has changed.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, damaged, of another kind, or of a later version.
    """
    description, tensors = tensorfile.read(path)
    if description.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {description.get('format')!r}, this version reads {FORMAT}; update fastsiren"
        )
    network = description.get("network")
    if not isinstance(network, dict) or not _fits(network, tensors):
        raise InputError(f"{path} describes a network that its tensors do not fit; fit again")
    net = Siren(**network, dtype=torch.tensor(tensors["net.0.linear.weight"]).dtype)
    net.load_state_dict({name: torch.tensor(tensors[name]) for name in net.state_dict()})
    return Checkpoint(net, description, tensors if "step" in tensors else {})


def _fits(network: dict[str, Any], tensors: dict[str, Array]) -> bool:
    """Whether the tensors are those of the described network; checked before anything of that size is made."""
    for name, top in _LARGEST.items():
        if type(network.get(name)) is not int or not 0 <= network[name] <= top:
            return False
    inputs, hidden, layers, outputs = (network[name] for name in _LARGEST)
    widths = [inputs, *[hidden] * (layers + 1), outputs]
    last_is_linear = network.get("outermost_linear") is True
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        name = f"{_PREFIX}{i}" if last_is_linear and i == layers + 1 else f"{_PREFIX}{i}.linear"
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        if weight is None or bias is None or weight.shape != (n_out, n_in) or bias.shape != (n_out,):
            return False
    return True
