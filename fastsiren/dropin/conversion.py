"""convert(): the SIRENs inside an existing module, evaluated by fastsiren, on the same parameters.

Modules are recognised by their structure, not by their class, since users have copies of it. Each conversion is checked
by evaluating both versions at a few points, values and gradients: whatever else a forward does is found and refused.
"""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..engine.network import Parameters
from ..engine.values import described
from . import coin, coinpp, lucidrains, metasdf, pigan
from .base import HOOKS, evaluate
from .chain import FusedChain, Refusal, frequency, is_layer, kinds, read_chain

# What a forward may raise when it is called with something that it was not made for.
_CALL_ERRORS = (TypeError, ValueError, LookupError, RuntimeError, AttributeError, AssertionError)


def convert(module: nn.Module) -> nn.Module:
    """The same module with its SIRENs evaluated in one pass each: same parameters, state dict and call.

    Parameters and inner modules are shared with the original, which stays as it is; the result is an instance of the
    class of the original too. Where the module as a whole is a SIREN, every operator of fastsiren takes it. One that
    already is one of fastsiren's is handed back.

    Args:
        module: a SIREN of any of the codes that fastsiren.dropin has classes for, as the user has its class; any chain
            of nn.Linear and sines in an nn.Sequential; or a model that holds such modules.

    Raises:
        TypeError: `module` is no nn.Module.
        ValueError: nothing in it can be converted; the message says why.

    Warns:
        UserWarning: some modules with sines are not evaluated as a whole, though others are, or parts of them.

    Example:
        >>> import torch, fastsiren
        >>> class Sine(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.sin(30 * x)
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 16), Sine(), torch.nn.Linear(16, 1))
        >>> fast = fastsiren.convert(net)
        >>> fast[0].weight is net[0].weight, list(fast.state_dict()) == list(net.state_dict())
        (True, True)
        >>> fastsiren.laplacian(fast, torch.rand(5, 2)).laplacian.shape
        torch.Size([5, 1])
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: got {described(module)}, expected a torch.nn.Module")
    refusals: list[str] = []
    found = _converted(module, type(module).__name__, refusals, {})
    if found is None:
        why = "; ".join(refusals) or "it has no chain of linear layers and sines"
        raise ValueError(f"module: nothing in {type(module).__name__} can be converted: {why}")
    if refusals:
        warnings.warn(f"convert: not evaluated as a whole: {'; '.join(refusals)}", stacklevel=2)
    return found


class Delegate(nn.Module):
    """A module whose result is that of one of its children, a SIREN."""

    delegate: str

    def siren_parameters(self) -> Parameters:
        """The network as it is now."""
        return getattr(self, self.delegate).siren_parameters()


class Family(NamedTuple):
    """One structure of modules."""

    matches: Callable[[Any], bool]
    mixin: Callable[[Any], type[nn.Module]]
    """The class whose methods replace those of the original."""
    calls: Callable[[Any, Callable[..., Tensor]], Iterator[tuple[str, tuple[Tensor, ...]]]]
    """Methods to compare, with arguments made by a function of shapes."""


def _converted(module: nn.Module, name: str, refusals: list[str], known: dict[int, nn.Module]) -> nn.Module | None:
    """The module converted, itself or its children; None if there is nothing to convert."""
    if id(module) in known:
        return known[id(module)]
    if callable(getattr(module, "siren_parameters", None)):
        return module
    refusal = None
    try:
        found = _as_chain(module)
        found = _as_family(module) if found is None else found
    except Refusal as error:
        found, refusal = None, f"{name}: {error}"
    if found is None:
        found = _with_children(module, name, refusals, known)
    if found is not None:
        known[id(module)] = found
    if refusal is not None:
        refusals.append(refusal)
    return found


def _with_children(module: nn.Module, name: str, refusals: list[str], known: dict[int, nn.Module]) -> nn.Module | None:
    children = {key: child for key, child in module._modules.items() if child is not None}
    found = {key: _converted(child, f"{name}.{key}", refusals, known) for key, child in children.items()}
    replaced = {key: child for key, child in found.items() if child is not None}
    if not replaced:
        return None
    new = _shared(module, type(module))
    new._modules.update(replaced)
    sirens = [key for key, child in replaced.items() if callable(getattr(child, "siren_parameters", None))]
    if len(sirens) == 1 and _is_only(module, replaced[sirens[0]]):
        new = _shared(new, _class(Delegate, type(module)))
        new.__dict__["delegate"] = sirens[0]
    return new


def _as_chain(module: nn.Module) -> nn.Module | None:
    links = read_chain(module) if isinstance(module, nn.Sequential) else None
    if links is None:
        return None
    _refuse_hooks(module)
    new = _shared(module, _class(FusedChain, type(module)))
    new.__dict__.update(links=links, kinds=kinds(module))
    inputs = new.get_submodule(links[0].linear).weight.shape[1]
    _compare(module, new, "forward", (_points(module)(4, inputs),))
    return new


def _as_family(module: nn.Module) -> nn.Module | None:
    family = next((family for family in _FAMILIES if family.matches(module)), None)
    if family is None:
        return None
    mixin = family.mixin(module)
    _refuse_hooks(module, *getattr(mixin, "called", ()))
    new = _shared(module, _class(mixin, type(module)))
    for method, arguments in family.calls(module, _points(module)):
        _compare(module, new, method, arguments)
    return new


def _refuse_hooks(module: nn.Module, *called: str) -> None:
    for name, child in module.named_modules():
        if name and name.partition(".")[0] not in called and any(getattr(child, kind) for kind in HOOKS):
            raise Refusal(f"{name} has hooks, which one pass does not run")


# Classes and copies


_MADE: dict[tuple[Any, Any], Any] = {}


def _class(mixin: Any, original: Any) -> Any:
    """The original's class with the methods of a mixin in front."""

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        # A class made here cannot be found by its name when an object of it is loaded.
        return _empty, (mixin, original), self.__dict__

    if (mixin, original) not in _MADE:
        names = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__reduce_ex__": reduce}
        _MADE[mixin, original] = type(original.__name__, (mixin, original), names)
    return _MADE[mixin, original]


