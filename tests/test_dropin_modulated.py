"""Drop-in networks whose parameters come from elsewhere: modulations, FiLM, dicts of parameters, hypernetworks."""

from functools import partial

import pytest
import torch

import fastsiren
import oracle
from clients import plain
from clients.plain_pigan import TallSiren
from fastsiren import functional
from fastsiren.dropin import coinpp, functa, lucidrains, metasdf, official, pigan


def pair(ours, theirs, *sizes, **options):
    """Our network and the plain one with the same parameters, in float64."""
    made = []
    for make in (ours, theirs):
        torch.manual_seed(5)
        made.append(make(*sizes, **options).double())
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in made), strict=True))
    return made


def agree(evaluations, inputs, *modules):
    """Values, gradients of inputs and parameters, and second derivatives of inputs agree between two evaluations."""
    found = []
    for evaluate, module in zip(evaluations, modules, strict=True):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        y = evaluate(*leaves)
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        bars = [oracle.normal(*g.shape, seed=i) for i, g in enumerate(first)]
        total = sum((g * bar).sum() for g, bar in zip(first, bars, strict=True))
        wanted = [*leaves, *module.parameters()]
        second = torch.autograd.grad(total, wanted, allow_unused=True)
        zeros = [torch.zeros_like(w) if g is None else g for g, w in zip(second, wanted, strict=True)]
        found.append([y, *first, *zeros])
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        assert oracle.relative_error(a, b) <= 1e-10 or not (a.any() or b.any())


def fused(monkeypatch):
    """A list that grows with each fused evaluation."""
    calls, original = [], functional.siren
    monkeypatch.setattr(functional, "siren", lambda *a, **o: calls.append(1) or original(*a, **o))
    return calls


@pytest.mark.parametrize("kinds", [(True, False), (False, True), (True, True)], ids=["scale", "shift", "both"])
@pytest.mark.parametrize("use_latent", [False, True], ids=["direct", "latent"])
def test_coinpp_modulations(kinds, use_latent):
    options = {"modulate_scale": kinds[0], "modulate_shift": kinds[1], "use_latent": use_latent, "latent_dim": 5}
    ours, theirs = pair(coinpp.ModulatedSiren, plain.ModulatedCoinPP, 2, 8, 3, 4, **options)
    assert ours.num_modulations == 8 * 3 * sum(kinds)
    x = oracle.uniform(2, 3, 4, 2)
    latent = 0.3 * oracle.normal(2, 5 if use_latent else ours.num_modulations)
    agree([ours.modulated_forward, theirs.modulated_forward], [x, latent], ours, theirs)
    assert oracle.relative_error(ours(x), theirs(x)) <= 1e-12
    one = (x[:1], latent[:1])
    assert oracle.relative_error(ours.modulated_forward(*one), theirs.modulated_forward(*one)) <= 1e-12


