"""Words of the command line as numbers, each with an error that says what is accepted."""

from __future__ import annotations

import argparse
import math

__all__ = ["number", "positive", "resolution", "seed", "size", "threads"]

# More than any machine has; far beyond it, the threads of libraries crash instead of refusing.
_MOST_THREADS = 1024


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole(text, 1, math.inf, "of 1 or more")


def resolution(text: str) -> int:
    """Grid points along an axis."""
    value = positive(text)
    if value < 8:
        raise argparse.ArgumentTypeError(f"must be a whole number of 8 or more; got {text!r}")
    return value


def threads(text: str) -> int:
    """A number of threads."""
    value = positive(text)
    if value > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {_MOST_THREADS}; got {text!r}")
    return value


def seed(text: str) -> int:
    """A seed."""
    return _whole(text, 0, 2**63, "from 0 to 2**63 - 1")


def _whole(text: str, least: int, end: float, accepted: str) -> int:
    """A whole number from `least` to below `end`."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < end:
        raise argparse.ArgumentTypeError(f"must be a whole number {accepted}; got {text!r}")
    return value


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number; got {text!r}")
    return value


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT -> (height, width)."""
    width, cross, height = text.lower().partition("x")
    try:
        shape = int(height), int(width)
    except ValueError:
        shape = (0, 0)
    if not cross or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, such as 2048x1536, both 1 or more; got {text!r}")
    return shape
