"""The operators: registration, layouts, first and second derivatives of each, and what a backward pass computes."""

import pytest
import torch
from torch import Tensor

import op_cases
import oracle
from fastsiren.engine import ops, reference
from fastsiren.engine.passes import PASSES
from passes import CPP, unless_interpreted

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")


def tracked(tensors: list[Tensor], on: bool) -> list[Tensor]:
    """Leaves of the same layout."""
    return [tensor.detach().requires_grad_(on) for tensor in tensors]


# Rows, layout of x and cotangents, one seed per point, gradients recorded. A wrong fake with a fixed batch passes at
# one size, a stride-0 gradient is what y.sum().backward() hands in.
LAYOUTS = [
    (3, "contiguous", False, True), (5, "transposed", True, True), (4, "sliced", True, False),
    (2, "expanded", False, True), (0, "contiguous", True, True), (1, "contiguous", False, False),
][: unless_interpreted(None, 1)]  # fmt: skip


@pytest.mark.parametrize(("rows", "kind", "per_point", "grad"), LAYOUTS, ids=lambda value: str(value))
@pytest.mark.parametrize("name", op_cases.NAMES)
def test_registration(name, rows, kind, per_point, grad, backend):
    net = op_cases.network((2, 3, 2))
    made = tracked(op_cases.operands(name, net, rows, per_point=per_point, kind=kind), grad)
    net = net._replace(weights=tracked(net.weights, grad), biases=tracked(net.biases, grad))
    extra = tracked(op_cases.cotangents(name, net), grad) if kind == "contiguous" else []
    op = getattr(torch.ops.fastsiren, name).default
    arguments = op_cases.schema_arguments(name, net, backend, made, extra)
    # Tracing the backward is most of the time and sees nothing of the backend.
    traced = backend == "reference" and rows in ((3, 0) if name.endswith("_fwd") else (5,))
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    tests += ["test_aot_dispatch_dynamic"] if traced else []
    assert set(torch.library.opcheck(op, arguments, test_utils=tests).values()) == {"SUCCESS"}


@pytest.mark.parametrize("kind", unless_interpreted(["transposed", "sliced", "expanded"], ["transposed"]))
@pytest.mark.parametrize("name", op_cases.NAMES)
def test_strides_do_not_matter(name, kind, backend):
    net = op_cases.network()
    run = op_cases.dispatched(name, net, backend)
    made = op_cases.operands(name, net, 6, per_point=True, kind=kind)
    strided = [op_cases.layout(tensor, "transposed") for tensor in net.weights]
    assert any(not tensor.is_contiguous() for tensor in made) or (kind == "expanded" and name.endswith("_fwd"))
    ours = run(*made, *strided, *net.biases)
    plain = run(*(tensor.contiguous() for tensor in made), *net.weights, *net.biases)
    for a, b in zip(ours, plain, strict=True):
        assert a.is_contiguous()
        assert oracle.relative_error(a, b) <= 1e-13


@pytest.mark.parametrize("name", op_cases.NAMES)
def test_results_own_their_memory(name, backend):
    net = op_cases.network()
    made = op_cases.operands(name, net, 1, per_point=True)
    results = op_cases.dispatched(name, net, backend)(*made, *net.parameters())
    owners = [t.untyped_storage().data_ptr() for t in (*results, *made, *net.parameters()) if t.numel()]
    assert len(set(owners)) == len(owners)


@pytest.mark.parametrize("route", [op_cases.operator, op_cases.dispatched][unless_interpreted(0, 1) :])
@pytest.mark.parametrize("per_point", unless_interpreted([False, True], [True]))
@pytest.mark.parametrize("name", unless_interpreted(op_cases.NAMES, ["value_fwd", "jet_fwd", "sandwich_fwd"]))
def test_derivatives(name, per_point, route, backend):
    net = op_cases.network((2, 3, 2))
    made = op_cases.operands(name, net, 2, per_point=per_point)
    extra = op_cases.cotangents(name, net) if PASSES[name].has_cotangents and per_point else []
    inputs = tracked([*made, *net.parameters(), *extra], True)
    run = route(name, net, backend)
    check_two_orders(run, inputs)


