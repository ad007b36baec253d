"""Drop-in networks of a latent as networks: every operator takes them, and inner loops derive through them."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastsiren
import oracle
from clients import plain, plain_conditioned
from clients.plain_pigan import TallSiren
from fastsiren import functional
from fastsiren.dropin import coinpp, functa, lucidrains, metasdf, official, pigan

B, N = 3, 5


class Hyper(nn.Module):
    """A hypernetwork and what it predicts the parameters of."""

    def __init__(self, code):
        super().__init__()
        self.hypo = code.SingleBVPNet(2, "sine", 2, "mlp", 6, 1)
        self.hyper = code.HyperNetwork(4, 0, 5, self.hypo)

    def conditioned(self, z):
        return self.hypo.siren_parameters(self.hyper(z))

    def evaluate(self, x, z):
        return self.hypo.net(x, plain.subdict(self.hyper(z), "net"))


class PlainHyper:
    SingleBVPNet, HyperNetwork = plain.SingleBVPNet, plain_conditioned.HyperNetwork


def film(latents):
    rows = latents.unflatten(-1, (3, 2, 1, 8)).unbind(1)
    return [{"gamma": 1 + 0.1 * row[:, 0], "beta": row[:, 1]} for row in rows]


def mods(latents):
    return tuple(1 + 0.3 * row for row in latents.unflatten(-1, (3, 1, 8)).unbind(1))


def densities(net, x, z):
    return net(x, z, x.new_zeros(*x.shape[:-1], 3))[..., 3:]


# Our network and the plain one, the width of latents, our network of them, and the plain value at points [B, N, D].
NETWORKS = {
    "coinpp": (
        lambda: coinpp.ModulatedSiren(2, 8, 3, 3, modulate_scale=True),
        lambda: plain.ModulatedCoinPP(2, 8, 3, 3, modulate_scale=True),
        32, lambda net, z: net.conditioned(z), lambda net, x, z: net.modulated_forward(x, z),
    ),
    "coinpp, latent": (
        lambda: coinpp.ModulatedSiren(2, 8, 3, 3, use_latent=True, latent_dim=4),
        lambda: plain.ModulatedCoinPP(2, 8, 3, 3, use_latent=True, latent_dim=4),
        4, lambda net, z: net.conditioned(z), lambda net, x, z: net.modulated_forward(x, z),
    ),
    "functa": (
        lambda: functa.LatentModulatedSiren(2, 6, 4, 3, 4, (5,), w0=12.0),
        lambda: plain_conditioned.Functa(2, 6, 4, 3, 4, (5,), w0=12.0),
        4, lambda net, z: net.conditioned(z), lambda net, x, z: net.modulated_forward(x, z),
    ),
    "lucidrains": (
        lambda: lucidrains.SirenNet(2, 8, 3, 3, w0=5.0), lambda: plain.SirenNet(2, 8, 3, 3, w0=5.0),
        24, lambda net, z: net.conditioned(mods(z)), lambda net, x, z: net(x, mods(z)),
    ),
    "lucidrains, last layer a sine": (
        lambda: lucidrains.SirenNet(2, 8, 3, 3, w0=5.0, final_activation=lucidrains.Sine(3.0)),
        lambda: plain.SirenNet(2, 8, 3, 3, w0=5.0, final_activation=plain.Sine(3.0)),
        24, lambda net, z: net.conditioned(mods(z)), lambda net, x, z: net(x, mods(z)),
    ),
    "light field": (
        lambda: metasdf.Siren(2, 8, 2, 3, outermost_linear=True), lambda: plain.MetaSdf(2, 8, 2, 3, True),
        48, lambda net, z: net.conditioned(film(z)), lambda net, x, z: net.forward_with_film(x, film(z)),
    ),
    "pi-GAN": (
        lambda: pigan.TALLSIREN(2, 4, 6), lambda: TallSiren(2, 4, 6),
        4, lambda net, z: net.conditioned(z), densities,
    ),
    "hypernetwork": (
        lambda: Hyper(official), lambda: Hyper(PlainHyper),
        4, lambda net, z: net.conditioned(z), lambda net, x, z: net.evaluate(x, z),
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def case(request):
    """Our module, the plain one, latents of B networks, and how each is conditioned."""
    ours, theirs, width, conditioned, value = NETWORKS[request.param]
    torch.manual_seed(5)
    net = ours().double()
    reference = theirs().double()
    for a, b in zip(net.parameters(), reference.parameters(), strict=True):
        assert a.shape == b.shape
        b.data.copy_(a)
    return net, reference, 0.3 * oracle.normal(B, width), conditioned, value


def assert_equal(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert oracle.relative_error(a, b) <= tolerance or not (a.any() or b.any())


def derived(results, *leaves):
    """Gradients of a function of the results, zero where there is none."""
    total = sum((r * oracle.normal(*r.shape, seed=i)).sum() + r.square().sum() for i, r in enumerate(results))
    return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)


def test_operators_and_losses(case):
    net, reference, latents, conditioned, value = case
    x = oracle.uniform(B, N, 2)
    z = latents.clone().requires_grad_()
    given = conditioned(net, z)
    y, jacobian, laplacian = fastsiren.laplacian(given, x)
    eikonal = fastsiren.losses.eikonal(given, x)
    found = [y, jacobian, laplacian, fastsiren.hessian(given, x).hessian.diagonal(dim1=-2, dim2=-1).sum(-1), eikonal]
    found += derived(found, z, *net.parameters())
    at, z = x.clone().requires_grad_(), latents.clone().requires_grad_()
    y = value(reference, at, z)
    jacobian = plain.jacobian(y, at)[0]
    laplacian = plain.hessian(y, at)[0].diagonal(dim1=-2, dim2=-1).sum(-1)
    expected = [y, jacobian, laplacian, laplacian, (jacobian.norm(dim=-1) - 1).square().mean()]
    expected += derived(expected, z, *reference.parameters())
    assert_equal(found, expected)


def test_each_network_decodes_grids(case):
    net, reference, latents, conditioned, value = case
    grid = fastsiren.grids.Grid.over((3, 4))
    pictures = [fastsiren.render(one, grid, progress=False) for one in conditioned(net, latents).networks()]
    at = grid.coordinates(dtype=torch.float64).reshape(-1, 2).expand(B, 12, 2)
    with torch.no_grad():
        assert_equal([torch.stack(pictures).flatten(1, 2)], [value(reference, at, latents)])


@pytest.mark.parametrize("reentrant", [None, True, False], ids=["kept", "checkpoint, reentrant", "checkpoint"])
def test_inner_loops_on_latents(case, reentrant):
    net, reference, latents, conditioned, value = case
    x, target = oracle.uniform(B, N, 2), 0.3

    def fused(x, z):
        given = conditioned(net, z)
        return functional.siren(
            x, given.weights, given.biases, omegas=given.omegas, outermost_linear=given.outermost_linear
        )

    found = []
    for evaluate, module in ((fused, net), (lambda x, z: value(reference, x, z), reference)):
        z = start = latents.clone().requires_grad_()

        def step(z, evaluate=evaluate):
            create_graph = torch.is_grad_enabled()
            with torch.enable_grad():
                inner = (evaluate(x, z) - target).square().mean((1, 2)).sum()
                (grad,) = torch.autograd.grad(inner, z, create_graph=create_graph)
            return z - 1e-2 * grad

        for _ in range(3):
            z = step(z) if reentrant is None or module is reference else checkpoint(step, z, use_reentrant=reentrant)
        (evaluate(x, z) - target).square().mean().backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in (start, *module.parameters())]
        found.append([z, *grads])
    assert_equal(*found, 1e-9)


def test_latents_that_name_no_network():
    net = lucidrains.SirenNet(2, 8, 3, 2)
    with pytest.raises(TypeError, match="latent: got one, but latent_dim was not given"):
        lucidrains.SirenWrapper(net, 4, 3).conditioned(torch.zeros(5))
    with pytest.raises(ValueError, match=r"gain: got shape \(2, 5, 8\), expected \(B, 1, H\)"):
        net.conditioned(torch.zeros(2, 5, 8))
    wrapper = lucidrains.SirenWrapper(net, 4, 3, latent_dim=5)
    latents = torch.randn(2, 5)
    found = fastsiren.value_and_jacobian(wrapper.conditioned(latents), wrapper.grid).value
    assert torch.allclose(found.reshape(2, 3, 4, 3).movedim(-1, 1), wrapper(latent=latents), atol=1e-6)


def test_densities_of_a_box():
    torch.manual_seed(5)
    net = pigan.SPATIALSIRENBASELINE(3, 4, 6).double()
    x, z = oracle.uniform(2, N, 3), oracle.normal(2, 4)
    found = fastsiren.value_and_jacobian(net.conditioned(z), x).value
    assert_equal([found], [densities(net, x, z)])
