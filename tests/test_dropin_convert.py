"""convert(): users' own classes on the fused engine, same parameters, same calls; refusals with a reason."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fastsiren
import oracle
from clients import plain
from clients.plain_pigan import TallSiren
from fastsiren.dropin import colab, diff_operators
from fastsiren.engine import ops


class PlainSequential(nn.Sequential):
    def __init__(self):
        hidden = [nn.Linear(8, 7), nn.Identity(), plain.Sine30()]
        super().__init__(nn.Linear(2, 8), plain.Sine(9.0), *hidden, nn.Linear(7, 3))


class LightField(nn.Module):
    """Layers in a ModuleList, with FiLM."""

    def __init__(self):
        super().__init__()
        last = nn.Linear(8, 3)
        self.net = nn.ModuleList([plain.SineLayer(2, 8, is_first=True), plain.SineLayer(8, 8, omega_0=7), last])

    def forward(self, coords, params=None):
        for layer in self.net:
            coords = layer(coords)
        return coords

    def forward_with_film(self, coords, film):
        for layer, entry in zip(self.net[:-1], film):
            coords = layer.forward_with_film(coords, **entry)
        return self.net[-1](coords)


class I3d(nn.Module):
    """Detaches by itself, returns a dict."""

    def __init__(self):
        super().__init__()
        pairs = [nn.Sequential(nn.Linear(n, 8), plain.Sine(12)) for n in (2, 8)]
        self.net = nn.Sequential(*pairs, nn.Sequential(nn.Linear(8, 3)))

    def forward(self, x, preserve_grad=False):
        coords = x if preserve_grad else x.clone().detach().requires_grad_(True)
        return {"model_in": coords, "model_out": self.net(coords)}


USERS = {
    "colab": lambda: plain.Colab(2, 8, 2, 3, outermost_linear=True),
    "colab sine": lambda: plain.Colab(2, 8, 2, 3, first_omega_0=20, hidden_omega_0=10.0),
    "wire": lambda: plain.Wire(2, 8, 2, 3),
    "finer siren": lambda: plain.FinerSiren(2, 8, 2, 3, bias=False),
    "metasdf": lambda: plain.MetaSdf(2, 8, 2, 3, outermost_linear=True),
    "light field": LightField,
    "official": lambda: plain.SingleBVPNet(3, hidden_features=8, num_hidden_layers=2),
    "fcblock": lambda: plain.FCBlock(2, 3, 2, 8),
    "i3d": I3d,
    "lucidrains": lambda: plain.SirenNet(2, 8, 3, 3),
    "dalmia": lambda: plain.Dalmia([8, 5], 2, 3),
    "coin": lambda: plain.Coin(2, 8, 3, 3, w0=20.0),
    "coinpp": lambda: plain.CoinPP(2, 8, 3, 3),
    "modulated": lambda: plain.ModulatedCoinPP(2, 8, 3, 3),
    "sequential": PlainSequential,
}


def make(name):
    torch.manual_seed(5)
    return USERS[name]().double()


def call(net, x):
    """Output, and the coordinates to differentiate by."""
    result = net({"coords": x} if isinstance(net, plain.SingleBVPNet) else x)
    if isinstance(result, dict):
        return result["model_out"], result["model_in"]
    return result if isinstance(result, tuple) else (result, x)


@pytest.fixture
def passes(monkeypatch):
    """Names of the passes that ran."""
    names, original = [], ops._run

    def run(which, *args):
        names.append(which.name)
        return original(which, *args)

    monkeypatch.setattr(ops, "_run", run)
    return names


@pytest.mark.parametrize("name", USERS)
def test_same_module_in_one_pass(name, passes):
    net = make(name)
    fast = fastsiren.convert(net)
    assert isinstance(fast, type(net)) and repr(fast).split("(")[0] == repr(net).split("(")[0]
    assert list(fast.state_dict()) == list(net.state_dict())
    assert all(a is b for a, b in zip(fast.parameters(), net.parameters(), strict=True))
    found = []
    for module, count in ((fast, ["value_fwd"]), (net, [])):
        passes.clear()
        x = oracle.uniform(1, 6, 2).requires_grad_()
        y, coords = call(module, x)
        assert passes == count
        found.append([y, diff_operators.gradient(y.square(), coords), diff_operators.laplace(y, coords)])
        total = sum(t.square().sum() for t in found[-1])
        found[-1] += torch.autograd.grad(total, list(net.parameters()), allow_unused=True)
        assert (coords is x) is (name not in ("colab", "colab sine", "official", "i3d"))
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None and theirs is None) or oracle.relative_error(ours, theirs) <= 1e-10


@pytest.mark.parametrize("name", USERS)
def test_operators_take_it(name):
    net = make(name)
    x = oracle.uniform(5, 2).requires_grad_()
    found = fastsiren.laplacian(fastsiren.convert(net), x)
    y, coords = call(net, x[None])
    assert oracle.relative_error(found.value, y[0]) <= 1e-10
    assert oracle.relative_error(found.laplacian.sum(-1, keepdim=True), plain.laplace(y, coords)[0]) <= 1e-10
    with pytest.raises(TypeError, match="siren_parameters"):
        fastsiren.laplacian(net, x)


@pytest.mark.parametrize("name", USERS)
def test_copies_and_files(name):
    fast, x = fastsiren.convert(make(name)), oracle.uniform(1, 5, 2)
    expected = call(fast, x)[0]
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        next(fast.parameters()).mul_(2)
    assert torch.equal(call(twin, x)[0], expected) and not torch.equal(call(fast, x)[0], expected)
    assert all(a is not b for a, b in zip(twin.parameters(), fast.parameters(), strict=True))
    loaded = pickle.loads(pickle.dumps(twin))  # noqa: S301
    assert type(loaded) is type(fast) and torch.equal(call(loaded, x)[0], expected)
    fast.load_state_dict(twin.state_dict())
    assert torch.equal(call(fast, x)[0], expected)


def test_training_the_converted_module_trains_the_original():
    net = make("official")
    fast = fastsiren.convert(net)
    x, target = oracle.uniform(1, 9, 2), oracle.uniform(1, 9, 3, seed=2)
    optimizer = torch.optim.SGD(fast.parameters(), lr=1e-2)
    first = None
    for _ in range(3):
        loss = (fast({"coords": x})["model_out"] - target).square().mean()
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net({"coords": x})["model_out"] - target).square().mean() < first


def test_parameters_of_somebody_else_and_modulations():
    for name in ("official", "fcblock"):
        net = make(name)
        fast, x = fastsiren.convert(net), oracle.uniform(3, 5, 2)
        params = {key: p.detach() + 0.01 * oracle.normal(3, *p.shape) for key, p in net.named_parameters()}
        given = {"coords": x} if name == "official" else x
        ours, theirs = (module(given, params=params) for module in (fast, net))
        ours, theirs = (r["model_out"] if isinstance(r, dict) else r for r in (ours, theirs))
        assert oracle.relative_error(ours, theirs) <= 1e-10
    net, x = make("light field"), oracle.uniform(2, 5, 2)
    film = [{"gamma": oracle.normal(2, 1, 8, seed=i), "beta": oracle.normal(2, 1, 8, seed=9 + i)} for i in range(2)]
    fast = fastsiren.convert(net)
    assert oracle.relative_error(fast.forward_with_film(x, film), net.forward_with_film(x, film)) <= 1e-10
    net, latent = make("modulated"), oracle.normal(2, 16)
    fast = fastsiren.convert(net)
    assert oracle.relative_error(fast.modulated_forward(x, latent), net.modulated_forward(x, latent)) <= 1e-10
    net, mods = make("lucidrains"), tuple(oracle.normal(8, seed=i) for i in range(3))
    assert oracle.relative_error(fastsiren.convert(net)(x, mods), net(x, mods)) <= 1e-10


def test_pigan(passes):
    torch.manual_seed(5)
    net = TallSiren(3, 7, 8).double()
    fast = fastsiren.convert(net)
    passes.clear()
    given = oracle.uniform(2, 5, 3), oracle.normal(2, 7), oracle.uniform(2, 5, 3, seed=1)
    assert oracle.relative_error(fast(*given), net(*given)) <= 1e-10
    assert passes == ["value_fwd"]


class Larger(nn.Module):
    """A SIREN between other layers, and another one twice."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 2)
        self.field = plain.Coin(2, 8, 3, 2)
        self.heads = nn.ModuleDict({"a": plain.Wire(3, 8, 1, 1)})
        self.again = self.heads["a"]

    def forward(self, x):
        h = self.field(torch.tanh(self.encode(x)))
        return self.heads["a"](h) + 2 * self.again(h)


