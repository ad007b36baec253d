"""The classes of fastsiren.dropin, arguments to make them of, and arguments of the methods that evaluate them."""

from functools import cache

import torch
from torch import nn

from fastsiren.dropin import coin, coinpp, colab, dalmia, finer, functa, lucidrains, metasdf, official, pigan, wire

STACK = {"in_features": 2, "hidden_features": 5, "hidden_layers": 1, "out_features": 1}
DIMS = {"dim_in": 2, "dim_hidden": 5, "dim_out": 1, "num_layers": 2}
LAYER = {"in_features": 2, "out_features": 5}
PAIR = {"dim_in": 2, "dim_out": 5}
BLOCK = {"in_features": 2, "out_features": 1, "num_hidden_layers": 1, "hidden_features": 5}
HYPO = official.SingleBVPNet(hidden_features=5, num_hidden_layers=1)

CLASSES = {
    "coin.Sine": (coin.Sine, {"w0": 1.0}),
    "coin.SirenLayer": (coin.SirenLayer, PAIR),
    "coin.Siren": (coin.Siren, DIMS),
    "coinpp.Bias": (coinpp.Bias, {"size": 3}),
    "coinpp.LatentToModulation": (
        coinpp.LatentToModulation, {"latent_dim": 3, "num_modulations": 5, "dim_hidden": 4, "num_layers": 1},
    ),
    "coinpp.Sine": (coinpp.Sine, {"w0": 1.0}),
    "coinpp.SirenLayer": (coinpp.SirenLayer, PAIR),
    "coinpp.Siren": (coinpp.Siren, DIMS),
    "coinpp.ModulatedSiren": (coinpp.ModulatedSiren, {**DIMS, "use_latent": True}),
    "colab.SineLayer": (colab.SineLayer, LAYER),
    "colab.Siren": (colab.Siren, STACK),
    "dalmia.Sine": (dalmia.Sine, {"w0": 1.0}),
    "dalmia.SIREN": (dalmia.SIREN, {"layers": [5, 4], "in_features": 2, "out_features": 1}),
    "finer.SineLayer": (finer.SineLayer, LAYER),
    "finer.Siren": (finer.Siren, STACK),
    "finer.FinerLayer": (finer.FinerLayer, LAYER),
    "finer.Finer": (finer.Finer, STACK),
    "functa.ModulatedSiren": (functa.ModulatedSiren, {"in_features": 2, "width": 5, "depth": 3}),
    "functa.LatentModulatedSiren": (
        functa.LatentModulatedSiren,
        {"in_features": 2, "width": 5, "depth": 3, "latent_dim": 4, "layer_sizes": (6,)},
    ),
    "functa.LatentToModulation": (
        functa.LatentToModulation, {"latent_dim": 4, "layer_sizes": (6,), "width": 5, "num_modulation_layers": 2},
    ),
    "lucidrains.Sine": (lucidrains.Sine, {"w0": 1.0}),
    "lucidrains.Siren": (lucidrains.Siren, PAIR),
    "lucidrains.SirenNet": (lucidrains.SirenNet, DIMS),
    "lucidrains.Modulator": (lucidrains.Modulator, {"dim_in": 4, "dim_hidden": 5, "num_layers": 2}),
    "lucidrains.SirenWrapper": (
        lucidrains.SirenWrapper,
        {"net": lucidrains.SirenNet(**DIMS), "image_width": 4, "image_height": 3, "latent_dim": 4},
    ),
    "metasdf.BatchLinear": (metasdf.BatchLinear, LAYER),
    "metasdf.SineLayer": (metasdf.SineLayer, LAYER),
    "metasdf.Siren": (metasdf.Siren, STACK),
    "official.BatchLinear": (official.BatchLinear, LAYER),
    "official.ConvImgEncoder": (official.ConvImgEncoder, {"channel": 3, "image_resolution": None}),
    "official.ConvolutionalNeuralProcessImplicit2DHypernet": (
        official.ConvolutionalNeuralProcessImplicit2DHypernet, {"in_features": 3, "out_features": 3},
    ),
    "official.FCBlock": (official.FCBlock, {**BLOCK, "nonlinearity": "sine"}),
    "official.HyperNetwork": (
        official.HyperNetwork,
        {"hyper_in_features": 4, "hyper_hidden_layers": 1, "hyper_hidden_features": 5, "hypo_module": HYPO},
    ),
    "official.ImageDownsampling": (official.ImageDownsampling, {"sidelength": 8, "downsample": True}),
    "official.NeuralProcessImplicit2DHypernet": (
        official.NeuralProcessImplicit2DHypernet, {"in_features": 5, "out_features": 3},
    ),
    "official.PINNet": (official.PINNet, {"type": "sine"}),
    "official.PartialConvImgEncoder": (official.PartialConvImgEncoder, {"channel": 3, "image_resolution": None}),
    "official.PosEncodingNeRF": (official.PosEncodingNeRF, {"in_features": 2, "sidelength": 16}),
    "official.RBFLayer": (official.RBFLayer, {"in_features": 2, "out_features": 5}),
    "official.SetEncoder": (official.SetEncoder, BLOCK),
    "official.SingleBVPNet": (official.SingleBVPNet, {"hidden_features": 5, "num_hidden_layers": 1}),
    "pigan.CustomMappingNetwork": (
        pigan.CustomMappingNetwork, {"z_dim": 4, "map_hidden_dim": 5, "map_output_dim": 6},
    ),
    "pigan.FiLMLayer": (pigan.FiLMLayer, {"input_dim": 2, "hidden_dim": 5}),
    "pigan.SPATIALSIRENBASELINE": (pigan.SPATIALSIRENBASELINE, {"z_dim": 4, "hidden_dim": 5}),
    "pigan.TALLSIREN": (pigan.TALLSIREN, {"input_dim": 2, "z_dim": 4, "hidden_dim": 5}),
    "pigan.UniformBoxWarp": (pigan.UniformBoxWarp, {"sidelength": 0.24}),
    "wire.SineLayer": (wire.SineLayer, LAYER),
    "wire.INR": (wire.INR, STACK),
}  # fmt: skip
"""Every class that checks what it is made of, and arguments for it."""


