"""The recurrences in plain torch, on rows of points: the mathematics of the backend "reference".

Written for clarity: one line is one equation, numbered as in kernels/README.md. Forward (`*_sweep`) and backward
(`*_reverse`) are explicit, with no autograd inside and nothing in place, so torch.func.vjp, jvp and vmap, forward-mode
AD and torch.compile go through all of it.

Letters: N points, D coordinates, I inputs and H units of a layer, O outputs, K directions, R forms, C combinations.
theta phase, h = sin theta, t tangents, s second-order channels, p = A t, q = A s, a adjoints; a bar is a cotangent.
Channels come first ([K, N, H]), so one [N, H] sine or cosine multiplies them all; seeds that all points share are
[K, 1, D], and stay so until the first sine. Forms are symmetric, [R, K, K] or [N, R, K, K].
A = omega W carries derivatives; phases are omega * (W h + b) as in eager torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fastsiren.engine.network import Grads


class Params(NamedTuple):
    """A network: raw parameters of every layer, the linear output layer last, and omega of every sine layer."""

    weights: Sequence[Tensor]  # [H, I] each
    biases: Sequence[Tensor]  # [H] each
    omegas: Sequence[float]

    def sine_layers(self) -> list[tuple[Tensor, Tensor, float]]:
        """(W, b, omega) of every sine layer, first to last."""
        return list(zip(self.weights[:-1], self.biases[:-1], self.omegas, strict=True))

    def output(self, h: Tensor) -> Tensor:
        """(4): y = W_o h + b_o."""
        return F.linear(h, self.weights[-1], self.biases[-1])


class ParameterBars:
    """Collects W_bar and b_bar from the last layer down to the first."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []

    def add(self, omega: float, *pairs: tuple[Tensor, Tensor]) -> None:
        """(10), (12): W_bar = omega * sum of outer products; the left factor of the first pair is theta_bar."""
        if not self.wanted:
            return
        A_bar = outer(*pairs[0])
        for left, right in pairs[1:]:
            A_bar = A_bar + outer(left, right)
        self.weights.insert(0, omega * A_bar)
        self.biases.insert(0, omega * pairs[0][0].sum(0))

    def grads(self, x_bar: Tensor | None, seeds: tuple[Tensor, ...] = ()) -> Grads:
        """The result of a backward pass."""
        return Grads(x_bar, seeds, self.weights, self.biases)


def outer(left: Tensor, right: Tensor) -> Tensor:
    """Sum over points and channels of left (x) right: [.., N, I], [.., N, J] -> [I, J]."""
    return torch.einsum("...ni,...nj->ij", left, right)


def apply_forms(forms: Tensor, p: Tensor) -> Tensor:
    """sum_j M^r_kj p^j, [R, K, N, H]."""
    return torch.einsum("rkj,jnm->rknm" if forms.ndim == 3 else "nrkj,jnm->rknm", forms, p)


def symmetric(forms: Tensor) -> Tensor:
    """Symmetric part of the last two dimensions, symmetric to the bit."""
    return (forms + forms.mT) / 2


# Engine T without tangents


class Layer(NamedTuple):
    """What a sine layer keeps for a backward."""

    h: Tensor  # [N, I] input
    sine: Tensor  # [N, H]
    cosine: Tensor  # [N, H]


def value_sweep(x: Tensor, net: Params) -> tuple[Tensor, list[Layer]]:
    """Return y [N, O] and every sine layer."""
    layers, h = [], x
    for W, b, omega in net.sine_layers():
        theta = omega * F.linear(h, W, b)  # (1)
        layers.append(Layer(h, theta.sin(), theta.cos()))
        h = layers[-1].sine  # (3)
    return net.output(h), layers


def value_reverse(y_bar: Tensor, layers: list[Layer], net: Params, need_params: bool) -> tuple[Tensor, ParameterBars]:
    """x_bar [N, D] and the cotangents of the parameters."""
    bars = ParameterBars(need_params)
    bars.add(1.0, (y_bar, layers[-1].sine))
    h_bar = y_bar @ net.weights[-1]  # (5)
    for (W, _, omega), layer in zip(net.sine_layers()[::-1], layers[::-1], strict=True):
        theta_bar = layer.cosine * h_bar  # (8)
        bars.add(omega, (theta_bar, layer.h))
        h_bar = theta_bar @ (omega * W)  # (11)
    return h_bar, bars


