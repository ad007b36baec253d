"""The command line: `fastsiren fit | render | solve | info | demo | bench`.

Exit codes: 0 done; 1 failed; 2 usage; 3 input damaged or refused; 4 non-finite values; 5 no space; 130 Ctrl-C;
141 closed pipe; 143 SIGTERM. An error is one line on standard error. Nothing heavy is imported before the options are
understood.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType, ModuleType
from typing import NoReturn, TypeAlias

from . import __version__, words
from .faults import Fault, OutputError, UsageError, from_os_error
from .problems import EXPERIMENTS
from .stopping import handled_by

__all__ = ["main"]

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_NEEDS_LESS = "out of memory; use a smaller --hidden or --batch to fit, a smaller --tile or --size to render"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words after the program's name; default those of the process.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_streams()
    _terminate_cleanly()
    try:
        return _run(arguments)
    except Fault as fault:
        return _fail(str(fault), fault.exit_code)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit; there is nobody left to read it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # Files report their own faults: what is left is standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        full = from_os_error(error, "standard output", "write")
        return _fail(str(full), full.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except MemoryError:
        return _fail(_NEEDS_LESS, 1)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        return _fail(_NEEDS_LESS if any(each in text for each in _OUT_OF_MEMORY) else text, 1)


def _fail(message: str, code: int) -> int:
    print(f"fastsiren: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _open_streams() -> None:
    """Stand in for standard streams that the shell closed: the next file opened would take their place.

    Standard output then fails when it is written, as that of other programs does; messages go nowhere.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode))  # noqa: SIM115


def _terminate_cleanly() -> None:
    """SIGTERM unwinds like an exception, so that temporary files are removed."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _run(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    finally:
        # What cannot be written shows here, not when the interpreter ends.
        sys.stdout.flush()


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["bench"]:
        # Its options are its own.
        return int(_load("bench.__main__").main(arguments[1:]) or 0)
    if arguments[:1] == ["solve"] and arguments[1:2] and not arguments[1].startswith("-"):
        # So are those of each experiment.
        _known_experiment(arguments[1])
        return int(_load("solve_command").run(_Parser, arguments[1], arguments[2:]))
    options = _parser().parse_args(arguments)
    module, run = _COMMANDS[options.command]
    loaded = _load(module)
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
    return run(loaded, options)


def _known_experiment(name: str) -> None:
    """Refuse an unknown name at once; what it needs takes seconds to load."""
    if name not in EXPERIMENTS:
        raise UsageError(f"no experiment is called {name!r}; 'fastsiren solve --list' shows them all")


def _load(name: str) -> ModuleType:
    """Import a part of the package, and torch with it, which takes seconds; a signal meanwhile ends the process.

    Extension modules swallow an exception that is raised while they load, or stay half loaded.
    """
    with handled_by(_leave):
        return import_module(f"{__package__}.{name}")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    if number == signal.SIGINT:
        _fail("interrupted", 130)
    os._exit(128 + number)


class _Parser(argparse.ArgumentParser):
    """Errors on one line, like those of every other kind."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"fastsiren: error: {message}; try '{self.prog} --help'\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastsiren", description="Pictures as functions of their coordinates: fit, render, differentiate."
    )
    parser.add_argument("--version", action="version", version=f"fastsiren {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_fit(commands)
    _add_render(commands)
    _add_solve(commands)
    _add_info(commands)
    _add_demo(commands)
    commands.add_parser("bench", help="measure speed and accuracy (see fastsiren bench --help)", add_help=False)
    return parser


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=words.threads, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress and no summary")


def _add_fit(commands: Commands) -> None:
    parser = commands.add_parser("fit", help="fit a network to a picture", description="Fit a network to a picture.")
    parser.add_argument("image", help="picture to fit: grey, RGB or RGBA, 8 or 16 bits, any format imageio reads")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="checkpoint to write (.safetensors)")
    add = parser.add_argument
    add("--steps", type=int, metavar="N", help="training steps (default: 4000)")
    add("--hidden", type=int, metavar="N", help="width of the layers (default: 256)")
    add("--layers", type=int, metavar="N", help="hidden layers behind the first (default: 3)")
    add("--lr", type=float, metavar="RATE", help="highest learning rate of Adam (default: 0.0007)")
    add("--omega", type=float, metavar="W", help="frequency factor of every sine layer (default: 30)")
    add("--batch", type=int, metavar="N", help="pixels per step (default: 4096)")
    add("--seed", type=words.seed, metavar="N", help="of initial weights and pixel order (default: 0)")
    add("--psnr", type=words.number, metavar="DB", help="stop when this PSNR is reached")
    add("--resume", action="store_true", help="go on from FILE if it exists")
    add("--overwrite", action="store_true", help="replace FILE by a new fit")
    add("--compact", action="store_true", help="leave out what only --resume needs (a third of the size)")
    add(
        "--save-every",
        type=words.number,
        default=30.0,
        metavar="SECONDS",
        help="time between checkpoints (default: 30)",
    )
    add("--log", metavar="FILE", help="append every step's loss as JSON lines")
    _add_common(parser)


