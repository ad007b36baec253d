"""Command line: `python -m fastsiren.bench cpu`, `gpu`, `experiments`, `roofline`, `report`, `gates`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from . import cpu, gates, machine, records, report, roofline
from .peers import PEERS
from .workloads import RELEASE, SETS, VARIANTS, select

MALLOC = ("default", "tuned")


def add_cpu(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `cpu`."""
    parser = commands.add_parser("cpu", help="measure on this CPU and append rows to cpu.csv")
    parser.add_argument("--set", choices=[name for name in SETS if name != "quick"], default="all", dest="which")
    parser.add_argument("--quick", action="store_true", help="tiny workloads without compiled peers, some seconds")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="parts of workload names, with * and ?"
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help=f"of {', '.join(PEERS)}; default all")
    parser.add_argument("--threads", type=int, help="default: what torch chose")
    parser.add_argument("--seconds", type=float, help="budget of the rounds of one workload, default 15, quick 0.3")
    parser.add_argument("--rounds", type=int, default=3, help="least rounds, even past the budget; default 3")
    parser.add_argument("--malloc", choices=[*MALLOC, "both"], default="default", help="allocator of the process")
    parser.add_argument("--backend", default="auto", help="backend of fastsiren, default auto")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--list", action="store_true", help="print the chosen workloads and stop")
    parser.add_argument("--out", type=Path, default=records.results_folder(), help="folder of cpu.csv")
    parser.set_defaults(run=run_cpu)


def add_gpu(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `gpu` and `roofline`."""
    parser = commands.add_parser("gpu", help="check, tune and measure on an NVIDIA GPU; exit code 1 if a check failed")
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.csv, the JSON lines and the log")
    parser.add_argument("--quick", action="store_true", help="small cases and workloads only")
    parser.add_argument("--budget", type=float, default=540.0, metavar="SECONDS", help="for everything, default 540")
    parser.add_argument("--commit", help="commit in the rows; default: that of the source tree")
    parser.set_defaults(run=run_gpu)
    bounds = commands.add_parser("roofline", help="print what GPUs can do at best; needs none")
    bounds.set_defaults(run=run_roofline)


def add_experiments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `experiments`."""
    parser = commands.add_parser("experiments", help="run every experiment and append rows to experiments.csv")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="some of them, see fastsiren solve --list; default all"
    )
    parser.add_argument("--quick", action="store_true", help="with the settings of --quick")
    parser.add_argument("--compare", action="store_true", help="train the networks that each is compared with, too")
    parser.add_argument("--table", action="store_true", help="print the recorded rows as Markdown and stop")
    parser.add_argument("--threads", type=int, help="default: what torch chose")
    parser.add_argument(
        "--keep", type=Path, default=Path("experiments"), help="folder of pictures, default experiments"
    )
    parser.add_argument("--out", type=Path, default=records.results_folder(), help="folder of experiments.csv")
    parser.set_defaults(run=run_experiments)


def add_readers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `report` and `gates`, which read recorded rows."""
    reporter = commands.add_parser("report", help="render the table and the plot from cpu.csv")
    reporter.add_argument("--plot", type=Path, help="also draw the ratios into this PNG")
    reporter.add_argument("--sweep", action="store_true", help="every workload, not only the release table")
    reporter.add_argument("--dropin", action="store_true", help="the rows of drop-in classes")
    reporter.set_defaults(run=run_report)
    gate = commands.add_parser("gates", help="check cpu.csv against the bars; exit code 1 on a miss")
    gate.add_argument("--factor", type=float, default=1.0, help="multiplies every bar, 0.7 on shared machines")
    gate.set_defaults(run=run_gates)
    for parser in (reporter, gate):
        parser.add_argument("--out", type=Path, default=records.results_folder(), help="folder of cpu.csv")
        parser.add_argument("--isa", help="rows of this instruction set; default: that of the last row")
        parser.add_argument("--commit", help="rows of this commit; default: the last of every kind")


def run_cpu(options: argparse.Namespace, arguments: list[str]) -> int:
    """Measure, in this process and in children with other malloc settings."""
    workloads = select("quick" if options.quick else options.which, options.only)
    if options.list:
        print("\n".join(workload.name for workload in workloads))
        return 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    mallocs = MALLOC if options.malloc == "both" else (options.malloc,)
    codes = []
    for malloc in mallocs:
        # Peak memory says nothing under a heap that keeps everything it ever held.
        memory = not (options.no_memory or options.quick or malloc == "tuned")
        peers = options.peers or (("eager", "chunks") if options.quick else tuple(PEERS))
        seconds = options.seconds if options.seconds is not None else 0.3 if options.quick else 15.0
        variants = VARIANTS.get("quick" if options.quick else options.which, RELEASE)
        settings = cpu.Settings(tuple(peers), seconds, options.rounds, memory, options.backend, variants)
        child = [*arguments, "--malloc", malloc]
        codes.append(cpu.run_with_malloc(malloc, child, partial(cpu.run, workloads, settings, malloc, options.out)))
    # A child that a signal ended has a negative code.
    return next((abs(code) for code in codes if code), 0)


def run_gpu(options: argparse.Namespace, arguments: list[str]) -> int:
    """Check, tune and measure, in worker processes."""
    # Only here: it imports Triton, which the other commands do without.
    from .gpu import command
    from .gpu.pool import Settings

    commit = options.commit or machine.commit()
    settings = Settings(str(options.out.resolve()), options.quick, commit, 0.1 if options.quick else 1.0)
    return command.run(settings, options.budget)


def run_experiments(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run experiments, or print what is recorded."""
    from . import experiments

    settings = "quick" if options.quick else "default"
    if options.table:
        print(experiments.table(options.out / "experiments.csv", settings=settings), end="")
        return 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    given = {"quick": options.quick, "compare": options.compare}
    return experiments.run(options.names, options.keep, options.out, **given)


def run_roofline(options: argparse.Namespace, arguments: list[str]) -> int:
    """Print the bounds."""
    print(roofline.table())
    return 0


def run_report(options: argparse.Namespace, arguments: list[str]) -> int:
    """Print the table and draw the plot."""
    rows = records.latest(records.read(options.out / "cpu.csv"), isa=options.isa, commit=options.commit)
    print(report.markdown(rows, sweep=options.sweep, dropin=options.dropin), end="")
    if options.plot is not None:
        report.plot(rows, options.plot, sweep=options.sweep)
    return 0


def run_gates(options: argparse.Namespace, arguments: list[str]) -> int:
    """Print every bar and return 1 if one is missed."""
    rows = records.latest(records.read(options.out / "cpu.csv"), isa=options.isa, commit=options.commit)
    if not rows:
        raise ValueError("no recorded row matches --isa and --commit")
    outcomes = gates.check(rows, rows[-1].isa, options.factor)
    print("\n".join(gates.describe(outcome) for outcome in outcomes))
    missed = sum(not outcome.passed for outcome in outcomes)
    print(f"{len(outcomes) - missed} of {len(outcomes)} bars pass on {rows[-1].machine}, {rows[-1].isa}")
    return 1 if missed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words of the command line. Default: those of the process.

    Returns:
        Exit code: 0, 1 for a wrong result or a missed bar, 2 for a bad command line or missing rows.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m fastsiren.bench", description="Benchmarks of fastsiren.")
    commands = parser.add_subparsers(required=True, metavar="cpu | gpu | experiments | roofline | report | gates")
    add_cpu(commands)
    add_gpu(commands)
    add_experiments(commands)
    add_readers(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options, arguments)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