def test_inside_a_larger_model(passes):
    torch.manual_seed(5)
    net = Larger().double()
    fast, x = fastsiren.convert(net), oracle.uniform(6, 4)
    passes.clear()
    assert oracle.relative_error(fast(x), net(x)) <= 1e-10 and passes == ["value_fwd"] * 3
    assert type(fast) is Larger and fast.again is fast.heads["a"] and fast.encode is net.encode
    assert list(fast.state_dict()) == list(net.state_dict())
    assert type(net.field) is plain.Coin and not hasattr(net.field, "siren_parameters")


def test_frequencies_are_read_anew():
    for name in ("colab", "coin", "sequential"):
        net = make(name)
        fast, x = fastsiren.convert(net), oracle.uniform(1, 5, 2)
        layer = net.get_submodule({"colab": "net.0", "coin": "net.0.activation", "sequential": "1"}[name])
        setattr(layer, "omega_0" if name == "colab" else "w0", 3.0)
        assert oracle.relative_error(call(fast, x)[0], call(net, x)[0]) <= 1e-12


def test_one_layer_used_twice_with_two_frequencies():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Linear(2, 4), plain.Sine(9), shared, plain.Sine(5), shared, plain.Sine(7), nn.Linear(4, 1))
    net = net.double()
    fast, x = fastsiren.convert(net), oracle.uniform(5, 2)
    gradients = [torch.autograd.grad(module(x).square().sum(), list(net.parameters())) for module in (fast, net)]
    assert all(oracle.relative_error(a, b) <= 1e-10 for a, b in zip(*gradients, strict=True))


