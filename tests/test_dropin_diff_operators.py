"""Derivative functions of existing code: the numbers of nested autograd, in one pass behind a network."""

import gc
import weakref

import pytest
import torch

import fastsiren
import oracle
from clients import plain
from fastsiren.dropin import colab, deepxde, diff_operators, metasdf
from fastsiren.engine import ops

SHAPES = {"points": (7,), "batch": (1, 7), "batches": (2, 5)}
OPERATORS = {
    "gradient": lambda d, y, x: d.gradient(y, x),
    "gradient, weighted": lambda d, y, x: d.gradient(y, x, oracle.normal(*y.shape, seed=9)),
    "divergence": lambda d, y, x: d.divergence(y, x),
    "laplace": lambda d, y, x: d.laplace(y, x),
    "jacobian": lambda d, y, x: d.jacobian(y, x)[0],
    "hessian": lambda d, y, x: d.hessian(y, x)[0],
    "divergence of gradient": lambda d, y, x: d.divergence(d.gradient(y, x, oracle.normal(*y.shape, seed=9)), x),
    "jacobian of gradient": lambda d, y, x: d.jacobian(d.gradient(y, x, oracle.normal(*y.shape, seed=9)), x)[0],
}
# Passes that a call runs, the one that made y not counted.
PASSES = dict.fromkeys(OPERATORS, 1) | {"divergence of gradient": 2, "jacobian of gradient": 2}


def network(inputs=3, outputs=2):
    torch.manual_seed(5)
    return fastsiren.Siren(inputs, 10, 2, outputs, first_omega_0=12.0, hidden_omega_0=12.0, dtype=torch.float64)


@pytest.fixture
def passes(monkeypatch):
    """Names of the passes that ran."""
    names, original = [], ops._run

    def run(which, *args):
        names.append(which.name)
        return original(which, *args)

    monkeypatch.setattr(ops, "_run", run)
    return names


