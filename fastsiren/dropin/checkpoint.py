"""State dicts of SIRENs from one code to another: keys, frequencies, shifts of the result, flat vectors.

No file says with which omegas a network was trained, nor whether its code adds 0.5 to the result. Omegas are given by
the caller, or taken from the defaults of the source with a warning; where keys alone leave it open whether 0.5 is
added, the source has to be named. What does not fit the target exactly is refused.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..engine.values import described, frequency, listed, one_of, whole_number

__all__ = ["LAYOUTS", "Layout", "flatten", "remap", "unflatten"]

Omegas = tuple[float, float]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How a code names and reads its parameters.

    Args:
        layer: key of a sine layer, with {i} for its index.
        last: key of the last layer where it differs, with {i} for the number of sine layers.
        step: difference between the indices of two layers.
        omegas: default frequencies of the first and of the other layers.
        fixed: whether these are literals of the code.
        offset: added to the result by the code.
        sine_last: whether the last layer may be a sine layer, then under the key of one.
        widths: whether sine layers may differ in width.
        biasless: layers that may lack a bias: "none", "first", or "all" of them together.
        ignored: keys that may be there too.
    """

    layer: str
    last: str | None = None
    step: int = 1
    omegas: Omegas = (30.0, 30.0)
    fixed: bool = False
    offset: float = 0.0
    sine_last: bool = False
    widths: bool = False
    biasless: str = "none"
    ignored: tuple[str, ...] = ()


_STACK = Layout("net.{i}.linear", "net.{i}", sine_last=True)

LAYOUTS: dict[str, Layout] = {
    "fastsiren": Layout("net.{i}.linear", "net.{i}", sine_last=True, biasless="all"),
    "colab": _STACK,
    "wire": _STACK,
    "metasdf": _STACK,
    "light-fields": _STACK,
    "finer": Layout("net.{i}.linear", "net.{i}", biasless="first"),
    "official": Layout("net.net.{i}.0", fixed=True),
    "fcblock": Layout("net.{i}.0", fixed=True),
    "i3d": Layout("net.{i}.0", widths=True),
    "lucidrains": Layout("layers.{i}", "last_layer", omegas=(30.0, 1.0), biasless="all"),
    "lucidrains-wrapper": Layout(
        "net.layers.{i}", "net.last_layer", omegas=(30.0, 1.0), biasless="all", ignored=("grid",)
    ),
    "dalmia": Layout("network.{i}", step=2, omegas=(30.0, 1.0), widths=True, biasless="all"),
    "coin": Layout("net.{i}.linear", "last_layer.linear", biasless="all"),
    "coinpp": Layout("net.{i}.linear", "last_layer.linear", offset=0.5, biasless="all"),
    "gradncp": Layout("layers.{i}.linear", offset=0.5),
    "physicsnemo": Layout("layers.{i}.linear"),
}
"""Layouts by name of the code."""

# Beginnings of keys of networks that are no SIREN by themselves, and what to do.
_OTHERS = {
    "hyper_net.": "parameters of a hypernetwork; remap what it predicts, hyper_net(embedding)",
    "modulation_net.": "a modulated network; fold its modulations first (fastsiren.modulation)",
    "modulator.": "a modulated network; fold its modulations first (fastsiren.modulation)",
    "mapping_network.": "a network modulated by noise",
    "rbf_layer.": "radial features in front of the network",
}


class _Network(NamedTuple):
    """A state dict taken apart."""

    weights: list[Tensor]
    biases: list[Tensor | None]
    sines: int


def remap(
    state_dict: Mapping[str, Tensor],
    to: str,
    source: str | None = None,
    omegas: Omegas | None = None,
    *,
    new_omegas: Omegas | None = None,
) -> State:
    """Parameters under the keys of another code, scaled so that the network stays the same function.

    Args:
        state_dict: a state dict; only the parameters of the network itself.
        to: name of a layout.
        source: name of a layout; None recognises it by its keys, if that leaves no question open.
        omegas: first and hidden omega of the network; None takes the defaults of the source and warns.
        new_omegas: of the result; None keeps them, if the target's code does not have literals.

    Returns:
        A state dict for `to`, whose network has to be made with `new_omegas`.

    Raises:
        KeyError: keys are missing or left over.
        TypeError: an argument is of the wrong type.
        ValueError: a name is unknown, the source is ambiguous, or something does not fit the target.

    Example:
        >>> import fastsiren
        >>> from fastsiren.dropin import checkpoint, official
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> state = checkpoint.remap(net.state_dict(), to="official", omegas=(30.0, 30.0))
        >>> official.SingleBVPNet(hidden_features=16, num_hidden_layers=1).load_state_dict(state)
        <All keys matched successfully>
    """
    state_dict, name = _named(state_dict, source)
    old, new = LAYOUTS[name], LAYOUTS[one_of("to", to, list(LAYOUTS))]
    network = _take_apart(state_dict, name)
    before = _frequencies("omegas", omegas, name, old.omegas)
    after = _frequencies("new_omegas", new_omegas, to, new.omegas if new.fixed else before)
    return _put_together(_shifted(_scaled(network, before, after), old.offset - new.offset), to)