def test_a_changed_chain_is_an_error():
    for change in (lambda m: m.append(nn.ReLU()), lambda m: m.__setitem__(1, nn.Tanh()), lambda m: m.__delitem__(0)):
        fast = fastsiren.convert(make("sequential"))
        change(fast)
        with pytest.raises(RuntimeError, match="were changed; convert the original again"):
            fast(oracle.uniform(5, 2))
    fast = fastsiren.convert(make("sequential"))
    fast[0] = nn.Linear(2, 8).double()
    assert oracle.relative_error(fast(oracle.uniform(5, 2)), nn.Sequential(*fast)(oracle.uniform(5, 2))) <= 1e-12


def test_ours_are_handed_back():
    for net in (fastsiren.Siren(2, 8, 1, 1), colab.Siren(2, 8, 1, 1), fastsiren.convert(make("coin"))):
        assert fastsiren.convert(net) is net


class Skipping(plain.Coin):
    """Adds something that the layers do not show."""

    def forward(self, x):
        return self.last_layer(self.net(x)) + x.sum(-1, keepdim=True)


def changed(name, change):
    net = make(name)
    change(net)
    return net


def sines(*modules):
    return nn.Sequential(nn.Linear(2, 8), plain.Sine(9), *modules, nn.Linear(8, 1))


class Odd(nn.Module):
    def forward(self, x):
        return torch.sin(12.3456 * x)


REFUSED = {
    "finer": (lambda: plain.Finer(2, 8, 1, 1), "Finer.net: its forward has other values than a SIREN"),
    "other activation": (lambda: sines(nn.Linear(8, 8), nn.ReLU()), r"Sequential: 3 \(ReLU\) is neither"),
    "dropout": (lambda: sines(nn.Dropout(0.1)), r"2 \(Dropout\) is neither"),
    "active dropout": (lambda: plain.SirenNet(2, 8, 3, 2, dropout=0.1), "dropout is active, .* call eval"),
    "no activation": (lambda: sines(nn.Linear(8, 8)), "a linear layer without a sine stands before the last"),
    "hooks": (
        lambda: changed("wire", lambda net: net.net[1].register_forward_hook(print)), "Wire.net: 1 has hooks",
    ),
    "hooks of coin": (
        lambda: changed("coin", lambda net: net.net[1].linear.register_forward_pre_hook(print)), "linear has hooks",
    ),
    "frequency": (lambda: nn.Sequential(nn.Linear(2, 8), Odd(), nn.Linear(8, 1)), "a sine of frequency 12.34"),
    "meta": (lambda: plain.Wire(2, 8, 1, 1).to("meta"), "meta device"),
    "nothing": (lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU()), "no chain of linear layers and sines"),
    "no layers": (nn.Identity, "no chain of linear layers and sines"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "match"), REFUSED.values(), ids=REFUSED)
def test_refusals(build, match):
    with pytest.raises(ValueError, match=match):
        fastsiren.convert(build())


def test_what_stays_is_said():
    model = nn.ModuleDict({"good": plain.Wire(2, 8, 1, 1), "bad": plain.Finer(2, 8, 1, 1)})
    with pytest.warns(UserWarning, match="not evaluated as a whole: ModuleDict.bad.net: its forward has other"):
        fast = fastsiren.convert(model)
    assert hasattr(fast["good"], "siren_parameters") and fast["bad"] is model["bad"]


def test_a_forward_that_does_more_keeps_doing_it():
    net = Skipping(2, 8, 3, 2).double()
    with pytest.warns(UserWarning, match="Skipping: its forward has other values than a SIREN of its layers"):
        fast = fastsiren.convert(net)
    x = oracle.uniform(5, 2)
    assert oracle.relative_error(fast(x), net(x)) <= 1e-12
    assert not hasattr(fast, "siren_parameters") and hasattr(fast.net, "siren_parameters")


def test_under_no_grad_and_in_half_precision():
    with torch.no_grad():
        fast = fastsiren.convert(make("coin"))
    assert fast(oracle.uniform(5, 2)).requires_grad
    half = fastsiren.convert(plain.Coin(2, 8, 3, 2).half())
    assert half(torch.rand(5, 2).half()).dtype == torch.float16
