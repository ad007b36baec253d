"""One training from its first step, or from where it was stopped, to its end: progress, log, checkpoints, signals."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

from torch import nn

from ..faults import Fault, InputError
from ..progress import Progress
from ..stopping import Stop, stop_on_signals
from ..tensorfile import TensorFile
from . import checkpoint as checkpoints
from .log import Log
from .loop import Step, Trainer, run
from .problem import Problem
from .settings import Given

__all__ = ["Options", "Trained", "found_settings", "train"]

Path = str | os.PathLike[str]
Curve = list[tuple[int, dict[str, float]]]


class Options(NamedTuple):
    """How a training is watched and kept."""

    target: float | None = None
    """Stop when the problem's figure of merit is this good."""
    progress: bool = True
    """Show progress on standard error."""
    save_every: float = 30.0
    """Seconds between checkpoints."""
    compact: bool = False
    """Leave out of the final file what only going on needs: a third of the size."""
    log: Path | None = None
    """JSON lines with every step's loss, appended; see `fastsiren.fit.Log`."""
    tensorboard: Path | None = None
    """Directory of events for TensorBoard."""


class Trained(NamedTuple):
    """A network that was trained."""

    net: nn.Module
    finished: nn.Module
    """What the problem makes of it: the network itself unless it says otherwise."""
    figures: dict[str, float]
    """As the problem measures them."""
    curve: Curve
    """Figures on the way: step and figures."""
    steps: int
    seconds: float
    """Spent training in this call."""
    exit_code: int
    """0, or 128 + the number of the signal that stopped the training."""


