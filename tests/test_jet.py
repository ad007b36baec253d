"""jet_fwd and jet_bwd on every backend and instruction set."""

import pytest
import torch
from hypothesis import given, settings

import oracle
import pass_checks
from fastsiren.engine import backends
from pass_checks import A_DTYPE, EXACT, EXAMPLES, ROWS_CASE, SOME_SEEDS, PassTests
from passes import Case, by_engine, on_every_engine, operands

NAME = "jet"


class TestJet(PassTests):
    NAME = NAME


@on_every_engine
@settings(max_examples=EXAMPLES)
@given(case=pass_checks.shapes())
def test_any_shape(engine, case):
    pass_checks.check_shape(engine, NAME, case)


@on_every_engine
@pytest.mark.skipif(backends.INTERPRETED, reason="too many operations to interpret; EDGES has 11 channels")
def test_many_channels(engine):
    # As many as a full Hessian of 6 inputs takes, and more than a tile of points has columns.
    case = Case((6, 24, 17, 2), (30.0, 30.0), 20, True, K=6, R=21)
    pass_checks.assert_float64(engine, NAME, case)
    pass_checks.assert_float64(engine, NAME, case._replace(widths=(16, 20, 1), omegas=(30.0,), K=16, R=1))


@on_every_engine
@SOME_SEEDS
def test_only_the_symmetric_part_of_forms_counts(per_point, engine):
    given = operands(NAME, ROWS_CASE._replace(N=20, per_point=per_point))
    V, M = given.seeds
    skew = oracle.normal(*M.shape, seed=30)
    skewed = by_engine(engine, NAME, given._replace(seeds=[V, M + skew - skew.mT]))
    plain = by_engine(engine, NAME, given)
    errors = [oracle.relative_error(a, b) for a, b in zip(skewed.tensors(), plain.tensors(), strict=True)]
    assert max(errors) <= 1e-13
    assert torch.equal(skewed.seeds[1], skewed.seeds[1].mT)


@on_every_engine
@A_DTYPE
@pytest.mark.parametrize("kept", ["diagonal", "one entry", "none"])
def test_zeros_in_forms_change_nothing(kept, dtype, engine):
    # Entries that are zero for all points may be left out; a form of zeros gives zeros.
    given = operands(NAME, ROWS_CASE._replace(K=3), dtype)
    V, M = given.seeds
    mask = {"diagonal": torch.eye(3), "one entry": torch.zeros(3, 3), "none": torch.zeros(3, 3)}[kept]
    mask[2, 0] = mask[0, 2] = float(kept == "one entry")
    sparse = M * mask.to(dtype)
    full = sparse.clone()
    # One more point, whose forms are full, makes every entry count.
    extended = [torch.cat([t, t[:1]]) for t in (given.x, V, full)]
    extended[2][-1] = 1.0
    S = engine.forward(NAME, given.net, given.x, [V, sparse])[2]
    pass_checks.assert_same(engine, [engine.forward(NAME, given.net, extended[0], extended[1:])[2][:-1]], [S])
    assert (S == 0).all() == (kept == "none")


@on_every_engine
def test_laplacian_is_the_trace(engine):
    given, eye = operands("sandwich", ROWS_CASE), torch.eye(3, dtype=torch.float64)
    _, T, S = engine.forward(NAME, given.net, given.x, [eye, eye[None]])
    outputs = torch.eye(2, dtype=torch.float64)
    _, J, H = engine.forward("sandwich", given.net, given.x, [eye, outputs])
    assert oracle.relative_error(T, J.mT) <= EXACT
    assert oracle.relative_error(S[:, 0], H.diagonal(dim1=-2, dim2=-1).sum(-1)) <= EXACT


@on_every_engine
@A_DTYPE
def test_no_frequency_no_slope(dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    net = given.net._replace(omegas=[0.0, 30.0])
    results = by_engine(engine, NAME, given._replace(net=net))
    assert all((t == 0).all() for t in (*results.outputs[1:], results.x))
    assert all(t.isfinite().all() for t in results.tensors())


@on_every_engine
@A_DTYPE
@pytest.mark.parametrize("scale", [2.0**20, 2.0**-20])
def test_scaled_seeds_scale_results(scale, dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    V, M = given.seeds
    _, T, S = engine.forward(NAME, given.net, given.x, [V, M])
    _, scaled_T, scaled_S = engine.forward(NAME, given.net, given.x, [V * scale, M])
    # Powers of two change no bit of a mantissa.
    pass_checks.assert_same(engine, [scaled_T / scale, scaled_S / scale**2], [T, S])


@on_every_engine
def test_derivative_of_this_forward(engine):
    # Central differences of the pass's own values: a derivative of something else is as smooth, and wrong.
    given, step = operands(NAME, ROWS_CASE._replace(omegas=(5.0, 5.0))), 1e-4
    V = given.seeds[0]
    _, T, S = engine.forward(NAME, given.net, given.x, [V, torch.eye(2, dtype=torch.float64).expand(73, 1, 2, 2)])
    y = [[engine.forward("value", given.net, given.x + s * step * V[:, k])[0] for s in (-1, 0, 1)] for k in range(2)]
    assert oracle.relative_error(torch.stack([(b - a) / (2 * step) for a, _, b in y], 1), T) <= 1e-5
    curvature = sum((a - 2 * m + b) / step**2 for a, m, b in y)
    assert oracle.relative_error(curvature, S[:, 0]) <= 1e-5
