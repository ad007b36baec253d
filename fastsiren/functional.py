"""Stateless functions: a network is given by its parameters, as nn.Linear holds them.

Every function takes coordinates x [..., D] of any leading shape, N = 0 included, and the parameters:

    weights     one [n_out, n_in] per layer
    biases      one [n_out] per layer, None where a layer has no bias
    omegas      one float per sine layer, sin(omega * (W h + b)): one fewer than weights, or as many when the last
                layer is a sine layer too (outermost_linear=False)
    precision   precision of hidden products, None for the one in force (fastsiren.precision)

Many networks at once: any weights may be [G, n_out, n_in] and any biases [G, n_out]; what lacks the axis is shared. x
is then [G, ..., D], or [N, D] or [D] shared by all, results are [G, ..., O], and other arguments broadcast against the
leading shape of the results. `stack` makes such parameters of a list of networks, and `unstack` puts them back.

Results are differentiable in x, in the parameters and in directions, forms, combinations, targets and weights, to any
order, and work under torch.func, forward mode and torch.compile. Calls compute in the dtype of the parameters; x must
have it too, except under autocast, which changes nothing here but that x is cast to it.

NaN or infinity in a point, or in what belongs to it, stays in the results of that point; in a parameter, it reaches
what that parameter is part of, and no other network; sums over points, such as losses and gradients of parameters, have
it too. No call looks for it. What a call was given and is changed in place before backward raises the error of torch.
"""

from collections.abc import Sequence
from math import inf, prod
from typing import NamedTuple

import torch
from torch import Tensor

from .engine import backends, ops
from .engine.arguments import check_tensor, coordinates, layers, per_network
from .engine.composed_loss import KINDS, REDUCTIONS, composed_loss
from .engine.jet import Adjoint, Jet, Sandwich
from .engine.network import check_parameters
from .engine.values import flag, listed, number, one_of
from .stacks import stack as stack
from .stacks import unstack as unstack


def siren(
    x: Tensor,  # [..., D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    *,
    omegas: Sequence[float],
    outermost_linear: bool = True,
    precision: str | None = None,
) -> Tensor:  # [..., O]
    """Evaluate a network.

    Args:
        x: coordinates [..., D].
        weights: one [n_out, n_in] per layer.
        biases: one [n_out] per layer; None, in place of one or of all, means zeros.
        omegas: one float per sine layer.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Returns:
        The values [..., O].

    Raises:
        TypeError: an argument is no tensor, or dtypes differ.
        ValueError: shapes, devices or numbers of layers do not fit.
        RuntimeError: the backend or the precision asked for cannot serve the call.

    Example:
        >>> import torch, fastsiren
        >>> weights = [torch.randn(16, 2) / 2, torch.randn(1, 16) / 16]
        >>> y = fastsiren.functional.siren(torch.rand(4, 5, 2), weights, None, omegas=[30.0])
        >>> y.shape
        torch.Size([4, 5, 1])
    """
    net = _prepare(x, weights, biases, omegas, outermost_linear, precision)
    y = ops.value_fwd(net.rows(), *net.params, backend=net.backend)
    return _unflatten([y], net)[0]


