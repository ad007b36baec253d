"""The SIREN of the MetaSDF notebook and of light-field-networks, which is the same class with FiLM added.

Kept: the linear last layer is drawn with a literal 30, whatever omega is; `special_first=False` draws the first layer
like a hidden one, with the first omega; FiLM is sin(gamma omega_0 z + beta), beta outside omega, on all layers but the
last.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..engine.values import listed
from ..modulation import Conditioned
from . import checks
from .base import SineLayer as _SineLayer
from .base import SineStack, evaluate, linear_last, stack
from .meta import BatchLinear, MetaModule, Params

__all__ = ["BatchLinear", "SineLayer", "Siren"]


class SineLayer(_SineLayer, MetaModule):
    """sin(omega_0 (W x + b)) whose parameters may come in.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias.
        is_first: draws the weights as those of a first layer.
        omega_0: frequency factor.
    """

    make_linear = staticmethod(BatchLinear)

    def forward(self, input: Tensor, params: Params | None = None) -> Tensor:  # [..., N, n_in] -> [..., N, n_out]
        """Evaluate this layer alone."""
        return torch.sin(self.omega_0 * self.linear(input, params=self.get_subdict(params, "linear")))

    def forward_with_film(self, input: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Evaluate sin(gamma omega_0 (W x + b) + beta)."""
        checks.points("input", input, self.linear.weight)
        for name, given in (("gamma", gamma), ("beta", beta)):
            checks.tensor(name, given, ("...", self.linear.out_features))
        return torch.sin(gamma * self.omega_0 * self.linear(input) + beta)


class Siren(SineStack, MetaModule):
    """A SIREN that takes coordinates as they are, parameters of somebody else, and FiLM.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of the sine layers.
        hidden_layers: number of H x H layers.
        out_features: number O of outputs.
        outermost_linear: whether the last layer is linear.
        first_omega_0: omega of the first layer.
        hidden_omega_0: omega of the other layers.
        special_first: whether the first layer is drawn by the rule of first layers.

    Example:
        >>> import torch
        >>> from fastsiren.dropin import metasdf
        >>> net = metasdf.Siren(2, 16, 1, 1, outermost_linear=True)
        >>> params = {name: p.detach().expand(3, *p.shape) for name, p in net.meta_named_parameters()}
        >>> net(torch.rand(3, 5, 2), params=params).shape
        torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        outermost_linear: bool = False,
        first_omega_0: float = 30,
        hidden_omega_0: float = 30.0,
        special_first: bool = True,
    ) -> None:
        super().__init__()
        self.hidden_omega_0 = hidden_omega_0
        layers = stack(
            SineLayer, in_features, hidden_features, hidden_layers, out_features,
            omegas=(first_omega_0, hidden_omega_0), is_first=special_first,
            last=(lambda: linear_last(hidden_features, out_features, 30.0, BatchLinear)) if outermost_linear else None,
        )  # fmt: skip
        self.net = nn.ModuleList(layers)

    def forward(self, coords: Tensor, params: Params | None = None) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network.

        Args:
            coords: coordinates [..., D].
            params: parameters under the names of the state dict in place of the module's own; with a leading axis for
                a batch of networks at coordinates [B, N, D].
        """
        return evaluate(coords, self.siren_parameters(params), "coords")

    def conditioned(self, film: Sequence[Mapping[str, Tensor]]) -> Conditioned:
        """The network with FiLM, which every operator takes.

        Args:
            film: as in `forward_with_film`, each [H], or [B, H] or [B, 1, H] for B networks.

        Raises:
            KeyError: a dict lacks gamma or beta.
            TypeError: `film` is no list of dicts of tensors.
            ValueError: there are fewer dicts than modulated layers, or one differs between points.
        """
        return self._modulate(**self._film(film))

    def _film(self, film: Sequence[Mapping[str, Tensor]]) -> dict[str, list[Tensor]]:
        count, film = len(self.net) - 1, listed("film", film, "dicts")
        if len(film) < count:
            raise ValueError(f"film: got {len(film)} of them, expected {count} or more, one per layer but the last")
        found = {}
        for kind, key in (("scale", "gamma"), ("phase", "beta")):
            found[kind] = [checks.entry("film", layer, key) for layer in film[:count]]
            for given in found[kind]:
                checks.tensor("film", given)
        return found

    def forward_with_film(self, coords: Tensor, film: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Evaluate with sin(gamma omega_0 z + beta) in all layers but the last.

        Args:
            coords: coordinates [..., D].
            film: a dict of gamma and beta per layer, each broadcast against the result of its layer; one for the last
                layer may be there and is not used.

        Raises:
            ValueError: there are fewer dicts than modulated layers.
        """
        return self.evaluate(coords, **self._film(film))
