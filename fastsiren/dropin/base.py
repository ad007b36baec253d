"""What the classes of this package share: layers that are read anew at each call, and one fused evaluation of them.

A class says in `siren_layers` which of its submodules are the layers; the base spells them as Parameters, which every
operator of fastsiren takes, and evaluates them in one pass. Inner modules are not called then: hooks on them raise.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import functional
from ..engine.network import Parameters
from ..engine.values import number
from ..modulation import Conditioned, modulated
from . import checks

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Layer(NamedTuple):
    """One layer as it is now."""

    linear: Any
    """A module with a weight [n_out, n_in] and a bias [n_out] or None."""
    omega: float | None
    """Frequency of a sine layer; None for a linear one."""
    offset: float = 0.0
    """Added to the result of a linear layer."""


class FusedSiren(nn.Module):
    """A module whose layers are evaluated in one operation."""

    precision: str | None = None
    """Precision of hidden products, "fp32", "tf32", "fp16" or "bf16"; None takes the one in force."""
    called: tuple[str, ...] = ()
    """Children that are called as modules, so that their hooks fire."""
    points = "x"
    """What `forward` calls the coordinates."""

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last."""
        raise NotImplementedError(f"{type(self).__name__}.siren_layers")

    def siren_parameters(self, params: Mapping[str, Tensor] | None = None) -> Conditioned:
        """The network as it is now; what every operator of fastsiren asks a module for, and takes itself.

        Args:
            params: takes the place of the module's own parameters, under the names of the state dict; weights may be
                [G, n_out, n_in] and biases [G, n_out] for G networks.

        Raises:
            KeyError: `params` lacks one of the names.
            RuntimeError: an inner module has hooks, which one fused pass does not run.
            TypeError: `params` is no dict of tensors, a frequency is no number, or the network does not end in a
                linear or a sine layer.
            ValueError: one of `params` does not have the shape of the parameter that it stands for.
        """
        refuse_hooks(self)
        return spell(self.siren_layers(), self.precision, None if params is None else self._lookup(params))

    def _lookup(self, params: Mapping[str, Tensor]) -> Callable[[Any], tuple[Tensor, Tensor | None]]:
        names = {module: name for name, module in self.named_modules()}

        def find(linear: Any) -> tuple[Tensor, Tensor | None]:
            weight, bias = (f"{names[linear]}.{part}" for part in ("weight", "bias"))
            found = checks.replaced(params, weight, linear.weight)
            return found, params.get(bias) if linear.bias is None else checks.replaced(params, bias, linear.bias)

        return find

    def _modulate(self, **modulations: Sequence[Tensor | None]) -> Conditioned:
        """The network with modulations [H], [B, H] or [B, 1, H] per layer; one for a last sine layer may be missing.

        Raises:
            ValueError: one of them differs between the points of a network.
        """
        params = self.siren_parameters()
        rows = {name: [_per_network(name, e) for e in entries] for name, entries in modulations.items()}
        return modulated(params, **_completed(params, rows))

    def evaluate(self, x: Tensor, **modulations: Sequence[Tensor | None]) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network, with modulations as `evaluate_modulated` takes them."""
        return evaluate_modulated(x, self.siren_parameters(), self.points, **modulations)


class WithLastLayer(FusedSiren):
    """A network whose `last_layer` has any activation; one that is no sine is called behind the fused pass."""

    last_layer: Any

    def hidden(self) -> list[Layer]:
        """The sine layers."""
        raise NotImplementedError(f"{type(self).__name__}.hidden")

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last."""
        return [*self.hidden(), self._last(omega_of(self.last_layer.activation))]

    def _last(self, omega: float | None) -> Layer:
        return Layer(getattr(self.last_layer, "linear", self.last_layer), omega)

    def evaluate(self, x: Tensor, **modulations: Sequence[Tensor | None]) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network, its last activation included."""
        final = self.last_layer.activation
        if isinstance(final, nn.Identity) or hasattr(final, "w0"):
            return super().evaluate(x, **modulations)
        refuse_hooks(self)
        linear = spell([*self.hidden(), self._last(None)], self.precision)
        return final(evaluate_modulated(x, linear, self.points, **modulations))


def refuse_hooks(module: FusedSiren) -> None:
    """Raise if an inner module that is not called has hooks."""
    for name, child in _uncalled(module):
        if any(getattr(child, kind) for kind in HOOKS):
            raise RuntimeError(
                f"{name}: has hooks (a recorder of activations, old-style weight_norm or prune?), which a fused pass "
                "does not run; remove them, use torch.nn.utils.parametrizations, or a method of the class that returns "
                "activations"
            )


def _uncalled(module: FusedSiren) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if name not in module.called:
            yield from child.named_modules(prefix=name)


def omega_of(activation: nn.Module) -> float | None:
    """Frequency of a sine activation from its attribute w0; None for nn.Identity.

    Raises:
        TypeError: the activation has no frequency.
    """
    if isinstance(activation, nn.Identity):
        return None
    omega = getattr(activation, "w0", None)
    if omega is None:
        raise TypeError(f"{type(activation).__name__}: is no sine activation; fused passes serve SIRENs only")
    return number("w0", omega)


def spell(
    layers: Sequence[Layer],
    precision: str | None = None,
    find: Callable[[Any], tuple[Tensor, Tensor | None]] | None = None,
) -> Conditioned:
    """Layers as a network, with offsets inside biases and zeros for biases that are not there.

    Args:
        layers: first to last.
        precision: of hidden products.
        find: gives weight and bias of a layer; None takes its own.
    """
    weights, biases, omegas = [], [], []
    for linear, omega, offset in layers:
        weight, bias = (linear.weight, linear.bias) if find is None else find(linear)
        if bias is None:
            bias = weight.new_zeros(weight.shape[-2])
        weights.append(weight)
        biases.append(bias + offset if offset else bias)
        omegas += [] if omega is None else [number("omega", omega)]
    linear_last = layers[-1].omega is None
    if len(omegas) != len(layers) - linear_last:
        raise TypeError("layers: got a linear layer before the last one, expected sine layers there")
    return Conditioned(weights, biases, omegas, linear_last, precision)


def evaluate(x: Tensor, params: Parameters, name: str = "x") -> Tensor:  # [..., D] -> [..., O]
    """Evaluate a network; an axis of one network, on all or some of its parameters, is that of a shared one.

    Args:
        x: coordinates.
        params: the network.
        name: what the caller calls the coordinates.
    """
    checks.points(name, x, params.weights[0])
    count = max(
        [1, *(w.shape[0] for w in params.weights if w.ndim > 2), *(b.shape[0] for b in params.biases if b.ndim > 1)]
    )
    batched = any(w.ndim > 2 for w in params.weights) or any(b.ndim > 1 for b in params.biases)
    weights = [w[0] if w.ndim > 2 and w.shape[0] == 1 else w for w in params.weights]
    biases = [b[0] if b.ndim > 1 and b.shape[0] == 1 else b for b in params.biases]
    y = functional.siren(
        x, weights, biases, omegas=params.omegas, outermost_linear=params.outermost_linear, precision=params.precision
    )
    return y.unsqueeze(0) if batched and count == 1 and x.ndim < 3 else y


def evaluate_modulated(
    x: Tensor, params: Parameters, name: str = "x", /, **modulations: Sequence[Tensor | None]
) -> Tensor:
    """Evaluate m sin(alpha (s (W h + b) + t) + phi) per sine layer, with lists as `modulated` takes them.

    Each entry broadcasts against the result [..., H] of its layer, or is None. Where entries are the same for all
    points of a network, [H] or [B, 1, H] for x [B, N, D], the network is evaluated in one pass; else layer by layer.
    """
    if not modulations:
        return evaluate(x, params, name)
    checks.points(name, x, params.weights[0])
    widths = [weight.shape[-2] for weight in params.weights]
    full = _completed(params, modulations)
    folded = {
        name: [_folded(entry, x, width) for entry, width in zip(entries, widths, strict=False)]
        for name, entries in full.items()
    }
    if any(entry is NotImplemented for entries in folded.values() for entry in entries):
        return _layer_by_layer(x, params, full)
    return evaluate(x, modulated(Conditioned(*params), **folded))


def _completed(
    params: Parameters, modulations: Mapping[str, Sequence[Tensor | None]]
) -> dict[str, list[Tensor | None]]:
    """One entry per sine layer, where those at the end may have been left out."""
    count = len(params.omegas)
    return {name: [*entries, *[None] * (count - len(entries))] for name, entries in modulations.items()}


def _per_network(name: str, entry: Tensor | None) -> Tensor | None:
    """A modulation as [H] or [B, H]."""
    if entry is None or entry.ndim < 3:
        return entry
    if any(size != 1 for size in entry.shape[1:-1]):
        raise ValueError(f"{name}: got shape {tuple(entry.shape)}, expected (B, 1, H): the same for all points")
    return entry.flatten(0, -2)


def _folded(entry: Tensor | None, x: Tensor, width: int) -> Any:
    """A modulation as [H] or [B, H]; NotImplemented where it differs between the points of a network."""
    if entry is None:
        return None
    if entry.ndim <= x.ndim and all(size == 1 for size in entry.shape[:-1]):
        return entry.reshape(-1).expand(width)
    own = entry.ndim == x.ndim > 2 and all(size == 1 for size in entry.shape[1:-1])
    return entry.flatten(0, -2).expand(-1, width) if own else NotImplemented


def _layer_by_layer(x: Tensor, params: Parameters, modulations: Mapping[str, Sequence[Tensor | None]]) -> Tensor:
    h = x
    for l, (weight, bias) in enumerate(zip(params.weights, params.biases, strict=True)):
        h = nn.functional.linear(h, weight, bias)
        if l == len(params.omegas):
            break
        here = {name: entries[l] for name, entries in modulations.items()}
        alpha, scale, shift, phase, gain = (here.get(name) for name in ("frequency", "scale", "shift", "phase", "gain"))
        h = h if scale is None else h * scale
        h = (params.omegas[l] if alpha is None else alpha) * (h if shift is None else h + shift)
        h = torch.sin(h if phase is None else h + phase)
        h = h if gain is None else h * gain
    return h


@torch.no_grad()
def draw(linear: Any, bound: float, *, bias: bool = False) -> None:
    """Draw a weight, and if wanted the bias, uniformly in +-bound."""
    linear.weight.uniform_(-bound, bound)
    if bias and linear.bias is not None:
        linear.bias.uniform_(-bound, bound)


def siren_bound(n_in: int, omega: float, *, is_first: bool, c: float = 6.0) -> float:
    """Bound of the weights of a layer: 1 / n_in for the first, sqrt(c / n_in) / omega for others."""
    return 1 / n_in if is_first else math.sqrt(c / n_in) / abs(omega)


class SineLayer(nn.Module):
    """sin(omega_0 (W x + b)), its weights drawn when it is made; called only by itself.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias.
        is_first: draws the weights as those of a first layer.
        omega_0: frequency factor.
    """

    linear: nn.Linear

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, is_first: bool = False, omega_0: float = 30
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features)
        checks.omegas(omega_0=omega_0)
        self.omega_0 = omega_0
        self.is_first = is_first
        self.in_features = in_features
        self.linear = self.make_linear(in_features, out_features, bias)
        self.init_weights()

    @staticmethod
    def make_linear(in_features: int, out_features: int, bias: bool) -> nn.Linear:
        """The layer that holds W and b."""
        return nn.Linear(in_features, out_features, bias=bias)

    def init_weights(self) -> None:
        """Draw the weights anew."""
        draw(self.linear, siren_bound(self.in_features, self.omega_0, is_first=self.is_first))

    def forward(self, input: Tensor) -> Tensor:  # [..., n_in] -> [..., n_out]
        """Evaluate this layer alone."""
        checks.points("input", input, self.linear.weight)
        return torch.sin(self.omega_0 * self.linear(input))

    def forward_with_intermediate(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """The sine and its argument, in this order."""
        checks.points("input", input, self.linear.weight)
        intermediate = self.omega_0 * self.linear(input)
        return torch.sin(intermediate), intermediate


class SineStack(FusedSiren):
    """A network `net` of layers with `linear` and `omega_0`, the last one a linear layer or another of these."""

    net: Any
    points = "coords"

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last."""
        return [
            Layer(module.linear, module.omega_0) if hasattr(module, "omega_0") else Layer(module, None)
            for module in self.net
        ]  # fmt: skip


