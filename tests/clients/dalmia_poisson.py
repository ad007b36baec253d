"""Solves a Poisson equation with dalmia's SIREN and derivatives written out by hand."""

import torch


def run(code, operators, dtype):
    model = code.SIREN([16, 12], in_features=2, out_features=1, w0_initial=10.0).to(dtype)
    x = (torch.rand(40, 2, dtype=torch.float64).to(dtype) * 2 - 1).requires_grad_()
    optim = torch.optim.Adam(model.parameters(), lr=1e-5)
    losses = []
    for _ in range(50):
        u = model(x)
        (du,) = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)
        second = [torch.autograd.grad(du[:, i].sum(), x, create_graph=True)[0][:, i : i + 1] for i in range(2)]
        loss = (sum(second) - torch.sin(x.detach()[:, :1])).square().mean() + operators.laplace(u, x).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
