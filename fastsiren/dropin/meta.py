"""Modules that can be called with parameters of somebody else: the little of torchmeta that existing code uses.

Differs from torchmeta: a layer without bias works; a name that is missing among given parameters is a KeyError.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

from torch import Tensor, nn

from ..engine.values import described
from . import checks

Params = Mapping[str, Tensor]


class MetaModule(nn.Module):
    """A module whose forward takes `params`, a dict with the names of its own parameters."""

    def meta_named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that `params` may replace."""
        for name, module in self.named_modules(prefix=prefix) if recurse else [(prefix, self)]:
            if isinstance(module, MetaModule):
                for part, tensor in module.named_parameters(recurse=False):
                    yield f"{name}.{part}" if name else part, tensor

    def meta_parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Parameters that `params` may replace."""
        return (tensor for _, tensor in self.meta_named_parameters(recurse=recurse))

    def get_subdict(self, params: Params | None, key: str | None = None) -> "OrderedDict[str, Tensor] | None":
        """The entries below a name, without it; None for None."""
        return get_subdict(params, key)


def get_subdict(params: Params | None, key: str | None = None) -> "OrderedDict[str, Tensor] | None":
    """The entries of a dict below a name, without it; None for None."""
    if params is None:
        return None
    if not isinstance(params, Mapping):
        raise TypeError(f"params: got {described(params)}, expected None or a dict of tensors")
    if not isinstance(key, (str, NoneType)):
        raise TypeError(f"key: got {described(key)}, expected None or a str")
    start = f"{key}." if key else ""
    return OrderedDict((name[len(start) :], tensor) for name, tensor in params.items() if name.startswith(start))


class MetaSequential(nn.Sequential, MetaModule):
    """nn.Sequential that hands each of its MetaModules the parameters of that."""

    def forward(self, input: Any, params: Params | None = None) -> Any:
        """Run the modules one after another."""
        for name, module in self.named_children():
            inner = get_subdict(params, name) if isinstance(module, MetaModule) else None
            input = module(input) if inner is None else module(input, params=inner)
        return input


class BatchLinear(nn.Linear, MetaModule):
    """A linear layer whose parameters may come in, also one set per element of the batch.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether there is a bias.
        device: where parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        checks.sizes(in_features=in_features, out_features=out_features)
        super().__init__(in_features, out_features, bias, device, dtype)

    def forward(self, input: Tensor, params: Params | None = None) -> Tensor:  # [..., N, n_in] -> [..., N, n_out]
        """Evaluate the layer.

        Args:
            input: points in the axis before the last.
            params: "weight" (..., n_out, n_in) and, where there is one, "bias" (..., n_out).
        """
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if params is not None:
            weight = checks.replaced(params, "weight", self.weight)
            bias = params.get("bias") if bias is None else checks.replaced(params, "bias", bias)
        checks.points("input", input, weight)
        output = input.matmul(weight.mT)
        return output if bias is None else output + bias.unsqueeze(-2)
