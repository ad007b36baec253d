"""Chains of linear layers and sines inside an nn.Sequential, as users write them, evaluated in one pass."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import FusedSiren, Layer, evaluate

# Names under which layers and activations hold their frequency.
_FREQUENCIES = ("omega_0", "w0", "omega", "w_0", "omega0")


class Refusal(Exception):
    """Something with sines in it cannot be evaluated in one pass; the text says why."""


class Link(NamedTuple):
    """One layer of a chain, by the names of its modules."""

    linear: str
    holder: str | None = None
    """What has the frequency; None for a linear layer."""
    attribute: str | None = None
    """Its attribute; None where the frequency is a literal of the code."""
    literal: float | None = None


class FusedChain(FusedSiren):
    """An nn.Sequential that is a SIREN; it calls none of its modules."""

    points = "input"
    links: list[Link]
    kinds: list[tuple[str, type[nn.Module]]]
    """Names and classes of the modules when the links were read."""

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last.

        Raises:
            RuntimeError: modules were added, removed or replaced by others since the conversion.
        """
        if kinds(self) != self.kinds:
            raise RuntimeError("the modules of a converted chain were changed; convert the original again")
        return [self._layer(link) for link in self.links]

    def _layer(self, link: Link) -> Layer:
        omega = link.literal
        if link.holder is not None and link.attribute is not None:
            omega = getattr(self.get_submodule(link.holder), link.attribute)
        return Layer(self.get_submodule(link.linear), omega)

    def forward(self, input: Tensor, params: Mapping[str, Tensor] | None = None) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the chain, with parameters of somebody else if they are given."""
        return evaluate(input, self.siren_parameters(params), self.points)


def kinds(module: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    """Names and classes of the modules of a chain."""
    return [(name, type(part)) for name, part in _flat(module)]


def read_chain(module: nn.Module) -> list[Link] | None:
    """The layers of an nn.Sequential; None if there are no sines in it, or fewer than two layers.

    Raises:
        Refusal: it has sines and something else that a pass cannot do.
    """
    links: list[Link] = []
    strangers: list[str] = []
    parts = [*_flat(module), ("", nn.Identity())]
    while len(parts) > 1:
        (name, part), (after_name, after), *_ = parts
        found = frequency(after) if isinstance(part, nn.Linear) and after_name else None
        if isinstance(part, nn.Linear):
            links.append(Link(name) if found is None else Link(name, after_name, *found))
        elif is_layer(part):
            links.append(_own_layer(name, part))
        else:
            strangers.append(f"{name} ({type(part).__name__}) is neither a linear layer nor a sine")
        parts = parts[1 if found is None else 2 :]
    if len(links) < 2 or all(link.holder is None for link in links):
        return None
    if any(link.holder is None for link in links[:-1]):
        strangers.append("a linear layer without a sine stands before the last layer")
    if strangers:
        raise Refusal(strangers[0])
    return links


def _flat(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules of nested nn.Sequential in order with their names, without those that do nothing."""
    for name, child in module._modules.items():
        if isinstance(child, nn.Sequential):
            yield from _flat(child, f"{prefix}{name}.")
        elif child is not None and not isinstance(child, nn.Identity):
            yield f"{prefix}{name}", child


def is_layer(module: Any) -> bool:
    """Whether a module is a linear layer together with its activation."""
    has_weight = isinstance(getattr(module, "linear", module), nn.Linear) or isinstance(
        getattr(module, "weight", None), nn.Parameter
    )
    return has_weight and (isinstance(getattr(module, "activation", None), nn.Module) or _attribute(module) is not None)


def _attribute(module: nn.Module) -> str | None:
    return next((name for name in _FREQUENCIES if isinstance(getattr(module, name, None), (int, float))), None)


def _own_layer(name: str, module: Any) -> Link:
    linear = f"{name}.linear" if hasattr(module, "linear") else name
    activation = getattr(module, "activation", None)
    dropout = getattr(module, "dropout", None)
    if isinstance(dropout, nn.Dropout) and dropout.p:
        raise Refusal(f"{name} has a dropout of {dropout.p}")
    if activation is None:
        return Link(linear, name, _attribute(module))
    if isinstance(activation, nn.Identity):
        return Link(linear)
    found = frequency(activation)
    if found is None:
        raise Refusal(f"{name} has the activation {type(activation).__name__}, which is no sine")
    return Link(linear, f"{name}.activation", *found)


@torch.no_grad()
def frequency(activation: nn.Module) -> tuple[str | None, float | None] | None:
    """Where the frequency of a sine stands: the name of an attribute, or a literal; None if this is no sine.

    Raises:
        Refusal: it is a sine whose frequency is neither.
    """
    if any(True for _ in activation.parameters()) or not callable(getattr(activation, "forward", None)):
        return None
    tiny, points = torch.tensor([1e-3]), torch.linspace(-1.0, 1.0, 41)
    values = [_applied(activation, z) for z in (tiny, points)]
    if any(value is None for value in values):
        return None
    slope = float(torch.asin(values[0].clamp(-1, 1)) / tiny)
    if not slope or not torch.allclose(values[1], torch.sin(slope * points), atol=1e-3):
        return None
    name = _attribute(activation)
    if name is not None and _near(getattr(activation, name), slope):
        return name, None
    if not _near(round(slope, 1), slope):
        raise Refusal(f"{type(activation).__name__} is a sine of frequency {slope:g} that no attribute states")
    return None, round(slope, 1)


def _applied(activation: nn.Module, z: Tensor) -> Any:
    """The activation of some numbers; None where it takes or gives something else."""
    try:
        value = activation.forward(z.clone())
    except (TypeError, ValueError, RuntimeError):
        return None
    return value if isinstance(value, Tensor) and value.shape == z.shape else None


def _near(value: float, measured: float) -> bool:
    return abs(value - measured) <= 1e-4 * abs(measured)
