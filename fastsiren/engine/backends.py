"""Which backends exist, which of them run here and why not, and which one serves a call.

A backend is a module with the functions of the passes (value_fwd, value_bwd, jet_fwd, ...). "auto" takes:

    CUDA tensors                    triton if it can run, else reference
    CPU tensors, float32, float64   cpp if it can run, else reference
    anything else                   reference

An explicit choice never falls back: one that cannot serve a call raises, saying what is missing and how to get it.
The choice is made when a call starts and travels with it, so that a backward pass runs on the backend of its forward.

Environment variables, all of them, read once when this module is imported:

    | variable          | values                                 | meaning                                             |
    |-------------------|----------------------------------------|-----------------------------------------------------|
    | FASTSIREN_BACKEND | auto (default), reference, cpp, triton | backend of calls outside of any `use_backend` block |
    | FASTSIREN_ISA     | a name of fastsiren._C.isa_available() | instruction set of the C++ engine; best by default  |
    | TRITON_INTERPRET  | 1                                      | Triton's own: kernels are interpreted, on the CPU   |
"""

import os
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace, TracebackType
from typing import NamedTuple

import torch

from .values import one_of

ENVIRONMENT = {name: os.environ.get(name) for name in ("FASTSIREN_BACKEND", "FASTSIREN_ISA", "TRITON_INTERPRET")}
INTERPRETED = ENVIRONMENT["TRITON_INTERPRET"] == "1"

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")


class Backend(NamedTuple):
    """What a backend can serve, and how to find out whether it runs here."""

    module: str
    """Name of the module with its passes."""
    devices: tuple[str, ...]
    """Device types; empty means all."""
    dtypes: tuple[torch.dtype, ...]
    precisions: tuple[str, ...]
    missing: Callable[[], str | None]
    """Why it cannot run here, or None."""


class BackendStatus(NamedTuple):
    """State of one backend on this machine."""

    name: str
    available: bool
    reason: str
    """Why it is not available and how to get it; empty when it is."""


class Status(NamedTuple):
    """State of the package on this machine, as `fastsiren info` shows it."""

    choice: str
    """Backend in force: "auto" or a name."""
    precision: str
    backends: tuple[BackendStatus, ...]
    isa: tuple[str, ...]
    """Instruction sets of the C++ engine, the active one first; empty without the engine."""
    environment: dict[str, str | None]


def _cpp_missing() -> str | None:
    try:
        import_module("fastsiren._C")
        import_module("fastsiren.engine.cpp")
    except ImportError as error:
        return (
            f"the C++ extension was not built or does not load: {error}; install a C++17 compiler (g++ or clang++) and "
            "reinstall fastsiren from source, whose build prints why it was left out"
        )
    return None


def _triton_missing() -> str | None:
    reasons = []
    if find_spec("triton") is None:
        reasons.append("triton is not installed, get it with: pip install 'fastsiren[triton]'")
    if not torch.cuda.is_available() and not INTERPRETED:
        reasons.append("PyTorch sees no CUDA device, install a CUDA build of torch on a machine with an NVIDIA GPU")
    elif torch.cuda.is_available() and (torch.version.hip or torch.cuda.get_device_capability() < (8, 0)):
        reasons.append("its kernels are for NVIDIA GPUs of compute capability 8.0 and later (A100, RTX 30 and newer)")
    return "; ".join(reasons) or None


BACKENDS = {
    "reference": Backend("fastsiren.engine.reference", (), FLOATS, ("fp32",), lambda: None),
    "cpp": Backend("fastsiren.engine.cpp", ("cpu",), (torch.float32, torch.float64), ("fp32",), _cpp_missing),
    "triton": Backend(
        "fastsiren.engine.triton",
        ("cpu" if INTERPRETED else "cuda",),
        (torch.float32, torch.float64),
        PRECISIONS,
        _triton_missing,
    ),
}
CHOICES = ("auto", *BACKENDS)


# What `use_backend` and `precision` set: per thread, as torch.no_grad does, so that blocks of two threads do not meet.
# A plain instance read with getattr is the form that torch.compile guards on; a subclass with defaults is not.
_STATE = threading.local()


