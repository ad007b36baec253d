"""The classes that users have, restated in plain torch from their formulas, with names and draws of the originals."""

import itertools
import math
from collections import OrderedDict

import torch
from torch import nn


def uniform_(tensor, bound):
    with torch.no_grad():
        return tensor.uniform_(-bound, bound)


class SineLayer(nn.Module):
    """A layer of the notebook, of WIRE, FINER, MetaSDF and light fields."""

    def __init__(self, n_in, n_out, bias=True, is_first=False, omega_0=30):
        super().__init__()
        self.omega_0 = omega_0
        self.linear = nn.Linear(n_in, n_out, bias=bias)
        uniform_(self.linear.weight, 1 / n_in if is_first else math.sqrt(6 / n_in) / omega_0)

    def forward(self, x):
        return torch.sin(self.omega_0 * self.linear(x))

    def forward_with_film(self, x, gamma, beta):
        return torch.sin(gamma * self.omega_0 * self.linear(x) + beta)


class Stack(nn.Module):
    """The network that these repositories share; forward takes and returns a tensor."""

    def __init__(self, n_in, hidden, layers, n_out, linear, first, omega, *, last=None, special=True, bias=True):
        super().__init__()
        made = [SineLayer(n_in, hidden, bias=bias, is_first=special, omega_0=first)]
        made += [SineLayer(hidden, hidden, omega_0=omega) for _ in range(layers)]
        if linear:
            made.append(nn.Linear(hidden, n_out))
            uniform_(made[-1].weight, math.sqrt(6 / hidden) / (last or omega))
        else:
            made.append(SineLayer(hidden, n_out, omega_0=omega))
        self.net = nn.Sequential(*made)

    def forward(self, coords):
        return self.net(coords)


class Colab(Stack):
    def __init__(
        self, in_features, hidden_features, hidden_layers, out_features, outermost_linear=False, first_omega_0=30,
        hidden_omega_0=30.0,
    ):  # fmt: skip
        omegas = (first_omega_0, hidden_omega_0)
        super().__init__(in_features, hidden_features, hidden_layers, out_features, outermost_linear, *omegas)

    def forward(self, coords):
        coords = coords.clone().detach().requires_grad_(True)
        return self.net(coords), coords


class Wire(Stack):
    def __init__(self, n_in, hidden, layers, n_out, outermost_linear=True, first_omega_0=30, hidden_omega_0=30.0):
        super().__init__(n_in, hidden, layers, n_out, outermost_linear, first_omega_0, hidden_omega_0)


class FinerSiren(Stack):
    def __init__(self, n_in, hidden, layers, n_out, first_omega_0=30, hidden_omega_0=30.0, bias=True):
        super().__init__(n_in, hidden, layers, n_out, True, first_omega_0, hidden_omega_0, bias=bias)


class MetaSdf(Stack):
    """Also takes a dict of parameters, and FiLM."""

    def __init__(
        self, n_in, hidden, layers, n_out, outermost_linear=False, first_omega_0=30, hidden_omega_0=30.0,
        special_first=True,
    ):  # fmt: skip
        options = {"last": 30.0, "special": special_first}
        super().__init__(n_in, hidden, layers, n_out, outermost_linear, first_omega_0, hidden_omega_0, **options)

    def forward(self, coords, params=None):
        if params is None:
            return self.net(coords)
        x = coords
        for i, layer in enumerate(self.net):
            name = f"net.{i}.linear" if isinstance(layer, SineLayer) else f"net.{i}"
            x = x @ params[f"{name}.weight"].mT + params[f"{name}.bias"].unsqueeze(-2)
            x = torch.sin(layer.omega_0 * x) if isinstance(layer, SineLayer) else x
        return x

    def forward_with_film(self, coords, film):
        x = coords
        for layer, entry in zip(self.net[:-1], film):
            x = layer.forward_with_film(x, entry["gamma"], entry["beta"])
        return self.net[-1](x)


class FinerLayer(SineLayer):
    def __init__(self, n_in, n_out, is_first=False, omega_0=30, first_bias_scale=None, scale_req_grad=False):
        super().__init__(n_in, n_out, is_first=is_first, omega_0=omega_0)
        self.scale_req_grad = scale_req_grad
        if is_first and first_bias_scale is not None:
            uniform_(self.linear.bias, first_bias_scale)

    def forward(self, x):
        z = self.linear(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.scale_req_grad):
            factor = torch.abs(z) + 1
        return torch.sin(self.omega_0 * factor * z)


class Finer(nn.Module):
    def __init__(self, n_in, hidden, layers, n_out, first=30, omega=30.0, bias=True, scale=None, scale_req_grad=False):
        super().__init__()
        made = [FinerLayer(n_in, hidden, True, first, scale, scale_req_grad)]
        made += [FinerLayer(hidden, hidden, False, omega, None, scale_req_grad) for _ in range(layers)]
        made.append(nn.Linear(hidden, n_out))
        uniform_(made[-1].weight, math.sqrt(6 / hidden) / omega)
        self.net = nn.Sequential(*made)

    def forward(self, coords):
        return self.net(coords)


