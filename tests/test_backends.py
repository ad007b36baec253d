"""Which backend serves a call, what is said when one cannot, and the settings of threads."""

import builtins
import os
import re
import subprocess
import sys
import threading

import pytest
import torch

import fastsiren
import op_cases
import oracle
from fastsiren import functional
from fastsiren.engine import backends

NET = op_cases.network()
X = oracle.points(NET, 3)
CPU = torch.device("cpu")
AUTOMATIC = "cpp" if backends.missing("cpp") is None else "reference"


@pytest.fixture
def fresh(monkeypatch):
    """Nothing remembered of what runs here, neither before nor after."""

    def forget():
        backends.missing.cache_clear()
        backends._find.cache_clear()

    monkeypatch.setattr(backends, "_LOADED", {})
    forget()
    yield monkeypatch
    forget()


@pytest.fixture
def without_extension(fresh):
    """An installation whose C++ extension was not built."""
    imported = builtins.__import__
    fresh.delitem(sys.modules, "fastsiren._C", raising=False)
    fresh.delitem(sys.modules, "fastsiren.engine.cpp", raising=False)
    fresh.delattr(fastsiren, "_C", raising=False)

    def refuse(name, *args, **kwargs):
        if name == "fastsiren._C":
            raise ModuleNotFoundError("No module named 'fastsiren._C'")
        return imported(name, *args, **kwargs)

    fresh.setattr(builtins, "__import__", refuse)
    fresh.setattr(backends, "import_module", lambda name: __import__(name, fromlist=["*"]))


def value():
    return functional.siren(X, NET.weights, NET.biases, omegas=NET.omegas)


def served() -> list[str]:
    """The backend of one call, as the operator would see it."""
    return [backends.resolve(None, X.device, X.dtype)]


def test_automatic_choice():
    assert backends.resolve("auto", CPU, torch.float32) == AUTOMATIC
    assert backends.resolve("auto", CPU, torch.float64) == AUTOMATIC
    assert backends.resolve("auto", CPU, torch.bfloat16) == "reference"
    assert backends.resolve("auto", torch.device("cuda"), torch.float32) in ("triton", "reference")
    assert backends.resolve("auto", torch.device("mps"), torch.float32) == "reference"


def test_the_automatic_choice_on_cuda_is_triton_when_it_runs(fresh):
    runs = backends.BACKENDS["triton"]._replace(devices=("cuda",), missing=lambda: None)
    fresh.setitem(backends.BACKENDS, "triton", runs)
    assert backends.resolve("auto", torch.device("cuda"), torch.float32, "tf32") == "triton:tf32"
    assert backends.resolve("auto", torch.device("cuda"), torch.float64) == "triton"
    assert backends.resolve("auto", torch.device("cuda"), torch.float16) == "reference"


def test_block_nests_and_ends():
    assert served() == [AUTOMATIC]
    block = fastsiren.use_backend("reference")
    with block:
        assert served() == ["reference"]
        with fastsiren.use_backend("auto"):
            assert served() == [AUTOMATIC]
            with block:
                assert served() == ["reference"]
            assert served() == [AUTOMATIC]
        assert served() == ["reference"]
    assert served() == [AUTOMATIC]
    with pytest.raises(KeyError), block:
        raise KeyError
    assert served() == [AUTOMATIC]


def test_block_is_of_its_thread():
    seen = []
    with fastsiren.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.extend(served()))
        thread.start()
        thread.join()
    assert seen == [AUTOMATIC]


def test_backward_runs_where_forward_ran(monkeypatch, backend):
    """To third order, also when the block has ended by then."""
    calls = {name: [] for name in backends.BACKENDS}

    class Noting:
        def __init__(self, name):
            self.name, self.module = name, backends.module(name)

        def __getattr__(self, pass_):
            calls[self.name].append(pass_)
            return getattr(self.module, pass_)

    for name in {"reference", AUTOMATIC, backend}:
        monkeypatch.setitem(backends._LOADED, name, Noting(name))
    net, x = NET.tracked(), X.clone().requires_grad_()
    with fastsiren.use_backend(backend):
        y = functional.siren(x, net.weights, net.biases, omegas=net.omegas)
    other = "reference" if backend == AUTOMATIC else AUTOMATIC
    with fastsiren.use_backend(other):
        slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
        curve = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)[0]
        curve.square().sum().backward()
    assert {"value_fwd", "value_bwd", "sandwich_fwd", "sandwich_bwd"} <= set(calls[backend])
    assert other == backend or not calls[other]