def value_second_reverse(
    x_dot: Tensor,  # [N, D]
    W_dots: Sequence[Tensor | None],
    b_dots: Sequence[Tensor | None],
    y_bar: Tensor,  # [N, O]
    x: Tensor,
    net: Params,
) -> tuple[Tensor, Tensor, ParameterBars]:
    """Return y_dot [N, O], the derivative of y along (x_dot, W_dots, b_dots), and the gradients of <y_bar, y_dot>.

    Engine T with one direction, whose tangent enters at x and at every layer; None is a zero tangent.
    """

    def tangent(l: int, omega: float, h: Tensor, t: Tensor) -> Tensor:
        p = F.linear(t, omega * net.weights[l])  # (1)
        W_dot, b_dot = W_dots[l], b_dots[l]
        p = p if W_dot is None else p + F.linear(h, omega * W_dot)
        return p if b_dot is None else p + omega * b_dot

    h, t, layers = x, x_dot, []
    for l, (W, b, omega) in enumerate(net.sine_layers()):
        theta, p = omega * F.linear(h, W, b), tangent(l, omega, h, t)
        layers.append((h, t, theta.sin(), theta.cos(), p))
        h, t = theta.sin(), theta.cos() * p  # (3)
    y_dot = tangent(-1, 1.0, h, t)

    bars = ParameterBars(True)
    bars.add(1.0, (torch.zeros_like(y_bar), h), (y_bar, t))
    t_bar = y_bar @ net.weights[-1]  # (5)
    h_bar = torch.zeros_like(t_bar) if W_dots[-1] is None else y_bar @ W_dots[-1]
    for l, (W, _, omega) in reversed(list(enumerate(net.sine_layers()))):
        (h, t, sine, cosine, p), W_dot = layers[l], W_dots[l]
        p_bar = cosine * t_bar  # (7)
        theta_bar = cosine * h_bar - sine * t_bar * p  # (8)
        bars.add(omega, (theta_bar, h), (p_bar, t))
        h_bar, t_bar = theta_bar @ (omega * W), p_bar @ (omega * W)  # (11)
        h_bar = h_bar if W_dot is None else h_bar + p_bar @ (omega * W_dot)
    return y_dot, h_bar, bars


# Engine T


class JetLayer(NamedTuple):
    """What a sine layer keeps for the backward of a jet; N may be 1 in t, s, p, q of the first one."""

    h: Tensor  # [N, I] inputs
    t: Tensor  # [K, N, I]
    s: Tensor  # [R, N, I]
    sine: Tensor  # [N, H]
    cosine: Tensor  # [N, H]
    p: Tensor  # [K, N, H]
    q: Tensor  # [R, N, H]


class Channels(NamedTuple):
    """The channels after a layer, or their cotangents."""

    h: Tensor  # [N, H]
    t: Tensor  # [K, N, H]
    s: Tensor  # [R, N, H]


def jet_sweep(
    x: Tensor, V: Tensor, M: Tensor, net: Params, kept: list[JetLayer] | None = None
) -> tuple[Channels, Channels]:
    """Outputs (y, T, S), and the channels of the last sine layer; appends every sine layer to `kept`."""
    h, t, s = x, V, V.new_zeros(M.shape[-3], 1, x.shape[-1])
    for W, b, omega in net.sine_layers():
        A = omega * W
        theta, p, q = omega * F.linear(h, W, b), t @ A.mT, s @ A.mT  # (1)
        u = (apply_forms(M, p) * p).sum(1)  # (2)
        sine, cosine = theta.sin(), theta.cos()
        if kept is not None:
            kept.append(JetLayer(h, t, s, sine, cosine, p, q))
        h, t, s = sine, cosine * p, cosine * q - sine * u  # (3)
    W_o = net.weights[-1]
    return Channels(net.output(h), t @ W_o.mT, s @ W_o.mT), Channels(h, t, s)  # (4)


def jet_reverse(
    bar: Channels, last: Channels, layers: list[JetLayer], M: Tensor, net: Params, need_params: bool
) -> tuple[Tensor, Tensor, Tensor, ParameterBars]:
    """x_bar [N, D], V_bar [K, N, D], M_bar like M and the cotangents of the parameters, from those of (y, T, S)."""
    bars = ParameterBars(need_params)
    bars.add(1.0, *zip(bar, last, strict=True))
    h_bar, t_bar, s_bar = (channel @ net.weights[-1] for channel in bar)  # (5)
    M_bar = torch.zeros_like(M)
    for (W, _, omega), (h, t, s, sine, cosine, p, q) in zip(net.sine_layers()[::-1], layers[::-1], strict=True):
        A, Mp, w = omega * W, apply_forms(M, p), sine * s_bar
        u = (Mp * p).sum(1)  # (2)
        q_bar = cosine * s_bar  # (6)
        p_bar = cosine * t_bar - 2 * (w.unsqueeze(1) * Mp).sum(0)  # (7)
        theta_bar = cosine * h_bar - sine * (t_bar * p).sum(0) - (w * q + q_bar * u).sum(0)  # (8)
        M_bar = M_bar - torch.einsum("rknm,jnm->rkj" if M.ndim == 3 else "rknm,jnm->nrkj", w.unsqueeze(1) * p, p)  # (9)
        bars.add(omega, (theta_bar, h), (p_bar, t), (q_bar, s))  # (10)
        h_bar, t_bar, s_bar = theta_bar @ A, p_bar @ A, q_bar @ A  # (11)
    return h_bar, t_bar, symmetric(M_bar), bars


