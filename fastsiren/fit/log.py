"""The log of a training: one JSON line per step, appended to a file, and events for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..faults import UsageError, from_os_error
from .loop import Step

__all__ = ["Log"]

_START = b'{"step": '


class Log:
    """A file that every step is appended to at once; its errors name --log.

    Args:
        path: The file; it may exist when it is a log already. None writes none.
        tensorboard: A directory of events for TensorBoard; None writes none.

    Raises:
        UsageError: The file holds something else than a log, or TensorBoard is not installed.
        OutputError: It cannot be opened; `write` raises `NoSpaceError` when the file system is full.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, tensorboard: str | os.PathLike[str] | None = None
    ) -> None:
        self._path = os.devnull if path is None else path
        self._events = None if tensorboard is None else _events(tensorboard)
        with self._named():
            if os.path.isfile(self._path):
                self._refuse_others()
            # Without a buffer nothing is left to write, and to fail, when it is closed.
            self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115
            self._end_last_line()

    def _refuse_others(self) -> None:
        with open(self._path, "rb") as file:
            start = file.read(len(_START))
            if start and start != _START:
                raise UsageError(f"{self._path} is no log of a fit; choose another file with --log")

    def _end_last_line(self) -> None:
        """A full disk or a kill may have left the last line without its end."""
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, step: Step, figures: Mapping[str, float] | None = None) -> None:
        """Append a step, with figures of merit where it was measured."""
        values = {"loss": step.loss, **(figures or {})}
        line = json.dumps({"step": step.number, **values}).encode() + b"\n"
        with self._named():
            while line:
                line = line[self._file.write(line) :]
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step.number)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors of the system into faults that name the file and its option."""
        try:
            yield
        except OSError as error:
            raise from_os_error(error, str(self._path), "write", option="--log") from None


def _events(directory: str | os.PathLike[str]) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard; run: pip install 'fastsiren[tensorboard]'")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(os.fspath(directory))
