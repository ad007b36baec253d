"""Folding modulations into parameters against the formula itself, in float64, to second order."""

from itertools import pairwise

import pytest
import torch

import oracle
from fastsiren import functional
from fastsiren.modulation import modulated

OMEGAS = [20.0, -7.0]
WIDTHS = (2, 5, 4, 3)


def parameters(networks=None):
    """Weights and biases, some of them per network."""
    weights = [oracle.normal(n_out, n_in, seed=i) / n_in for i, (n_in, n_out) in enumerate(pairwise(WIDTHS))]
    biases = [oracle.normal(n_out, seed=10 + i) for i, n_out in enumerate(WIDTHS[1:])]
    if networks:
        weights[1] = weights[1] + 0.1 * oracle.normal(networks, *weights[1].shape, seed=20)
    return oracle.tracked(*weights), oracle.tracked(*biases)


def modulations(kinds, networks):
    """One tensor per sine layer and kind."""
    leading = () if networks is None else (networks,)
    return {
        kind: oracle.tracked(*(1 + 0.3 * oracle.normal(*leading, width, seed=30 + 7 * k + l) for l, width in
                               enumerate(WIDTHS[1:3])))
        for k, kind in enumerate(kinds)
    }  # fmt: skip


def formula(x, weights, biases, omegas, scale=None, shift=None, phase=None, gain=None):
    """m sin(omega (s (W h + b) + t) + phi), with an axis of networks in front of x where there is one."""
    h = x
    for l, (W, b) in enumerate(zip(weights, biases)):
        h = h @ W.mT + b
        if l == len(omegas):
            break
        s, t, phi, m = (None if kind is None else kind[l] for kind in (scale, shift, phase, gain))
        per_point = [k if k is None or k.ndim == 1 else k.unsqueeze(-2) for k in (s, t, phi, m)]
        s, t, phi, m = (default if k is None else k for k, default in zip(per_point, (1, 0, 0, 1)))
        h = m * torch.sin(omegas[l] * (s * h + t) + phi)
    return h


@pytest.mark.parametrize("networks", [None, 3])
@pytest.mark.parametrize(
    "kinds", [("scale",), ("shift",), ("phase",), ("gain",), ("scale", "shift", "phase", "gain")], ids="+".join
)
def test_folded_network_is_the_modulated_one(kinds, networks):
    found = []
    for fold in (True, False):
        weights, biases = parameters(networks)
        mods = modulations(kinds, networks)
        x = oracle.uniform(*([3] if networks else []), 6, 2).requires_grad_()
        leaves = [x, *weights, *biases, *(tensor for kind in mods.values() for tensor in kind)]
        if fold:
            y = functional.siren(x, *modulated(weights, biases, OMEGAS, **mods), omegas=OMEGAS)
        else:
            y = formula(x, weights, biases, OMEGAS, **mods)
        first = torch.autograd.grad(y, leaves, oracle.normal(*y.shape, seed=50), create_graph=True)
        bars = [oracle.normal(*g.shape, seed=60 + i) for i, g in enumerate(first)]
        second = torch.autograd.grad(sum((g * bar).sum() for g, bar in zip(first, bars)), leaves, allow_unused=True)
        zeros = [leaf.new_zeros(leaf.shape) if g is None else g for g, leaf in zip(second, leaves)]
        found.append([y, *first, *zeros])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        assert oracle.relative_error(ours, theirs) <= 1e-10 or theirs.abs().max() == 0 == ours.abs().max()


def test_parameters_that_nothing_concerns_stay_as_they_are():
    weights, biases = parameters()
    shift = [None, torch.ones(3, 4, dtype=torch.float64)]
    folded, added = modulated(weights, [biases[0], None, biases[2]], OMEGAS, shift=shift)
    assert all(a is b for a, b in zip(folded, weights, strict=True))
    assert added[0] is biases[0] and added[1] is shift[1] and added[2] is biases[2]
    assert modulated(weights, [None] * 3, OMEGAS, scale=[None, None])[1] == [None] * 3


def test_a_sine_layer_may_come_last():
    weights, biases = parameters()
    phase = [None, oracle.normal(4)]
    folded = modulated(weights[:2], biases[:2], OMEGAS, phase=phase)
    x = oracle.uniform(5, 2)
    found = functional.siren(x, *folded, omegas=OMEGAS, outermost_linear=False)
    expected = formula(x, weights[:2], biases[:2], [*OMEGAS], phase=[torch.zeros(5).double(), phase[1]])
    assert oracle.relative_error(found, expected) <= 1e-12


BAD = {
    "count": ({"scale": [None]}, ValueError, "scale: got 1 of them, expected 2, one per sine layer"),
    "width": ({"gain": [None, torch.ones(5)]}, ValueError, r"gain\[1\]: got shape \(5,\), expected None or a tensor"),
    "scalar": ({"shift": [1.0, None]}, ValueError, r"shift\[0\]: got float"),
    "no list": ({"shift": torch.ones(2, 5)}, TypeError, "shift: got a torch.Tensor of shape .* a list"),
    "omega": ({"phase": [torch.ones(5), None], "omegas": [0.0, 1.0]}, ValueError, "phase: got one for a layer with"),
    "layers": ({"omegas": [1.0]}, ValueError, "weights, biases, omegas: got 3, 3 and 1 of them"),
    "last gain": ({"gain": [None, None, torch.ones(3)], "omegas": [1.0] * 3}, ValueError, "gain: got one for a sine"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "error", "match"), BAD.values(), ids=BAD)
def test_bad_arguments_are_named(given, error, match):
    weights, biases = parameters()
    given = {"omegas": OMEGAS, **given}
    with pytest.raises(error, match=match):
        modulated(weights, biases, **given)
