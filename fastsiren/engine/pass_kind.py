"""What a pass is: its call, its operands and results, and how it runs for one network and for many.

Many networks are one call: any weight may be [G, n_out, n_in] and any bias [G, n_out], what lacks the axis is shared.
A backend whose module says TAKES_NETWORKS = True gets such a call whole, with G >= 1; for any other it is a loop over
the networks. The functions of such a backend take

    weights, biases     all with the axis of networks, shared ones as views of stride 0 along it
    x, cotangents, ..   [G n, ..]: n rows for each network, those of one together
    x of loss_fwd       may also be [1, n, D]: points that all networks share
    seeds               shared by all points of all networks, or one per point [G n, ..]

and return rows [G n, ..], cotangents of shared seeds summed over all rows, cotangents of parameters [G, ..] and losses
[G]. Cotangents of shared parameters are added here. A network's results do not depend on its neighbours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference
from .network import networks_of

Tensors = tuple[Any, ...]
"""Flat tensors of a call; an optional operand that is not given is None."""


class Tape:
    """What a forward pass leaves for its backward pass, which would compute it again.

    A backend whose module says KEEPS_TAPES = True takes one, as `tape`, in its passes of values and jets: the forward
    pass fills it where that is worth the memory. Results are the same bits with it and without.
    """

    def __init__(self, numbers: Tensor | None = None) -> None:
        self.numbers = numbers


class Call(NamedTuple):
    """What a call is, apart from its tensors."""

    layers: int
    """How many weights there are, the linear output layer included."""
    omegas: tuple[float, ...]
    backend: str
    options: tuple[Any, ...] = ()
    """Values of the options that the pass names."""
    tape: Tape | None = None
    """That of this forward pass, or of the forward pass that this is the backward pass of."""

    def extras(self) -> dict[str, Any]:
        """Arguments of a backend's function beyond those that all calls have."""
        return {} if self.tape is None else {"tape": self.tape}


class Operand(NamedTuple):
    """A tensor that a pass takes besides the parameters."""

    name: str
    core: int
    """Dimensions that one point has: 1 for x [N, D], 2 for directions [K, D] or [N, K, D]."""
    seed: bool = False
    """May be shared by all points, then without the dimension N."""
    optional: bool = False


