"""Drop-in classes against plain restatements of the originals: draws, keys, values, derivatives, quirks."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

import fastsiren
import oracle
from clients import plain
from fastsiren.dropin import coin, coinpp, colab, dalmia, finer, lucidrains, metasdf, official, wire

SIZES = (2, 12, 2, 3)
# Our class, the restatement, and their arguments.
TARGETS = {
    "colab": (colab.Siren, plain.Colab, SIZES, {"outermost_linear": True, "first_omega_0": 25, "hidden_omega_0": 12.0}),
    "colab sine": (colab.Siren, plain.Colab, SIZES, {}),
    "wire": (wire.INR, plain.Wire, SIZES, {"first_omega_0": 25, "hidden_omega_0": 12.0}),
    "finer siren": (finer.Siren, plain.FinerSiren, SIZES, {"hidden_omega_0": 12.0}),
    "finer siren, no bias": (finer.Siren, plain.FinerSiren, SIZES, {"bias": False}),
    "metasdf": (metasdf.Siren, plain.MetaSdf, SIZES, {"outermost_linear": True, "hidden_omega_0": 12.0}),
    "metasdf, not special": (metasdf.Siren, plain.MetaSdf, SIZES, {"special_first": False}),
    "official": (official.SingleBVPNet, plain.SingleBVPNet, (3,), {"hidden_features": 12, "num_hidden_layers": 2}),
    "lucidrains": (lucidrains.SirenNet, plain.SirenNet, (2, 12, 3, 3), {}),
    "lucidrains, options": (
        lucidrains.SirenNet, plain.SirenNet, (2, 12, 3, 2, 5.0, 20.0, False), {"final_activation": nn.Sigmoid()},
    ),
    "dalmia": (dalmia.SIREN, plain.Dalmia, ([12, 7, 9], 2, 3), {}),
    "dalmia, options": (dalmia.SIREN, plain.Dalmia, ([12], 2, 3, 2.0, 10.0, False, None), {}),
    "coin": (coin.Siren, plain.Coin, (2, 12, 3, 3), {"w0_initial": 20.0, "final_activation": nn.Sigmoid()}),
    "coin, no bias": (coin.Siren, plain.Coin, (2, 12, 3, 2), {"use_bias": False}),
    "coinpp": (coinpp.Siren, plain.CoinPP, (2, 12, 3, 3), {"w0_initial": 20.0}),
}  # fmt: skip


def pair(name, dtype=torch.float64):
    """Our network and the plain one, of the same seed."""
    ours, theirs, sizes, options = TARGETS[name]
    made = []
    for make in (ours, theirs):
        torch.manual_seed(5)
        made.append(make(*sizes, **options).to(dtype))
    return made


def call(net, x):
    """Output, and the coordinates to differentiate by."""
    given = {"coords": x} if "model_input" in inspect.signature(net.forward).parameters else x
    result = net(given)
    if isinstance(result, dict):
        return result["model_out"], result["model_in"]
    return result if isinstance(result, tuple) else (result, x)


@pytest.mark.parametrize("name", TARGETS)
def test_same_seed_same_state(name):
    ours, theirs, sizes, options = TARGETS[name]
    torch.manual_seed(11)
    expected = theirs(*sizes, **options).state_dict()
    after = torch.rand(3)
    torch.manual_seed(11)
    found = ours(*sizes, **options).state_dict()
    assert torch.equal(torch.rand(3), after)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("name", TARGETS)
def test_values_and_derivatives(name, backend):
    results = []
    for net in pair(name):
        x = oracle.uniform(1, 6, 2).requires_grad_()
        y, coords = call(net, x)
        g = plain.gradient(y.square(), coords)
        second = plain.laplace(y, coords)
        bars = [oracle.normal(*t.shape, seed=i) for i, t in enumerate((y, g, second))]
        loss = sum((t * bar).sum() for t, bar in zip((y, g, second), bars, strict=True))
        results.append([y, g, second, *torch.autograd.grad(loss, [coords, *net.parameters()])])
        # Only where coordinates are taken as they are does a gradient reach the caller's tensor.
        reached = torch.autograd.grad(call(net, x)[0].sum(), x, allow_unused=True)[0] is not None
        assert reached is (coords is x)
        assert coords.is_leaf
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert oracle.relative_error(ours, theirs) <= 1e-10


@pytest.mark.parametrize("name", TARGETS)
def test_kinds_of_results(name):
    # The official layers make [1, O] of a single point [D].
    for shape in ((4, 2), (2, 3, 2), *([] if name == "official" else [(2,)])):
        x = torch.rand(shape)
        ours, theirs = (call(net, x) for net in pair(name, torch.float32))
        assert [t.shape for t in ours] == [t.shape for t in theirs]
        assert ours[0].is_contiguous() and torch.allclose(ours[0], theirs[0], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in TARGETS if "options" not in name and name != "coin"])
def test_operators_take_them(name):
    ours, theirs = pair(name)
    x = oracle.uniform(6, 2).requires_grad_()
    _, jacobian, laplacian = fastsiren.laplacian(ours, x)
    y, coords = call(theirs, x)
    expected = torch.stack([plain.laplace(y[..., i : i + 1], coords)[..., 0] for i in range(3)], -1)
    assert oracle.relative_error(laplacian, expected) <= 1e-10
    assert oracle.relative_error(jacobian, plain.jacobian(y, coords)[0]) <= 1e-10
    assert fastsiren.losses.value_mse(ours, x, y.detach()) <= 1e-20


@pytest.mark.parametrize("name", TARGETS)
def test_copies_are_apart(name):
    net, _ = pair(name)
    x = oracle.uniform(4, 2)
    twin = copy.deepcopy(net)
    for other in (twin, pickle.loads(pickle.dumps(net))):  # noqa: S301
        assert torch.equal(call(other, x)[0], call(net, x)[0])
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert not torch.equal(call(twin, x)[0], call(net, x)[0])


@pytest.mark.parametrize("name", ["colab", "official", "lucidrains", "coin", "coinpp", "dalmia", "metasdf"])
def test_hooks_that_would_not_run_are_refused(name):
    net, _ = pair(name)
    inner = [module for module in net.modules() if isinstance(module, (nn.Linear, lucidrains.Siren))][1]
    handle = inner.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="has hooks"):
        call(net, torch.rand(3, 2).double())
    handle.remove()
    assert call(net, torch.rand(3, 2).double())[0].shape == (3, 3)
    seen = []
    net.register_forward_hook(lambda *_: seen.append(1))
    call(net, torch.rand(3, 2).double())
    assert seen == [1]


def test_notebook_activations():
    ours, theirs = pair("colab")
    x = oracle.uniform(1, 5, 2)
    found, expected = ours.forward_with_activations(x, retain_grad=True), plain.activations(theirs, x)
    assert [key.split("_")[-1] for key in found] == [key.split("_")[-1] for key in expected]
    assert all(name in key for name, key in zip(("input", *["SineLayer"] * 6, "Linear"), found, strict=True))
    for a, b in zip(found.values(), expected.values(), strict=True):
        assert oracle.relative_error(a, b) <= 1e-12
    list(found.values())[-1].sum().backward()
    assert all(tensor.grad is not None for tensor in found.values())


def test_official_activations():
    net, _ = pair("official")
    x = oracle.uniform(1, 5, 2)
    found = net.forward_with_activations({"coords": x})
    assert isinstance(found["model_out"], tuple) and found["model_out"][0].endswith("BatchLinear'>_3")
    assert oracle.relative_error(found["model_out"][1], net({"coords": x})["model_out"]) <= 1e-12
    kinds = [key.rsplit(".", 1)[-1] for key in found["activations"]]
    assert kinds == ["input", *(f"{kind}'>_{i}" for i in range(3) for kind in ("BatchLinear", "Sine"))]


def test_notebook_sine_layer():
    layer = colab.SineLayer(2, 5, is_first=True, omega_0=12)
    assert (layer.omega_0, layer.is_first, layer.in_features, layer.linear.out_features) == (12, True, 2, 5)
    x = torch.rand(3, 2)
    sine, argument = layer.forward_with_intermediate(x)
    assert torch.equal(sine, layer(x)) and torch.allclose(argument, 12 * layer.linear(x))
    assert layer.linear.weight.abs().max() <= 1 / 2


def test_grid_of_the_notebook():
    grid = colab.get_mgrid(3, 2)
    assert torch.equal(grid, torch.tensor([[a, b] for a in (-1.0, 0.0, 1.0) for b in (-1.0, 0.0, 1.0)]))
    assert colab.get_mgrid(2, 3).shape == (8, 3)


def test_an_omega_changed_later_counts():
    net, _ = pair("colab")
    net.net[1].omega_0 = 7.0
    x = oracle.uniform(4, 2)
    assert oracle.relative_error(net(x)[0], net.net(x)) <= 1e-12
    net.net[1].omega_0 = nn.Parameter(torch.tensor(7.0))
    with pytest.raises(TypeError, match="omega: got"):
        net(x)


@pytest.mark.parametrize("scale_req_grad", [False, True])
def test_finer_is_plain_and_has_both_conventions(scale_req_grad):
    nets = []
    for make in (finer.Finer, plain.Finer):
        torch.manual_seed(3)
        nets.append(make(2, 8, 1, 1, 20, 10.0, False, 5.0, scale_req_grad).double())
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))
    x = oracle.uniform(5, 2).requires_grad_()
    gradients = [torch.autograd.grad(net(x).sum(), [x, *net.parameters()]) for net in nets]
    assert all(oracle.relative_error(a, b) <= 1e-12 for a, b in zip(*gradients, strict=True))
    with pytest.raises(TypeError, match="siren_parameters"):
        fastsiren.laplacian(nets[0], x)


def test_half_precision_on_cpus():
    net = coin.Siren(2, 8, 3, 2)
    x = torch.rand(5, 2)
    expected = net(x)
    assert torch.allclose(net.half()(x.half()).float(), expected, atol=0.05)


def test_wire_takes_all_arguments_by_position():
    net = wire.INR(2, 8, 1, 3, True, 30, 30.0, 10.0, False, 512, None, True)
    assert net(torch.rand(1, 5, 2)).shape == (1, 5, 3)
    torch.manual_seed(0)
    expected = nn.Linear(2, 5).weight
    torch.manual_seed(0)
    assert torch.equal(wire.SineLayer(2, 5, init_weights=False).linear.weight, expected)


def test_dropout_in_training_runs_layer_by_layer():
    nets = []
    for make in (lucidrains.SirenNet, plain.SirenNet):
        torch.manual_seed(2)
        nets.append(make(2, 16, 3, 2, dropout=0.5))
    x, outputs = torch.rand(6, 2), []
    for net in nets:
        torch.manual_seed(4)
        outputs.append(net(x))
    assert torch.allclose(*outputs, atol=1e-6) and not torch.allclose(outputs[0], nets[0](x))
    with pytest.raises(RuntimeError, match="dropout: is active"):
        fastsiren.laplacian(nets[0], x)
    assert torch.allclose(nets[0].eval()(x), nets[1].eval()(x), atol=1e-5)


def test_layers_of_dalmia_are_a_list():
    net = dalmia.SIREN([8], 2, 1)
    assert isinstance(net.layers, list) and len(net.layers) == 3


def test_coinpp_starts_with_the_scale_of_the_original():
    for identity, expected in ((False, 1.0), (True, 0.0)):
        net = coinpp.ModulatedSiren(2, 8, 3, 3, modulate_scale=True, identity_scale=identity)
        bias = net.modulation_net.bias
        assert bias.shape == (32,) and (bias[:16] == expected).all() and (bias[16:] == 0).all()
