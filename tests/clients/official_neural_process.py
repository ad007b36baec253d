"""Completes images by both official neural processes: one learns its encoder, one the embeddings of its images."""

import torch


def set_process(code, dtype):
    model = code.NeuralProcessImplicit2DHypernet(5, 3).to(dtype)
    model.freeze_hypernet()
    pixels, mask = torch.rand(1, 12, 3, dtype=torch.float64).to(dtype), torch.ones(1, 12, 1, dtype=dtype)
    mask[:, 9:] = 0
    at = torch.rand(1, 12, 2, dtype=torch.float64).to(dtype) * 2 - 1
    given = {"coords": at, "img_sub": pixels, "coords_sub": at, "ctxt_mask": mask}
    return model, given, pixels, list(model.set_encoder.parameters())


def convolutional(code, dtype):
    model = code.ConvolutionalNeuralProcessImplicit2DHypernet(3, 3, partial_conv=True).to(dtype).eval()
    sparse = (torch.rand(1, 3, 32, 32, dtype=torch.float64) * (torch.rand(1, 1, 32, 32) < 0.2)).to(dtype)
    with torch.no_grad():
        _, embedding = model.get_hypo_net_weights({"img_sparse": sparse})
    model.freeze_hypernet()
    embedding.requires_grad_()
    coords = torch.rand(1, 12, 2, dtype=torch.float64).to(dtype) * 2 - 1
    return model, {"coords": coords, "embedding": embedding}, torch.rand(1, 12, 3).to(dtype), [embedding]


def run(code, operators, dtype):
    losses = []
    for (model, given, img, learned), rate in ((set_process(code, dtype), 1e-8), (convolutional(code, dtype), 1e-3)):
        optim = torch.optim.SGD(learned, lr=rate)
        for _ in range(25):
            output = model(given)
            loss = (output["model_out"] - img).square().mean() + 1e-1 * output["latent_vec"].square().mean()
            optim.zero_grad()
            loss.backward()
            optim.step()
            losses.append(loss.item())
    return losses
