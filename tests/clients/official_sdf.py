"""Fits a signed distance function with the official loss: values and normals on the surface, an eikonal term off it."""

import torch
import torch.nn.functional as F


def sdf(operators, model_output, gt):
    gt_sdf, gt_normals = gt["sdf"], gt["normals"]
    coords, pred_sdf = model_output["model_in"], model_output["model_out"]
    gradient = operators.gradient(pred_sdf, coords)
    sdf_constraint = torch.where(gt_sdf != -1, pred_sdf, torch.zeros_like(pred_sdf))
    inter_constraint = torch.where(gt_sdf != -1, torch.zeros_like(pred_sdf), torch.exp(-1e2 * torch.abs(pred_sdf)))
    normal = 1 - F.cosine_similarity(gradient, gt_normals, dim=-1)[..., None]
    normal_constraint = torch.where(gt_sdf != -1, normal, torch.zeros_like(normal))
    grad_constraint = torch.abs(gradient.norm(dim=-1) - 1)
    return (
        torch.abs(sdf_constraint).mean() * 3e3
        + inter_constraint.mean() * 1e2
        + normal_constraint.mean() * 1e2
        + grad_constraint.mean() * 5e1
    )


def run(code, operators, dtype):
    model = code.SingleBVPNet(type="sine", in_features=3, hidden_features=16, num_hidden_layers=2).to(dtype)
    optim = torch.optim.Adam(lr=1e-4, params=model.parameters())
    on = F.normalize(torch.randn(1, 24, 3, dtype=torch.float64), dim=-1).to(dtype)
    off = torch.rand(1, 24, 3, dtype=torch.float64).to(dtype) * 2 - 1
    coords = torch.cat([0.5 * on, off], 1)
    gt = {"sdf": torch.cat([torch.zeros(1, 24, 1), -torch.ones(1, 24, 1)], 1), "normals": torch.cat([on, -on], 1)}
    losses = []
    for _ in range(50):
        loss = sdf(operators, model({"coords": coords}), gt)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    return losses
