"""Backend "cpp": the fused CPU engine, for fp32 and fp64 tensors on the CPU.

Arguments are two-dimensional as the ops hand them over: x [N, D], directions [K, D] or [N, K, D], forms [R, K, K] or
[N, R, K, K], combinations [C, O] or [N, C, O]; weights are [n_out, n_in], or [G, n_out, n_in] of G networks with N / G
points each (pass_kind.py). This module and cpp_net.py own every tensor and check what memory safety needs; the
extension sees addresses and sizes. Tensors of any strides are accepted: what is not contiguous is copied, and all of
them are small beside the work. Nothing of size N x width is ever allocated, but for the tape of a small batch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastsiren import _C
from fastsiren.engine.cpp_net import Net, Shape, net_of, tangents_of
from fastsiren.engine.network import Grads
from fastsiren.engine.pass_kind import Tape

TAKES_NETWORKS = True
KEEPS_TAPES = True
SPARES_WEIGHTS = True

# Bytes of a tape at most: memory stays bounded for any number of points.
_TAPE_BYTES = 64 << 20
_PIXELS = {torch.float32: 1, torch.float64: 2, torch.uint8: 3, torch.uint16: 4}
# Columns that a sum over points is cut into; see _summed.
_COLUMNS = 64
_LOSSES = {"value": 1, "gradient": 2, "laplacian": 3, "eikonal": 4}


class _Call:
    """One call of an engine of the extension: its points and seeds, what it returns and what it differentiates.

    Args:
        engine: "jet" or "sandwich".
        seeds: by name, a tensor and its shape at one point; directions come first.
        results: shapes, by the names of their cotangents.
    """

    def __init__(
        self,
        engine: str,
        net: Net,
        x: Tensor,
        seeds: Mapping[str, tuple[Tensor, Shape]],
        results: Mapping[str, Shape],
    ) -> None:
        self.engine, self.net, self.cores, self.results = engine, net, [core for _, core in seeds.values()], results
        N, shared = net.points(x), x.ndim == 3
        n = N // net.networks
        self.x = net.rows("x", x, *((1, n) if shared else (N,)), net.in_features)
        V, second = self.seeds = [net.seeds(name, tensor, N, *core) for name, (tensor, core) in seeds.items()]
        K, count = (core[0] for core in self.cores)
        addresses = self.x.data_ptr(), V.data_ptr(), second.data_ptr()
        self.args = _C.PassArgs(n, K, count, *addresses, V.ndim == 3, second.ndim > len(self.cores[1]), shared)

    def forward(self, tape: Tape | None = None) -> list[Tensor]:
        if tape is not None:
            self._begin(tape)
        results = [self.net.new(*shape) for shape in self.results.values()]
        self.net.call(f"{self.engine}_fwd", self.args, *map(_address, results))
        return results

    def _tape_size(self) -> int:
        size: int = self.net.function("jet_tape")(self.net.args, self.args)
        return size

    def _begin(self, tape: Tape) -> None:
        size = self._tape_size()
        if 0 < size * self.net.dtype.itemsize <= _TAPE_BYTES:
            tape.numbers = self.net.tape(size)
            self.args.tape = tape.numbers.data_ptr()

    def backward(
        self,
        bars: Sequence[Tensor],
        need_x: bool,
        need_seeds: bool,
        need_params: bool,
        need_weights: bool,
        tape: Tape | None = None,
    ) -> Grads:
        """Cotangents of the last results may be left out: they are zero."""
        held = [self.net.rows(name, bar, *shape) for (name, shape), bar in zip(self.results.items(), bars)]
        if tape is not None and tape.numbers is not None:
            # Hooks on a saved tensor may change it, and parameters may have other widths by now.
            numbers = self.net.rows("tape", tape.numbers, self._tape_size())
            self.args.tape = numbers.data_ptr()
        wanted = _Wanted(self, need_x, need_seeds, need_params, need_weights)
        addresses = [*map(_address, held), 0, 0][:3]
        self.net.call(f"{self.engine}_bwd", self.args, *addresses, _C.LossArgs(0, 0, 0, 1.0), wanted.args)
        return wanted.grads()

    def loss(self, loss: Any, need_params: bool) -> tuple[Tensor, Grads]:
        losses = self.net.new(*self.net.axis)
        wanted = _Wanted(self, False, False, need_params, need_params, losses)
        self.net.call(f"{self.engine}_bwd", self.args, 0, 0, 0, loss, wanted.args)
        return losses, wanted.grads()


def _jet(net: Net, x: Tensor, directions: Tensor, forms: Tensor) -> _Call:
    N, D, O, K, R = net.points(x), net.in_features, net.out_features, directions.shape[-2], forms.shape[-3]
    seeds = {"directions": (directions, (K, D)), "forms": (forms, (R, K, K))}
    return _Call("jet", net, x, seeds, {"y_bar": (N, O), "T_bar": (N, K, O), "S_bar": (N, R, O)})


def _sandwich(net: Net, x: Tensor, directions: Tensor, combinations: Tensor) -> _Call:
    N, D, O, K, C = net.points(x), net.in_features, net.out_features, directions.shape[-2], combinations.shape[-2]
    seeds = {"directions": (directions, (K, D)), "combinations": (combinations, (C, O))}
    return _Call("sandwich", net, x, seeds, {"y_bar": (N, O), "J_bar": (N, C, D), "H_bar": (N, C, K, K)})


class _Wanted:
    """The gradients asked for: buffers, and their addresses for the extension."""

    def __init__(
        self,
        call: _Call,
        need_x: bool,
        need_seeds: bool,
        need_params: bool,
        need_weights: bool,
        losses: Tensor | None = None,
    ) -> None:
        net, N = call.net, call.net.points(call.x)
        self.given = call.seeds if need_seeds else []
        self.x = net.new(N, net.in_features) if need_x else None
        self.seeds = [net.new(N, *core) for core in call.cores] if need_seeds else []
        self.weights = [net.new(*w.shape) for w in net.weights] if need_params and need_weights else []
        self.biases = [net.new(*b.shape) for b in net.biases] if need_params else []
        first, second = map(_address, self.seeds or (None, None))
        parameters = [w.data_ptr() for w in self.weights], [b.data_ptr() for b in self.biases]
        self.args = _C.GradArgs(_address(losses), _address(self.x), first, second, *parameters)

    def grads(self) -> Grads:
        """Per-point gradients of constant seeds are summed over the points."""
        pairs = zip(self.seeds, self.given, strict=True)
        seeds = tuple(bar if bar.ndim == seed.ndim else _summed(bar) for bar, seed in pairs)
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
    """Address of a tensor, 0 where there is nothing to read or write."""
    return tensor.data_ptr() if tensor is not None and tensor.numel() else 0


def value_fwd(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    tape: Tape | None = None,
) -> Tensor:
    """Return y [N, O]: a jet without directions and forms."""
    return _value(x, weights, biases, omegas).forward(tape)[0]


def value_bwd(
    y_bar: Tensor,  # [N, O]
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_params: bool,
    need_weights: bool = True,
    tape: Tape | None = None,
) -> Grads:
    """Vector-Jacobian product of value_fwd; without need_weights, of the parameters those of the biases alone."""
    return _value(x, weights, biases, omegas).backward([y_bar], need_x, False, need_params, need_weights, tape)


def value_bwdbwd(
    x_bar_bar: Tensor | None,  # [N, D]
    W_bar_bar: Sequence[Tensor] | None,
    b_bar_bar: Sequence[Tensor] | None,
    y_bar: Tensor,  # [N, O]
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Grads]:
    """Vector-Jacobian product of value_bwd: y_bar_bar [N, O] and the gradients of x and the parameters."""
    net = net_of(weights, biases, omegas)
    N, D, O = net.points(x), net.in_features, net.out_features
    x_dots = torch.zeros(1, D, dtype=net.dtype, device="cpu") if x_bar_bar is None else x_bar_bar.unsqueeze(1)
    call = _jet(net, x, x_dots, net.new(0, 1, 1))
    y_bar = net.rows("y_bar", y_bar, N, O)
    dots, y_dot, wanted = (
        tangents_of(net, W_bar_bar, b_bar_bar, omegas),
        net.new(N, O),
        _Wanted(call, True, False, True, True),
    )
    net.call("value_bwdbwd", call.args, dots.args, y_bar.data_ptr(), y_dot.data_ptr(), wanted.args)
    return y_dot, wanted.grads()


def _value(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> _Call:
    net = net_of(weights, biases, omegas)
    return _jet(net, x, net.new(0, net.in_features), net.new(0, 0, 0))


def jet_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    tape: Tape | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], T [N, K, O] and S [N, R, O]."""
    y, T, S = _jet(net_of(weights, biases, omegas), x, directions, forms).forward(tape)
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
    need_weights: bool = True,
    tape: Tape | None = None,
) -> Grads:
    """Vector-Jacobian product of jet_fwd; seeds are V_bar and M_bar."""
    call = _jet(net_of(weights, biases, omegas), x, directions, forms)
    return call.backward([y_bar, T_bar, S_bar], need_x, need_seeds, need_params, need_weights, tape)


