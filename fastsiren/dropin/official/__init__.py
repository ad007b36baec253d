"""The classes of the official repository vsitzmann/siren.

Kept: omega is a literal 30; forward takes a dict and returns {"model_in": detached leaf, "model_out": ...}, with
downsample=True the leaf without jitter; SingleBVPNet ignores keywords that it does not know; keys of activations hold
the repr of a class and the index of its layer, and "model_out" of forward_with_activations is a (key, tensor) pair; the
hypo_net of a hypernetwork keeps its own, unused parameters. Differs: nothing is moved to a GPU or printed; layers
without bias work; torchmeta is not needed. Networks of another `type` than "sine" are no SIREN and run in plain torch.
"""

from ..meta import BatchLinear, MetaModule, MetaSequential, get_subdict
from .encoders import ConvImgEncoder, PartialConvImgEncoder, SetEncoder
from .inputs import ImageDownsampling, PosEncodingNeRF, RBFLayer
from .meta_modules import (
    ConvolutionalNeuralProcessImplicit2DHypernet,
    HyperNetwork,
    NeuralProcessImplicit2DHypernet,
)
from .modules import FCBlock, PINNet, Sine, SingleBVPNet

__all__ = [
    "BatchLinear",
    "ConvImgEncoder",
    "ConvolutionalNeuralProcessImplicit2DHypernet",
    "FCBlock",
    "HyperNetwork",
    "ImageDownsampling",
    "MetaModule",
    "MetaSequential",
    "NeuralProcessImplicit2DHypernet",
    "PINNet",
    "PartialConvImgEncoder",
    "PosEncodingNeRF",
    "RBFLayer",
    "SetEncoder",
    "Sine",
    "SingleBVPNet",
    "get_subdict",
]
