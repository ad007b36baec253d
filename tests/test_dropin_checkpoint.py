"""State dicts from one code to another: the same function behind other keys, and refusals of what does not fit."""

import warnings

import pytest
import torch
from torch import nn

import fastsiren
import oracle
from fastsiren.dropin import checkpoint, coin, coinpp, colab, dalmia, finer, lucidrains, metasdf, official, wire
from fastsiren.dropin.checkpoint import LAYOUTS, flatten, remap, unflatten

OMEGAS = (21.0, 9.0)


def official_net(first, hidden):
    return official.SingleBVPNet(3, hidden_features=8, num_hidden_layers=2)


# A network of 2 -> 8 -> 8 -> 8 -> 3 for omegas, as its class takes them.
NETWORKS = {
    "fastsiren": lambda f, h: fastsiren.Siren(2, 8, 2, 3, first_omega_0=f, hidden_omega_0=h),
    "colab": lambda f, h: colab.Siren(2, 8, 2, 3, True, f, h),
    "wire": lambda f, h: wire.INR(2, 8, 2, 3, True, f, h),
    "metasdf": lambda f, h: metasdf.Siren(2, 8, 2, 3, True, f, h),
    "finer": lambda f, h: finer.Siren(2, 8, 2, 3, f, h),
    "official": official_net,
    "fcblock": lambda f, h: official_net(f, h).net,
    "lucidrains": lambda f, h: lucidrains.SirenNet(2, 8, 3, 3, h, f),
    "dalmia": lambda f, h: dalmia.SIREN([8, 8, 8], 2, 3, h, f),
    "coin": lambda f, h: coin.Siren(2, 8, 3, 3, h, f),
    "coinpp": lambda f, h: coinpp.Siren(2, 8, 3, 4, h, f),
}


def value(net, x):
    result = net({"coords": x}) if isinstance(net, official.SingleBVPNet) else net(x)
    if isinstance(result, dict):
        return result["model_out"]
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("source", NETWORKS)
@pytest.mark.parametrize("to", NETWORKS)
def test_same_function_behind_other_keys(source, to):
    before = (30.0, 30.0) if LAYOUTS[source].fixed else OMEGAS
    after = (30.0, 30.0) if LAYOUTS[to].fixed else before
    net, x = NETWORKS[source](*before).double(), oracle.uniform(5, 2)
    state = remap(net.state_dict(), to, source, before)
    twin = NETWORKS[to](*after).double()
    twin.load_state_dict(state)
    assert oracle.relative_error(value(twin, x), value(net, x)) <= 1e-12
    if before == after and LAYOUTS[source].offset == LAYOUTS[to].offset:
        assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values(), strict=True))


@pytest.mark.parametrize("to", [name for name in NETWORKS if not LAYOUTS[name].fixed])
def test_other_omegas(to):
    net, x = NETWORKS["fastsiren"](*OMEGAS).double(), oracle.uniform(5, 2)
    state = remap(net.state_dict(), to, omegas=OMEGAS, new_omegas=(1.0, -3.0))
    twin = NETWORKS[to](1.0, 3.0).double()
    twin.load_state_dict(state)
    assert oracle.relative_error(value(twin, x), value(net, x)) > 0.1
    state = remap(net.state_dict(), to, omegas=OMEGAS, new_omegas=(1.0, 3.0))
    twin.load_state_dict(state)
    assert oracle.relative_error(value(twin, x), value(net, x)) <= 1e-12


def test_a_last_sine_layer():
    net = fastsiren.Siren(2, 8, 1, 3, outermost_linear=False, first_omega_0=21, hidden_omega_0=9).double()
    twin, x = colab.Siren(2, 8, 1, 3, first_omega_0=2, hidden_omega_0=4).double(), oracle.uniform(5, 2)
    twin.load_state_dict(remap(net.state_dict(), "colab", omegas=OMEGAS, new_omegas=(2.0, 4.0)))
    assert oracle.relative_error(value(twin, x), net(x)) <= 1e-12


