"""Fits light fields with FiLM, a latent per scene."""

import torch


def run(code, operators, dtype):
    net = code.Siren(6, 12, 2, 3, outermost_linear=True).to(dtype)
    latents = (0.1 * torch.randn(2, 1, 6 * 12, dtype=torch.float64)).to(dtype).requires_grad_()
    rays = torch.rand(2, 20, 6, dtype=torch.float64).to(dtype) * 2 - 1
    rgb = torch.rand(2, 20, 3, dtype=torch.float64).to(dtype)
    optim = torch.optim.Adam([latents, *net.parameters()], lr=1e-4)
    losses = []
    for _ in range(50):
        pieces = latents.split(12, -1)
        film = [{"gamma": 1 + pieces[2 * i], "beta": pieces[2 * i + 1]} for i in range(3)]
        film.append({"gamma": None, "beta": None})
        loss = (net.forward_with_film(rays, film) - rgb).square().mean() + 1e-2 * latents.square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
