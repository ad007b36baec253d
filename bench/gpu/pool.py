"""Worker processes that run named items one at a time: a crash or a hang costs one item, and the rest goes on."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import IO, Any

Record = dict[str, Any]
# States that make a run fail.
FAILURES = ("failed", "crashed", "hung")


@dataclass(frozen=True)
class Settings:
    """What every item of a run knows.

    Args:
        out: Folder of the results.
        quick: Whether sizes are small.
        commit: Of the source tree, for the rows.
        seconds: Budget of the rounds of one measured workload.
    """

    out: str
    quick: bool
    commit: str
    seconds: float

    def to_json(self) -> str:
        """The settings as text."""
        return json.dumps(asdict(self))


class Worker:
    """One process of worker.py, started when it is needed.

    Args:
        settings: For the items.
        log: Where everything goes that the process prints.
    """

    def __init__(self, settings: Settings, log: IO[bytes]) -> None:
        self.settings = settings
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, item: str, limit: float) -> Record:
        """Run an item and return its record, also where the process does not survive it."""
        if self.process is None:
            self.process = self._start()
        process, start = self.process, time.monotonic()
        record: Record = {"item": item, "state": "hung", "line": f"no answer within {limit:.0f} s"}
        answer = self._ask(process, item, limit)
        if answer:
            record = json.loads(answer)
        elif answer is not None:
            code = process.wait()
            record |= {"state": "crashed", "line": f"the process ended with code {code}; its last words are in the log"}
        if record["state"] in ("hung", "crashed"):
            self.stop()
        return {**record, "seconds": round(time.monotonic() - start, 3)}

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fastsiren.bench.gpu.worker", self.settings.to_json()]
        # Inductor would start a pool of compilers in every worker.
        environment = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        pipe = subprocess.PIPE
        # A session of its own, so that what it starts can be ended with it.
        return subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, stderr=self.log, start_new_session=True
        )

    def _ask(self, process: subprocess.Popen[bytes], item: str, limit: float) -> bytes | None:
        """Return the line that answers an item; empty where the process died, None where it stays silent."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{item}\n".encode())
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        ready, _, _ = select.select([process.stdout], [], [], limit)
        return process.stdout.readline() if ready else None

    def stop(self) -> None:
        """End the process and what it started."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # What could not be written to a dead process stays in the buffer.
        try:
            process.stdin.close()
        except BrokenPipeError:
            return


def run_items(
    items: Iterable[str],
    settings: Settings,
    log: IO[bytes],
    *,
    workers: int,
    deadline: float,
    limit: float,
    done: Callable[[Record], None],
) -> None:
    """Run items in order, by a number of processes, and hand over every record as soon as it is there.

    Args:
        items: Names, as worker.py reads them.
        settings: For the items.
        log: Where everything goes that the processes print.
        workers: Number of processes.
        deadline: By time.monotonic(): nothing runs longer, and an item that was cut off or not begun is "not reached".
        limit: Seconds after which an item hangs.
        done: What takes the records; called by one thread at a time.
    """
    todo, lock = deque(items), threading.Lock()
    pool = [Worker(settings, log) for _ in range(max(1, min(workers, len(todo))))]

    def work(worker: Worker) -> None:
        while True:
            with lock:
                if not todo:
                    break
                item = todo.popleft()
            record = _within(worker, item, deadline, limit)
            with lock:
                done(record)
        worker.stop()

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in pool]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        # After Ctrl-C no process outlives this one.
        todo.clear()
        for worker in pool:
            worker.stop()


def _within(worker: Worker, item: str, deadline: float, limit: float) -> Record:
    left = deadline - time.monotonic()
    missed: Record = {"item": item, "state": "not reached", "line": "the time of its stage was over", "seconds": 0.0}
    if left <= 0:
        return missed
    record = worker.run(item, min(limit, left))
    return {**missed, "seconds": record["seconds"]} if record["state"] == "hung" and left < limit else record
