"""Settings of an experiment: a frozen dataclass whose fields know their range, their help and so their option."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeVar

from ..faults import UsageError

__all__ = ["RoundSettings", "Settings", "option"]

# Seeds and sizes are integers of 64 bits in torch.
_LARGEST = 2**63 - 1

Given = TypeVar("Given", bound="Settings")


def option(
    default: Any, help: str, *, least: float | None = None, choices: tuple[str, ...] = (), fixed: bool = False
) -> Any:
    """A field of `Settings`.

    Args:
        default: Its type, int, float, bool or str, is that of the option.
        help: What it is, with its unit, for the command line.
        least: Smallest number that makes sense; a float without one must be positive.
        choices: What a str may be; empty means anything.
        fixed: Decides the shape of the network or the data, hence cannot change when a training goes on.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "least": least, "choices": choices, "fixed": fixed}
    )


@dataclass(frozen=True)
class Settings:
    """What every training has. Subclasses add fields made by `option` and give others new defaults.

    Raises:
        UsageError: A value is of the wrong type or out of range.

    Example:
        >>> Settings(steps=10, lr=1e-3).steps
        10
    """

    steps: int = option(1000, "training steps", least=1)
    hidden: int = option(256, "width of the sine layers", least=1, fixed=True)
    layers: int = option(3, "hidden layers behind the first", least=0, fixed=True)
    omega: float = option(30.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-4, "highest learning rate of Adam")
    batch: int = option(4096, "points per step", least=1)
    seed: int = option(0, "of the initial weights and the samples", least=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))

    @classmethod
    def names(cls) -> list[str]:
        """Names of all settings."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def of(cls: type[Given], given: dict[str, Any], **defaults: Any) -> Given:
        """Settings from keyword arguments of a function, whose errors they raise.

        Args:
            given: By name, as the user gave them.
            **defaults: Values for those that are not given.

        Raises:
            TypeError: A name is unknown.
            UsageError: A value makes no sense.
        """
        unknown = sorted(set(given) - set(cls.names()))
        if unknown:
            raise TypeError(f"unknown setting {unknown[0]!r}; known are {', '.join(cls.names())}")
        return cls(**{**defaults, **given})

    def resumed(self: Given, given: dict[str, Any], where: str) -> Given:
        """These settings, read from a file, with those given now.

        Raises:
            UsageError: A fixed one is given another value.
        """
        for field in dataclasses.fields(self):
            kept = getattr(self, field.name)
            if field.metadata["fixed"] and given.get(field.name, kept) != kept:
                raise UsageError(
                    f"{flag(field.name)} {given[field.name]} does not fit {where}, which has {kept}; "
                    "leave it out, or use --overwrite to start anew"
                )
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class RoundSettings(Settings):
    """Settings of a training that begins with Adam and ends with L-BFGS.

    Example:
        >>> RoundSettings(steps=10, rounds=4).adam_steps
        6
    """

    rounds: int = option(10, "how many of the steps, the last ones, are rounds of L-BFGS", least=0)

    @property
    def adam_steps(self) -> int:
        """The steps before the rounds."""
        return max(0, self.steps - self.rounds)


def flag(name: str) -> str:
    """The option of a setting: --name."""
    return f"--{name.replace('_', '-')}"


def _checked(field: dataclasses.Field[Any], given: Any) -> Any:
    """The value as its plain type."""
    least: float | None = field.metadata["least"]
    kind: type = type(field.default)
    if kind is bool or kind is str:
        choices = field.metadata["choices"]
        if type(given) is not kind or (choices and given not in choices):
            expected = f"one of {', '.join(choices)}" if choices else "yes or no" if kind is bool else "a text"
            raise UsageError(f"{flag(field.name)} must be {expected}; got {given}")
        return given
    number = not isinstance(given, bool) and isinstance(given, Integral if kind is int else Real)
    if kind is int:
        if not number or (least is not None and given < least):
            raise UsageError(f"{flag(field.name)} must be a whole number of {least} or more; got {given}")
        if given > _LARGEST:
            raise UsageError(f"{flag(field.name)} must be at most 2**63 - 1; got {given}")
        return int(given)
    value = float(given) if number else math.nan
    if not math.isfinite(value) or (value <= 0 if least is None else value < least):
        expected = "a positive number" if least is None else f"a number of {least:g} or more"
        raise UsageError(f"{flag(field.name)} must be {expected}; got {given}")
    return value
