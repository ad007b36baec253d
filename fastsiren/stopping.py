"""Ctrl-C and SIGTERM ask for a stop; the work decides where it can stop well. A second Ctrl-C forces."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stop", "handled_by", "stop_on_signals"]


class Stop:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + signal number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM; 0 without a stop."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM inside the block into a flag.

    Outside the main thread, where Python sets no signal handlers, the flag simply stays down.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        # The next one acts as if this block were not there: Ctrl-C raises, SIGTERM ends the process.
        signal.signal(number, previous[number])

    with handled_by(ask) as previous:
        yield stop


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[int, Any]]:
    """Have a function called for SIGINT and SIGTERM inside the block; yields the handlers it stands in for.

    Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A shell starts background jobs with SIGINT ignored; that stays as it is.
    previous = {number: found for number, found in handlers.items() if found not in (signal.SIG_IGN, None)}
    for number in previous:
        signal.signal(number, handler)
    try:
        yield previous
    finally:
        for number, found in previous.items():
            signal.signal(number, found)