def jet(
    x: Tensor,  # [..., D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    directions: Tensor,  # [K, D] or [..., K, D]
    forms: Tensor | None = None,  # [R, K, K] or [..., R, K, K]
    *,
    omegas: Sequence[float],
    outermost_linear: bool = True,
    precision: str | None = None,
) -> Jet:
    """Evaluate a network, its derivatives along directions, and quadratic forms of second derivatives along them.

    Args:
        x: coordinates [..., D].
        weights: one [n_out, n_in] per layer.
        biases: one [n_out] per layer; None, in place of one or of all, means zeros.
        directions: K directions [K, D], or per point [..., K, D] that broadcasts against the leading shape of x.
        forms: R forms [R, K, K], or per point [..., R, K, K]; their symmetric part counts. None means no forms.
        omegas: one float per sine layer.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Returns:
        value [..., O], first [..., K, O] and second [..., R, O], where second is sum_kj M_kj D_k D_j y.

    Raises:
        TypeError: an argument is no tensor, or dtypes differ.
        ValueError: shapes, devices or numbers of layers do not fit.
        RuntimeError: the backend or the precision asked for cannot serve the call.

    Example:
        >>> import torch, fastsiren
        >>> weights = [torch.randn(16, 2) / 2, torch.randn(1, 16) / 16]
        >>> axes = torch.eye(2)
        >>> laplacian = fastsiren.functional.jet(
        ...     torch.rand(5, 2), weights, None, axes, axes[None], omegas=[30.0]
        ... ).second[..., 0, :]
        >>> laplacian.shape
        torch.Size([5, 1])
    """
    net = _prepare(x, weights, biases, omegas, outermost_linear, precision)
    directions = _seeds("directions", directions, (None, net.x.shape[-1]), net)
    count = directions.shape[-2]
    forms = net.x.new_zeros(0, count, count) if forms is None else _seeds("forms", forms, (None, count, count), net)
    return Jet(*_unflatten(ops.jet_fwd(net.rows(), directions, forms, *net.params, backend=net.backend), net))


def adjoint(
    x: Tensor,  # [..., D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    combinations: Tensor | None = None,  # [C, O] or [..., C, O]
    *,
    omegas: Sequence[float],
    outermost_linear: bool = True,
    precision: str | None = None,
) -> Adjoint:
    """Evaluate a network and, in reverse, the gradients of combinations of its outputs.

    Args:
        x: coordinates [..., D].
        weights: one [n_out, n_in] per layer.
        biases: one [n_out] per layer; None, in place of one or of all, means zeros.
        combinations: C combinations of outputs [C, O], or per point [..., C, O] that broadcasts against the leading
            shape of x. None means every output by itself, C = O.
        omegas: one float per sine layer.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Returns:
        value [..., O] and jacobian [..., C, D].

    Raises:
        TypeError: an argument is no tensor, or dtypes differ.
        ValueError: shapes, devices or numbers of layers do not fit.
        RuntimeError: the backend or the precision asked for cannot serve the call.

    Example:
        >>> import torch, fastsiren
        >>> weights = [torch.randn(16, 2) / 2, torch.randn(3, 16) / 16]
        >>> fastsiren.functional.adjoint(torch.rand(5, 2), weights, None, omegas=[30.0]).jacobian.shape
        torch.Size([5, 3, 2])
    """
    net = _prepare(x, weights, biases, omegas, outermost_linear, precision)
    combinations = _combinations(combinations, net)
    return Adjoint(*_unflatten(ops.adjoint_fwd(net.rows(), combinations, *net.params, backend=net.backend), net))


def sandwich(
    x: Tensor,  # [..., D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    directions: Tensor | None = None,  # [K, D] or [..., K, D]
    combinations: Tensor | None = None,  # [C, O] or [..., C, O]
    *,
    omegas: Sequence[float],
    outermost_linear: bool = True,
    precision: str | None = None,
) -> Sandwich:
    """Evaluate a network, gradients of combinations of its outputs, and all their second derivatives along directions.

    Args:
        x: coordinates [..., D].
        weights: one [n_out, n_in] per layer.
        biases: one [n_out] per layer; None, in place of one or of all, means zeros.
        directions: K directions [K, D], or per point [..., K, D] that broadcasts against the leading shape of x.
            None means the axes, K = D.
        combinations: C combinations of outputs [C, O], or per point [..., C, O]. None means every output, C = O.
        omegas: one float per sine layer.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Returns:
        value [..., O], jacobian [..., C, D] and hessian [..., C, K, K].

    Raises:
        TypeError: an argument is no tensor, or dtypes differ.
        ValueError: shapes, devices or numbers of layers do not fit.
        RuntimeError: the backend or the precision asked for cannot serve the call.

    Example:
        >>> import torch, fastsiren
        >>> weights = [torch.randn(16, 2) / 2, torch.randn(1, 16) / 16]
        >>> fastsiren.functional.sandwich(torch.rand(5, 2), weights, None, omegas=[30.0]).hessian.shape
        torch.Size([5, 1, 2, 2])
    """
    net = _prepare(x, weights, biases, omegas, outermost_linear, precision)
    inputs = net.x.shape[-1]
    if directions is None:
        directions = torch.eye(inputs, dtype=net.x.dtype, device=net.x.device)
    else:
        directions = _seeds("directions", directions, (None, inputs), net)
    combinations = _combinations(combinations, net)
    results = ops.sandwich_fwd(net.rows(), directions, combinations, *net.params, backend=net.backend)
    return Sandwich(*_unflatten(results, net))


