"""Checks of plain values at the public edge: each error names the argument, what was given and what is accepted."""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

_LONGEST = 60


def described(given: object) -> str:
    """What was given, on one line: a tensor by its shape, dtype and device, anything else by its value and type."""
    if isinstance(given, Tensor):
        return f"a torch.Tensor of shape {tuple(given.shape)}, {given.dtype} on {given.device}"
    if isinstance(given, type):
        return f"{given.__name__} itself"
    if isinstance(given, torch.nn.Module):
        return f"a module {type(given).__name__}"
    text = " ".join(repr(given).split())
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return f"{text} of type {type(given).__name__}"


def whole_number(name: str, given: object, *, least: int) -> int:
    """`given` as an int, once it is known to be an integer, of whatever library, of `least` or more."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"{name}: got {described(given)}, expected an int")
    if given < least:
        raise ValueError(f"{name}: got {given}, expected an int >= {least}")
    return int(given)


def number(name: str, given: Any) -> float:
    """`given` as a float, once it is known to be a number, of whatever library."""
    try:
        # Text is no number, and a tensor would lose its gradient.
        if not isinstance(given, (bool, str, bytes, Tensor)):
            return float(given)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{name}: got {described(given)}, expected a number")


def frequency(name: str, given: Any) -> float:
    """`given` as a float, once it is known to be the omega of a layer."""
    omega = number(name, given)
    if not math.isfinite(omega) or omega == 0:
        raise ValueError(f"{name}: got {given!r}, expected a finite number other than zero")
    return omega


def flag(name: str, given: bool) -> bool:
    """`given`, once it is known to be True or False."""
    if not isinstance(given, bool):
        raise TypeError(f"{name}: got {described(given)}, expected True or False")
    return given


def one_of(name: str, given: str | None, accepted: Sequence[str], *, or_none: bool = False, note: str = "") -> Any:
    """`given`, once it is known to be one of the names accepted, or None if that is; `note` ends the message."""
    if (given is None and or_none) or (isinstance(given, str) and given in accepted):
        return given
    said, error = (repr(given), ValueError) if isinstance(given, str) else (described(given), TypeError)
    choices = f"one of {', '.join(map(repr, accepted))}{note}"
    raise error(f"{name}: got {said}, expected {'None or ' if or_none else ''}{choices}")


def listed(name: str, given: Iterable[Any], of: str) -> list[Any]:
    """`given` as a list; a tensor or a text is none."""
    if isinstance(given, (Tensor, str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"{name}: got {described(given)}, expected a list of {of}")
    return list(given)


def floating(name: str, given: torch.dtype) -> torch.dtype:
    """`given`, once it is known to be a floating-point dtype."""
    if not isinstance(given, torch.dtype):
        raise TypeError(f"{name}: got {described(given)}, expected a torch.dtype")
    if not given.is_floating_point:
        raise ValueError(f"{name}: got {given}, expected a floating-point dtype")
    return given
