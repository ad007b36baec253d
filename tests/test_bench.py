"""The benchmark: what it counts, checks, times and records on tiny workloads."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from fastsiren.bench import accuracy, cpu, handwritten, machine, memory, peers, records, timing, units
from fastsiren.bench import passes as bench_passes
from fastsiren.bench.__main__ import main
from fastsiren.bench.official import OfficialSiren, infer, quantities, step
from fastsiren.bench.problem import Contender, Problem, in_double, make, results, truth
from fastsiren.bench.workloads import KINDS, MANY, MUST_SHOW, SETS, Workload, parse, select

from fastsiren import use_backend
from fastsiren.engine import reference

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = [Workload(kind, d=3 if kind == "train_eikonal" else 2, width=16, points=33) for kind in KINDS]
MANY_TINY = Workload(MANY, width=16, points=9)

# Forward units of math.md, section 5: (d, o), J by T, J by A, Laplacian by T and by TxA, Hessian by T and by TxA.
UNITS = [
    ((1, 1), 2, 2, 3, 3, 3, 3),
    ((2, 1), 3, 2, 4, 4, 6, 4),
    ((2, 3), 3, 4, 4, 6, 6, 6),
    ((3, 1), 4, 2, 5, 5, 10, 5),
    ((3, 3), 4, 4, 5, 7, 10, 7),
    ((4, 2), 5, 3, 6, 7, 15, 7),
]


@pytest.mark.parametrize(("shape", "jt", "ja", "lt", "lx", "ht", "hx"), UNITS)
def test_units_are_those_of_the_table(shape, jt, ja, lt, lx, ht, hx):
    d, o = shape
    assert (units.jet_units(d), units.adjoint_units(o)) == (jt, ja)
    assert (units.jet_units(d, 1), units.sandwich_units(d, o)) == (lt, lx)
    assert (units.jet_units(d, d * (d + 1) // 2), units.sandwich_units(d, o)) == (ht, hx)
    assert units.units("gradient", d, o) == min(jt, ja)
    assert units.units("train_eikonal", d, o) == 3 * min(jt, ja)
    assert units.units("train_laplacian", d, o) == 3 * min(lt, lx)
    assert (units.units("forward", d, o), units.units("train_value", d, o)) == (1, 3)


def test_a_unit_is_two_flops_per_weight_and_point():
    module = OfficialSiren(2, 48, 3, 5)
    weights = sum(p.numel() for name, p in module.named_parameters() if name.endswith("weight"))
    assert units.unit_flops(1000, 2, 5, 48, 3) == 2 * 1000 * weights


def test_percent_of_mm_is_a_quotient_of_rates():
    workload = Workload("laplacian")
    seconds = units.workload_flops(workload) / 50e9
    assert math.isclose(units.percent_of_mm(workload, seconds, units.MM_FLOPS / 200e9), 25.0)


def test_every_workload_has_its_own_name_and_is_read_back_from_it():
    everything = [*SETS["all"], *SETS["quick"]]
    assert [parse(w.name) for w in everything] == everything
    assert len({w.name for w in everything}) == len(everything)
    with pytest.raises(ValueError, match="looks like"):
        parse("forward")


def test_select_matches_parts_of_names_and_refuses_an_empty_choice():
    assert select("must") == list(MUST_SHOW)
    assert [w.points for w in select("must", ["forward"])] == [65_536, 262_144]
    assert {w.kind for w in select("must", ["d3", "train_value*65536"])} == {
        "laplacian",
        "train_eikonal",
        "train_value",
    }
    with pytest.raises(ValueError, match="matches nothing"):
        select("must", ["w1024"])


def test_a_workload_refuses_unknown_kinds_and_derivatives_of_several_outputs():
    with pytest.raises(ValueError, match="accepted are forward"):
        Workload("backward")
    with pytest.raises(ValueError, match="need o = 1"):
        Workload("laplacian", o=3)


def test_official_operators_equal_full_jacobians_and_hessians():
    problem = in_double(make(Workload("laplacian", d=3, width=16, points=7)))
    value, first, second = quantities("laplacian", problem.module, problem.x)

    for n, x in enumerate(problem.x):
        expected = torch.autograd.functional.jacobian(problem.module, x)[0]
        hessian = torch.autograd.functional.hessian(problem.module, x)
        torch.testing.assert_close(first[n], expected, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(second[n, 0], hessian.trace(), rtol=1e-11, atol=1e-9)
    torch.testing.assert_close(value, problem.module(problem.x), rtol=0, atol=0)


@pytest.mark.parametrize("workload", TINY, ids=lambda w: w.kind)
def test_chunks_do_the_work_of_the_whole(workload):
    problem = in_double(make(workload))
    if workload.training:
        run = partial(step, workload.kind, problem.module, problem.x, problem.target)
    else:
        run = partial(infer, workload.kind, problem.module, problem.x)
    whole, parts = (results(workload, Contender("eager", partial(run, n), problem.parameters)) for n in (33, 10))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("workload", [*TINY, MANY_TINY], ids=lambda w: w.kind)
def test_every_contender_computes_the_same_numbers(workload, monkeypatch):
    # What is compiled counts here, not the compiler, which takes ten seconds a function.
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    problem = make(workload)
    with use_backend("reference"):
        checked = cpu.check(problem, peers.enter(problem, variants=peers.VARIANTS).contenders)
    assert not checked.absent
    expected = {name for name, (_, kinds) in peers.PEERS.items() if workload.kind in kinds} - {"chunks", "torch_jet"}
    ours = set(peers.VARIANTS) if workload.training else {"ours"}
    # A loss on values has no derivative functions to import, and the notebook trains one network.
    ours -= {"train_value": {"diff_operators"}, MANY: {"import_only", "diff_operators"}}.get(workload.kind, set())
    assert expected | ours == set(checked.verdicts) - {"chunks", "torch_jet"}
    for verdict in checked.verdicts.values():
        assert set(verdict.ours) == set(verdict.eager)
        assert max(verdict.ours.values()) <= 1e-5


def test_many_networks_take_the_steps_that_each_takes_alone():
    problem = make(MANY_TINY)
    contenders = peers.enter(problem, ["eager_fused", "vmap"]).contenders
    with use_backend("reference"):
        losses = [{c.name: c.call()[0].item() for c in contenders} for _ in range(4)]
    assert losses[-1]["eager"] < 0.999 * losses[0]["eager"]
    for found in losses:
        assert len(found) == 5
        assert all(loss == pytest.approx(found["eager"], rel=1e-5) for loss in found.values())


def test_a_written_out_jet_is_exact_in_double():
    problem = in_double(make(Workload("laplacian", d=3, width=16, points=9)))
    expected = [q.detach() for q in quantities("laplacian", problem.module, problem.x)]
    got = handwritten.jet(*peers.split(problem), problem.x, True)
    reverse = handwritten.adjoint(*peers.split(problem), problem.x)
    for mine, theirs in [*zip(got, expected, strict=True), *zip(reverse, expected, strict=False)]:
        assert accuracy.relative_error(mine, theirs) <= 1e-13


def test_truth_is_a_hundred_thousand_times_better_than_eager():
    problem = make(Workload("train_laplacian", width=16, points=33))
    eager = results(problem.workload, peers.eager(problem))
    errors = accuracy.errors(eager, truth(problem))
    assert all(error <= 1e-5 for error in errors.values())
    assert truth(problem)["gradients"].dtype == torch.float64


def test_the_error_rule_fails_on_twice_the_error_and_on_nan():
    eager = {"value": 1e-6}
    assert accuracy.judge({"value": 2.1e-6}, eager, accuracy.OURS).passed
    assert not accuracy.judge({"value": 2.3e-6}, eager, accuracy.OURS).passed
    assert not accuracy.judge({"value": math.nan}, eager, accuracy.OURS).passed
    assert math.isnan(accuracy.relative_error(torch.tensor([math.nan]), torch.ones(1, dtype=torch.float64)))
    with pytest.raises(ValueError, match="expected are"):
        accuracy.errors({"value": torch.ones(2)}, {"value": torch.ones(3, dtype=torch.float64)})


def test_a_wrong_result_is_reported_and_never_timed(monkeypatch, capsys, tmp_path):
    def shifted(problem: Problem) -> Contender:
        return Contender("ours", lambda: (problem.module(problem.x).detach() + 1e-3,), [])

    monkeypatch.setitem(peers.VARIANTS, "ours", shifted)
    settings = cpu.Settings((), 0.0, 3, memory=False, backend="reference")
    assert cpu.run([Workload("forward", width=16, points=33)], settings, "default", tmp_path) == 1
    assert "WRONG RESULT" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_peer_that_fails_or_errs_is_left_out_with_its_reason():
    def broken() -> tuple[torch.Tensor, ...]:
        raise RuntimeError("no compiler here\nand more")

    problem = make(Workload("forward", width=16, points=33))
    zero = Contender("compile_jet", lambda: (torch.zeros(33, 1),), [])
    checked = cpu.check(problem, [peers.eager(problem), Contender("compile", broken, []), zero])
    assert [c.name for c in checked.contenders] == ["eager"]
    assert checked.absent["compile"] == "no compiler here"
    assert "wrong result" in checked.absent["compile_jet"]


def test_torch_jet_says_why_it_is_absent(monkeypatch):
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    problem = make(Workload("laplacian", width=16, points=33))
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert "Python 3.12" in peers.enter(problem, ["torch_jet"]).absent["torch_jet"]
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    assert "0.0.1 is installed" in peers.enter(problem, ["torch_jet"]).absent["torch_jet"]


@pytest.fixture
def stopwatch(monkeypatch) -> Callable[[float], None]:
    """A clock that stands still until it is told to move on."""
    now = [0.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return advance


def test_rounds_are_interleaved_until_the_budget_is_spent(stopwatch):
    order: list[str] = []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        stopwatch(seconds)

    calls = {"A": partial(call, "A", 0.125), "B": partial(call, "B", 0.25)}
    samples = timing.interleave(calls, seconds=0.0, min_rounds=4)
    # One call each before the first round.
    assert order == list("AB") * 5
    assert samples == {"A": [0.125] * 4, "B": [0.25] * 4}
    assert len(timing.interleave(calls, seconds=3.5, min_rounds=3)["A"]) == 10
    assert len(timing.interleave(calls, seconds=3.5, min_rounds=3, max_rounds=5)["A"]) == 5


def test_a_short_sample_is_the_mean_of_many_warm_calls(stopwatch):
    calls = []

    def call() -> None:
        calls.append(None)
        stopwatch(timing.SHORTEST_SAMPLE / 8)

    samples = timing.interleave({"A": call}, seconds=0.0, min_rounds=3)
    # One call to learn its length, then in each of three rounds one that is not timed and eight that are.
    assert len(calls) == 1 + 3 * (1 + 8)
    assert samples["A"] == pytest.approx([timing.SHORTEST_SAMPLE / 8] * 3)


def test_ratio_is_paired_by_round_and_spread_is_of_percentiles():
    assert timing.ratio([2.0, 8.0, 9.0], [1.0, 2.0, 3.0]) == timing.Ratio(3.0, 2.0)
    assert timing.spread([float(i) for i in range(11)]) == timing.Spread(5.0, 2.0, 8.0)
    assert timing.spread([7.0]) == timing.Spread(7.0, 7.0, 7.0)


def test_the_collector_rests_while_timing_and_works_again_afterwards():
    with timing.no_garbage_collection():
        assert not timing.gc.isenabled()
    assert timing.gc.isenabled()


def test_malloc_settings_go_to_a_child_and_the_defaults_stay_here(monkeypatch):
    seen = {}

    def fake(command: list[str], env: dict[str, str]) -> object:
        seen.update(command=command, env=env)
        return type("Done", (), {"returncode": 5})

    for key in machine.TUNED_MALLOC:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(cpu.subprocess, "run", fake)
    assert cpu.run_with_malloc("default", ["cpu"], lambda: 3) == 3
    assert cpu.run_with_malloc("tuned", ["cpu", "--malloc", "tuned"], lambda: 3) == 5
    assert seen["command"][1:] == ["-m", "fastsiren.bench", "cpu", "--malloc", "tuned"]
    assert machine.TUNED_MALLOC.items() <= seen["env"].items()


def test_a_child_that_dies_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu, "run_with_malloc", lambda malloc, child, run: -9 if malloc == "tuned" else 0)
    command = ["cpu", "--quick", "--malloc", "both", "--out", str(tmp_path)]
    assert main(command) == 9


def test_quick_run_end_to_end(tmp_path, capsys, monkeypatch):
    # The yardstick takes longer than everything else here.
    monkeypatch.setattr(cpu, "MM_SIZE", 64)
    command = ["cpu", "--quick", "--only", "train_laplacian", "forward", "--seconds", "0", "--threads", "1"]
    assert main([*command, "--backend", "reference", "--out", str(tmp_path)]) == 0
    rows = records.read(tmp_path / "cpu.csv")
    assert [(r.workload, r.peer) for r in rows] == [
        *(("forward", peer) for peer in ("ours", "eager")),
        *((kind, peer) for kind in ("train_laplacian", "train_laplacian_unfused") for peer in ("ours", "eager")),
    ]
    for row in rows:
        assert (row.isa, row.threads, row.malloc, row.points, row.width) == ("reference", 1, "default", 1_024, 64)
        assert row.rounds >= 3 and 0 < row.p20_ms <= row.median_ms <= row.p80_ms
        assert row.ratio_median > 0 and row.ratio_best > 0 and row.percent_of_mm > 0
        assert 0 < row.error_ours <= 1e-5 and 0 < row.error_eager <= 1e-5 and row.peak_mb is None
        assert (row.ratio_median == 1.0) or row.peer == "eager"
    printed = capsys.readouterr().out
    assert "errors against fp64, ours / eager" in printed and "left out" in printed
    assert main(["report", "--out", str(tmp_path), "--sweep"]) == 0
    assert main(["gates", "--out", str(tmp_path)]) == 2


def test_list_prints_the_names_and_measures_nothing(tmp_path, capsys):
    assert main(["cpu", "--set", "must", "--list", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [w.name for w in MUST_SHOW]
    assert not list(tmp_path.iterdir())


def test_rows_tell_no_host_and_no_path():
    described = machine.describe("default")
    words = " ".join(str(value) for value in vars(described).values())
    assert machine.platform.node() not in words and str(Path.home()) not in words and "/" not in described.machine


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="peak memory is read from /proc, which Linux alone has")
def test_peak_memory_sees_the_activations_of_eager():
    # Tensors above 32 MB come from mmap and go back at once: the heap's own habits do not count.
    workload = Workload("train_value", width=256, points=40_000)
    activation = workload.points * workload.width * 4 / 1e6
    peak = memory.peak_in_child(workload, "eager", backend="reference")
    # Autograd keeps phase and sine of all four sine layers, and the backward holds two cotangents at a time.
    assert 9 * activation <= peak <= 12 * activation


def test_every_pass_has_its_benchmark():
    stems = {name.removeprefix("test_") for name in vars(bench_passes) if name.startswith("test_")}
    assert stems == {name for name in dir(reference) if name.endswith(("_fwd", "_bwd")) and not name.startswith("_")}


def test_the_benchmarks_of_passes_run():
    def call_once(function, *arguments, **options):
        return function(*arguments, **options)

    with use_backend("reference"):
        case = bench_passes.make_case(points=9, width=8)
    for name in [n for n in vars(bench_passes) if n.startswith("test_") and n != "test_loss_fwd"]:
        getattr(bench_passes, name)(call_once, case)
    for kind in ("value", "gradient", "laplacian", "eikonal"):
        bench_passes.test_loss_fwd(call_once, case, kind)