@cache
def made(name: str) -> nn.Module:
    """Make an object of a class."""
    cls, arguments = CLASSES[name]
    return cls(**arguments)


def uniform(*shape: int) -> torch.Tensor:
    """Make points."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


X, LATENT, IMAGE = uniform(3, 4, 2), uniform(3, 4), uniform(3, 3, 32, 32)
FILM = [{"gamma": uniform(3, 1, 5), "beta": uniform(3, 1, 5)}] * 2
PARAMS = {name: parameter.detach() for name, parameter in made("metasdf.Siren").named_parameters()}
OWN = {"weight": uniform(5, 2), "bias": uniform(5)}
SET = {"coords": X, "coords_sub": X, "img_sub": uniform(3, 4, 3)}
GEN = {"input": X, "z": LATENT, "ray_directions": uniform(3, 4, 3)}
G9 = uniform(3, 45)

FORWARDS = {
    **{f"{code}.Sine()": ("forward", {"x": X}) for code in ("coin", "coinpp", "lucidrains", "dalmia")},
    **{f"{code}.SirenLayer()": ("forward", {"x": X}) for code in ("coin", "coinpp")},
    **{f"{code}.Siren()": ("forward", {"x": X}) for code in ("coin", "coinpp", "lucidrains")},
    **{f"{code}.SineLayer()": ("forward", {"input": X}) for code in ("colab", "finer", "wire")},
    "coinpp.Bias()": ("forward", {"x": uniform(2, 3)}),
    "coinpp.LatentToModulation()": ("forward", {"latent": uniform(2, 3)}),
    "coinpp.ModulatedSiren()": ("forward", {"x": X}),
    "coinpp.ModulatedSiren().modulated_forward": ("modulated_forward", {"x": X, "latent": uniform(3, 64)}),
    "colab.Siren()": ("forward", {"coords": X}),
    "colab.Siren().forward_with_activations": ("forward_with_activations", {"coords": X}),
    "dalmia.SIREN()": ("forward", {"X": X}),
    "finer.Siren()": ("forward", {"coords": X}),
    "finer.FinerLayer()": ("forward", {"input": X}),
    "finer.Finer()": ("forward", {"coords": X}),
    "functa.ModulatedSiren()": ("forward", {"coords": X}),
    "functa.LatentModulatedSiren()": ("forward", {"coords": X}),
    "functa.LatentModulatedSiren().modulated_forward": ("modulated_forward", {"coords": X, "latent": LATENT}),
    "functa.LatentToModulation()": ("forward", {"latent": LATENT}),
    "lucidrains.SirenNet()": ("forward", {"x": X, "mods": (uniform(3, 1, 5), uniform(3, 1, 5))}),
    "lucidrains.Modulator()": ("forward", {"z": LATENT}),
    "lucidrains.SirenWrapper()": ("forward", {"img": uniform(3, 1, 3, 4), "latent": LATENT}),
    "metasdf.BatchLinear()": ("forward", {"input": X, "params": OWN}),
    "metasdf.SineLayer()": ("forward", {"input": X}),
    "metasdf.SineLayer().forward_with_film": (
        "forward_with_film", {"input": X, "gamma": FILM[0]["gamma"], "beta": FILM[0]["beta"]},
    ),
    "metasdf.Siren()": ("forward", {"coords": X, "params": PARAMS}),
    "metasdf.Siren().forward_with_film": ("forward_with_film", {"coords": X, "film": FILM}),
    "official.BatchLinear()": ("forward", {"input": X, "params": OWN}),
    "official.ConvImgEncoder()": ("forward", {"I": IMAGE}),
    "official.PartialConvImgEncoder()": ("forward", {"I": IMAGE}),
    "official.ConvolutionalNeuralProcessImplicit2DHypernet()": (
        "forward", {"model_input": {"coords": X, "img_sparse": IMAGE}},
    ),
    "official.NeuralProcessImplicit2DHypernet()": ("forward", {"model_input": SET}),
    "official.FCBlock()": ("forward", {"coords": X}),
    "official.FCBlock().forward_with_activations": ("forward_with_activations", {"coords": X}),
    "official.HyperNetwork()": ("forward", {"z": LATENT}),
    "official.ImageDownsampling()": ("forward", {"coords": X}),
    "official.PINNet()": ("forward", {"model_input": {"coords": X}}),
    "official.SingleBVPNet()": ("forward", {"model_input": {"coords": X}}),
    "official.SingleBVPNet().forward_with_activations": ("forward_with_activations", {"model_input": {"coords": X}}),
    "official.PosEncodingNeRF()": ("forward", {"coords": X}),
    "official.RBFLayer()": ("forward", {"input": X}),
    "official.SetEncoder()": ("forward", {"context_x": uniform(3, 4, 1), "context_y": uniform(3, 4, 1)}),
    "pigan.CustomMappingNetwork()": ("forward", {"z": LATENT}),
    "pigan.FiLMLayer()": ("forward", {"x": X, "freq": uniform(3, 5), "phase_shift": uniform(3, 5)}),
    "pigan.TALLSIREN()": ("forward", GEN),
    "pigan.SPATIALSIRENBASELINE()": ("forward", {**GEN, "input": uniform(3, 4, 3)}),
    "pigan.TALLSIREN().forward_with_frequencies_phase_shifts": (
        "forward_with_frequencies_phase_shifts",
        {"input": X, "frequencies": G9, "phase_shifts": G9, "ray_directions": GEN["ray_directions"]},
    ),
    "pigan.UniformBoxWarp()": ("forward", {"coordinates": X}),
    "wire.INR()": ("forward", {"coords": X}),
}  # fmt: skip
"""Methods that evaluate a class, and arguments for them."""
