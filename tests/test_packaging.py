"""What an installed package does: a cold import, what it holds, and how it behaves without a compiler."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastsiren
from conftest import WANTED

ROOT = Path(__file__).resolve().parents[1]
NEEDS_CPP = pytest.mark.skipif("cpp" not in WANTED, reason="the C++ backend is not among the tested ones")


# An editable install finds what a wheel beside it lacks.
WHEEL_ONLY = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in getattr(finder, "__name__", "")]
"""


def run(code: str, *, folder: Path, **variables: str) -> str:
    """Run Python code in a fresh process and return what it printed; a failure shows its error output."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("FASTSIREN_")}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BLOCKED = """
import sys
sys.modules["triton"] = sys.modules["fastsiren._C"] = None
"""
EVALUATE = """
import torch, fastsiren
net = fastsiren.Siren(2, 16, 1, 1)
value, jacobian, laplacian = fastsiren.laplacian(net, torch.rand(5, 2))
assert laplacian.isfinite().all() and laplacian.abs().max() > 0
laplacian.sum().backward()
"""


def test_cold_import_falls_to_the_reference(tmp_path):
    code = BLOCKED + EVALUATE + "from fastsiren.engine import backends\n"
    code += "print(backends.resolve(None, torch.device('cpu'), torch.float32))"
    assert run(code, folder=tmp_path) == "reference"


@pytest.mark.parametrize("name", ["cpp", "triton"])
def test_blocked_backend_says_what_is_missing(name, tmp_path):
    code = BLOCKED + EVALUATE
    code += f"""
try:
    with fastsiren.use_backend({name!r}):
        net(torch.rand(5, 2))
except RuntimeError as error:
    print(error)
"""
    message = run(code, folder=tmp_path)
    assert name in message and "\n" not in message


def test_import_is_quiet(tmp_path):
    code = """
import os, sys, torch, torch.utils.data
def touch(*_):
    raise AssertionError("a device was touched")
torch.cuda._lazy_init = torch._C._cuda_getDeviceCount = torch._C._cuda_init = touch
before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
from fastsiren import *
after = len(os.listdir("/proc/self/task")) if before else 0
assert after == before, f"{after - before} threads were started"
loaded = {"triton", "fastsiren._C", "fastsiren.kernels", "fastsiren.bench", "skimage", "matplotlib"} & set(sys.modules)
assert not loaded, loaded
"""
    assert run(code, folder=tmp_path) == ""


def test_import_loads_nothing(tmp_path):
    code = "import sys, fastsiren, fastsiren.cli; print({'torch', 'numpy', 'fastsiren.siren'} & set(sys.modules))"
    assert run(code, folder=tmp_path) == "set()"


@pytest.mark.parametrize(
    ("before", "timed", "most"),
    [("time", "fastsiren.cli", 0.15), ("time, numpy, torch", "fastsiren.siren, fastsiren.losses", 0.3)],
    ids=["command line", "library behind torch"],
)
def test_import_is_fast(before, timed, most, tmp_path):
    code = f"""
import {before}
start = time.process_time()
import {timed}
print(time.process_time() - start)
"""
    assert min(float(run(code, folder=tmp_path)) for _ in range(3)) <= most


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import fastsiren.derivatives; print(fastsiren.derivatives.__name__)", "derivatives"),
        ("import fastsiren.render; fastsiren.Siren; print(fastsiren.render.__name__)", "render"),
        ("from fastsiren import *; print(derivatives.__name__, losses.value_mse.__name__)", "derivatives value_mse"),
        ("import fastsiren; print(fastsiren.grids.__name__, fastsiren.init.Scheme.__name__)", "fastsiren.grids Scheme"),
        ("import fastsiren, pickle; print(pickle.loads(pickle.dumps(fastsiren.Siren(1, 2, 0, 1))).in_features)", "1"),
    ],
)
def test_names_load_in_any_order(code, said, tmp_path):
    assert run(code, folder=tmp_path) == said


@pytest.mark.parametrize("name", ["laplacian", "derivatives"])
def test_compiling_is_the_first_use(name, tmp_path):
    """Loading happens while the function is traced."""
    code = f"""
import sys, torch, fastsiren
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.ParameterList([torch.rand(4, 2), torch.rand(1, 4)])
    def siren_parameters(self):
        from fastsiren.engine.network import Parameters
        return Parameters(list(self.net), [torch.zeros(4), torch.zeros(1)], [30.0])
options = dict(names=["u__t"], inputs="tx", outputs="u") if {name!r} == "derivatives" else dict()
def run(net, x):
    return fastsiren.{name}(net, x, **options)
net, x = Net(), torch.rand(5, 2)
assert "fastsiren.derivatives" not in sys.modules
compiled = torch.compile(run, fullgraph=True, backend="aot_eager")(net, x)
eager = run(net, x)
parts = zip(*(r.values() if isinstance(r, dict) else r for r in (compiled, eager)), strict=True)
print(all(torch.allclose(a, b, atol=1e-4) for a, b in parts))
"""
    assert run(code, folder=tmp_path) == "True"


@NEEDS_CPP
def test_engine_keeps_subnormals(tmp_path):
    # Code built with -ffast-math sets flush-to-zero when it is loaded, for whoever runs after it.
    code = """
import numpy, torch
import fastsiren._C
"""
    code += EVALUATE
    code += """
