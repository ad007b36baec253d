"""The command `fastsiren info`: what runs on this machine, or what a checkpoint or a .siren file holds."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

from . import __version__
from .engine import backends
from .fit import checkpoint as checkpoints
from .problems import contents, prior_facts
from .problems.prior import PriorExperiment
from .siren import Siren
from .tensorfile import TensorFile

__all__ = ["checkpoint", "machine"]

_PACKAGES = ("torch", "numpy", "imageio", "safetensors", "rich", "scikit-image", "av", "soundfile", "triton")


def machine() -> str:
    """Versions, backends and why some are missing, instruction sets, threads."""
    status = backends.status()
    lines = [_line("fastsiren", f"{__version__}, Python {platform.python_version()}, {platform.system()}")]
    lines += [_line("packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))]
    for backend in status.backends:
        used = backend.name == backends.resolve(None, torch.device("cpu"), torch.float32)
        state = "available" + (", used on this CPU" if used else "") if backend.available else backend.reason
        lines.append(_line(f"backend {backend.name}", state))
    if status.isa:
        lines.append(_line("instruction set", f"{status.isa[0]} used; available: {', '.join(sorted(status.isa))}"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines.append(_line("threads", f"{torch.get_num_threads()} of {cores} cores"))
    lines += [_line(name, value) for name, value in status.environment.items() if value is not None]
    return "\n".join(lines)


def checkpoint(path: str | os.PathLike[str]) -> str:
    """Architecture, origin and quality of a checkpoint or a .siren file whose checksum holds."""
    if contents.is_compressed(path):
        content = contents.load(path)
        lines = [("checksum", "CRC-32 ok"), *_siren(content.net), ("contents", "network only, rounded")]
        return _lines(path, "", lines, content.facts())
    file = checkpoints.read(path)
    kept = "network and optimiser: --resume goes on" if "step" in file.tensors else "network only"
    if file.description.get("problem") == PriorExperiment.name:
        facts = prior_facts.facts(path, file)
        network = [("network", f"no SIREN by itself, {_count(file):,} parameters")]
    else:
        found = checkpoints.load(path)
        rendered = contents.find(path, found)
        facts, network = rendered.facts() if rendered else [], _siren(found.net)
    lines = [("checksum", "SHA-256 ok"), *network, ("contents", kept)]
    return _lines(path, f", written by fastsiren {file.description['version']}", lines, facts)


def _siren(net: Siren) -> list[tuple[str, str]]:
    sizes = [net.in_features, *[net.hidden_features] * (net.hidden_layers + 1), net.out_features]
    count = sum(p.numel() for p in net.parameters())
    return [
        ("network", f"{' -> '.join(map(str, sizes))}, {count:,} parameters"),
        ("omega", f"first {net.first_omega_0:g}, hidden {net.hidden_omega_0:g}"),
    ]


def _count(file: TensorFile) -> int:
    """Parameters, without what the optimiser holds."""
    return sum(each.size for name, each in file.tensors.items() if name != "step" and not name.startswith("adam."))


def _lines(
    path: str | os.PathLike[str], origin: str, lines: list[tuple[str, str]], facts: list[tuple[str, str]]
) -> str:
    file = ("file", f"{path}, {os.path.getsize(path):,} bytes{origin}")
    return "\n".join(_line(name, text) for name, text in [file, *lines, *facts])


def _line(name: str, value: str) -> str:
    return f"{name:<18}{value}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
