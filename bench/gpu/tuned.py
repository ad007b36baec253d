"""The table of tiles and sines that a run found, in its folder and in the form of kernels/tuned.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from fastsiren.kernels import configs

from .pool import Settings

NAME = "tuned.json"


def read(settings: Settings) -> dict[str, Any]:
    """Return the table of this run, empty before anything was tuned."""
    path = Path(settings.out, NAME)
    return json.loads(path.read_text()) if path.exists() else {}


def shipped() -> dict[str, Any]:
    """Return the table beside the kernels."""
    return configs._tuned()


def write(settings: Settings, found: Mapping[str, Any]) -> None:
    """Add entries to the table of this run, which begins with the shipped one."""
    table = {**shipped(), **read(settings), **found}
    lines = (f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in sorted(table.items()))
    Path(settings.out, NAME).write_text("{\n" + ",\n".join(f"  {line}" for line in lines) + "\n}\n")


@contextmanager
def using(table: Mapping[str, Any]) -> Iterator[None]:
    """Let kernels take their tiles and sines from a table."""
    with mock.patch.object(configs, "_tuned", lambda: table):
        yield


@contextmanager
def applied(settings: Settings) -> Iterator[None]:
    """Let kernels take what this run found."""
    with using({**shipped(), **read(settings)}):
        yield
