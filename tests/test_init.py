"""Initial weights: seed-exact against independent statements of each scheme, bounds and moments, errors."""

import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fastsiren
from fastsiren.init import SCHEMES, finer, initialize, scheme

WIDTHS = (3, 40, 40, 40, 2)
OMEGA = 20.0


def linears(widths: tuple[int, ...] = WIDTHS, bias: bool = True) -> list[nn.Linear]:
    return [nn.Linear(widths[i], widths[i + 1], bias=bias) for i in range(len(widths) - 1)]


def layerwise(bounds: list[float], bias_bounds: list[float | None]) -> list[Tensor]:
    """Each layer: nn.Linear's own draw, the weight, and the bias where it has a bound."""
    drawn = []
    for i, (bound, bias_bound) in enumerate(zip(bounds, bias_bounds, strict=True)):
        layer = nn.Linear(WIDTHS[i], WIDTHS[i + 1])
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound)
            if bias_bound is not None:
                layer.bias.uniform_(-bias_bound, bias_bound)
        drawn += [layer.weight, layer.bias]
    return drawn


def colab() -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / OMEGA
    return layerwise([1 / 3, hidden, hidden, hidden], [None] * 4)


def metasdf() -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / OMEGA
    return layerwise([1 / 3, hidden, hidden, math.sqrt(6 / 40) / 30], [None] * 4)


def coin() -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / OMEGA
    return layerwise([1 / 3, hidden, hidden, hidden], [1 / 3, hidden, hidden, hidden])


def physicsnemo() -> list[Tensor]:
    hidden, bias = math.sqrt(6 / 40) / OMEGA, math.sqrt(1 / 40)
    return layerwise([1 / 3, hidden, hidden, math.sqrt(6 / 40)], [math.sqrt(1 / 3), bias, bias, bias])


def defaults_then(bounds: list[tuple[int, float]]) -> list[Tensor]:
    """All layers by nn.Linear's own draw, then the weights of the layers named, in that order."""
    layers = linears()
    with torch.no_grad():
        for index, bound in bounds:
            layers[index].weight.uniform_(-bound, bound)
    return [tensor for layer in layers for tensor in (layer.weight, layer.bias)]


def first_twice(divisor: float) -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / divisor
    return defaults_then([(0, math.sqrt(6 / 3) / divisor), (1, hidden), (2, hidden), (3, hidden), (0, 1 / 3)])


def dalmia() -> list[Tensor]:
    hidden = math.sqrt(6) / math.sqrt(40)
    return defaults_then([(0, math.sqrt(6) / math.sqrt(3)), (1, hidden), (2, hidden), (3, hidden)])


def i3d() -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / OMEGA
    return defaults_then([(0, 1 / 3), (1, hidden), (2, hidden), (3, hidden)])


def lucidrains() -> list[Tensor]:
    drawn = []
    for i in range(4):
        bound = 1 / 3 if i == 0 else math.sqrt(6 / 40) / OMEGA
        drawn.append(torch.empty(WIDTHS[i + 1], WIDTHS[i]).uniform_(-bound, bound))
        drawn.append(torch.empty(WIDTHS[i + 1]).uniform_(-bound, bound))
    return drawn


def torch_default() -> list[Tensor]:
    return [tensor for layer in linears() for tensor in (layer.weight, layer.bias)]


def finer_five() -> list[Tensor]:
    hidden = math.sqrt(6 / 40) / OMEGA
    return layerwise([1 / 3, hidden, hidden, hidden], [5.0, None, None, None])


EXACT = {
    "siren": colab,
    "colab": colab,
    "finer": colab,
    "metasdf": metasdf,
    "coin": coin,
    "physicsnemo": physicsnemo,
    "official": lambda: first_twice(30),
    "pi-gan": lambda: first_twice(25),
    "dalmia": dalmia,
    "i3d": i3d,
    "lucidrains": lucidrains,
    "torch": torch_default,
}


def state(layers: list[nn.Linear]) -> list[Tensor]:
    return [tensor.detach() for layer in layers for tensor in (layer.weight, layer.bias)]


@pytest.mark.parametrize(
    ("init", "drawn"), [*EXACT.items(), (finer(first_bias_scale=5.0), finer_five)], ids=[*EXACT, "finer, scale 5"]
)
def test_same_seed_same_parameters(init, drawn: Callable[[], list[Tensor]]):
    layers = linears()
    torch.manual_seed(11)
    initialize(layers, init, hidden_omega_0=OMEGA)
    torch.manual_seed(11)
    for ours, theirs in zip(state(layers), drawn(), strict=True):
        assert torch.equal(ours, theirs)