def found_settings(
    found: TensorFile, path: Path, kind: type[Problem], settings: type[Given], given: dict[str, Any]
) -> Given:
    """Settings of a checkpoint with those given now.

    Raises:
        InputError: The checkpoint is of another problem, or damaged.
        UsageError: A setting given now does not fit the checkpoint.
    """
    if found.description.get("problem") != kind.name:
        raise InputError(f"{path} holds a {found.description.get('problem')!r}, not a {kind.name!r}")
    try:
        kept = settings(**found.description["settings"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} describes a training that cannot be; use --overwrite to start anew") from None
    return kept.resumed(given, str(path))


def train(
    problem: Problem,
    net: nn.Module,
    *,
    out: Path | None = None,
    found: TensorFile | None = None,
    options: Options | None = None,
    stop: Stop | None = None,
    title: str = "fit",
) -> Trained:
    """Train a network until the settings' steps are done, the target is reached or a signal asks for a stop.

    Ctrl-C or SIGTERM finish the step and save; the state that is saved goes on as if nothing had happened.

    Args:
        problem: What is to be learnt.
        net: The network; its parameters are updated in place.
        out: Checkpoint to write, under an `output_lock` that the caller holds; None writes nothing.
        found: A checkpoint of the same problem to go on from, as `checkpoint.read` gave it.
        options: How it is watched and kept; None takes the defaults of `Options`.
        stop: Signals that the caller listens to; None listens here.
        title: Shown with the progress.

    Raises:
        InputError: The checkpoint does not belong to the problem.
        OutputError: A file cannot be written; `NoSpaceError` when it does not fit.
        NonFiniteError: The loss became NaN or infinite; the last good state is saved.
    """
    with ExitStack() as stack:
        options = options or Options()
        session = _Session(problem, net, out, options)
        if found is not None:
            session.go_on(found)
        if options.log is not None or options.tensorboard is not None:
            session.log = stack.enter_context(closing(Log(options.log, tensorboard=options.tensorboard)))
        # A Stop that nobody asked for yet is false.
        listened = stack.enter_context(stop_on_signals()) if stop is None else stop
        return session.train(listened, title)


class _Session:
    log: Log | None = None

    def __init__(self, problem: Problem, net: nn.Module, out: Path | None, options: Options) -> None:
        self.problem, self.net, self.out, self.options = problem, net, out, options
        loss: Callable[[int], Any] = lambda step: problem.loss(net, step)  # noqa: E731
        self.trainer = Trainer(
            net, loss, rate=problem.rate, clip=problem.clip, lbfgs_from=problem.lbfgs_from(),
            lbfgs_round=problem.lbfgs_round,
        )  # fmt: skip
        self.smooth, self.saved = math.nan, 0.0
        self.figures: dict[str, float] = {}
        self.curve: Curve = []
        steps, times = problem.settings.steps, problem.measured
        # Close together at first, where figures change fast.
        self.points = {max(1, round(steps * (i / times) ** 2)) for i in range(1, times + 1)} if times else set()

    def go_on(self, found: TensorFile) -> None:
        """Take the state of a checkpoint, once it is known to belong here."""
        for name, value in self.problem.identity().items():
            if found.description.get(name) != value:
                raise InputError(
                    f"{self.out} was fitted to another {self.problem.data}; give that one, or use --overwrite to start "
                    "anew"
                )
        checkpoints.restore(self.out or "the checkpoint", found, self.trainer)
        self.curve = [(int(step), dict(figures)) for step, figures in found.description.get("curve", [])]

    def train(self, stop: Stop, title: str) -> Trained:
        steps, first = self.problem.settings.steps, self.trainer.step
        begun = self.saved = time.monotonic()
        try:
            with Progress(title, steps, done=first, enabled=self.options.progress) as shown:
                run(self.trainer, steps, lambda step: self._after(step, shown) or bool(stop))
        except Fault:
            # What was trained so far is worth keeping, whatever went wrong.
            self._save(compact=False)
            raise
        seconds = time.monotonic() - begun
        made = self.net if stop else self.problem.finished(self.net, stop, progress=self.options.progress)
        self.figures = self.problem.measure(made)
        self._save(compact=self.options.compact and not stop)
        return Trained(self.net, made, self.figures, self.curve, self.trainer.step, seconds, stop.exit_code)

    def _after(self, step: Step, shown: Progress) -> bool:
        """Show, log and save after a step; True when the target is reached."""
        # The loss of one batch is noisy: show a running mean over about 20 steps.
        self.smooth = step.loss if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * step.loss
        estimate = self.problem.estimate(self.smooth)
        merit = {} if estimate is None else {self.problem.merit: f"{estimate:.4g}"}
        shown.update(step.number, loss=f"{self.smooth:.3e}", **merit)
        measured = self.problem.measure(self.net) if step.number in self.points else None
        if measured is not None:
            self.curve.append((step.number, measured))
        if self.log is not None:
            self.log.write(step, measured or {})
        if time.monotonic() - self.saved >= self.options.save_every:
            self._save(compact=False)
        return self._reached(step, estimate, measured)

    def _reached(self, step: Step, estimate: float | None, measured: dict[str, float] | None) -> bool:
        """Whether the exact figure is at the target; measured only when the estimate says it may be."""
        target, problem = self.options.target, self.problem
        if target is None:
            return False
        if measured is None and estimate is not None and step.number % 50 == 0 and problem.better(estimate, target):
            measured = problem.measure(self.net)
        return measured is not None and problem.better(measured[problem.merit], target)

    def _save(self, *, compact: bool) -> None:
        if self.out is None:
            return
        settings = {name: getattr(self.problem.settings, name) for name in self.problem.settings.names()}
        description = {
            "problem": self.problem.name,
            **self.problem.identity(),
            "settings": settings,
            "step": self.trainer.step,
            # JSON has no infinity: what is not finite was not measured well.
            "figures": {name: figure if math.isfinite(figure) else None for name, figure in self.figures.items()},
            "curve": [[step, figures] for step, figures in self.curve],
        }
        checkpoints.save(self.out, self.net, description, trainer=None if compact else self.trainer)
        self.saved = time.monotonic()