def _empty(mixin: Any, original: Any) -> Any:
    """An object that its state is still to be given to."""
    made = _class(mixin, original)
    return made.__new__(made)


def _shared(module: nn.Module, made: Any) -> Any:
    """An object of another class with the same parameters, buffers and children."""
    new = made.__new__(made)
    for key, value in module.__dict__.items():
        # The registers of nn.Module are its own, what is in them is shared.
        own = key.startswith("_") and isinstance(value, (dict, set))
        new.__dict__[key] = copy.copy(value) if own else value
    return new


# Comparison with the original


def _points(module: nn.Module) -> Callable[..., Tensor]:
    """Makes numbers in [-1, 1] of a shape, in the dtype and on the device of a module."""
    like = next(module.parameters())
    if like.device.type == "meta":
        raise Refusal("its parameters are on the meta device, so there is nothing to compare")
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: (torch.rand(shape, generator=generator) * 2 - 1).to(like).requires_grad_()


def _compare(module: nn.Module, new: nn.Module, method: str, arguments: tuple[Tensor, ...]) -> None:
    """Raise unless a method gives the same values and gradients in both modules."""
    if any(isinstance(child, nn.Dropout) and child.training and child.p for child in module.modules()):
        raise Refusal("dropout is active, so there is nothing to compare; call eval() first")
    results = [_evaluated(net, method, arguments) for net in (new, module)]
    names = ["values", *["gradients"] * len(arguments)]
    for what, ours, theirs in zip(names, *results, strict=True):
        if not _equal(ours, theirs):
            raise Refusal(f"its {method} has other {what} than a SIREN of its layers, so it does something more")


def _evaluated(net: nn.Module, method: str, arguments: tuple[Tensor, ...]) -> list[Tensor | None]:
    try:
        with torch.enable_grad():
            y = getattr(net, method)(*arguments)
            if isinstance(y, Tensor):
                return [y.detach(), *torch.autograd.grad(y.float().sum(), arguments, allow_unused=True)]
    except _CALL_ERRORS as error:
        raise Refusal(f"its {method} cannot be called: {type(error).__name__}: {error}") from None
    raise Refusal(f"its {method} returns a {type(y).__name__}, expected a tensor")


