"""The planner against the tables of the recurrences, and what explain() says of it."""

import pytest
import torch

import fastsiren
from fastsiren.engine.jet import Request, merge, parse_derivatives
from fastsiren.engine.network import Network
from fastsiren.engine.plan import (
    SERVING,
    Engine,
    choose,
    forward_units,
    kept_elements,
    nested_elements,
    nested_units,
    train_units,
)

T, A, TXA, VALUE = Engine.T, Engine.A, Engine.TXA, Engine.VALUE


def jacobian(d: int, o: int) -> Request:
    return Request(d, 0, 0, o)


def summed(d: int, o: int) -> Request:
    """Laplacian, wave and any other signed sum."""
    return Request(d, d, 1, o)


def hessian(d: int, o: int) -> Request:
    return Request(d, d, d * (d + 1) // 2, o)


def heat(d: int, o: int) -> Request:
    """All first derivatives, second ones over the d - 1 inputs of space."""
    return Request(d, d - 1, 1, o)


# (d, o): forward units of J by T, A; Laplacian by T, TxA, nested; Hessian by T, TxA; wave by T; heat by T, TxA.
TABLE = {
    (1, 1): (2, 2, 3, 3, 4, 3, 3, 3, None, None),
    (2, 1): (3, 2, 4, 4, 6, 6, 4, 4, 4, 3),
    (2, 3): (3, 4, 4, 6, 16, 6, 6, 4, 4, 5),
    (3, 1): (4, 2, 5, 5, 8, 10, 5, 5, 5, 4),
    (3, 3): (4, 4, 5, 7, 22, 10, 7, 5, 5, 6),
    (4, 2): (5, 3, 6, 7, 19, 15, 7, 6, 6, 6),
}


@pytest.mark.parametrize("sizes", TABLE)
def test_units_are_those_of_the_table(sizes):
    row = TABLE[sizes]
    found = [
        forward_units(T, jacobian(*sizes)),
        forward_units(A, jacobian(*sizes)),
        forward_units(T, summed(*sizes)),
        forward_units(TXA, summed(*sizes)),
        nested_units(summed(*sizes)),
        forward_units(T, hessian(*sizes)),
        forward_units(TXA, hessian(*sizes)),
        forward_units(T, summed(*sizes)),
    ]
    if row[8] is not None:
        found += [forward_units(T, heat(*sizes)), forward_units(TXA, heat(*sizes))]
    assert found == [units for units in row if units is not None]
    assert train_units(TXA, hessian(*sizes), fused=False) == 4 * row[6]
    assert train_units(TXA, hessian(*sizes), fused=True) == 3 * row[6]


@pytest.mark.parametrize("sizes", TABLE)
def test_the_cheapest_engine_is_chosen_and_ties_go_to_t(sizes):
    row = TABLE[sizes]
    assert choose(jacobian(*sizes)).engine is (A if row[1] < row[0] else T)
    assert choose(summed(*sizes)).engine is (TXA if row[3] < row[2] else T)
    assert choose(hessian(*sizes)).engine is (TXA if row[6] < row[5] else T)
    if row[8] is not None:
        assert choose(heat(*sizes)).engine is (TXA if row[9] < row[8] else T)


@pytest.mark.parametrize(
    ("request_", "t", "other"),
    [
        (Request(1, 0, 0, 1), 2, 2),  # D_v y
        (Request(2, 2, 1, 3), 4, 6),  # D_v D_u y: 3 + C
        (Request(2, 2, 2, 1), 5, 4),  # u_xx and u_yy apart: 3 + d, 1 + d2 + C
        (Request(3, 3, 2, 1), 6, 5),  # u_tt and the Laplacian
    ],
)
def test_units_of_single_requests(request_, t, other):
    first, second = SERVING[request_.order]
    assert (forward_units(first, request_), forward_units(second, request_)) == (t, other)


def test_rule_of_selection_holds_for_all_small_requests():
    for k1 in range(1, 6):
        for c in range(1, 6):
            assert (choose(Request(k1, 0, 0, c)).engine is A) == (c < k1)
            for k2 in range(1, k1 + 1):
                for r in range(1, 7):
                    assert (choose(Request(k1, k2, r, c)).engine is TXA) == (c + k2 < k1 + r)


def test_kept_numbers_are_those_of_the_table():
    layers, m = 3, 8
    for (d, o), value, by_a, by_t, laplacian, sandwich, by_t_hessian, nested in [
        ((2, 1), 4, 7, 10, 13, 13, 19, 70),
        ((3, 1), 4, 7, 13, 16, 16, 31, 95),
        ((3, 3), 4, 13, 13, 16, 22, 31, 269),
        ((4, 2), 4, 10, 16, 19, 22, 46, 232),
    ]:
        network = Network((d, *[m] * (layers + 1), o), (30.0,) * (layers + 1))
        assert kept_elements(VALUE, Request(outputs=o), network) == value * m
        assert kept_elements(A, jacobian(d, o), network) == by_a * m
        assert kept_elements(T, jacobian(d, o), network) == by_t * m
        assert kept_elements(T, summed(d, o), network) == laplacian * m
        assert kept_elements(TXA, hessian(d, o), network) == sandwich * m
        assert kept_elements(T, hessian(d, o), network) == by_t_hessian * m
        assert nested_elements(summed(d, o), network) == nested * m
        assert nested_elements(Request(outputs=o), network) == 8 * m
        assert nested_elements(jacobian(d, o), network) == (2 + 3 * o) * 4 * m


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["u"], Request(0, 0, 0, 1)),
        (["u__t", "u"], Request(1, 0, 0, 1)),
        (["u__t", "v__x"], Request(2, 0, 0, 2)),
        (["u__t", "u__x__x"], Request(2, 1, 1, 1)),
        (["u__x__y", "u__y__x"], Request(2, 2, 1, 1)),
        (["u__x__x", "u__y__y", "v__t"], Request(3, 2, 2, 2)),
        (["u__t__t", "u__x__x", "u__y__y", "u__x__y"], Request(3, 3, 4, 1)),
    ],
)
def test_names_merge_into_one_request(names, expected):
    assert merge(parse_derivatives(names, "txy", "uv")).request == expected


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ((-1, 0, 0, 1), "counts >= 0"),
        ((0, 0, 0, 0), "outputs >= 1"),
        ((1, 2, 1, 1), "curved: got 2, expected at most directions = 1"),
        ((1, 1, 0, 1), "forms: got 0"),
        ((1, 0, 1, 1), "forms: got 1"),
    ],
)
def test_impossible_requests_are_refused(counts, match):
    with pytest.raises(ValueError, match=match):
        Request(*counts)