def flatten(state_dict: Mapping[str, Tensor], order: str, source: str | None = None) -> Tensor:
    """All parameters as one vector.

    Args:
        state_dict: a state dict of any layout.
        order: "inr2vec", weight then bias of each layer, or "fit-a-nef", bias then kernel, which is the weight
            transposed.
        source: name of its layout; None recognises it by its keys.

    Raises:
        KeyError: keys are missing or left over.
        TypeError: an argument is of the wrong type.
        ValueError: a name is unknown, or a layer has no bias.
    """
    weights, biases, _ = _take_apart(*_named(state_dict, source))
    parts: list[Tensor] = []
    for weight, bias in zip(weights, biases, strict=True):
        if bias is None:
            raise ValueError("state_dict: has a layer without bias, expected one in each")
        parts += [weight, bias] if _weight_first(order) else [bias, weight.mT]
    return torch.cat([part.flatten() for part in parts])


def unflatten(vector: Tensor, widths: Sequence[int], order: str) -> State:
    """The state dict of a fastsiren.Siren from one vector.

    Args:
        vector: all parameters.
        widths: D, the width of each sine layer, O.
        order: as in `flatten`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the name is unknown, or the vector has another length.

    Example:
        >>> import torch
        >>> state = unflatten(torch.arange(13.0), (2, 3, 1), "inr2vec")
        >>> state["net.0.linear.bias"], state["net.1.weight"]
        (tensor([6., 7., 8.]), tensor([[ 9., 10., 11.]]))
    """
    widths = [whole_number("widths", width, least=1) for width in listed("widths", widths, "ints")]
    if len(widths) < 3:
        raise ValueError(f"widths: got {widths}, expected inputs, at least one width of a sine layer, outputs")
    if not isinstance(vector, Tensor) or not vector.is_floating_point():
        raise TypeError(f"vector: got {described(vector)}, expected a torch.Tensor of floats")
    sizes: list[int] = []
    for n_in, n_out in pairwise(widths):
        sizes += [n_in * n_out, n_out] if _weight_first(order) else [n_out, n_in * n_out]
    if vector.ndim != 1 or len(vector) != sum(sizes):
        raise ValueError(
            f"vector: got shape {tuple(vector.shape)}, expected ({sum(sizes)},) for widths {tuple(widths)}"
        )
    parts = vector.split(sizes)
    if _weight_first(order):
        weights = [part.reshape(n_out, n_in) for part, (n_in, n_out) in zip(parts[::2], pairwise(widths), strict=True)]
        return _put_together(_Network(weights, list(parts[1::2]), len(weights) - 1), "fastsiren")
    weights = [part.reshape(n_in, n_out).mT for part, (n_in, n_out) in zip(parts[1::2], pairwise(widths), strict=True)]
    return _put_together(_Network(weights, list(parts[::2]), len(weights) - 1), "fastsiren")


def _weight_first(order: str) -> bool:
    return one_of("order", order, ("inr2vec", "fit-a-nef")) == "inr2vec"


