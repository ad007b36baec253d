"""Backend "cpp": the fused CPU engine, for fp32 and fp64 tensors on the CPU.

Arguments are two-dimensional as the ops hand them over: x [N, D], directions [K, D] or [N, K, D], forms [R, K, K] or
[N, R, K, K], combinations [C, O] or [N, C, O]. This module owns every tensor and checks what memory safety needs; the
extension sees addresses and sizes. Tensors of any strides are accepted: what is not contiguous is copied, and all of
them are small beside the work. Nothing of size N x width is ever allocated.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastsiren import _C
from fastsiren.engine.network import Grads

_SUFFIX = {torch.float32: "_f32", torch.float64: "_f64"}
_PIXELS = {torch.float32: 1, torch.float64: 2, torch.uint8: 3, torch.uint16: 4}
# Columns that a sum over points is cut into; see _summed.
_COLUMNS = 64
_LOSSES = {"value": 1, "gradient": 2, "laplacian": 3, "eikonal": 4}


class _Net(NamedTuple):
    """One network as the extension takes it, with the tensors its addresses point into."""

    dtype: torch.dtype
    weights: list[Tensor]
    biases: list[Tensor]
    args: Any

    @property
    def in_features(self) -> int:
        return self.weights[0].shape[1]

    @property
    def out_features(self) -> int:
        return self.weights[-1].shape[0]

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(_C, name + _SUFFIX[self.dtype])(self.args, *arguments, torch.get_num_threads())

    def rows(self, name: str, tensor: Tensor, *shape: int) -> Tensor:
        """Return `tensor` contiguous after checking that the extension may read `shape` numbers from it."""
        if tensor.dtype != self.dtype or tensor.device.type != "cpu":
            raise TypeError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {self.dtype} on the CPU")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected {shape}")
        return _stored(tensor)

    def seeds(self, name: str, tensor: Tensor, N: int, *shape: int) -> Tensor:
        """The same for seeds, which are `shape` for all points or [N, *shape]."""
        per_point = tensor.ndim > len(shape)
        return self.rows(name, tensor, *([N] if per_point else []), *shape)

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device="cpu")


def _stored(tensor: Tensor) -> Tensor:
    """Return the numbers of a tensor as they are read from its address: contiguous, negated where a view says so."""
    # A zero tensor of forward-mode AD has no memory at all.
    plain = torch.zeros_like(tensor) if tensor._is_zerotensor() else tensor.detach().resolve_neg()
    return plain.contiguous()


def _net(weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> _Net:
    dtype = weights[0].dtype
    if dtype not in _SUFFIX:
        raise TypeError(f"weights: got {dtype}, the C++ engine takes torch.float32 and torch.float64")
    for name, group in (("weights", weights), ("biases", biases)):
        for tensor in group:
            if tensor.dtype != dtype or tensor.device.type != "cpu":
                raise TypeError(f"{name}: got {tensor.dtype} on {tensor.device}, expected {dtype} on the CPU")
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    if [tuple(w.shape) for w in weights] != [(n, m) for m, n in itertools.pairwise(widths)]:
        raise ValueError(f"weights: got shapes {[tuple(w.shape) for w in weights]}, which do not follow one another")
    if [tuple(b.shape) for b in biases] != [(n,) for n in widths[1:]]:
        raise ValueError(
            f"biases: got shapes {[tuple(b.shape) for b in biases]}, expected {[(n,) for n in widths[1:]]}"
        )
    held = [[_stored(tensor) for tensor in group] for group in (weights, biases)]
    W, b = ([tensor.data_ptr() for tensor in group] for group in held)
    return _Net(dtype, held[0], held[1], _C.NetArgs(W, b, widths, [float(omega) for omega in omegas]))


class _Wanted:
    """The gradients asked for: buffers, and their addresses for the extension."""

    def __init__(self, net: _Net, x: Tensor | None, seeds: Sequence[Tensor], need_params: bool) -> None:
        self.x = None if x is None else net.new(*x.shape)
        self.seeds = seeds
        self.weights = [torch.empty_like(w) for w in net.weights] if need_params else []
        self.biases = [torch.empty_like(b) for b in net.biases] if need_params else []
        first, second = [*(_address(seed) for seed in seeds), 0, 0][:2]
        self.args = _C.GradArgs(
            _address(self.x), first, second, [w.data_ptr() for w in self.weights], [b.data_ptr() for b in self.biases]
        )

    def grads(self, shapes: Sequence[Tensor] = ()) -> Grads:
        """Per-point gradients of constant seeds are summed over the points."""
        seeds = tuple(g if g.ndim == s.ndim else _summed(g) for g, s in zip(self.seeds, shapes, strict=True))
        return Grads(self.x, seeds, self.weights, self.biases)


def _summed(rows: Tensor) -> Tensor:
    """Sum over the points, in the same order for any number of threads."""
    # torch shares the sum of one long column out among its threads; sums of many columns stay whole.
    if not rows.numel():
        return rows.sum(0)
    columns = rows.reshape(len(rows), -1)
    padded = torch.nn.functional.pad(columns, (0, 0, 0, -len(rows) % _COLUMNS))
    return padded.view(-1, _COLUMNS, columns.shape[1]).sum(0).sum(0).view(rows.shape[1:])


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


_NO_LOSS = _C.LossArgs(0, 0, 0, 1.0)


def value_fwd(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> Tensor:
    """Return y [N, O]."""
    net = _net(weights, biases, omegas)
    N = x.shape[0]
    x, y = net.rows("x", x, N, net.in_features), net.new(N, net.out_features)
    net.call("jet_fwd", _C.JetArgs(N, 0, 0, x.data_ptr(), 0, 0, False, False), y.data_ptr(), 0, 0)
    return y


def value_bwd(
    y_bar: Tensor,  # [N, O]
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of value_fwd."""
    net = _net(weights, biases, omegas)
    N = x.shape[0]
    x, y_bar = net.rows("x", x, N, net.in_features), net.rows("y_bar", y_bar, N, net.out_features)
    wanted = _Wanted(net, x if need_x else None, (), need_params)
    jet = _C.JetArgs(N, 0, 0, x.data_ptr(), 0, 0, False, False)
    net.call("jet_bwd", jet, y_bar.data_ptr(), 0, 0, _NO_LOSS, wanted.args)
    return wanted.grads()


