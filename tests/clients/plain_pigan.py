"""The generator of pi-GAN, restated in plain torch from its formulas."""

import math

import torch
from torch import nn

from .plain import uniform_


class Mapping(nn.Module):
    def __init__(self, z_dim, size):
        super().__init__()
        layers = [nn.Linear(z_dim, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2)]
        layers += [nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, size)]
        self.network = nn.Sequential(*layers)
        for linear in self.network[::2]:
            nn.init.kaiming_normal_(linear.weight, a=0.2, nonlinearity="leaky_relu")
        self.network[-1].weight.data *= 0.25

    def forward(self, z):
        return self.network(z).chunk(2, -1)


class Film(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)

    def forward(self, x, freq, phase):
        return torch.sin(freq[:, None] * self.layer(x) + phase[:, None])


class TallSiren(nn.Module):
    """The generator of pi-GAN."""

    def __init__(self, input_dim=2, z_dim=100, hidden_dim=256):
        super().__init__()
        self.hidden_dim = hidden_dim
        self.network = nn.ModuleList([Film(hidden_dim if i else input_dim, hidden_dim) for i in range(8)])
        self.final_layer = nn.Linear(hidden_dim, 1)
        self.color_layer_sine = Film(hidden_dim + 3, hidden_dim)
        self.color_layer_linear = nn.Sequential(nn.Linear(hidden_dim, 3), nn.Sigmoid())
        self.mapping_network = Mapping(z_dim, 18 * hidden_dim)
        heads = [self.final_layer, self.color_layer_sine.layer, self.color_layer_linear[0]]
        for linear in [film.layer for film in self.network] + heads:
            uniform_(linear.weight, math.sqrt(6 / linear.in_features) / 25)
        uniform_(self.network[0].layer.weight, 1 / input_dim)

    def forward(self, x, z, ray_directions):
        g, phase = self.mapping_network(z)
        freq, width = g * 15 + 30, self.hidden_dim
        for i, film in enumerate(self.network):
            x = film(x, freq[:, i * width : (i + 1) * width], phase[:, i * width : (i + 1) * width])
        color = self.color_layer_sine(torch.cat([ray_directions, x], -1), freq[:, -width:], phase[:, -width:])
        return torch.cat([self.color_layer_linear(color), self.final_layer(x)], -1)
