"""What holds for every pass: the accuracy of values and gradients, and which number may depend on which.

Each check takes an engine and the name of a pass; tests/test_<pass>.py apply them and add what is special to a pass.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

import oracle
from passes import (
    CPP,
    FLOAT32,
    FLOAT64,
    OUTPUTS,
    Case,
    Engine,
    Operands,
    Results,
    by_engine,
    every,
    expected,
    on_every_engine,
    on_every_kernel,
    operands,
    unless_interpreted,
)

# Relative bound in float64: some 1e4 roundings of 1e-16.
EXACT = 1e-11
# Of random shapes.
EXAMPLES = unless_interpreted(40, 2)
# Not a multiple of any tile, in several blocks and layers; the widths cross those of the panels.
ROWS_CASE = Case((3, 33, 17, 2), (30.0, 20.0), 73, True, K=2, R=2, C=2)


@oracle.one_thread()
def assert_float64(engine: Engine, name: str, case: Case) -> None:
    """Values and all gradients are those of nested autograd."""
    exact = expected(name, case, torch.float64, torch.float64)
    ours = by_engine(engine, name, operands(name, case))
    errors = [oracle.relative_error(a, b) for a, b in zip(ours.tensors(), exact.tensors(), strict=True)]
    # Phases are as large as omega_0, and so are their roundings.
    bound = EXACT * max(1.0, case.omegas[0] / 1000)
    assert all(error <= bound for error in errors), f"relative errors {[f'{error:.1e}' for error in errors]}"
    assert all(t.is_contiguous() for t in ours.tensors())


@oracle.one_thread()
def assert_float32(engine: Engine, name: str, case: Case) -> None:
    """The error rule for every quantity, in most of several independent draws.

    Plain torch itself keeps the rule against its own reordering only in most draws: the largest error of one network is
    one number, and in a network with a narrow layer all errors of a row are one. Few rows are pooled over networks.
    """
    draws, pooled = (3 if case.usual or case.trained else 5), min(8, math.ceil(64 / case.N))
    for part, pick in _parts(name, case).items():
        # The caps of weight gradients are those of losses without derivatives.
        quantity = part if part in OUTPUTS[name] or (part, name) == ("weight_grad", "value") else "other"
        broken = []
        for draw in range(draws):
            triples = [_compared32(engine, name, case, draw * pooled + i) for i in range(pooled)]
            tensors = ([t for r in group for t in pick(r)] for group in zip(*triples, strict=True))
            try:
                oracle.assert_error_rule(*tensors, quantity=quantity, capped=case.usual)
            except AssertionError as error:
                broken.append(str(error))
        assert len(broken) <= draws // 2, f"{part} of {name} in {len(broken)} of {draws} draws:\n" + "\n".join(broken)


def _parts(name: str, case: Case) -> dict[str, Callable[[Results], list[Tensor]]]:
    """Which tensors are judged together: gradients of shared seeds are few numbers and go with the parameters."""
    own, shared = (case.per_point, not case.per_point)
    outputs = {quantity: lambda r, i=i: [r.outputs[i]] for i, quantity in enumerate(OUTPUTS[name])}
    return {
        **outputs,
        "x_bar": lambda r: [r.x, *r.seeds * own],
        "weight_grad": lambda r: [*r.parameters, *r.seeds * shared],
    }


@functools.lru_cache(maxsize=64)
def _compared32(engine: Engine, name: str, case: Case, seed: int) -> tuple[Results, Results, Results]:
    """Ours, plain torch and the exact result for one draw."""
    given = operands(name, case, torch.float32, seed)
    plain, exact = (expected(name, case, torch.float32, computed, seed) for computed in (torch.float32, torch.float64))
    return by_engine(engine, name, given), plain, exact


def assert_same(engine: Engine, ours: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """The same bits; the reference backend's products may depend on the layout and number of their rows."""
    for a, b in zip(ours, wanted, strict=True):
        if engine.backend == "reference":
            assert oracle.relative_error(a, b) <= (1e-12 if a.dtype == torch.float64 else 1e-5)
        else:
            assert torch.equal(a, b)


def sliced(tensor: Tensor) -> Tensor:
    """Every second row of a tensor whose other rows are NaN."""
    wide = torch.full((2 * tensor.shape[0], *tensor.shape[1:]), math.nan, dtype=tensor.dtype)
    wide[::2] = tensor
    return wide[::2]


def transposed(tensor: Tensor) -> Tensor:
    return tensor.mT.contiguous().mT if tensor.ndim > 1 else sliced(tensor)


