"""Backend "reference": every pass in plain torch, for any dtype, device and leading shape.

The mathematics is in recurrences.py; here are shapes, scaling of seeds, losses and grids. No autograd, nothing in
place: torch.func.vjp, jvp and vmap, forward-mode AD and torch.compile go through every function but `grid_fwd`, and the
op layer ends its chain of derivatives that way.

Arguments: x [..., D], directions [K, D] or [..., K, D], forms [R, K, K] or [..., R, K, K], combinations [C, O] or
[..., C, O]; results and their cotangents have the leading dimensions of x. Results are fresh and contiguous.
Arguments are taken to fit each other: they are checked at the public edge.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastsiren.engine import recurrences as rec
from fastsiren.engine.network import Grads
from fastsiren.engine.recurrences import Params

# Rows decoded at a time by grid_fwd: bounds its memory whatever the size of the grid.
GRID_CHUNK = 1 << 16


def value_fwd(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]) -> Tensor:
    """Return y [..., O]."""
    net, h = Params(weights, biases, omegas), _rows(x)
    for W, b, omega in net.sine_layers():
        h = torch.sin(omega * torch.nn.functional.linear(h, W, b))  # (1), (3)
    return _unfold(net.output(h), x)


def value_bwd(
    y_bar: Tensor,  # [..., O]
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of value_fwd."""
    net = Params(weights, biases, omegas)
    _, layers = rec.value_sweep(_rows(x), net)
    x_bar, bars = rec.value_reverse(_rows(y_bar), layers, net, need_params)
    return bars.grads(_unfold(x_bar, x) if need_x else None)


def value_bwdbwd(
    x_bar_bar: Tensor | None,  # [..., D]
    W_bar_bar: Sequence[Tensor | None] | None,  # one [n_out, n_in] per layer
    b_bar_bar: Sequence[Tensor | None] | None,  # one [n_out] per layer
    y_bar: Tensor,  # [..., O]
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Grads]:
    """Vector-Jacobian product of value_bwd: y_bar_bar [..., O] and the gradients of x and the parameters.

    A cotangent that is None is zero. Since <x_bar_bar, x_bar> + <W_bar_bar, W_bar> + <b_bar_bar, b_bar> is <y_bar, y'>,
    with y' the derivative of y along these cotangents, y_bar_bar is y', and the gradients are those of <y_bar, y'>.
    """
    W_dots, b_dots = ([None] * len(weights) if dots is None else dots for dots in (W_bar_bar, b_bar_bar))
    x_dot = torch.zeros_like(x) if x_bar_bar is None else x_bar_bar
    y_dot, x_bar, bars = rec.value_second_reverse(
        _rows(x_dot), W_dots, b_dots, _rows(y_bar), _rows(x), Params(weights, biases, omegas)
    )
    return _unfold(y_dot, x), bars.grads(_unfold(x_bar, x))


