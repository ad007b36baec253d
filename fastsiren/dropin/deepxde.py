"""Derivatives by index, as DeepXDE's dde.grad has them, for any tensors.

As there, what was computed for y is kept as long as y lives: asking for all entries one by one costs one pass.
Differs: i=None and component=None mean 0 for one output only, and are an error for more.
"""

from numbers import Integral
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from ..engine.values import described
from . import diff_operators
from .graph import check_function, fused, vjp

__all__ = ["hessian", "jacobian"]

_KEPT: WeakIdKeyDictionary = WeakIdKeyDictionary()


def jacobian(y: Tensor, x: Tensor, i: int | None = None, j: int | None = None) -> Tensor:  # [..., 1] or [..., D]
    """Derivative dy_i/dx_j, or the gradient of y_i for j=None.

    Args:
        y: [..., C], computed from x.
        x: [..., D].
        i: channel of y; None means the only one.
        j: coordinate; None means all of them.

    Raises:
        TypeError: y or x is no tensor, or an index no int.
        IndexError: an index is out of range.
        ValueError: i is None and y has several channels, or y or x has no dimension.
        RuntimeError: y or x requires no gradients, or y was not computed from x.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.dropin import deepxde
        >>> x = torch.rand(5, 2, requires_grad=True)
        >>> y = fastsiren.Siren(2, 16, 1, 3)(x)
        >>> deepxde.jacobian(y, x, i=2, j=0).shape, deepxde.hessian(y, x, component=2, i=0, j=1).shape
        (torch.Size([5, 1]), torch.Size([5, 1]))
    """
    check_function(y, x)
    channel = _index("i", i, y)
    full = _fused("jacobian", y, x)
    row = vjp(y[..., channel], x) if full is None else full[..., channel, :]
    return row if j is None else _entry(row, _axis("j", j, x))


def hessian(y: Tensor, x: Tensor, component: int | None = None, i: int = 0, j: int = 0) -> Tensor:  # [..., 1]
    """Second derivative of y_component along x_i and x_j.

    Args:
        y: [..., C], computed from x.
        x: [..., D].
        component: channel of y; None means the only one.
        i: one coordinate.
        j: the other one.

    Raises:
        TypeError: y or x is no tensor, or an index no int.
        IndexError: an index is out of range.
        ValueError: component is None and y has several channels, or y or x has no dimension.
        RuntimeError: y or x requires no gradients, or y was not computed from x.
    """
    check_function(y, x)
    channel, row, column = _index("component", component, y), _axis("i", i, x), _axis("j", j, x)
    full = _fused("hessian", y, x)
    second = vjp(vjp(y[..., channel], x)[..., row], x) if full is None else full[..., channel, row, :]
    return _entry(second, column)


def _entry(row: Tensor, axis: int) -> Tensor:
    return row[..., axis : axis + 1]


def _fused(name: str, y: Tensor, x: Tensor) -> Tensor | None:
    """The whole Jacobian or Hessian from one pass, made when it is first asked for; None where no pass serves y."""
    if fused(y, x) is None:
        return None
    known = _KEPT.setdefault(y, {})
    if name not in known:
        known[name] = getattr(diff_operators, name)(y, x)[0]
    return known[name]


def _index(name: str, given: int | None, y: Tensor) -> int:
    channels = y.shape[-1]
    if given is None and channels > 1:
        raise ValueError(f"{name}: got None for {channels} channels, expected an int in [0, {channels - 1}]")
    return _axis(name, 0 if given is None else given, y)


def _axis(name: str, given: Any, tensor: Tensor) -> int:
    size = tensor.shape[-1]
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"{name}: got {described(given)}, expected an int in [{-size}, {size - 1}]")
    if not -size <= int(given) < size:
        raise IndexError(f"{name}: got {given}, expected an int in [{-size}, {size - 1}]")
    return int(given) % size
