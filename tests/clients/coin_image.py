"""Compresses an image as COIN does: Adam, the best state kept, half precision at the end."""

import torch


def run(code, operators, dtype):
    func_rep = code.Siren(
        dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, final_activation=torch.nn.Identity(), w0=30.0, w0_initial=30.0
    ).to(dtype)
    optimizer = torch.optim.Adam(func_rep.parameters(), lr=2e-4)
    coordinates = torch.rand(50, 2, dtype=torch.float64).to(dtype) * 2 - 1
    features = torch.rand(50, 3, dtype=torch.float64).to(dtype)
    best, kept, losses = float("inf"), None, []
    for _ in range(50):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(func_rep(coordinates), features)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < best:
            best, kept = losses[-1], {name: value.clone() for name, value in func_rep.state_dict().items()}
    func_rep.load_state_dict(kept)
    assert torch.isfinite(func_rep.half()(coordinates.half())).all()
    return losses
