"""Parameters on a grid: a step for each tensor by what an error there does, and the training that gets used to it.

Rounding a parameter to multiples of a step d adds an error of variance d²/12, and the output's mean squared error grows
by that times h, the mean squared derivative of the output with respect to it. With the sum of log d given, that is with
the length of the code, the sum over parameters of h d² is least where h d² is the same for all: d = c / sqrt(h).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..fit.loop import Step, Trainer, decay, run
from ..fit.sampler import generator
from ..modulation import Conditioned
from ..progress import Progress
from ..siren import Siren
from ..sirenfile import multiples, step
from ..stopping import Stop

__all__ = ["Rounded", "code_bits", "curvatures", "exponents", "finish", "rounded"]

_PROBES = 16
# All are on the grid for the last steps, in which only what is left of Adam's momentum moves.
_FREE_UNTIL = 0.95


class Rounded(nn.Module):
    """A network whose parameters are multiples of a step for each tensor.

    Args:
        net: The network.
        exponents: Four times the binary logarithm of each step; None where parameters are halves.
    """

    def __init__(self, net: nn.Module, exponents: tuple[int, ...] | None) -> None:
        super().__init__()
        self.net, self.exponents = net, exponents

    def forward(self, x: Tensor) -> Tensor:  # [..., D] -> [..., O]
        """Evaluate the network."""
        found: Tensor = self.net(x)
        return found

    def code_bits(self) -> float:
        """About how long the code of its parameters is."""
        if self.exponents is None:
            return 16.0 * sum(parameter.numel() for parameter in self.net.parameters())
        return code_bits(list(self.net.parameters()), self.exponents)


def curvatures(net: nn.Module, x: Tensor) -> list[float]:
    """For each parameter tensor, the squared derivative of an output with respect to an element, on average.

    Args:
        net: Any network, [N, D] to [N, O].
        x: Points to average over, [N, D].
    """
    parameters = list(net.parameters())
    found = [0.0] * len(parameters)
    for probe in range(_PROBES):
        y = net(x)
        # With signs at random, squares of a sum are on average the sum of squares.
        signs = torch.randint(0, 2, y.shape, generator=generator(0, probe)).to(y) * 2 - 1
        gradients = torch.autograd.grad((y * signs).sum(), parameters)
        found = [h + float(g.square().mean()) / y.numel() for h, g in zip(found, gradients, strict=True)]
    return [h / _PROBES for h in found]


def exponents(parameters: Sequence[Tensor], curvatures: Sequence[float], bits: float) -> tuple[int, ...]:
    """Steps with which the code takes about so many bits per parameter, and errors do the least harm.

    Args:
        parameters: The tensors.
        curvatures: As the function of this name gives them.
        bits: Per parameter, on average.

    Returns:
        Four times the binary logarithm of each step.
    """
    # A tensor on which nothing depends has the step of the one on which least depends.
    least = min((h for h in curvatures if h > 0), default=1.0)
    relative = [-2 * math.log2(max(h, least)) for h in curvatures]
    count = sum(parameter.numel() for parameter in parameters)

    def at(offset: float) -> tuple[int, ...]:
        return tuple(min(max(round(each + offset), -128), 127) for each in relative)

    low, high = -256.0 - max(relative), 256.0 - min(relative)
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if code_bits(parameters, at(middle)) > bits * count else (low, middle)
    return at(high)


def code_bits(parameters: Sequence[Tensor], exponents: Sequence[int]) -> float:
    """About how many bits the code of rounded parameters takes: what the coder has to learn is not counted."""
    total = 0.0
    for parameter, exponent in zip(parameters, exponents, strict=True):
        magnitudes = multiples(parameter, exponent).abs().flatten()
        lengths = torch.frexp(magnitudes.double()).exponent
        plain = (lengths - 3).clamp(min=0)
        # Its length and the three highest bits of a number are coded by how often they come.
        counts = torch.bincount(8 * lengths + (magnitudes >> plain)).double()
        learnt = -(counts * (counts / len(lengths)).clamp(min=1e-30).log2()).sum()
        total += float(learnt) + float(plain.sum()) + int(magnitudes.count_nonzero())
    return total


def rounded(tensor: Tensor, exponent: int | None) -> Tensor:
    """The nearest multiples of a step, or halves, without gradients."""
    if exponent is None:
        return tensor.detach().half().to(tensor.dtype)
    return multiples(tensor, exponent).to(tensor.dtype) * step(exponent)


def with_parameters(net: nn.Module, tensors: list[Tensor]) -> Any:
    """The network with other parameters, for operators and losses."""
    if isinstance(net, Siren):
        _, _, omegas, outermost_linear, precision = net.siren_parameters()
        return Conditioned(tensors[0::2], tensors[1::2], omegas, outermost_linear, precision)
    names = [name for name, _ in net.named_parameters()]
    values = dict(zip(names, tensors, strict=True))
    return lambda x: torch.func.functional_call(net, values, (x,))


def finish(
    net: nn.Module,
    exponents: tuple[int, ...] | None,
    loss: Callable[[Any, int], Any],
    *,
    steps: int,
    lr: float,
    seed: int = 0,
    stop: Stop | None = None,
    progress: bool = False,
) -> Rounded:
    """Round parameters a few at a time, while the others are trained to make up for it (Zhou et al. 2017).

    Args:
        net: The trained network; it stays as it is.
        exponents: Four times the binary logarithm of the step of each tensor; None for halves, which need no training.
        loss: The loss of a network at a step, counted from 0.
        steps: How many; 0 rounds at once.
        lr: Highest learning rate.
        seed: Decides the order.
        stop: Ends it early.
        progress: Show progress on standard error.
    """
    net = copy.deepcopy(net)
    parameters = list(net.parameters())
    each = exponents or (None,) * len(parameters)
    turns = [torch.rand(p.shape, generator=generator(seed, i)).to(p.device) for i, p in enumerate(parameters)]

    def partly(at: int) -> list[Tensor]:
        share = (at + 1) / (_FREE_UNTIL * steps)
        return [
            torch.where(turn < share, rounded(p, exponent), p)
            for turn, p, exponent in zip(turns, parameters, each, strict=True)
        ]

    if exponents is not None and steps:
        trainer = Trainer(
            net, lambda at: loss(with_parameters(net, partly(at)), at), rate=decay(lr, steps, warmup=steps // 20)
        )
        with Progress("rounding", steps, enabled=progress) as shown:

            def after(done: Step) -> bool:
                shown.update(done.number)
                return bool(stop)

            run(trainer, steps, after)
    with torch.no_grad():
        for parameter, exponent in zip(parameters, each, strict=True):
            parameter.copy_(rounded(parameter, exponent))
    return Rounded(net, exponents)
