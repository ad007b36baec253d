"""The canonical module: a SIREN whose forward is one fused operation."""

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn

from . import functional, hub
from .engine.backends import PRECISIONS
from .engine.network import Parameters
from .engine.values import described, flag, floating, frequency, one_of, whole_number
from .init import Scheme, initialize, scheme

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class SineLayer(nn.Module):
    """sin(omega_0 * (W h + b)) around an nn.Linear; Siren reads its parts and does not call it.

    Args:
        linear: the layer that holds W and b.
        omega_0: frequency factor; it multiplies weight and bias together.
        is_first: whether it is the first layer of its network, which has its own initial weights.
    """

    def __init__(self, linear: nn.Linear, *, omega_0: float, is_first: bool = False) -> None:
        super().__init__()
        self.omega_0 = omega_0
        self.is_first = is_first
        self.linear = linear

    @property
    def in_features(self) -> int:
        """Width of the input."""
        return self.linear.in_features

    @property
    def out_features(self) -> int:
        """Width of the output."""
        return self.linear.out_features

    def forward(self, h: Tensor) -> Tensor:  # [..., n_in] -> [..., n_out]
        """Evaluate this layer alone, in plain torch."""
        return torch.sin(self.omega_0 * self.linear(h))

    def extra_repr(self) -> str:
        """The omega of this layer."""
        return f"omega_0={self.omega_0:g}, is_first={self.is_first}"


