"""Fits images with a hypernetwork and the official loss for it, which has priors on latents and weights."""

import torch


def hypo_weight_loss(params):
    total = sum(weight.numel() for weight in params.values())
    return sum(weight.square().sum() for weight in params.values()) / total


def run(code, operators, dtype):
    hypo_net = code.SingleBVPNet(out_features=3, hidden_features=12, num_hidden_layers=1)
    hyper_net = code.HyperNetwork(8, 1, 16, hypo_net).to(dtype)
    latents = torch.nn.Parameter(torch.randn(3, 8, dtype=torch.float64).to(dtype))
    optim = torch.optim.Adam([*hyper_net.parameters(), latents], lr=5e-5)
    coords = torch.rand(3, 20, 2, dtype=torch.float64).to(dtype) * 2 - 1
    img = torch.rand(3, 20, 3, dtype=torch.float64).to(dtype)
    losses = []
    for step in range(50):
        params = hyper_net(latents)
        output = hypo_net({"coords": coords}, params=params)
        loss = (output["model_out"] - img).square().mean()
        if step % 2:
            slope = operators.gradient(output["model_out"], output["model_in"])
            loss = (
                loss
                + 1e-3 * slope.square().mean()
                + 1e-4 * operators.laplace(output["model_out"], output["model_in"]).square().mean()
            )
        loss = loss + 1e-1 * latents.square().mean() + 1e2 * hypo_weight_loss(params)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
