"""Fits an image from a latent through SirenWrapper, as the README of siren-pytorch shows."""

import torch


def run(code, operators, dtype):
    net = code.SirenNet(
        dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, w0_initial=30.0, final_activation=torch.nn.Sigmoid()
    )
    wrapper = code.SirenWrapper(net, latent_dim=8, image_width=7, image_height=6).to(dtype)
    latent = torch.nn.Parameter((1e-2 * torch.randn(8, dtype=torch.float64)).to(dtype))
    img = torch.rand(1, 3, 6, 7, dtype=torch.float64).to(dtype)
    optim = torch.optim.Adam([*wrapper.parameters(), latent], lr=1e-3)
    losses = []
    for _ in range(50):
        loss = wrapper(img, latent=latent)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    pred_img = wrapper(latent=latent)
    return [*losses, pred_img.square().mean().item()]
