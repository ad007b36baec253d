"""What is changed between forward and backward is noticed; NaN stays in the rows and networks that it concerns."""

import math

import pytest
import torch

import fastsiren
import op_cases
import oracle
from fastsiren import functional, grids, losses
from fastsiren.dropin import coin, colab

CHANGED = "modified by an inplace operation"


@pytest.mark.parametrize("start", [op_cases.operator, op_cases.dispatched], ids=["operator", "eager"])
@pytest.mark.parametrize("name", op_cases.NAMES)
def test_every_tensor_of_every_pass(name, start, backend):
    """Points, seeds, cotangents, targets, weights of points, and parameters."""
    net = op_cases.network()
    call = start(name, net, backend)
    given = [*op_cases.operands(name, net, 3), *net.parameters()]
    given += op_cases.cotangents(name, net) if name == "value_bwdbwd" else []
    for changed in range(len(given)):
        args = oracle.tracked(*given)
        total = sum(result.sum() for result in results(call(*args)))
        with torch.no_grad():
            args[changed].add_(1)
        with pytest.raises(RuntimeError, match=CHANGED):
            total.backward()


def results(found) -> tuple[torch.Tensor, ...]:
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


X, TARGET = oracle.uniform(5, 2), oracle.normal(5, 1)
NETS = {
    "Siren": lambda: fastsiren.Siren(2, 6, 1, 1),
    "last sine": lambda: fastsiren.Siren(2, 6, 1, 1, outermost_linear=False),
    "coin": lambda: coin.Siren(2, 6, 1, 2),
}
QUANTITIES = {
    "value": lambda net, x: net(x),
    "jacobian": lambda net, x: fastsiren.value_and_jacobian(net, x).jacobian,
    "laplacian": lambda net, x: fastsiren.laplacian(net, x).laplacian,
    "hessian": lambda net, x: fastsiren.hessian(net, x).hessian,
    "value_mse": lambda net, x: losses.value_mse(net, x, TARGET.clone()),
    "eikonal": losses.eikonal,
    "gradient of the value": lambda net, x: torch.autograd.grad(net(x).sum(), x, create_graph=True)[0],
}


@pytest.mark.parametrize("what", QUANTITIES)
@pytest.mark.parametrize("kind", NETS)
def test_a_step_before_backward(kind, what, backend):
    net = NETS[kind]().double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x = X.clone().requires_grad_(what.startswith("gradient"))
    QUANTITIES[what](net, x).sum().backward()
    late = QUANTITIES[what](net, x).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match=CHANGED):
        late.backward()
    QUANTITIES[what](net, x).sum().backward()


def test_coordinates_without_gradients_count_too(backend):
    net, x = fastsiren.Siren(2, 6, 1, 1).double(), X.clone()
    for loss in (net(x).sum(), losses.value_mse(net, x, TARGET)):
        x.mul_(0.5)
        with pytest.raises(RuntimeError, match=CHANGED):
            loss.backward()


@pytest.mark.parametrize("coords", [X.long(), X + 0j], ids=["integers", "complex"])
def test_coordinates_that_cannot_require_gradients(coords):
    with pytest.raises(TypeError, match=f"^coords: got dtype {coords.dtype}, expected a floating-point dtype"):
        colab.Siren(2, 6, 1, 1).double()(coords)
    with pytest.raises(RuntimeError, match="floating point"):
        X.long().requires_grad_()


# NaN

ROWS, BAD = 75, 33
"""More points than a block of any backend, and a row inside of one."""


def everything(x, directions, forms, combinations, net) -> list[torch.Tensor]:
    """Return all that the functions give per point, and the gradients of points."""
    x = x.detach().requires_grad_()
    params, options = (net.weights, net.biases), {"omegas": net.omegas}
    found = [
        functional.siren(x, *params, **options),
        *functional.jet(x, *params, directions, forms, **options),
        *functional.adjoint(x, *params, combinations, **options),
        *functional.sandwich(x, *params, directions, combinations, **options),
    ]
    slopes = [torch.autograd.grad(tensor.sum(), x, retain_graph=True)[0] for tensor in found]
    return [*found, *slopes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "directions", "forms", "combinations"])
def test_a_row_keeps_its_nan(where, value, dtype, backend):
    net = oracle.network((2, 7, 6, 2), [3.0, 2.0], dtype=dtype)
    given = {
        "x": oracle.uniform(ROWS, 2), "directions": oracle.normal(ROWS, 2, 2, seed=1),
        "forms": oracle.normal(ROWS, 1, 2, 2, seed=2), "combinations": oracle.normal(ROWS, 1, 2, seed=3),
    }  # fmt: skip
    given = {name: tensor.to(dtype) for name, tensor in given.items()}
    expected = everything(**given, net=net)
    given[where] = given[where].clone()
    given[where][BAD] = value
    found = everything(**given, net=net)
    others = torch.arange(ROWS) != BAD
    assert all(torch.equal(a[others], b[others]) for a, b in zip(found, expected, strict=True))
    assert not all(tensor[BAD].isfinite().all() for tensor in found)
    if where == "x":
        assert all(tensor[BAD].isnan().all() for tensor in found)


def test_a_network_keeps_its_nan(backend):
    nets = [oracle.network((2, 7, 6, 2), [3.0, 2.0], dtype=torch.float64, seed=i) for i in range(3)]
    weights, biases = ([torch.stack(group) for group in zip(*(net[i] for net in nets))] for i in (0, 1))
    x, options = oracle.uniform(ROWS, 2), {"omegas": nets[0].omegas}
    expected = functional.adjoint(x, weights, biases, **options)
    weights[1][1, 2, 3] = math.nan
    for found, plain in zip(functional.adjoint(x, weights, biases, **options), expected, strict=True):
        assert torch.equal(found[::2], plain[::2]) and found[1].isnan().all()


def test_sums_over_points_have_the_nan(backend):
    net, x = fastsiren.Siren(2, 7, 1, 1).double(), oracle.uniform(ROWS, 2)
    x[BAD] = math.nan
    loss = losses.value_mse(net, x, oracle.normal(ROWS, 1))
    loss.backward()
    assert loss.isnan() and all(parameter.grad.isnan().any() for parameter in net.parameters())


def test_a_grid_of_a_network_with_nan_ends(backend):
    net = fastsiren.Siren(2, 7, 1, 2)
    with torch.no_grad():
        net.net[-1].weight[0, 3] = math.nan
    found = fastsiren.render(net, grids.Grid.over((9, 11)), progress=False)
    assert found[..., 0].isnan().all() and found[..., 1].isfinite().all()