def stack(
    layer: Callable[..., nn.Module],
    in_features: int,
    hidden_features: int,
    hidden_layers: int,
    out_features: int,
    *,
    omegas: tuple[float, float],
    last: Callable[[], nn.Module] | None,
    **first: Any,
) -> list[nn.Module]:
    """Sine layers in the order of their draws, and a linear one that `last` makes, or a sine layer if it is None.

    Args:
        layer: makes a sine layer.
        in_features: D.
        hidden_features: H.
        hidden_layers: number of H x H layers.
        out_features: O.
        omegas: of the first and of the other layers.
        last: makes the last layer.
        first: arguments that only the first layer gets.

    Raises:
        TypeError: a size or an omega is of the wrong type.
        ValueError: one is out of range.
    """
    checks.sizes(in_features=in_features, hidden_features=hidden_features, out_features=out_features)
    checks.sizes(0, hidden_layers=hidden_layers)
    checks.omegas(first_omega_0=omegas[0], hidden_omega_0=omegas[1])
    made = [layer(in_features, hidden_features, omega_0=omegas[0], **{"is_first": True, **first})]
    widths = [hidden_features] * hidden_layers + ([out_features] if last is None else [])
    made += [layer(hidden_features, width, is_first=False, omega_0=omegas[1]) for width in widths]
    return made if last is None else [*made, last()]


def linear_last(
    in_features: int, out_features: int, omega: float, make: Callable[[int, int], nn.Linear] = nn.Linear
) -> nn.Linear:
    """A linear layer drawn as a hidden one with some omega."""
    linear = make(in_features, out_features)
    draw(linear, siren_bound(in_features, omega, is_first=False))
    return linear
