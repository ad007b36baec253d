"""What `fastsiren solve NAME` runs: train on a problem, compare where asked, write what there is to see."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import nn

from .. import __version__
from ..faults import OutputError, UsageError, from_os_error
from ..files import atomic_output, output_lock
from ..fit import Options, Problem, Settings, Trained, found_settings, train
from ..fit import checkpoint as checkpoints
from ..siren import Siren
from ..stopping import Stop, stop_on_signals
from ..tensorfile import TensorFile
from .plain_networks import PlainSiren

__all__ = ["Experiment", "Solution", "Source", "solve"]

Given = TypeVar("Given", bound="Experiment")


class Source(NamedTuple):
    """A file that an experiment takes; there is a default for each."""

    name: str
    help: str


class Experiment(Problem):
    """A problem with data of its own, networks to compare and something to show.

    Args:
        settings: Of the class's own type.
        sources: As many as the class names: a path, data in memory, or None for the default.
    """

    options: ClassVar[type[Settings]]
    """Its settings."""
    ours: ClassVar[str] = "sine"
    """The first of the contenders, unless a setting says otherwise; see `label`."""
    labels: ClassVar[tuple[str, ...]] = ("sine",)
    """All that may be the first."""
    quick: ClassVar[Settings]
    """Settings of `--quick`: under a minute on two cores, and still a result that means something."""
    bound: ClassVar[float]
    """What the merit is at least (at most, where lower is better) with these; a wrong derivative does not get there."""
    published: ClassVar[str] = ""
    """Figure of the paper or of others, at what size, and where it is from."""
    sources: ClassVar[tuple[Source, ...]] = ()

    @classmethod
    def label(cls, settings: Settings) -> str:
        """The first of the contenders with these settings, before any data are read."""
        return cls.ours

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """What makes each network, ours first; the others are trained too when a comparison is asked for."""
        return {self.ours: self.network}

    def plain(self, net: nn.Module) -> nn.Module | None:
        """The same parameters as a plain module, for comparisons of speed; None where there is none."""
        return PlainSiren(net) if isinstance(net, Siren) else None

    @abstractmethod
    def write(self, solution: Solution, home: Path) -> None:
        """Write pictures, sound, video or meshes of the result into a directory."""


class Solution(NamedTuple):
    """A solved experiment."""

    experiment: Experiment
    trained: dict[str, Trained]
    """By network; ours is the first."""
    exit_code: int
    """0, or 128 + the number of the signal that stopped it."""

    @property
    def net(self) -> nn.Module:
        """Our network."""
        return next(iter(self.trained.values())).net

    @property
    def figures(self) -> dict[str, float]:
        """Its figures of merit."""
        return next(iter(self.trained.values())).figures

    def over_steps(self, figure: str) -> dict[str, list[tuple[float, float]]]:
        """What a figure was on the way: for each network, points (step, figure), for a plot."""
        return {
            label: [(step, figures[figure]) for step, figures in each.curve] for label, each in self.trained.items()
        }

    def report(self) -> str:
        """A line per network."""
        width = max(map(len, self.trained))
        lines = []
        for label, trained in self.trained.items():
            figures = "  ".join(f"{name} {value:.4g}" for name, value in trained.figures.items())
            lines.append(f"{label:<{width}}  {figures}  ({trained.steps} steps, {trained.seconds:.1f} s)")
        return "\n".join(lines)


def solve(
    kind: type[Given],
    *sources: Any,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quick: bool = False,
    compare: bool = False,
    options: Options | None = None,
    **settings: Any,
) -> Solution:
    """Run an experiment.

    Ctrl-C or SIGTERM finish the step, save and return; the same call with `resume` goes on as if nothing had happened.
    While results are written, after all training, they end the work at once.

    Args:
        kind: Which one.
        *sources: Its data, see `Experiment.sources`; those left out have their default.
        out: Directory for checkpoints, logs, figures (result.json) and what there is to see; None writes nothing.
        resume: Go on from the checkpoints in `out`, where there are any.
        overwrite: Whether results in `out` may be replaced.
        quick: Settings that take less than a minute.
        compare: Train the networks that it is compared with, too.
        options: How the training is watched and kept; its log is `out`/NETWORK.jsonl unless it names another.
        **settings: Fields of `kind.options`; on resume those of the checkpoint hold unless given.

    Raises:
        InputError: Data or checkpoints are missing or damaged, or do not belong together.
        UsageError: A setting makes no sense.
        OutputError: `out` cannot be written or holds results already.
        NonFiniteError: The loss became NaN or infinite; the last good state is saved.
        KeyboardInterrupt: Ctrl-C came while results were written.
    """
    given = {**(_changed(kind.quick) if quick else {}), **settings}
    with ExitStack() as stack:
        home = None if out is None else Path(out)
        run = _Run(home, resume, options or Options())
        chosen = run.settings(kind, given)
        run.check_apart(sources)
        experiment = kind(chosen, *sources)
        if home is not None:
            stack.enter_context(_directory(home, resume=resume, overwrite=overwrite))
        # A signal while results are written ends the work at once: each file is whole or absent, checkpoints are kept.
        with stop_on_signals() as stop:
            trained = run.train(experiment, compare, stop)
        solution = Solution(experiment, trained, stop.exit_code)
        if home is not None and not stop:
            experiment.write(solution, home)
            _write_result(solution, home)
    return solution


def _changed(settings: Settings) -> dict[str, Any]:
    """Those that are no defaults."""
    fields = dataclasses.fields(settings)
    return {field.name: value for field in fields if (value := getattr(settings, field.name)) != field.default}


class _Run(NamedTuple):
    """Where the networks of a run are kept, and how they are watched."""

    home: Path | None
    resume: bool
    options: Options

    def path(self, label: str) -> Path | None:
        return None if self.home is None else self.home / f"{label}.safetensors"

    def found(self, label: str) -> TensorFile | None:
        path = self.path(label)
        return checkpoints.read(path) if path is not None and self.resume and path.exists() else None

    def settings(self, kind: type[Experiment], given: dict[str, Any]) -> Settings:
        """Those given; on resume with those of the checkpoint of the first network."""
        chosen = kind.options.of(given)
        for label in kind.labels:
            found, path = self.found(label), self.path(label) or label
            # Where a setting chooses the first network, others of the same training may have its name.
            if found is not None and kind.label(found_settings(found, path, kind, kind.options, {})) == label:
                return found_settings(found, path, kind, kind.options, given)
        return chosen

    def check_apart(self, sources: tuple[Any, ...]) -> None:
        """Refuse data that a result of this run would replace."""
        for source in sources:
            if self.home is not None and isinstance(source, (str, os.PathLike)):
                places = {os.path.realpath(source), os.path.realpath(os.path.dirname(os.path.abspath(source)))}
                if os.path.realpath(self.home) in places:
                    raise UsageError(
                        f"{source} lies in {self.home}, where results go; choose another directory with -o"
                    )

    def train(self, experiment: Experiment, compare: bool, stop: Stop) -> dict[str, Trained]:
        contenders = list(experiment.contenders().items())
        if compare and len(contenders) < 2:
            raise UsageError(f"--compare: there is nothing that {experiment.name} is compared with; leave it out")
        trained: dict[str, Trained] = {}
        for label, make in contenders if compare else contenders[:1]:
            if not stop:
                path, title = self.path(label), f"{experiment.name} {label}"
                trained[label] = train(
                    experiment, make(), out=path, found=self.found(label), options=self._watched(path), stop=stop,
                    title=title,
                )  # fmt: skip
        return trained

    def _watched(self, path: Path | None) -> Options:
        if path is None or self.options.log is not None:
            return self.options
        return self.options._replace(log=path.with_suffix(".jsonl"))


@contextmanager
def _directory(home: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """The directory of results, made where it is missing, and kept from others while the block lasts."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, str(home), "make directory") from None
    if not (resume or overwrite) and any(home.iterdir()):
        raise OutputError(
            f"{home} holds files already; use --resume to go on, --overwrite to start anew, or another -o"
        )
    with output_lock(home / "results"):
        yield home


def _write_result(solution: Solution, home: Path) -> None:
    experiment = solution.experiment
    result = {
        "experiment": experiment.name,
        "version": __version__,
        "settings": {name: getattr(experiment.settings, name) for name in experiment.settings.names()},
        "networks": {
            label: {"steps": each.steps, "seconds": each.seconds, "figures": each.figures, "curve": each.curve}
            for label, each in solution.trained.items()
        },
    }
    with atomic_output(home / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")
