"""What the compiler makes of every kernel, for chips that need not be there.

    python -m fastsiren.kernels.compile_report [--arch 80,90,100] [--only PATTERN] [--quick] [--check] [--write]

The passes are launched on tensors without memory, and what they launch is compiled: the constants, tiles and types are
those of a call. Registers, spills, shared memory and instructions are read from the machine code; a kernel that spills,
does not fit or does not multiply on tensor cores is a failure. compile_report.csv is what --write made; --check fails
where a kernel is now worse.
"""

import argparse
import csv
import itertools
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from .adjoint import Cotangents, adjoint_sweep, contracted, sandwich_reverse
from .configs import INTERPRETED, SHARED, Launch, recording
from .jet import jet_reverse, jet_sweep
from .network import Network, along, prepare
from .project import projected
from .weight_grad import WeightGrads
from .whole import Grid, fits, fused, grid_value

TABLE = Path(__file__).with_name("compile_report.csv")
CHIPS = (80, 90, 100)
POINTS, INPUTS = 4096, 3
GRID = Grid((0.0,) * INPUTS, (0.1,) * INPUTS, (0,) * INPUTS, (16,) * INPUTS, 1.0, 0.0)
# Options and constants that a launcher chooses; the others are the problem.
TILE = ("BM", "BN", "BK", "BR", "BO", "KB", "HOIST", "STAGES", "num_warps")
# Bytes of local memory of a thread: a few numbers; in fp64 the table of the sine's reduction.
STACK = {"fp64": 64}
FEW = 16
TENSOR_MEMORY = 512
# Jumps of loops, divisions and, on sm_100, of waiting for products; a slow path in a sine would add some per element.
JUMPS = 30
# What else is counted in innermost loops, and printed.
KINDS = {
    "conversions": ("F2F", "F2FP", "F2I", "I2F", "I2FP", "HADD2", "PRMT"),
    "shifts and logic": ("SHF", "LOP3"),
    "shared loads": ("LDS", "LDSM"),
}


class Case(NamedTuple):
    """Passes through two layers of one width: a jet, or with C a sandwich, and with `keep` their backward.

    With `moved`, the jet of value_bwdbwd, along a tangent of "all" parameters or of the "biases".
    """

    width: int
    mode: str
    K: int
    R: int
    C: int = 0
    keep: bool = True
    need_m: bool = False
    moved: str = "none"

    def launches(self, chip: int) -> list[Launch]:
        """What the passes launch on a chip."""
        with recording(chip) as found:
            # A kernel for the whole network is written out for every hidden matrix; the others do not know how many.
            net = _network(self.width, self.mode, max(1, self.C), hidden=1 if self.keep else 3, moved=self.moved)
            if self.C:
                _sandwich(net, self.K, self.C)
            elif self.keep:
                _jet(net, self)
            else:
                _forward(net, self.K, self.R)
        return found


def _network(width: int, mode: str, outputs: int, hidden: int, moved: str) -> Network:
    sizes = (INPUTS, *[width] * (1 + hidden), outputs)
    real = torch.float64 if mode == "fp64" else torch.float32
    pairs = itertools.pairwise(sizes)
    weights = [torch.empty(1, units, inputs, dtype=real, device="meta") for inputs, units in pairs]
    parameters = weights, [weight[..., 0] for weight in weights], [30.0] * (1 + hidden)
    net = prepare(*parameters, mode)
    if moved == "none":
        return net
    return along(net, weights if moved == "all" else None, *parameters[1:])


def _jet(net: Network, case: Case) -> None:
    new, K, R = net.first.new_empty, case.K, case.R
    M = new(R, K, K)
    last, trace = jet_sweep(net, new(1 + K, POINTS, INPUTS), M, POINTS, keep=True)
    jet_reverse(net, trace, last, new(1 + K + R, POINTS, net.outputs), M, POINTS, WeightGrads(1), case.need_m)


