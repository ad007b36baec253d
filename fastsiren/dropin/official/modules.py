"""Networks of the official repository: Sine, FCBlock, SingleBVPNet and PINNet."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.values import one_of
from ...modulation import Conditioned
from .. import checks
from ..base import FusedSiren, Layer, draw, evaluate, siren_bound
from ..meta import BatchLinear, MetaModule, MetaSequential, Params, get_subdict
from .inputs import ImageDownsampling, PosEncodingNeRF, RBFLayer

OMEGA = 30.0


class Sine(nn.Module):
    """sin(30 x)."""

    w0 = OMEGA

    def forward(self, input: Tensor) -> Tensor:  # [...] -> [...]
        """Evaluate the sine."""
        checks.tensor("input", input)
        return torch.sin(OMEGA * input)


def _to_weights(rule: Callable[[Tensor], object], module: nn.Module) -> None:
    """Fill the weight of a linear layer; with nn.Module.apply, of all of them."""
    if isinstance(module, nn.Linear):
        rule(module.weight)


def sine_init(module: nn.Module) -> None:
    """Draw the weight of a layer in +-sqrt(6 / n_in) / 30."""
    if isinstance(module, nn.Linear):
        draw(module, siren_bound(module.in_features, OMEGA, is_first=False))


def first_layer_sine_init(module: nn.Module) -> None:
    """Draw the weight of a first layer in +-1 / n_in."""
    if isinstance(module, nn.Linear):
        draw(module, siren_bound(module.in_features, OMEGA, is_first=True))


def _truncated(weight: Tensor) -> None:
    deviation = math.sqrt(2 / sum(weight.shape))
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def _lecun(weight: Tensor, variance: float = 1.0) -> None:
    nn.init.normal_(weight, std=math.sqrt(variance) / math.sqrt(weight.shape[-1]))


def _elu(weight: Tensor) -> None:
    # Keeps the variance of activations through an ELU.
    _lecun(weight, 1.5505188080679277)


def _kaiming(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


# Not closures, so that a module that keeps its initialiser can be pickled.
init_weights_normal = partial(_to_weights, _kaiming)
init_weights_xavier = partial(_to_weights, nn.init.xavier_normal_)
init_weights_selu = partial(_to_weights, _lecun)
init_weights_elu = partial(_to_weights, _elu)
init_weights_trunc_normal = partial(_to_weights, _truncated)

# The activation and the initialiser of each type.
NONLINEARITIES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], None]]] = {
    "sine": (Sine, sine_init),
    "relu": (lambda: nn.ReLU(inplace=True), init_weights_normal),
    "sigmoid": (nn.Sigmoid, init_weights_xavier),
    "tanh": (nn.Tanh, init_weights_xavier),
    "selu": (lambda: nn.SELU(inplace=True), init_weights_selu),
    "softplus": (nn.Softplus, init_weights_normal),
    "elu": (lambda: nn.ELU(inplace=True), init_weights_elu),
}


class FCBlock(FusedSiren, MetaModule):
    """A network of linear layers and one activation, whose parameters may come in.

    Args:
        in_features: number D of coordinates.
        out_features: number O of outputs.
        num_hidden_layers: number of H x H layers.
        hidden_features: width H.
        outermost_linear: whether the last layer is linear.
        nonlinearity: a name of NONLINEARITIES.
        weight_init: applied to all modules in place of the initialiser of the type.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the type is not known, or a size is out of range.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import official
        >>> net = official.FCBlock(2, 1, 1, 16, outermost_linear=True, nonlinearity="sine")
        >>> net(torch.rand(1, 5, 2)).shape
        torch.Size([1, 5, 1])
    """

    net: Any
    points = "coords"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_hidden_layers: int,
        hidden_features: int,
        outermost_linear: bool = False,
        nonlinearity: str = "relu",
        weight_init: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        checks.sizes(in_features=in_features, out_features=out_features, hidden_features=hidden_features)
        checks.sizes(0, num_hidden_layers=num_hidden_layers)
        one_of("nonlinearity", nonlinearity, list(NONLINEARITIES))
        checks.function("weight_init", weight_init)
        self.nonlinearity = nonlinearity
        make, rule = NONLINEARITIES[nonlinearity]
        # One instance serves all layers.
        activation = make()
        self.weight_init = rule if weight_init is None else weight_init
        widths = [in_features, *[hidden_features] * (num_hidden_layers + 1), out_features]
        layers = [[BatchLinear(n_in, n_out), activation] for n_in, n_out in pairwise(widths)]
        layers[-1] = layers[-1][:1] if outermost_linear else layers[-1]
        self.net = MetaSequential(*(MetaSequential(*layer) for layer in layers))
        self.net.apply(self.weight_init)
        if nonlinearity == "sine":
            self.net[0].apply(first_layer_sine_init)

    def siren_layers(self) -> list[Layer]:
        """The layers, first to last.

        Raises:
            TypeError: the activation is no sine.
        """
        if self.nonlinearity != "sine":
            raise TypeError(f"nonlinearity: got {self.nonlinearity!r}, expected 'sine': operators serve SIRENs only")
        return [Layer(layer[0], OMEGA if len(layer) > 1 else None) for layer in self.net]

    def forward(self, coords: Tensor, params: Params | None = None, **kwargs: Any) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network at coordinates as they are.

        Args:
            coords: coordinates [..., D].
            params: parameters under the names of the state dict in place of the module's own; with a leading axis for
                a batch of networks at coordinates [B, N, D].
            kwargs: not used.
        """
        if self.nonlinearity == "sine":
            return evaluate(coords, self.siren_parameters(params), self.points)
        checks.points("coords", coords, self.net[0][0].weight)
        return self.net(coords, params=get_subdict(params, "net"))

    def forward_with_activations(
        self, coords: Tensor, params: Params | None = None, retain_grad: bool = False
    ) -> "OrderedDict[str, Tensor]":
        """Evaluate layer by layer at a detached copy of coordinates: the input, then each linear map and activation.

        Args:
            coords: coordinates [..., D].
            params: as in forward.
            retain_grad: whether every result keeps its gradient.
        """
        checks.points("coords", coords, self.net[0][0].weight)
        x = checks.leaf("coords", coords)
        activations = OrderedDict(input=x)
        for i, layer in enumerate(self.net):
            for j, module in enumerate(layer):
                given = params is not None and isinstance(module, nn.Linear)
                x = module(x, params=get_subdict(params, f"net.{i}.{j}")) if given else module(x)
                if retain_grad:
                    x.retain_grad()
                activations[f"{type(module)}_{i}"] = x
        return activations


