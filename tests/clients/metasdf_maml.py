"""Learns to fit distance functions as MetaSDF does: parameters repeated per shape, adapted by an inner loop."""

import torch


def run(code, operators, dtype):
    net = code.Siren(2, 12, 1, 1, outermost_linear=True, hidden_omega_0=20.0).to(dtype)
    meta = torch.optim.Adam(net.parameters(), lr=1e-4)
    coords = torch.rand(3, 20, 2, dtype=torch.float64).to(dtype) * 2 - 1
    radius = torch.tensor([0.3, 0.5, 0.7], dtype=dtype)[:, None, None]
    gt = coords.norm(dim=-1, keepdim=True) - radius
    losses = []
    for _ in range(50):
        adapted = {name: p[None].repeat(3, *[1] * p.ndim) for name, p in net.named_parameters()}
        for _ in range(2):
            inner = (net(coords, params=adapted) - gt).square().sum((0, 2)).mean()
            grads = torch.autograd.grad(inner, list(adapted.values()), create_graph=True)
            adapted = {name: p - 1e-3 * g for (name, p), g in zip(adapted.items(), grads, strict=True)}
        loss = (net(coords, params=adapted) - gt).square().mean()
        meta.zero_grad()
        loss.backward()
        meta.step()
        losses.append(loss.item())
    return losses
