"""Learns modulations as COIN++ does: an inner loop on modulations inside an outer one on the shared network."""

import torch


def run(code, operators, dtype):
    net = code.ModulatedSiren(dim_in=2, dim_hidden=12, dim_out=3, num_layers=3, modulate_scale=True).to(dtype)
    outer = torch.optim.Adam(net.parameters(), lr=1e-4)
    coordinates = torch.rand(3, 4, 5, 2, dtype=torch.float64).to(dtype) * 2 - 1
    features = torch.rand(3, 4, 5, 3, dtype=torch.float64).to(dtype)
    losses = []
    for _ in range(50):
        modulations = torch.zeros(3, net.num_modulations, dtype=dtype, requires_grad=True)
        for _ in range(2):
            loss = (net.modulated_forward(coordinates, modulations) - features).square().mean() * 3
            (grad,) = torch.autograd.grad(loss, modulations, create_graph=True)
            modulations = modulations - 1e-2 * grad
        loss = (net.modulated_forward(coordinates, modulations) - features).square().mean()
        outer.zero_grad()
        loss.backward()
        outer.step()
        losses.append(loss.item())
    return losses