class SingleBVPNet(MetaModule):
    """A network that takes {"coords": ...}, at detached coordinates.

    Args:
        out_features: number O of outputs.
        type: activation, a name of NONLINEARITIES.
        in_features: number D of coordinates.
        mode: "mlp", or "rbf" or "nerf" for radial or positional features in front.
        hidden_features: width H.
        num_hidden_layers: number of H x H layers.
        kwargs: sidelength, downsample, rbf_centers, fn_samples and use_nyquist; others are ignored.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import official
        >>> output = official.SingleBVPNet(hidden_features=16)({"coords": torch.rand(1, 5, 2)})
        >>> output["model_in"].requires_grad, output["model_out"].shape
        (True, torch.Size([1, 5, 1]))
    """

    net: FCBlock

    def __init__(
        self,
        out_features: int = 1,
        type: str = "sine",
        in_features: int = 2,
        mode: str = "mlp",
        hidden_features: int = 256,
        num_hidden_layers: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        checks.sizes(out_features=out_features, in_features=in_features, hidden_features=hidden_features)
        checks.sizes(0, num_hidden_layers=num_hidden_layers)
        one_of("type", type, list(NONLINEARITIES))
        self.mode = one_of("mode", mode, ("mlp", "rbf", "nerf"))
        sidelength = kwargs.get("sidelength")
        if mode == "rbf":
            self.rbf_layer = RBFLayer(in_features, kwargs.get("rbf_centers", 1024))
            in_features = self.rbf_layer.out_features
        elif mode == "nerf":
            self.positional_encoding = PosEncodingNeRF(
                in_features, sidelength, kwargs.get("fn_samples"), kwargs.get("use_nyquist", True)
            )
            in_features = self.positional_encoding.out_dim
        self.image_downsampling = ImageDownsampling(sidelength, kwargs.get("downsample", False))
        self.net = FCBlock(
            in_features, out_features, num_hidden_layers, hidden_features, outermost_linear=True, nonlinearity=type
        )

    def siren_parameters(self, params: Params | None = None) -> Conditioned:
        """The network as it is now, or the one that `params` are, as in `forward`.

        Raises:
            TypeError: the network is no SIREN of its coordinates.
        """
        if getattr(self, "mode", "mlp") != "mlp":
            raise TypeError(f"mode: got {self.mode!r}, expected 'mlp': features in front are no part of a SIREN")
        return self.net.siren_parameters(get_subdict(params, "net"))

    def forward(self, model_input: dict[str, Any], params: Params | None = None) -> dict[str, Tensor]:
        """Evaluate at a detached copy of the coordinates, which is returned too.

        Args:
            model_input: {"coords": [B, N, D]}.
            params: parameters under the names of the state dict in place of the module's own, one set or one per batch.
        """
        leaf = checks.leaf("coords", checks.entry("model_input", model_input, "coords"))
        coords = self.image_downsampling(leaf)
        if self.mode == "rbf":
            coords = self.rbf_layer(coords)
        elif self.mode == "nerf":
            coords = self.positional_encoding(coords)
        return {"model_in": leaf, "model_out": self.net(coords, get_subdict(params, "net"))}

    def forward_with_activations(self, model_input: dict[str, Any]) -> dict[str, Any]:
        """Evaluate layer by layer; "model_out" is the last of the activations with its key."""
        coords = checks.leaf("coords", checks.entry("model_input", model_input, "coords"))
        activations = self.net.forward_with_activations(coords)
        return {"model_in": coords, "model_out": activations.popitem(), "activations": activations}


class PINNet(nn.Module):
    """The network of Raissi et al. 2019: ten layers of width 20.

    Args:
        out_features: number O of outputs.
        type: activation, a name of NONLINEARITIES.
        in_features: number D of coordinates.
        mode: not used.
    """

    net: FCBlock

    def __init__(self, out_features: int = 1, type: str = "tanh", in_features: int = 2, mode: str = "mlp") -> None:
        super().__init__()
        checks.sizes(out_features=out_features, in_features=in_features)
        one_of("type", type, list(NONLINEARITIES))
        self.mode = mode
        self.net = FCBlock(
            in_features, out_features, 8, 20, outermost_linear=True, nonlinearity=type,
            weight_init=init_weights_trunc_normal,
        )  # fmt: skip

    def siren_parameters(self) -> Conditioned:
        """The network as it is now.

        Raises:
            TypeError: the activation is no sine.
        """
        return self.net.siren_parameters()

    def forward(self, model_input: dict[str, Any]) -> dict[str, Tensor]:
        """Evaluate at a detached copy of the coordinates, which is returned too."""
        leaf = checks.leaf("coords", checks.entry("model_input", model_input, "coords"))
        return {"model_in": leaf, "model_out": self.net(leaf)}
