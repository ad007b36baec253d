"""Build of fastsiren: the folders kernels/ and bench/ become sub-packages, csrc/ becomes fastsiren._C.

Everything else about the package is said in pyproject.toml. The C++ engine is compiled by ninja, so that a second build
compiles only what changed; it needs a C++17 compiler and pybind11, never torch. Without a compiler the package installs
all the same and uses the reference backend.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path, PurePosixPath

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
FOLDERS = {"fastsiren.kernels": "kernels", "fastsiren.bench": "bench"}
# Contraction is off because the kernels name each fused multiply-add: the same sum has the same bits in every ISA file.
# No -ffast-math (it flushes subnormals for the whole process) and no -march=native (the ISA is chosen at run time).
CXXFLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off", "-pthread"]
SHARED = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
NINJA_FILE = """\
ninja_required_version = 1.5
builddir = {folder}
cxx = {cxx}
cxxflags = {cxxflags}
ldflags = {ldflags}

rule compile
  command = $cxx -MMD -MF $out.d $cxxflags $includes -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = compile $in

rule link
  command = $cxx $ldflags $in -o $out
  description = link $out

{edges}
"""


def packages() -> list[str]:
    """List the packages to install, with those of the mapped folders under their installed names."""
    names = find_packages(include=["fastsiren", "fastsiren.*"])
    for package, folder in FOLDERS.items():
        names += [package, *(f"{package}.{name}" for name in find_packages(folder))]
    return names


def engine() -> Extension:
    """Describe fastsiren._C: every C++ file under csrc/, so that a new file needs no change here."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.cpp"))
    headers = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.h"))
    return Extension("fastsiren._C", sources=sources, depends=headers, language="c++", optional=True)


def compiler() -> list[str]:
    """Return the C++ compiler as an argument list: CXX, else the first that is there."""
    if sys.platform == "win32":
        raise CompileError("the C++ engine needs GCC or clang on Linux or macOS; the reference backend serves Windows")
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for command in map(shlex.split, wanted):
        if shutil.which(command[0]):
            return command
    raise CompileError(f"no C++ compiler: {', '.join(wanted)} not found; install g++ or clang++, or set CXX to one")


def accepted(cxx: list[str], *flags: str) -> list[str]:
    """Return flags if the compiler builds a shared object with them, else none; one that builds nothing raises."""

    def build(*extra: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("int probe() { return 0; }\n")
            command = [*cxx, "-std=c++17", "-fPIC", *SHARED, *extra, str(source), "-o", str(source.with_suffix(".so"))]
            return subprocess.run(command, capture_output=True, text=True)

    plain = build()
    if plain.returncode:
        raise CompileError(f"the C++ compiler {shlex.join(cxx)!r} does not build C++17: {plain.stderr.strip()}")
    return [] if build(*flags, "-Werror").returncode else list(flags)


def ninja() -> str:
    """Return the ninja program: the build requirement's own, else the one on the path."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        BIN_DIR = None
    program = shutil.which("ninja", path=BIN_DIR) or shutil.which("ninja")
    if program is None:
        raise CompileError("ninja was not found: pip install ninja")
    return program


def quoted(arguments: list[str]) -> str:
    """Quote an argument list for the shell inside a ninja file."""
    return shlex.join(arguments).replace("$", "$$")


def escaped(path: str) -> str:
    """Escape a path for a build line of a ninja file."""
    return path.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def ninja_file(sources: list[str], folder: str, target: str) -> str:
    """Write out the build: one edge per source and one link, all paths relative to the project.

    Only bindings.cpp sees the headers of Python and pybind11. They lie in another temporary folder at each isolated
    build, and in the flags of all files they would make every build a full one.
    """
    cxx = compiler()
    try:
        import pybind11
    except ImportError as error:
        raise CompileError("pybind11 was not found: pip install pybind11") from error
    openmp = accepted(cxx, "-fopenmp")
    # GCC 12 warns of its own AVX-512 header (GCC bug 105593); clang has no such warning.
    warnings = ["-Wall", "-Wextra", *accepted(cxx, "-Wno-maybe-uninitialized")]
    python = quoted([f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"])
    edges, objects = [], []
    for source in sources:
        objects.append(escaped(str(PurePosixPath(folder, source).with_suffix(".o"))))
        includes = f"\n  includes = {python}" if PurePosixPath(source).name == "bindings.cpp" else ""
        edges.append(f"build {objects[-1]}: compile {escaped(source)}{includes}")
    edges.append(f"build {escaped(target)}: link {' '.join(objects)}")
    return NINJA_FILE.format(
        folder=escaped(folder),
        cxx=quoted(cxx),
        cxxflags=quoted([*CXXFLAGS, *openmp, *warnings, "-Icsrc"]),
        ldflags=quoted([*SHARED, "-pthread", *openmp]),
        edges="\n".join(edges),
    )


class NinjaBuild(build_ext):
    """Compiles the engine with ninja, in a folder under build/ that stays for the next build."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension; a failure is a CompileError, which setuptools turns into a warning (optional=True)."""
        # An engine of an older source must not stay in an editable checkout when its successor fails to build.
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        if self.inplace or self.editable_mode:
            (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        if not ext.sources:
            raise CompileError("csrc/ holds no C++ source")
        self.copy_file(str(self.compiled(ext)), self.get_ext_fullpath(ext.name))

    def get_ext_fullpath(self, ext_name: str) -> str:
        """Return where the extension goes, with its folder made."""
        path = Path(super().get_ext_fullpath(ext_name))
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def compiled(self, ext: Extension) -> Path:
        """Run ninja and return the built library."""
        folder = f"build/{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
        target = f"{folder}/{Path(self.get_ext_filename(ext.name)).name}"
        script = ROOT / folder / "build.ninja"
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(ninja_file(ext.sources, folder, target))
        command = [ninja(), "-f", f"{folder}/build.ninja", *(["-j", str(self.parallel)] if self.parallel else [])]
        done = subprocess.run(command, cwd=ROOT)
        if done.returncode:
            raise CompileError(f"{shlex.join(command)} failed with exit status {done.returncode}; its output is above")
        return ROOT / target


setup(
    packages=packages(),
    package_dir={"": ".", **FOLDERS},
    package_data={"fastsiren": ["py.typed", "*.pyi"], "fastsiren.kernels": ["README.md", "*.csv", "*.json"]},
    # Results belong to the checkout: they are of its commits.
    exclude_package_data={"fastsiren.bench": ["results/*"]},
    ext_modules=[engine()],
    cmdclass={"build_ext": NinjaBuild},
)