def test_networks_without_biases():
    net, x = coin.Siren(2, 8, 3, 2, use_bias=False).double(), oracle.uniform(5, 2)
    state = remap(net.state_dict(), "lucidrains", "coin", (30.0, 30.0))
    twin = lucidrains.SirenNet(2, 8, 3, 2, 30.0, use_bias=False).double()
    twin.load_state_dict(state)
    assert oracle.relative_error(twin(x), net(x)) <= 1e-12
    with pytest.raises(ValueError, match=r"to: got 'colab' with biases in layers \[0, 1, 2\]"):
        remap(net.state_dict(), "colab", "coin", (30.0, 30.0))
    with pytest.raises(ValueError, match=r"expected one to take up the \+0.5"):
        remap(net.state_dict(), "coin", "coinpp", (30.0, 30.0))
    first = finer.Siren(2, 8, 1, 3, bias=False)
    assert list(remap(first.state_dict(), "finer", omegas=OMEGAS)) == list(first.state_dict())
    with pytest.raises(ValueError, match=r"to: got 'wire' with biases in layers \[0\]"):
        remap(first.state_dict(), "wire", omegas=OMEGAS)


def test_other_layouts_by_name():
    net = fastsiren.Siren(2, 8, 1, 3)
    state = net.state_dict()
    keys = {
        "i3d": "net.2.0.bias",
        "gradncp": "layers.2.linear.bias",
        "physicsnemo": "layers.2.linear.bias",
        "light-fields": "net.2.bias",
    }
    for name, key in keys.items():
        there = remap(state, name, omegas=OMEGAS)
        assert list(there)[-1] == key
        assert torch.allclose(there[key], state["net.2.bias"] - 0.5 * (name == "gradncp"))
        back = remap(there, "fastsiren", name, OMEGAS)
        assert list(back) == list(state) and all(torch.allclose(back[key], state[key]) for key in state)


def test_wrapped_networks_are_read():
    net = lucidrains.SirenNet(2, 8, 3, 2)
    wrapped = lucidrains.SirenWrapper(net, 4, 3).state_dict()
    assert list(remap(wrapped, "lucidrains", omegas=(30.0, 1.0))) == list(net.state_dict())


def test_default_omegas_are_said():
    state = dalmia.SIREN([8, 8], 2, 1).state_dict()
    with pytest.warns(UserWarning, match=r"omegas: took \(30.0, 1.0\), the defaults of 'dalmia'"):
        remap(state, "lucidrains")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remap(official_net(30, 30).state_dict(), "lucidrains")


def test_ambiguous_keys_need_a_name():
    with pytest.raises(ValueError, match="source: got None for keys that fit 'coin' and 'coinpp'"):
        remap(coin.Siren(2, 8, 3, 2).state_dict(), "colab", omegas=OMEGAS)
    state = remap(fastsiren.Siren(2, 8, 1, 3).state_dict(), "gradncp", omegas=OMEGAS)
    with pytest.raises(ValueError, match="fit 'gradncp' and 'physicsnemo'"):
        remap(state, "colab", omegas=OMEGAS)


def test_widths_that_a_class_cannot_have():
    state = dalmia.SIREN([8, 7], 2, 3).state_dict()
    assert next(iter(remap(state, "i3d", omegas=OMEGAS))) == "net.0.0.weight"
    with pytest.raises(ValueError, match=r"to: got 'colab' with one width of sine layers, expected .* \[7, 8\]"):
        remap(state, "colab", omegas=OMEGAS)


@pytest.mark.parametrize("order", ["inr2vec", "fit-a-nef"])
def test_vectors(order):
    net = fastsiren.Siren(2, 5, 1, 3)
    vector = flatten(net.state_dict(), order)
    weight, bias = net.net[0].linear.weight, net.net[0].linear.bias
    start = [*weight.flatten(), *bias] if order == "inr2vec" else [*bias, *weight.t().flatten()]
    assert torch.equal(vector[:15], torch.stack(start))
    if order == "inr2vec":
        assert torch.equal(vector, nn.utils.parameters_to_vector(net.parameters()))
    back = unflatten(vector, (2, 5, 5, 3), order)
    assert list(back) == list(net.state_dict())
    assert all(torch.equal(back[key], tensor) for key, tensor in net.state_dict().items())


def test_every_layout_is_tried_here():
    assert {*NETWORKS, "i3d", "gradncp", "physicsnemo", "light-fields", "lucidrains-wrapper"} == set(checkpoint.LAYOUTS)