class Result(NamedTuple):
    """A tensor that a pass returns."""

    shape: tuple[int, ...]
    operand: int | None = None
    """Index of the operand that it is a cotangent of; None for values and for cotangents of parameters."""
    summed: bool = False
    """Summed over all points."""

    def of_networks(self, found: Tensor) -> Tensor:
        """What several networks give together: of shared parameters, the sum over the axis in front."""
        return found if found.ndim == len(self.shape) else found.sum(0)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The same from the result of each: rows follow one another."""
        return self.of_networks(torch.stack(list(parts))) if self.summed else torch.cat(list(parts))


class Needs(NamedTuple):
    """Which derivatives are asked for."""

    operands: tuple[bool, ...]
    weights: bool
    biases: bool
    cotangents: bool = False
    """Those of the cotangents of parameters, which only value_bwdbwd has."""

    @property
    def parameters(self) -> bool:
        """Whether any of them is asked for."""
        return self.weights or self.biases


class Arguments(NamedTuple):
    """The flat tensors of a call, taken apart."""

    operands: Tensors
    weights: Tensors
    biases: Tensors
    cotangents: Tensors


Dispatch = Callable[["Pass", Call, Tensors], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Pass:
    """One pass over the whole network; subclasses say what is run and derived."""

    name: str
    operands: tuple[Operand, ...]
    options: tuple[str, ...] = ()
    """Schema of each option, such as "bool need_x"."""
    returns: str = "Tensor[]"
    """Schema of the results."""
    has_tape: bool = False
    """Whether backends that keep tapes keep one of this pass."""

    has_cotangents = False
    saves_results = False

    def split(self, call: Call, args: Tensors) -> Arguments:
        """Take the flat tensors of a call apart."""
        k, n = len(self.operands), call.layers
        return Arguments(args[:k], args[k : k + n], args[k + n : k + 2 * n], args[k + 2 * n :])

    def run(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend, for one network or many."""
        count = self.networks(call, args)
        if count is None:
            return self.compute(backend, call, args)
        if not count:
            return tuple(args[-1].new_zeros(field.shape) for field in self.results(call, args))
        run = at_once if getattr(backend, "TAKES_NETWORKS", False) else one_by_one
        return run(self, backend, call, args, count)

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Hand the tensors to the functions of a backend, as they are."""
        raise NotImplementedError

    def networks(self, call: Call, args: Tensors) -> int | None:
        """Length of the axis of networks that parameters have in front; None where none of them has it."""
        _, weights, biases, _ = self.split(call, args)
        return networks_of(weights, biases)

    def results(self, call: Call, args: Tensors) -> list[Result]:
        """Shapes of the results, and what they are."""
        raise NotImplementedError

    def vjp(
        self, call: Call, args: Tensors, saved: Tensors, bars: Tensors, needs: Needs, dispatch: Dispatch
    ) -> Tensors:
        """Cotangents of the flat tensors, None for those that are not needed.

        Args:
            call: the call.
            args: its tensors.
            saved: its results, where the pass saves them.
            bars: cotangents of its results; None is zero.
            needs: which derivatives are asked for.
            dispatch: starts another pass.
        """
        return plain_vjp(self, call, args, bars, needs)


def parameter_cores(call: Call, count: int) -> list[int]:
    """Dimensions that weights, biases and the cotangents of some of them have for one network, `count` in all."""
    both = [*[2] * call.layers, *[1] * call.layers]
    # Cotangents of the biases may be all that there are.
    return [*both, *both[2 * len(both) - count :]]


def at_once(which: Pass, backend: Any, call: Call, args: Tensors, count: int) -> tuple[Tensor, ...]:
    """Results of a pass for `count` networks by a backend that takes them in one call."""
    k = len(which.operands)
    given = zip(args[k:], parameter_cores(call, len(args) - k), strict=True)
    full = (tensor if tensor.ndim > core else tensor.expand(count, *tensor.shape) for tensor, core in given)
    results = which.compute(backend, call, (*args[:k], *full))
    return tuple(field.of_networks(found) for field, found in zip(which.results(call, args), results, strict=True))


def one_by_one(which: Pass, backend: Any, call: Call, args: Tensors, count: int) -> tuple[Tensor, ...]:
    """The same by one that takes a single network."""
    k = len(which.operands)
    cores = parameter_cores(call, len(args) - k)

    def own(i: int, network: int) -> Any:
        arg = args[i]
        if i >= k:
            return arg if arg.ndim == cores[i - k] else arg[network]
        operand = which.operands[i]
        if arg is None or (operand.seed and arg.ndim == operand.core):
            return arg
        if arg.ndim == operand.core + 2:
            # Points that the networks share.
            return arg[0]
        size = arg.shape[0] // count
        return arg[network * size : (network + 1) * size]

    parts = [which.compute(backend, call, tuple(own(i, g) for i in range(len(args)))) for g in range(count)]
    return tuple(field.joined(column) for field, column in zip(which.results(call, args), zip(*parts, strict=True)))


def plain_vjp(which: Pass, call: Call, args: Tensors, bars: Tensors, needs: Needs) -> Tensors:
    """Vector-Jacobian product of a pass in plain torch, itself differentiable to any order."""
    parts = which.split(call, args)
    flags = [*needs.operands, *[needs.weights] * call.layers, *[needs.biases] * call.layers]
    flags += [needs.cotangents] * len(parts.cotangents)
    picked = [i for i, flag in enumerate(flags) if flag and args[i] is not None]
    given = [i for i, bar in enumerate(bars) if bar is not None]

    def formula(*inputs: Tensor) -> tuple[Tensor, ...]:
        full = list(args)
        for i, tensor in zip(picked, inputs):
            full[i] = tensor
        results = which.run(reference, call, tuple(full))
        return tuple(results[i] for i in given)

    found: list[Tensor | None] = [None] * len(args)
    if picked and given:
        pull = torch.func.vjp(formula, *(args[i] for i in picked))[1]
        for i, bar in zip(picked, pull(tuple(bars[i] for i in given))):
            found[i] = bar
    return tuple(found)
