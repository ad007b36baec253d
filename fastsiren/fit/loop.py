"""The training loop: loss of a step -> gradients -> Adam. Everything it needs to go on is in `Trainer.state`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..faults import NonFiniteError
from ..tensorfile import Array

__all__ = ["MOMENTS", "Step", "Trainer", "decay", "run"]

_SNAPSHOT_EVERY = 16
MOMENTS = ("exp_avg", "exp_avg_sq")


class Step(NamedTuple):
    """What is known after a training step: its number, counted from 1, and the loss before its update."""

    number: int
    loss: float


class Trainer:
    """Adam on the parameters of a module, with a learning rate that is a function of the step.

    Args:
        net: The module; its parameters are updated in place.
        loss: Maps a step number, counted from 0, to the scalar loss of that step.
        rate: Maps a step number to its learning rate.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 9)[:, None]
        >>> trainer = Trainer(net, lambda step: ((net(x) - 3 * x) ** 2).mean(), rate=lambda step: 0.1)
        >>> run(trainer, 200).loss < 1e-3
        True
    """

    def __init__(self, net: nn.Module, loss: Callable[[int], Tensor], *, rate: Callable[[int], float]) -> None:
        self.net, self.loss, self.rate = net, loss, rate
        self.step = 0
        self._names, parameters = zip(*net.named_parameters(), strict=True)
        self._adam = torch.optim.Adam(parameters, lr=rate(0))
        self._good = self.state()

    def advance(self) -> Step:
        """Do one step.

        Raises:
            NonFiniteError: The loss is NaN or infinite; parameters and optimiser are set back to a recent good state.
        """
        self._adam.zero_grad(set_to_none=True)
        loss = self.loss(self.step)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._set_back(value)
        if self.step % _SNAPSHOT_EVERY == 0:
            # A finite loss vouches for the parameters it was computed with.
            self._good = self.state()
        loss.backward()
        for group in self._adam.param_groups:
            group["lr"] = self.rate(self.step)
        self._adam.step()
        self.step += 1
        return Step(self.step, value)

    def _set_back(self, value: float) -> None:
        failed = self.step
        self.load(self._good)
        raise NonFiniteError(
            f"the loss became {value} at step {failed + 1}; the state of step {self.step} is kept; use a smaller --lr"
        )

    def state(self) -> dict[str, Array]:
        """Everything that decides the steps to come: parameters, both moments of Adam, step count; copies."""
        tensors = {"step": np.array(self.step, np.int64)}
        for name, parameter in zip(self._names, self._parameters(), strict=True):
            tensors[name] = parameter.detach().cpu().numpy().copy()
            for moment in MOMENTS:
                if parameter in self._adam.state:
                    tensors[f"adam.{moment}.{name}"] = self._adam.state[parameter][moment].cpu().numpy().copy()
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Array]) -> None:
        """Go back to a state; the steps that follow are the same, bit by bit, as if there had been no break."""
        self.step, self._good = int(tensors["step"]), tensors
        self._adam.state.clear()
        for name, parameter in zip(self._names, self._parameters(), strict=True):
            parameter.copy_(torch.tensor(tensors[name]))
            if self.step:
                state = {m: torch.tensor(tensors[f"adam.{m}.{name}"]).to(parameter) for m in MOMENTS}
                self._adam.state[parameter] = {"step": torch.tensor(float(self.step)), **state}

    def _parameters(self) -> list[Tensor]:
        return self._adam.param_groups[0]["params"]


def decay(rate: float, steps: int, *, final: float = 0.01, warmup: int = 0) -> Callable[[int], float]:
    """A learning rate that falls from `rate` to `final * rate` along half a cosine.

    Args:
        rate: The highest learning rate.
        steps: Length of the whole training.
        final: What is left at the end, as a part of `rate`.
        warmup: Steps of linear rise at the beginning.
    """

    def at(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup + 1))
        wave = 0.5 * (1 + math.cos(math.pi * min(step / max(steps - 1, 1), 1.0)))
        return rate * rise * (final + (1 - final) * wave)

    return at


def run(trainer: Trainer, steps: int, after: Callable[[Step], bool] | None = None) -> Step:
    """Train until `steps` steps are done in all, or `after` says stop.

    Args:
        trainer: Continues from wherever it stands.
        steps: Step count at which to end.
        after: Called after each step; True ends the training.

    Returns:
        The last step; its loss is NaN when nothing was left to do.
    """
    last = Step(trainer.step, math.nan)
    while trainer.step < steps:
        last = trainer.advance()
        if after is not None and after(last):
            break
    return last