def _named(state: Mapping[str, Tensor], source: str | None) -> tuple[Mapping[str, Tensor], str]:
    """A state dict and the name of its layout, once it is known to be one."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state_dict: got {described(state)}, expected a mapping of names to tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"state_dict: got {described(value)} under {key!r}, expected a torch.Tensor of floats")
    name = one_of("source", source, list(LAYOUTS), or_none=True)
    return state, _recognise(state) if name is None else name


def _recognise(state: Mapping[str, Tensor]) -> str:
    """The layout that keys fit, if all that fit mean the same."""
    fitting = [name for name, layout in LAYOUTS.items() if _unfit(state, layout) is None]
    if not fitting:
        raise KeyError(_reason(state) or f"state_dict: keys fit no known layout, such as {list(state)[:3]}")
    if len({(LAYOUTS[name].offset, LAYOUTS[name].omegas) for name in fitting}) > 1:
        raise ValueError(
            f"source: got None for keys that fit {' and '.join(map(repr, fitting))}, which read them differently (0.5 "
            "added to the result, other omegas); name the source"
        )
    return fitting[0]


def _reason(state: Mapping[str, Tensor]) -> str | None:
    found = (why for start, why in _OTHERS.items() for key in state if key.startswith(start))
    why = next(found, None)
    return None if why is None else f"state_dict: holds {why}"


def _prefixes(state: Mapping[str, Tensor], layout: Layout) -> tuple[list[str], int]:
    """Keys of the layers that are there, without their endings, and the number of sine layers among them."""
    names: list[str] = []
    while f"{layout.layer.format(i=layout.step * len(names))}.weight" in state:
        names.append(layout.layer.format(i=layout.step * len(names)))
    if layout.last is None:
        return names, len(names) - 1
    last = layout.last.format(i=len(names))
    if f"{last}.weight" not in state and layout.sine_last:
        return names, len(names)
    return [*names, last], len(names)


def _unfit(state: Mapping[str, Tensor], layout: Layout) -> str | None:
    """Why keys do not fit a layout, or None."""
    names, sines = _prefixes(state, layout)
    if sines < 1 or len(names) < 2:
        return f"{layout.layer.format(i=layout.step * len(names))}.weight or a last layer is missing"
    expected = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    missing = [f"{name}.weight" for name in names if f"{name}.weight" not in state]
    left = [key for key in state if key not in expected and key not in layout.ignored]
    if missing:
        return f"{missing[0]} is missing"
    return f"{', '.join(left[:4])} left over" if left else None


def _take_apart(state: Mapping[str, Tensor], name: str) -> _Network:
    layout = LAYOUTS[name]
    why = _unfit(state, layout)
    if why is not None:
        raise KeyError(_reason(state) or f"state_dict: does not have the keys of {name!r}: {why}")
    names, sines = _prefixes(state, layout)
    network = _Network([state[f"{n}.weight"] for n in names], [state.get(f"{n}.bias") for n in names], sines)
    _check(network, "source", name)
    return network


def _check(network: _Network, argument: str, name: str) -> None:
    """Raise unless widths follow one another and the code of the layout can hold them."""
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        before = network.weights[i - 1].shape[0] if i else weight.shape[-1]
        if weight.ndim != 2 or weight.shape[1] != before or (bias is not None and bias.shape != weight.shape[:1]):
            said = None if bias is None else tuple(bias.shape)
            raise ValueError(
                f"state_dict: got weight {tuple(weight.shape)} and bias {said} in layer {i}, expected (n, {before}) "
                "and (n,)"
            )
    layout = LAYOUTS[name]
    hidden = {weight.shape[0] for weight in network.weights[: network.sines]}
    if len(hidden) > 1 and not layout.widths and network.sines < len(network.weights):
        raise ValueError(
            f"{argument}: got {name!r} with one width of sine layers, expected a layout for {sorted(hidden)}"
        )
    if network.sines == len(network.weights) and not layout.sine_last:
        raise ValueError(f"{argument}: got {name!r} with a linear last layer, expected a layout for a sine layer there")


def _check_biases(without: list[bool], biasless: str, name: str) -> None:
    allowed = {"none": [], "first": [[True, *[False] * (len(without) - 1)]], "all": [[True] * len(without)]}
    if any(without) and without not in allowed[biasless]:
        layers = [i for i, lacks in enumerate(without) if lacks]
        raise ValueError(
            f"to: got {name!r} with biases in layers {layers}, which the state dict lacks; add zeros if they are meant"
        )


def _frequencies(argument: str, given: Omegas | None, name: str, otherwise: Omegas) -> Omegas:
    """First and hidden omega, as given or as the layout has them."""
    layout = LAYOUTS[name]
    if given is None:
        if argument == "omegas" and not layout.fixed:
            warnings.warn(
                f"omegas: took {otherwise}, the defaults of {name!r}; a state dict does not hold them, so pass "
                "omegas=(first, hidden)",
                stacklevel=3,
            )
        return otherwise
    pair = [frequency(argument, omega) for omega in listed(argument, given, "two numbers")]
    if len(pair) != 2:
        raise ValueError(f"{argument}: got {given}, expected two numbers, the first and the hidden omega")
    first, hidden = pair
    if layout.fixed and (first, hidden) != layout.omegas:
        raise ValueError(f"{argument}: got {given}, but {name!r} has the literals {layout.omegas}")
    return first, hidden


def _scaled(network: _Network, before: Omegas, after: Omegas) -> _Network:
    """The same function with other omegas: sine layers take up the ratio."""
    weights, biases = list(network.weights), list(network.biases)
    for i in range(network.sines):
        ratio = before[i > 0] / after[i > 0]
        if ratio != 1:
            bias = biases[i]
            weights[i], biases[i] = weights[i] * ratio, None if bias is None else bias * ratio
    return _Network(weights, biases, network.sines)


def _shifted(network: _Network, offset: float) -> _Network:
    """The same function where the code of the target adds less to the result, by `offset`."""
    if not offset:
        return network
    last = network.biases[-1]
    if last is None or network.sines == len(network.weights):
        raise ValueError(
            f"state_dict: got no bias in a linear last layer, expected one to take up the {offset:+} that source and "
            "target differ by"
        )
    return network._replace(biases=[*network.biases[:-1], last + offset])


def _put_together(network: _Network, name: str) -> State:
    layout = LAYOUTS[name]
    if layout.ignored:
        raise ValueError(f"to: got {name!r}, which also holds {layout.ignored}; load its network by itself")
    _check(network, "to", name)
    _check_biases([bias is None for bias in network.biases], layout.biasless, name)
    count = len(network.weights)
    names = [layout.layer.format(i=layout.step * i) for i in range(count)]
    if layout.last is not None and network.sines < count:
        names[-1] = layout.last.format(i=count - 1)
    state: State = {}
    for key, weight, bias in zip(names, network.weights, network.biases, strict=True):
        state[f"{key}.weight"] = weight
        if bias is not None:
            state[f"{key}.bias"] = bias
    return state
