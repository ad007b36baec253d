"""Public operators: value and derivatives of a network with respect to its inputs, each in one fused pass.

Every result is an ordinary output, differentiable in the coordinates, the parameters and the weights or directions of
the operator. `net` is a fastsiren.Siren or any module with a method `siren_parameters` (fastsiren.engine.network).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from . import functional
from .engine import backends
from .engine.arguments import axis_weights, coordinates, direction, input_axes, unpack
from .engine.jet import (
    Adjoint,
    Jet,
    Merged,
    Request,
    Sandwich,
    axis_directions,
    merge,
    pair_forms,
    parse_derivatives,
)
from .engine.network import Network, Parameters, SirenModule
from .engine.plan import Engine, choose, describe, is_fused_loss, read_request


class ValueAndJacobian(NamedTuple):
    """Result of value_and_jacobian."""

    value: Tensor
    """[..., O]"""
    jacobian: Tensor
    """[..., O, D]"""


class Laplacian(NamedTuple):
    """Result of laplacian."""

    value: Tensor
    """[..., O]"""
    jacobian: Tensor
    """[..., O, D]"""
    laplacian: Tensor
    """[..., O]"""


class Hessian(NamedTuple):
    """Result of hessian."""

    value: Tensor
    """[..., O]"""
    jacobian: Tensor
    """[..., O, D]"""
    hessian: Tensor
    """[..., O, d, d] for the d inputs asked for."""


class Directional(NamedTuple):
    """Result of directional."""

    value: Tensor
    """[..., O]"""
    first: Tensor
    """[..., O]: D_v y."""
    second: Tensor
    """[..., O]: D_u D_v y."""


def value_and_jacobian(net: SirenModule, x: Tensor, *, algorithm: str | None = None) -> ValueAndJacobian:
    """Evaluate the network and its Jacobian.

    Args:
        net: the network.
        x: coordinates [..., D].
        algorithm: "T" or "A" forces an engine; None takes the cheapest. The numbers are the same.

    Raises:
        TypeError: `net` is no SIREN, or `x` no tensor of the parameters' dtype.
        ValueError: `x` has another last dimension than D, or the algorithm cannot serve this.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 3)
        >>> x = torch.rand(5, 2, requires_grad=True)
        >>> value, jacobian = fastsiren.value_and_jacobian(net, x)
        >>> (grad,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
        >>> torch.allclose(jacobian[:, 1], grad, rtol=1e-3, atol=1e-4)
        True
    """
    params, x = _open(net, x)
    n_in, n_out = _sizes(params)
    engine = choose(Request(directions=n_in, outputs=n_out), algorithm).engine
    if engine is Engine.A:
        adjoint = _adjoint(params, x)
        return ValueAndJacobian(adjoint.value, adjoint.jacobian)
    jet = _jet(params, x, axis_directions(range(n_in), n_in, x))
    return ValueAndJacobian(jet.value, jet.first.mT)


def laplacian(
    net: SirenModule,
    x: Tensor,
    *,
    dims: Sequence[int] | None = None,
    weights: Tensor | Sequence[float] | None = None,
    algorithm: str | None = None,
) -> Laplacian:
    """Evaluate the network, its Jacobian and, for each output, a weighted sum of its pure second derivatives.

    Without weights this is the Laplacian over `dims`; weights of any sign give every diagonal operator of second order:
    u_tt - c^2 (u_xx + u_yy) has weights (1, -c^2, -c^2).

    Args:
        net: the network.
        x: coordinates [..., D].
        dims: the d inputs in the sum; None means all of them.
        weights: one per entry of dims, [d] for all points or [..., d] per point; they may require gradients.
        algorithm: "T" or "TxA" forces an engine; None takes the cheapest. The numbers are the same.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: `x`, `dims` or `weights` do not fit the network, or the algorithm cannot serve this.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(3, 16, 1, 1)
        >>> x = torch.rand(5, 3)
        >>> value, jacobian, wave = fastsiren.laplacian(net, x, weights=[1.0, -4.0, -4.0])
        >>> hessian = fastsiren.hessian(net, x).hessian[:, 0]
        >>> expected = hessian[:, 0, 0] - 4 * hessian[:, 1, 1] - 4 * hessian[:, 2, 2]
        >>> torch.allclose(wave[:, 0], expected, rtol=1e-3, atol=0.1)
        True
    """
    params, x = _open(net, x)
    n_in, n_out = _sizes(params)
    axes = input_axes(dims, n_in)
    weight = axis_weights(weights, x, len(axes))
    engine = choose(Request(n_in, len(axes), 1, n_out), algorithm).engine
    along = axis_directions(axes, n_in, x)  # [d, D]
    if engine is Engine.TXA:
        sandwich = _sandwich(params, x, along)
        curvature = sandwich.hessian.diagonal(dim1=-2, dim2=-1)  # [..., O, d]
        terms = curvature if weight is None else curvature * weight.unsqueeze(-2)
        return Laplacian(sandwich.value, sandwich.jacobian, terms.sum(-1))
    # Not a matrix product: that may run in TF32 and round the weights.
    diagonal = along.sum(-2) if weight is None else (weight.unsqueeze(-1) * along).sum(-2)  # [D] or [..., D]
    form = torch.diag_embed(diagonal).unsqueeze(-3)  # [1, D, D] or [..., 1, D, D]
    jet = _jet(params, x, axis_directions(range(n_in), n_in, x), form)
    return Laplacian(jet.value, jet.first.mT, jet.second.squeeze(-2))


def hessian(net: SirenModule, x: Tensor, *, dims: Sequence[int] | None = None, algorithm: str | None = None) -> Hessian:
    """Evaluate the network, its Jacobian and its Hessian.

    Args:
        net: the network.
        x: coordinates [..., D].
        dims: the d inputs between which second derivatives are taken; None means all of them.
        algorithm: "T" or "TxA" forces an engine; None takes the cheapest. The numbers are the same.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: `x` or `dims` do not fit the network, or the algorithm cannot serve this.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(3, 16, 1, 2)
        >>> value, jacobian, hessian = fastsiren.hessian(net, torch.rand(5, 3), dims=[0, 2])
        >>> jacobian.shape, hessian.shape
        (torch.Size([5, 2, 3]), torch.Size([5, 2, 2, 2]))
    """
    params, x = _open(net, x)
    n_in, n_out = _sizes(params)
    axes = input_axes(dims, n_in)
    d = len(axes)
    engine = choose(Request(n_in, d, d * (d + 1) // 2, n_out), algorithm).engine
    if engine is Engine.TXA:
        sandwich = _sandwich(params, x, axis_directions(axes, n_in, x))
        return Hessian(sandwich.value, sandwich.jacobian, sandwich.hessian)
    pairs = [(k, j) for k in range(d) for j in range(k, d)]
    forms = pair_forms([(axes[k], axes[j]) for k, j in pairs], n_in, x)
    jet = _jet(params, x, axis_directions(range(n_in), n_in, x), forms)
    entries = [jet.second[..., pairs.index((min(k, j), max(k, j))), :] for k in range(d) for j in range(d)]
    return Hessian(jet.value, jet.first.mT, torch.stack(entries, -1).unflatten(-1, (d, d)))


def directional(
    net: SirenModule, x: Tensor, v: Tensor, u: Tensor | None = None, *, algorithm: str | None = None
) -> Directional:
    """Evaluate the network and its derivatives D_v y and D_u D_v y along directions.

    Args:
        net: the network.
        x: coordinates [..., D].
        v: direction [D] for all points, or one per point, broadcast to [..., D]; used as it is, not normalised.
        u: second direction, likewise; None means v.
        algorithm: "T" or "TxA" forces an engine; None takes the cheapest. The numbers are the same.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: `x`, `v` or `u` do not fit the network, or the algorithm cannot serve this.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> x = torch.rand(5, 2)
        >>> value, first, second = fastsiren.directional(net, x, torch.tensor([0.0, 1.0]))
        >>> torch.allclose(first, fastsiren.value_and_jacobian(net, x).jacobian[..., 1], rtol=1e-3, atol=1e-4)
        True
    """
    params, x = _open(net, x)
    along = [direction("v", v, x)] + ([] if u is None else [direction("u", u, x)])
    count = len(along)
    engine = choose(Request(count, count, 1, _sizes(params)[1]), algorithm).engine
    directions = torch.stack(torch.broadcast_tensors(*along), -2)  # [K, D] or [..., K, D]
    if engine is Engine.TXA:
        sandwich = _sandwich(params, x, directions)
        first = (sandwich.jacobian * directions[..., :1, :]).sum(-1)
        return Directional(sandwich.value, first, sandwich.hessian[..., 0, -1])
    jet = _jet(params, x, directions, pair_forms([(0, count - 1)], count, x))
    return Directional(jet.value, jet.first[..., 0, :], jet.second[..., 0, :])


def derivatives(
    net: SirenModule,
    x: Tensor,
    names: Sequence[str],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    algorithm: str | None = None,
) -> dict[str, Tensor]:
    """Evaluate derivatives by name, all in one pass.

    Args:
        net: the network.
        x: coordinates [..., D].
        names: such as "u" (the value), "u__t" or "u__x__y" (the derivative along x and y), up to second order.
        inputs: name of each of the D inputs; a string names each by one letter.
        outputs: name of each of the O outputs; likewise.
        algorithm: "T", "A" (first order) or "TxA" (second order) forces an engine; None takes the cheapest.

    Returns:
        The derivative of each name, [..., 1].

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: a name cannot be read, names do not fit the network, or the algorithm cannot serve this.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> d = fastsiren.derivatives(net, torch.rand(5, 2), ["u", "u__t", "u__x__x"], inputs="tx", outputs="u")
        >>> burgers = d["u__t"] + d["u"] - 0.01 * d["u__x__x"]
        >>> burgers.shape
        torch.Size([5, 1])
    """
    params, x = _open(net, x)
    parsed = parse_derivatives(names, inputs, outputs)
    for argument, given, expected in zip(("inputs", "outputs"), (inputs, outputs), _sizes(params), strict=True):
        if len(given) != expected:
            raise ValueError(f"{argument}: got {len(given)} names, expected {expected} as the network has")
    merged = merge(parsed)
    look = _PASSES[choose(merged.request, algorithm).engine](params, x, merged)
    return {name: look(output, axes).unsqueeze(-1) for name, output, axes in parsed}


# Finds the derivative of an output along zero, one or two inputs in the results of a pass.
_Look = Callable[[int, tuple[int, ...]], Tensor]


def _value_pass(params: Parameters, x: Tensor, merged: Merged) -> _Look:
    value = functional.siren(x, params.weights, params.biases, **_options(params))
    return lambda output, axes: value[..., output]


def _jet_pass(params: Parameters, x: Tensor, merged: Merged) -> _Look:
    forms = None
    if merged.pairs:
        local = [(merged.axes.index(k), merged.axes.index(j)) for k, j in merged.pairs]
        forms = pair_forms(local, len(merged.axes), x)
    value, first, second = _jet(params, x, axis_directions(merged.axes, x.shape[-1], x), forms)

    def look(output: int, axes: tuple[int, ...]) -> Tensor:
        if len(axes) == 2:
            return second[..., merged.pairs.index((axes[0], axes[1])), output]
        return first[..., merged.axes.index(axes[0]), output] if axes else value[..., output]

    return look


def _adjoint_pass(params: Parameters, x: Tensor, merged: Merged) -> _Look:
    value, jacobian = _adjoint(params, x, axis_directions(merged.outputs, _sizes(params)[1], x))

    def look(output: int, axes: tuple[int, ...]) -> Tensor:
        return jacobian[..., merged.outputs.index(output), axes[0]] if axes else value[..., output]

    return look


def _sandwich_pass(params: Parameters, x: Tensor, merged: Merged) -> _Look:
    combinations = axis_directions(merged.outputs, _sizes(params)[1], x)
    value, jacobian, second = _sandwich(params, x, axis_directions(merged.curved, x.shape[-1], x), combinations)

    def look(output: int, axes: tuple[int, ...]) -> Tensor:
        if not axes:
            return value[..., output]
        row = merged.outputs.index(output)
        if len(axes) == 2:
            return second[..., row, merged.curved.index(axes[0]), merged.curved.index(axes[1])]
        return jacobian[..., row, axes[0]]

    return look


_PASSES = {Engine.VALUE: _value_pass, Engine.T: _jet_pass, Engine.A: _adjoint_pass, Engine.TXA: _sandwich_pass}


def _open(net: SirenModule, x: Tensor) -> tuple[Parameters, Tensor]:
    """The parameters of a network, and the coordinates once they are known to fit them."""
    params = unpack(net)
    return params, coordinates(x, params.weights[0])


def _sizes(params: Parameters) -> tuple[int, int]:
    """D and O."""
    return params.weights[0].shape[-1], params.weights[-1].shape[-2]


class _Options(TypedDict):
    omegas: list[float]
    outermost_linear: bool
    precision: str | None


def _options(params: Parameters) -> _Options:
    return {
        "omegas": params.omegas,
        "outermost_linear": params.outermost_linear,
        "precision": params.precision,
    }


def _jet(params: Parameters, x: Tensor, directions: Tensor, forms: Tensor | None = None) -> Jet:
    return functional.jet(x, params.weights, params.biases, directions, forms, **_options(params))


def _adjoint(params: Parameters, x: Tensor, combinations: Tensor | None = None) -> Adjoint:
    return functional.adjoint(x, params.weights, params.biases, combinations, **_options(params))


def _sandwich(params: Parameters, x: Tensor, directions: Tensor, combinations: Tensor | None = None) -> Sandwich:
    return functional.sandwich(x, params.weights, params.biases, directions, combinations, **_options(params))


def explain(net: SirenModule, request: str | Sequence[str], *, algorithm: str | None = None) -> str:
    """Say how a request would be served: engine, cost against the alternatives, memory, backend.

    Args:
        net: the network.
        request: "value", "jacobian", "laplacian", "hessian", "directional" or the name of a fused loss, over all inputs
            and outputs; or a list of names as `derivatives` takes it.
        algorithm: the engine to explain; None explains the cheapest.

    Raises:
        TypeError: `net` is no SIREN, or the request is of the wrong type.
        ValueError: the request cannot be read or does not fit the network.

    Example:
        >>> import fastsiren
        >>> net = fastsiren.Siren(2, 256, 3, 3)
        >>> print(fastsiren.explain(net, "hessian", algorithm="TxA").splitlines()[2])
        engine TxA                   6        24     19456 B/point
    """
    params = unpack(net)
    weight, (n_in, n_out) = params.weights[0], _sizes(params)
    # A last sine layer counts as one with an identity behind it, which is how it runs.
    widths = [n_in, *(w.shape[-2] for w in params.weights), *([] if params.outermost_linear else [n_out])]
    network = Network(tuple(widths), tuple(params.omegas))
    counts = read_request(request, n_in, n_out)
    title, fused = request if isinstance(request, str) else ", ".join(request), is_fused_loss(request)
    backend = backends.resolve(None, weight.device, weight.dtype, params.precision)
    backend += f" ({weight.device.type}, {weight.dtype})"
    plan, size = choose(counts, algorithm), weight.element_size()
    return describe(title, counts, network, plan, fused=fused, itemsize=size, backend=backend)
