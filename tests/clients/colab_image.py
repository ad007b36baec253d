"""Fits an image as the notebook does, plotting gradients and Laplacians on the way."""

import torch


def run(code, operators, dtype):
    net = code.Siren(in_features=2, hidden_features=16, hidden_layers=2, out_features=1, outermost_linear=True).to(
        dtype
    )
    axis = torch.linspace(-1, 1, steps=8, dtype=dtype)
    model_input = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 2)
    ground_truth = torch.sin(5 * model_input[..., :1]) * model_input[..., 1:]
    optim = torch.optim.Adam(lr=1e-4, params=net.parameters())
    losses = []
    for step in range(50):
        model_output, coords = net(model_input)
        loss = ((model_output - ground_truth) ** 2).mean()
        if not step % 10:
            img_grad = operators.gradient(model_output, coords)
            img_laplacian = operators.laplace(model_output, coords)
            losses += [img_grad.norm(dim=-1).mean().item(), img_laplacian.abs().mean().item()]
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