def sandwich_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [N, O], J [N, C, D] and H [N, C, K, K]."""
    y, J, H = _sandwich(net_of(weights, biases, omegas), x, directions, combinations).forward()
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
    need_weights: bool = True,
) -> Grads:
    """Vector-Jacobian product of sandwich_fwd; seeds are V_bar and E_bar."""
    call = _sandwich(net_of(weights, biases, omegas), x, directions, combinations)
    return call.backward([y_bar, J_bar, H_bar], need_x, need_seeds, need_params, need_weights)


def adjoint_fwd(
    x: Tensor, combinations: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return y [N, O] and J [N, C, D]: a sandwich without directions."""
    y, J, _ = _adjoint(x, combinations, weights, biases, omegas).forward()
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
    need_weights: bool = True,
) -> Grads:
    """Vector-Jacobian product of adjoint_fwd; the one seed is E_bar."""
    call = _adjoint(x, combinations, weights, biases, omegas)
    grads = call.backward([y_bar, J_bar], need_x, need_seeds, need_params, need_weights)
    return grads._replace(seeds=grads.seeds[1:])


def _adjoint(
    x: Tensor, combinations: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]
) -> _Call:
    net = net_of(weights, biases, omegas)
    return _sandwich(net, x, net.new(0, net.in_features), combinations)


