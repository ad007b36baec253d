"""What every experiment must do when it is stopped: go on to the same bits."""

import os
from contextlib import contextmanager

from fastsiren.fit import Options, Trainer
from fastsiren.problems.experiment import solve

QUIET = Options(progress=False)


@contextmanager
def stop_in_step(monkeypatch, count):
    """Inside the block the process gets SIGINT when a step of training begins for the count-th time."""
    advance, calls = Trainer.advance, []

    def ask(self):
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), 2)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", ask)
        yield


def goes_on_to_the_same_bits(kind, home, monkeypatch, *, after, again=None, **settings):
    """Run an experiment whole, and once more with a stop after some steps; the checkpoints must be equal.

    What `again` holds is given when it goes on, and nothing else.
    """
    again = again or {}
    settings = {**settings, **again}
    label = kind.label(kind.options(**settings))
    whole = solve(kind, out=home / "whole", options=QUIET, **settings)
    with stop_in_step(monkeypatch, after):
        stopped = solve(kind, out=home / "part", options=QUIET, **settings)
    assert stopped.exit_code == 130 and stopped.trained[label].steps == after
    rest = solve(kind, out=home / "part", resume=True, options=QUIET, **again)
    assert rest.exit_code == 0 and rest.figures == whole.figures
    name = f"{label}.safetensors"
    assert (home / "part" / name).read_bytes() == (home / "whole" / name).read_bytes()
