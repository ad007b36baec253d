"""Programs for existing SIREN code give the same losses with our classes, and with their own ones converted."""

import math
from types import SimpleNamespace

import pytest
import torch

import fastsiren
import oracle
from clients import (
    coin_image,
    coinpp_meta,
    colab_image,
    colab_poisson,
    dalmia_poisson,
    deepxde_burgers,
    finer_image,
    finer_variable,
    functa_meta,
    light_field_film,
    lucidrains_latent,
    lucidrains_wrapper,
    metasdf_maml,
    official_helmholtz,
    official_hypernetwork,
    official_image,
    official_neural_process,
    official_sdf,
    official_wave,
    pigan_field,
    plain,
    plain_conditioned,
    wire_denoise,
)
from clients.plain_pigan import TallSiren
from fastsiren.dropin import (
    coin,
    coinpp,
    colab,
    dalmia,
    deepxde,
    diff_operators,
    finer,
    functa,
    lucidrains,
    metasdf,
    official,
    pigan,
    wire,
)

HYPER = {"SingleBVPNet": plain.SingleBVPNet, "HyperNetwork": plain_conditioned.HyperNetwork}
PROCESSES = {
    "NeuralProcessImplicit2DHypernet": plain_conditioned.NeuralProcess,
    "ConvolutionalNeuralProcessImplicit2DHypernet": plain_conditioned.NeuralProcess,
}
WRAPPED = {"SirenNet": plain.SirenNet, "SirenWrapper": plain_conditioned.SirenWrapper}
# A program, our classes, and those of its user.
CLIENTS = {
    "colab image": (colab_image, colab, {"Siren": plain.Colab}),
    "colab poisson": (colab_poisson, colab, {"Siren": plain.Colab}),
    "official image": (official_image, official, {"SingleBVPNet": plain.SingleBVPNet}),
    "official sdf": (official_sdf, official, {"SingleBVPNet": plain.SingleBVPNet}),
    "official helmholtz": (official_helmholtz, official, {"SingleBVPNet": plain.SingleBVPNet}),
    "official wave": (official_wave, official, {"SingleBVPNet": plain.SingleBVPNet}),
    "official hypernetwork": (official_hypernetwork, official, HYPER),
    "official neural process": (official_neural_process, official, PROCESSES),
    "lucidrains wrapper": (lucidrains_wrapper, lucidrains, WRAPPED),
    "lucidrains latent": (lucidrains_latent, lucidrains, {"SirenNet": plain.SirenNet}),
    "dalmia poisson": (dalmia_poisson, dalmia, {"SIREN": plain.Dalmia}),
    "coin image": (coin_image, coin, {"Siren": plain.Coin}),
    "coinpp meta": (coinpp_meta, coinpp, {"ModulatedSiren": plain.ModulatedCoinPP}),
    "metasdf maml": (metasdf_maml, metasdf, {"Siren": plain.MetaSdf}),
    "light field film": (light_field_film, metasdf, {"Siren": plain.MetaSdf}),
    "wire denoise": (wire_denoise, wire, {"INR": plain.Wire}),
    "finer": (finer_variable, finer, {"Finer": plain.Finer}),
    "functa meta": (functa_meta, functa, {"LatentModulatedSiren": plain_conditioned.Functa}),
    "finer image": (finer_image, finer, {"Siren": plain.FinerSiren}),
    "deepxde burgers": (deepxde_burgers, wire, {"INR": plain.Wire}),
    "pigan field": (pigan_field, pigan, {"TALLSIREN": TallSiren}),
}
# Derivative functions, ours and the plain ones, where they are not those of the official repository.
OPERATORS = {"deepxde burgers": (deepxde, SimpleNamespace(jacobian=plain.derivative, hessian=plain.second_derivative))}
# No SIRENs as they are, or of 50 million parameters.
UNCONVERTED = {"Finer", "HyperNetwork", "SirenWrapper", "LatentModulatedSiren", *PROCESSES}
SLOW = {"official neural process"}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


def losses(client, code, operators, dtype):
    torch.manual_seed(7)
    with oracle.one_thread():
        return client.run(code, operators, dtype)


def converted(name, make):
    return make if name in UNCONVERTED else lambda *args, **options: fastsiren.convert(make(*args, **options))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CLIENTS])
def test_losses_of_fifty_steps(name, dtype):
    client, ours, classes = CLIENTS[name]
    operators, theirs = OPERATORS.get(name, (diff_operators, plain))
    expected = losses(client, SimpleNamespace(**classes), theirs, dtype)
    assert len(expected) >= 50 and expected[-1] != expected[0] and all(map(math.isfinite, expected))
    fast = {key: converted(key, make) for key, make in classes.items()}
    for code in [ours] if fast == classes else [ours, SimpleNamespace(**fast)]:
        found = losses(client, code, operators, dtype)
        errors = [abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True)]
        assert all(error <= TOLERANCES[dtype] for error in errors), max(errors)