class Sine(nn.Module):
    def __init__(self, w0=1.0):
        super().__init__()
        self.w0 = w0

    def forward(self, x):
        return torch.sin(self.w0 * x)


class Sine30(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


class BatchLinear(nn.Linear):
    def forward(self, x, params=None):
        weight, bias = (self.weight, self.bias) if params is None else (params["weight"], params["bias"])
        return x.matmul(weight.mT) + bias.unsqueeze(-2)


def subdict(params, key):
    return None if params is None else {k[len(key) + 1 :]: v for k, v in params.items() if k.startswith(f"{key}.")}


class MetaSequential(nn.Sequential):
    """Hands its modules their part of a dict of parameters."""

    def forward(self, x, params=None):
        for name, module in self._modules.items():
            takes = isinstance(module, (BatchLinear, MetaSequential))
            x = module(x, params=subdict(params, name)) if takes else module(x)
        return x


class FCBlock(nn.Module):
    """The sine network of the official repository."""

    def __init__(self, n_in, n_out, layers, hidden, outermost_linear=True):
        super().__init__()
        widths = [n_in, *[hidden] * (layers + 1), n_out]
        sine = Sine30()
        made = [[BatchLinear(widths[i], widths[i + 1]), sine] for i in range(layers + 2)]
        self.net = MetaSequential(*(MetaSequential(*m) for m in made[:-1]))
        self.net.append(MetaSequential(*made[-1][: 1 if outermost_linear else 2]))
        for layer in self.net:
            bound = math.sqrt(6 / layer[0].in_features) / 30
            uniform_(layer[0].weight, bound)
        uniform_(self.net[0][0].weight, 1 / n_in)

    def forward(self, coords, params=None):
        params = OrderedDict(self.named_parameters()) if params is None else params
        return self.net(coords, params=subdict(params, "net"))


class SingleBVPNet(nn.Module):
    def __init__(
        self, out_features=1, type="sine", in_features=2, mode="mlp", hidden_features=256, num_hidden_layers=3
    ):
        super().__init__()
        self.net = FCBlock(in_features, out_features, num_hidden_layers, hidden_features)

    def forward(self, model_input, params=None):
        coords = model_input["coords"].clone().detach().requires_grad_(True)
        return {"model_in": coords, "model_out": self.net(coords, subdict(params, "net"))}


class LucidLayer(nn.Module):
    def __init__(self, n_in, n_out, w0, c=6.0, is_first=False, use_bias=True, activation=None, dropout=0.0):
        super().__init__()
        bound = 1 / n_in if is_first else math.sqrt(c / n_in) / w0
        self.weight = nn.Parameter(uniform_(torch.zeros(n_out, n_in), bound))
        self.bias = nn.Parameter(uniform_(torch.zeros(n_out), bound)) if use_bias else None
        self.activation = activation or Sine(w0)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.activation(nn.functional.linear(x, self.weight, self.bias)))


class SirenNet(nn.Module):
    def __init__(
        self, dim_in, dim_hidden, dim_out, num_layers, w0=1.0, w0_initial=30.0, use_bias=True, final_activation=None,
        dropout=0.0,
    ):  # fmt: skip
        super().__init__()
        self.num_layers, self.dim_hidden = num_layers, dim_hidden
        self.layers = nn.ModuleList()
        for i in range(num_layers):
            options = {"w0": w0 if i else w0_initial, "is_first": i == 0, "use_bias": use_bias, "dropout": dropout}
            self.layers.append(LucidLayer(dim_hidden if i else dim_in, dim_hidden, **options))
        self.last_layer = LucidLayer(
            dim_hidden, dim_out, w0, use_bias=use_bias, activation=final_activation or nn.Identity()
        )

    def forward(self, x, mods=None):
        mods = mods if isinstance(mods, tuple) else (mods,) * self.num_layers
        for layer, mod in zip(self.layers, mods):
            x = layer(x)
            if mod is not None:
                x = x * mod
        return self.last_layer(x)


class Dalmia(nn.Module):
    def __init__(self, layers, in_features, out_features, w0=1.0, w0_initial=30.0, bias=True, initializer="siren", c=6):
        super().__init__()
        made = [nn.Linear(in_features, layers[0], bias=bias), Sine(w0_initial)]
        for n_in, n_out in itertools.pairwise(layers):
            made += [nn.Linear(n_in, n_out, bias=bias), Sine(w0)]
        self.network = nn.Sequential(*made, nn.Linear(layers[-1], out_features, bias=bias))
        for module in self.network:
            if initializer and isinstance(module, nn.Linear):
                uniform_(module.weight, math.sqrt(c) / math.sqrt(module.in_features))

    def forward(self, x):
        return self.network(x)


