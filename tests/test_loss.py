"""loss_fwd on every backend and instruction set: the loss and its parameter gradients, in one pass over the points."""

import functools
import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import oracle
import pass_checks
from oracle import Net
from pass_checks import A_DTYPE, DTYPES, EXACT
from passes import Engine, on_every_engine, on_every_isa, threads, unless_interpreted

pytestmark = pytest.mark.usefixtures("poisoned")

KINDS = ("value", "gradient", "laplacian", "eikonal")
# Fewer, as many and more outputs than inputs: reverse and forward mode; several tiles and segments; a single point.
NETWORKS = unless_interpreted(
    [((3, 33, 17, 2), 73), ((2, 15, 2), 48), ((2, 16, 20, 20, 5), 17), ((1, 64, 1), 1), ((3, 40, 31, 1), 1217)],
    [((3, 33, 17, 2), 33), ((2, 16, 20, 5), 17)],
)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_network = pytest.mark.parametrize(
    ("widths", "rows"), NETWORKS, ids=["_".join(map(str, widths)) + f"-N{rows}" for widths, rows in NETWORKS]
)


class Given(NamedTuple):
    kind: str
    net: Net
    x: Tensor
    target: Tensor | None
    weight: Tensor | None

    def to(self, dtype: torch.dtype) -> "Given":
        tensors = (None if t is None else t.to(dtype) for t in self[2:])
        return Given(self.kind, self.net.to(dtype), *tensors)


@functools.lru_cache(maxsize=16)
def given(kind: str, widths: tuple[int, ...], rows: int, weighted: bool, dtype: torch.dtype, seed: int = 0) -> Given:
    """Random arguments, not to be written to."""
    net = oracle.network(widths, [30.0] * (len(widths) - 2), seed=seed, dtype=dtype)
    D, O, draw = widths[0], widths[-1], functools.partial(oracle.normal, dtype=dtype)
    shape = {"gradient": (rows, O, D)}.get(kind, (rows, O))
    # As large as what it is compared with: slopes go with omega.
    size = {"value": 1.0, "gradient": 10.0, "laplacian": 300.0}.get(kind)
    target = None if size is None else draw(*shape, seed=100 * seed + 5) * size
    weight = draw(rows, seed=100 * seed + 6).abs() if weighted else None
    return Given(kind, net, oracle.points(net, rows, seed=100 * seed + 7), target, weight)


def by_autograd(args: Given, reduction: str) -> list[Tensor]:
    """The loss and its parameter gradients, in the dtype of the arguments."""
    net, (x,) = args.net.tracked(), oracle.tracked(args.x)
    if args.kind == "value":
        squares = (oracle.value(net, x) - args.target).square()
    elif args.kind == "gradient":
        squares = (oracle.jacobian(net, x) - args.target).square().sum(-1)
    elif args.kind == "laplacian":
        squares = (oracle.hessian(net, x).diagonal(dim1=-2, dim2=-1).sum(-1) - args.target).square()
    else:
        squares = (oracle.jacobian(net, x).norm(dim=-1) - 1).square()
    weighted = squares if args.weight is None else squares * args.weight[:, None]
    loss = weighted.mean() if reduction == "mean" else weighted.sum()
    grads = torch.autograd.grad(loss, net.parameters(), allow_unused=True, materialize_grads=True)
    return [loss.detach(), *grads]


def run(engine: Engine, args: Given, reduction: str = "mean", need_params: bool = True) -> list[Tensor]:
    loss, grads = engine.call(
        "loss_fwd", args.kind, args.x, args.target, args.weight, *args.net, need_params=need_params, reduction=reduction
    )
    assert loss.shape == () and loss.dtype == args.x.dtype
    assert grads.x is None and grads.seeds == ()
    return [loss, *grads.weights, *grads.biases]


@functools.lru_cache(maxsize=64)
@oracle.one_thread()
def expected(*key: Any, computed: torch.dtype, reduction: str) -> list[Tensor]:
    return by_autograd(given(*key).to(computed), reduction)


@on_every_engine
@every_network
@every_kind
@pytest.mark.parametrize("reduction", unless_interpreted(["mean", "sum"], ["mean"]))
@pytest.mark.parametrize("weighted", unless_interpreted([False, True], [True]))
@oracle.one_thread()
def test_float64(weighted, reduction, kind, widths, rows, engine):
    key = kind, widths, rows, weighted, torch.float64
    exact = expected(*key, computed=torch.float64, reduction=reduction)
    errors = [oracle.relative_error(a, b) for a, b in zip(run(engine, given(*key), reduction), exact, strict=True)]
    # The last bias does not appear in a loss of derivatives: its gradient is exactly zero.
    assert all(error <= EXACT for error in errors), f"relative errors {[f'{error:.1e}' for error in errors]}"