def jet_fwd(
    x: Tensor,
    directions: Tensor,
    forms: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [..., O], T [..., K, O] along the directions, and S [..., R, O], their second-order forms."""
    sigma, V = _seed_scale(omegas), _channels(directions)
    (y, T, S), _ = rec.jet_sweep(_rows(x), V / sigma, _forms(forms), Params(weights, biases, omegas))
    return _unfold(y, x), _unfold_channels(T * sigma, x), _unfold_channels(S * sigma**2, x)


def jet_bwd(
    y_bar: Tensor,  # [..., O]
    T_bar: Tensor,  # [..., K, O]
    S_bar: Tensor,  # [..., R, O]
    x: Tensor,
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
    """Vector-Jacobian product of jet_fwd; seeds are (V_bar, M_bar), M_bar symmetric."""
    net, sigma, M = Params(weights, biases, omegas), _seed_scale(omegas), _forms(forms)
    layers: list[rec.JetLayer] = []
    _, last = rec.jet_sweep(_rows(x), _channels(directions) / sigma, M, net, layers)
    bar = rec.Channels(_rows(y_bar), _channels(T_bar) * sigma, _channels(S_bar) * sigma**2)
    x_bar, V_bar, M_bar, bars = rec.jet_reverse(bar, last, layers, M, net, need_params)
    seeds = (_seed_bar(V_bar / sigma, directions), M_bar.reshape(forms.shape).contiguous()) if need_seeds else ()
    return bars.grads(_unfold(x_bar, x) if need_x else None, seeds)


def adjoint_fwd(
    x: Tensor, combinations: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], omegas: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return y [..., O] and J [..., C, D], the gradients of the combinations of outputs."""
    net = Params(weights, biases, omegas)
    y, layers = rec.value_sweep(_rows(x), net)
    J, _ = rec.adjoint_sweep(_channels(combinations), layers, net)
    return _unfold(y, x), _unfold_channels(J, x)


def adjoint_bwd(
    y_bar: Tensor,  # [..., O]
    J_bar: Tensor,  # [..., C, D]
    x: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_x: bool,
    need_seeds: bool,
    need_params: bool,
) -> Grads:
    """Vector-Jacobian product of adjoint_fwd; seeds are (E_bar,)."""
    net, E = Params(weights, biases, omegas), _channels(combinations)
    _, layers = rec.value_sweep(_rows(x), net)
    _, adjoints = rec.adjoint_sweep(E, layers, net)
    x_bar, _, E_bar, bars = rec.adjoint_reverse(_rows(y_bar), _channels(J_bar), E, layers, adjoints, net, need_params)
    return bars.grads(_unfold(x_bar, x) if need_x else None, (_seed_bar(E_bar, combinations),) if need_seeds else ())


def sandwich_fwd(
    x: Tensor,
    directions: Tensor,
    combinations: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return y [..., O], J [..., C, D] and H [..., C, K, K], second derivatives along pairs of directions."""
    net, sigma = Params(weights, biases, omegas), _seed_scale(omegas)
    y, layers = rec.value_sweep(_rows(x), net)
    J, adjoints = rec.adjoint_sweep(_channels(combinations), layers, net)
    _, slopes = rec.tangent_sweep(_channels(directions) / sigma, layers, net)
    H = rec.second_derivatives(layers, adjoints, slopes) * sigma**2
    return _unfold(y, x), _unfold_channels(J, x), H.reshape(*x.shape[:-1], *H.shape[1:]).contiguous()


def sandwich_bwd(
    y_bar: Tensor,  # [..., O]
    J_bar: Tensor,  # [..., C, D]
    H_bar: Tensor,  # [..., C, K, K]
    x: Tensor,
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
    """Vector-Jacobian product of sandwich_fwd; seeds are (V_bar, E_bar)."""
    net, sigma, E = Params(weights, biases, omegas), _seed_scale(omegas), _channels(combinations)
    _, layers = rec.value_sweep(_rows(x), net)
    _, adjoints = rec.adjoint_sweep(E, layers, net)
    t, p = rec.tangent_sweep(_channels(directions) / sigma, layers, net)
    tangents = rec.Tangents(t, p, _forms(H_bar) * sigma**2)
    x_bar, V_bar, E_bar, bars = rec.adjoint_reverse(
        _rows(y_bar), _channels(J_bar), E, layers, adjoints, net, need_params, tangents
    )
    seeds = (_seed_bar(V_bar / sigma, directions), _seed_bar(E_bar, combinations)) if need_seeds else ()
    return bars.grads(_unfold(x_bar, x) if need_x else None, seeds)


def loss_fwd(
    kind: str,
    x: Tensor,
    target: Tensor | None,  # [..., O] or, for gradients, [..., O, D]; None for the eikonal loss
    weight: Tensor | None,  # [...]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    need_params: bool,
    reduction: str,
) -> tuple[Tensor, Grads]:
    """Loss [] and its gradients for the parameters; kinds are "value", "gradient", "laplacian" and "eikonal".

    The sum over points and outputs of weight * residual^2, divided by their number for reduction "mean".
    """
    net, points, outputs = Params(weights, biases, omegas), _rows(x), weights[-1].shape[0]
    count = points.shape[0] * outputs if reduction == "mean" else 1
    w = 1.0 if weight is None else _rows(weight, 0).unsqueeze(-1)  # [N, 1]
    residual, slope, reverse = _LOSSES[kind](points, target, net)
    loss = (w * residual.square()).sum() / count
    bars = reverse(2 * w * slope / count, need_params)
    return loss, bars.grads(None)


# Each loss gives its residual r, the direction `slope` of the cotangent of the quantity q, d(r^2) = 2 slope . dq, and
# the function from that cotangent to those of the parameters.
_Loss = tuple[Tensor, Tensor, Callable[[Tensor, bool], rec.ParameterBars]]


def _value_loss(x: Tensor, target: Tensor | None, net: Params) -> _Loss:
    y, layers = rec.value_sweep(x, net)
    residual = y - _rows(_present(target))  # [N, O]
    return residual, residual, lambda y_bar, wanted: rec.value_reverse(y_bar, layers, net, wanted)[-1]


def _gradient_loss(x: Tensor, target: Tensor | None, net: Params) -> _Loss:
    J, reverse = _jacobian(x, net)
    residual = J - _channels(_present(target))  # [O, N, D]
    return residual, residual, reverse


def _eikonal_loss(x: Tensor, target: Tensor | None, net: Params) -> _Loss:
    J, reverse = _jacobian(x, net)
    norm = torch.linalg.vector_norm(J, dim=-1, keepdim=True)  # [O, N, 1]
    # At norm 0 the gradient of the norm is taken as 0, as torch does: J / 1.
    unit = J / torch.where(norm == 0, torch.ones_like(norm), norm)
    return norm - 1, (norm - 1) * unit, reverse


def _laplacian_loss(x: Tensor, target: Tensor | None, net: Params) -> _Loss:
    sigma, eye = _seed_scale(net.omegas), torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    layers: list[rec.JetLayer] = []
    outputs, last = rec.jet_sweep(x, eye.unsqueeze(1) / sigma, eye.unsqueeze(0), net, layers)
    residual = outputs.s * sigma**2 - _rows(_present(target))  # [1, N, O]

    def reverse(S_bar: Tensor, wanted: bool) -> rec.ParameterBars:
        bar = rec.Channels(torch.zeros_like(outputs.h), torch.zeros_like(outputs.t), S_bar * sigma**2)
        return rec.jet_reverse(bar, last, layers, eye.unsqueeze(0), net, wanted)[-1]

    return residual, residual, reverse


def _jacobian(x: Tensor, net: Params) -> tuple[Tensor, Callable[[Tensor, bool], rec.ParameterBars]]:
    """J [O, N, D] of every output, and the function from its cotangent to those of the parameters."""
    E = torch.eye(net.weights[-1].shape[0], dtype=x.dtype, device=x.device).unsqueeze(1)
    y, layers = rec.value_sweep(x, net)
    J, adjoints = rec.adjoint_sweep(E, layers, net)

    def reverse(J_bar: Tensor, need_params: bool) -> rec.ParameterBars:
        return rec.adjoint_reverse(torch.zeros_like(y), J_bar, E, layers, adjoints, net, need_params)[-1]

    return J, reverse


def _present(target: Tensor | None) -> Tensor:
    """The target of a loss that needs one."""
    if target is None:
        raise ValueError("target: got None, expected a tensor (only the eikonal loss has none)")
    return target


_LOSSES = {
    "value": _value_loss,
    "gradient": _gradient_loss,
    "laplacian": _laplacian_loss,
    "eikonal": _eikonal_loss,
}


@torch.no_grad()
def grid_fwd(
    origin: Sequence[float],
    step: Sequence[float],
    start: Sequence[int],
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    out: Tensor,
    gain: float,
    offset: float,
) -> None:
    """Write gain * y + offset of a dense grid into out [prod(shape), O], the first axis slowest.

    Index i of axis a has the coordinate origin[a] + step[a] * (start[a] + i), in float64, then rounded to the dtype of
    the parameters. An integer `out` takes 0..1 as its full scale: clamped, rounded half to even, NaN to 0.
    """
    axes = [
        (origin[a] + step[a] * torch.arange(start[a], start[a] + n, dtype=torch.float64)).to(weights[0])
        for a, n in enumerate(shape)
    ]
    for first in range(0, out.shape[0], GRID_CHUNK):
        rows = torch.arange(first, min(first + GRID_CHUNK, out.shape[0]), device=weights[0].device)
        columns: list[Tensor] = []
        for axis in reversed(axes):
            columns.insert(0, axis[rows % len(axis)])
            rows = rows // len(axis)
        y = value_fwd(torch.stack(columns, -1), weights, biases, omegas)
        out[first : first + len(y)] = _encode(y, gain, offset, out.dtype)


def _encode(y: Tensor, gain: float, offset: float, dtype: torch.dtype) -> Tensor:
    """Levels of an integer dtype, or gain * y + offset as it is."""
    levels = {torch.uint8: 255, torch.uint16: 65535}.get(dtype)
    scaled = gain * y.to(torch.promote_types(y.dtype, torch.float32)) + offset
    if levels is None:
        return scaled.to(dtype)
    return (torch.where(scaled.isnan(), 0.0, scaled.clamp(0, 1)) * levels).round().to(dtype)


def _rows(tensor: Tensor, core: int = 1) -> Tensor:
    """[..., *core dimensions] -> [N, *core dimensions]."""
    split = tensor.ndim - core
    return tensor.reshape(math.prod(tensor.shape[:split]), *tensor.shape[split:])


def _channels(tensor: Tensor) -> Tensor:
    """Per point [..., K, D] -> [K, N, D]; shared by all points [K, D] -> [K, 1, D]."""
    return tensor.unsqueeze(1) if tensor.ndim == 2 else _rows(tensor, 2).movedim(1, 0)


def _forms(tensor: Tensor) -> Tensor:
    """Symmetric part, [R, K, K] or [N, R, K, K]."""
    return rec.symmetric(tensor if tensor.ndim == 3 else _rows(tensor, 3))


def _unfold(rows: Tensor, x: Tensor) -> Tensor:
    """[N, O] -> [..., O], with the leading dimensions of x."""
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


def _unfold_channels(channels: Tensor, x: Tensor) -> Tensor:
    """[K, N, O] -> [..., K, O], with the leading dimensions of x."""
    return channels.movedim(0, 1).reshape(*x.shape[:-1], channels.shape[0], channels.shape[2]).contiguous()


def _seed_bar(bar: Tensor, seed: Tensor) -> Tensor:
    """Cotangent [K, N, D] of a seed in the seed's shape: summed over the points that share it."""
    return bar.sum(1) if seed.ndim == 2 else bar.movedim(0, 1).reshape(seed.shape).contiguous()


def _seed_scale(omegas: Sequence[float]) -> float:
    """Power of two near omega_0: seeds divided by it keep every channel O(1), and no bit of the result changes."""
    return 2.0 ** round(math.log2(abs(omegas[0]))) if omegas[0] else 1.0
