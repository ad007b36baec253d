"""torch.compile and make_fx: fused operators stay in the graph, and the numbers are those of plain torch."""

from collections.abc import Callable, Iterator

import numpy
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import fastsiren
import op_cases
import oracle
from fastsiren import functional
from oracle import Net

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    pytest.mark.filterwarnings("ignore:Trying to prepare for code generation"),
]

NET = op_cases.network()
BOUND = 1e-11


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        yield
    torch._dynamo.reset()


def ours(net: Net, x: Tensor) -> Tensor:
    return functional.siren(x, net.weights, net.biases, omegas=net.omegas)


def our_laplacian(net: Net, x: Tensor) -> Tensor:
    axes = torch.eye(x.shape[-1], dtype=x.dtype)
    return functional.jet(x, net.weights, net.biases, axes, axes[None], omegas=net.omegas).second[:, 0]


def plain_laplacian(net: Net, x: Tensor) -> Tensor:
    return oracle.hessian(net, x).diagonal(dim1=-2, dim2=-1).sum(-1)


def nested_laplacian(f: Callable[[Net, Tensor], Tensor]) -> Callable[[Net, Tensor], Tensor]:
    def run(net, x):
        slope = torch.autograd.grad(f(net, x).sum(), x, create_graph=True)[0]
        return sum(torch.autograd.grad(slope[:, i].sum(), x, create_graph=True)[0][:, i : i + 1] for i in range(2))

    return run


def leaves(rows: int = 6) -> list[Tensor]:
    return oracle.tracked(oracle.points(NET, rows), *NET.parameters())


def network(params) -> Net:
    return Net(list(params[:3]), list(params[3:]), NET.omegas)


def whole_step(quantity):
    """A training step in one graph: gradients are results."""

    def step(x, *params):
        loss = (quantity(network(params), x) - 0.5).square().mean()
        return torch.autograd.grad(loss, params[:-1])

    return step


def assert_same(found, expected) -> None:
    for a, b in zip(found, expected, strict=True):
        assert oracle.relative_error(a.detach(), b.detach()) <= BOUND


def ops_of(graph: torch.fx.GraphModule) -> list[str]:
    return [
        node.target._opname for node in graph.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "fastsiren"
    ]  # fmt: skip


STEPS = {
    "value": (ours, oracle.value),
    "laplacian by jet": (our_laplacian, plain_laplacian),
    "laplacian by nested gradients": (nested_laplacian(ours), nested_laplacian(oracle.value)),
}


@pytest.mark.parametrize("step", STEPS)
def test_whole_step(step, backend):
    compiled = torch.compile(whole_step(STEPS[step][0]), fullgraph=True, backend="aot_eager")
    assert_same(compiled(*leaves()), whole_step(STEPS[step][1])(*leaves()))


@pytest.mark.parametrize("quantity", [ours, our_laplacian], ids=["value", "laplacian"])
def test_backward_outside(quantity, backend):
    plain = oracle.value if quantity is ours else plain_laplacian
    compiled = torch.compile(lambda x, *params: quantity(network(params), x) * 2, fullgraph=True, backend="aot_eager")
    results = []
    for f in (compiled, lambda x, *params: plain(network(params), x) * 2):
        made = leaves()
        f(*made).tanh().sum().backward()
        results.append([leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in made])
    for a, b in zip(*results, strict=True):
        assert float((a - b).abs().max()) <= BOUND


@pytest.mark.parametrize("quantity", ["value", "laplacian by jet"])
def test_inductor(quantity):
    found, expected = STEPS[quantity]
    compiled = torch.compile(whole_step(found), fullgraph=True, backend="inductor")
    assert_same(compiled(*leaves()), whole_step(expected)(*leaves()))


def test_any_number_of_points_in_one_graph(backend):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: ours(NET, x), fullgraph=True, dynamic=True, backend=counter)
    frames = 0
    # None of them is a width of the network: the compiler would take the two for one number.
    for rows in (6, 17, 33):
        x = oracle.points(NET, rows)
        assert_same([compiled(x)], [oracle.value(NET, x)])
        frames = frames or counter.frame_count
    assert counter.frame_count == frames