@on_every_engine
@pytest.mark.parametrize(
    ("widths", "rows"),
    unless_interpreted([((2, 64, 64, 64, 1), 200), ((3, 33, 64, 31, 2), 65)], [((2, 33, 64, 1), 60)]),
)
@every_kind
@oracle.one_thread()
def test_float32(kind, widths, rows, engine):
    broken = []
    for seed in range(3):
        key = kind, widths, rows, True, torch.float32, seed
        plain, exact = (expected(*key, computed=d, reduction="mean") for d in (torch.float32, torch.float64))
        quantity = "eikonal_weight_grad" if kind == "eikonal" else "weight_grad" if kind == "value" else "other"
        try:
            oracle.assert_error_rule(run(engine, given(*key)), plain, exact, quantity=quantity)
        except AssertionError as error:
            broken.append(str(error))
    # As in pass_checks.assert_float32: the largest error of one network is one number.
    assert len(broken) <= 1, "\n".join(broken)


@on_every_engine
@every_network
@every_kind
@A_DTYPE
def test_loss_alone_is_the_same(dtype, kind, widths, rows, engine):
    args = given(kind, widths, rows, True, dtype)
    with oracle.one_thread():
        alone = run(engine, args, need_params=False)
        assert len(alone) == 1
        pass_checks.assert_same(engine, alone, run(engine, args)[:1])


@on_every_engine
@every_kind
@A_DTYPE
@pytest.mark.parametrize("layout", unless_interpreted(pass_checks.LAYOUTS, pass_checks.LAYOUTS[:1]))
def test_layouts(layout, dtype, kind, engine):
    args = given(kind, (3, 33, 17, 2), 73, True, dtype)
    moved = Given(kind, args.net, *(None if t is None else layout(t) for t in args[2:]))
    plain = Given(kind, args.net, *(None if t is None else t.contiguous() for t in moved[2:]))
    with oracle.one_thread():
        pass_checks.assert_same(engine, run(engine, moved), run(engine, plain))


@on_every_engine
@every_kind
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_points(reduction, kind, engine):
    loss, *grads = run(engine, given(kind, (3, 33, 17, 2), 0, True, torch.float64), reduction)
    # The mean of nothing is NaN, as in torch; its gradients are zeros that a step can take.
    assert loss.isnan() if reduction == "mean" else loss == 0
    assert len(grads) == 6 and all((g == 0).all() for g in grads)


@on_every_engine
@every_kind
def test_weight_zero_leaves_a_point_out(kind, engine):
    rows, cut = unless_interpreted((73, 40), (30, 17))
    args = given(kind, (3, 33, 17, 2), rows, True, torch.float64)
    weight = args.weight.clone()
    weight[cut:] = 0
    kept = Given(kind, args.net, *(None if t is None else t[:cut] for t in args[2:]))
    results = zip(run(engine, args._replace(weight=weight), "sum"), run(engine, kept, "sum"), strict=True)
    assert max(oracle.relative_error(a, b) for a, b in results) <= 1e-13


@on_every_engine
@pytest.mark.parametrize("widths", [(3, 16, 2), (2, 16, 3)], ids=["reverse", "forward"])
@DTYPES
def test_eikonal_without_slope(dtype, widths, engine):
    # The norm has no derivative where the gradient vanishes; torch takes zero there, and so must every weight.
    args = given("eikonal", widths, 20, False, dtype)
    args = args._replace(net=args.net._replace(omegas=[0.0]))
    loss, *grads = run(engine, args, "sum")
    assert loss == 20 * widths[-1]
    assert all((g == 0).all() for g in grads)


@on_every_engine
@every_kind
@pytest.mark.parametrize("where", unless_interpreted(["x", "weight", "parameter"], ["weight"]))
def test_nan_shows(where, kind, engine):
    args = given(kind, (3, 33, 17, 2), 73, True, torch.float32).to(torch.float64).to(torch.float32)
    {"x": args.x, "weight": args.weight, "parameter": args.net.weights[1]}[where].view(-1)[50] = math.nan
    loss, *grads = run(engine, args)
    assert loss.isnan()
    assert not any(g.isfinite().any() for g in grads[:3])


@on_every_isa
@every_kind
@DTYPES
def test_threads_do_not_matter(dtype, kind, engine):
    args = given(kind, (3, 40, 31, 1), 3500, True, dtype)
    results = []
    for count in (1, 2, 3, 4):
        with threads(count):
            results.append(run(engine, args))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@on_every_engine
@pytest.mark.parametrize("kind", KINDS[:3])
def test_missing_target(kind, engine):
    args = given(kind, (3, 33, 17, 2), 73, False, torch.float64)
    with pytest.raises(ValueError, match="target: got None"):
        run(engine, args._replace(target=None))
