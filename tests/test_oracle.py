"""The judges: the error rule refuses every kind of wrong result, and the oracle's networks are what they claim."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import oracle

EXACT = oracle.normal(2000)
PLAIN = EXACT.float() * (1 + 3e-7 * oracle.normal(2000, seed=1).float())


def test_plain_torch_itself_keeps_the_rule() -> None:
    report = oracle.assert_error_rule(PLAIN, PLAIN, EXACT, quantity="value")
    assert all(0 <= ratio <= 1 for ratio in report.ratios().values())
    assert "ratio" in str(report)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.index_fill(0, torch.tensor([3]), math.nan), "not finite"),
        (lambda t: t.index_add(0, torch.tensor([3]), torch.tensor([1e-5])), "max_error .*BROKEN"),
        (lambda t: t + 1e-6 * torch.sign(oracle.normal(2000, seed=3).float()), "mean_error .*BROKEN"),
        (lambda t: t + 5e-6, "bias .*BROKEN"),
        (lambda t: t * torch.where(torch.arange(2000) % 2 == 0, 1.0, 1.0001), "cosine .*BROKEN"),
        (lambda t: t[1:], "shapes"),
        (lambda t: t.half(), "one dtype"),
    ],
    ids=["nan", "one element", "noise", "bias", "angle", "shape", "dtype"],
)
def test_the_rule_refuses(spoil: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        oracle.assert_error_rule(spoil(PLAIN), PLAIN, EXACT, quantity="value")


def test_a_bad_plain_result_excuses_nothing() -> None:
    bad = EXACT.float() * (1 + 1e-4 * oracle.normal(2000, seed=2).float())
    with pytest.raises(AssertionError, match=r"cap .*BROKEN"):
        oracle.assert_error_rule(bad, bad, EXACT, quantity="value")
    oracle.assert_error_rule(bad, bad, EXACT, quantity="value", capped=False)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_the_rule_does_not_depend_on_scale(scale: float) -> None:
    reports = [oracle.assert_error_rule(PLAIN * s, PLAIN * s, EXACT * s) for s in (1.0, scale)]
    assert reports[0] == reports[1]
    # Small tensors beside large ones are held to their own scale.
    wrong = [PLAIN, PLAIN * scale * (1 + 1e-4)]
    with pytest.raises(AssertionError, match="BROKEN"):
        oracle.assert_error_rule(wrong, [PLAIN, PLAIN * scale], [EXACT, EXACT * scale])


def test_zero_and_empty_results() -> None:
    zero, empty = torch.zeros(3), torch.zeros(0)
    oracle.assert_error_rule([zero, empty], [zero, empty], [zero.double(), empty.double()])
    with pytest.raises(AssertionError, match="BROKEN"):
        oracle.assert_error_rule(zero + 1e-3, zero, zero.double())


def test_arguments_of_the_rule() -> None:
    with pytest.raises(AssertionError, match="relative_error"):
        oracle.assert_error_rule(EXACT, EXACT, EXACT)
    with pytest.raises(AssertionError, match=r"quantity: got .valeu."):
        oracle.assert_error_rule(PLAIN, PLAIN, EXACT, quantity="valeu")


def test_relative_error() -> None:
    one = torch.ones(4).double()
    assert oracle.relative_error(one, one) == 0
    assert oracle.relative_error(1.5 * one, one) == 0.5
    assert oracle.relative_error(0 * one, 0 * one) == 0
    assert oracle.relative_error(one, 0 * one) == math.inf
    assert oracle.relative_error(one * math.nan, one) == math.inf
    assert oracle.relative_error(one[:3], one) == math.inf


def test_derivatives_against_torch_func() -> None:
    net = oracle.network((3, 8, 7, 2), (30.0, 3.0))
    x = oracle.points(net, 4)

    def one(x: Tensor) -> Tensor:
        return oracle.value(net, x.unsqueeze(0))[0]

    torch.testing.assert_close(oracle.jacobian(net, x), torch.vmap(torch.func.jacrev(one))(x), rtol=1e-12, atol=0)
    hessian = torch.vmap(torch.func.jacrev(torch.func.jacrev(one)))(x)
    torch.testing.assert_close(oracle.hessian(net, x), hessian, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", oracle.TRAINED)
def test_trained_networks_have_left_their_start(name: str) -> None:
    net = oracle.trained(name)
    assert net.omegas[0] == (3000.0 if name == "audio" else 30.0)
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in net.parameters())
    for W in net.weights[1:]:
        assert W.abs().max() > 2 * math.sqrt(6 / W.shape[1]) / 30
