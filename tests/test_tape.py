"""Tapes: what a forward pass leaves for its backward pass changes its time, and no bit of a gradient."""

import contextlib

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import fastsiren
import oracle
from fastsiren.engine import backends
from fastsiren.engine.pass_kind import Tape
from oracle import Net
from passes import CPP, Case, by_engine, extension, on_every_isa, operands

# Widths around panels, rows around groups, tiles and segments.
CASES = [
    Case((2, 33, 17, 64, 3), (30.0, 10.0, 5.0), N, per_point)
    for N, per_point in ((0, False), (1, True), (47, False), (49, True), (97, False), (1153, True))
]
needs_cpp = pytest.mark.skipif(
    not CPP, reason="only the C++ engine keeps tapes, and it is not among the backends under test"
)


@pytest.mark.usefixtures("poisoned")
@on_every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", ["value", "jet"])
def test_bits(name, case, dtype, engine):
    given, tape = operands(name, case, dtype), Tape()
    # What the pool hands out next is no number.
    torch.frombuffer(extension().TapeMemory(1 << 24), dtype=torch.float32).fill_(torch.nan)
    kept, again = by_engine(engine, name, given, tape=tape), by_engine(engine, name, given)
    assert all(map(torch.equal, kept.tensors(), again.tensors()))
    # Products of digits are made again.
    digits = "amx" in engine.isa and dtype == torch.float32
    assert (tape.numbers is None) == (digits or case.N == 0)


@on_every_isa
@pytest.mark.parametrize("rows", [1, 97])
def test_bits_of_networks(rows, engine):
    nets = [oracle.network((2, 33, 17, 2), (30.0, 10.0), dtype=torch.float32, seed=g) for g in range(3)]
    every = Net(*([torch.stack(column) for column in zip(*group)] for group in zip(*(n[:2] for n in nets))), nets[0][2])
    one = operands("value", Case((2, 33, 17, 2), (30.0, 10.0), 3 * rows), torch.float32)
    given = one._replace(net=every)
    kept, again = by_engine(engine, "value", given, tape=Tape()), by_engine(engine, "value", given)
    assert all(map(torch.equal, kept.tensors(), again.tensors()))


@pytest.fixture
def tapes(monkeypatch):
    """Whether the tape of each backward pass held something, in order."""
    found, module = [], backends.module("cpp")

    def watched(original):
        def run(*args, tape=None, **needs):
            found.append(tape is not None and tape.numbers is not None)
            return original(*args, **needs, **({} if tape is None else {"tape": tape}))

        return run

    for name in ("value_bwd", "jet_bwd"):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    return found


def siren() -> tuple[fastsiren.Siren, Tensor]:
    torch.manual_seed(0)
    # In float64, as a CPU with a tile unit leaves no tape of float32.
    return fastsiren.Siren(2, 32, 2, 1).double(), torch.rand(50, 2, dtype=torch.float64)


def steps(net: fastsiren.Siren, x: Tensor, quantity=None) -> list[Tensor]:
    """Gradients of a loss that is plain PyTorch."""
    value = net(x) if quantity is None else net(x, quantity)[-1]
    return list(torch.autograd.grad(value.square().sum(), list(net.parameters())))


@needs_cpp
@pytest.mark.parametrize("quantity", [None, fastsiren.laplacian], ids=["value", "laplacian"])
def test_a_step_of_a_small_batch_uses_its_tape(quantity, tapes, monkeypatch):
    net, x = siren()
    kept = steps(net, x, quantity)
    monkeypatch.setattr(backends.module("cpp"), "_TAPE_BYTES", 0)
    again = steps(net, x, quantity)
    assert tapes == [True, False] and all(map(torch.equal, kept, again))


@needs_cpp
def test_a_large_batch_leaves_none(tapes):
    net, _ = siren()
    steps(net, torch.rand(300_000, 2, dtype=torch.float64))
    assert tapes == [False]


@needs_cpp
def test_a_spoilt_tape_spoils_gradients():
    net, x = siren()
    value = net(x)
    value.grad_fn.saved_tensors[-1].data.fill_(torch.nan)
    value.sum().backward()
    assert all(parameter.grad.isnan().any() for parameter in list(net.parameters())[:-1])


