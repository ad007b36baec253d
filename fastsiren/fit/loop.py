"""The training loop: loss of a step -> gradients -> Adam, then L-BFGS. All that decides it is in `Trainer.state`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..faults import NonFiniteError
from ..tensorfile import Array

__all__ = ["MOMENTS", "Step", "Trainer", "decay", "run"]

_SNAPSHOT_EVERY = 16
MOMENTS = ("exp_avg", "exp_avg_sq")

Loss = Callable[[int], Tensor | Iterable[Tensor]]


class Step(NamedTuple):
    """What is known after a training step: its number, counted from 1, and the loss before its update."""

    number: int
    loss: float


class Trainer:
    """Adam on the parameters of a module, then L-BFGS where asked for.

    Args:
        net: The module; its parameters are updated in place.
        loss: Maps a step number, counted from 0, to the scalar loss of that step, or to parts that it is the sum of:
            these are made and derived one after another, so that only one of them needs memory.
        rate: Maps a step number to the learning rate of Adam.
        clip: Largest Euclidean norm of the gradient of all parameters together, in steps of Adam; None: any.
        lbfgs_from: The step from which on each step is a round of iterations of L-BFGS with a strong Wolfe search. The
            loss of such a step is evaluated many times and must be the same each time. None: never.
        lbfgs_round: Iterations of a round. A round knows nothing of the one before.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> x = torch.linspace(-1, 1, 9)[:, None]
        >>> trainer = Trainer(net, lambda step: ((net(x) - 3 * x) ** 2).mean(), rate=lambda step: 0.1)
        >>> run(trainer, 200).loss < 1e-3
        True
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        *,
        rate: Callable[[int], float],
        clip: float | None = None,
        lbfgs_from: int | None = None,
        lbfgs_round: int = 25,
    ) -> None:
        self.net, self.loss, self.rate, self.clip = net, loss, rate, clip
        self.lbfgs_from, self.lbfgs_round = lbfgs_from, lbfgs_round
        self.step = 0
        self._names, parameters = zip(*net.named_parameters(), strict=True)
        # One kernel for all parameters where torch has one: on a small network the plain loop takes longer than a pass.
        fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
        self._adam = torch.optim.Adam(parameters, lr=rate(0), fused=fused)
        self._good = self.state()

    def advance(self) -> Step:
        """Do one step.

        Raises:
            NonFiniteError: The loss is NaN or infinite; parameters and optimiser are set back to a recent good state.
        """
        by_adam = self.lbfgs_from is None or self.step < self.lbfgs_from
        if by_adam and self.step % _SNAPSHOT_EVERY:
            value = self._derive()
        else:
            # A finite loss vouches for the parameters it was computed with.
            before = self.state()
            value = self._derive()
            self._good = before
        if by_adam:
            self._step_adam()
        else:
            self._step_lbfgs()
        self.step += 1
        return Step(self.step, value)

    def _derive(self) -> float:
        """Leave the gradients of the loss in the parameters; the loss, once it is known to be finite."""
        value = self._backward()
        if not math.isfinite(value):
            self._set_back(value)
        return value

    def _backward(self) -> float:
        self._adam.zero_grad(set_to_none=True)
        loss = self.loss(self.step)
        value = 0.0
        for part in [loss] if isinstance(loss, Tensor) else loss:
            value += float(part.detach())
            if not math.isfinite(value):
                break
            part.backward()
        # What no part depends on, as the last bias where only derivatives count, has moments all the same: a checkpoint
        # holds those of every parameter.
        for parameter in self._parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return value

    def _step_adam(self) -> None:
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters(), self.clip)
        for group in self._adam.param_groups:
            group["lr"] = self.rate(self.step)
        self._adam.step()

    def _step_lbfgs(self) -> None:
        # Without memory of the round before there is nothing to save between them, and the samples may be new ones.
        length = self.lbfgs_round
        search = torch.optim.LBFGS(
            self._parameters(), max_iter=length, history_size=length, line_search_fn="strong_wolfe"
        )
        search.step(self._backward)

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
            if self.step:
                # Nothing is held before the first step of Adam, and there need not be any.
                held = self._adam.state.get(parameter, dict.fromkeys(MOMENTS, torch.zeros_like(parameter)))
                tensors |= {f"adam.{m}.{name}": held[m].detach().cpu().numpy().copy() for m in MOMENTS}
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
                count = torch.tensor(float(self._adam_steps()), device=parameter.device)
                self._adam.state[parameter] = {"step": count, **state}

    def _adam_steps(self) -> int:
        return self.step if self.lbfgs_from is None else min(self.step, self.lbfgs_from)

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
