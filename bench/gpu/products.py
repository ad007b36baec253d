"""Ways to multiply at fp32 accuracy, on one hidden layer: pairs of fp16, as shipped; digits of eight bits; plain torch.

kernels/README.md tells what was counted and predicted without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from fastsiren.kernels import network
from fastsiren.kernels.jet import sine_layer
from torch import Tensor
from triton.errors import TritonError

from .. import timing
from .items import DEVICE, INTERPRETED, Outcome, oracle
from .measure import clock
from .pool import Settings

MODES = {"pairs": "fp32", "digits": "int8"}
# Relative error of a layer within the reach of fp32.
LIMIT = 2e-6
OMEGA = 30.0
# Elements of a channel.
SIZE = 1 << 11 if INTERPRETED else 1 << 26
CHANNELS = {"value": (0, 0), "laplacian": (2, 1)}
NAME = re.compile(r"w(\d+)-(value|laplacian)")


class Layer(NamedTuple):
    """A hidden layer, and the channels of a jet that enter it."""

    weight: Tensor
    bias: Tensor
    X: Tensor  # [1 + K + R, N, width]
    forms: Tensor  # [R, K, K]

    def call(self, mode: str) -> Callable[[], Tensor]:
        """Return the layer's kernel in a mode; the matrix is packed once."""
        W, b = self.weight[None], self.bias[None]
        net = network.prepare([W[..., :1], W, W[:, :1]], [b, b, b[:, :1]], [1.0, OMEGA], mode)
        return lambda: sine_layer(net, 1, self.X, self.forms, self.X.shape[1], keep=False)[1]

    def plain(self) -> Tensor:
        """Return the same in torch, in the dtype of the tensors."""
        z = OMEGA * (self.X @ self.weight.mT)
        theta, (R, K) = z[0] + OMEGA * self.bias, self.forms.shape[:2]
        u = torch.einsum("rkj,knh,jnh->rnh", self.forms, z[1 : 1 + K], z[1 : 1 + K])
        s = theta.cos() * z[1 + K :] - theta.sin() * u if R else z[:0]
        return torch.cat([theta.sin()[None], theta.cos() * z[1 : 1 + K], s])

    def to(self, dtype: torch.dtype, rows: int) -> Layer:
        """Return the layer in another dtype, with its first rows alone."""
        return Layer(self.weight.to(dtype), self.bias.to(dtype), self.X[:, :rows].to(dtype), self.forms.to(dtype))


def items(settings: Settings) -> list[str]:
    """Return widths, each with the channels of a value and of a Laplacian."""
    widths = (32,) if INTERPRETED else (64,) if settings.quick else (256, 64, 128, 512)
    return [f"w{width}-{kind}" for width in widths for kind in CHANNELS]


def layer(width: int, kind: str) -> Layer:
    """Return a layer as it is initialised, sines for a value, and numbers of any size for the other channels."""
    K, R = CHANNELS[kind]
    draw = torch.Generator(device="cpu").manual_seed(0)
    bound = (6.0 / width) ** 0.5 / OMEGA
    weight, bias = ((2 * torch.rand(*shape, generator=draw) - 1) * bound for shape in ((width, width), (width,)))
    X = torch.randn(1 + K + R, max(16, SIZE // width // (1 + K + R)), width, device=DEVICE)
    X[0] = X[0].mul(3.0).sin()
    forms = torch.eye(K).expand(R, K, K).contiguous()
    return Layer(weight.to(DEVICE), bias.to(DEVICE), X, forms.to(DEVICE))


def run(name: str, settings: Settings) -> Outcome:
    """Compare both ways with fp64, then time those that run, and torch; one that does not compile is named."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"item is {name!r}; expected is a name like w256-value")
    made = layer(int(found[1]), found[2])
    rows = min(1000, made.X.shape[1])
    exact = made.to(torch.float64, rows).plain()
    calls: dict[str, Callable[[], object]] = {}
    errors, absent = {"torch": oracle().relative_error(made.to(torch.float32, rows).plain(), exact)}, {}
    for kind, mode in MODES.items():
        call = made.call(mode)
        try:
            errors[kind] = oracle().relative_error(call()[:, :rows], exact)
        except TritonError as error:
            absent[kind] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            continue
        calls[kind] = call
    samples = timing.interleave({**calls, "torch": made.plain}, seconds=0.5, min_rounds=1, clock=clock)
    ms = {kind: 1e3 * timing.spread(times).median for kind, times in samples.items()}
    words = [f"{kind} {time:.4g} ms (error {errors[kind]:.1e})" for kind, time in ms.items()]
    words += [f"{kind} does not run, {reason}" for kind, reason in absent.items()]
    line = f"{made.X.shape[1]} rows: {', '.join(words)}"
    state = "measured" if max(errors.values()) <= LIMIT else "failed"
    return Outcome(state, line, {"ms": ms, "errors": errors, "absent": absent})
