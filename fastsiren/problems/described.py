"""Whether the description of a checkpoint is one that a training writes; files may say anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import torch

from ..faults import InputError
from ..fit import Settings
from ..fit.checkpoint import Checkpoint
from ..tensorfile import TensorFile

__all__ = ["check", "fits"]

Found = TypeVar("Found", Checkpoint, TensorFile)


def fits(checkpoint: Checkpoint, settings: type[Settings], merit: str, inputs: int, outputs: int) -> bool:
    """Whether settings, step and figures are such, and the network is the one that they describe.

    Args:
        checkpoint: What was read; its description may raise KeyError, TypeError or ValueError here.
        settings: Of the problem.
        merit: Name of its figure of merit.
        inputs: That the data have.
        outputs: That the data have.
    """
    net, description, state = checkpoint
    made, step, figures = settings(**description["settings"]), description["step"], description["figures"]
    sizes = (net.in_features, net.hidden_features, net.hidden_layers, net.out_features)
    return (
        sizes == (inputs, made.hidden, made.layers, outputs)
        and net.siren_parameters().weights[0].dtype == torch.float32
        and type(step) is int
        and 0 <= step == (state["step"] if state else step)
        and isinstance(figures, dict)
        and isinstance(figures.get(merit), float | None)
    )


def check(path: str | os.PathLike[str], checkpoint: Found, title: str, fitting: Callable[[Found], bool]) -> None:
    """Refuse a checkpoint whose description is not what a training writes.

    Args:
        path: Where it was read, for the message.
        checkpoint: What was read.
        title: What it should hold.
        fitting: Whether it does; it may raise what `fits` may.

    Raises:
        InputError: It does not.
    """
    try:
        right = fitting(checkpoint)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        right = False
    if not right:
        raise InputError(f"{path} describes a {title} that its network does not fit; fit again")
