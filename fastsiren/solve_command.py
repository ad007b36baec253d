"""The command `fastsiren solve`: each experiment of the SIREN paper and more, on real data."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .faults import UsageError
from .fit import Options
from .fit.settings import flag
from .problems import EXPERIMENTS, find
from .problems.experiment import Experiment, solve
from .words import number, threads

__all__ = ["run"]


def run(parser: type[argparse.ArgumentParser], name: str, words: list[str]) -> int:
    """Read the options of an experiment and run it.

    Args:
        parser: Class of parser, whose errors are those of the command line.
        name: Of the experiment.
        words: What follows the name.
    """
    kind = find(name)
    options = _parser(parser, kind).parse_args(words)
    if options.resume and options.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: go on with the results, or replace them")
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    given = {each: getattr(options, each) for each in kind.options.names() if getattr(options, each) is not None}
    watched = Options(
        target=options.target,
        progress=not options.quiet,
        save_every=options.save_every,
        log=options.log,
        tensorboard=options.tensorboard,
    )
    solution = solve(
        kind, *(getattr(options, source.name) for source in kind.sources), out=options.out, resume=options.resume,
        overwrite=options.overwrite, quick=options.quick, compare=options.compare, options=watched, **given,
    )  # fmt: skip
    if not options.quiet:
        print(solution.report())
        print(f"stopped; go on with --resume: {options.out}" if solution.exit_code else f"results in {options.out}")
    return solution.exit_code


def _parser(parser: type[argparse.ArgumentParser], kind: type[Experiment]) -> argparse.ArgumentParser:
    """Options that every experiment has, and one for each of its settings."""
    made = parser(prog=f"fastsiren solve {kind.name}", description=EXPERIMENTS[kind.name][2])
    add = made.add_argument
    for source in kind.sources:
        add(source.name, nargs="?", metavar=source.name.upper(), help=source.help)
    add("-o", "--out", metavar="DIR", default=kind.name, help=f"directory for the results (default: {kind.name})")
    add("--quick", action="store_true", help="smaller and shorter: under a minute")
    add("--compare", action="store_true", help="train the networks that it is compared with, too")
    add("--resume", action="store_true", help="go on from the results in DIR")
    add("--overwrite", action="store_true", help="replace the results in DIR")
    add("--target", type=number, metavar="F", help=f"stop when {kind.merit} is this good")
    add("--save-every", type=number, default=30.0, metavar="SECONDS", help="time between checkpoints (default: 30)")
    add("--log", metavar="FILE", help="append every step's loss as JSON lines (default: DIR/NETWORK.jsonl)")
    add("--tensorboard", metavar="DIR", help="write events for TensorBoard")
    add("--threads", type=threads, metavar="N", help="CPU threads (default: all cores)")
    add("--quiet", action="store_true", help="show no progress and no summary")
    for field in dataclasses.fields(kind.options):
        _add_setting(made, field, getattr(kind.quick, field.name))
    return made


def _add_setting(made: argparse.ArgumentParser, field: dataclasses.Field[Any], quick: Any) -> None:
    default, choices = field.default, field.metadata["choices"]
    short = f"; {quick} with --quick" if quick != default else ""
    text = f"{field.metadata['help']} (default: {default}{short})".replace("%", "%%")
    if isinstance(default, bool):
        made.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    shown = "{" + ",".join(choices) + "}" if choices else {int: "N", float: "X", str: "TEXT"}[type(default)]
    made.add_argument(flag(field.name), type=type(default), metavar=shown, help=text)
