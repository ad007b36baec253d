"""The one abstraction of the engine: what is derived along which directions, and the results that come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .values import described


class Jet(NamedTuple):
    """Result of engine T: value, first derivatives along K directions, R second-order forms."""

    value: Tensor
    """[..., O]"""
    first: Tensor
    """[..., K, O]: D_v y along each direction v."""
    second: Tensor
    """[..., R, O]: sum_kj M_kj D_k D_j y for each form M."""


class Adjoint(NamedTuple):
    """Result of engine A: value and reverse Jacobian of C combinations of the outputs."""

    value: Tensor
    """[..., O]"""
    jacobian: Tensor
    """[..., C, D]"""


class Sandwich(NamedTuple):
    """Result of engine TxA: value, reverse Jacobian and all second derivatives between K directions."""

    value: Tensor
    """[..., O]"""
    jacobian: Tensor
    """[..., C, D]"""
    hessian: Tensor
    """[..., C, K, K]: v_k^T Hess(E_c . y) v_j."""


@dataclass(frozen=True)
class Request:
    """What a call wants, in the counts that decide its cost (math.md section 5).

    Args:
        directions: K1, directions along which any derivative is taken; 0 asks for the value alone.
        curved: K2, those of them that enter a second-order form.
        forms: R, quadratic forms wanted; 0 stays at first order.
        outputs: C, outputs that are differentiated.
    """

    directions: int = 0
    curved: int = 0
    forms: int = 0
    outputs: int = 1

    def __post_init__(self) -> None:
        if min(self.directions, self.curved, self.forms) < 0 or self.outputs < 1:
            raise ValueError(f"request: got {self}, expected counts >= 0 and outputs >= 1")
        if self.curved > self.directions:
            raise ValueError(f"curved: got {self.curved}, expected at most directions = {self.directions}")
        if (self.curved > 0) != (self.forms > 0):
            raise ValueError(f"forms: got {self.forms} with curved = {self.curved}, expected both zero or both not")

    @property
    def order(self) -> int:
        """Highest derivative: 0, 1 or 2."""
        return 2 if self.forms else int(self.directions > 0)


class Derivative(NamedTuple):
    """One derivative by name: "u__x__t" is output u, derived along x and t."""

    name: str
    output: int
    """Index of the output."""
    axes: tuple[int, ...]
    """Sorted indices of the inputs: none for the value, one or two for a derivative."""


def parse_derivatives(names: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> list[Derivative]:
    """Read names such as "u", "u__t" or "u__x__y", given what inputs and outputs are called.

    Raises:
        TypeError: `names`, `inputs` or `outputs` hold something else than strings.
        ValueError: an output or input is not known, a name occurs twice, or an order above two is asked for.
    """
    if isinstance(names, str):
        raise TypeError(f"names: got the string {names!r}, expected a list of names such as ['u', 'u__x']")
    for argument, given in (("names", names), ("inputs", inputs), ("outputs", outputs)):
        _check_names(argument, given)
    return [_parse(name, list(inputs), list(outputs)) for name in names]


def _check_names(argument: str, names: Sequence[str]) -> None:
    if not isinstance(names, Sequence):
        raise TypeError(f"{argument}: got {described(names)}, expected a list of names")
    if not len(names):
        raise ValueError(f"{argument}: got none, expected at least one name")
    for name in names:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{argument}: got {described(name)}, expected non-empty strings")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument}: got {list(names)}, expected every name once")


def _parse(name: str, inputs: list[str], outputs: list[str]) -> Derivative:
    output, *along = name.split("__")
    if output not in outputs:
        raise ValueError(f"names: got {name!r} with the unknown output {output!r}, expected one of {outputs}")
    for axis in along:
        if axis not in inputs:
            raise ValueError(f"names: got {name!r} with the unknown input {axis!r}, expected one of {inputs}")
    if len(along) > 2:
        raise ValueError(f"names: got {name!r} of order {len(along)}, expected order 0, 1 or 2")
    return Derivative(name, outputs.index(output), tuple(sorted(inputs.index(axis) for axis in along)))


class Merged(NamedTuple):
    """What one pass has to deliver for a list of derivatives; all sorted, each once."""

    axes: list[int]
    """Inputs along which anything is derived."""
    curved: list[int]
    """Inputs that occur in a second derivative."""
    pairs: list[tuple[int, int]]
    """Pairs of inputs of the second derivatives."""
    outputs: list[int]
    """Outputs that are derived."""

    @property
    def request(self) -> Request:
        """The counts of it."""
        return Request(len(self.axes), len(self.curved), len(self.pairs), max(1, len(self.outputs)))


def merge(derivatives: Sequence[Derivative]) -> Merged:
    """Gather everything that a list of derivatives needs into one pass."""
    derived = [derivative for derivative in derivatives if derivative.axes]
    pairs = {(derivative.axes[0], derivative.axes[1]) for derivative in derived if len(derivative.axes) == 2}
    return Merged(
        axes=sorted({axis for derivative in derived for axis in derivative.axes}),
        curved=sorted({axis for pair in pairs for axis in pair}),
        pairs=sorted(pairs),
        outputs=sorted({derivative.output for derivative in derived}),
    )


def axis_directions(axes: Sequence[int], size: int, like: Tensor) -> Tensor:  # [K, size]
    """Unit vectors along `axes` of a space of `size` dimensions, in the dtype and on the device of `like`."""
    identity = torch.eye(size, dtype=like.dtype, device=like.device)
    if list(axes) == list(range(size)):
        return identity
    # Indexing by a list would copy from the host, which a CUDA graph cannot capture.
    return torch.stack([identity[axis] for axis in axes])


def pair_forms(pairs: Sequence[tuple[int, int]], count: int, like: Tensor) -> Tensor:  # [R, count, count]
    """One symmetric form per pair (k, j) of `count` directions, whose result is D_k D_j."""
    left = axis_directions([k for k, _ in pairs], count, like)  # [R, count]
    right = axis_directions([j for _, j in pairs], count, like)
    form = left[:, :, None] * right[:, None, :]
    return (form + form.mT) / 2