def unaligned(tensor: Tensor) -> Tensor:
    """Contiguous, one element past the alignment of the allocator, and NaN on both sides."""
    fenced = torch.full((tensor.numel() + 9,), math.nan, dtype=tensor.dtype)
    return fenced[1 : 1 + tensor.numel()].view(tensor.shape).copy_(tensor)


def expanded(tensor: Tensor) -> Tensor:
    """Other numbers: the first row for all rows, stride 0."""
    return tensor[:1].expand_as(tensor)


LAYOUTS = unless_interpreted((sliced, transposed, unaligned, expanded), (transposed, expanded))


@oracle.one_thread()
def check_layout(engine: Engine, name: str, layout: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    """Numbers count, not where they stand."""
    given = operands(name, ROWS_CASE, dtype)
    net, rest = (
        given.net,
        Operands(given.net, *([layout(t) for t in ts] for ts in ([given.x], given.seeds, given.bars))),
    )
    moved = Operands(net, rest.x[0], rest.seeds, rest.bars)
    if layout is not expanded:
        moved = moved._replace(
            net=net._replace(weights=[layout(w) for w in net.weights], biases=[layout(b) for b in net.biases])
        )
    plain = Operands(net, moved.x.contiguous(), *([t.contiguous() for t in ts] for ts in (moved.seeds, moved.bars)))
    assert_same(engine, by_engine(engine, name, moved).tensors(), by_engine(engine, name, plain).tensors())


@oracle.one_thread()
def check_needs(engine: Engine, name: str, *, per_point: bool) -> None:
    """Asking for less gives the same bits of the rest, and nothing else."""
    given = operands(name, ROWS_CASE._replace(per_point=per_point), torch.float32)
    full = by_engine(engine, name, given)
    count = len(given.net.weights)
    every = list(itertools.product((False, True), repeat=3))
    for need_x, need_seeds, need_params in unless_interpreted(every, [need for need in every if sum(need) == 1]):
        need = {"need_x": need_x, "need_params": need_params, **({} if name == "value" else {"need_seeds": need_seeds})}
        grads = engine.backward(name, given.bars, given.net, given.x, given.seeds, **need)
        assert (grads.x is not None) == need_x
        assert (len(grads.weights), len(grads.biases)) == ((count, count) if need_params else (0, 0))
        assert len(grads.seeds) == (len(given.seeds) if need_seeds else 0)
        if need_x:
            assert_same(engine, [grads.x], [full.x])
        assert_same(engine, grads.seeds, full.seeds if need_seeds else [])
        assert_same(engine, [*grads.weights, *grads.biases], full.parameters if need_params else [])
    if engine in CPP:
        grads = engine.backward(name, given.bars, given.net, given.x, given.seeds, need_weights=False)
        assert not grads.weights
        assert_same(engine, [grads.x, *grads.seeds, *grads.biases], [full.x, *full.seeds, *full.parameters[count:]])


def rows_of(results: Results) -> list[Tensor]:
    """What belongs to single points."""
    return [*results.outputs, results.x, *results.seeds]


@functools.lru_cache(maxsize=2)
def _clean(engine: Engine, name: str) -> Results:
    return by_engine(engine, name, operands(name, ROWS_CASE, torch.float32))


@oracle.one_thread()
def check_nonfinite_row(engine: Engine, name: str, value: float, where: str) -> None:
    """A bad number in a row of x, the seeds or the cotangents spoils what is computed from it, and no other row."""
    given, row, clean = operands(name, ROWS_CASE, torch.float32), 21, _clean(engine, name)
    for tensor in {"x": [given.x], "seeds": given.seeds, "bars": given.bars}[where]:
        tensor[row] = value
    spoiled = by_engine(engine, name, given)
    others = torch.arange(ROWS_CASE.N) != row
    assert_same(engine, [t[others] for t in rows_of(spoiled)], [t[others] for t in rows_of(clean)])
    # Whatever depends on the row is not finite; y does not depend on the seeds, the last bias on the cotangents alone.
    assert not spoiled.x[row].isfinite().any()
    depends = {"x": spoiled.outputs, "seeds": spoiled.outputs[1:], "bars": []}[where]
    assert not any(t[row].isfinite().any() for t in depends)
    assert not any(t.isfinite().any() for t in spoiled.parameters[: len(given.net.weights)])
    if where != "bars":
        assert_same(engine, [spoiled.parameters[-1]], [clean.parameters[-1]])


@oracle.one_thread()
def check_nan_parameter(engine: Engine, name: str) -> None:
    """NaN in a parameter below the output layer gives NaN everywhere, in the output layer in its own output."""
    every = list(itertools.product((0, 1), range(3)))
    for kind, layer in unless_interpreted(every, [(1, 0), (0, 1), (0, 2)]):
        given = operands(name, ROWS_CASE, torch.float32)
        given.net[kind][layer][1] = math.nan
        outputs = engine.forward(name, given.net, given.x, given.seeds)
        if layer < 2:
            assert all(t.isnan().all() for t in outputs)
        else:
            assert outputs[0][:, 1].isnan().all() and outputs[0][:, 0].isfinite().all()


@oracle.one_thread()
def check_rows(engine: Engine, name: str, case: Case, dtype: torch.dtype, cut: int) -> None:
    """The bits of a row depend on the row: not on the others, their number or their order."""
    given = operands(name, case, dtype)
    whole = rows_of(by_engine(engine, name, given))
    order = torch.randperm(case.N, generator=torch.Generator().manual_seed(cut))
    parts = (order, slice(cut, cut + 1), slice(0, cut), slice(cut, None))
    for rows in parts[: unless_interpreted(None, 2)]:
        per_point = [t[rows] for t in given.seeds] if case.per_point else given.seeds
        part = Operands(given.net, given.x[rows], per_point, [t[rows] for t in given.bars])
        found = by_engine(engine, name, part)
        if not case.per_point:
            found = found._replace(seeds=[])
        assert_same(engine, rows_of(found), [t[rows] for t in whole[: len(rows_of(found))]])


@st.composite
def shapes(draw: st.DrawFn) -> Case:
    """Cases of any small shape."""
    hidden = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    omegas = draw(st.lists(st.sampled_from([30.0, 1.0, -7.0, 0.0]), min_size=len(hidden), max_size=len(hidden)))
    D, O, K, R, C = (draw(st.integers(low, high)) for low, high in ((1, 5), (1, 6), (0, 3), (0, 3), (0, 3)))
    return Case((D, *hidden, O), tuple(omegas), draw(st.integers(1, 130)), draw(st.booleans()), K, R, C)


def check_shape(engine: Engine, name: str, case: Case) -> None:
    """Any shape: values and gradients, and the rows of a cut."""
    assert_float64(engine, name, case)
    if engine.backend == "cpp":
        check_rows(engine, name, case, torch.float32, case.N // 2)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
SEEDS = pytest.mark.parametrize("per_point", [False, True], ids=["shared", "point"])
# Where interpreted, one of both.
A_DTYPE = unless_interpreted(DTYPES, pytest.mark.parametrize("dtype", [torch.float32], ids=["fp32"]))
SOME_SEEDS = unless_interpreted(SEEDS, pytest.mark.parametrize("per_point", [True], ids=["point"]))
PLACES = {math.nan: "x", math.inf: "bars", -math.inf: "seeds"}


@pytest.mark.usefixtures("poisoned")
class PassTests:
    """The tests of one pass, for a subclass that names it."""

    NAME: str

    @on_every_engine
    @every(FLOAT64)
    def test_float64(self, case, engine):
        assert_float64(engine, self.NAME, case)

    @on_every_engine
    @every(FLOAT32)
    def test_float32(self, case, engine):
        assert_float32(engine, self.NAME, case)

    @on_every_engine
    @A_DTYPE
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, layout, dtype, engine):
        check_layout(engine, self.NAME, layout, dtype)

    @on_every_engine
    @SOME_SEEDS
    def test_subsets_of_gradients(self, per_point, engine):
        check_needs(engine, self.NAME, per_point=per_point)

    @on_every_engine
    @pytest.mark.parametrize("value", PLACES)
    def test_nonfinite_rows_stay_alone(self, value, engine):
        for where in unless_interpreted(("x", "bars", "seeds"), (PLACES[value],)):
            if where != "seeds" or self.NAME != "value":
                check_nonfinite_row(engine, self.NAME, value, where)

    @on_every_engine
    def test_nan_parameters(self, engine):
        check_nan_parameter(engine, self.NAME)

    @on_every_kernel
    @A_DTYPE
    @pytest.mark.parametrize(("rows", "cut"), unless_interpreted([(73, 31), (1217, 1152)], [(73, 31)]))
    @SOME_SEEDS
    def test_rows_stand_for_themselves(self, per_point, rows, cut, dtype, engine):
        check_rows(engine, self.NAME, ROWS_CASE._replace(N=rows, per_point=per_point), dtype, cut)