@pytest.mark.parametrize("dynamic", [None, True])
def test_numbers_that_are_not_constants(dynamic):
    net, x = fastsiren.Siren(2, 8, 1, 1, dtype=torch.float64), oracle.uniform(16, 2)

    def wave(speed):
        return fastsiren.laplacian(net, x, weights=[1.0, -speed]).laplacian

    compiled = torch.compile(wave, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for speed in (2.0, 3.5, numpy.float32(4), 5):
        assert_same([compiled(speed)], [wave(speed)])


def test_leading_shapes(backend):
    x = oracle.uniform(2, 3, 4, 2)
    compiled = torch.compile(lambda x: ours(NET, x), fullgraph=True, backend="aot_eager")
    assert_same([compiled(x)], [oracle.value(NET, x.reshape(-1, 2)).reshape(2, 3, 4, 2)])


def test_the_backend_around_a_compiled_call_is_heeded():
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x: ours(NET, x), fullgraph=True, backend=counter)
    x = oracle.points(NET, 3)
    for name in ("reference", "auto", "reference"):
        with fastsiren.use_backend(name):
            compiled(x)
    chosen = [next(iter(node.args[4] for node in graph.graph.nodes if "value_fwd" in str(node.target)))
              for graph in counter.graphs]  # fmt: skip
    automatic = fastsiren.engine.backends.resolve("auto", x.device, x.dtype)
    assert chosen == ["reference", automatic]


def test_the_backend_inside_a_compiled_call_is_heeded():
    def run(x):
        with fastsiren.use_backend("reference"), fastsiren.precision("fp32"):
            y = ours(NET, x)
        return y + 1

    counter = CompileCounterWithBackend("aot_eager")
    x = oracle.points(NET, 3)
    assert_same([torch.compile(run, fullgraph=True, backend=counter)(x)], [oracle.value(NET, x) + 1])
    assert "reference" in str(counter.graphs[0].graph)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f: lambda x: torch.func.grad(lambda p: f(NET, p).square().sum())(x),
        lambda f: lambda x: torch.func.vmap(torch.func.jacrev(lambda p: f(NET, p[None])[0]))(x),
    ],
    ids=["grad", "vmap of jacrev"],
)
def test_transforms_inside(transformed, backend):
    x = oracle.points(NET, 4)
    compiled = torch.compile(transformed(ours), fullgraph=True, backend="aot_eager")
    assert_same([compiled(x)], [transformed(oracle.value)(x)])


def test_dual_level_inside_and_around(backend):
    x = oracle.points(NET, 4)

    def inside(f):
        def run(x):
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(f(NET, forward_ad.make_dual(x, torch.ones_like(x)))).tangent

        return run

    compiled = torch.compile(inside(ours), fullgraph=True, backend="aot_eager")
    assert_same([compiled(x)], [inside(oracle.value)(x)])
    # Warm code, compiled without a level, must not serve a call inside of one.
    warm = torch.compile(lambda x: ours(NET, x), backend="aot_eager")
    warm(x)
    assert_same([inside(lambda net, p: warm(p))(x)], [inside(oracle.value)(x)])


def test_loss(backend):
    def step(*params):
        net = network(params)
        loss = functional.loss("value", x, target, net.weights, net.biases, omegas=net.omegas)
        return loss.detach(), *torch.autograd.grad(loss, params)

    x, target = oracle.points(NET, 6), oracle.uniform(6, 2, seed=3)
    found = torch.compile(step, fullgraph=True, backend="aot_eager")(*leaves()[1:])
    params = leaves()[1:]
    loss = (oracle.value(network(params), x) - target).square().mean()
    assert_same(found, [loss, *torch.autograd.grad(loss, params)])


def test_make_fx_keeps_the_operators(backend):
    step = whole_step(nested_laplacian(ours))
    graph = make_fx(step)(*leaves())
    assert {"value_bwd", "sandwich_fwd", "sandwich_bwd"} <= set(ops_of(graph))
    assert_same(graph(*leaves()), whole_step(nested_laplacian(oracle.value))(*leaves()))
