"""Fits an image with FINER's SIREN baseline and weight decay."""

import torch


def run(code, operators, dtype):
    model = code.Siren(2, 16, 2, 3, first_omega_0=20, hidden_omega_0=20.0, bias=False).to(dtype)
    optim = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=1e-2)
    coords = torch.rand(50, 2, dtype=torch.float64).to(dtype) * 2 - 1
    target = torch.cos(3 * coords.sum(-1, keepdim=True)).expand(-1, 3)
    losses = []
    for _ in range(50):
        loss = (model(coords) - target).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