class _JetInputs(NamedTuple):
    N: int
    K: int
    R: int
    x: Tensor
    V: Tensor
    M: Tensor
    args: Any


def _jet_inputs(net: _Net, x: Tensor, directions: Tensor, forms: Tensor) -> _JetInputs:
    N, D, K, R = x.shape[0], net.in_features, directions.shape[-2], forms.shape[-3]
    x = net.rows("x", x, N, D)
    V, M = net.seeds("directions", directions, N, K, D), net.seeds("forms", forms, N, R, K, K)
    args = _C.JetArgs(N, K, R, x.data_ptr(), V.data_ptr(), M.data_ptr(), V.ndim == 3, M.ndim == 4)
    return _JetInputs(N, K, R, x, V, M, args)


def jet_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], T [N, K, O] and S [N, R, O]."""
    net = _net(weights, biases, omegas)
    jet, O = _jet_inputs(net, x, directions, forms), net.out_features
    y, T, S = net.new(jet.N, O), net.new(jet.N, jet.K, O), net.new(jet.N, jet.R, O)
    net.call("jet_fwd", jet.args, y.data_ptr(), T.data_ptr(), S.data_ptr())
    return y, T, S


def jet_bwd(
    y_bar: Tensor,  # [N, O]
    T_bar: Tensor,  # [N, K, O]
    S_bar: Tensor,  # [N, R, O]
    x: Tensor,  # [N, D]
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of jet_fwd; seeds are V_bar and M_bar."""
    net = _net(weights, biases, omegas)
    jet, O = _jet_inputs(net, x, directions, forms), net.out_features
    y_bar, T_bar = net.rows("y_bar", y_bar, jet.N, O), net.rows("T_bar", T_bar, jet.N, jet.K, O)
    S_bar = net.rows("S_bar", S_bar, jet.N, jet.R, O)
    seeds = (net.new(jet.N, jet.K, net.in_features), net.new(jet.N, jet.R, jet.K, jet.K)) if need_seeds else ()
    wanted = _Wanted(net, jet.x if need_x else None, seeds, need_params)
    addresses = y_bar.data_ptr(), T_bar.data_ptr(), S_bar.data_ptr()
    net.call("jet_bwd", jet.args, *addresses, _NO_LOSS, wanted.args)
    return wanted.grads((directions, forms) if need_seeds else ())


class _SandwichInputs(NamedTuple):
    N: int
    K: int
    C: int
    x: Tensor
    V: Tensor
    E: Tensor
    args: Any


def _sandwich_inputs(net: _Net, x: Tensor, directions: Tensor, combinations: Tensor) -> _SandwichInputs:
    N, D, K, C = x.shape[0], net.in_features, directions.shape[-2], combinations.shape[-2]
    x = net.rows("x", x, N, D)
    V, E = net.seeds("directions", directions, N, K, D), net.seeds("combinations", combinations, N, C, net.out_features)
    args = _C.SandwichArgs(N, K, C, x.data_ptr(), V.data_ptr(), E.data_ptr(), V.ndim == 3, E.ndim == 3)
    return _SandwichInputs(N, K, C, x, V, E, args)


