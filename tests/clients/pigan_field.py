"""Trains a radiance field from noise as pi-GAN does, with a penalty on the density's gradient."""

import torch


def run(code, operators, dtype):
    net = code.TALLSIREN(3, 6, 12).to(dtype)
    optim = torch.optim.Adam(net.parameters(), lr=1e-5)
    points = (torch.rand(2, 15, 3, dtype=torch.float64).to(dtype) * 2 - 1).requires_grad_()
    directions = torch.nn.functional.normalize(torch.randn(2, 15, 3, dtype=torch.float64), dim=-1).to(dtype)
    z = torch.randn(2, 6, dtype=torch.float64).to(dtype)
    losses = []
    for _ in range(50):
        field = net(points, z, ray_directions=directions)
        density = field[..., 3:]
        slope = operators.gradient(density, points)
        loss = (field[..., :3] - 0.7).square().mean() + density.square().mean() + 1e-3 * slope.norm(dim=-1).mean()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