def _add_render(commands: Commands) -> None:
    text = "Render a fitted picture, clip, sound or shape at any size and rate."
    parser = commands.add_parser("render", help="render a fitted picture, clip, sound or shape", description=text)
    parser.add_argument(
        "checkpoint", help="file of fastsiren fit, or of solve image, video, audio, sdf or compress (.siren)"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="file to write; - is standard output")
    add = parser.add_argument
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=words.size, metavar="WxH", help="width x height (default: as the original)")
    size.add_argument("--scale", type=float, metavar="S", help="times the original size, such as 4")
    add(
        "--frames", type=words.positive, metavar="N", help="of a clip, over its whole length (default: as the original)"
    )
    add("--rate", type=words.number, metavar="HZ", help="frames or samples per second (default: the original's length)")
    add("--at", type=words.number, metavar="SECONDS", help="one frame of a clip, as a picture")
    add(
        "--resolution", type=words.resolution, metavar="N", help="grid points of a shape along each axis (default: 256)"
    )
    add("--quantity", choices=("value", "gradient", "laplacian"), default="value", help="what to show (default: value)")
    add(
        "--format",
        metavar="NAME",
        help="png, tiff, jpg, webp, bmp, gif, mp4, wav, ply, obj or npy (default: by the extension)",
    )
    add("--bits", type=int, choices=(8, 16), help="per channel (default: as the original where the format can)")
    add("--tile", type=words.positive, default=65536, metavar="N", help="points evaluated at a time (default: 65536)")
    add("--overwrite", action="store_true", help="replace FILE")
    add("--allow-nonfinite", action="store_true", help="write NaN and infinite points instead of refusing them")
    _add_common(parser)


def _add_solve(commands: Commands) -> None:
    text = "Run an experiment on real data. 'fastsiren solve NAME --help' shows the options of one."
    parser = commands.add_parser("solve", help="run an experiment of the paper", description=text)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="the experiment")
    what.add_argument("--list", action="store_true", help="show the names of all experiments")
    _add_common(parser)


def _add_info(commands: Commands) -> None:
    text = "Show versions, backends and threads, or what a checkpoint holds."
    parser = commands.add_parser("info", help="show versions and backends, or a checkpoint", description=text)
    parser.add_argument("file", nargs="?", help="a checkpoint or a .siren file")
    _add_common(parser)


def _add_demo(commands: Commands) -> None:
    text = "Fit a photograph, show it with its derivatives, and measure the speed on this machine."
    parser = commands.add_parser("demo", help="fit a photograph and look at everything", description=text)
    parser.add_argument("-o", "--out", default="demo", metavar="DIR", help="where the pictures go (default: demo)")
    parser.add_argument("--image", metavar="FILE", help="another picture (default: a photograph of scikit-image)")
    parser.add_argument("--quick", action="store_true", help="a smaller network and fewer steps: seconds, not minutes")
    _add_common(parser)


def _fit(image: ModuleType, options: argparse.Namespace) -> int:
    names = ("steps", "hidden", "layers", "lr", "omega", "batch", "seed")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    image.Settings(**given)
    if options.out == "-":
        raise UsageError("a fit goes to a file, not to standard output; name one with -o")
    if options.resume and options.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: go on with the file, or replace it")
    result = image.fit(
        options.image,
        out=options.out,
        resume=options.resume,
        overwrite=options.overwrite,
        target=options.psnr,
        progress=not options.quiet,
        save_every=options.save_every,
        compact=options.compact,
        log=options.log,
        **given,
    )
    if not options.quiet:
        state = f"stopped at step {result.steps}, go on with --resume" if result.exit_code else f"{result.steps} steps"
        print(f"{options.out}: PSNR {result.psnr:.2f} dB, {state}, {result.seconds:.1f} s")
    return int(result.exit_code)


def _render(command: ModuleType, options: argparse.Namespace) -> int:
    return int(command.run(options))


def _solve(problems: ModuleType, options: argparse.Namespace) -> int:
    if options.name is not None:
        raise UsageError("the name of the experiment comes first: fastsiren solve NAME ...")
    width = max(map(len, problems.EXPERIMENTS))
    for name, (_, _, title) in problems.EXPERIMENTS.items():
        print(f"{name:<{width}}  {title}")
    return 0


def _info(info: ModuleType, options: argparse.Namespace) -> int:
    print(info.machine() if options.file is None else info.checkpoint(options.file))
    return 0


def _demo(demo: ModuleType, options: argparse.Namespace) -> int:
    try:
        os.makedirs(options.out, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make directory {options.out}: {error.strerror}; choose another with -o") from None
    print(demo.run(options.out, image=options.image, quick=options.quick, progress=not options.quiet))
    return 0


# Each command: the part of the package that does its work, and what hands it the options.
_COMMANDS = {
    "fit": ("problems.image", _fit),
    "render": ("render_command", _render),
    "solve": ("problems", _solve),
    "info": ("info", _info),
    "demo": ("problems.demo", _demo),
}