def loss_fwd(
    kind: str,
    x: Tensor,  # [N, D], or [1, N / G, D] shared by G networks
    target: Tensor | None,  # [N, O], [N, O, D] for "gradient", None for "eikonal"
    weight: Tensor | None,  # [N]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_params: bool,
    reduction: str,
) -> tuple[Tensor, Grads]:
    """Losses [] or [G] and parameter gradients in one pass over tiles of points; kinds as in composed_loss.py."""
    net = net_of(weights, biases, omegas)
    N, D, O = net.points(x), net.in_features, net.out_features
    if (target is None) != (kind == "eikonal"):
        raise ValueError(f"target: got {target}, expected a tensor for every loss but 'eikonal', which takes None")
    if target is not None:
        target = net.rows("target", target, *((N, O, D) if kind == "gradient" else (N, O)))
    weight = None if weight is None else net.rows("weight", weight, N)
    n = N // net.networks
    scale = 1 / max(n * O, 1) if reduction == "mean" else 1.0
    loss = _C.LossArgs(_LOSSES[kind], _address(target), _address(weight), scale)
    losses, grads = _loss_call(net, kind, x).loss(loss, need_params)
    return losses.fill_(torch.nan) if n == 0 and reduction == "mean" else losses, grads


def _loss_call(net: Net, kind: str, x: Tensor) -> _Call:
    """The cheapest pass that makes what the loss is of: reverse mode when there are fewer outputs than inputs."""
    D, O = net.in_features, net.out_features
    identity = torch.eye(D, dtype=net.dtype, device="cpu")
    if kind in ("gradient", "eikonal") and O < D:
        return _sandwich(net, x, identity[:0], torch.eye(O, dtype=net.dtype, device="cpu"))
    directions = identity[:0] if kind == "value" else identity
    forms = identity[None] if kind == "laplacian" else identity.new_empty(0, len(directions), len(directions))
    return _jet(net, x, directions, forms)


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
    net = net_of(weights, biases, omegas)
    size = math.prod(shape), net.out_features
    usable = out.device.type == "cpu" and out.is_contiguous() and out.dtype in _PIXELS
    if tuple(out.shape) != size or not usable:
        raise ValueError(
            f"out: got {out.dtype} of shape {tuple(out.shape)} on {out.device}, expected contiguous {size} on the CPU, "
            f"one of {list(_PIXELS)}"
        )
    arguments = [float(o) for o in origin], [float(s) for s in step], list(start), list(shape)
    if net.axis:
        raise ValueError(f"weights: got {net.networks} networks, expected one, as a grid is of one")
    net.call("grid_fwd", *arguments, out.data_ptr(), _PIXELS[out.dtype], gain, offset)