def loss(
    kind: str,
    x: Tensor,  # [..., D]
    target: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    *,
    omegas: Sequence[float],
    weight: Tensor | None = None,  # [...]
    reduction: str = "mean",
    outermost_linear: bool = True,
    precision: str | None = None,
) -> Tensor:  # [], or [G]
    """A loss on a network; where only parameters are differentiated, their gradients come out of the same pass.

    Args:
        kind: "value", sum_no w_n (y_no - t_no)^2; "gradient", sum_no w_n |J_no - t_no|^2; "laplacian",
            sum_no w_n (Lap_no - t_no)^2; or "eikonal", sum_no w_n (|J_no| - 1)^2.
        x: coordinates [..., D].
        target: t, [..., O] or for "gradient" [..., O, D]; None for "eikonal".
        weights: one [n_out, n_in] per layer.
        biases: one [n_out] per layer; None, in place of one or of all, means zeros.
        omegas: one float per sine layer.
        weight: w, one number per point [...]; None means 1.
        reduction: "mean" divides by N O, "sum" does not, both over all networks; "per_network" is the mean of each.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Returns:
        The loss, a scalar; [G] for "per_network" of G networks.

    Raises:
        TypeError: an argument is no tensor, or dtypes differ.
        ValueError: shapes, devices or numbers of layers do not fit, or a name is not known.
        RuntimeError: the backend or the precision asked for cannot serve the call.

    Example:
        >>> import torch, fastsiren
        >>> weights = [torch.randn(16, 2) / 2, torch.randn(1, 16) / 16]
        >>> x, target = torch.rand(5, 2), torch.rand(5, 1)
        >>> loss = fastsiren.functional.loss("value", x, target, weights, None, omegas=[30.0])
        >>> y = fastsiren.functional.siren(x, weights, None, omegas=[30.0])
        >>> torch.allclose(loss, (y - target).square().mean(), rtol=1e-4)
        True
    """
    one_of("kind", kind, KINDS)
    one_of("reduction", reduction, REDUCTIONS)
    net = _prepare(x, weights, biases, omegas, outermost_linear, precision)
    target = _target(kind, target, net)
    weight = None if weight is None else _per_point("weight", weight, (), net)
    others = [tensor for tensor in (net.x, target, weight) if tensor is not None]
    # Each network by itself: a mean of means is the mean, as all have as many points.
    each = "sum" if reduction == "sum" else "mean"
    if ops.fusible() and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in others)):
        x = net.rows_once()
        found = ops.loss_fwd(kind, x, target, weight, *net.params, reduction=each, backend=net.backend)
    else:
        found = composed_loss(kind, ops.table(net.backend), net.rows(), target, weight, *net.params, reduction=each)
    if found.ndim == 0 or reduction == "per_network":
        return found
    return found.mean() if reduction == "mean" else found.sum()


class _Network(NamedTuple):
    """Arguments of a call after the checks."""

    x: Tensor
    """As given; networks may share them."""
    leading: tuple[int, ...]
    """Leading shape of the results."""
    params: tuple[list[Tensor], list[Tensor], list[float]]
    backend: str

    def rows(self) -> Tensor:
        """Points of all networks, [N, D]."""
        if self.x.ndim == 2 and len(self.leading) == 1:
            return self.x
        return self.x.expand(*self.leading, -1).reshape(prod(self.leading), self.x.shape[-1])

    def rows_once(self) -> Tensor:
        """The same, but [1, N / G, D] where G networks share the points."""
        count = prod(self.x.shape[:-1])
        return self.rows() if count == prod(self.leading) else self.x.reshape(1, count, self.x.shape[-1])


