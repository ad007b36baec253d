"""The GPU kernels as compiled code, without a GPU: gates, and the committed table as a bound."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).resolve().parents[1] / "kernels" / "compile_report.csv"


def run(*arguments: str, table: Path = TABLE) -> subprocess.CompletedProcess[str]:
    """Run the report in a process of its own, in which nothing is interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "fastsiren.kernels.compile_report", "--table", str(table), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["80", "90", "100"])
def test_kernels_compile_no_worse_than_the_table(chip):
    done = run("--arch", chip, "--quick", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "jet_layer_bwd" in done.stdout and "weight_grad" in done.stdout


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("registers", "1", "registers"),
        ("shared", "1", "shared"),
        ("product", "FFMA", "product"),
        ("triton", "0.0", "triton"),
        ("problem", "C=2", "not in the table"),
    ],
)
def test_a_kernel_worse_than_the_table_is_named(tmp_path, column, value, complaint):
    with TABLE.open(newline="") as file:
        lines = list(csv.DictReader(file))
    changed = tmp_path / "table.csv"
    with changed.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows({**line, column: value} if line["kernel"] == "weight_grad" else line for line in lines)
    done = run("--arch", "90", "--quick", "--check", "--only", "weight_grad .*fp16", table=changed)
    assert done.returncode == 1 and complaint in done.stdout, done.stdout + done.stderr


def test_interpreted_kernels_are_refused():
    command = [sys.executable, "-m", "fastsiren.kernels.compile_report", "--quick"]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 2 and "TRITON_INTERPRET" in done.stderr
