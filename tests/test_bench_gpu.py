"""The benchmark of the GPU where there is none: arithmetic, workers, judgement, and a run in the interpreter."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the benchmark of the GPU imports Triton")

from fastsiren.bench import roofline
from fastsiren.bench.__main__ import main
from fastsiren.bench.gpu import cases, checks, command, pool, sanitizer, tune, tuned, worker
from fastsiren.bench.gpu.items import Outcome
from fastsiren.bench.gpu.pool import Record, Settings
from fastsiren.bench.gpu.rows import GpuRow, device_of, rows_of
from fastsiren.bench.gpu.summary import TARGETS, summary, targets
from fastsiren.bench.official import OfficialSiren
from fastsiren.bench.workloads import Workload
from fastsiren.kernels import configs

from fastsiren.engine import reference

# Answers every item, but dies of "die" and is silent about "sleep".
WORKER = """
import json, sys, time
for line in sys.stdin:
    item = line.strip()
    if item == "die":
        sys.exit(3)
    if item == "sleep":
        time.sleep(600)
    print(json.dumps({"item": item, "state": "passed", "line": ""}), flush=True)
"""


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(str(tmp_path), quick=True, commit="abc", seconds=0.0)


@pytest.fixture
def run_items(monkeypatch, settings) -> Callable[..., dict[str, Record]]:
    def start(worker: pool.Worker) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, start_new_session=True)

    def run(items: list[str], seconds: float = 60.0, limit: float = 60.0, workers: int = 1) -> dict[str, Record]:
        found: list[Record] = []
        deadline = time.monotonic() + seconds
        with open(f"{settings.out}/log", "ab") as log:
            options = {"workers": workers, "deadline": deadline, "limit": limit, "done": found.append}
            pool.run_items(items, settings, log, **options)
        assert len(found) == len(items)
        return {record["item"]: record for record in found}

    monkeypatch.setattr(pool.Worker, "_start", start)
    return run


def test_a_crash_costs_one_item(run_items):
    found = run_items(["a", "die", "b"])
    assert {item: record["state"] for item, record in found.items()} == {"a": "passed", "die": "crashed", "b": "passed"}
    assert "code 3" in found["die"]["line"]


def test_a_hang_costs_one_item(run_items):
    start = time.monotonic()
    found = run_items(["sleep", "a"], limit=0.5)
    assert time.monotonic() - start < 30
    assert (found["sleep"]["state"], found["a"]["state"]) == ("hung", "passed")


def test_the_end_of_a_stage_is_no_failure(run_items):
    found = run_items(["a", "sleep", "b"], seconds=1.0)
    assert [found[item]["state"] for item in ("a", "sleep", "b")] == ["passed", "not reached", "not reached"]


def test_several_workers_share_the_items(run_items):
    names = [f"i{i}" for i in range(20)]
    assert {r["state"] for r in run_items([*names, "die"], workers=3).values()} == {"passed", "crashed"}


def test_what_an_item_raises_is_its_result(monkeypatch, settings):
    def broken(item: str, settings: Settings) -> Outcome:
        raise ValueError("no such tile\nand more")

    monkeypatch.setattr(worker, "run", broken)
    monkeypatch.setattr(worker, "usable", lambda: True)
    expected = {"item": "pass:x", "state": "failed", "line": "ValueError: no such tile"}
    assert worker.answer("pass:x", settings) == expected
    monkeypatch.setattr(worker, "usable", lambda: False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass:x\npass:y\n"))
    report = io.StringIO()
    worker.serve(settings, report)
    # After a fault on the device this process answers nothing more.
    assert [json.loads(line)["state"] for line in report.getvalue().splitlines()] == ["crashed"]


def test_bytes_flops_and_sines_of_a_workload_are_counted_by_hand():
    w = Workload("train_laplacian", d=2, width=64, points=1000, layers=3)
    module = OfficialSiren(2, 64, 3, 1)
    count = sum(p.numel() for p in module.parameters())
    assert roofline.weights(w) == count
    found = roofline.work(w, "fp32")
    # Coordinates, target, and parameters with their gradients.
    assert found.bytes == 4 * (1000 * (2 + 1) + 2 * count)
    # Value, two tangents and one form; forward, data gradient and weight gradient; three products of halves.
    assert found.matrix_flops == 4 * 3 * 3 * (2 * 1000 * 3 * 64 * 64)
    assert found.thin_flops == 4 * 3 * 2 * 1000 * (2 * 64 + 64)
    assert found.sines == found.cosines == 1000 * 4 * 64
    assert roofline.work(w, "fp16").matrix_flops == found.matrix_flops / 3
    forward = Workload("forward", d=2, o=3, width=64, points=1000)
    assert roofline.moved(forward, "fp64", grid=True) == 8 * (1000 * 3 + roofline.weights(forward))
    assert roofline.work(forward, "fp16").cosines == 0


def test_a_bound_is_the_longest_of_four_times():
    chip = roofline.Chip("X", fp16=100.0, fp32=10.0, fp64=5.0, bandwidth=1.0, multiprocessors=100, clock=1.0)
    w = Workload("forward", d=2, width=128, points=1 << 20)
    for mode, products in (("fp16", 1), ("fp32", 3)):
        found, work = roofline.bound(w, mode, chip), roofline.work(w, mode)
        assert math.isclose(found.matrix, 1e3 * products * 2 * (1 << 20) * 3 * 128**2 / 100e12)
        assert math.isclose(found.bytes, 1e3 * work.bytes / 1e12)
        assert found.ms == max(found.bytes, found.matrix, found.thin, found.sines)
    assert math.isclose(roofline.bound(w, "fp16", chip).sines, 1e3 * (1 << 20) * 4 * 128 / (16 * 100 * 1e9))
    assert math.isclose(roofline.bound(w, "fp32", chip).sines, 1e3 * (1 << 20) * 4 * 128 * 2 * 16 / 10e12)
    assert roofline.bound(w, "fp32", chip).limit == "matrix"


def test_chips_are_known_by_their_names():
    names = {"NVIDIA H100 80GB HBM3": "H100", "NVIDIA H200": "H200", "NVIDIA A100-SXM4-80GB": "A100"}
    for name, chip in names.items():
        found = roofline.chip_of(name)
        assert found is not None and found.name == chip
    # Others, whose names contain one of these or whose rates differ.
    for name in ("GeForce RTX 4090", "RTX A1000", "H100 PCIe", "H100 NVL", "H100 80GB HBM3 MIG 1g.10gb"):
        assert roofline.chip_of(f"NVIDIA {name}") is None


def test_the_table_of_bounds_needs_no_gpu(capsys):
    assert main(["roofline"]) == 0
    printed = capsys.readouterr().out
    assert "forward-d2-o1-w256-l3-n1048576" in printed and "H200" in printed


def shifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose first tensor is off by a ten-thousandth."""

    def call(*arguments: Any, **options: Any) -> Any:
        found = function(*arguments, **options)
        if found is None:
            options["out"] *= 1.0001
            return None
        if isinstance(found, torch.Tensor):
            return found * 1.0001
        return (found[0] * 1.0001, *found[1:])

    return call


