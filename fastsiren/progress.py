"""Progress of long work on standard error: a live bar on a terminal with rich, plain lines otherwise."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress"]

_LINE_EVERY = 5.0
_REDRAW_EVERY = 0.1


def _clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Progress:
    """A context manager that shows how far the work is, its rate and the time left.

    Args:
        title: What is being done, one or two words.
        total: Amount of work.
        done: Amount done before this run; it does not count for the rate.
        unit: Name of one piece of work, for the rate.
        scale: Pieces per shown unit, such as 1e6 for "Mpx".
        enabled: False shows nothing.
    """

    def __init__(
        self, title: str, total: int, *, done: int = 0, unit: str = "step", scale: float = 1, enabled: bool = True
    ) -> None:
        self._title, self._total, self._unit, self._scale, self._enabled = title, total, unit, scale, enabled
        self._first = self._done = done
        self._figures = ""
        self._live: Any = None
        self._begun = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        self._begun = self._shown = time.monotonic()
        if self._enabled and sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
            self._live = _rich_bar(self._title, self._total, self._done)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._draw()
            self._live.stop()
        elif self._enabled and self._done > self._first:
            self._print()

    def update(self, done: int, **figures: str) -> None:
        """Tell how much is done now, with figures to show beside it."""
        self._done = done
        self._figures = "  ".join(f"{name} {value}" for name, value in figures.items())
        now = time.monotonic()
        if not self._enabled or now - self._shown < (_LINE_EVERY if self._live is None else _REDRAW_EVERY):
            return
        self._shown = now
        if self._live is None:
            self._print()
        else:
            self._draw()

    def _rate(self) -> float:
        """Pieces per second in this run."""
        return (self._done - self._first) / max(time.monotonic() - self._begun, 1e-9)

    def _status(self) -> str:
        rate = self._rate()
        left = _clock((self._total - self._done) / rate) if rate > 0 else "?"
        return f"{self._figures}  {rate / self._scale:.3g} {self._unit}/s  left {left}".strip()

    def _print(self) -> None:
        percent = 100 * self._done / max(self._total, 1)
        print(f"{self._title} {percent:5.1f} %  {self._status()}", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        self._live.update(self._live.tasks[0].id, completed=self._done, status=self._status(), refresh=True)


def _rich_bar(title: str, total: int, done: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[status]}"))
    bar = RichProgress(*columns, console=Console(stderr=True), auto_refresh=False)
    bar.add_task(title, total=total, completed=done, status="")
    return bar
