"""Solves a wave equation as the official loss does: the Jacobian of the Jacobian, with initial values at t = 0."""

import torch


def run(code, operators, dtype):
    model = code.SingleBVPNet(in_features=3, hidden_features=12, num_hidden_layers=1).to(dtype)
    optim = torch.optim.Adam(lr=2e-5, params=model.parameters())
    coords = torch.rand(1, 36, 3, dtype=torch.float64).to(dtype) * 2 - 1
    coords[:, ::3, 0] = 0
    start, slowness = torch.exp(-20 * coords[..., 1:].square().sum(-1, keepdim=True)), 1.5
    at_start = coords[..., :1] == 0
    losses = []
    for _ in range(50):
        output = model({"coords": coords})
        x, y = output["model_in"], output["model_out"]
        du, _ = operators.jacobian(y, x)
        dudt = du[..., 0]
        hess, status = operators.jacobian(du[..., 0, :], x)
        assert status == 0
        laplace = hess[..., 1, 1, None] + hess[..., 2, 2, None]
        diff_constraint_hom = hess[..., 0, 0, None] - laplace / slowness**2
        dirichlet = torch.where(at_start, y - start, torch.zeros_like(y))
        neumann = torch.where(at_start, dudt, torch.zeros_like(dudt))
        loss = dirichlet.abs().sum() * 10 + neumann.abs().sum() + diff_constraint_hom.abs().sum()
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