def _forward(net: Network, K: int, R: int) -> None:
    """Without a backward pass, as one kernel where the network fits; and the pixels of a grid."""
    new, O, H = net.first.new_empty, net.outputs, net.units[-1]
    S, M, pixels = new(1 + K, POINTS, INPUTS), new(R, K, K), new(1, POINTS, O, dtype=torch.uint8)
    sizes = net.first.device, net.inputs, net.units, 1 + K + R, net.mode
    if fits(*sizes):
        fused(net, S[:, None], new(1 + K + R, 1, POINTS, O), M if K else None)
    else:
        last, _ = jet_sweep(net, S, M, POINTS, keep=False)
        projected(last, net.last, POINTS, 1, H, H, O)
    if K == 0 and fits(*sizes, grid=True):
        fused(net, None, pixels[None], grid=GRID)
    elif K == 0:
        grid_value(net, pixels, GRID, POINTS)


def _sandwich(net: Network, K: int, C: int) -> None:
    new, O = net.first.new_empty, net.outputs
    last, trace = jet_sweep(net, new(1 + K, POINTS, INPUTS), new(0, K, K), POINTS, keep=True)
    E = new(C, POINTS, O)
    adjoints = adjoint_sweep(net, trace, E, POINTS)
    contracted(net, trace, adjoints, POINTS)
    bars = Cotangents(new(1, POINTS, O), new(C, POINTS, INPUTS), new(POINTS, C, K, K))
    sandwich_reverse(net, trace, adjoints, last, E, bars, POINTS, WeightGrads(1))


CASES = (
    *(Case(width, "fp32", K, R) for width in (32, 64, 128, 256, 512) for K, R in ((0, 0), (2, 1))),
    *(Case(width, "fp32", 3, 1) for width in (64, 128, 256)),
    *(Case(256, "fp32", K, R) for K, R in ((1, 1), (3, 6), (4, 1), (6, 1))),
    Case(256, "fp32", 2, 1, need_m=True),
    *(Case(width, "fp32", 1, 0, moved="all") for width in (64, 128, 256, 512)),
    *(Case(256, mode, 1, 0, moved="all") for mode in ("tf32", "bf16")),
    Case(64, "fp64", 1, 0, moved="all"),
    Case(256, "fp32", 1, 0, moved="biases"),
    *(
        Case(width, mode, K, R, keep=False)
        for width in (64, 256)
        for mode in ("fp32", "fp16")
        for K, R in ((0, 0), (2, 1))
    ),
    Case(128, "fp32", 0, 0, keep=False),
    *(Case(256, "fp16", K, R) for K, R in ((0, 0), (2, 1))),
    *(Case(256, "fp32", K, 0, C) for K, C in ((0, 1), (0, 3), (2, 1), (3, 3))),
    *(Case(width, "int8", 0, 0, keep=False) for width in (64, 128, 256, 512)),
    Case(256, "int8", 2, 1),
    Case(64, "fp16", 2, 1),
    Case(256, "bf16", 2, 1),
    Case(64, "fp64", 2, 1),
)
QUICK = (Case(256, "fp32", 2, 1), Case(256, "fp32", 1, 0, moved="all"))
MORE_QUICK = {90: (Case(64, "fp16", 2, 1), Case(64, "fp32", 0, 0, keep=False))}


class Row(NamedTuple):
    """One compiled kernel."""

    triton: str
    chip: int
    kernel: str
    problem: str
    tile: str
    registers: int
    stack: int
    """Bytes of local memory of a thread."""
    spills: int
    """Loads and stores of local memory."""
    shared: int
    product: str
    """Instruction of the tensor cores; none for kernels that multiply elementwise."""
    products: int
    ffma: int
    mufu: int
    jumps: int
    instructions: int

    @property
    def key(self) -> tuple[int, str, str]:
        """What the table has one row for."""
        return self.chip, self.kernel, self.problem


class Chip(NamedTuple):
    """Stands in for Triton's driver, of which compiling asks no more than the target."""

    capability: int

    def get_current_target(self) -> GPUTarget:
        """The chip."""
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        """A number that tells chips apart, for Triton's cache of kernels."""
        return self.capability

    def get_current_stream(self, device: int) -> int:
        """None is needed."""
        return 0


def constants(launch: Launch) -> dict[str, Any]:
    """Constants of a launch, without what a launcher chooses."""
    return {name: value for name, value in launch.options.items() if name.isupper() and name not in TILE}


def name_of(launch: Launch) -> str:
    """The kernel's name."""
    return str(launch.kernel.__name__)


def problem_of(launch: Launch) -> str:
    """Constants of a launch, and the types of its tensors, as a text."""
    types = {str(tensor.dtype)[6:] for tensor in launch.arguments if isinstance(tensor, Tensor)}
    texts = [f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in constants(launch).items()]
    return " ".join([*texts, *(["float64"] if "float64" in types else [])])