@needs_cpp
@pytest.mark.parametrize(
    ("unpacked", "expected"),
    [
        (lambda tape: torch.stack([tape, tape], 1)[:, 0], None),
        (lambda tape: tape[:-1], ValueError),
        (lambda tape: tape.float(), TypeError),
    ],
    ids=["strided", "shorter", "another dtype"],
)
def test_hooks_on_a_saved_tape(unpacked, expected):
    net, x = siren()
    kept = steps(net, x)
    value = net(x)
    value.grad_fn._raw_saved_tensors[-1].register_hooks(lambda tape: tape, unpacked)
    loss = value.square().sum()
    if expected is None:
        assert all(map(torch.equal, torch.autograd.grad(loss, list(net.parameters())), kept))
    else:
        with pytest.raises(expected, match=r"^tape: got .*, expected "):
            loss.backward()


@needs_cpp
def test_a_tape_of_other_widths_is_refused():
    net, x = siren()
    value = net(x)
    for parameter, wider in zip(net.parameters(), fastsiren.Siren(2, 256, 2, 1).double().parameters()):
        parameter.data = wider.data
    with pytest.raises(ValueError, match=r"^tape: got shape"):
        value.sum().backward()


@needs_cpp
def test_inference_mode_leaves_none():
    net, x = siren()
    with torch.inference_mode(), torch.enable_grad():
        value = net(x)
    assert torch.equal(value, net(x))


@needs_cpp
def test_a_graph_walked_twice(tapes):
    net, x = siren()
    value = net(x)
    first, second = (torch.autograd.grad(value.sum(), net.parameters(), retain_graph=True) for _ in range(2))
    assert tapes == [True, True] and all(map(torch.equal, first, second))


@needs_cpp
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("observed", [False, True], ids=["alone", "under a profiler"])
def test_checkpoint(observed, reentrant, tapes):
    """Calls in the backward pass may become operators, as under a profiler: as many tensors must be saved."""
    net, x = siren()
    expected = steps(net, x)
    value = checkpoint(net, x.requires_grad_(), use_reentrant=reentrant)
    with torch.profiler.profile() if observed else contextlib.nullcontext():
        value.square().sum().backward()
    assert tapes == [True, reentrant and not observed]
    assert all(map(torch.equal, [parameter.grad for parameter in net.parameters()], expected))


@needs_cpp
def test_hooks_on_all_saved_tensors_see_none(tapes):
    net, x = siren()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        value = net(x)
    value.sum().backward()
    assert tapes == [False] and max(sizes) <= 32 * 32


@needs_cpp
def test_batched_cotangents_and_transforms_do_without():
    net, x = siren()
    value, bars = net(x), torch.randn(3, 50, 1, dtype=torch.float64)
    one_by_one = [torch.autograd.grad(value, net.parameters(), bar, retain_graph=True) for bar in bars]
    batched = torch.autograd.grad(value, net.parameters(), bars, retain_graph=True, is_grads_batched=True)
    assert all(oracle.relative_error(a, torch.stack(b)) <= 1e-12 for a, b in zip(batched, zip(*one_by_one)))
    pulled = torch.func.vmap(lambda bar: torch.autograd.grad(value, net.parameters(), bar, retain_graph=True))(bars)
    assert all(oracle.relative_error(a, b) <= 1e-12 for a, b in zip(pulled, batched, strict=True))


@needs_cpp
def test_second_derivatives_of_what_came_from_a_tape():
    net, x = siren()
    x.requires_grad_()
    (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    found = torch.autograd.grad(slope.square().sum(), [x, *net.parameters()], allow_unused=True, materialize_grads=True)
    with fastsiren.use_backend("reference"):
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        expected = torch.autograd.grad(
            slope.square().sum(), [x, *net.parameters()], allow_unused=True, materialize_grads=True
        )
    assert all(oracle.relative_error(a, b) <= 1e-12 for a, b in zip(found, expected, strict=True))
