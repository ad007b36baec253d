"""Learns latents of images as functa does: three inner steps on latents inside an outer one on the shared network."""

import torch


def run(code, operators, dtype):
    net = code.LatentModulatedSiren(2, width=12, depth=4, out_channels=3, latent_dim=6, layer_sizes=(10,), w0=10.0)
    net = net.to(dtype)
    outer = torch.optim.Adam(net.parameters(), lr=1e-4)
    axis = (torch.arange(5, dtype=dtype) + 0.5) / 5
    coords = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, -1, 2).expand(3, -1, -1)
    images = torch.rand(3, 25, 3, dtype=torch.float64).to(dtype)
    losses = []
    for _ in range(50):
        latents = net.latent.expand(3, -1)
        for _ in range(3):
            errors = (net.modulated_forward(coords, latents) - images).square().mean((1, 2))
            (grad,) = torch.autograd.grad(errors.sum(), latents, create_graph=True)
            latents = latents - 1e-2 * grad
        loss = (net.modulated_forward(coords, latents) - images).square().mean()
        outer.zero_grad()
        loss.backward()
        outer.step()
        losses.append(loss.item())
    return losses
