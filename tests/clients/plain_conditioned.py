"""Conditioned networks restated in plain torch: functa, SirenWrapper, and the official hypernetworks."""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
from torch import nn

from fastsiren.dropin.official import encoders

from .plain import BatchLinear, MetaSequential, SingleBVPNet, SirenNet, uniform_


class Functa(nn.Module):
    """A SIREN whose scales and shifts come from latents."""

    def __init__(self, in_features, width, depth, out_channels, latent_dim, layer_sizes, w0):
        super().__init__()
        self.w0, self.width = w0, width
        widths = [in_features, *[width] * (depth - 1), out_channels]
        self.net = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))
        for i, linear in enumerate(self.net):
            uniform_(linear.weight, math.sqrt(6 / linear.in_features) / w0 if i else 1 / in_features)
            nn.init.zeros_(linear.bias)
        self.latent = nn.Parameter(uniform_(torch.empty(latent_dim), 0.01))
        widths, layers = [latent_dim, *layer_sizes], []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.latent_to_modulation = nn.ModuleDict(
            {"net": nn.Sequential(*layers, nn.Linear(widths[-1], 2 * width * (depth - 1)))}
        )

    def modulated_forward(self, coords, latent):
        mods = self.latent_to_modulation["net"](latent).unflatten(-1, (-1, 2, 1, self.width))
        h = coords
        for i, linear in enumerate(self.net[:-1]):
            h = torch.sin(self.w0 * ((mods[:, i, 0] + 1) * linear(h) + mods[:, i, 1]))
        return self.net[-1](h) + 0.5


class SirenWrapper(nn.Module):
    """A SirenNet on the grid of an image, modulated by a latent."""

    def __init__(self, net: SirenNet, image_width, image_height, latent_dim):
        super().__init__()
        self.net, self.size = net, (image_height, image_width)
        widths = [latent_dim, *[net.dim_hidden + latent_dim] * (net.num_layers - 1)]
        self.modulator = nn.ModuleList(nn.Sequential(nn.Linear(w, net.dim_hidden), nn.ReLU()) for w in widths)
        axes = [torch.linspace(-1, 1, steps=steps) for steps in self.size]
        self.register_buffer("grid", torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2))

    def forward(self, img=None, *, latent):
        mods, z = [], latent
        for layer in self.modulator:
            mods.append(layer(z))
            z = torch.cat((mods[-1], latent))
        out = self.net(self.grid.clone().detach().requires_grad_(), tuple(mods))
        out = out.t().reshape(1, -1, *self.size)
        return out if img is None else nn.functional.mse_loss(img, out)


class HyperNetwork(nn.Module):
    """One ReLU network per parameter of another module."""

    def __init__(self, hyper_in_features, hyper_hidden_layers, hyper_hidden_features, hypo_module):
        super().__init__()
        self.shapes = OrderedDict((name, p.shape) for name, p in hypo_module.named_parameters())
        self.nets = nn.ModuleList()
        for name, shape in self.shapes.items():
            hidden = hyper_hidden_features
            widths = [hyper_in_features, *[hidden] * (hyper_hidden_layers + 1), shape.numel()]
            linears = [BatchLinear(n_in, n_out) for n_in, n_out in pairwise(widths)]
            for linear in linears:
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            layers = [part for linear in linears for part in (linear, nn.ReLU())][:-1]
            self.nets.append(MetaSequential(*layers))
            nn.init.kaiming_normal_(linears[-1].weight, nonlinearity="relu")
            linears[-1].weight.data /= 1e2
            uniform_(linears[-1].bias, 1 / (shape[-1] if "weight" in name else hidden))

    def forward(self, z):
        made = zip(self.shapes.items(), self.nets, strict=True)
        return OrderedDict((name, net(z).reshape(-1, *shape)) for (name, shape), net in made)


class NeuralProcess(nn.Module):
    """A SIREN whose parameters come from the embedding of a set of pixels, or of a sparse image."""

    def __init__(self, in_features, out_features, partial_conv=None):
        super().__init__()
        if partial_conv is not None:
            # Plain torch as it is.
            make = encoders.PartialConvImgEncoder if partial_conv else encoders.ConvImgEncoder
            self.encoder = make(in_features, None)
        self.hypo_net = SingleBVPNet(out_features=out_features)
        self.hyper_net = HyperNetwork(256, 1, 256, self.hypo_net)
        if partial_conv is None:
            self.set_encoder = nn.Sequential(nn.Linear(in_features, 256), *(nn.Linear(256, 256) for _ in range(3)))
            for linear in self.set_encoder:
                uniform_(linear.weight, math.sqrt(6 / linear.in_features) / 30)

    def freeze_hypernet(self):
        self.hyper_net.requires_grad_(False)

    def embed(self, model_input):
        if "img_sparse" in model_input:
            return self.encoder(model_input["img_sparse"])
        h = torch.cat((model_input["coords_sub"], model_input["img_sub"]), -1)
        for linear in self.set_encoder:
            h = torch.sin(30 * linear(h))
        mask = model_input["ctxt_mask"]
        return (h * mask).sum(-2) / mask.sum(-2)

    def get_hypo_net_weights(self, model_input):
        embedding = self.embed(model_input)
        return self.hyper_net(embedding), embedding

    def forward(self, model_input):
        embedding = model_input["embedding"] if "embedding" in model_input else self.embed(model_input)
        params = self.hyper_net(embedding)
        return {**self.hypo_net(model_input, params=params), "latent_vec": embedding, "hypo_params": params}
