"""The hypernetworks of the official repository."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.values import described
from ...modulation import Conditioned
from .. import checks
from ..meta import MetaModule
from .encoders import ConvImgEncoder, PartialConvImgEncoder, SetEncoder, known
from .modules import FCBlock, SingleBVPNet

LATENT = 256
"""Width of the embeddings of both neural processes."""


class HyperNetwork(nn.Module):
    """Maps an embedding to the parameters of another module, by one ReLU network per parameter.

    Args:
        hyper_in_features: width of the embedding.
        hyper_hidden_layers: number of hidden layers of each network.
        hyper_hidden_features: their width.
        hypo_module: the module whose parameters are predicted; it is not kept.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import official
        >>> net = official.SingleBVPNet(hidden_features=8, num_hidden_layers=1)
        >>> params = official.HyperNetwork(4, 1, 16, net)(torch.rand(3, 4))
        >>> net({"coords": torch.rand(3, 5, 2)}, params=params)["model_out"].shape
        torch.Size([3, 5, 1])
    """

    def __init__(
        self, hyper_in_features: int, hyper_hidden_layers: int, hyper_hidden_features: int, hypo_module: MetaModule
    ) -> None:
        super().__init__()
        checks.sizes(hyper_in_features=hyper_in_features, hyper_hidden_features=hyper_hidden_features)
        checks.sizes(0, hyper_hidden_layers=hyper_hidden_layers)
        if not isinstance(hypo_module, MetaModule):
            raise TypeError(f"hypo_module: got {described(hypo_module)}, expected a MetaModule such as SingleBVPNet")
        self.names: list[str] = []
        self.nets = nn.ModuleList()
        self.param_shapes: list[torch.Size] = []
        for name, parameter in hypo_module.meta_named_parameters():
            self.names.append(name)
            self.param_shapes.append(parameter.size())
            net = FCBlock(
                hyper_in_features, parameter.numel(), hyper_hidden_layers, hyper_hidden_features,
                outermost_linear=True, nonlinearity="relu",
            )  # fmt: skip
            self.nets.append(net)
            _init_last(net.net[-1][0], parameter.shape[-1] if "weight" in name else hyper_hidden_features)

    def forward(self, z: Tensor) -> "OrderedDict[str, Tensor]":  # [B, hyper_in_features] -> [B, ...] by name
        """Parameters of one module per embedding, as `params` of that module takes them."""
        checks.points("z", z, self.nets)
        predicted = zip(self.names, self.nets, self.param_shapes, strict=True)
        return OrderedDict((name, net(z).reshape(-1, *shape)) for name, net, shape in predicted)


@torch.no_grad()
def _init_last(linear: nn.Linear, fan: int) -> None:
    """Small weights, so that the biases are the parameters of an ordinary network to begin with."""
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    linear.weight /= 1e2
    linear.bias.uniform_(-1 / fan, 1 / fan)


class _NeuralProcess(nn.Module):
    """A SIREN whose parameters a hypernetwork predicts from an embedding, which an encoder makes of observations."""

    hypo_net: SingleBVPNet
    hyper_net: HyperNetwork

    def _add_networks(self, out_features: int, image_resolution: Any) -> None:
        self.hypo_net = SingleBVPNet(out_features=out_features, type="sine", sidelength=image_resolution, in_features=2)
        self.hyper_net = HyperNetwork(LATENT, 1, 256, self.hypo_net)

    def embed(self, model_input: dict[str, Any]) -> Tensor:
        """The embedding of observations."""
        raise NotImplementedError(f"{type(self).__name__}.embed")

    def get_hypo_net_weights(self, model_input: dict[str, Any]) -> tuple["OrderedDict[str, Tensor]", Tensor]:
        """The predicted parameters, and the embedding."""
        embedding = self.embed(model_input)
        return self.hyper_net(embedding), embedding

    def conditioned(self, model_input: dict[str, Any]) -> Conditioned:
        """The predicted networks, which every operator takes; `model_input` as in `forward`, without coords."""
        return self.hypo_net.siren_parameters(self._predicted(model_input)[0])

    def _predicted(self, model_input: dict[str, Any]) -> tuple["OrderedDict[str, Tensor]", Tensor]:
        embedding = model_input.get("embedding") if isinstance(model_input, Mapping) else None
        embedding = self.embed(model_input) if embedding is None else embedding
        checks.tensor("embedding", embedding, ("B", LATENT))
        return self.hyper_net(embedding), embedding

    def forward(self, model_input: dict[str, Any]) -> dict[str, Any]:
        """Evaluate the predicted networks.

        Args:
            model_input: "coords" [B, N, 2], and the observations, or an "embedding" [B, 256] in their place.

        Returns:
            model_in, model_out, latent_vec and hypo_params.
        """
        params, embedding = self._predicted(model_input)
        return {**self.hypo_net(model_input, params=params), "latent_vec": embedding, "hypo_params": params}

    def freeze_hypernet(self) -> None:
        """Leave the hypernetwork out of training."""
        self.hyper_net.requires_grad_(False)


class NeuralProcessImplicit2DHypernet(_NeuralProcess):
    """An image from a set of its pixels.

    Args:
        in_features: width of an observation, coordinates and colour.
        out_features: number O of outputs.
        image_resolution: size of the image, which the jitter of SingleBVPNet would use.
        encoder_nl: activation of the encoder, "sine" or "relu".
    """

    def __init__(
        self, in_features: int, out_features: int, image_resolution: Any = None, encoder_nl: str = "sine"
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features)
        known("encoder_nl", encoder_nl)
        self._add_networks(out_features, image_resolution)
        self.set_encoder = SetEncoder(in_features, LATENT, 2, LATENT, nonlinearity=encoder_nl)

    def embed(self, model_input: dict[str, Any]) -> Tensor:
        """The embedding of img_sub [B, M, C] at coords_sub [B, M, 2], with a ctxt_mask [B, M, 1] if there is one."""
        pixels, coords = (checks.entry("model_input", model_input, key) for key in ("img_sub", "coords_sub"))
        return self.set_encoder(coords, pixels, ctxt_mask=model_input.get("ctxt_mask"))


class ConvolutionalNeuralProcessImplicit2DHypernet(_NeuralProcess):
    """An image from a sparse one of 32 x 32 pixels.

    Args:
        in_features: channels of the sparse image.
        out_features: number O of outputs.
        image_resolution: size of the image, which the jitter of SingleBVPNet would use.
        partial_conv: whether convolutions leave out pixels that are not observed.
    """

    def __init__(
        self, in_features: int, out_features: int, image_resolution: Any = None, partial_conv: bool = False
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features)
        make = PartialConvImgEncoder if partial_conv else ConvImgEncoder
        self.encoder = make(channel=in_features, image_resolution=image_resolution)
        self._add_networks(out_features, image_resolution)

    def embed(self, model_input: dict[str, Any]) -> Tensor:
        """The embedding of img_sparse [B, C, 32, 32]."""
        return self.encoder(checks.entry("model_input", model_input, "img_sparse"))

    def freeze_hypernet(self) -> None:
        """Leave the hypernetwork and the encoder out of training."""
        super().freeze_hypernet()
        self.encoder.requires_grad_(False)
