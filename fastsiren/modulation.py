"""Conditioned networks as plain ones: h = m sin(alpha (s (W h + b) + t) + phi), with all but sin folded into W and b.

Folding is exact: with f = alpha / omega, W' = f s W with the gain of the layer before on its columns, and
b' = f (s b + t) + phi / omega. Any modulation may have an axis of networks in front; the result then has it too, and is
what fastsiren calls many networks. docs/conditioning.md says which published conditioning is which argument.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .engine.arguments import check_tensor, layers, unpack
from .engine.backends import PRECISIONS
from .engine.network import Parameters, SirenModule, networks_of
from .engine.ops import autocast_enabled
from .engine.values import flag, listed, one_of

Modulation = Sequence[Tensor | None]
"""One tensor [H] or [G, H] per sine layer, None where a layer has none; H may be 1 for one number per layer."""


class Conditioned(Parameters):
    """A network given by its parameters; operators, losses and `render` take it as they take a module.

    Args:
        weights: one [n_out, n_in] or [G, n_out, n_in] per layer.
        biases: one [n_out] or [G, n_out] per layer; None, in place of one or of all, means zeros.
        omegas: one float per sine layer.
        outermost_linear: False makes the last layer a sine layer too; it then has an omega.
        precision: of hidden products, "fp32", "tf32", "fp16" or "bf16"; None for the one in force.

    Raises:
        TypeError: an argument is of the wrong type. Whether parameters fit each other, the function says that takes it.
        ValueError: the precision is not known.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.modulation import Conditioned
        >>> weights, biases = [torch.randn(4, 8, 2), torch.randn(1, 8)], [torch.randn(8), torch.randn(4, 1)]
        >>> fastsiren.laplacian(Conditioned(weights, biases, omegas=[30.0]), torch.rand(7, 2)).laplacian.shape
        torch.Size([4, 7, 1])
    """

    __slots__ = ()

    def __new__(
        cls,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor | None] | None,
        omegas: Sequence[float],
        outermost_linear: bool = True,
        precision: str | None = None,
    ) -> "Conditioned":
        """Complete the biases."""
        weights, full = layers(weights, biases)
        flag("outermost_linear", outermost_linear)
        one_of("precision", precision, PRECISIONS, or_none=True)
        return super().__new__(cls, weights, full, listed("omegas", omegas, "floats"), outermost_linear, precision)

    def siren_parameters(self) -> Parameters:
        """The network itself."""
        return self

    def networks(self) -> "list[Conditioned]":
        """Each of G networks by itself, as views; one network is a list of one."""
        count = networks_of(self.weights, self.biases)
        if count is None:
            return [self]

        def one(tensors: list[Tensor], core: int, g: int) -> list[Tensor]:
            return [tensor[g] if tensor.ndim > core else tensor for tensor in tensors]

        return [self._replace(weights=one(self.weights, 2, g), biases=one(self.biases, 1, g)) for g in range(count)]


def modulated(
    net: SirenModule,
    *,
    frequency: Modulation | None = None,
    scale: Modulation | None = None,
    shift: Modulation | None = None,
    phase: Modulation | None = None,
    gain: Modulation | None = None,
) -> Conditioned:
    """The plain network that equals a modulated one, differentiable in all that is given.

    Each argument but the first is one tensor or None per sine layer: [H], shared by all networks, or [G, H]; one number
    for a whole layer is [1] or [G, 1], or [] where all networks share it.

    Args:
        net: a SIREN, of which any parameter may have an axis of networks already.
        frequency: alpha, in place of omega.
        scale: s, a factor on W h + b.
        shift: t, added to that, inside alpha.
        phase: phi, added outside alpha.
        gain: m, a factor on the sine.

    Returns:
        The network, with an axis of G networks where a modulation or the network brings it.

    Raises:
        TypeError: `net` is no SIREN, an argument is no list, or a dtype is another than that of the network.
        ValueError: numbers of layers, widths or networks do not fit, or omega is 0 where there is a frequency or phase.

    Example:
        >>> import torch, fastsiren
        >>> from fastsiren.modulation import modulated
        >>> net = fastsiren.Siren(2, 8, 1, 3)
        >>> five = modulated(net, shift=[torch.randn(5, 8), None])
        >>> fastsiren.value_and_jacobian(five, torch.rand(7, 2)).jacobian.shape
        torch.Size([5, 7, 3, 2])
    """
    weights, biases, omegas, outermost_linear, precision = unpack(net)
    given = {"frequency": frequency, "scale": scale, "shift": shift, "phase": phase, "gain": gain}
    modulations = _by_layer(given, weights, biases, omegas)
    folded, added = list(weights), list(biases)
    if not outermost_linear and modulations[-1]["gain"] is not None:
        # The layer behind that takes the gain up is the identity.
        identity = torch.eye(weights[-1].shape[-2], dtype=weights[-1].dtype, device=weights[-1].device)
        folded, added, outermost_linear = [*folded, identity], [*added, identity.new_zeros(len(identity))], True
    for l, (layer, omega) in enumerate(zip(modulations, omegas, strict=True)):
        folded[l], added[l] = _inside(folded[l], added[l], omega, layer)
        if layer["gain"] is not None:
            folded[l + 1] = folded[l + 1] * layer["gain"].unsqueeze(-2)
    return Conditioned(folded, added, list(omegas), outermost_linear, precision)


def _inside(weight: Tensor, bias: Tensor, omega: float, layer: dict[str, Tensor | None]) -> tuple[Tensor, Tensor]:
    """W and b of one layer with everything folded in that is inside its sine."""
    alpha, scale, shift, phase = (layer[name] for name in ("frequency", "scale", "shift", "phase"))
    relative = None if alpha is None else alpha / omega
    if scale is not None:
        weight, bias = weight * scale.unsqueeze(-1), bias * scale
    bias = bias if shift is None else bias + shift
    if relative is not None:
        weight, bias = weight * relative.unsqueeze(-1), bias * relative
    return weight, bias if phase is None else bias + phase / omega


def _by_layer(
    given: dict[str, Modulation | None], weights: list[Tensor], biases: list[Tensor], omegas: list[float]
) -> list[dict[str, Tensor | None]]:
    """The modulations of each sine layer by name, each [H] or [G, H] in the dtype of the network."""
    count, networks = len(omegas), networks_of(weights, biases)
    layers: list[dict[str, Tensor | None]] = [{} for _ in omegas]
    for name, entries in given.items():
        found = [None] * count if entries is None else listed(name, entries, "tensors")
        if len(found) != count:
            raise ValueError(f"{name}: got {len(found)} of them, expected {count}, one per sine layer")
        for l, entry in enumerate(found):
            if entry is not None:
                if omegas[l] == 0 and name in ("frequency", "phase"):
                    raise ValueError(f"{name}[{l}]: got one for a layer with omega 0, expected None there")
                entry = _checked(f"{name}[{l}]", entry, weights[l], networks)
                networks = len(entry) if entry.ndim > 1 else networks
            layers[l][name] = entry
    return layers


def _checked(name: str, given: Tensor, weight: Tensor, networks: int | None) -> Tensor:
    """A modulation as [H] or [G, H], once it is known to fit the weight of its layer and the number of networks."""
    if isinstance(given, Tensor) and given.dtype != weight.dtype and autocast_enabled(given.device.type):
        given = given.to(weight.dtype)
    check_tensor(name, given, like=weight, of="the parameters")
    width = weight.shape[-2]
    if given.ndim > 2 or given.shape[-1:] not in ((), (1,), (width,)):
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected ({width},) or (networks, {width})")
    if given.ndim == 2 and networks not in (None, len(given)):
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected an axis of {networks} networks in front")
    return given.expand(*given.shape[:-1], width)
