"""What the source may not hold: forbidden calls, machine paths, long files, upward imports, code that ISAs share."""

from __future__ import annotations

import ast
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import WANTED

NEEDS_CPP = pytest.mark.skipif("cpp" not in WANTED, reason="the C++ backend is not among the tested ones")
ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("fastsiren", "kernels", "bench", "csrc", "docs", "tests")
SUFFIXES = {".py", ".pyi", ".cpp", ".h", ".md", ".toml", ".txt", ".in", ""}
LINES = 400


def sources(*folders: str, suffixes: set[str]) -> list[Path]:
    """List the files below some folders of the project, with their endings."""
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*")))
    return [path for path in found if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts]


PYTHON = sources("fastsiren", "kernels", "bench", suffixes={".py"})
CPP = sources("csrc", suffixes={".cpp", ".h"})
CODE = [*PYTHON, *CPP, *sources("tests", suffixes={".py"}), ROOT / "setup.py"]
TOP = sorted(path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES and path.name != ".git")
TEXT = [*TOP, ROOT / ".ci" / "run", *sources(*FOLDERS, suffixes=SUFFIXES)]


def names(paths: list[Path]) -> list[str]:
    """Return readable test ids."""
    return [path.relative_to(ROOT).as_posix() for path in paths]


FORBIDDEN_NAMES = {"eval", "exec", "__import__"}
FORBIDDEN_CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "torch.serialization.load"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
# A keyword and the one value that it may be given, if any.
FORBIDDEN_KEYWORDS = {"shell": False, "allow_pickle": False, "weights_only": True}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """Yield what a module may not do: run code or processes from text, or load objects that carry code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            if node.module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"from {node.module} import"
        elif isinstance(node, ast.Call):
            yield from forbidden_call(node)


def forbidden_call(node: ast.Call) -> Iterator[str]:
    """Yield what one call does wrong."""
    call = ast.unparse(node.func)
    if call in FORBIDDEN_NAMES or call in FORBIDDEN_CALLS:
        yield f"{call}()"
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    for keyword, allowed in FORBIDDEN_KEYWORDS.items():
        if keyword in given and not (isinstance(given[keyword], ast.Constant) and given[keyword].value is allowed):
            yield f"{keyword}={ast.unparse(given[keyword])}"
    if call == "torch.load" and "weights_only" not in given:
        yield "torch.load() without weights_only=True"


@pytest.mark.parametrize("path", [*PYTHON, ROOT / "setup.py"], ids=names([*PYTHON, ROOT / "setup.py"]))
def test_no_forbidden_call(path):
    assert list(forbidden(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval(text)",
        "exec(text)",
        "subprocess.run(line, shell=True)",
        "yaml.load(text)",
        "numpy.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=flag)",
        "torch.load(path, weights_only=False)",
        "torch.load(path)",
    ],
)
def test_forbidden_call_is_seen(line):
    assert len(list(forbidden(ast.parse(line)))) == 1


def test_no_fast_math_nor_native_code():
    nodes = ast.walk(ast.parse((ROOT / "setup.py").read_text()))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    flags = {ROOT / "setup.py": " ".join(text for text in strings if text.startswith("-"))}
    flags |= {path: path.read_text() for path in (ROOT / "Makefile", ROOT / ".ci" / "run")}
    flags |= {path: re.sub(r"//.*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL) for path in CPP}
    for path, text in flags.items():
        assert not re.search(r"fast-math|unsafe-math|-Ofast|march=native|mtune=native", text), path


def test_environment_is_read_in_one_place():
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in PYTHON
        if re.search(r"\bos\.(environ|getenv)\b|from os import .*\b(environ|getenv)\b", path.read_text())
        and path.is_relative_to(ROOT / "fastsiren")
    }
    assert readers <= {"fastsiren/engine/backends.py"}
    assert not [path for path in CPP if re.search(r"\bgetenv\b", path.read_text())]


def test_environment_variables_are_documented():
    readers = [*sources("fastsiren", "bench", suffixes={".py"}), ROOT / "tests" / "conftest.py"]
    used = {name for path in readers for name in re.findall(r"FASTSIREN_[A-Z_]+", path.read_text())}
    assert used <= set(re.findall(r"FASTSIREN_[A-Z_]+", (ROOT / "README.md").read_text()))


@pytest.mark.parametrize("path", TEXT, ids=names(TEXT))
def test_no_machine_path(path):
    assert re.findall(r"(?<![\w.*])/(?:home|root|work|opt|Users|mnt|tmp)/\S*", path.read_text()) == []


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_file_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines < LINES, "split it before it passes the limit"


# Modules by level: an import goes to the same level or to a lower one. A name stands for all that is below it; modules
# that are not named, such as those that write files, count as part of whoever imports them.
LEVELS = [
    {"fastsiren.kernels", "fastsiren._C"},
    {"fastsiren.engine"},
    {"fastsiren.functional"},
    {"fastsiren.derivatives", "fastsiren.siren", "fastsiren.dropin"},
    {"fastsiren.fit", "fastsiren.render"},
    {"fastsiren.problems"},
    {"fastsiren.cli", "fastsiren.bench", "fastsiren"},
]
# An implementation never imports another one, nor the reference.
IMPLEMENTATIONS = {
    "reference": {"fastsiren.engine.reference", "fastsiren.engine.recurrences"},
    "cpp": {"fastsiren.engine.cpp", "fastsiren.engine.cpp_net", "fastsiren._C"},
    "triton": {"fastsiren.engine.triton", "fastsiren.kernels"},
}


def module_name(path: Path) -> str:
    """Return the name under which a file is installed."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "fastsiren" else ["fastsiren", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PYTHON}


