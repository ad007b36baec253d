"""Checks of networks and tensors at the public edge; those of plain values are in values.py."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .network import Parameters, SirenModule
from .ops import autocast_enabled
from .values import described, listed, number


def unpack(net: SirenModule, name: str = "net") -> Parameters:
    """Ask a module, the argument of that name, for its parameters.

    Raises:
        TypeError: the module does not follow the protocol.
    """
    method = getattr(net, "siren_parameters", None)
    if not callable(method) or isinstance(net, type):
        wrapped = callable(getattr(getattr(net, "module", None), "siren_parameters", None))
        hint = "; of a wrapper, ask in its call, as wrapper(x, fastsiren.laplacian) does for a Siren" if wrapped else ""
        raise TypeError(
            f"{name}: got {described(net)}, expected a fastsiren.Siren or a module with a method siren_parameters() -> "
            f"fastsiren.engine.network.Parameters{hint}"
        )
    found = method()
    if not isinstance(found, Parameters) or not found.weights:
        said = "one without weights" if isinstance(found, Parameters) else described(found)
        raise TypeError(
            f"{name}: siren_parameters() of {type(net).__name__} gave {said}, expected "
            "fastsiren.engine.network.Parameters with at least two layers"
        )
    return found


def layers(weights: Iterable[Tensor], biases: Iterable[Tensor | None] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and biases as lists, with zeros for biases that are None; whether they fit is not looked at."""
    weights = listed("weights", weights, "tensors")
    given: list[Any] = [None] * len(weights) if biases is None else listed("biases", biases, "tensors")
    for i, weight in enumerate(weights):
        if not isinstance(weight, Tensor):
            raise TypeError(f"weights[{i}]: got {described(weight)}, expected a torch.Tensor")
    full = [w.new_zeros(w.shape[-2:-1]) if b is None else b for w, b in zip(weights, given)]
    return weights, full + given[len(weights) :]


def coordinates(x: Tensor, weight: Tensor, name: str = "x") -> Tensor:  # [..., D]
    """`x`, once it is known to be [..., D] in the dtype and on the device of the first weight [H, D].

    Autocast changes nothing in fastsiren but that coordinates are cast back to the dtype of the parameters.
    """
    if isinstance(x, Tensor) and x.dtype != weight.dtype and x.is_floating_point() and autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    check_tensor(name, x, like=weight, of="the parameters")
    if x.ndim < 1 or x.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"{name}: got shape {tuple(x.shape)}, expected (..., {weight.shape[-1]}) as the network has inputs"
        )
    return x


def per_network(x: Tensor, networks: int | None) -> Tensor:
    """Coordinates with the axis of networks in front: [G, ..., D]."""
    if networks is None:
        return x
    if x.ndim < 3:
        return x.expand(networks, *x.shape)
    if x.shape[0] not in (1, networks):
        raise ValueError(
            f"x: got shape {tuple(x.shape)} for {networks} networks, expected ({networks}, ..., {x.shape[-1]}), or at "
            "most 2 dimensions for points that all of them share"
        )
    return x.expand(networks, *x.shape[1:])


def check_tensor(name: str, given: Tensor, *, like: Tensor, of: str) -> None:
    """Raise unless `given` is a dense tensor with the dtype and device of `like`, which belongs to `of`."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: got {described(given)}, expected a torch.Tensor")
    if given.layout is not torch.strided:
        raise TypeError(f"{name}: got layout {given.layout}, expected torch.strided; use {name}.to_dense()")
    if given.dtype != like.dtype:
        raise TypeError(f"{name}: got dtype {given.dtype}, expected {like.dtype} as {of}")
    if given.device != like.device:
        raise ValueError(f"{name}: got device {given.device}, expected {like.device} as {of}")


def input_axes(dims: Sequence[int] | None, count: int) -> list[int]:
    """Indices of the inputs that `dims` names, counted from the end when negative; all of them for None."""
    if dims is None:
        return list(range(count))
    if isinstance(dims, (str, bytes)) or not isinstance(dims, Sequence):
        raise TypeError(f"dims: got {described(dims)}, expected None or a list of ints")
    for axis in dims:
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"dims: got {described(axis)}, expected ints")
        if not -count <= axis < count:
            raise ValueError(f"dims: got {axis}, expected ints in [{-count}, {count - 1}] as the network has inputs")
    axes = [axis % count for axis in dims]
    if not axes or len(set(axes)) != len(axes):
        raise ValueError(f"dims: got {list(dims)}, expected at least one input, each once")
    return axes


def axis_weights(weights: Tensor | Sequence[float] | None, x: Tensor, count: int) -> Tensor | None:
    """Weights as a tensor [count], or [..., count] with the leading shape of `x`."""
    if weights is None:
        return None
    if not isinstance(weights, Tensor):
        numbers = [number("weights", weight) for weight in listed("weights", weights, "numbers")]
        weights = torch.tensor(numbers, dtype=x.dtype, device=x.device)
    check_tensor("weights", weights, like=x, of="x")
    return _spread("weights", weights, x.shape[:-1], count)


def direction(name: str, given: Tensor, x: Tensor) -> Tensor:
    """A direction [D], or [..., D] with the leading shape of `x`."""
    check_tensor(name, given, like=x, of="x")
    return _spread(name, given, x.shape[:-1], x.shape[-1])


def _spread(name: str, given: Tensor, leading: torch.Size, count: int) -> Tensor:
    """`given` as it is when [count], else broadcast to [*leading, count]."""
    if given.ndim >= 1 and given.shape[-1] == count and given.ndim <= len(leading) + 1:
        if given.ndim == 1:
            return given
        try:
            return given.broadcast_to((*leading, count))
        except RuntimeError:
            # Reported below, with the name of the argument.
            pass
    expected = f"({count},)" + (f" or broadcastable to {(*leading, count)}" if leading else "")
    raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected {expected}")
