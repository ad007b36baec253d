"""sandwich_fwd and sandwich_bwd on every backend and instruction set."""

import pytest
import torch
from hypothesis import given, settings

import oracle
import pass_checks
from fastsiren.engine import backends
from pass_checks import A_DTYPE, EXACT, EXAMPLES, ROWS_CASE, SOME_SEEDS, PassTests
from passes import Case, by_engine, on_every_engine, operands

NAME = "sandwich"


class TestSandwich(PassTests):
    NAME = NAME


@on_every_engine
@settings(max_examples=EXAMPLES)
@given(case=pass_checks.shapes())
def test_any_shape(engine, case):
    pass_checks.check_shape(engine, NAME, case)


@on_every_engine
@pytest.mark.skipif(backends.INTERPRETED, reason="too many operations to interpret; EDGES has 11 channels")
def test_many_channels(engine):
    pass_checks.assert_float64(engine, NAME, Case((6, 24, 17, 9), (30.0, 30.0), 20, True, K=7, C=11))


@on_every_engine
@A_DTYPE
def test_hessian_is_symmetric(dtype, engine):
    given = operands(NAME, ROWS_CASE._replace(K=3), dtype)
    H = engine.forward(NAME, given.net, given.x, given.seeds)[2]
    pass_checks.assert_same(engine, [H], [H.mT])


@on_every_engine
@SOME_SEEDS
def test_only_the_symmetric_part_of_its_cotangent_counts(per_point, engine):
    given = operands(NAME, ROWS_CASE._replace(N=20, per_point=per_point))
    y_bar, J_bar, H_bar = given.bars
    skew = oracle.normal(*H_bar.shape, seed=30)
    skewed = by_engine(engine, NAME, given._replace(bars=[y_bar, J_bar, H_bar + skew - skew.mT]))
    plain = by_engine(engine, NAME, given)
    errors = [oracle.relative_error(a, b) for a, b in zip(skewed.tensors(), plain.tensors(), strict=True)]
    assert max(errors) <= 1e-13


@on_every_engine
def test_agrees_with_forms(engine):
    # H along (v_k, v_j) of output o is the jet's form e_k e_j^T.
    given = operands(NAME, ROWS_CASE)
    V, K = given.seeds[0], 2
    units = torch.eye(K * K, dtype=torch.float64).view(K * K, K, K)
    forms = ((units + units.mT) / 2).expand(73, -1, -1, -1)
    _, _, S = engine.forward("jet", given.net, given.x, [V, forms])
    _, _, H = engine.forward(NAME, given.net, given.x, [V, torch.eye(2, dtype=torch.float64)])
    assert oracle.relative_error(H.flatten(2), S.mT) <= EXACT


@on_every_engine
@A_DTYPE
def test_without_directions_it_is_the_adjoint(dtype, engine):
    given = operands("adjoint", ROWS_CASE, dtype)
    none = given.x.new_empty(0, 3)
    y, J, H = engine.forward(NAME, given.net, given.x, [none, *given.seeds])
    pass_checks.assert_same(engine, [y, J], engine.forward("adjoint", given.net, given.x, given.seeds))
    assert H.shape == (73, 2, 0, 0)


@on_every_engine
@A_DTYPE
def test_no_frequency_no_slope(dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    results = by_engine(engine, NAME, given._replace(net=given.net._replace(omegas=[0.0, 30.0])))
    assert all((t == 0).all() for t in (*results.outputs[1:], results.x))
    assert all(t.isfinite().all() for t in results.tensors())


@on_every_engine
@A_DTYPE
@pytest.mark.parametrize("scale", [2.0**20, 2.0**-20])
def test_scaled_seeds_scale_results(scale, dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    V, E = given.seeds
    _, J, H = engine.forward(NAME, given.net, given.x, [V, E])
    _, scaled_J, scaled_H = engine.forward(NAME, given.net, given.x, [V * scale, E * scale])
    # Powers of two change no bit of a mantissa.
    pass_checks.assert_same(engine, [scaled_J / scale, scaled_H / scale**3], [J, H])
