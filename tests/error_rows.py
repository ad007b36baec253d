"""The form of the tables of errors: a function, what is wrong with a call of it, the error, words of its message.

Messages take one line and begin with the name of an argument that the row changes, or of an entry of one.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from torch import Tensor


class Call(NamedTuple):
    """A public function and arguments that it serves."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    free: tuple[str, ...] = ()
    """Arguments that may be anything, so that no row is needed for them."""


class Row(NamedTuple):
    """A call that is refused."""

    name: str
    changes: dict[str, Any]
    error: type[Exception]
    words: tuple[str, ...]


def rows(name: str, *cases: tuple[Any, ...]) -> list[Row]:
    """Make rows of (changes, error, word, word, ...)."""
    return [Row(name, changes, error, words) for changes, error, *words in cases]


def not_like(argument: str, good: Tensor) -> list[tuple[Any, ...]]:
    """Return cases for a tensor of wrong type, dtype, device or layout."""
    return [
        ({argument: None}, TypeError, "got None", "expected a torch.Tensor"),
        ({argument: good.tolist()}, TypeError, "of type ", "expected a torch.Tensor"),
        ({argument: good.numpy()}, TypeError, "of type ndarray, expected a torch.Tensor"),
        ({argument: good.long()}, TypeError, f"got dtype torch.int64, expected {good.dtype}"),
        ({argument: good + 0j}, TypeError, f"got dtype {(good + 0j).dtype}, expected {good.dtype}"),
        ({argument: good.half()}, TypeError, f"got dtype torch.float16, expected {good.dtype}"),
        ({argument: good.to("meta")}, ValueError, "got device meta, expected cpu"),
        ({argument: good.to_sparse()}, TypeError, "got layout torch.sparse_coo, expected torch.strided"),
    ]


def not_numbers(argument: str, *, or_none: bool = False) -> list[tuple[Any, ...]]:
    """Return cases for what is no finite number other than zero."""
    wrong = [True, "30", [30.0], *([] if or_none else [None])]
    return [
        *(({argument: given}, TypeError, f"got {given!r} of type", "expected a number") for given in wrong),
        *(({argument: given}, ValueError, f"got {given!r}, expected") for given in (0.0, float("nan"), float("inf"))),
    ]


def not_sizes(argument: str, least: int = 1) -> list[tuple[Any, ...]]:
    """Return cases for what is no whole number, or one below the least."""
    wrong = [True, "8", 8.0, [8], None]
    return [
        *(({argument: given}, TypeError, f"got {given!r} of type", "expected an int") for given in wrong),
        ({argument: least - 1}, ValueError, f"got {least - 1}, expected an int >= {least}"),
    ]


def not_flags(argument: str) -> list[tuple[Any, ...]]:
    """Return cases for what is neither True nor False."""
    return [({argument: given}, TypeError, f"got {given!r} of type", "expected True or False") for given in (1, None)]


def not_names(argument: str, *accepted: str) -> list[tuple[Any, ...]]:
    """Return cases for what is none of the names that are accepted."""
    return [
        ({argument: "no such"}, ValueError, "got 'no such', expected", *map(repr, accepted)),
        ({argument: 3}, TypeError, "got 3 of type int, expected", *map(repr, accepted)),
        ({argument: ["fp32"]}, TypeError, "got ['fp32'] of type list, expected", *map(repr, accepted)),
    ]


def identify(table: Iterable[Row]) -> list[Any]:
    """Give every row a name of its own."""
    return [pytest.param(row, id=f"{row.name}-{'-'.join(row.changes)}-{i}") for i, row in enumerate(table)]


def check(calls: dict[str, Call], row: Row) -> None:
    """Fail unless a call is refused as its row says."""
    call = calls[row.name]
    with pytest.raises(row.error) as caught:
        call.function(**{**call.arguments, **row.changes})
    said = str(caught.value.args[0])
    assert type(caught.value) is row.error, said
    assert "\n" not in said and all(word in said for word in row.words), said
    named = {part.split("[")[0] for part in said.partition(": ")[0].split(", ")}
    entries = {key for value in row.changes.values() if isinstance(value, dict) for key in value}
    assert named & {*row.changes, *entries}, said


def without_row(calls: dict[str, Call], table: Iterable[Row]) -> set[str]:
    """Return the arguments of public functions that no row changes."""
    changed = {f"{row.name}({argument})" for row in table for argument in row.changes}
    every = {
        f"{name}({argument})"
        for name, call in calls.items()
        for argument in inspect.signature(call.function).parameters
        if argument not in call.free
    }
    return every - changed