def test_forcing_an_engine():
    request = hessian(3, 1)
    assert choose(request, "T") == (T, (TXA,))
    assert choose(request, "TxA") == (TXA, (T,))
    with pytest.raises(ValueError, match=r"algorithm: got 'A', expected None or one of 'T', 'TxA'"):
        choose(request, "A")
    with pytest.raises(ValueError, match=r"algorithm: got 'TxA', expected None or one of 'T', 'A'"):
        choose(jacobian(2, 1), "TxA")


def test_explain_says_engine_cost_bytes_and_backend():
    net = fastsiren.Siren(2, 64, 3, 3, dtype=torch.float64)
    with fastsiren.use_backend("reference"):
        lines = fastsiren.explain(net, "hessian").splitlines()
    assert lines[0] == (
        "hessian of 2 -> 64 -> 64 -> 64 -> 64 -> 3; 3 of 3 outputs derived; backend reference (cpu, torch.float64)"
    )
    # T: 1 + 2 + 3 products, 1 + (1 + 2 + 3) L tiles; a tie goes to T. Autograd: 1 + 3 (1 + 4) products.
    assert lines[2].split() == ["engine", "T", "6", "24", str((1 + 6 * 3) * 64 * 8), "B/point"]
    assert lines[3].split() == ["instead", "of", "TxA", "6", "24", str((1 + 6 * 3) * 64 * 8), "B/point"]
    assert lines[4].split()[:5] == ["instead", "of", "autograd", "16", "48"]


def test_explain_takes_operators_lists_and_a_forced_engine():
    net = fastsiren.Siren(3, 16, 1, 2)
    for operator in ("value", "jacobian", "value_and_jacobian", "laplacian", "hessian", "directional"):
        assert fastsiren.explain(net, operator).startswith(f"{operator} of 3 -> 16 -> 16 -> 2;")
    assert "engine TxA" in fastsiren.explain(net, ["u__x__x", "u__y__y", "u__t"]).splitlines()[2]
    assert "engine T " in fastsiren.explain(net, ["u__x__x", "u__t"], algorithm="T").splitlines()[2]
    fused, composed = (fastsiren.explain(net, request).splitlines() for request in ("eikonal", "jacobian"))
    # Engine, forward, train, kept: the backward of the loss finds its evaluation done.
    assert fused[2].split()[:4] == ["engine", "A", "3", "9"] and composed[2].split()[:4] == ["engine", "A", "3", "12"]
    assert fused[2].split()[4:] == composed[2].split()[4:]
    assert fused[-1] == "train: backward is part of the same pass"
    assert composed[-1] == "train: backward evaluates again"
    assert fastsiren.explain(net, "laplacian").endswith("evaluates again, unless the C++ engine left a tape")
    last_sine = fastsiren.Siren(3, 16, 1, 2, outermost_linear=False)
    assert "3 -> 16 -> 16 -> 2 -> 2;" in fastsiren.explain(last_sine, "value")
