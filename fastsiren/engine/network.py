"""What the engine knows of a network: its frozen description, and the gradients a backward pass returns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from .values import described


class Parameters(NamedTuple):
    """What a module hands to the engine: raw parameters as nn.Linear holds them, omega not folded in."""

    weights: list[Tensor]
    """One [n_out, n_in] per layer."""
    biases: list[Tensor]
    """One [n_out] per layer; zeros where a layer has none."""
    omegas: list[float]
    """One per sine layer: one fewer than weights, or as many when outermost_linear is False."""
    outermost_linear: bool = True
    """False: the last layer is a sine layer too."""
    precision: str | None = None
    """Precision of hidden products, None for the one in force."""


@runtime_checkable
class SirenModule(Protocol):
    """The protocol of public operators: any module that can spell itself as Parameters."""

    def siren_parameters(self) -> Parameters:
        """The network as it is now."""
        ...


class Grads(NamedTuple):
    """Gradients that a backward pass returns; what was not asked for is None or empty."""

    x: Tensor | None
    """[N, D], None when not asked for."""
    seeds: tuple[Tensor, ...]
    """One per seed of the pass (directions and forms, combinations, ...), each of the shape of its argument."""
    weights: list[Tensor]
    """One [n_out, n_in] per layer, the linear output layer last."""
    biases: list[Tensor]
    """One [n_out] per layer."""


@dataclass(frozen=True)
class Network:
    """Frozen description of a SIREN: sine layers l = 0..L, then one linear output layer.

    Args:
        widths: (D, H_0, .., H_L, O), one more than there are layers.
        omegas: frequency factor of each sine layer; a sine layer is sin(omega * (W h + b)).
    """

    widths: tuple[int, ...]
    omegas: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.omegas) < 1:
            raise ValueError("omegas: got none, expected one float per sine layer, at least one")
        if len(self.widths) != len(self.omegas) + 2:
            raise ValueError(f"widths: got {len(self.widths)} of them, expected {len(self.omegas) + 2} (omegas + 2)")
        if any(width < 1 for width in self.widths):
            raise ValueError(f"widths: got {self.widths}, expected integers >= 1")
        if not all(math.isfinite(omega) for omega in self.omegas):
            raise ValueError(f"omegas: got {self.omegas}, expected finite numbers")

    @property
    def in_features(self) -> int:
        """D."""
        return self.widths[0]

    @property
    def out_features(self) -> int:
        """O."""
        return self.widths[-1]

    @property
    def hidden_layers(self) -> int:
        """L, the number of hidden matrices: the sine layers less the first."""
        return len(self.omegas) - 1

    @classmethod
    def from_parameters(cls, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> "Network":
        """Describe the network that raw parameters spell, after checking that they fit each other.

        Args:
            weights: one [n_out, n_in] per layer, as nn.Linear holds them, the linear output layer last.
            biases: one [n_out] per layer.
            omegas: one float per sine layer, so one fewer than there are weights.

        Raises:
            TypeError: a parameter is no floating-point tensor, or dtypes differ.
            ValueError: counts, shapes or devices do not fit.
        """
        if check_parameters(weights, biases, omegas) is not None:
            raise ValueError("weights: got an axis of networks in front, expected one network")
        return cls((weights[0].shape[1], *(weight.shape[0] for weight in weights)), tuple(float(w) for w in omegas))


def check_parameters(weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> int | None:
    """Raise unless counts, ranks, shapes, dtypes and devices of raw parameters fit; see Network.from_parameters.

    Returns:
        The length of the axis of networks that some weights [G, n_out, n_in] and biases [G, n_out] have in front; None
        where none has it.
    """
    if not len(weights) == len(biases) == len(omegas) + 1:
        raise ValueError(
            f"weights, biases, omegas: got {len(weights)}, {len(biases)} and {len(omegas)} of them, expected as many "
            "biases as weights and one omega fewer (the last layer is linear)"
        )
    if len(weights) < 2:
        raise ValueError("weights: got 1, expected at least 2 (one sine layer and the linear output layer)")
    networks: int | None = None
    for name, group, rank in (("weights", weights, 2), ("biases", biases, 1)):
        for i, tensor in enumerate(group):
            _check_tensor(f"{name}[{i}]", tensor, rank, like=weights[0])
            if tensor.ndim > rank:
                networks = _check_networks(f"{name}[{i}]", tensor, networks)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        n_in, n_out = weights[i - 1].shape[-2], weight.shape[-2]
        if i and weight.shape[-1] != n_in:
            raise ValueError(f"weights[{i}]: got shape {tuple(weight.shape)}, expected (.., {n_in})")
        if bias.shape[-1] != n_out:
            raise ValueError(f"biases[{i}]: got shape {tuple(bias.shape)}, expected ({n_out},)")
    return networks


def _check_networks(name: str, tensor: Tensor, networks: int | None) -> int:
    """Raise unless the axis of networks in front has the length that others have, if any."""
    if networks not in (None, tensor.shape[0]):
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected an axis of {networks} networks in front")
    return tensor.shape[0]


def _check_tensor(name: str, tensor: Tensor, rank: int, *, like: Tensor) -> None:
    """Raise unless `tensor` is floating-point, of dtype and device of `like`, and of `rank` or one dimension more."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: got {described(tensor)}, expected a torch.Tensor")
    if tensor.ndim not in (rank, rank + 1):
        raise ValueError(
            f"{name}: got shape {tuple(tensor.shape)}, expected {rank} dimension{'s' if rank > 1 else ''}, or "
            f"{rank + 1} with an axis of networks in front"
        )
    if not torch.is_floating_point(tensor):
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating-point dtype")
    if tensor.dtype != like.dtype:
        raise TypeError(f"{name}: got dtype {tensor.dtype}, expected {like.dtype} as weights[0]")
    if tensor.device != like.device:
        raise ValueError(f"{name}: got device {tensor.device}, expected {like.device} as weights[0]")


def networks_of(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> int | None:
    """Length of the axis of networks that parameters have in front; None where none of them has it."""
    axes = [*(w.shape[0] for w in weights if w.ndim > 2), *(b.shape[0] for b in biases if b.ndim > 1)]
    return axes[0] if axes else None
