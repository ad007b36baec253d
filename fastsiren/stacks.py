"""Networks of one shape as one: their parameters with an axis of networks in front, and the way back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .engine.arguments import unpack
from .engine.network import Parameters, SirenModule, networks_of
from .engine.values import described, listed
from .modulation import Conditioned


def stack(nets: Sequence[SirenModule]) -> Conditioned:
    """Put the parameters of many networks together, so that all are evaluated and trained in one call.

    Args:
        nets: networks with equal widths, omegas, precision, dtype and device, at least one.

    Returns:
        A network of all functions, operators and losses: new tensors, weights [G, n_out, n_in] and biases [G, n_out],
        that require gradients where the parameters of a network do.

    Raises:
        TypeError: an entry is no SIREN.
        ValueError: there are no networks, or they differ in more than the values of their parameters.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.functional import stack, unstack
        >>> nets = [fastsiren.Siren(2, 16, 1, 3) for _ in range(8)]
        >>> every = stack(nets)
        >>> optimizer = torch.optim.Adam([*every.weights, *every.biases], lr=1e-4)
        >>> x, images = torch.rand(50, 2), torch.rand(8, 50, 3)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     losses = fastsiren.losses.value_mse(every, x, images, reduction="per_network")
        ...     losses.sum().backward()
        ...     optimizer.step()
        >>> losses.shape
        torch.Size([8])
        >>> unstack(every, nets)
        >>> torch.equal(nets[3](x), fastsiren.functional.siren(x, *every[:2], omegas=every.omegas)[3])
        True
    """
    found = [unpack(net, f"nets[{i}]") for i, net in enumerate(listed("nets", nets, "networks"))]
    if not found:
        raise ValueError("nets: got none, expected at least one network")
    for i, parameters in enumerate(found):
        _check_alike(f"nets[{i}]", parameters, found[0])
    weights, biases = ([_together(column) for column in zip(*group)] for group in zip(*(each[:2] for each in found)))
    return Conditioned(weights, biases, found[0].omegas, found[0].outermost_linear, found[0].precision)


def unstack(stacked: SirenModule, nets: Sequence[SirenModule]) -> None:
    """Copy the parameters of a stack back into its networks.

    Args:
        stacked: what `stack` returned for networks like these.
        nets: as many networks.

    Raises:
        TypeError: an entry is no SIREN.
        ValueError: numbers or shapes do not fit, or a network computes its parameters, which cannot be set then.
    """
    parts, nets = unpack(stacked, "stacked"), listed("nets", nets, "networks")
    if any(w.ndim == 2 for w in parts.weights) or any(b.ndim == 1 for b in parts.biases):
        raise ValueError("stacked: got one network or shared parameters, expected an axis of networks in all of them")
    if len(parts.weights[0]) != len(nets):
        raise ValueError(f"nets: got {len(nets)}, expected {len(parts.weights[0])} as in the stack")
    own = [
        parts._replace(weights=[w[i] for w in parts.weights], biases=[b[i] for b in parts.biases])
        for i in range(len(nets))
    ]
    found = [unpack(net, f"nets[{i}]") for i, net in enumerate(nets)]
    # Nothing is written before all are known to fit.
    for i, parameters in enumerate(found):
        _check_alike(f"nets[{i}]", parameters, own[i])
    for i, parameters in enumerate(found):
        _copy(f"nets[{i}]", own[i], parameters, unpack(nets[i]))


def _check_alike(name: str, given: Parameters, first: Parameters) -> None:
    """Raise unless two networks differ in the values of their parameters only."""
    for field in ("omegas", "outermost_linear", "precision"):
        mine, wanted = getattr(given, field), getattr(first, field)
        if mine != wanted:
            raise ValueError(f"{name}: has {field} {mine}, expected {wanted} as the others")
    if networks_of(given.weights, given.biases) is not None:
        raise ValueError(f"{name}: has an axis of networks in front already, expected one network")
    for group in ("weights", "biases"):
        pairs = zip(getattr(given, group), getattr(first, group), strict=True)
        for i, (mine, wanted) in enumerate(pairs):
            if (mine.shape, mine.dtype, mine.device) != (wanted.shape, wanted.dtype, wanted.device):
                raise ValueError(f"{name}: {group}[{i}] is {described(mine)}, expected {described(wanted)}")


def _together(column: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack([tensor.detach() for tensor in column])
    return stacked.requires_grad_(any(tensor.requires_grad for tensor in column))


@torch.no_grad()
def _copy(name: str, own: Parameters, into: Parameters, again: Parameters) -> None:
    """Set parameters; those that are elsewhere at every look are computed, and may only be what they should be."""
    groups = zip((own.weights, own.biases), (into.weights, into.biases), (again.weights, again.biases), strict=True)
    for value, mine, seen in (row for group in groups for row in zip(*group, strict=True)):
        if mine.data_ptr() == seen.data_ptr():
            mine.copy_(value)
        elif not torch.equal(mine, value):
            raise ValueError(f"{name}: computes its parameters, expected a network that holds them")
