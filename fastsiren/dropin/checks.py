"""Checks that the classes of this package share; each error names the argument as the class in question calls it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ..engine.arguments import coordinates
from ..engine.values import described, frequency, number, whole_number


def sizes(least: int = 1, /, **given: Any) -> None:
    """Raise unless arguments are whole numbers of `least` or more."""
    for name, size in given.items():
        whole_number(name, size, least=least)


def omegas(**given: Any) -> None:
    """Raise unless arguments are finite numbers other than zero."""
    for name, omega in given.items():
        frequency(name, omega)


def bounds(**given: Any) -> None:
    """Raise unless arguments are finite numbers of zero or more."""
    for name, value in given.items():
        if not 0 <= number(name, value) < float("inf"):
            raise ValueError(f"{name}: got {value}, expected a finite number >= 0")


def function(name: str, given: Callable[..., Any] | None) -> None:
    """Raise unless an argument is None or can be called."""
    if given is not None and not callable(given):
        raise TypeError(f"{name}: got {described(given)}, expected None or a torch.nn.Module or function")


def tensor(name: str, given: Tensor, shape: tuple[int | str, ...] | None = None) -> None:
    """Raise unless an argument is a tensor, of a shape whose sizes in words may be any; "..." stands for several."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: got {described(given)}, expected a torch.Tensor")
    if shape is None:
        return
    core = shape[1:] if shape[0] == "..." else shape
    found = tuple(given.shape[given.ndim - len(core) :]) if given.ndim >= len(core) else None
    fits = found is not None and all(isinstance(size, str) or size == n for size, n in zip(core, found))
    if not fits or (core is shape and given.ndim != len(core)):
        words = ", ".join(map(str, shape))
        raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected ({words}{',' * (len(shape) == 1)})")


def points(name: str, given: Tensor, layer: Any) -> None:
    """Raise unless an argument is a tensor [..., n_in] in the dtype and on the device of the layer that takes it.

    Args:
        name: of the argument.
        given: its value.
        layer: a weight [n_out, n_in], or a module whose first nn.Linear has it.
    """
    if not isinstance(layer, Tensor):
        layer = next(part for part in layer.modules() if isinstance(part, nn.Linear)).weight
    coordinates(given, layer, name)


def leaf(name: str, given: Tensor) -> Tensor:
    """A detached copy that requires gradients, of a tensor that can."""
    tensor(name, given)
    if not given.is_floating_point():
        raise TypeError(f"{name}: got dtype {given.dtype}, expected a floating-point dtype, as gradients need")
    return given.clone().detach().requires_grad_(True)


def entry(name: str, given: Mapping[str, Any], key: str) -> Any:
    """The entry of a dict that is an argument."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: got {described(given)}, expected a dict with {key!r}")
    if key not in given:
        raise KeyError(f"{name}: got the keys {sorted(map(str, given))[:5]}, expected {key!r} among them")
    return given[key]


def replaced(params: Mapping[str, Tensor], key: str, own: Tensor) -> Tensor:
    """What stands in place of an own parameter: of its shape, or with axes of networks in front."""
    found = entry("params", params, key)
    if not isinstance(found, Tensor):
        raise TypeError(f"params: got {described(found)} under {key!r}, expected a torch.Tensor")
    if found.shape[found.ndim - own.ndim :] != own.shape:
        said = f"shape {tuple(found.shape)} under {key!r}"
        raise ValueError(f"params: got {said}, expected {tuple(own.shape)}, or that with networks in front")
    return found