def sandwich_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], J [N, C, D] and H [N, C, K, K]."""
    net = _net(weights, biases, omegas)
    s = _sandwich_inputs(net, x, directions, combinations)
    y, J, H = net.new(s.N, net.out_features), net.new(s.N, s.C, net.in_features), net.new(s.N, s.C, s.K, s.K)
    net.call("sandwich_fwd", s.args, y.data_ptr(), J.data_ptr(), H.data_ptr() if s.K else 0)
    return y, J, H


def sandwich_bwd(
    y_bar: Tensor,  # [N, O]
    J_bar: Tensor,  # [N, C, D]
    H_bar: Tensor,  # [N, C, K, K]
    x: Tensor,  # [N, D]
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of sandwich_fwd; seeds are V_bar and E_bar."""
    net = _net(weights, biases, omegas)
    s = _sandwich_inputs(net, x, directions, combinations)
    y_bar, J_bar = net.rows("y_bar", y_bar, s.N, net.out_features), net.rows("J_bar", J_bar, s.N, s.C, net.in_features)
    H_bar = net.rows("H_bar", H_bar, s.N, s.C, s.K, s.K)
    seeds = (net.new(s.N, s.K, net.in_features), net.new(s.N, s.C, net.out_features)) if need_seeds else ()
    wanted = _Wanted(net, s.x if need_x else None, seeds, need_params)
    addresses = y_bar.data_ptr(), J_bar.data_ptr(), H_bar.data_ptr() if s.K else 0
    net.call("sandwich_bwd", s.args, *addresses, _NO_LOSS, wanted.args)
    return wanted.grads((directions, combinations) if need_seeds else ())


def adjoint_fwd(
    x: Tensor, combinations: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return y [N, O] and J [N, C, D]: a sandwich without directions."""
    y, J, _ = sandwich_fwd(x, x.new_empty(0, x.shape[1]), combinations, weights, biases, omegas)
    return y, J


def adjoint_bwd(
    y_bar: Tensor,  # [N, O]
    J_bar: Tensor,  # [N, C, D]
    x: Tensor,  # [N, D]
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of adjoint_fwd; the one seed is E_bar."""
    none, H_bar = x.new_empty(0, x.shape[1]), x.new_empty(x.shape[0], combinations.shape[-2], 0, 0)
    needs = {"need_x": need_x, "need_seeds": need_seeds, "need_params": need_params}
    grads = sandwich_bwd(y_bar, J_bar, H_bar, x, none, combinations, weights, biases, omegas, **needs)
    return grads._replace(seeds=grads.seeds[1:])


def loss_fwd(
    kind: str,
    x: Tensor,  # [N, D]
    target: Tensor | None,  # [N, O], [N, O, D] for "gradient", None for "eikonal"
    weight: Tensor | None,  # [N]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_params: bool,
    reduction: str,
) -> tuple[Tensor, Grads]:
    """Loss and parameter gradients in one pass over tiles of points; see the table of backends for the losses."""
    net = _net(weights, biases, omegas)
    N, D, O = x.shape[0], net.in_features, net.out_features
    if (target is None) != (kind == "eikonal"):
        raise ValueError(f"target: got {target}, expected a tensor for every loss but 'eikonal', which takes None")
    if target is not None:
        target = net.rows("target", target, *((N, O, D) if kind == "gradient" else (N, O)))
    weight = None if weight is None else net.rows("weight", weight, N)
    scale = 1 / max(N * O, 1) if reduction == "mean" else 1.0
    loss = _C.LossArgs(_LOSSES[kind], _address(target), _address(weight), scale)
    wanted = _Wanted(net, None, (), need_params)
    name, inputs = _loss_pass(net, kind, x)
    total = net.call(name, inputs.args, 0, 0, 0, loss, wanted.args)
    if N == 0 and reduction == "mean":
        total = math.nan
    return torch.tensor(total, dtype=net.dtype, device="cpu"), wanted.grads()


def _loss_pass(net: _Net, kind: str, x: Tensor) -> tuple[str, _JetInputs | _SandwichInputs]:
    """The cheapest pass that makes what the loss is of: reverse mode when there are fewer outputs than inputs."""
    D, O = net.in_features, net.out_features
    identity = torch.eye(D, dtype=net.dtype, device="cpu")
    if kind in ("gradient", "eikonal") and O < D:
        return "sandwich_bwd", _sandwich_inputs(net, x, identity[:0], torch.eye(O, dtype=net.dtype, device="cpu"))
    directions = identity[:0] if kind == "value" else identity
    forms = identity[None] if kind == "laplacian" else identity.new_empty(0, len(directions), len(directions))
    return "jet_bwd", _jet_inputs(net, x, directions, forms)


def grid_fwd(
    origin: Sequence[float],
    step: Sequence[float],
    start: Sequence[int],
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    out: Tensor,  # [prod(shape), O]
    gain: float,
    offset: float,
) -> None:
    """Decode a grid straight into `out`; its coordinates are never stored."""
    net = _net(weights, biases, omegas)
    size = math.prod(shape), net.out_features
    usable = out.device.type == "cpu" and out.is_contiguous() and out.dtype in _PIXELS
    if tuple(out.shape) != size or not usable:
        raise ValueError(
            f"out: got {out.dtype} of shape {tuple(out.shape)} on {out.device}, expected contiguous {size} on the CPU, "
            f"one of {list(_PIXELS)}"
        )
    arguments = [float(o) for o in origin], [float(s) for s in step], list(start), list(shape)
    net.call("grid_fwd", *arguments, out.data_ptr(), _PIXELS[out.dtype], gain, offset)
