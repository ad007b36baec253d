"""Solves a Helmholtz equation with complex coefficients as the official loss does: Jacobians of scaled Jacobians."""

import torch


def compl_mul(x, y):
    a, b, c, d = x[..., ::2], x[..., 1::2], y[..., ::2], y[..., 1::2]
    return torch.stack([a * c - b * d, a * d + b * c], -1).flatten(-2)


def helmholtz(operators, y, x, source, wavenumber=5.0):
    du, status = operators.jacobian(y, x)
    assert status == 0
    damping = torch.stack([torch.ones_like(x), 0.1 * x.square()], -1)
    first = compl_mul(damping[..., 0, :], du[..., 0])
    second = compl_mul(damping[..., 1, :], du[..., 1])
    da, _ = operators.jacobian(first, x)
    db, _ = operators.jacobian(second, x)
    squared = compl_mul(damping[..., 0, :], y) * wavenumber**2
    return (da[..., 0] + db[..., 1] + squared - source).abs().sum(-1).mean()


def run(code, operators, dtype):
    model = code.SingleBVPNet(out_features=2, hidden_features=12, num_hidden_layers=1).to(dtype)
    optim = torch.optim.Adam(lr=2e-5, params=model.parameters())
    coords = torch.rand(1, 30, 2, dtype=torch.float64).to(dtype) * 2 - 1
    source = torch.exp(-10 * coords.square().sum(-1, keepdim=True)).expand(-1, -1, 2)
    losses = []
    for _ in range(50):
        output = model({"coords": coords})
        loss = helmholtz(operators, output["model_out"], output["model_in"], source)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