def compare(operator, make, x, parameters):
    """Results, and gradients of a function of them, of our operators and of plain ones on the same tensors."""
    found = []
    for library in (diff_operators, plain):
        y, at = make(x)
        result = OPERATORS[operator](library, y, at)
        bar = oracle.normal(*result.shape, seed=3)
        gradients = torch.autograd.grad(
            (result * bar).sum() + result.square().sum(), [x, *parameters], allow_unused=True
        )
        found.append([result, *(g for g in gradients if g is not None)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert oracle.relative_error(ours, theirs) <= 1e-10


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_one_pass_gives_the_numbers_of_nested_autograd(operator, shape, passes):
    net = network()
    x = oracle.uniform(*shape, 3).requires_grad_()
    compare(operator, lambda x: (net(x), x), x, list(net.parameters()))
    y = net(x)
    passes.clear()
    OPERATORS[operator](diff_operators, y, x)
    assert len(passes) == PASSES[operator], passes
    assert not {"sandwich_bwd", "adjoint_bwd", "value_bwdbwd"} & set(passes)


@pytest.mark.parametrize("operator", OPERATORS)
def test_coordinates_may_be_computed(operator, passes):
    net = network()
    x = oracle.uniform(6, 3).requires_grad_()

    def make(x):
        warped = torch.sin(2 * x) + x
        return net(warped), warped

    compare(operator, make, x, list(net.parameters()))
    y, at = make(x)
    passes.clear()
    OPERATORS[operator](diff_operators, y, at)
    assert len(passes) == PASSES[operator]


@pytest.mark.parametrize("operator", OPERATORS)
def test_strided_coordinates(operator):
    net, x = network(), oracle.uniform(3, 12).requires_grad_()
    compare(operator, lambda x: (lambda at: (net(at), at))(x.mT[::2]), x, list(net.parameters()))


TRANSFORMED = {
    "square": lambda net, x: (net(x).square(), x),
    "sum of two": lambda net, x: (net(x) + net(2 * x), x),
    "slice": lambda net, x: (net(x)[..., :1], x),
    "permuted": lambda net, x: (net(x).flip(-1), x),
    "other x": lambda net, x: (net(x + 0.5 * x.square()), x),
    "points swapped": lambda net, x: (net(x.flip(-2)), x),
    "reshaped": lambda net, x: (net(x.reshape(3, 2, 3)).reshape(2, 3, 2), x),
    "transposed": lambda net, x: (net(x.transpose(0, 1)).transpose(0, 1), x),
    "twice": lambda net, x: (net(x).mul(2), x),
    "in place": lambda net, x: (net(x).mul_(2), x),
    "copied": lambda net, x: (net(x.clone()), x),
    "product": lambda net, x: (net(x) * x[..., :1], x),
    "last layer a sine": lambda net, x: (torch.sin(net(x)), x),
}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_other_functions_of_a_network_are_right_too(transform, operator):
    net, x = network(), oracle.uniform(2, 3, 3).requires_grad_()
    compare(operator, lambda x: transform(net, x), x, list(net.parameters()))


def test_functions_without_a_network():
    x = oracle.uniform(2, 4, 3).requires_grad_()
    y = torch.stack([x.prod(-1), x[..., 0] * x[..., 1].exp()], -1)
    for name in OPERATORS:
        found, expected = (OPERATORS[name](d, y, x) for d in (diff_operators, plain))
        assert oracle.relative_error(found, expected) <= 1e-12


@pytest.mark.parametrize("operator", ["divergence", "laplace", "jacobian", "hessian"])
def test_a_network_changed_since_is_an_error_as_in_torch(operator):
    net, x = network(), oracle.uniform(4, 3).requires_grad_()
    y = net(x)
    with torch.no_grad():
        net.net[1].linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        OPERATORS[operator](diff_operators, y, x)


def test_parameters_replaced_since_do_not_count():
    net, x = network(), oracle.uniform(4, 3).requires_grad_()
    y, expected = net(x), plain.laplace(net(x), x)
    net.net[1].linear.weight = torch.nn.Parameter(torch.zeros_like(net.net[1].linear.weight))
    net.net[0].omega_0 = 1.0
    assert oracle.relative_error(diff_operators.laplace(y, x), expected) <= 1e-10


def test_tensor_hooks_see_gradients():
    net, x = network(), oracle.uniform(4, 3).requires_grad_()
    y, expected = net(x), plain.jacobian(net(x), x)[0]
    x.register_hook(lambda grad: 2 * grad)
    assert oracle.relative_error(diff_operators.jacobian(y, x)[0], 2 * expected) <= 1e-10


def test_cotangents_that_depend_on_something_count():
    net, x = network(), oracle.uniform(4, 3).requires_grad_()
    found, expected = (library.divergence(library.gradient(y, x, y), x) for library in (diff_operators, plain)
                       for y in [net(x)])  # fmt: skip
    assert oracle.relative_error(found, expected) <= 1e-10


def test_under_no_grad_results_have_a_graph():
    net, x = network(), oracle.uniform(4, 3).requires_grad_()
    y = net(x)
    with torch.no_grad():
        for name in OPERATORS:
            assert OPERATORS[name](diff_operators, y, x).requires_grad


def test_status_tells_of_nan():
    net, x = network(), oracle.uniform(1, 4, 3).requires_grad_()
    assert diff_operators.jacobian(net(x), x)[1] == diff_operators.hessian(net(x), x)[1] == 0
    y = net(x)
    broken = y * torch.tensor([1.0, float("nan")]).double()
    assert diff_operators.jacobian(broken, x)[1] == diff_operators.hessian(broken, x)[1] == -1


def test_networks_with_an_axis(passes):
    net = metasdf.Siren(2, 8, 1, 2, outermost_linear=True).double()
    params = {name: p.detach() + 0.01 * oracle.normal(3, *p.shape) for name, p in net.named_parameters()}
    params = {name: p.requires_grad_() for name, p in params.items()}
    x = oracle.uniform(3, 5, 2).requires_grad_()
    for name in OPERATORS:
        compare(name, lambda x: (net(x, params=params), x), x, list(params.values()))
    y = net(x, params=params)
    passes.clear()
    diff_operators.laplace(y, x)
    assert len(passes) == 1
    shared = oracle.uniform(5, 2).requires_grad_()
    y = net(shared, params=params)
    expected = sum(plain.gradient(net(shared, params=params)[i], shared) for i in range(3))
    assert oracle.relative_error(diff_operators.gradient(y, shared), expected) <= 1e-10


def test_notebook_loss_takes_few_passes(passes):
    net = colab.Siren(2, 8, 1, 1, outermost_linear=True)
    output, coords = net(torch.rand(16, 2))
    loss = (diff_operators.laplace(output, coords) - 1).square().mean()
    loss.backward()
    assert len(passes) == 3 and passes[0] == "value_fwd"


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("fused", [True, False])
def test_deepxde(outputs, fused, passes):
    net, x = network(2, outputs), oracle.uniform(6, 2).requires_grad_()

    def value():
        return net(x) if fused else net(x).square()

    y = value()
    jacobian, hessian = plain.jacobian(value(), x)[0], plain.hessian(value(), x)[0]
    passes.clear()
    for c in range(outputs):
        given = {} if outputs == 1 else {"i": c}
        assert oracle.relative_error(deepxde.jacobian(y, x, **given), jacobian[:, c]) <= 1e-10
        for i in range(2):
            found = deepxde.jacobian(y, x, j=i, **given)
            assert found.shape == (6, 1) and oracle.relative_error(found[:, 0], jacobian[:, c, i]) <= 1e-10
            for j in range(2):
                given_c = {} if outputs == 1 else {"component": c}
                found = deepxde.hessian(y, x, i=i, j=j, **given_c)
                assert found.shape == (6, 1) and oracle.relative_error(found[:, 0], hessian[:, c, i, j]) <= 1e-10
    assert (len(passes) == 2) is fused
    with pytest.raises(IndexError, match="j: got 2, expected an int in"):
        deepxde.jacobian(y, x, i=0, j=2)
    if outputs == 2:
        with pytest.raises(ValueError, match="i: got None for 2 channels"):
            deepxde.jacobian(y, x)
        with pytest.raises(ValueError, match="component: got None for 2 channels"):
            deepxde.hessian(y, x)


def test_deepxde_keeps_nothing_alive():
    net, x = network(2, 1), oracle.uniform(6, 2).requires_grad_()
    y = net(x)
    deepxde.hessian(y, x)
    alive, kept = weakref.ref(y), len(deepxde._KEPT)
    del y
    gc.collect()
    assert alive() is None and len(deepxde._KEPT) == kept - 1


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "divergence"])
def test_one_coordinate_for_all_inputs(operator):
    net, x = network(), oracle.uniform(4, 1).requires_grad_()
    compare(operator, lambda x: (net(x.expand(4, 3)), x), x, list(net.parameters()))
