"""Public operators: values and all gradients against nested autograd in float64, fp32 by the error rule, errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fastsiren
import oracle
from fastsiren import functional
from fastsiren.engine.network import Parameters

EXACT = 1e-10
# D, H, L, O
SIZES = {"1-5x0-1": (1, 5, 0, 1), "2-16x1-1": (2, 16, 1, 1), "3-7x2-3": (3, 7, 2, 3), "4-9x1-2": (4, 9, 1, 2)}
FIRST, SECOND = (None, "T", "A"), (None, "T", "TxA")

sized = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
first_order = pytest.mark.parametrize("algorithm", FIRST)
second_order = pytest.mark.parametrize("algorithm", SECOND)


def make(sizes: tuple[int, int, int, int], dtype: torch.dtype = torch.float64, **options) -> fastsiren.Siren:
    return fastsiren.Siren(*sizes, dtype=dtype, hidden_omega_0=20.0, **options)


def plain(net: fastsiren.Siren) -> oracle.Net:
    """The network in plain torch, on the same parameters."""
    return oracle.Net(*net.siren_parameters()[:3])


def coordinates(*shape: int) -> Tensor:
    return oracle.uniform(*shape, seed=7).requires_grad_()


def assert_same(ours: Tensor, exact: Tensor) -> None:
    assert ours.shape == exact.shape
    assert oracle.relative_error(ours, exact) <= EXACT


def assert_same_with_gradients(ours: tuple[Tensor, ...], exact: tuple[Tensor, ...], inputs: list[Tensor]) -> None:
    """Values, and gradients of a random combination of all results in all inputs."""
    for mine, right in zip(ours, exact, strict=True):
        assert_same(mine, right)
    bars = [oracle.normal(*right.shape, seed=i) for i, right in enumerate(exact)]
    gradients = [oracle.gradients(results, bars, inputs) for results in (ours, exact)]
    for mine, right in zip(*gradients, strict=True):
        assert right.abs().max() > 0 or right.numel() == 0
        assert_same(mine, right)


@sized
@first_order
def test_value_and_jacobian(sizes, algorithm):
    net, x = make(sizes), coordinates(6, sizes[0])
    result = fastsiren.value_and_jacobian(net, x, algorithm=algorithm)
    assert result._fields == ("value", "jacobian")
    exact = (oracle.value(plain(net), x), oracle.jacobian(plain(net), x))
    assert_same_with_gradients(result, exact, [x, *net.parameters()])


@sized
@second_order
def test_laplacian(sizes, algorithm):
    net, x = make(sizes), coordinates(6, sizes[0])
    result = fastsiren.laplacian(net, x, algorithm=algorithm)
    assert result._fields == ("value", "jacobian", "laplacian")
    trace = oracle.hessian(plain(net), x).diagonal(dim1=-2, dim2=-1).sum(-1)
    exact = (oracle.value(plain(net), x), oracle.jacobian(plain(net), x), trace)
    assert_same_with_gradients(result, exact, [x, *net.parameters()])


@second_order
@pytest.mark.parametrize("dims", [None, [2], [2, 0], [-1, 1], (0, 1, 2)], ids=str)
@pytest.mark.parametrize("kind", ["none", "constant", "per point"])
def test_laplacian_with_dims_and_weights(algorithm, dims, kind):
    net, x = make(SIZES["3-7x2-3"]), coordinates(5, 3)
    axes = range(3) if dims is None else dims
    shape = {"none": None, "constant": (len(axes),), "per point": (5, len(axes))}[kind]
    # Normal numbers: weights of either sign.
    weights = None if shape is None else oracle.normal(*shape, seed=3).requires_grad_()
    result = fastsiren.laplacian(net, x, dims=dims, weights=weights, algorithm=algorithm)
    pure = oracle.hessian(plain(net), x).diagonal(dim1=-2, dim2=-1)[..., list(axes)]
    summed = pure.sum(-1) if weights is None else torch.einsum("nod,nd->no", pure, weights.expand(5, len(axes)))
    exact = (oracle.value(plain(net), x), oracle.jacobian(plain(net), x), summed)
    assert_same_with_gradients(result, exact, [x, *net.parameters(), *([] if weights is None else [weights])])


def test_laplacian_takes_weights_as_numbers_and_broadcasts_them():
    net, x = make(SIZES["2-16x1-1"]), coordinates(3, 4, 2)
    wave = fastsiren.laplacian(net, x, weights=[1, -0.25]).laplacian
    assert_same(wave, fastsiren.laplacian(net, x, weights=torch.tensor([1, -0.25], dtype=torch.float64)).laplacian)
    rows = oracle.normal(4, 2)
    spread = fastsiren.laplacian(net, x, weights=rows).laplacian
    assert_same(spread, fastsiren.laplacian(net, x, weights=rows.expand(3, 4, 2).clone()).laplacian)


@sized
@second_order
def test_hessian(sizes, algorithm):
    net, x = make(sizes), coordinates(6, sizes[0])
    result = fastsiren.hessian(net, x, algorithm=algorithm)
    assert result._fields == ("value", "jacobian", "hessian")
    exact = (oracle.value(plain(net), x), oracle.jacobian(plain(net), x), oracle.hessian(plain(net), x))
    assert_same_with_gradients(result, exact, [x, *net.parameters()])


@second_order
@pytest.mark.parametrize("dims", [[1], [3, 0], [-1, 1, 0]], ids=str)
def test_hessian_over_some_inputs_keeps_their_order(algorithm, dims):
    net, x = make(SIZES["4-9x1-2"]), coordinates(5, 4)
    result = fastsiren.hessian(net, x, dims=dims, algorithm=algorithm)
    block = oracle.hessian(plain(net), x)[..., dims, :][..., dims]
    exact = (oracle.value(plain(net), x), oracle.jacobian(plain(net), x), block)
    assert_same_with_gradients(result, exact, [x, *net.parameters()])


@second_order
@pytest.mark.parametrize("v_shape", [(3,), (5, 3)], ids=str)
@pytest.mark.parametrize("u_shape", [None, (3,), (5, 3)], ids=str)
def test_directional(algorithm, v_shape, u_shape):
    net, x = make(SIZES["3-7x2-3"]), coordinates(5, 3)
    v = oracle.normal(*v_shape, seed=1).requires_grad_()
    u = None if u_shape is None else oracle.normal(*u_shape, seed=2).requires_grad_()
    result = fastsiren.directional(net, x, v, u, algorithm=algorithm)
    assert result._fields == ("value", "first", "second")
    every_v, every_u = v.expand(5, 3), (v if u is None else u).expand(5, 3)
    first = torch.einsum("nod,nd->no", oracle.jacobian(plain(net), x), every_v)
    second = torch.einsum("node,nd,ne->no", oracle.hessian(plain(net), x), every_v, every_u)
    inputs = [x, *net.parameters(), v, *([] if u is None else [u])]
    assert_same_with_gradients(result, (oracle.value(plain(net), x), first, second), inputs)


NAMES = {
    "value": ["u", "v"],
    "first": ["v__x", "u__t", "u"],
    "one first": ["w__y"],
    "heat": ["u__t", "u__x__x", "u__y__y"],
    "mixed": ["u__y__x", "u__x__y", "w__t__t", "w"],
    "last output": ["w__x__x", "w__t", "u"],
    "all": [f"{o}__{a}__{b}" for o in "uvw" for a in "txy" for b in "txy"] + ["u__x", "v__y", "w__t", "v"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("engine", [0, 1, 2], ids=["cheapest", "first engine", "second engine"])
def test_derivatives_by_name(names, engine):
    net, x = make(SIZES["3-7x2-3"]), coordinates(5, 3)
    order = max(name.count("__") for name in names)
    algorithm = ((None, None, "value"), FIRST, SECOND)[order][engine]
    found = fastsiren.derivatives(net, x, names, inputs="txy", outputs=["u", "v", "w"], algorithm=algorithm)
    exact = []
    for name in names:
        output, *axes = name.split("__")
        o, along = "uvw".index(output), ["txy".index(axis) for axis in axes]
        whole = (oracle.value, oracle.jacobian, oracle.hessian)[len(along)](plain(net), x)
        exact.append(whole[(slice(None), o, *along)].unsqueeze(-1))
    assert list(found) == names
    assert_same_with_gradients(tuple(found.values()), tuple(exact), list(net.parameters())[:-1])


def test_derivatives_cost_one_pass(monkeypatch):
    calls = []
    for name in ("siren", "jet", "adjoint", "sandwich"):
        original = getattr(functional, name)

        def counted(*args, name: str = name, original: Callable = original, **options):
            calls.append(name)
            return original(*args, **options)

        monkeypatch.setattr(functional, name, counted)
    net, x = make((3, 8, 1, 1)), coordinates(5, 3)
    for names, algorithm, expected in [
        (["u"], None, "siren"),
        (["u", "u__x", "u__y", "u__t"], None, "adjoint"),
        (["u", "u__x"], None, "jet"),
        (["u", "u__t", "u__x__x", "u__y__y"], None, "sandwich"),
        (["u", "u__t", "u__x__x", "u__y__y"], "T", "jet"),
    ]:
        calls.clear()
        fastsiren.derivatives(net, x, names, inputs="txy", outputs="u", algorithm=algorithm)
        assert calls == [expected]


OPERATORS = {
    "value_and_jacobian": (fastsiren.value_and_jacobian, FIRST),
    "laplacian": (fastsiren.laplacian, SECOND),
    "hessian": (fastsiren.hessian, SECOND),
    "directional": (lambda net, x, **o: fastsiren.directional(net, x, oracle.normal(x.shape[-1]), **o), SECOND),
}
operators = pytest.mark.parametrize(("operator", "algorithms"), OPERATORS.values(), ids=OPERATORS)


@operators
@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0, 3), (1, 1, 4)], ids=str)
def test_any_leading_shape(operator, algorithms, leading):
    net, x = make(SIZES["3-7x2-3"]), oracle.uniform(*leading, 3)
    for algorithm in algorithms:
        rows = operator(net, x.reshape(-1, 3), algorithm=algorithm)
        for shaped, flat in zip(operator(net, x, algorithm=algorithm), rows, strict=True):
            assert shaped.shape == (*leading, *flat.shape[1:])
            assert torch.equal(shaped.reshape(flat.shape), flat)


@operators
def test_gradients_of_no_points_are_zero(operator, algorithms):
    net = make(SIZES["3-7x2-3"])
    for algorithm in algorithms:
        x = coordinates(0, 3)
        sum(result.sum() for result in operator(net, x, algorithm=algorithm)).backward()
        assert x.grad.shape == (0, 3)
        assert all(torch.count_nonzero(p.grad) == 0 for p in net.parameters())
        net.zero_grad()


@operators
def test_strided_coordinates(operator, algorithms):
    net, wide = make(SIZES["3-7x2-3"]), oracle.uniform(3, 10)
    for algorithm in algorithms:
        strided = operator(net, wide.t()[::2], algorithm=algorithm)
        packed = operator(net, wide.t()[::2].contiguous(), algorithm=algorithm)
        assert all(torch.equal(a, b) for a, b in zip(strided, packed, strict=True))


@operators
@pytest.mark.parametrize("wanted", ["nothing", "x", "one weight", "biases", "all but x"])
def test_subsets_of_requires_grad(operator, algorithms, wanted):
    net = make(SIZES["3-7x2-3"])
    named = dict(net.named_parameters())
    tracked = {
        "nothing": [],
        "x": [],
        "one weight": [named["net.1.linear.weight"]],
        "biases": [p for name, p in named.items() if name.endswith("bias")],
        "all but x": list(named.values()),
    }[wanted]
    for algorithm in algorithms:
        net.requires_grad_(True)
        x = coordinates(4, 3)
        full = operator(net, x, algorithm=algorithm)
        bars = [oracle.normal(*result.shape, seed=i) for i, result in enumerate(full)]
        inputs = [x] if wanted == "x" else tracked
        expected = oracle.gradients(full, bars, inputs) if inputs else []
        net.requires_grad_(False)
        for parameter in tracked:
            parameter.requires_grad_(True)
        results = operator(net, x.detach().requires_grad_(wanted == "x") if wanted != "x" else x, algorithm=algorithm)
        assert all(result.requires_grad == bool(inputs) for result in results)
        found = oracle.gradients(results, bars, inputs) if inputs else []
        for mine, right in zip(found, expected, strict=True):
            assert_same(mine, right)


@operators
def test_fp32_is_as_accurate_as_plain_torch(operator, algorithms):
    torch.manual_seed(1)
    net = fastsiren.Siren(3, 32, 2, 2)
    exact_net = fastsiren.Siren(3, 32, 2, 2, dtype=torch.float64)
    exact_net.load_state_dict({name: tensor.double() for name, tensor in net.state_dict().items()})
    x = oracle.uniform(300, 3, dtype=torch.float32)
    direction = oracle.normal(3)
    results = []
    for network, points in ((plain(net), x), (plain(exact_net), x.double())):
        jacobian, hessian = oracle.jacobian(network, points), oracle.hessian(network, points)
        v = direction.to(points.dtype)
        results.append(
            {
                "value": oracle.value(network, points),
                "jacobian": jacobian,
                "laplacian": hessian.diagonal(dim1=-2, dim2=-1).sum(-1),
                "hessian": hessian,
                "first": jacobian @ v,
                "second": hessian @ v @ v,
            }
        )
    for algorithm in algorithms:
        if operator is OPERATORS["directional"][0]:
            ours = fastsiren.directional(net, x, direction.float(), algorithm=algorithm)
        else:
            ours = operator(net, x, algorithm=algorithm)
        for name, result in ours._asdict().items():
            quantity = {"value": "value", "jacobian": "first", "first": "first"}.get(name, "second")
            oracle.assert_error_rule(result, results[0][name], results[1][name], quantity=quantity)


@operators
def test_last_layer_may_be_a_sine(operator, algorithms):
    net, x = make((2, 8, 1, 2), outermost_linear=False), coordinates(4, 2)
    weights, biases, omegas, *_ = net.siren_parameters()
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    twin = Given([*weights, eye], [*biases, zero], omegas)
    for algorithm in algorithms:
        ours, exact = (operator(network, x, algorithm=algorithm) for network in (net, twin))
        assert_same_with_gradients(ours, exact, [x, *net.parameters()])


class Given:
    """The least that an operator asks of a network."""

    def __init__(self, *parameters) -> None:
        self.parameters = Parameters(*parameters)

    def siren_parameters(self) -> Parameters:
        return self.parameters


def test_any_module_that_spells_its_parameters_will_do():
    net = oracle.network((2, 9, 5, 2), (30.0, 3.0)).tracked()
    x = coordinates(5, 2)
    exact = (oracle.value(net, x), oracle.jacobian(net, x), oracle.hessian(net, x))
    assert_same_with_gradients(fastsiren.hessian(Given(*net), x), exact, [x, *net.parameters()])


def test_a_pinn_step_compiles_in_one_graph():
    net, x = make((2, 8, 1, 1)), oracle.uniform(9, 2)

    def loss(x: Tensor) -> Tensor:
        d = fastsiren.derivatives(net, x, ["u", "u__t", "u__x__x"], inputs="tx", outputs="u")
        return (d["u__t"] + d["u"] * fastsiren.laplacian(net, x).laplacian - d["u__x__x"]).square().mean()

    gradients = [torch.autograd.grad(f(x), list(net.parameters())) for f in (loss, torch.compile(
        loss, fullgraph=True, backend="aot_eager"))]  # fmt: skip
    for eager, compiled in zip(*gradients, strict=True):
        assert_same(compiled, eager)


@operators
def test_autocast_changes_nothing(operator, algorithms):
    net, x = fastsiren.Siren(3, 7, 1, 2, dtype=torch.float64), oracle.uniform(5, 3).bfloat16()
    for algorithm in algorithms:
        expected = operator(net, x.double(), algorithm=algorithm)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = operator(net, x, algorithm=algorithm)
        assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
