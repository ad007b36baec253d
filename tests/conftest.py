"""What every test stands on: fixed seeds, two threads, and the list of backends that must run."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec

import hypothesis
import numpy
import pytest
import torch

import fastsiren
import interpreter
import oracle
from fastsiren.engine import backends

THREADS = 2
# A backend named here must run: one that cannot fails its tests with the reason, it never skips them.
NAMES = os.environ.get("FASTSIREN_TEST_BACKENDS", "reference,cpp").split(",")
WANTED = [name.strip() for name in NAMES if name.strip()]
# Files that launch kernels themselves, for a process where all kernels are interpreted.
collect_ignore_glob = [] if backends.INTERPRETED else ["test_triton*.py"]

# The fixtures below hold for all examples of a test: none needs to be made anew between two of them.
hypothesis.settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    """Set the process up before any test module is imported."""
    # A shell starts background jobs with Ctrl-C ignored, and children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What another state of the package has compiled calls operators as they were then.
    compiled = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(compiled.cleanup)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled.name
    torch.set_num_threads(THREADS)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Interpreted kernels compute with NumPy, which warns of what GPUs do in silence: Inf - Inf, NaN to an integer.
    numbers = "invalid value encountered|overflow encountered|All-NaN"
    config.addinivalue_line("filterwarnings", f"ignore:({numbers}):RuntimeWarning")
    # Triton 3.6 does so with the bounds of loops.
    config.addinivalue_line("filterwarnings", "ignore:Conversion of an array with ndim > 0:DeprecationWarning")
    if backends.INTERPRETED and not backends.missing("triton"):
        interpreter.repair()


def pytest_report_header() -> list[str]:
    """Say what this run tests: a green run means nothing without it."""
    missing = {name: backends.missing(name) for name in WANTED}
    isa = ", ".join(backends.status().isa) or "none"
    said = [f"{name} (MISSING: {reason})" if reason else name for name, reason in missing.items()]
    if find_spec("triton"):
        said.append(f"Triton {version('triton')}{', interpreted' * backends.INTERPRETED}")
    return [
        f"fastsiren {fastsiren.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        f"backends: {', '.join(said) or 'none'}; ISA, the active one first: {isa}",
    ]


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start every test from the same random state."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fill memory that torch leaves uninitialised with NaN, so that reading it shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(params=WANTED)
def backend(request: pytest.FixtureRequest, poisoned: None) -> Iterator[str]:
    """Run a test once per wanted backend, which is active meanwhile; a missing one is a failure."""
    reason = backends.missing(request.param)
    if reason:
        pytest.fail(f"backend {request.param!r} is to be tested and cannot run: {reason}", pytrace=False)
    with fastsiren.use_backend(request.param):
        yield request.param


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that tests no backend at all, or interprets kernels that it does not test."""
    if not WANTED or (backends.INTERPRETED and "triton" not in WANTED):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For networks so small that a second thread only costs time."""
    with oracle.one_thread():
        yield