def covered(module: str, names: set[str]) -> str | None:
    """Return the longest of some names that is the module or one of its parents."""
    parents = [module.rsplit(".", count)[0] for count in range(module.count(".") + 1)]
    return next((name for name in parents if name in names), None)


def level(module: str) -> int | None:
    """Return the level of a module; None for one that is not named."""
    owner = "fastsiren" if module == "fastsiren" else covered(module, set().union(*LEVELS) - {"fastsiren"})
    return next((number for number, names in enumerate(LEVELS) if owner in names), None)


def imports(module: str, path: Path) -> Iterator[str]:
    """Yield every module of this package that a module imports, also inside functions."""
    package = module if path.name == "__init__.py" else module.rsplit(".", 1)[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "fastsiren")
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            if origin.split(".")[0] == "fastsiren":
                # Its version is the one thing of the package itself that any part may ask for.
                deeper = (f"{origin}.{alias.name}" for alias in node.names if alias.name != "__version__")
                yield from (name if name in MODULES or name == "fastsiren._C" else origin for name in deeper)


def reached(module: str) -> set[str]:
    """Return the named modules that a module imports, itself or through modules without a level."""
    found: set[str] = set()
    todo = [module]
    seen = set()
    while todo:
        current = todo.pop()
        seen.add(current)
        for name in imports(current, MODULES[current]):
            if level(name) is not None:
                found.add(name)
            elif name in MODULES and name not in seen:
                todo.append(name)
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if level(name) is not None])
def test_imports_go_down(module):
    assert {name for name in reached(module) if level(name) > level(module)} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if covered(name, set().union(*IMPLEMENTATIONS.values()))])
def test_implementations_are_apart(module):
    own = next(family for family in IMPLEMENTATIONS.values() if covered(module, family))
    others = set().union(*IMPLEMENTATIONS.values()) - own
    assert [name for name in imports(module, MODULES[module]) if covered(name, others)] == []


def test_kernels_import_nothing_of_the_package():
    outside = {
        module: name
        for module, path in MODULES.items()
        if covered(module, {"fastsiren.kernels"})
        for name in imports(module, path)
        if not covered(name, {"fastsiren.kernels"})
    }
    assert outside == {}


@pytest.mark.parametrize("module", sorted(IMPLEMENTATIONS["reference"]))
def test_reference_imports_torch_only(module):
    nodes = list(ast.walk(ast.parse(MODULES[module].read_text())))
    direct = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    outside = {name.split(".")[0] for name in direct | origins} - set(sys.stdlib_module_names)
    assert outside <= {"torch", "fastsiren"}
    assert set(imports(module, MODULES[module])) <= {"fastsiren.engine.network", *IMPLEMENTATIONS["reference"]}


def objects(folder: str) -> list[Path]:
    """Return the objects of the last build of the C++ engine whose sources are in a folder; none is a failure."""
    built = sorted((ROOT / "build").glob(f"*/{folder}/*.o"))
    found = [path for path in built if (ROOT / folder / path.name).with_suffix(".cpp").is_file()]
    assert found, "no objects under build/: install with pip install -e . first"
    return found


def listing(*command: str | Path) -> list[str]:
    """Return the lines that a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@NEEDS_CPP
def test_isa_objects_share_no_code():
    # The linker keeps one copy of a weak symbol for everybody: this one may hold instructions that a machine lacks.
    weak = [line for path in objects("csrc/isa") for line in listing("nm", "-C", path) if re.search(" [VWu] ", line)]
    assert weak == []


@NEEDS_CPP
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names registers of x86-64")
def test_shared_objects_run_everywhere():
    wide = {
        path.name for path in objects("csrc") for line in listing("objdump", "-d", path) if re.search("%[yz]mm", line)
    }
    assert wide == set()