@pytest.fixture
def reference_passes(monkeypatch) -> Iterator[SimpleNamespace]:
    """The functions of the reference backend in place of the kernels."""
    table = SimpleNamespace(**{name: getattr(reference, name) for name in dir(reference) if name.endswith("wd")})
    monkeypatch.setattr(cases, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(checks, "passes", lambda mode: table)
    yield table


SMALL = [case for case in cases.cases(True) if case.mode in ("fp32", "fp64")]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_a_pass_is_judged_by_the_error_rule(case, reference_passes, settings):
    outcome = checks.run(case.name, settings)
    assert outcome.state == "passed", outcome.line
    if case.N == 0:
        return
    name = "value_bwdbwd" if case.kind.startswith("value_bwdbwd") else f"{case.kind.split('_')[0]}_fwd"
    setattr(reference_passes, name, shifted(getattr(reference_passes, name)))
    outcome = checks.run(case.name, settings)
    assert outcome.state == "failed", outcome.line


def test_a_wrong_gradient_is_seen(reference_passes, settings):
    def halved(*arguments: Any, **options: Any) -> Any:
        grads = reference.jet_bwd(*arguments, **options)
        return grads._replace(biases=[b / 2 for b in grads.biases])

    reference_passes.jet_bwd = halved
    case = next(case for case in SMALL if case.kind == "jet")
    outcome = checks.run(case.name, settings)
    assert outcome.state == "failed" and "weight_grad" in outcome.line


def test_narrowed_products_are_narrow_in_every_backward():
    a, b = torch.randn(2, 8, 8, dtype=torch.float64).unbind()
    a.requires_grad_()
    b.requires_grad_()
    product = checks.Product.apply(a, b, torch.float16)
    narrow = checks.narrowed(a.detach(), torch.float16) @ checks.narrowed(b.detach(), torch.float16)
    assert torch.equal(product, narrow)
    assert 1e-5 < (product - a @ b).abs().max() < 1e-2
    bar = torch.randn(8, 8, dtype=torch.float64)
    (grad,) = torch.autograd.grad(product, a, bar, create_graph=True)
    assert torch.equal(grad, checks.narrowed(bar, torch.float16) @ checks.narrowed(b.detach(), torch.float16).mT)
    assert torch.autograd.grad(grad.sum(), b)[0].abs().max() > 0


def test_every_case_has_its_own_name_and_the_important_ones_come_first():
    every = cases.cases(False)
    assert len({case.name for case in every}) == len(every)
    assert {case.kind for case in every[:12]} == set(cases.OUTPUTS)
    assert {case.mode for case in every} == {"fp32", "fp16", "bf16", "fp64"}
    assert {(case.K, case.R) for case in every if case.kind == "jet"} >= {(0, 0), (2, 0), (2, 1), (3, 1), (3, 6)}
    assert {case.widths[0] for case in every} == set(range(1, 7))
    assert {case.widths[-1] for case in every} == set(range(1, 6))


def test_the_sanitizer_tells_errors_from_its_own_failure():
    clean = "========= COMPUTE-SANITIZER\nall cases ran\n========= ERROR SUMMARY: 0 errors\n"
    assert sanitizer.verdict("memcheck", 0, clean).state == "passed"
    bad = "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 1 error\n"
    found = sanitizer.verdict("memcheck", sanitizer.FOUND, bad)
    assert found.state == "failed" and "Invalid __global__ read" in found.line
    lost = sanitizer.verdict("racecheck", 1, "========= COMPUTE-SANITIZER\n========= Error: Device not supported\n")
    assert lost.state == "skipped" and "Device not supported" in lost.line


def test_tuned_tiles_are_in_the_form_that_kernels_read(settings):
    entry, tile = "sm_90 4 256 256 fp16", [16, 32, 64, 4, 2]
    tuned.write(settings, {"sm_90 1 64 64 fp32": [32, 64, 32, 4, 2]})
    tuned.write(settings, {entry: tile})
    assert tuned.read(settings)[entry] == tile and len(tuned.read(settings)) >= 2
    arguments = (torch.device("cpu"), 4, 256, 256, "fp16")
    before = configs.layer_tile(*arguments)
    with tuned.applied(settings):
        assert list(configs.layer_tile(*arguments).values()) == tile
    assert configs.layer_tile(*arguments) == before != dict(zip(before, tile))


def test_tuned_sines_are_those_of_the_special_function_unit(settings, monkeypatch):
    monkeypatch.setattr(tune, "DEVICE", torch.device("cpu"))
    key = tune.parse("sines-c1-w64-fp16")
    tuned.write(settings, {key.entry: key.entered({"SINES": "half"})})
    with tuned.applied(settings):
        found = [
            configs.whole_sines(torch.device("cpu"), 1, width, sines)
            for width, sines in ((64, "unit"), (128, "unit"), (64, "exact"))
        ]
    assert found == ["half", "unit", "exact"]


def example(**changed: Any) -> GpuRow:
    """A row of ours that meets the target of the dense decode."""
    device = device_of({"device": "NVIDIA H100", "driver_version": "580"}, "2026-01-01T00:00Z")
    row = GpuRow(
        **dataclasses.asdict(device), workload="forward_grid", width=256, layers=3, points=1 << 20, d=2, o=1,
        mode="fp16", tiles="shipped", peer="ours", rounds=5, median_ms=0.5, p20_ms=0.5, p80_ms=0.5, ratio_median=1.0,
        ratio_best=1.0, bound_ms=0.4, percent_of_bound=80.0, peak_mb=4.0, error=1e-4, error_eager=1e-7,
    )  # fmt: skip
    return dataclasses.replace(row, **changed)


def test_the_summary_begins_with_failures_and_judges_targets():
    records = [
        {"item": "pass:a", "state": "passed", "line": "fine", "ratio": 0.5},
        {"item": "pass:b", "state": "crashed", "line": "code -11"},
    ]
    rows = [example(), example(peer="eager", ratio_median=20.0)]
    lines = summary(records, rows).splitlines()
    assert lines[1:3] == ["FAILED", "  pass:b crashed: code -11"]
    assert any("eager 20.00x; 0.5 ms, 80 % of the bound" in line for line in lines)
    said = list(targets(rows))
    assert len(said) == len(TARGETS)
    assert said[0].endswith("met, 0.5 ms") and said[1].endswith("not measured")
    assert next(targets([example(median_ms=0.8)])).endswith("MISSED, 0.8 ms")


def test_without_a_gpu_the_command_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu", "--out", str(tmp_path)]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command_in_the_interpreter(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    command = [sys.executable, "-m", "fastsiren.bench", "gpu", "--quick", "--out", str(tmp_path), "--commit", "abc"]
    done = subprocess.run([*command, "--budget", "600"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    states: dict[str, set[str]] = {}
    for path in tmp_path.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            states.setdefault(path.stem, set()).add(json.loads(line)["state"])
    assert states == {
        "environment": {"measured"},
        "checks": {"passed", "skipped"},
        "tuning": {"measured"},
        "measure": {"measured"},
    }
    with (tmp_path / "gpu.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in dataclasses.fields(GpuRow)]
    assert {(r["workload"], r["mode"], r["peer"]) for r in rows} == {
        (workload, mode, peer)
        for workload in ("forward", "forward_grid", "train_laplacian")
        for mode in ("fp32", "fp16")
        for peer in ("ours", "eager")
    }
    assert all(float(r["median_ms"]) > 0 and r["commit"] == "abc" and r["device"] == "interpreter" for r in rows)
    assert "no check failed" in done.stdout and "target forward_grid w256" in done.stdout


def test_rows_come_from_the_record_of_an_item():
    assert rows_of({"item": "measure:rates"}, device_of({}, "")) == []