class Siren(nn.Module):
    """An MLP with sine activations: h = sin(omega (W h + b)), the last layer linear.

    The whole network is evaluated in one operation that calls no layer, so hooks on layers and layers of other classes
    raise. Parameters keep the names and, for the same seed, the values of the authors' notebook.

    Args:
        in_features: number D of coordinates.
        hidden_features: width H of every sine layer.
        hidden_layers: number of H x H layers after the first one; 0 leaves one sine layer.
        out_features: number O of outputs.
        outermost_linear: False makes the last layer a sine layer too.
        first_omega_0: omega of the first layer, the bandwidth of the network.
        hidden_omega_0: omega of the other sine layers.
        bias: whether layers have a bias.
        init: how initial parameters are drawn, a name of `fastsiren.init.SCHEMES` or a Scheme.
        precision: of hidden products, "fp32", "tf32", "fp16" or "bf16"; None takes the one in force.
        device: where parameters are made.
        dtype: floating-point type of the parameters.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
        >>> import torch, fastsiren
        >>> net = fastsiren.Siren(2, 32, 2, 3)
        >>> net(torch.rand(5, 4, 2)).shape
        torch.Size([5, 4, 3])
        >>> list(net.state_dict())[:2], list(net.state_dict())[-1]
        (['net.0.linear.weight', 'net.0.linear.bias'], 'net.3.bias')
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        *,
        outermost_linear: bool = True,
        first_omega_0: float = 30.0,
        hidden_omega_0: float = 30.0,
        bias: bool = True,
        init: str | Scheme = "siren",
        precision: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = whole_number("in_features", in_features, least=1)
        self.hidden_features = whole_number("hidden_features", hidden_features, least=1)
        self.hidden_layers = whole_number("hidden_layers", hidden_layers, least=0)
        self.out_features = whole_number("out_features", out_features, least=1)
        self.outermost_linear = flag("outermost_linear", outermost_linear)
        self.first_omega_0 = frequency("first_omega_0", first_omega_0)
        self.hidden_omega_0 = frequency("hidden_omega_0", hidden_omega_0)
        self.init = init
        scheme(init)
        self.precision = one_of("precision", precision, PRECISIONS, or_none=True)
        widths = [self.in_features, *[self.hidden_features] * (self.hidden_layers + 1), self.out_features]
        make = {"bias": flag("bias", bias), "device": _device(device), "dtype": _dtype(dtype)}
        # Parameters start undrawn, since each scheme has its own order of draws.
        linears = [nn.utils.skip_init(nn.Linear, n_in, n_out, **make) for n_in, n_out in itertools.pairwise(widths)]
        self.net = nn.Sequential(*self._layers(linears))
        self.reset_parameters()

    def _layers(self, linears: list[nn.Linear]) -> list[nn.Module]:
        """Wrap all layers but a linear last one into sine layers."""
        sines = len(linears) - int(self.outermost_linear)
        omegas = [self.first_omega_0, *[self.hidden_omega_0] * (sines - 1)]
        wrapped = [SineLayer(linears[i], omega_0=omega, is_first=i == 0) for i, omega in enumerate(omegas)]
        return [*wrapped, *linears[sines:]]

    def _linears(self) -> list[nn.Linear]:
        """The layers' matrices and biases, once it is known that calling the layers would do nothing else."""
        linears = []
        _refuse_hooks("net", self.net)
        for name, layer in self.net._modules.items():
            linear = layer
            if isinstance(layer, SineLayer):
                _refuse_others(f"net.{name}", layer, SineLayer)
                linear = layer.linear
            _refuse_others(f"net.{name}", linear, nn.Linear)
            linears.append(linear)
        return linears  # type: ignore[return-value]

    def reset_parameters(self) -> None:
        """Draw all parameters anew by the scheme `init`."""
        initialize(
            self._linears(), self.init, hidden_omega_0=self.hidden_omega_0, outermost_linear=self.outermost_linear
        )

    def siren_parameters(self) -> Parameters:
        """The network as it is now; what every operator of fastsiren asks a module for.

        Raises:
            RuntimeError: a layer has hooks, as old-style weight_norm, prune and recorders of activations give it, which
                one fused pass does not run; or its parameters are sharded.
            TypeError: a layer was replaced by one of another class, or a frequency by a tensor, which would lose its
                gradient.
        """
        linears = self._linears()
        if any(isinstance(layer.omega_0, Tensor) for layer in self.net if isinstance(layer, SineLayer)):
            raise TypeError("omega_0: got a torch.Tensor, expected a float; a learned frequency is a factor on W and b")
        weights: list[Tensor] = [linear.weight for linear in linears]
        biases: list[Tensor] = [
            linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
        ]
        _refuse_shards([*weights, *biases])
        omegas = [float(layer.omega_0) for layer in self.net if isinstance(layer, SineLayer)]
        return Parameters(weights, biases, omegas, self.outermost_linear, self.precision)

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, quantity: "Callable[[Siren, Tensor], T]") -> T: ...

    def forward(self, x: Tensor, quantity: "Callable[[Siren, Tensor], Any] | None" = None) -> Any:
        """Evaluate the network, or a quantity of it, at coordinates of any leading shape.

        Wrappers such as DistributedDataParallel and fully_shard do their work around this call alone: derivatives and
        losses of a wrapped network are asked for here, as in `wrapped(x, fastsiren.laplacian)`.

        Args:
            x: coordinates [..., D].
            quantity: what to return in place of the value: a function of the network and x.

        Returns:
            The values [..., O], or quantity(net, x).

        Raises:
            TypeError: `x` is no tensor of the parameters' dtype, or `quantity` no function.
            ValueError: `x` has another last dimension than D, or is on another device.

        Example:
            >>> import torch, fastsiren
            >>> net, x = fastsiren.Siren(2, 16, 1, 1), torch.rand(5, 2)
            >>> value, jacobian, laplacian = net(x, fastsiren.laplacian)
            >>> torch.equal(value, net(x)), net(x, fastsiren.losses.eikonal).shape
            (True, torch.Size([]))
        """
        if quantity is not None:
            if not callable(quantity):
                raise TypeError(f"quantity: got {described(quantity)}, expected None or a function of a network and x")
            return quantity(self, x)
        _refuse_static_graph(self, x)
        weights, biases, omegas, outermost_linear, precision = self.siren_parameters()
        return functional.siren(
            x, weights, biases, omegas=omegas, outermost_linear=outermost_linear, precision=precision
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, as PyTorchModelHubMixin of huggingface_hub lays them out.

        Args:
            folder: where the files are to appear; made where there is none, and files of the same names are replaced.

        Raises:
            ValueError: the network is in bfloat16, or the arguments of its constructor do not describe it any more.
            OutputError: a file cannot be written.
        """
        hub.save(self, folder)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: torch.device | str | int | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> "Self":
        """Load a network that `save_pretrained` or PyTorchModelHubMixin saved; nothing in the files is executed.

        Args:
            name: a folder, or else a repository on the Hugging Face hub, which needs fastsiren[hub].
            device: where the parameters go.
            revision: of the repository; this and the rest mean what they mean to huggingface_hub.
            cache_dir: where downloads are kept.
            token: of the user.
            local_files_only: never download.

        Raises:
            InputError: a file is missing, damaged or of another network, or huggingface_hub is not installed.

        Example:
            >>> import tempfile, torch, fastsiren
            >>> net, x = fastsiren.Siren(2, 16, 1, 1, first_omega_0=20.0), torch.rand(5, 2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     net.save_pretrained(folder)
            ...     twin = fastsiren.Siren.from_pretrained(folder)
            >>> torch.equal(twin(x), net(x))
            True
        """
        return hub.load(
            cls, name, device, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )

    def extra_repr(self) -> str:
        """Sizes and omegas, and what differs from the defaults."""
        text = f"{self.in_features}, {self.hidden_features}, {self.hidden_layers}, {self.out_features}"
        text += f", first_omega_0={self.first_omega_0:g}, hidden_omega_0={self.hidden_omega_0:g}"
        if not self.outermost_linear:
            text += ", outermost_linear=False"
        return text if self.precision is None else f"{text}, precision={self.precision!r}"


def _refuse_hooks(name: str, module: nn.Module) -> None:
    """Raise if a module that a fused pass does not call has hooks."""
    if module._forward_pre_hooks or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
        raise RuntimeError(
            f"{name}: has hooks (a recorder of activations, old-style weight_norm or prune, fully_shard of a layer?), "
            "which a fused pass does not run; remove them, use torch.nn.utils.parametrizations, or shard the whole "
            "network"
        )


def _refuse_others(name: str, layer: Any, expected: type[nn.Module]) -> None:
    """Raise if a layer computes something else than the class that it should be of."""
    if type(layer).forward is not expected.forward:
        raise TypeError(
            f"{name}: got {type(layer).__name__}, expected {expected.__name__}: a fused pass reads weight and bias of "
            "a layer and does not call it"
        )
    _refuse_hooks(name, layer)


def _refuse_shards(parameters: list[Tensor]) -> None:
    """Raise for parameters of which this process holds a part only."""
    for parameter in parameters:
        if hasattr(parameter, "full_tensor"):
            raise RuntimeError(
                "net: got sharded parameters (DTensor), which are whole inside the call of the module only; call it as "
                "net(x, quantity), such as net(x, fastsiren.laplacian)"
            )


def _refuse_static_graph(net: nn.Module, x: Tensor) -> None:
    """Raise where the first backward, of derivatives in x, would be averaged in place of that of the loss."""
    if torch.compiler.is_compiling() or not torch.distributed.is_available():
        return
    wrapper = nn.parallel.DistributedDataParallel._get_active_ddp_module()
    if wrapper is None or not (wrapper.module is net and wrapper.static_graph):
        return
    if torch.is_grad_enabled() and isinstance(x, Tensor) and x.requires_grad and x.is_leaf:
        raise RuntimeError(
            "x: got a leaf that requires gradients in DistributedDataParallel(static_graph=True), which averages at "
            "the first backward; ask for derivatives as net(x, quantity), such as net(x, fastsiren.laplacian)"
        )


def _device(given: torch.device | str | int | None) -> torch.device:
    if given is None:
        return torch.get_default_device()
    try:
        return torch.device(given)
    except (RuntimeError, TypeError):
        raise ValueError(f"device: got {described(given)}, expected a torch.device or the name of one") from None


def _dtype(given: torch.dtype | None) -> torch.dtype:
    return floating("dtype", torch.get_default_dtype() if given is None else given)
