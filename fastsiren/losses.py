"""Fused losses: the loss and its parameter gradients in one pass over the points, so nothing is kept for backward.

N points, O outputs, D inputs; w are the weights of the points, 1 when not given; a mean divides by N O. `net` is a
fastsiren.Siren, any module with a method `siren_parameters` (fastsiren.engine.network), or many networks as
`fastsiren.functional.stack` puts them together: coordinates are then [N, D] shared by all, or [G, ..., D], targets and
weights have the axis of networks in front, and the reduction "per_network" gives the mean of each, [G].
"""

from torch import Tensor

from . import functional
from .engine.arguments import check_tensor, coordinates, per_network, unpack
from .engine.network import SirenModule, networks_of


def value_mse(
    net: SirenModule, x: Tensor, target: Tensor, *, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Squared error of the value: sum_no w_n (y_no - target_no)^2.

    Args:
        net: the network.
        x: coordinates [..., D].
        target: values [..., O].
        weight: one number per point, [...]; None means 1.
        reduction: "mean" divides by N O, "sum" does not; "per_network" is the mean of each of many networks.

    Returns:
        The loss, a scalar; [G] for "per_network" of G networks.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: a shape does not fit, or the reduction is unknown.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 3)
        >>> x, target = torch.rand(5, 2), torch.rand(5, 3)
        >>> loss = fastsiren.losses.value_mse(net, x, target)
        >>> torch.allclose(loss, (net(x) - target).square().mean())
        True
    """
    return _loss("value", net, x, target, weight=weight, reduction=reduction)


def gradient_mse(
    net: SirenModule, x: Tensor, target: Tensor, *, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Squared error of the Jacobian: sum_no w_n |J_no - target_no|^2, the norm over the D inputs.

    The mean is over points and outputs and not over inputs, as in `gradients_mse` of the authors' code.

    Args:
        net: the network.
        x: coordinates [..., D].
        target: Jacobians [..., O, D].
        weight: one number per point, [...]; None means 1.
        reduction: "mean" divides by N O, "sum" does not; "per_network" is the mean of each of many networks.

    Returns:
        The loss, a scalar; [G] for "per_network" of G networks.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: a shape does not fit, or the reduction is unknown.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> x, target = torch.rand(5, 2), torch.zeros(5, 1, 2)
        >>> loss = fastsiren.losses.gradient_mse(net, x, target)
        >>> jacobian = fastsiren.value_and_jacobian(net, x).jacobian
        >>> torch.allclose(loss, jacobian.square().sum(-1).mean(), rtol=1e-4)
        True
    """
    return _loss("gradient", net, x, target, weight=weight, reduction=reduction)


def laplacian_mse(
    net: SirenModule, x: Tensor, target: Tensor, *, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Squared error of the Laplacian over all inputs: sum_no w_n (Lap_no - target_no)^2.

    Args:
        net: the network.
        x: coordinates [..., D].
        target: Laplacians [..., O].
        weight: one number per point, [...]; None means 1.
        reduction: "mean" divides by N O, "sum" does not; "per_network" is the mean of each of many networks.

    Returns:
        The loss, a scalar; [G] for "per_network" of G networks.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: a shape does not fit, or the reduction is unknown.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> x, target = torch.rand(5, 2), torch.zeros(5, 1)
        >>> loss = fastsiren.losses.laplacian_mse(net, x, target)
        >>> torch.allclose(loss, fastsiren.laplacian(net, x).laplacian.square().mean(), rtol=1e-3)
        True
    """
    return _loss("laplacian", net, x, target, weight=weight, reduction=reduction)


def eikonal(net: SirenModule, x: Tensor, *, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """Deviation of the gradient from unit length: sum_no w_n (|J_no| - 1)^2, the norm over the D inputs.

    Args:
        net: the network.
        x: coordinates [..., D].
        weight: one number per point, [...]; None means 1.
        reduction: "mean" divides by N O, "sum" does not; "per_network" is the mean of each of many networks.

    Returns:
        The loss, a scalar; [G] for "per_network" of G networks.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: a shape does not fit, or the reduction is unknown.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(3, 16, 1, 1)
        >>> x = torch.rand(5, 3)
        >>> loss = fastsiren.losses.eikonal(net, x)
        >>> norm = fastsiren.value_and_jacobian(net, x).jacobian.norm(dim=-1)
        >>> torch.allclose(loss, (norm - 1).square().mean(), rtol=1e-3)
        True
    """
    return _loss("eikonal", net, x, None, weight=weight, reduction=reduction)


def _loss(
    kind: str, net: SirenModule, x: Tensor, target: Tensor | None, *, weight: Tensor | None, reduction: str
) -> Tensor:
    """Check the arguments and run the fused loss of that kind."""
    weights, biases, omegas, outermost_linear, precision = unpack(net)
    x = coordinates(x, weights[0])
    n_out, leading = weights[-1].shape[-2], per_network(x, networks_of(weights, biases)).shape[:-1]
    shape = (*leading, n_out, x.shape[-1]) if kind == "gradient" else (*leading, n_out)
    if kind != "eikonal":
        _check_shape("target", target, x, shape)
    if weight is not None:
        _check_shape("weight", weight, x, leading)
    return functional.loss(
        kind, x, target, weights, biases, omegas=omegas, weight=weight, reduction=reduction,
        outermost_linear=outermost_linear, precision=precision,
    )  # fmt: skip


def _check_shape(name: str, given: Tensor | None, x: Tensor, shape: tuple[int, ...]) -> None:
    if given is None:
        raise TypeError(f"{name}: got None, expected a torch.Tensor of shape {tuple(shape)}")
    check_tensor(name, given, like=x, of="x")
    if given.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected {tuple(shape)}")
