"""The official repository beyond its sine network: other types, features in front, jitter, hypernetworks' draws."""

import math
import pickle

import pytest
import torch
from torch import nn

import fastsiren
import oracle
from fastsiren.dropin import official

ACTIVATIONS = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "selu": torch.selu,
    "softplus": nn.functional.softplus,
    "elu": nn.functional.elu,
}
# Standard deviation of the weights of an n x n layer, times sqrt(n).
DEVIATIONS = {
    "relu": math.sqrt(2),
    "sigmoid": 1.0,
    "tanh": 1.0,
    "selu": 1.0,
    "softplus": math.sqrt(2),
    "elu": math.sqrt(1.5505188080679277),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_other_types_are_plain_networks(kind):
    net = official.SingleBVPNet(3, kind, hidden_features=64, num_hidden_layers=1, final_layer_factor=2).double()
    x = oracle.uniform(2, 5, 2)
    h = x
    for layer in net.net.net[:-1]:
        h = ACTIVATIONS[kind](h @ layer[0].weight.mT + layer[0].bias)
    last = net.net.net[-1]
    assert len(last) == 1
    expected = h @ last[0].weight.mT + last[0].bias
    found = net({"coords": x})
    assert oracle.relative_error(found["model_out"], expected) <= 1e-12
    params = {name: p.detach().expand(2, *p.shape) for name, p in net.named_parameters()}
    assert oracle.relative_error(net({"coords": x}, params=params)["model_out"], expected) <= 1e-12
    assert abs(net.net.net[1][0].weight.std() * 8 / DEVIATIONS[kind] - 1) <= 0.1
    loaded = pickle.loads(pickle.dumps(net))  # noqa: S301
    assert torch.equal(loaded({"coords": x})["model_out"], found["model_out"])
    with pytest.raises(TypeError, match="operators serve SIRENs only"):
        fastsiren.laplacian(net, x)


def test_first_layer_alone_has_the_rule_of_first_layers():
    net = official.FCBlock(2, 1, 2, 8, outermost_linear=False, nonlinearity="sine")
    assert len({id(layer[1]) for layer in net.net}) == 1 and len(net.net) == 4
    assert 0.4 < net.net[0][0].weight.abs().max() <= 0.5
    assert all(layer[0].weight.abs().max() <= math.sqrt(6 / 8) / 30 for layer in net.net[1:])
    x = torch.rand(1, 4, 2)
    assert torch.allclose(net(x, ignored=1), net.net(x), atol=1e-5) and net(x).abs().max() <= 1
    drawn = official.FCBlock(2, 1, 1, 8, nonlinearity="sine", weight_init=lambda module: None)
    assert drawn.net[1][0].weight.abs().max() > math.sqrt(6 / 8) / 30
    with pytest.raises(ValueError, match="nonlinearity: got 'gelu', expected one of 'sine', 'relu'"):
        official.FCBlock(2, 1, 1, 8, nonlinearity="gelu")


def test_pinnet():
    net = official.PINNet(out_features=2)
    linears = [module for module in net.modules() if isinstance(module, nn.Linear)]
    assert [linear.weight.shape[0] for linear in linears] == [20] * 9 + [2]
    weights = torch.cat([linear.weight.flatten() for linear in linears[1:-1]])
    deviation = math.sqrt(2 / 40)
    assert weights.abs().max() <= 2 * deviation and weights.abs().max() > 1.9 * deviation
    assert abs(weights.std() / deviation - 0.88) <= 0.05
    x = torch.rand(1, 5, 2)
    result, h = net({"coords": x}), x
    for linear in linears[:-1]:
        h = torch.tanh(linear(h))
    assert torch.allclose(result["model_out"], linears[-1](h), atol=1e-6) and result["model_in"].requires_grad
    sine = official.PINNet(type="sine").double()
    assert fastsiren.laplacian(sine, oracle.uniform(3, 2)).laplacian.shape == (3, 1)


def test_radial_features():
    net = official.SingleBVPNet(mode="rbf", type="relu", hidden_features=8, num_hidden_layers=0, rbf_centers=6)
    assert [key for key in net.state_dict() if "rbf" in key] == [
        "rbf_layer.centres",
        "rbf_layer.sigmas",
        "rbf_layer.freq",
    ]
    layer = net.rbf_layer
    assert (
        layer.centres.abs().max() <= 1
        and (layer.sigmas == 10).all()
        and torch.allclose(layer.freq, torch.tensor(math.pi))
    )
    x = torch.rand(1, 4, 2)
    features = torch.stack([torch.exp(-((10 * (x[0] - c).square().sum(-1)) ** 2)) for c in layer.centres], -1)[None]
    assert torch.allclose(layer(x), features, atol=1e-6)
    assert torch.allclose(net({"coords": x})["model_out"], net.net(features), atol=1e-6)
    with pytest.raises(TypeError, match="mode: got 'rbf'"):
        fastsiren.laplacian(net, x)


POSITIONAL = [
    (1, {"fn_samples": 64}, 4),
    (2, {"sidelength": (32, 64)}, 3),
    (2, {"sidelength": 64, "use_nyquist": False}, 4),
    (3, {}, 10),
]


@pytest.mark.parametrize(("inputs", "options", "frequencies"), POSITIONAL)
def test_positional_features(inputs, options, frequencies):
    sizes = {"in_features": inputs, "hidden_features": 4, "num_hidden_layers": 0}
    net = official.SingleBVPNet(mode="nerf", type="relu", **sizes, **options)
    x = oracle.uniform(2, 3, inputs)
    columns = [x[..., j] for j in range(inputs)]
    for i in range(frequencies):
        for j in range(inputs):
            columns += [torch.sin(2**i * math.pi * x[..., j]), torch.cos(2**i * math.pi * x[..., j])]
    expected = torch.stack(columns, -1)
    assert net.positional_encoding.out_dim == expected.shape[-1]
    assert torch.allclose(net.positional_encoding(x), expected, atol=1e-10)
    assert net.float()({"coords": x.float()})["model_out"].shape == (2, 3, 1)
    with pytest.raises(AssertionError, match="expected the number of samples per axis"):
        official.SingleBVPNet(mode="nerf", in_features=2)


def test_jitter():
    net = official.SingleBVPNet(hidden_features=8, num_hidden_layers=0, sidelength=(4, 10), downsample=True)
    assert not [key for key in net.state_dict() if "downsampling" in key]
    x = torch.zeros(1, 2000, 2)
    result = net({"coords": x})
    assert torch.equal(result["model_in"], x) and result["model_out"].std() > 0
    offsets = net.image_downsampling(x)[0] * torch.tensor([4.0, 10.0])
    # The density of a bilinear filter is a triangle, whose variance is 1/6.
    assert 0.9 < offsets.abs().max() < 1 and (offsets.var(0) * 6 - 1).abs().max() < 0.15
    assert torch.equal(official.SingleBVPNet(hidden_features=8, sidelength=4).image_downsampling(x), x)
    with pytest.raises(AssertionError, match="sidelength: got None with downsample=True"):
        official.SingleBVPNet(downsample=True)


def test_draws_of_a_hypernetwork():
    hypo = official.SingleBVPNet(hidden_features=6, num_hidden_layers=0)
    shapes = [(6, 2), (6,), (1, 6), (1,)]
    torch.manual_seed(2)
    found = official.HyperNetwork(5, 1, 7, hypo)
    torch.manual_seed(2)
    expected = []
    for shape in shapes:
        linears = [nn.Linear(5, 7), nn.Linear(7, 7), nn.Linear(7, math.prod(shape))]
        for linear in [*linears, linears[-1]]:
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        with torch.no_grad():
            linears[-1].weight.div_(100)
            bound = 1 / (shape[-1] if len(shape) == 2 else 7)
            linears[-1].bias.uniform_(-bound, bound)
        expected += [tensor for linear in linears for tensor in (linear.weight, linear.bias)]
    assert [tuple(shape) for shape in found.param_shapes] == shapes
    assert list(found.state_dict())[:2] == ["nets.0.net.0.0.weight", "nets.0.net.0.0.bias"]
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected, strict=True))