def check_two_orders(run, inputs):
    """First and second derivatives against finite differences, with random cotangents."""
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    results = run(*inputs)
    results = [results] if isinstance(results, Tensor) else results
    bars = [oracle.normal(*t.shape, seed=60 + i).requires_grad_() for i, t in enumerate(results)]

    def slopes(*tensors):
        made, given = tensors[: len(inputs)], tensors[len(inputs) :]
        found = torch.autograd.grad(
            run(*made), made, given, create_graph=True, allow_unused=True, materialize_grads=True
        )
        # Some are constant zeros; gradcheck wants all of them to depend on the inputs.
        return tuple(slope + 0 * made[0].sum() for slope in found)

    assert torch.autograd.gradcheck(slopes, [*inputs, *bars], fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("kind", unless_interpreted(["gradient", "laplacian", "eikonal"], ["eikonal"]))
def test_derivatives_of_losses(kind, backend):
    net = op_cases.network((2, 3, 2))
    target = None if kind == "eikonal" else oracle.normal(3, 2, *([2] if kind == "gradient" else []), seed=3)
    x, weight, inputs = oracle.points(net, 3), oracle.uniform(3, seed=4), tracked(net.parameters(), True)

    def run(*params):
        layers = params[:2], params[2:], net.omegas
        return ops.loss_fwd(kind, x, target, weight, *layers, reduction="sum", backend=backend)

    check_two_orders(run, inputs)


# What a backward pass computes


class Recorder:
    """A backend that notes which functions are called, and with which needs."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def run(*args, **needs):
            self.calls.append((name, tuple(key for key, value in needs.items() if value is True)))
            return getattr(reference, name)(*args, **needs)

        return run


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setitem(ops.backends._LOADED, "reference", made)
    return made


@pytest.mark.parametrize("tracked_weights", ["leaves", "computed"])
def test_gradient_of_x_does_not_pay_for_weights(recorder, tracked_weights):
    net = op_cases.network().tracked()
    x = oracle.points(net, 4).requires_grad_()
    weights = net.weights if tracked_weights == "leaves" else [w * 1 for w in net.weights]
    y = ops.value_fwd(x, weights, net.biases, net.omegas, backend="reference")
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert recorder.calls == [("value_fwd", ()), ("value_bwd", ("need_x",))]
    (curve,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
    assert recorder.calls[2:] == [("sandwich_fwd", ())]
    curve.square().sum().backward()
    assert ("sandwich_bwd", ("need_x", "need_params")) in recorder.calls
    assert all(param.grad is not None for param in net.parameters())


def test_gradient_of_weights_does_not_pay_for_x(recorder):
    net = op_cases.network().tracked()
    x = oracle.points(net, 4).requires_grad_()
    y = ops.value_fwd(x, *net, backend="reference")
    torch.autograd.grad(y.sum(), net.weights)
    assert recorder.calls[1:] == [("value_bwd", ("need_params",))]


@pytest.mark.skipif(not CPP, reason="only the C++ engine spares weights, and it is not under test")
@pytest.mark.parametrize("shared", [True, False], ids=["shared biases", "biases of each network"])
def test_gradient_of_biases_does_not_pay_for_weights(shared, monkeypatch):
    """As where each sample shifts the phases of a network that all samples share: to second order."""
    made, module = [], ops.backends.module("cpp")

    def value_bwd(*args, **needs):
        made.append(module_value_bwd(*args, **needs))
        return made[-1]

    module_value_bwd = module.value_bwd
    monkeypatch.setattr(module, "value_bwd", value_bwd)
    net, found = op_cases.network().tracked(), []
    biases = net.biases if shared else oracle.tracked(*(torch.stack([b, 2 * b]) for b in net.biases))
    x = oracle.points(net, 4)
    for backend in ("cpp", "reference"):
        y = ops.value_fwd(x, net.weights, biases, net.omegas, backend=backend)
        slopes = torch.autograd.grad(y.square().sum(), biases, create_graph=True)
        # Not of all slopes: cotangents of the others are none.
        loss = sum(slope.square().sum() for slope in slopes[1:])
        found.append([*slopes, *torch.autograd.grad(loss, [*net.weights, *biases])])
    first, second = made
    assert not first.weights and len(first.biases) == len(biases) and second.weights
    for ours, exact in zip(*found, strict=True):
        assert oracle.relative_error(ours, exact) <= 1e-12


def test_seeds_that_need_nothing_cost_nothing(recorder):
    net = op_cases.network().tracked()
    made = op_cases.operands("jet_fwd", net, 4)
    _, _, S = ops.jet_fwd(*made, *net, backend="reference")
    S.sum().backward()
    assert recorder.calls[1:] == [("jet_bwd", ("need_params",))]


def test_backends_are_given_symmetric_cotangents(monkeypatch):
    seen = []

    class Noting:
        def __getattr__(self, name):
            def run(*args, **needs):
                seen.extend(args[2:3] if name == "sandwich_bwd" else [])
                return getattr(reference, name)(*args, **needs)

            return run

    monkeypatch.setitem(ops.backends._LOADED, "reference", Noting())
    net = op_cases.network().tracked()
    H = ops.sandwich_fwd(*op_cases.operands("sandwich_fwd", net, 3), *net, backend="reference")[2]
    H[..., 0, 1].sum().backward()
    assert len(seen) == 1 and torch.equal(seen[0], seen[0].mT) and seen[0].any()


def test_nothing_is_recorded_without_gradients(recorder):
    net = op_cases.network().tracked()
    x = oracle.points(net, 4)
    with torch.no_grad():
        loss = ops.loss_fwd("value", x, torch.zeros(4, 2).double(), None, *net, reduction="mean", backend="reference")
        y = ops.value_fwd(x, *net, backend="reference")
    assert recorder.calls == [("loss_fwd", ()), ("value_fwd", ())]
    assert not loss.requires_grad and not y.requires_grad


# Grids


def test_grid(backend):
    net = op_cases.network()
    out = torch.empty(3 * 2, 2, dtype=torch.float64)
    grid = ([0.5, -1.0], [0.25, 0.5], [1, 0], [3, 2])
    ops.grid_fwd(*grid, *net, out=out, gain=2.0, offset=0.5, backend=backend)
    axes = [origin + step * (start + torch.arange(n)).double() for origin, step, start, n in zip(*grid, strict=True)]
    expected = 2 * oracle.value(net, torch.cartesian_prod(*axes)) + 0.5
    assert oracle.relative_error(out, expected) <= 1e-12


def test_grid_has_no_derivative(backend):
    net = op_cases.network().tracked()
    arguments = ([0.0, 0.0], [1.0, 1.0], [0, 0], [2, 2], *net)
    options = {"out": torch.empty(4, 2, dtype=torch.float64), "gain": 1.0, "offset": 0.0, "backend": backend}
    with pytest.raises(RuntimeError, match="has no derivative"):
        ops.grid_fwd(*arguments, **options)
    with torch.no_grad():
        ops.grid_fwd(*arguments, **options)
