"""adjoint_fwd and adjoint_bwd on every backend and instruction set."""

import pytest
import torch
from hypothesis import given, settings

import oracle
import pass_checks
from fastsiren.engine import backends
from pass_checks import A_DTYPE, EXACT, EXAMPLES, ROWS_CASE, PassTests
from passes import Case, by_engine, on_every_engine, operands

NAME = "adjoint"


class TestAdjoint(PassTests):
    NAME = NAME


@on_every_engine
@settings(max_examples=EXAMPLES)
@given(case=pass_checks.shapes())
def test_any_shape(engine, case):
    pass_checks.check_shape(engine, NAME, case)


@on_every_engine
@pytest.mark.skipif(backends.INTERPRETED, reason="too many operations to interpret; EDGES has 11 channels")
def test_many_channels(engine):
    pass_checks.assert_float64(engine, NAME, Case((16, 24, 17, 20), (30.0, 30.0), 20, True, C=33))


@on_every_engine
@A_DTYPE
def test_single_output_is_the_gradient(dtype, engine):
    # One combination with the cotangent of y is what value_bwd does.
    given = operands("value", ROWS_CASE, dtype)
    _, J = engine.forward(NAME, given.net, given.x, [given.bars[0][:, None]])
    x_bar = engine.backward("value", given.bars, given.net, given.x).x
    assert oracle.relative_error(J[:, 0], x_bar) <= (EXACT if dtype == torch.float64 else 1e-5)


@on_every_engine
def test_agrees_with_tangents(engine):
    given, eye = operands(NAME, ROWS_CASE), torch.eye(3, dtype=torch.float64)
    _, J = engine.forward(NAME, given.net, given.x, given.seeds)
    _, T, _ = engine.forward("jet", given.net, given.x, [eye, eye.new_zeros(0, 3, 3)])
    assert oracle.relative_error(J, given.seeds[0] @ T.mT) <= EXACT


@on_every_engine
@A_DTYPE
def test_no_frequency_no_slope(dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    results = by_engine(engine, NAME, given._replace(net=given.net._replace(omegas=[0.0, 30.0])))
    assert (results.outputs[1] == 0).all() and (results.x == 0).all()
    assert all(t.isfinite().all() for t in results.tensors())


@on_every_engine
@A_DTYPE
def test_zero_combinations_give_zeros(dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    _, J = engine.forward(NAME, given.net, given.x, [torch.zeros_like(given.seeds[0])])
    assert (J == 0).all()
