"""What autograd knows of a tensor: whether it is a network evaluated at some coordinates, or the gradient of one.

The node that made a tensor says which pass ran, with which operands, and whether these have been changed since. So
nothing has to be registered, and a tensor that was transformed in any way is not taken for the network's output.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..engine import ops
from ..engine.network import Parameters
from ..engine.passes import PASSES
from ..engine.values import described

# Nodes that leave rows of coordinates as they are, as long as the number of elements stays.
_VIEWS = {
    f"{name}Backward0" for name in ("View", "UnsafeView", "ReshapeAlias", "Expand", "Unsqueeze", "Squeeze", "Clone")
}


class Evaluation(NamedTuple):
    """A network that was evaluated at coordinates."""

    params: Parameters
    y_bar: Tensor | None
    """None for the value y; [..., O] for the gradient of y_bar . y with y_bar a constant."""

    def siren_parameters(self) -> Parameters:
        """The network as it was then."""
        return self.params


def check_function(y: Tensor, x: Tensor, *, least: int = 1, pointwise: bool = False) -> None:
    """Raise unless `y` may be a function of `x`.

    Args:
        y: the value.
        x: coordinates.
        least: how many dimensions each has at least.
        pointwise: whether y has the leading shape of x, or one to which that broadcasts.

    Raises:
        TypeError: one of them is no tensor.
        ValueError: their shapes do not fit.
        RuntimeError: one of them requires no gradients.
    """
    for name, given in (("y", y), ("x", x)):
        if not isinstance(given, Tensor):
            raise TypeError(f"{name}: got {described(given)}, expected a torch.Tensor")
        if given.ndim < least:
            raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected at least {least} dimension")
    for name, given in (("x", x), ("y", y)):
        if not given.requires_grad:
            wanted = "one that did when y was computed" if name == "x" else "one computed from x with gradients on"
            raise RuntimeError(f"{name}: got {described(given)} that requires no gradients, expected {wanted}")
    leading = tuple(x.shape[:-1])
    sizes = zip(reversed(leading), reversed(y.shape[:-1]))
    if pointwise and (x.ndim > y.ndim or any(size not in (1, full) for size, full in sizes)):
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected the leading dimensions {leading} of x")


def evaluation(y: Tensor, x: Tensor) -> Evaluation | None:
    """The network that `y` is the value of at `x`, or a gradient with respect to `x`; None if it is neither.

    Args:
        y: any tensor.
        x: coordinates, a leaf or not.
    """
    if torch.compiler.is_compiling() or not (ops.fusible() and x.requires_grad and y.requires_grad and x.ndim):
        return None
    # A hook sees, and may change, gradients on their way.
    if x._backward_hooks or y._backward_hooks:
        return None
    node, number = _source(y.grad_fn, y.output_nr)
    which = getattr(node, "which", None)
    if number != 0 or which not in (PASSES["value_fwd"], PASSES["value_bwd"]):
        return None
    return _value(node, y, x) if which is PASSES["value_fwd"] else _gradient(node, y, x)


def _value(node: Any, y: Tensor, x: Tensor) -> Evaluation | None:
    if not _comes_from(node.next_functions[0], x):
        return None
    kept = _saved(node)
    if kept is None or y.shape != (*x.shape[:-1], kept[node.call.layers].shape[-2]) or not _same(kept[0], x):
        return None
    return Evaluation(_parameters(node, kept[1:]), None)


def _gradient(node: Any, g: Tensor, x: Tensor) -> Evaluation | None:
    if not node.call.options[0] or g.shape != x.shape or not _comes_from(node.next_functions[1], x):
        return None
    kept = _saved(node)
    if kept is None or kept[0].requires_grad or not _same(kept[1], x):
        return None
    return Evaluation(_parameters(node, kept[2:]), kept[0].reshape(*x.shape[:-1], -1))


def _parameters(node: Any, kept: tuple[Tensor, ...]) -> Parameters:
    layers = node.call.layers
    # The engine names a backend with its precision, which for "fp32" stays unsaid.
    precision = node.call.backend.partition(":")[2] or "fp32"
    return Parameters(list(kept[:layers]), list(kept[layers : 2 * layers]), list(node.call.omegas), precision=precision)


def _saved(node: Any) -> tuple[Tensor, ...] | None:
    try:
        return node.saved_tensors
    except RuntimeError:
        # Freed, or changed in place: autograd, which the caller turns to, raises this with its own words.
        return None


def _source(node: Any, number: int) -> tuple[Any, int]:
    """The node behind any views."""
    while node is not None and node.name() in _VIEWS:
        node, number = node.next_functions[0]
    return node, number


def _comes_from(edge: tuple[Any, int], x: Tensor) -> bool:
    """Whether the tensor at an edge of the graph is `x`, apart from views."""
    target = get_gradient_edge(x)
    node, number = edge
    while node is not None and (node is not target.node or number != target.output_nr):
        if node.name() not in _VIEWS:
            return False
        node, number = node.next_functions[0]
    return node is not None


def _same(rows: Tensor, x: Tensor) -> bool:
    """Whether rows that views made of `x` are its points in their order."""
    return rows.shape[-1] == x.shape[-1] and rows.numel() == x.numel()


def fused(y: Tensor, x: Tensor) -> Evaluation | None:
    """`evaluation` of a value only."""
    found = evaluation(y, x)
    return found if found is not None and found.y_bar is None else None


def vjp(y: Tensor, x: Tensor, y_bar: Tensor | None = None) -> Tensor:
    """Gradient of y_bar . y with respect to `x`, ones where y_bar is None; itself differentiable."""
    seed = torch.ones_like(y) if y_bar is None else y_bar
    (found,) = torch.autograd.grad(y, [x], grad_outputs=seed, create_graph=True, allow_unused=True)
    if found is None:
        raise RuntimeError("y: got a tensor that was not computed from x, expected a function of this very x")
    return found