def compiled(launch: Launch, chip: int) -> tuple[Row, str, list[str]]:
    """Compile a launch for a chip; its row, what its innermost loops are made of, and what is wrong with it."""
    driver.set_active(Chip(chip))
    kernel = launch.kernel.warmup(*launch.arguments, grid=(1,), **launch.options)
    usage, operations, in_loops = _machine_code(kernel.asm["cubin"])
    counts = Counter(operation.split(".")[0] for operation in operations)
    matrix = Counter(operation.split(".")[0] for operation in operations if _is_product(operation))
    tile = {name: int(value) for name, value in launch.options.items() if name in TILE}
    looped = Counter(operation.split(".")[0] for operation in in_loops)
    mix = {kind: sum(looped[name] for name in names) for kind, names in KINDS.items()}
    row = Row(
        *(triton.__version__, chip, name_of(launch), problem_of(launch)),
        " ".join(f"{name}={value}" for name, value in tile.items()),
        *(usage["REG"], usage["STACK"], counts["LDL"] + counts["STL"], kernel.metadata.shared),
        *("+".join(sorted(matrix)), sum(matrix.values())),
        *(counts["FFMA"], counts["MUFU"], counts["BRA"], len(operations)),
    )
    words = ", ".join(f"{count} {kind}" for kind, count in mix.items())
    return row, f"{len(in_loops)} in loops: {words}", complaints(row, launch, kernel)


def _is_product(operation: str) -> bool:
    """Whether a machine instruction is one of the tensor cores; HFMA2.MMA is none."""
    return bool(re.match(r"([HI]GMMA|HMMA|IMMA|DMMA|UTC\w*MMA)\b", operation))


def _machine_code(cubin: bytes) -> tuple[dict[str, int], list[str], list[str]]:
    """Registers and memory of a program, its instructions, and those in its innermost loops."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        command = [str(tool), "-res-usage", "-sass", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = done.stdout + done.stderr
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    line = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_][\w.]*)(.*)", re.MULTILINE)
    code = [(int(address, 16), operation, rest) for address, operation, rest in line.findall(text)]
    return usage, [operation for _, operation, _ in code], _in_loops(code)


def _in_loops(code: Sequence[tuple[int, str, str]]) -> list[str]:
    """Instructions between a jump back and its target, where no other such pair lies between them."""
    jumps = ((re.search(r"0x([0-9a-f]+)", rest), at) for at, operation, rest in code if operation.startswith("BRA"))
    loops = [(int(target[1], 16), at) for target, at in jumps if target and int(target[1], 16) < at]
    inner = [(a, b) for a, b in loops if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
    return [operation for at, operation, _ in code if any(a <= at <= b for a, b in inner)]


def expected_product(launch: Launch, chip: int) -> str:
    """The instruction that a kernel multiplies with; none where it has no wide product."""
    sizes = launch.options
    if "MODE" not in sizes or sizes.get("THIN") or name_of(launch) == "pack_rows":
        return ""
    if sizes["MODE"] == "fp64":
        return "" if chip == 100 else "DMMA"
    rows = sizes["BN"] if name_of(launch) == "weight_grad" else sizes["BM"]
    if sizes["MODE"] == "int8":
        # For sm_100, Triton multiplies bytes with the instructions of older chips.
        return "IGMMA" if chip == 90 and rows >= 64 else "IMMA"
    return {90: "HGMMA", 100: "UTCHMMA"}.get(chip, "HMMA") if rows >= 64 else "HMMA"


def complaints(row: Row, launch: Launch, kernel: Any) -> list[str]:
    """What no kernel may have; nothing for a good one."""
    mode, memory = launch.options.get("MODE", ""), getattr(kernel.metadata, "tmem_size", 0) or 0
    exact = "float64" in row.problem
    wanted = expected_product(launch, row.chip)
    # Tensor cores give their results in a layout of their own. For fp64, Triton does not use those of sm_100.
    plain = re.findall(r"tt\.dot .*-> tensor<[^>]*#blocked", kernel.asm["ttgir"])
    scalar = mode == "fp64" and row.chip == 100
    found = {
        f"stack {row.stack}": row.stack > STACK.get(mode, FEW),
        f"shared memory {row.shared} > {SHARED[row.chip]}": row.shared > SHARED[row.chip],
        f"{row.product or 'no'} instead of {wanted or 'no'} products": row.product != wanted,
        "products that are not of the tensor cores": bool(plain) and not scalar,
        f"tensor memory {memory}": memory > TENSOR_MEMORY,
        f"{row.jumps} jumps": row.jumps > JUMPS + 2 * row.products * (row.chip == 100) and not exact,
        "slow path of the sine": "i2opi" in kernel.asm["ptx"] and not exact,
    }
    return [text for text, wrong in found.items() if wrong]


def worse(row: Row, before: Row | None) -> list[str]:
    """What is worse in a row than in the table's."""
    if before is None:
        return ["not in the table"]
    numbers = ("registers", "stack", "spills", "shared")
    more = [f"{name} {getattr(row, name)} > {getattr(before, name)}" for name in numbers]
    found = [text for text, name in zip(more, numbers, strict=True) if getattr(row, name) > getattr(before, name)]
    same = ("triton", "tile", "product")
    return found + [
        f"{name} {getattr(row, name)!r}, not {getattr(before, name)!r}"
        for name in same
        if getattr(row, name) != getattr(before, name)
    ]


