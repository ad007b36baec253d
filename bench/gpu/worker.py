"""A worker of `gpu`: reads names of items from standard input, runs them, and answers one line of JSON each.

An item is `group:name`. Everything that is printed meanwhile goes to standard error, which is the log of the run.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib import import_module
from typing import TextIO

import torch

from .items import Outcome, release, synchronize
from .pool import Record, Settings

# The module of each group; it has items(settings), names in the order of their importance, and run(name, settings).
GROUPS = {
    "environment": "environment",
    "pass": "checks",
    "behaviour": "behaviour",
    "sine": "sine",
    "sanitizer": "sanitizer",
    "prepare": "prepare",
    "product": "products",
    "tune": "tune",
    "measure": "measure",
}


def module(group: str) -> object:
    """Return the module of a group."""
    return import_module(f"{__package__}.{GROUPS[group]}")


def listed(group: str, settings: Settings) -> list[str]:
    """Return the items of a group."""
    return [f"{group}:{name}" for name in module(group).items(settings)]  # type: ignore[attr-defined]


def run(item: str, settings: Settings) -> Outcome:
    """Run one item."""
    group, name = item.split(":", 1)
    outcome: Outcome = module(group).run(name, settings)  # type: ignore[attr-defined]
    synchronize()
    release()
    return outcome


def answer(item: str, settings: Settings) -> Record:
    """Run one item and return its record; whatever it raises is its result."""
    try:
        outcome = run(item, settings)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        words = (str(error).strip().splitlines() or [""])[0]
        state = "failed" if usable() else "crashed"
        return {"item": item, "state": state, "line": f"{type(error).__name__}: {words[:300]}"}
    return {"item": item, "state": outcome.state, "line": outcome.line, **outcome.fields}


def usable() -> bool:
    """Tell whether the device still works; after a fault inside a kernel every call fails."""
    try:
        synchronize()
    except RuntimeError:
        return False
    return True


def serve(settings: Settings, report: TextIO) -> None:
    """Answer items until there are no more, or the device is lost."""
    for line in sys.stdin:
        record = answer(line.strip(), settings)
        report.write(json.dumps(record) + "\n")
        report.flush()
        if record["state"] == "crashed":
            return


def main() -> None:
    """Serve the process that started this one."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    serve(Settings(**json.loads(sys.argv[1])), report)


if __name__ == "__main__":
    main()
