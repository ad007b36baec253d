"""Fits an image with a SirenNet modulated by a latent, and its gradient by torch.autograd.grad."""

import torch


def run(code, operators, dtype):
    net = code.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, final_activation=torch.nn.Sigmoid())
    net = net.to(dtype)
    latent = torch.randn(3, 16, dtype=torch.float64).to(dtype).requires_grad_()
    coords = (torch.rand(40, 2, dtype=torch.float64).to(dtype) * 2 - 1).requires_grad_()
    target = (1 + torch.sin(4 * coords.detach().sum(-1, keepdim=True))) / 2
    optim = torch.optim.Adam([*net.parameters(), latent], lr=1e-3)
    losses = []
    for step in range(50):
        mods = tuple(1 + 0.1 * row for row in latent)
        out = net(coords, mods) if step % 2 else net(coords)
        (slope,) = torch.autograd.grad(out.sum(), coords, create_graph=True)
        loss = (out - target).square().mean() + 1e-3 * slope.square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
