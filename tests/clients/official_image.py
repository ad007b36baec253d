"""Fits an image with the official training loop: dicts in and out, an image loss and a total-variation prior."""

import torch


def tv_prior(operators, model, coords):
    output = model({"coords": coords})
    gradient = operators.gradient(output["model_out"], output["model_in"])
    return 1e-4 * gradient.abs().sum(-1).mean()


def run(code, operators, dtype):
    model = code.SingleBVPNet(type="sine", mode="mlp", out_features=3, hidden_features=16, num_hidden_layers=2).to(
        dtype
    )
    optim = torch.optim.Adam(lr=1e-4, params=model.parameters())
    coords = torch.rand(2, 30, 2, dtype=torch.float64).to(dtype) * 2 - 1
    ground_truth = {"img": torch.sin(4 * coords.sum(-1, keepdim=True) * torch.arange(1, 4, dtype=dtype))}
    losses = []
    for _ in range(50):
        model_output = model({"coords": coords})
        img_loss = ((model_output["model_out"] - ground_truth["img"]) ** 2).mean()
        train_loss = img_loss + tv_prior(operators, model, coords)
        optim.zero_grad()
        train_loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optim.step()
        losses.append(train_loss.item())
    return losses