# Bounds of weights (first, hidden, last) and of biases (per layer); None: a normal draw; 0: zero.
FAN = [3, 40, 40, 40]
HIDDEN, LAST = math.sqrt(6 / 40) / OMEGA, math.sqrt(6 / 40)
DEFAULT_BIAS = [1 / math.sqrt(n) for n in FAN]
BOUNDS = {
    "siren": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], DEFAULT_BIAS),
    "colab": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], DEFAULT_BIAS),
    "official": ([1 / 3, LAST / 30, LAST / 30, LAST / 30], DEFAULT_BIAS),
    "metasdf": ([1 / 3, HIDDEN, HIDDEN, LAST / 30], DEFAULT_BIAS),
    "lucidrains": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], [1 / 3, HIDDEN, HIDDEN, HIDDEN]),
    "coin": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], [1 / 3, HIDDEN, HIDDEN, HIDDEN]),
    "dalmia": ([math.sqrt(2), LAST, LAST, LAST], DEFAULT_BIAS),
    "i3d": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], DEFAULT_BIAS),
    "functa": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], [0, 0, 0, 0]),
    "fit-a-nef": ([1 / 3, HIDDEN, HIDDEN, None], [0, 0, 0, 0]),
    "pi-gan": ([1 / 3, LAST / 25, LAST / 25, LAST / 25], DEFAULT_BIAS),
    "physicsnemo": ([1 / 3, HIDDEN, HIDDEN, LAST], DEFAULT_BIAS),
    "tf-siren": ([1 / 3, HIDDEN, HIDDEN, LAST], [math.sqrt(6 / n) for n in WIDTHS[1:]]),
    "finer": ([1 / 3, HIDDEN, HIDDEN, HIDDEN], DEFAULT_BIAS),
    "torch": (DEFAULT_BIAS, DEFAULT_BIAS),
}


def assert_uniform(tensors: list[Tensor], bound: float) -> None:
    """Within the bound and filling it, with the mean and the variance of a uniform draw, to six deviations."""
    sample = torch.cat([tensor.flatten() for tensor in tensors]).double()
    assert sample.abs().max() <= bound * (1 + 1e-6)
    assert sample.abs().max() >= bound * (1 - 20 / len(sample))
    assert abs(sample.mean()) <= 6 * bound / math.sqrt(3 * len(sample))
    assert abs(sample.square().mean() / (bound**2 / 3) - 1) <= 6 * math.sqrt(0.8 / len(sample))


def test_every_scheme_has_its_bounds_here():
    assert list(BOUNDS) == list(SCHEMES)


@pytest.mark.parametrize(("name", "weights", "biases"), [(n, *b) for n, b in BOUNDS.items()], ids=BOUNDS)
def test_bounds_and_moments(name, weights, biases):
    draws = []
    for _ in range(40):
        layers = linears()
        initialize(layers, name, hidden_omega_0=OMEGA)
        draws.append(layers)
    for i, (bound, bias_bound) in enumerate(zip(weights, biases, strict=True)):
        drawn, drawn_biases = [layers[i].weight for layers in draws], [layers[i].bias for layers in draws]
        if bound is None:
            sample = torch.cat(drawn).double()
            assert sample.abs().max() > 2 / math.sqrt(40)
            assert abs(sample.std() * math.sqrt(40) - 1) <= 6 / math.sqrt(2 * sample.numel())
            assert abs(sample.mean()) <= 6 / math.sqrt(40 * sample.numel())
        else:
            assert_uniform(drawn, bound)
        if bias_bound == 0:
            assert all(torch.count_nonzero(bias) == 0 for bias in drawn_biases)
        else:
            assert_uniform(drawn_biases, bias_bound)


def test_a_last_sine_layer_is_drawn_as_a_hidden_one():
    for name in ("metasdf", "physicsnemo", "tf-siren", "fit-a-nef"):
        layers = linears((3, 40, 4000))
        initialize(layers, name, hidden_omega_0=OMEGA, outermost_linear=False)
        assert_uniform([layers[1].weight], HIDDEN)


@pytest.mark.parametrize("name", SCHEMES)
def test_layers_without_bias(name):
    layers = linears(bias=False)
    before = [layer.weight.clone() for layer in layers]
    initialize(layers, name)
    assert all(not torch.equal(layer.weight, old) for layer, old in zip(layers, before, strict=True))


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_serves_the_module(name):
    net = fastsiren.Siren(2, 16, 1, 1, init=name)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert net(torch.rand(5, 2)).isfinite().all()
    torch.manual_seed(3)
    net.reset_parameters()
    assert not torch.equal(net.state_dict()["net.0.linear.weight"], before["net.0.linear.weight"])
    torch.manual_seed(3)
    again = fastsiren.Siren(2, 16, 1, 1, init=name)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_a_scheme_can_be_pickled():
    own = finer(first_bias_scale=2.0)
    assert pickle.loads(pickle.dumps(own)) == own  # noqa: S301
    assert scheme(own) is own
    assert finer() is scheme("finer")
