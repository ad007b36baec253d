"""Initial weights: the paper's scheme and the variants in use, with their distributions and their order of draws.

The order matters: with the same seed, on the same device and in the same dtype, a scheme gives bit for bit the
parameters that the code it is named after draws. Schemes that come from JAX or Keras match in distribution only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor, nn

from .engine.values import described, flag, frequency, listed, number

Rule = Callable[[Tensor, "Fan"], object]
"""Fills a tensor in place, given the sizes and the omega of its layer."""


@dataclass(frozen=True)
class Fan:
    """What a rule may look at."""

    n_in: int
    n_out: int
    omega: float
    """omega_0 of the hidden layers; also for the linear last layer, which has none of its own."""


class Order(Enum):
    """When the default draws of nn.Linear happen, which a faithful seed has to repeat."""

    LAYERWISE = "default draw, weight, bias, layer by layer"
    DEFAULTS_FIRST = "default draw of all layers, then weight and bias of each"
    FIRST_TWICE = "default draw of all layers, then the hidden rule on every layer, then the first layer again"
    NO_DEFAULTS = "weight and bias, layer by layer, with no default draw"


@dataclass(frozen=True)
class Scheme:
    """One way to draw initial parameters.

    Args:
        source: the code that draws so, and what sets it apart.
        first: rule of the first layer's weight; None keeps the default draw of nn.Linear.
        hidden: rule of the other sine layers' weights.
        last: rule of the linear last layer's weight.
        bias: rule of biases; None keeps the default draw, uniform in +-1/sqrt(n_in).
        first_bias: rule of the first layer's bias, where it differs.
        bias_as_weight: biases are drawn by the rule of their layer's weight.
        order: order of draws.

    Raises:
        TypeError: a rule cannot be called, or another argument is of the wrong type.
    """

    source: str
    first: Rule | None
    hidden: Rule | None
    last: Rule | None
    bias: Rule | None = None
    first_bias: Rule | None = None
    bias_as_weight: bool = False
    order: Order = Order.LAYERWISE

    def __post_init__(self) -> None:
        for name in ("first", "hidden", "last", "bias", "first_bias"):
            rule = getattr(self, name)
            if rule is not None and not callable(rule):
                raise TypeError(f"{name}: got {described(rule)}, expected None or a function of a tensor and a Fan")
        flag("bias_as_weight", self.bias_as_weight)
        if not isinstance(self.order, Order):
            raise TypeError(f"order: got {described(self.order)}, expected a fastsiren.init.Order")


@dataclass(frozen=True)
class Uniform:
    """The rule of a uniform draw in +-bound, a number or a function of a Fan.

    Raises:
        TypeError: the bound is neither.
        ValueError: the bound is negative or not finite.
    """

    # A class and named functions, not closures, so that a module that holds a Scheme can be pickled.
    bound: float | Callable[[Fan], float]

    def __post_init__(self) -> None:
        if not callable(self.bound) and not 0 <= number("bound", self.bound) < math.inf:
            raise ValueError(f"bound: got {self.bound!r}, expected a finite number >= 0, or a function of a Fan")

    def __call__(self, tensor: Tensor, fan: Fan) -> None:
        """Fill the tensor."""
        limit = self.bound(fan) if callable(self.bound) else self.bound
        tensor.uniform_(-limit, limit)


def _zero(tensor: Tensor, fan: Fan) -> None:
    tensor.zero_()


def _normal(tensor: Tensor, fan: Fan) -> None:
    tensor.normal_(0.0, 1 / math.sqrt(fan.n_in))


def _inverse(fan: Fan) -> float:
    # The paper prints another rule for the first layer; its authors' code and this one use 1/d, which with omega_0 = 30
    # spreads the phases of the first layer over several periods of inputs in [-1, 1].
    return 1 / fan.n_in


def _he(fan: Fan) -> float:
    return math.sqrt(6 / fan.n_in)


def _he_by_omega(fan: Fan) -> float:
    return _he(fan) / abs(fan.omega)


def _he_by_30(fan: Fan) -> float:
    return _he(fan) / 30


def _he_by_25(fan: Fan) -> float:
    return _he(fan) / 25


def _he_dalmia(fan: Fan) -> float:
    # Written as its source has it, so that the bound is rounded alike.
    return math.sqrt(6) * (1 / math.sqrt(fan.n_in))


def _by_fan_in(fan: Fan) -> float:
    return math.sqrt(1 / fan.n_in)


def _he_of_vector(fan: Fan) -> float:
    # Keras takes the length of a vector for its fan.
    return math.sqrt(6 / fan.n_out)


_first, _by_omega, _no_omega = Uniform(_inverse), Uniform(_he_by_omega), Uniform(_he)
_by_30, _by_25, _dalmia = Uniform(_he_by_30), Uniform(_he_by_25), Uniform(_he_dalmia)

_PAPER = Scheme("vsitzmann/siren, explore_siren.ipynb; also WIRE and FINER's Siren", _first, _by_omega, _by_omega)

SCHEMES: dict[str, Scheme] = {
    "siren": _PAPER,
    "colab": _PAPER,
    "official": Scheme(
        "vsitzmann/siren, SingleBVPNet and FCBlock; 30 is literal, whatever omega is",
        _first, _by_30, _by_30, order=Order.FIRST_TWICE,
    ),
    "metasdf": Scheme(
        "vsitzmann/metasdf and light-field-networks; 30 is literal in the last layer", _first, _by_omega, _by_30
    ),
    "lucidrains": Scheme(
        "lucidrains/siren-pytorch; biases as narrow as weights, so phases have a standard deviation of 1.0, not 1.5",
        _first, _by_omega, _by_omega, bias_as_weight=True, order=Order.NO_DEFAULTS,
    ),
    "coin": Scheme(
        "EmilienDupont/coin, coinpp, GradNCP; as lucidrains, but drawn over an nn.Linear",
        _first, _by_omega, _by_omega, bias_as_weight=True,
    ),
    "dalmia": Scheme(
        "dalmia/siren; no omega anywhere, so meant for omega_0 = 1 in hidden layers",
        _dalmia, _dalmia, _dalmia, order=Order.DEFAULTS_FIRST,
    ),
    "i3d": Scheme(
        "differential_geometry_in_neural_implicits", _first, _by_omega, _by_omega, order=Order.DEFAULTS_FIRST
    ),
    "functa": Scheme(
        "deepmind/functa, in distribution; biases zero", _first, _by_omega, _by_omega, _zero, order=Order.NO_DEFAULTS
    ),
    "fit-a-nef": Scheme(
        "samuelepapa/fit-a-nef, in distribution; last weight normal with deviation 1/sqrt(n_in), biases zero",
        _first, _by_omega, _normal, _zero, order=Order.NO_DEFAULTS,
    ),
    "pi-gan": Scheme(
        "marcoamonteiro/pi-GAN without its mapping network; 25 is literal",
        _first, _by_25, _by_25, order=Order.FIRST_TWICE,
    ),
    "physicsnemo": Scheme(
        "NVIDIA/physicsnemo-sym; the linear last layer has no omega in its bound",
        _first, _by_omega, _no_omega, Uniform(_by_fan_in),
    ),
    "tf-siren": Scheme(
        "titu1994/tf_SIREN, in distribution; last layer with omega 1, Keras he_uniform biases",
        _first, _by_omega, _no_omega, Uniform(_he_of_vector), order=Order.NO_DEFAULTS,
    ),
    "finer": replace(_PAPER, source="liuzhen0212/FINER without first_bias_scale; see finer()"),
    "torch": Scheme("torch.nn.Linear, unchanged", None, None, None),
}  # fmt: skip


def finer(*, first_bias_scale: float | None = None) -> Scheme:
    """The scheme of FINER: the paper's, with biases of the first layer uniform in +-first_bias_scale.

    Args:
        first_bias_scale: positive bound; None leaves the default draw, as the scheme named "finer" does.

    Raises:
        TypeError: the bound is no number.
        ValueError: the bound is not positive and finite.

    Example:
        >>> import fastsiren
        >>> net = fastsiren.Siren(2, 16, 2, 1, init=fastsiren.init.finer(first_bias_scale=5.0))
        >>> bool(net.net[0].linear.bias.abs().max() > 1)
        True
    """
    if first_bias_scale is None:
        return SCHEMES["finer"]
    scale = number("first_bias_scale", first_bias_scale)
    if not 0 < scale < math.inf:
        raise ValueError(f"first_bias_scale: got {first_bias_scale!r}, expected None or a positive finite number")
    return replace(SCHEMES["finer"], first_bias=Uniform(scale))


def scheme(init: str | Scheme) -> Scheme:
    """The scheme of that name; a Scheme is handed back as it is.

    Args:
        init: one of `fastsiren.init.SCHEMES`.

    Raises:
        TypeError: `init` is neither a string nor a Scheme.
        ValueError: no scheme has that name.

    Example:
        >>> scheme("coin").bias_as_weight
        True
    """
    if isinstance(init, Scheme):
        return init
    if not isinstance(init, str):
        raise TypeError(f"init: got {described(init)}, expected a name or a fastsiren.init.Scheme")
    if init not in SCHEMES:
        raise ValueError(f"init: got {init!r}, expected one of {', '.join(map(repr, SCHEMES))}")
    return SCHEMES[init]


@torch.no_grad()
def initialize(
    linears: Sequence[nn.Linear],
    init: str | Scheme = "siren",
    *,
    hidden_omega_0: float = 30.0,
    outermost_linear: bool = True,
) -> None:
    """Draw the parameters of a whole network in place, in the order of the scheme.

    The paper's scheme draws the weights of the first layer uniformly in +-1/d and all others in
    +-sqrt(6 / n_in) / omega_0, which keeps the phases of every layer at the same spread. The rule printed in the paper
    for the first layer differs; 1/d is what its authors run.

    Args:
        linears: the layers, first to last.
        init: name of a scheme, or one made by hand.
        hidden_omega_0: omega_0 of the layers after the first; the linear last layer is drawn with it too.
        outermost_linear: False draws the last layer as the sine layer it then is.

    Raises:
        TypeError: `init` is neither a string nor a Scheme, or another argument is of the wrong type.
        ValueError: no scheme has that name, there are fewer than two layers, or omega is zero or not finite.

    Example:
        >>> from torch import nn
        >>> layers = [nn.Linear(2, 64), nn.Linear(64, 1)]
        >>> initialize(layers, "siren")
        >>> bool(layers[0].weight.abs().max() <= 1 / 2)
        True
    """
    linears = _layers(linears)
    chosen, omega = scheme(init), frequency("hidden_omega_0", hidden_omega_0)
    last = chosen.last if flag("outermost_linear", outermost_linear) else chosen.hidden
    draws = list(zip(linears, [chosen.first, *[chosen.hidden] * (len(linears) - 2), last], strict=True))
    if chosen.order is Order.FIRST_TWICE:
        draws = [(linears[0], chosen.hidden), *draws[1:], draws[0]]
    if chosen.order in (Order.DEFAULTS_FIRST, Order.FIRST_TWICE):
        for linear in linears:
            linear.reset_parameters()
    for linear, rule in draws:
        if chosen.order is Order.LAYERWISE:
            linear.reset_parameters()
        bias_rule = rule if chosen.bias_as_weight else chosen.bias
        if linear is linears[0]:
            bias_rule = chosen.first_bias or bias_rule
        fan = Fan(linear.in_features, linear.out_features, omega)
        _draw(fan, (linear.weight, rule), (linear.bias, bias_rule))


def _layers(linears: Sequence[nn.Linear]) -> list[nn.Linear]:
    """The layers, once they are known to be layers."""
    layers = listed("linears", linears, "torch.nn.Linear")
    if len(layers) < 2:
        raise ValueError(f"linears: got {len(layers)}, expected at least 2 (a sine layer and the last layer)")
    for i, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"linears[{i}]: got {described(layer)}, expected a torch.nn.Linear")
    return layers


def _draw(fan: Fan, *pairs: tuple[Tensor | None, Rule | None]) -> None:
    """Fill each tensor by its rule; one without a rule stays as it is."""
    for tensor, rule in pairs:
        if tensor is not None and rule is not None:
            rule(tensor, fan)