class CoinLayer(nn.Module):
    def __init__(self, n_in, n_out, w0, is_first=False, use_bias=True, activation=None, offset=0.0):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out, bias=use_bias)
        bound = 1 / n_in if is_first else math.sqrt(6 / n_in) / w0
        uniform_(self.linear.weight, bound)
        if use_bias:
            uniform_(self.linear.bias, bound)
        self.activation = activation or Sine(w0)
        self.is_last, self.offset = offset > 0, offset

    def forward(self, x):
        return self.activation(self.linear(x)) + self.offset


class Coin(nn.Module):
    offset, others = 0.0, 0

    def __init__(
        self, dim_in, dim_hidden, dim_out, num_layers, w0=30.0, w0_initial=30.0, use_bias=True, final_activation=None
    ):
        super().__init__()
        self.dim_hidden, self.dim_out, self.num_layers = dim_hidden, dim_out, num_layers
        self.net = nn.Sequential(
            *(
                CoinLayer(dim_hidden if i else dim_in, dim_hidden, w0 if i else w0_initial, i == 0, use_bias)
                for i in range(num_layers - self.others)
            )
        )
        final = final_activation or nn.Identity()
        self.last_layer = CoinLayer(dim_hidden, dim_out, w0, False, use_bias, final, self.offset)

    def forward(self, x):
        return self.last_layer(self.net(x))


class CoinPP(Coin):
    offset, others = 0.5, 1


class LatentToModulation(nn.Module):
    def __init__(self, latent_dim, size):
        super().__init__()
        self.latent_dim = latent_dim
        self.net = nn.Linear(latent_dim, size)

    def forward(self, latent):
        return self.net(latent)


class Bias(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.latent_dim = size
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return x + self.bias


class ModulatedCoinPP(CoinPP):
    def __init__(
        self, dim_in, dim_hidden, dim_out, num_layers, *, modulate_scale=False, modulate_shift=True, use_latent=False,
        latent_dim=64, **options,
    ):  # fmt: skip
        super().__init__(dim_in, dim_hidden, dim_out, num_layers, **options)
        self.modulate_scale, self.modulate_shift = modulate_scale, modulate_shift
        count = dim_hidden * (num_layers - 1)
        size = count * (modulate_scale + modulate_shift)
        self.num_modulations = size
        self.modulation_net = LatentToModulation(latent_dim, size) if use_latent else Bias(size)
        if not use_latent:
            self.modulation_net.bias.data[: count if modulate_scale else 0] = 1

    def modulated_forward(self, x, latent):
        h, mods = x.reshape(len(x), -1, x.shape[-1]), self.modulation_net(latent)
        width, behind = self.dim_hidden, self.dim_hidden * (self.num_layers - 1) * self.modulate_scale
        for i, layer in enumerate(self.net):
            h = layer.linear(h)
            if self.modulate_scale:
                h = h * (mods[:, None, i * width : (i + 1) * width] + 1.0)
            if self.modulate_shift:
                h = h + mods[:, None, behind + i * width : behind + (i + 1) * width]
            h = layer.activation(h)
        return self.last_layer(h).reshape(*x.shape[:-1], -1)


def gradient(y, x, grad_outputs=None):
    seed = torch.ones_like(y) if grad_outputs is None else grad_outputs
    return torch.autograd.grad(y, [x], grad_outputs=seed, create_graph=True)[0]


def divergence(y, x):
    return sum(gradient(y[..., i], x)[..., i : i + 1] for i in range(y.shape[-1]))


def laplace(y, x):
    return divergence(gradient(y, x), x)


def jacobian(y, x):
    found = torch.stack([gradient(y[..., i], x) for i in range(y.shape[-1])], -2)
    return found, -1 if found.isnan().any() else 0


def hessian(y, x):
    rows = [gradient(y[..., i], x) for i in range(y.shape[-1])]
    found = torch.stack([torch.stack([gradient(g[..., j], x) for j in range(x.shape[-1])], -2) for g in rows], -3)
    return found, -1 if found.isnan().any() else 0


def derivative(y, x, i=0, j=0):
    return gradient(y[..., i], x)[..., j : j + 1]


def second_derivative(y, x, component=0, i=0, j=0):
    return derivative(derivative(y, x, component, i), x, 0, j)


def activations(net, coords):
    """What forward_with_activations of the notebook returns, without the names of classes."""
    x = coords.clone().detach().requires_grad_(True)
    found = OrderedDict(input=x)
    for layer in net.net:
        if isinstance(layer, SineLayer):
            z = layer.omega_0 * layer.linear(x)
            x = torch.sin(z)
            found[f"SineLayer_{len(found) - 1}"] = z
            found[f"SineLayer_{len(found) - 1}"] = x
        else:
            x = layer(x)
            found[f"Linear_{len(found) - 1}"] = x
    return found