def unique(cases: Sequence[Case], chip: int, only: str) -> Iterator[Launch]:
    """Launches of some cases, each once."""
    seen = set()
    for case in cases:
        for launch in case.launches(chip):
            key = name_of(launch), problem_of(launch), repr(launch.options)
            if key not in seen and re.search(only, f"{key[0]} {key[1]}"):
                seen.add(key)
                yield launch


def read_table(path: Path) -> dict[tuple[int, str, str], Row]:
    """Rows of a table that --write made."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    whole = [name for name, kind in Row.__annotations__.items() if kind is int]
    values: list[dict[str, Any]] = [
        {name: int(x) if name in whole else x for name, x in line.items()} for line in lines
    ]
    return {row.key: row for row in (Row(**line) for line in values)}


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Replace a table."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Row._fields, *sorted(rows, key=lambda row: row.key)])


def report(chips: Sequence[int], only: str, quick: bool, table: dict[tuple[int, str, str], Row] | None) -> list[Row]:
    """Compile and print; exit with 1 where a gate fails or a row is worse than in the table."""
    rows, bad = [], 0
    for chip in chips:
        for launch in unique((*QUICK, *MORE_QUICK.get(chip, ())) if quick else CASES, chip, only):
            row, mix, wrong = compiled(launch, chip)
            wrong += [] if table is None else worse(row, table.get(row.key))
            rows.append(row)
            bad += bool(wrong)
            print(
                f"sm_{chip} {row.kernel:18} {row.problem} | {row.tile} | {row.registers} registers, stack {row.stack}, "
                f"shared {row.shared}{'' if row.shared <= SHARED[86] else ' (> 99 KB)'}, {row.products} {row.product}, "
                f"{row.ffma} FFMA, {row.mufu} MUFU, {row.instructions} in all, {mix} | {'; '.join(wrong) or 'ok'}",
                flush=True,
            )
    print(f"{len(rows)} kernels, {bad} with complaints")
    if bad:
        sys.exit(1)
    return rows


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m fastsiren.kernels.compile_report", description=__doc__)
    parser.add_argument("--arch", default=",".join(map(str, CHIPS)), help="chips, separated by commas")
    parser.add_argument("--only", default="", help="a regular expression for kernels and constants")
    parser.add_argument("--quick", action="store_true", help="a subset of less than a minute")
    parser.add_argument("--check", action="store_true", help="compare with the table")
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--table", type=Path, default=TABLE, help="a CSV file; compile_report.csv unless given")
    options = parser.parse_args()
    if INTERPRETED:
        parser.error("TRITON_INTERPRET=1: interpreted kernels are not compiled; unset it")
    if not set(options.arch.split(",")) <= set(map(str, SHARED)):
        parser.error(f"--arch: got {options.arch}, accepted are {', '.join(map(str, SHARED))}, separated by commas")
    rows = report(
        [int(chip) for chip in options.arch.split(",")],
        options.only,
        options.quick,
        read_table(options.table) if options.check else None,
    )
    if options.write:
        write_table(options.table, rows)


if __name__ == "__main__":
    main()