def test_draws_of_a_set_encoder():
    torch.manual_seed(2)
    found = official.SetEncoder(3, 4, 1, 5, nonlinearity="sine").state_dict()
    torch.manual_seed(2)
    linears = [nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 4)]
    for linear in linears:
        with torch.no_grad():
            bound = math.sqrt(6 / linear.in_features) / 30
            linear.weight.uniform_(-bound, bound)
    assert [key for key in found if key.endswith("weight")] == ["net.0.weight", "net.2.0.weight", "net.3.weight"]
    expected = [tensor for linear in linears for tensor in (linear.weight, linear.bias)]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))
    with pytest.raises(AssertionError, match="nonlinearity: got 'tanh'"):
        official.SetEncoder(3, 4, 1, 5, nonlinearity="tanh")


def test_draws_of_an_image_encoder():
    torch.manual_seed(2)
    found = official.ConvImgEncoder(1, 32).state_dict()
    torch.manual_seed(2)
    expected = [nn.Conv2d(1, 128, 3, 1, 1), nn.Conv2d(128, 256, 3, 1, 1)]
    expected += [nn.Conv2d(256, 256, 5, 1, 2) for _ in range(8)] + [nn.Conv2d(256, 256, 1), nn.Linear(1024, 1)]
    assert list(found)[2:5] == ["cnn.0.weight", "cnn.0.bias", "cnn.2.convs.0.weight"]
    tensors = [tensor for module in expected for tensor in (module.weight, module.bias)]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), tensors, strict=True))
