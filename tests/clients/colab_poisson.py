"""Fits the gradients of an image as the notebook does, then its Laplacian."""

import torch


def run(code, operators, dtype):
    net = code.Siren(in_features=2, out_features=1, hidden_features=16, hidden_layers=1, outermost_linear=True).to(
        dtype
    )
    coords_in = torch.rand(1, 40, 2, dtype=torch.float64).to(dtype) * 2 - 1
    target = torch.cos(3 * coords_in)
    laplacian = -3 * torch.sin(3 * coords_in).sum(-1, keepdim=True)
    optim = torch.optim.Adam(lr=1e-4, params=net.parameters())
    losses = []
    for step in range(50):
        output, coords = net(coords_in)
        if step < 25:
            loss = ((operators.gradient(output, coords) - target) ** 2).sum(-1).mean()
        else:
            loss = ((operators.laplace(output, coords) - laplacian) ** 2).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