@pytest.mark.parametrize("make", [fastsiren.use_backend, fastsiren.precision])
def test_unknown_names_are_refused_at_once(make):
    with pytest.raises(ValueError, match=r"got 'cuda', expected one of '(auto', 'reference', 'cpp', 'triton|fp32)'"):
        make("cuda")


def test_explicit_choice_never_falls_back():
    if backends.missing("triton"):
        with fastsiren.use_backend("triton"), pytest.raises(RuntimeError, match="backend 'triton' cannot"):
            value()
    with pytest.raises(RuntimeError, match="backend 'triton' cannot serve this call"):
        backends.resolve("triton", torch.device("meta"), torch.float32)
    with pytest.raises(RuntimeError, match="backend 'cpp' cannot serve this call"):
        backends.resolve("cpp", torch.device("cuda"), torch.float32)
    with pytest.raises(RuntimeError, match="backend 'cpp' cannot serve this call"):
        backends.resolve("cpp", CPU, torch.bfloat16)
    assert value().shape == (3, 2)


def test_what_triton_lacks_is_said():
    reason = backends.missing("triton")
    if reason is None:
        pytest.skip("triton runs here")
    assert re.search(r"not installed, get it with|no CUDA device", reason)


def test_a_missing_extension_falls_back_only_automatically(without_extension):
    assert backends.resolve("auto", CPU, torch.float32) == "reference"
    assert value().shape == (3, 2)
    assert "was not built" in backends.missing("cpp") and "compiler" in backends.missing("cpp")
    with fastsiren.use_backend("cpp"), pytest.raises(RuntimeError, match=r"backend 'cpp' .*was not built.*compiler"):
        value()
    with pytest.raises(RuntimeError, match="was not built"):
        backends.module("cpp")
    state = backends.status()
    assert state.isa == () and [b.available for b in state.backends if b.name == "cpp"] == [False]


@pytest.mark.parametrize("name", ["tf32", "fp16", "bf16"])
def test_a_precision_nobody_has_is_refused(name):
    with (
        fastsiren.precision(name),
        pytest.raises(RuntimeError, match=f"precision: got '{name}'.*computes in 'fp32' only"),
    ):
        value()
    with fastsiren.precision(name):
        # What a call asks for wins over the block.
        functional.siren(X, NET.weights, NET.biases, omegas=NET.omegas, precision="fp32")
    with pytest.raises(RuntimeError, match="precision"):
        functional.siren(X, NET.weights, NET.biases, omegas=NET.omegas, precision=name)


def test_modules_have_every_pass():
    for name in backends.BACKENDS:
        if backends.missing(name) is None:
            assert all(callable(getattr(backends.module(name), pass_)) for pass_ in [*op_cases.NAMES, "grid_fwd"])
    with pytest.raises(ValueError, match="got 'opencl', expected one of 'reference', 'cpp', 'triton'"):
        backends.module("opencl")


def test_status():
    with fastsiren.use_backend("reference"):
        state = backends.status()
    assert state.choice == "reference" and state.precision == "fp32"
    assert [b.name for b in state.backends] == ["reference", "cpp", "triton"]
    assert all(b.available == (not b.reason) for b in state.backends)
    assert bool(state.isa) == state.backends[1].available
    assert set(state.environment) == {"FASTSIREN_BACKEND", "FASTSIREN_ISA", "TRITON_INTERPRET"}


# Environment, read when the package is imported: each in a process of its own.

CODE = """
import torch, fastsiren
from fastsiren.engine import backends
print(backends.status().choice, *backends.status().isa[:1])
fastsiren.functional.siren(torch.rand(3, 2), [torch.rand(4, 2), torch.rand(1, 4)], None, omegas=[1.0])
"""


def run(**environment: str) -> subprocess.CompletedProcess:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("FASTSIREN_")}
    return subprocess.run([sys.executable, "-c", CODE], env=kept | environment, capture_output=True, text=True)


def test_environment_chooses_the_backend():
    done = run(FASTSIREN_BACKEND="reference")
    assert done.returncode == 0 and done.stdout.startswith("reference")
    done = run(FASTSIREN_BACKEND="fastest")
    assert done.returncode != 0 and "FASTSIREN_BACKEND: got 'fastest', expected one of 'auto'" in done.stderr


@pytest.mark.skipif(AUTOMATIC != "cpp", reason="the C++ engine is not built, so there is no instruction set to choose")
def test_environment_chooses_the_instruction_set():
    offered = backends.status().isa
    done = run(FASTSIREN_ISA=offered[-1])
    assert done.returncode == 0 and done.stdout.split() == ["auto", offered[-1]]
    done = run(FASTSIREN_ISA="sse9")
    assert done.returncode != 0 and "FASTSIREN_ISA: got 'sse9', expected one of" in done.stderr
