"""Mistakes in the wiring that stay silent: each is avoided, and would be seen if it were made.

Every trap has a check, which must pass on the package and fail once the mistake is patched in.
"""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jacfwd

import op_cases
import oracle
from fastsiren import functional
from fastsiren.engine import backends, ops, passes, reference, transforms
from oracle import Net

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

NET = op_cases.network()
POINTS = oracle.points(NET, 5)


def ours(net: Net, x: Tensor) -> Tensor:
    return functional.siren(x, net.weights, net.biases, omegas=net.omegas)


def assert_same(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a is not None
        assert oracle.relative_error(a.detach(), b.detach()) <= 1e-10


# Checks


def tangent(f) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(NET, forward_ad.make_dual(POINTS, POINTS.cos()))).tangent


def check_forward_mode() -> None:
    assert_same([tangent(ours)], [tangent(oracle.value)])
    assert_same([jacfwd(lambda x: ours(NET, x))(POINTS)], [jacfwd(lambda x: oracle.value(NET, x))(POINTS)])


def check_forward_mode_twice() -> None:
    found, expected = (jacfwd(jacfwd(lambda p, f=f: f(NET, p[None])[0]))(POINTS[0]) for f in (ours, oracle.value))
    assert_same([found], [expected])


def compiled(run):
    torch._dynamo.reset()
    return torch.compile(run, fullgraph=True, backend="aot_eager")


def check_dual_level_while_compiling() -> None:
    def inside(x):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(ours(NET, forward_ad.make_dual(x, x.cos()))).tangent

    assert_same([compiled(inside)(POINTS)], [tangent(oracle.value)])


def check_transform_while_compiling() -> None:
    def slope(f):
        return lambda x: torch.func.grad(lambda p: f(NET, p).square().sum())(x)

    assert_same([compiled(slope(ours))(POINTS)], [slope(oracle.value)(POINTS)])


def nested(f, order: int, leaves: str) -> list[Tensor]:
    """Gradients of gradients in which what is saved depends on each other."""
    net, x = NET.tracked(), POINTS.clone().requires_grad_()
    inputs = {"x": [x], "weights": net.weights, "both": [x, *net.weights]}[leaves]
    s = f(net, x).sin().sum()
    for _ in range(order - 1):
        slopes = torch.autograd.grad(s, inputs, create_graph=True)
        s = sum(slope.square().sum() for slope in slopes)
    return list(torch.autograd.grad(s, [x, *net.weights]))


def check_third_order() -> None:
    assert_same(nested(ours, 3, "weights"), nested(oracle.value, 3, "weights"))
    assert_same(nested(ours, 4, "x"), nested(oracle.value, 4, "x"))


def check_losses_through_weight_gradients() -> None:
    assert_same(nested(ours, 2, "both"), nested(oracle.value, 2, "both"))


def check_strided_points() -> None:
    for x in (POINTS.t().contiguous().t(), torch.cat([POINTS, POINTS], 1)[:, :2], POINTS[:1].expand(5, 2)):
        assert_same([ours(NET, x)], [oracle.value(NET, x)])


def check_strided_cotangents() -> None:
    for reduce in (Tensor.sum, Tensor.mean, lambda y: (y.t().contiguous() * POINTS.t()).sum()):
        net = NET.tracked()
        found, expected = (torch.autograd.grad(reduce(f(net, POINTS)), net.weights) for f in (ours, oracle.value))
        assert_same(found, expected)


# Mistakes

DISPATCH = ops._dispatch


def always_an_operator(patch) -> None:
    patch.setattr(ops, "_dispatch", ops._operator)


def compiling_before_dual_level(patch) -> None:
    def dispatch(which, call, args):
        return ops._operator(which, call, args) if torch.compiler.is_compiling() else DISPATCH(which, call, args)

    patch.setattr(ops, "_dispatch", dispatch)


def forward_transforms_not_seen(patch) -> None:
    patch.setattr(transforms, "forward_transform_active", lambda: False)
    patch.setattr(transforms, "dual_level_open", lambda: False)


def saved_tensors_differentiated(patch) -> None:
    def tail(which, call, args, bars, needs):
        with torch.enable_grad():
            leaves = [
                None if arg is None else arg if arg.requires_grad else arg.detach().requires_grad_() for arg in args
            ]
            results = which.run(reference, call, tuple(leaves))
            pairs = [(r, bar) for r, bar in zip(results, bars, strict=True) if bar is not None and r.requires_grad]
            outputs, cotangents = zip(*pairs, strict=True)
            inputs = [leaf for leaf in leaves if leaf is not None]
            found = iter(torch.autograd.grad(outputs, inputs, cotangents, create_graph=True, allow_unused=True))
        return tuple(None if leaf is None else next(found) for leaf in leaves)

    patch.setattr(passes, "plain_vjp", tail)


def weight_cotangents_dropped(patch) -> None:
    patch.setattr(passes, "_dense", lambda bars, layers, parts: ())


def as_if_contiguous(tensor: Tensor) -> Tensor:
    """What lies at the address of a tensor, and zeros behind the end of its memory."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    memory = torch.as_strided(tensor, (size,), (1,))
    return torch.cat([memory, memory.new_zeros(tensor.numel())])[: tensor.numel()].reshape(tensor.shape)


def strides_ignored(which: str):
    """A backend that reads an argument as if it were contiguous."""

    class Careless:
        def __getattr__(self, name):
            position = {("value_fwd", "x"): 0, ("value_bwd", "x"): 1, ("value_bwd", "bar"): 0}.get((name, which))

            def run(*args, **needs):
                given = list(args)
                if position is not None:
                    given[position] = as_if_contiguous(args[position])
                return getattr(reference, name)(*given, **needs)

            return run

    def mistake(patch) -> None:
        patch.setitem(backends._LOADED, "reference", Careless())

    return mistake


TRAPS = {
    "forward mode through an operator": (check_forward_mode, always_an_operator),
    "compiling asked before the dual level": (check_dual_level_while_compiling, compiling_before_dual_level),
    "a Function under two forward transforms": (check_forward_mode_twice, forward_transforms_not_seen),
    "an operator under a transform while compiling": (check_transform_while_compiling, compiling_before_dual_level),
    "saved tensors differentiated as they are": (check_third_order, saved_tensors_differentiated),
    "strides of x ignored": (check_strided_points, strides_ignored("x")),
    "strides of cotangents ignored": (check_strided_cotangents, strides_ignored("bar")),
    "cotangents of weights dropped": (check_losses_through_weight_gradients, weight_cotangents_dropped),
}


# These were silent in other versions of torch, or are in other wirings; here they raise.
LOUD = {
    "a Function under two forward transforms": RuntimeError,
    "an operator under a transform while compiling": RuntimeError,
}


@pytest.mark.parametrize("trap", TRAPS)
def test_is_avoided(trap, backend):
    TRAPS[trap][0]()


@pytest.mark.parametrize("trap", TRAPS)
def test_would_be_seen(trap, monkeypatch):
    check, mistake = TRAPS[trap]
    mistake(monkeypatch)
    with backends.use_backend("reference"), pytest.raises(LOUD.get(trap, AssertionError)):
        check()