# Engine A, and TxA: the same with tangents


class Tangents(NamedTuple):
    """Tangents of every sine layer, and the cotangent of the second derivatives that they give."""

    t: list[Tensor]  # [K, N, I] inputs; N may be 1 in those of the first layer
    p: list[Tensor]  # [K, N, H]
    H_bar: Tensor  # [N, C, K, K] symmetric


def adjoint_sweep(E: Tensor, layers: list[Layer], net: Params) -> tuple[Tensor, list[Tensor]]:
    """J [C, N, D], and the adjoint a [C, N, H] of every sine layer; N is 1 in the last one where E is shared."""
    a = E @ net.weights[-1]  # (13)
    adjoints: list[Tensor] = []
    for (W, _, omega), layer in zip(net.sine_layers()[::-1], layers[::-1], strict=True):
        adjoints.insert(0, a)
        a = (layer.cosine * a) @ (omega * W)  # (14), (15)
    return a, adjoints


def tangent_sweep(V: Tensor, layers: list[Layer], net: Params) -> tuple[list[Tensor], list[Tensor]]:
    """Return t [K, N, I] and p [K, N, H] of every sine layer."""
    t, tangents, slopes = V, [], []
    for (W, _, omega), layer in zip(net.sine_layers(), layers, strict=True):
        tangents.append(t)
        slopes.append(t @ (omega * W).mT)  # (1)
        t = layer.cosine * slopes[-1]  # (3)
    return tangents, slopes


def second_derivatives(layers: list[Layer], adjoints: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """(19): H [N, C, K, K] of every combination over every pair of directions."""
    total = torch.zeros((), dtype=adjoints[0].dtype, device=adjoints[0].device)
    for layer, a, p in zip(layers, adjoints, slopes, strict=True):
        total = total - torch.einsum("cknm,jnm->nckj", (layer.sine * a).unsqueeze(1) * p, p)
    return symmetric(total)


def adjoint_reverse(
    y_bar: Tensor,  # [N, O]
    J_bar: Tensor,  # [C, N, D]
    E: Tensor,
    layers: list[Layer],
    adjoints: list[Tensor],
    net: Params,
    need_params: bool,
    tangents: Tangents | None = None,
) -> tuple[Tensor, Tensor, Tensor, ParameterBars]:
    """x_bar [N, D], V_bar [K, N, D] (K = 0 without tangents), E_bar [C, N, O] and the parameters' cotangents."""
    a_bar, a_bars, early = J_bar, [], []
    for l, (W, _, omega) in enumerate(net.sine_layers()):
        (_, sine, cosine), a = layers[l], adjoints[l]
        a_bars.append(a_bar)
        g_bar = a_bar @ (omega * W).mT  # (16)
        a_bar, e = cosine * g_bar, -sine * (a * g_bar).sum(0)  # (16), (17)
        if tangents is not None:
            u = (apply_forms(tangents.H_bar, tangents.p[l]) * tangents.p[l]).sum(1)  # (2)
            a_bar, e = a_bar - sine * u, e - cosine * (a * u).sum(0)  # (20), (21)
        early.append(e)

    bars = ParameterBars(need_params)
    bars.add(1.0, (y_bar, layers[-1].sine), (E, a_bar))  # (23)
    E_bar, h_bar = a_bar @ net.weights[-1].mT, y_bar @ net.weights[-1]  # (23)
    t_bar = J_bar[:0] if tangents is None else torch.zeros_like(tangents.p[-1])
    for l, (W, _, omega) in reversed(list(enumerate(net.sine_layers()))):
        (h, sine, cosine), a = layers[l], adjoints[l]
        theta_bar, pairs = cosine * h_bar + early[l], [(cosine * a, a_bars[l])]  # (18), (22)
        if tangents is not None:
            p, Hp = tangents.p[l], apply_forms(tangents.H_bar, tangents.p[l])
            theta_bar = theta_bar - sine * (t_bar * p).sum(0)  # (25)
            p_bar = cosine * t_bar - 2 * ((sine * a).unsqueeze(1) * Hp).sum(0)  # (24)
            pairs.append((p_bar, tangents.t[l]))
            t_bar = p_bar @ (omega * W)  # (27)
        bars.add(omega, (theta_bar, h), *pairs)  # (26)
        h_bar = theta_bar @ (omega * W)  # (27)
    return h_bar, t_bar, E_bar, bars