def _equal(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    tolerance = {torch.float64: 1e-8, torch.float32: 1e-3}.get(ours.dtype, 0.1)
    error, size = (ours - theirs).abs().max(), theirs.abs().max()
    return bool(error <= tolerance * size + torch.finfo(ours.dtype).eps)


def _is_only(module: nn.Module, siren: Any) -> bool:
    """Whether a module's result, alone or first of several, is the value of a SIREN at what it was called with."""
    required = [
        p for p in inspect.signature(module.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]  # fmt: skip
    if len(required) != 1:
        return False
    params = siren.siren_parameters()
    x = _points(module)(1, 4, params.weights[0].shape[-1]).detach()
    with torch.no_grad():
        expected = evaluate(x, params)
    return any(_equal(expected, result) for result in _results(module, x))


def _results(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """What a module makes of coordinates, given as they are or in a dict."""
    for given in (x, {"coords": x}):
        try:
            result = module.forward(given)
        except _CALL_ERRORS:
            # It takes its coordinates in another way.
            continue
        value = result.get("model_out") if isinstance(result, dict) else result
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, Tensor):
            yield value.detach()


# Structures that are no nn.Sequential as a whole


def _is_sine(activation: Any) -> bool:
    return isinstance(activation, nn.Module) and hasattr(activation, "w0") and frequency(activation) == ("w0", None)


def _all_sines(layers: Any, container: type[nn.Module]) -> bool:
    """Whether a container holds layers with sines alone, whose frequency is w0."""
    if not isinstance(layers, container):
        return False
    children = list(layers.children())
    return bool(children) and all(
        is_layer(child) and _is_sine(getattr(child, "activation", None)) for child in children
    )


def _is_stack(module: Any) -> bool:
    layers = getattr(module, "net", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) < 2:
        return False
    return all(is_layer(layer) and hasattr(layer, "omega_0") for layer in layers[:-1])


def _is_coin(module: Any) -> bool:
    last = getattr(module, "last_layer", None)
    return isinstance(last, nn.Module) and is_layer(last) and _all_sines(getattr(module, "net", None), nn.Sequential)


def _is_lucidrains(module: Any) -> bool:
    last = getattr(module, "last_layer", None)
    return isinstance(last, nn.Module) and is_layer(last) and _all_sines(getattr(module, "layers", None), nn.ModuleList)


def _is_pigan(module: Any) -> bool:
    parts = ("network", "final_layer", "color_layer_sine", "color_layer_linear", "mapping_network")
    return all(isinstance(getattr(module, part, None), nn.Module) for part in parts)


def _like_coin(module: Any) -> type[nn.Module]:
    if hasattr(module, "modulation_net"):
        return coinpp.ModulatedSiren
    return coinpp.Siren if getattr(module.last_layer, "is_last", False) else coin.Siren


def _at_points(module: Any, points: Callable[..., Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    layers = getattr(module, "net", None) or module.layers
    inputs = getattr(layers[0], "linear", layers[0]).weight.shape[1]
    yield "forward", (points(2, 4, inputs),)
    if hasattr(module, "modulation_net"):
        yield "modulated_forward", (points(2, 4, inputs), points(2, module.modulation_net.latent_dim))


def _at_noise(module: Any, points: Callable[..., Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    inputs, noise = module.network[0].layer.in_features, module.mapping_network.network[0].in_features
    yield "forward", (points(2, 4, inputs), points(2, noise), points(2, 4, 3))


_FAMILIES = [
    Family(_is_stack, lambda module: metasdf.Siren, _at_points),
    Family(_is_coin, _like_coin, _at_points),
    Family(_is_lucidrains, lambda module: lucidrains.SirenNet, _at_points),
    Family(
        _is_pigan,
        lambda module: pigan.SPATIALSIRENBASELINE if hasattr(module, "gridwarper") else pigan.TALLSIREN,
        _at_noise,
    ),
]
