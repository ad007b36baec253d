"""Denoises an image as WIRE's scripts do: batches of pixels in a random order, a learning rate that decays."""

import torch


def run(code, operators, dtype):
    model = code.INR(2, 16, 2, 3, True, 30.0, 30.0).to(dtype)
    optim = torch.optim.Adam(lr=2e-4, params=model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optim, lambda epoch: 0.1 ** min(epoch / 25, 1))
    coords = torch.rand(1, 60, 2, dtype=torch.float64).to(dtype) * 2 - 1
    noisy = torch.sin(3 * coords.sum(-1, keepdim=True)) + 0.1 * torch.randn(1, 60, 3, dtype=torch.float64).to(dtype)
    losses = []
    for _ in range(25):
        for indices in torch.randperm(60).split(30):
            loss = ((model(coords[:, indices]) - noisy[:, indices]) ** 2).mean()
            optim.zero_grad()
            loss.backward()
            optim.step()
            losses.append(loss.item())
        scheduler.step()
    return losses