def test_coinpp_inner_loop():
    nets = pair(coinpp.ModulatedSiren, plain.ModulatedCoinPP, 2, 8, 3, 3)
    x, target = oracle.uniform(2, 6, 2), oracle.uniform(2, 6, 3, seed=1)
    found = []
    for net in nets:
        mods = torch.zeros(2, 16, dtype=torch.float64, requires_grad=True)
        for _ in range(2):
            loss = (net.modulated_forward(x, mods) - target).square().mean() * 2
            mods = mods - 0.01 * torch.autograd.grad(loss, mods, create_graph=True)[0]
        outer = (net.modulated_forward(x, mods) - target).square().mean()
        found.append([outer, *torch.autograd.grad(outer, list(net.parameters()))])
    assert all(oracle.relative_error(a, b) <= 1e-10 for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("shape", [(8,), (2, 1, 8), (2, 5, 8), (1, 1, 8)], ids=str)
@pytest.mark.parametrize("linear", [True, False], ids=["linear", "sine"])
def test_film_of_light_fields(shape, linear, monkeypatch):
    ours, theirs = pair(metasdf.Siren, plain.MetaSdf, 2, 8, 2, 3, outermost_linear=linear)
    calls = fused(monkeypatch)

    def run(net):
        def evaluate(x, *mods):
            film = [{"gamma": 1 + 0.1 * mods[2 * i], "beta": mods[2 * i + 1]} for i in range(3)]
            return net.forward_with_film(x, [*film, {"gamma": None, "beta": None}])

        return evaluate

    mods = [oracle.normal(*shape, seed=i) for i in range(6)]
    agree([run(ours), run(theirs)], [oracle.uniform(2, 5, 2), *mods], ours, theirs)
    assert len(calls) == (shape != (2, 5, 8))


@pytest.mark.parametrize("shape", [(8,), (2, 1, 8), (5, 8), (1,)], ids=str)
def test_mods_of_lucidrains(shape, monkeypatch):
    ours, theirs = pair(lucidrains.SirenNet, plain.SirenNet, 2, 8, 3, 3)
    calls = fused(monkeypatch)
    mods = [oracle.normal(*shape, seed=i) for i in range(3)]
    agree([lambda x, *m: ours(x, m), lambda x, *m: theirs(x, m)], [oracle.uniform(2, 5, 2), *mods], ours, theirs)
    agree([lambda x, m: ours(x, m), lambda x, m: theirs(x, m)], [oracle.uniform(2, 5, 2), mods[0]], ours, theirs)
    assert len(calls) == 2 * (shape != (5, 8))


def test_siren_wrapper():
    torch.manual_seed(0)
    net = lucidrains.SirenNet(2, 8, 3, 2)
    wrapper = lucidrains.SirenWrapper(net, image_width=4, image_height=3, latent_dim=5)
    assert [key for key in wrapper.state_dict() if not key.startswith("net.")] == [
        "grid", "modulator.layers.0.0.weight", "modulator.layers.0.0.bias", "modulator.layers.1.0.weight",
        "modulator.layers.1.0.bias",
    ]  # fmt: skip
    assert torch.equal(wrapper.grid[:5, 0], torch.tensor([-1.0, -1, -1, -1, 0])) and wrapper.grid.shape == (12, 2)
    latent, img = torch.randn(5), torch.rand(1, 3, 3, 4)
    z, hidden = latent, []
    for layer in wrapper.modulator.layers:
        hidden.append(torch.relu(layer[0](z)))
        z = torch.cat([hidden[-1], latent])
    expected = net(wrapper.grid, tuple(hidden)).t().reshape(1, 3, 3, 4)
    assert torch.allclose(wrapper(latent=latent), expected, atol=1e-6)
    assert torch.allclose(wrapper(img, latent=latent), (expected - img).square().mean(), atol=1e-6)
    both = wrapper(latent=torch.stack([latent, -latent]))
    assert torch.allclose(both[:1], expected, atol=1e-5) and both.shape == (2, 3, 3, 4)
    assert "grid" not in lucidrains.SirenWrapper(net, 4, 3, persistent_grid=False).state_dict()
    with pytest.raises(TypeError, match="modulated by latents"):
        fastsiren.laplacian(wrapper, wrapper.grid)


def stacked(net, count):
    """One set of parameters per network, none of them equal."""
    return {
        name: (p.detach() + 0.01 * oracle.normal(count, *p.shape, seed=i)).requires_grad_()
        for i, (name, p) in enumerate(net.named_parameters())
    }


@pytest.mark.parametrize("count", [None, 1, 3])
@pytest.mark.parametrize("leading", [(), (3,)], ids=["shared points", "own points"])
@pytest.mark.parametrize("name", ["official", "metasdf"])
def test_parameters_of_somebody_else(name, leading, count):
    if name == "official":
        sine = partial(official.FCBlock, nonlinearity="sine")
        ours, theirs = pair(sine, plain.FCBlock, 2, 3, 1, 8, outermost_linear=True)
    else:
        ours, theirs = pair(metasdf.Siren, plain.MetaSdf, 2, 8, 1, 3, outermost_linear=True)
    params = stacked(theirs, count) if count else dict(theirs.named_parameters())
    names = list(params)
    run = [lambda x, *p, net=net: net(x, params=dict(zip(names, p, strict=True))) for net in (ours, theirs)]
    agree(run, [oracle.uniform(*leading, 5, 2), *params.values()], ours, theirs)
    with pytest.raises(KeyError, match=names[-1].replace(".", r"\.")):
        ours(torch.rand(5, 2).double(), params={name: params[name] for name in names[:-1]})


def test_official_names_its_parameters():
    net = official.SingleBVPNet(hidden_features=8, num_hidden_layers=1)
    names = [name for name, _ in net.meta_named_parameters()]
    assert names == [f"net.net.{i}.0.{part}" for i in range(3) for part in ("weight", "bias")]
    inner = official.get_subdict({"net.a.b": 1, "nets.c": 2, "net.d": 3}, "net")
    assert dict(inner) == {"a.b": 1, "d": 3} and official.get_subdict(None, "net") is None


@pytest.mark.parametrize("kind", ["neural process", "conv", "partial conv"])
def test_hypernetworks(kind):
    torch.manual_seed(1)
    if kind == "neural process":
        net = official.NeuralProcessImplicit2DHypernet(5, 3)
        given = {"img_sub": torch.rand(2, 6, 3), "coords_sub": torch.rand(2, 6, 2), "ctxt_mask": torch.ones(2, 6, 1)}
        given["ctxt_mask"][:, 4:] = 0
        kept = {name: tensor[:, :4] for name, tensor in given.items()}
    else:
        net = official.ConvolutionalNeuralProcessImplicit2DHypernet(1, 3, partial_conv=kind == "partial conv").eval()
        given = kept = {"img_sparse": torch.rand(2, 1, 32, 32) * (torch.rand(2, 1, 32, 32) < 0.2)}
    coords = torch.rand(2, 5, 2)
    result = net({**given, "coords": coords})
    assert list(result) == ["model_in", "model_out", "latent_vec", "hypo_params"]
    assert result["latent_vec"].shape == (2, 256) and result["model_in"].is_leaf
    # Each network by itself, layer by layer, from the embedding alone.
    params, embedding = net.get_hypo_net_weights(kept)
    assert torch.allclose(embedding, result["latent_vec"], atol=1e-5)
    expected = plain.SingleBVPNet(3)({"coords": coords}, params)["model_out"]
    assert torch.allclose(net({"embedding": embedding, "coords": coords})["model_out"], expected, atol=1e-3)
    assert torch.allclose(result["model_out"], expected, atol=1e-3)
    for named in (given, {"embedding": embedding}):
        assert torch.allclose(fastsiren.value_and_jacobian(net.conditioned(named), coords).value, expected, atol=1e-3)
    assert next(net.hypo_net.parameters()).requires_grad
    result["model_out"].square().mean().backward()
    assert all(p.grad is None for p in net.hypo_net.parameters())
    assert all(p.grad is not None for p in net.hyper_net.parameters())
    net.freeze_hypernet()
    assert not any(p.requires_grad for p in net.hyper_net.parameters())


def test_partial_convolution_counts_observed_pixels():
    conv = official.encoders.PartialConv2d(2, 1, 3, padding=1, bias=False).double()
    image, mask = oracle.normal(1, 2, 4, 4), (oracle.uniform(1, 1, 4, 4) > 0).double()
    found = conv(image, mask)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        total, count = 0.0, 0.0
        for i in range(3):
            for j in range(3):
                r, c = row + i - 1, column + j - 1
                if 0 <= r < 4 and 0 <= c < 4 and mask[0, 0, r, c]:
                    total, count = total + (conv.weight[0, :, i, j] * image[0, :, r, c]).sum(), count + 1
        expected = total * 9 / count if count else torch.zeros(()).double()
        assert torch.allclose(found[0, 0, row, column], expected, rtol=1e-6)


def test_pigan():
    ours, theirs = pair(pigan.TALLSIREN, TallSiren, 3, 7, 8)
    inputs = [oracle.uniform(2, 5, 3), oracle.normal(2, 7), oracle.uniform(2, 5, 3, seed=2)]
    agree([ours, theirs], inputs, ours, theirs)
    torch.manual_seed(5)
    spatial = pigan.SPATIALSIRENBASELINE(2, 7, 8).double()
    assert list(spatial.state_dict()) == list(ours.state_dict())
    x, z, rays = inputs
    assert oracle.relative_error(spatial(x, z, rays), theirs(x * (2 / 0.24), z, rays)) <= 1e-10
    with pytest.raises(TypeError, match="modulated by noise"):
        fastsiren.laplacian(ours, x)


def test_functa():
    torch.manual_seed(3)
    net = functa.ModulatedSiren(2, width=6, depth=4, w0=12.0).double()
    assert all((linear.bias == 0).all() for linear in net.net)
    with torch.no_grad():
        for mods in (net.scale, net.shift):
            for mod in mods:
                mod += 0.2 * oracle.normal(6, seed=len(mods))
    x = oracle.uniform(5, 2)
    h = x
    for i, linear in enumerate(net.net[:-1]):
        h = torch.sin(12.0 * (net.scale[i] * linear(h) + net.shift[i]))
    assert oracle.relative_error(net(x), net.net[-1](h) + 0.5) <= 1e-12
    assert oracle.relative_error(fastsiren.value_and_jacobian(net, x).value, net(x)) <= 1e-12


def test_functa_from_latents():
    torch.manual_seed(3)
    net = functa.LatentModulatedSiren(2, width=6, depth=3, latent_dim=4, layer_sizes=(5,), w0=12.0).double()
    assert net.latent.abs().max() <= 0.01
    x, latents = oracle.uniform(2, 5, 2), oracle.normal(2, 4)
    mods = net.latent_to_modulation.net(latents).reshape(2, 2, 2, 6)
    h = x
    for i, linear in enumerate(net.net[:-1]):
        h = torch.sin(12.0 * ((mods[:, i, None, 0] + 1) * linear(h) + mods[:, i, None, 1]))
    assert oracle.relative_error(net.modulated_forward(x, latents), net.net[-1](h) + 0.5) <= 1e-12
    own = net.modulated_forward(x[:1], net.latent[None])
    assert oracle.relative_error(net(x[0]), own[0]) <= 1e-12
