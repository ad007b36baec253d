"""torch.compile, make_fx, torch.export, ONNX and torch.jit.trace of modules: the numbers are those of eager mode."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

import fastsiren
from mechanisms import Measured, assert_same, both, every, gradients, loss, on, points, siren

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    pytest.mark.filterwarnings("ignore:Trying to prepare for code generation"),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(run, backend: str = "aot_eager"):
    return torch.compile(run, fullgraph=True, backend=backend)


@every
def test_torch_compile_forward(quantity, backend):
    ours, plain = both(quantity)
    run = torch.compile(ours, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for rows in (6, 17):
            assert_same(run(points(rows)), plain(points(rows)))


@every
def test_torch_compile_training(quantity):
    """Forward and backward in generated code, and three steps of an optimizer."""
    ours, plain = both(quantity)
    run = compiled(ours, "inductor")
    results = []
    for measured, call in ((ours, run), (plain, plain)):
        optimizer = torch.optim.SGD(measured.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            loss(call(points())).backward()
            optimizer.step()
        results.append([p.detach() for p in measured.parameters()])
    assert_same(*results)


@every
def test_torch_compile_with_autograd_grad_inside(quantity):
    """A step of second order in one graph; without the flag torch itself refuses it."""

    def step(measured):
        params = list(measured.parameters())[:-1]

        def run(x):
            slope = torch.autograd.grad(loss(measured(x)), x, create_graph=True)[0]
            return torch.autograd.grad(slope.square().sum(), params)

        return run

    ours, plain = both(quantity)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        found = compiled(step(ours))(points().requires_grad_())
    assert_same(found, step(plain)(points().requires_grad_()))


@every
def test_torch_compile_with_autograd_grad_inside_without_trace_autograd_ops_raises(quantity):
    measured = both(quantity)[0]
    run = compiled(lambda x: torch.autograd.grad(loss(measured(x)), x)[0])
    with (
        torch._dynamo.config.patch(trace_autograd_ops=False),
        pytest.raises(torch._dynamo.exc.Unsupported, match="autograd"),
    ):
        run(points().requires_grad_())


@every
def test_torch_compile_with_a_second_backward_outside_raises(quantity):
    run = compiled(both(quantity)[0])
    x = points().requires_grad_()
    slope = torch.autograd.grad(loss(run(x)), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        slope.square().sum().backward()


@on("jets", "losses")
def test_torch_compile_of_net_x_quantity(quantity):
    asked = {"jets": lambda n, x: fastsiren.laplacian(n, x).laplacian, "losses": fastsiren.losses.eikonal}[quantity]
    net = siren()
    assert_same(compiled(net)(points(), asked), asked(net, points()))


@every
def test_make_fx(quantity, backend):
    ours, plain = both(quantity)
    names = [name for name, _ in ours.named_parameters()]

    def step(measured):
        def run(x, *params):
            result = functional_call(measured, dict(zip(names, params)), (x,))
            return torch.autograd.grad(loss(result), (x, *params[:-1]))

        return run

    leaves = [points().requires_grad_(), *ours.parameters()]
    graph = make_fx(step(ours))(*leaves)
    assert "fastsiren" in str(graph.graph)
    assert_same(graph(*leaves), step(plain)(*leaves))


def exported(measured: Measured, *, strict: bool = False) -> torch.export.ExportedProgram:
    number = torch.export.Dim("number", min=2)
    return torch.export.export(measured, (points(),), dynamic_shapes=({0: number},), strict=strict)


@pytest.mark.parametrize("strict", [False, True], ids=["plain", "strict"])
@every
def test_torch_export(quantity, strict):
    ours, plain = both(quantity)
    program = exported(ours, strict=strict)
    called = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    assert {op.namespace for op in called} == {"aten"}, "a program runs where fastsiren is not"
    assert_same(program.module()(points(9)), plain(points(9)))
    assert_same(gradients(program.module(), points(9)), gradients(plain, points(9)))


@every
def test_onnx(quantity):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs fastsiren[onnx]")
    pytest.importorskip("onnxscript", reason="needs fastsiren[onnx]")
    measured = Measured(fastsiren.Siren(2, 16, 2, 2), quantity)
    x = points().float()
    with warnings.catch_warnings():
        # Its own use of names of NumPy and torch.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            measured, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("number", min=2)},), verbose=False
        )
    assert {node.domain for node in program.model_proto.graph.node} == {""}
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    x = points(9).float()
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert_same(torch.tensor(found), measured(x), 1e-5)


@every
def test_torch_jit_trace(quantity, backend):
    ours, plain = both(quantity)
    with warnings.catch_warnings():
        # Traces are deprecated, and warn of every size that they hold.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(ours.requires_grad_(False), (points(),))
    assert_same(traced(-points()), plain(-points()))