tiny = [float.fromhex("0x1p-1074"), torch.tensor(1e-45).item()]
assert tiny[0] * 1.0 > 0 and tiny[0] + tiny[0] > tiny[0]
assert (torch.full((100_000,), tiny[0], dtype=torch.float64) * 1.0 > 0).all()
assert (torch.full((100_000,), 1e-45) * torch.ones(100_000) > 0).all()
assert (numpy.full(1000, 1e-45, numpy.float32) * numpy.float32(1) > 0).all()
"""
    run(code, folder=tmp_path)


def test_home_that_cannot_be_written(tmp_path):
    # A file in the place of the folder stops root as well.
    nowhere = tmp_path / "home"
    nowhere.touch()
    run(EVALUATE, folder=tmp_path, HOME=str(nowhere), XDG_CACHE_HOME=str(nowhere), XDG_CONFIG_HOME=str(nowhere))


def test_one_version():
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    changes = re.findall(r"^## \[(\d.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert fastsiren.__version__ == importlib.metadata.version("fastsiren") == stated == changes[0]


def requirement_name(requirement: str) -> str:
    """Return the package that a requirement names."""
    return re.match(r"[\w-]+", requirement).group()


def test_every_requirement_is_pinned_once():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = [re.fullmatch(r"[\w-]+==[\w.]+(; python_version (?:<|>=) \"3\.\d+\")?", line) for line in lines]
    assert all(pins), lines
    pinned = [requirement_name(line) + (pin.group(1) or "") for line, pin in zip(lines, pins, strict=True)]
    assert len(pinned) == len(set(pinned))
    required = importlib.metadata.requires("fastsiren")
    assert {requirement_name(line) for line in required} - {"fastsiren"} <= {requirement_name(line) for line in lines}
    assert [line for line in required if re.search("==|~=|<", line.partition(";")[0])] == []


def test_build_needs_no_torch():
    build = re.search(r"^requires = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE).group(1)
    assert {requirement_name(part.strip(' "')) for part in build.split(",")} == {"setuptools", "pybind11", "ninja"}


def test_readme_installs_as_make_does():
    (made,) = re.findall(r"^\t\$\(BIN\)/(pip install -c .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f".venv/bin/{made}\n" in (ROOT / "README.md").read_text()


def test_readme_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    run(example, folder=tmp_path)


def checkout(folder: Path) -> Path:
    """Copy the project, with the objects of its last build and their times, so that nothing is compiled twice."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "lib.*", "bdist.*", "typed")
    for name in ("fastsiren", "kernels", "bench", "csrc", "tests", "build"):
        shutil.copytree(ROOT / name, folder / "checkout" / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, folder / "checkout")
    return folder / "checkout"


def build(folder: Path, **variables: str) -> zipfile.ZipFile:
    """Build a wheel from a copy of the project, with the packages of this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder), "."]
    done = subprocess.run(command, cwd=checkout(folder), env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """A wheel built on a machine whose compiler does not work."""
    with build(tmp_path_factory.mktemp("bare"), CXX="false") as wheel:
        yield wheel


def contents() -> set[str]:
    """List the files of the package under their installed names."""
    files = {path for folder in ("fastsiren", "kernels", "bench") for path in (ROOT / folder).rglob("*")}
    kinds, tables = {".py", ".pyi", ".typed"}, {".csv", ".json"}
    kept = {
        path.relative_to(ROOT)
        for path in files
        if path.suffix in kinds or (path.suffix in tables and path.parent.name == "kernels")
    }
    return {(path if path.parts[0] == "fastsiren" else "fastsiren" / path).as_posix() for path in kept}


def test_wheel_without_compiler_holds_the_python_part(bare):
    code = {name for name in bare.namelist() if ".dist-info/" not in name and not name.endswith(".md")}
    assert code == contents()
    assert {"fastsiren/kernels/__init__.py", "fastsiren/bench/__init__.py", "fastsiren/py.typed"} <= code
    assert any(name.endswith("licenses/LICENSE") for name in bare.namelist())


def test_wheel_without_compiler_works(bare, tmp_path):
    bare.extractall(tmp_path / "site")
    code = WHEEL_ONLY + EVALUATE + "import fastsiren.bench, fastsiren.kernels; print(fastsiren.__file__)\n"
    code += "from fastsiren.engine import backends\n"
    code += "print(backends.resolve(None, torch.device('cpu'), torch.float32), backends.missing('cpp'))"
    where, said = run(code, folder=tmp_path, PYTHONPATH=str(tmp_path / "site")).splitlines()
    assert where == str(tmp_path / "site" / "fastsiren" / "__init__.py")
    assert re.match(r"reference .*compiler", said)


@NEEDS_CPP
@pytest.mark.slow
def test_wheel_holds_the_engine(tmp_path):
    with build(tmp_path) as wheel:
        engine = [name for name in wheel.namelist() if re.match(r"fastsiren/_C\..*\.so", name)]
        wheel.extractall(tmp_path / "site")
    assert len(engine) == 1
    code = WHEEL_ONLY + "import fastsiren._C as engine; print(engine.__file__, engine.isa_active())"
    assert run(code, folder=tmp_path, PYTHONPATH=str(tmp_path / "site")).startswith(str(tmp_path / "site" / engine[0]))


def test_source_archive_builds_the_engine(tmp_path):
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    archive = run(code, folder=checkout(tmp_path)).splitlines()[-1]
    with tarfile.open(tmp_path / archive) as files:
        held = {name.partition("/")[2] for name in files.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.suffix in {".cpp", ".h"}}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*.py")}
    assert (
        wanted | {"constraints.txt", "Makefile", "fastsiren/py.typed", "kernels/__init__.py", "bench/__init__.py"}
        <= held
    )


@NEEDS_CPP
def test_stub_names_what_the_engine_has():
    from fastsiren import _C

    tree = ast.parse((ROOT / "fastsiren" / "_C.pyi").read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    defined |= {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
    assert defined == {name for name in vars(_C) if not name.startswith("__")}
