"""value_fwd and value_bwd on every backend and instruction set."""

import math

import torch
from hypothesis import given, settings

import oracle
import pass_checks
from pass_checks import DTYPES, EXAMPLES, ROWS_CASE, PassTests
from passes import by_engine, on_every_engine, operands

NAME = "value"


class TestValue(PassTests):
    NAME = NAME


@on_every_engine
@settings(max_examples=EXAMPLES)
@given(case=pass_checks.shapes())
def test_any_shape(engine, case):
    pass_checks.check_shape(engine, NAME, case)


@on_every_engine
@DTYPES
def test_exact_without_sines(dtype, engine):
    given = operands(NAME, ROWS_CASE, dtype)
    (W, U, out), biases = given.net.weights, given.net.biases
    for net in (
        given.net._replace(weights=[W, U, torch.zeros_like(out)]),
        oracle.Net([W, U, out], biases, [0.0, 0.0]),
        oracle.Net([W, torch.zeros_like(U), out], [biases[0], torch.zeros_like(biases[1]), biases[2]], [30.0, 30.0]),
    ):
        (y,) = engine.forward(NAME, net, given.x)
        assert torch.equal(y, biases[2].expand_as(y))


@on_every_engine
@DTYPES
def test_exact_integers(dtype, engine):
    # sin of pi/2 times an odd integer is +-1 to the last bit, so the output layer sums integers.
    phases, out = torch.arange(1, 40, 2, dtype=dtype), torch.arange(60, dtype=dtype).view(3, 20)
    net = oracle.Net([torch.zeros(20, 2, dtype=dtype), out], [phases, -torch.ones(3, dtype=dtype)], [math.pi / 2])
    x = oracle.uniform(50, 2, dtype=dtype)
    signs = torch.tensor([1.0, -1.0], dtype=dtype).repeat(10)
    (y,) = engine.forward(NAME, net, x)
    assert torch.equal(y, (out @ signs - 1).expand(50, 3))


@on_every_engine
def test_negative_zero_is_zero(engine):
    given = operands(NAME, ROWS_CASE, torch.float32)
    given.x[:, 1] = 0.0
    plain = by_engine(engine, NAME, given).tensors()
    given.x[:, 1] = -0.0
    pass_checks.assert_same(engine, by_engine(engine, NAME, given).tensors(), plain)
