"""Solves Burgers' equation with derivatives by index, as DeepXDE's programs write them."""

import torch


def pde(dde, x, y):
    dy_x = dde.jacobian(y, x, i=0, j=0)
    dy_t = dde.jacobian(y, x, i=0, j=1)
    dy_xx = dde.hessian(y, x, i=0, j=0)
    return dy_t + y * dy_x - 0.01 / torch.pi * dy_xx


def run(code, operators, dtype):
    net = code.INR(2, 16, 1, 1, first_omega_0=5.0, hidden_omega_0=5.0).to(dtype)
    x = (torch.rand(40, 2, dtype=torch.float64).to(dtype) * 2 - 1).requires_grad_()
    start = torch.stack([torch.linspace(-1, 1, 10, dtype=dtype), torch.zeros(10, dtype=dtype)], -1)
    optim = torch.optim.Adam(net.parameters(), lr=1e-4)
    losses = []
    for _ in range(50):
        residual = pde(operators, x, net(x))
        loss = residual.square().mean() + (net(start) + torch.sin(torch.pi * start[:, :1])).square().mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