class _Setting:
    """Context manager that sets one attribute of the thread's state; may be entered again, also inside itself."""

    def __init__(self, attribute: str, value: str) -> None:
        self.attribute = attribute
        self.value = value
        self.before: list[str | None] = []

    def __enter__(self) -> None:
        self.before.append(getattr(_STATE, self.attribute, None))
        setattr(_STATE, self.attribute, self.value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        setattr(_STATE, self.attribute, self.before.pop())


class use_backend(_Setting):
    """Context manager: calls inside it run on this backend, in the current thread.

    Args:
        name: "auto", or "reference", "cpp", "triton": these never fall back to another one.

    Raises:
        ValueError: the name is none of these.
        RuntimeError: from the call inside, when the backend cannot run here or cannot serve its dtype or device.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 1)
        >>> with fastsiren.use_backend("reference"):
        ...     y = net(torch.rand(5, 2))
        >>> y.shape
        torch.Size([5, 1])
    """

    def __init__(self, name: str) -> None:
        super().__init__("backend", one_of("name", name, CHOICES))


class precision(_Setting):
    """Context manager: precision of the operands of hidden products in calls inside it, in the current thread.

    A precision given to a module or a function wins over it. The first layer, phases, sines and sums are float32 in
    every precision. "fp32" is the default and means the full precision of the parameters' dtype.

    Args:
        name: "fp32", "tf32", "fp16" or "bf16".

    Raises:
        ValueError: the name is none of these.
        RuntimeError: from the call inside, when its backend does not have this precision.

    Example:
        >>> import torch, fastsiren
        >>> with fastsiren.precision("fp32"):
        ...     y = fastsiren.Siren(2, 16, 1, 1)(torch.rand(5, 2))
    """

    def __init__(self, name: str) -> None:
        super().__init__("precision", one_of("name", name, PRECISIONS))


def resolve(name: str | None, device: torch.device, dtype: torch.dtype, precision: str | None = None) -> str:
    """Name of the backend that serves a call, followed by ":" and the precision where that is not "fp32".

    Args:
        name: a choice; None takes that of `use_backend`, else that of FASTSIREN_BACKEND, else "auto".
        device: device of the parameters.
        dtype: dtype of the parameters.
        precision: a precision; None takes that of the `precision` context manager, else "fp32".

    Raises:
        ValueError: a name is not known.
        RuntimeError: the explicit choice cannot run here, or cannot serve this device, dtype or precision.
    """
    choice = name or getattr(_STATE, "backend", None)
    wanted = one_of("precision", precision, PRECISIONS, or_none=True) or getattr(_STATE, "precision", None) or "fp32"
    return _serve(choice, device.type, dtype, wanted)


def module(name: str) -> ModuleType | SimpleNamespace:
    """What holds the passes of a backend, as `resolve` named it; imported when first asked for.

    Raises:
        ValueError: the name is not known.
        RuntimeError: the backend cannot run here, or FASTSIREN_ISA names no instruction set of it.
    """
    loaded = _LOADED.get(name)
    return loaded if loaded is not None else _load(name)


@cache
def missing(name: str) -> str | None:
    """Why a backend cannot run on this machine, and how to get it; None when it can."""
    if name not in BACKENDS:
        raise ValueError(f"backend: got {name!r}, expected one of {', '.join(map(repr, BACKENDS))}")
    return BACKENDS[name].missing()


def status() -> Status:
    """What runs here and what was chosen; touches the devices, unlike an import."""
    reasons = {name: missing(name) for name in BACKENDS}
    states = (BackendStatus(name, reason is None, reason or "") for name, reason in reasons.items())
    isa: tuple[str, ...] = ()
    if reasons["cpp"] is None:
        module("cpp")
        extension = import_module("fastsiren._C")
        active = extension.isa_active()
        isa = (active, *(name for name in extension.isa_available() if name != active))
    choice = getattr(_STATE, "backend", None) or _environment_choice()
    return Status(choice, getattr(_STATE, "precision", None) or "fp32", tuple(states), isa, dict(ENVIRONMENT))


_LOADED: dict[str, ModuleType | SimpleNamespace] = {}


def _load(name: str) -> ModuleType | SimpleNamespace:
    backend, _, wanted = name.partition(":")
    reason = missing(backend)
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}")
    if backend == "cpp":
        _select_isa()
    passes = import_module(BACKENDS[backend].module)
    _LOADED[name] = passes.with_precision(wanted) if wanted else passes
    return _LOADED[name]


def _select_isa() -> None:
    isa = ENVIRONMENT["FASTSIREN_ISA"]
    if not isa:
        return
    extension = import_module("fastsiren._C")
    try:
        extension.isa_select(isa)
    except ValueError:
        accepted = ", ".join(map(repr, extension.isa_available()))
        raise RuntimeError(f"FASTSIREN_ISA: got {isa!r}, expected one of {accepted} on this CPU") from None


def _serve(choice: str | None, device: str, dtype: torch.dtype, wanted: str) -> str:
    return _find(choice, device, dtype, wanted)


# A constant while compiling: what runs on a machine does not change, and looking for it cannot be traced. This is all
# that torch.compiler.assume_constant_result does, but that one imports the compiler, which takes seconds.
_serve._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _find(choice: str | None, device: str, dtype: torch.dtype, wanted: str) -> str:
    choice = _environment_choice() if choice is None else one_of("backend", choice, CHOICES)
    name = _automatic(device, dtype) if choice == "auto" else choice
    reason = missing(name) or _unserved(BACKENDS[name], device, dtype)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot serve this call: {reason}")
    offered = BACKENDS[name].precisions
    if wanted not in offered:
        raise RuntimeError(
            f"precision: got {wanted!r}, but backend {name!r}, which serves {device} tensors here, computes in "
            f"{' or '.join(map(repr, offered))} only; leave the precision out or give one of these"
        )
    if wanted != "fp32" and dtype != torch.float32:
        raise RuntimeError(f"precision: got {wanted!r}, which narrows float32, but the parameters are {dtype}")
    return name if wanted == "fp32" else f"{name}:{wanted}"


def _automatic(device: str, dtype: torch.dtype) -> str:
    name = {"cuda": "triton", "cpu": "cpp"}.get(device, "reference")
    usable = missing(name) is None and _unserved(BACKENDS[name], device, dtype) is None
    return name if usable else "reference"


def _unserved(backend: Backend, device: str, dtype: torch.dtype) -> str | None:
    if backend.devices and device not in backend.devices:
        return f"it serves tensors on {' and '.join(backend.devices)}, got tensors on {device}"
    if dtype not in backend.dtypes:
        return f"it serves {', '.join(map(str, backend.dtypes))}, got {dtype}"
    return None


def _environment_choice() -> str:
    return one_of("FASTSIREN_BACKEND", ENVIRONMENT["FASTSIREN_BACKEND"] or "auto", CHOICES)
