"""Choosing the instruction set of the C++ engine, and that all of them compute the same thing."""

import pytest
import torch

import oracle
from passes import CPP, OUTPUTS, Case, by_engine, child, expected, extension, instruction_sets, isa_selected, operands

KNOWN = ("amx", "avx512", "avx2", "neon", "scalar")
pytestmark = pytest.mark.skipif(not CPP, reason="the C++ backend is not among the tested ones")

SHOW = """
    import torch, fastsiren
    from fastsiren.engine import backends
    with fastsiren.use_backend("cpp"):
        y = fastsiren.Siren(2, 16, 1, 1)(torch.rand(5, 2))
    from fastsiren import _C
    print(_C.isa_active(), *backends.status().isa)
"""


def test_available():
    names = instruction_sets()
    # Best first, and one that runs anywhere.
    assert names and names == [name for name in KNOWN if name in names] and names[-1] == "scalar"


def test_best_is_active():
    best = instruction_sets()[0]
    done = child(SHOW, FASTSIREN_ISA="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [best, *instruction_sets()]


def test_select():
    before = extension().isa_active()
    for name in instruction_sets():
        with isa_selected(name):
            assert extension().isa_active() == name
    assert extension().isa_active() == before


@pytest.mark.parametrize("name", ["", "AVX2", "avx", "sse9"])
def test_unknown_name_is_refused(name):
    before = extension().isa_active()
    with pytest.raises(ValueError, match=f"'{name}' cannot run here; available: {', '.join(instruction_sets())}"):
        extension().isa_select(name)
    assert extension().isa_active() == before


def test_environment_selects():
    for name in instruction_sets()[1:]:
        done = child(SHOW, FASTSIREN_ISA=name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:2] == [name, name]


def test_environment_with_an_unknown_name_fails():
    done = child(SHOW, FASTSIREN_ISA="sse9")
    assert done.returncode == 1
    listed = ", ".join(map(repr, instruction_sets()))
    assert f"FASTSIREN_ISA: got 'sse9', expected one of {listed}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", OUTPUTS)
def test_all_agree(name):
    case = Case((2, 64, 64, 64, 1), (30.0,) * 3, 500, K=2, R=1, C=1)
    plain, exact = (expected(name, case, torch.float32, d).tensors() for d in (torch.float32, torch.float64))
    results = [by_engine(engine, name, operands(name, case, torch.float32)).tensors() for engine in CPP]
    for ours in results:
        for mine, first, p, r in zip(ours, results[0], plain, exact, strict=True):
            # The distance of two results is at most the sum of what the error rule grants each.
            floor = 2 * torch.finfo(torch.float32).eps * r.abs().max().item()
            granted = 2 * ((p.double() - r).abs().max().item() * 2 + floor)
            assert (mine - first).abs().max().item() <= granted
            assert oracle.relative_error(mine, first) <= 1e-4


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_one_runs(name):
    # Vector lengths differ and so do the orders of sums: equal bits would mean that one unit does all the work.
    given = operands(name, Case((2, 64, 64, 64, 1), (30.0,) * 3, 500), torch.float32)
    sums = [by_engine(engine, name, given).parameters for engine in CPP]
    for i, a in enumerate(sums):
        for b in sums[:i]:
            assert not all(torch.equal(s, t) for s, t in zip(a, b, strict=True))
