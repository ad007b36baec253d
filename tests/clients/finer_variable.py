"""Fits an image with FINER's own network, whose activations have a variable frequency."""

import torch


def run(code, operators, dtype):
    model = code.Finer(2, 16, 2, 3, 30, 30.0, True, 5.0).to(dtype)
    optim = torch.optim.Adam(model.parameters(), lr=2e-4)
    coords = (torch.rand(50, 2, dtype=torch.float64).to(dtype) * 2 - 1).requires_grad_()
    target = torch.cos(3 * coords.detach().sum(-1, keepdim=True)).expand(-1, 3)
    losses = []
    for _ in range(50):
        value = model(coords)
        slope = operators.gradient(value, coords)
        loss = (value - target).square().mean() + 1e-4 * slope.square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