def _prepare(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None] | None,
    omegas: Sequence[float],
    outermost_linear: bool,
    precision: str | None,
) -> _Network:
    """Check the arguments that all functions share, complete the parameters and choose the backend."""
    weights, full = layers(weights, biases)
    omegas = listed("omegas", omegas, "floats")
    if not flag("outermost_linear", outermost_linear) and len(weights):
        # A weight of too few dimensions is refused below, by its name.
        identity = torch.eye(prod(weights[-1].shape[-2:-1]), dtype=weights[-1].dtype, device=weights[-1].device)
        weights, full = [*weights, identity], [*full, identity.new_zeros(identity.shape[0])]
    networks = check_parameters(weights, full, omegas)
    if any(isinstance(omega, Tensor) for omega in omegas):
        # Made a number, it would lose its gradient without a word.
        raise TypeError("omegas: got a torch.Tensor, expected floats; a learned frequency is a factor on W and b")
    factors = [number("omegas", omega) for omega in omegas]
    # A comparison, which NaN fails: the compiler cannot trace math.isfinite of a number that it keeps symbolic.
    if not all(abs(factor) < inf for factor in factors):
        raise ValueError(f"omegas: got {factors}, expected finite numbers")
    x = coordinates(x, weights[0])
    backend = backends.resolve(None, x.device, x.dtype, precision)
    return _Network(x, tuple(per_network(x, networks).shape[:-1]), (weights, full, factors), backend)


def _unflatten(results: Sequence[Tensor], net: _Network) -> Sequence[Tensor]:
    """Give rows of points their leading shape back."""
    if len(net.leading) == 1:
        return results
    return [result.reshape(*net.leading, *result.shape[1:]) for result in results]


def _combinations(given: Tensor | None, net: _Network) -> Tensor:
    outputs = net.params[0][-1].shape[-2]
    if given is None:
        return torch.eye(outputs, dtype=net.x.dtype, device=net.x.device)
    return _seeds("combinations", given, (None, outputs), net)


def _seeds(name: str, given: Tensor, core: tuple[int | None, ...], net: _Network) -> Tensor:
    """Seeds as they are when shared by all points, else broadcast to one per point [N, *core]; None is any size."""
    check_tensor(name, given, like=net.x, of="the parameters")
    split = given.ndim - len(core)
    if split < 0 or any(size not in (None, found) for size, found in zip(core, given.shape[split:])):
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected {_words(core)} or (..., {_words(core)[1:]}")
    if split == 0:
        return given
    return _broadcast(name, given, split, net)


def _per_point(name: str, given: Tensor | None, core: tuple[int, ...], net: _Network) -> Tensor:
    """A tensor [..., *core] with the leading shape of x, or broadcast to it, as rows of points."""
    if given is None:
        raise TypeError(f"{name}: got None, expected a torch.Tensor of shape {(*net.leading, *core)}")
    check_tensor(name, given, like=net.x, of="the parameters")
    split = given.ndim - len(core)
    if split < 0 or tuple(given.shape[split:]) != core:
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected {(*net.leading, *core)}")
    return _broadcast(name, given, split, net)


def _broadcast(name: str, given: Tensor, split: int, net: _Network) -> Tensor:
    core = given.shape[split:]
    if tuple(given.shape[:split]) == net.leading and len(net.leading) == 1:
        return given
    try:
        full = given.broadcast_to((*net.leading, *core))
    except RuntimeError:
        raise ValueError(
            f"{name}: got shape {tuple(given.shape)}, expected leading dimensions that broadcast to {net.leading}"
        ) from None
    return full.reshape(prod(net.leading), *core)


def _target(kind: str, target: Tensor | None, net: _Network) -> Tensor | None:
    """The target of a loss as rows of points; None for the eikonal loss, which has none."""
    outputs, inputs = net.params[0][-1].shape[-2], net.x.shape[-1]
    if kind != "eikonal":
        return _per_point("target", target, (outputs, inputs) if kind == "gradient" else (outputs,), net)
    if target is not None:
        raise ValueError("target: got a tensor, expected None as the eikonal loss compares |J| with 1")
    return None


def _words(core: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in core)})"
