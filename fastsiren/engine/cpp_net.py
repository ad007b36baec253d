"""One network or many as the C++ extension takes them: addresses, sizes and strides of tensors that are kept here."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsiren import _C

_SUFFIX = {torch.float32: "_f32", torch.float64: "_f64"}

Shape = tuple[int, ...]


class Net(NamedTuple):
    """One network, or many, as the extension takes them, with the tensors its addresses point into."""

    dtype: torch.dtype
    axis: Shape
    """(G,) for G networks, () for one."""
    weights: list[Tensor]
    biases: list[Tensor]
    args: Any

    @property
    def in_features(self) -> int:
        """D."""
        return self.weights[0].shape[-1]

    @property
    def out_features(self) -> int:
        """O."""
        return self.weights[-1].shape[-2]

    @property
    def networks(self) -> int:
        """G."""
        return self.axis[0] if self.axis else 1

    def points(self, x: Tensor) -> int:
        """How many points x [N, D], or x [1, N / G, D] that all networks share, stands for; as many for each."""
        N = x.shape[0] if x.ndim == 2 else x.shape[1] * self.networks
        if N % self.networks:
            raise ValueError(f"x: got {N} points for {self.networks} networks, expected as many for each")
        return N

    def call(self, name: str, *arguments: Any) -> None:
        """Run a pass of the extension on as many threads as torch uses."""
        self.function(name)(self.args, *arguments, torch.get_num_threads())

    def function(self, name: str) -> Any:
        """A function of the extension, for the dtype of the parameters."""
        return getattr(_C, name + _SUFFIX[self.dtype])

    def rows(self, name: str, tensor: Tensor, *shape: int) -> Tensor:
        """Return `tensor` contiguous after checking that the extension may read `shape` numbers from it."""
        if tensor.dtype != self.dtype or not tensor.is_cpu:
            raise TypeError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {self.dtype} on the CPU")
        if tensor.shape != shape:
            raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {shape}")
        return _stored(tensor)

    def seeds(self, name: str, tensor: Tensor, N: int, *shape: int) -> Tensor:
        """The same for seeds, which are `shape` for all points or [N, *shape]."""
        per_point = tensor.ndim > len(shape)
        return self.rows(name, tensor, *([N] if per_point else []), *shape)

    def tape(self, size: int) -> Tensor:
        """Memory for a tape: fresh pages cost what it spares, so there is a pool."""
        return torch.frombuffer(_C.TapeMemory(size * self.dtype.itemsize), dtype=self.dtype)

    def new(self, *shape: int) -> Tensor:
        """Memory for results."""
        return torch.empty(shape, dtype=self.dtype, device="cpu")


def _stored(tensor: Tensor) -> Tensor:
    """Return the numbers of a tensor as they are read from its address: contiguous, negated where a view says so."""
    # A zero tensor of forward-mode AD has no memory at all.
    if tensor._is_zerotensor():
        return torch.zeros_like(tensor)
    if tensor.is_contiguous() and not tensor.is_neg():
        return tensor
    return tensor.detach().resolve_neg().contiguous()


def net_of(weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> Net:
    """Describe networks by their parameters, of any strides, after checking that the extension may read them."""
    dtype = weights[0].dtype
    if dtype not in _SUFFIX:
        raise TypeError(f"weights: got {dtype}, the C++ engine takes torch.float32 and torch.float64")
    axis = weights[0].shape[:-2]
    widths = [weights[0].shape[-1], *(weight.shape[-2] for weight in weights)]
    W = _parameters("weights", weights, dtype, [(*axis, n, m) for m, n in itertools.pairwise(widths)])
    b = _parameters("biases", biases, dtype, [(*axis, n) for n in widths[1:]])
    W_at, b_at = ([tensor.data_ptr() for tensor in group] for group in (W, b))
    W_steps, b_steps = ([tensor.stride(0) if axis else 0 for tensor in group] for group in (W, b))
    networks = axis[0] if axis else 1
    if networks and 0 in (*W_at, *b_at):
        raise RuntimeError(
            "weights, biases: got parameters whose memory was given back, as fully_shard does after backward; ask for "
            "derivatives inside the call of the sharded network, net(x, quantity), such as net(x, fastsiren.laplacian)"
        )
    args = _C.NetArgs(networks, W_at, b_at, W_steps, b_steps, widths, [float(omega) for omega in omegas])
    return Net(dtype, tuple(axis), W, b, args)


def tangents_of(
    net: Net, weights: Sequence[Tensor] | None, biases: Sequence[Tensor] | None, omegas: Sequence[float]
) -> Net:
    """Describe tangents of the parameters of networks; None is zero, and zero weights spare their products."""
    layers = len(net.biases)
    zeros = [bias.new_zeros(bias.shape[-1:]).expand(bias.shape) for bias in net.biases]
    b = _parameters("biases", zeros if biases is None else biases, net.dtype, [tuple(b.shape) for b in net.biases])
    W = [] if weights is None else _parameters("weights", weights, net.dtype, [tuple(w.shape) for w in net.weights])
    W_at, b_at = ([tensor.data_ptr() for tensor in group] or [0] * layers for group in (W, b))
    W_steps, b_steps = ([tensor.stride(0) if net.axis else 0 for tensor in group] or [0] * layers for group in (W, b))
    widths = [net.in_features, *(bias.shape[-1] for bias in net.biases)]
    args = _C.NetArgs(net.networks, W_at, b_at, W_steps, b_steps, widths, [float(omega) for omega in omegas])
    return Net(net.dtype, net.axis, W, b, args)


def _parameters(name: str, given: Sequence[Tensor], dtype: torch.dtype, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    for tensor in given:
        if tensor.dtype != dtype or not tensor.is_cpu:
            raise TypeError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {dtype} on the CPU")
    if [tensor.shape for tensor in given] != shapes:
        got = [tuple(tensor.shape) for tensor in given]
        raise ValueError(f"{name}: got shapes {got}, expected {shapes}, as the layers follow one another")
    core = 2 if name == "weights" else 1
    return [_stored(tensor) if tensor.ndim == core else _stored_networks(tensor) for tensor in given]


def _stored_networks(tensor: Tensor) -> Tensor:
    """The same with each network by itself contiguous; how far they lie apart is the stride in front."""
    if len(tensor) and not tensor.stride(0):
        return _stored(tensor[0]).expand_as(tensor)
    whole = len(tensor) and tensor[0].is_contiguous() and not tensor.is_neg() and not tensor._is_zerotensor()
    return tensor if whole else _stored(tensor)
