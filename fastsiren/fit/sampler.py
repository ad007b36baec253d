"""Which samples a training step sees: a function of (seed, step) alone, so that a resumed run has no state to lose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Shuffle", "generator", "uniform"]


class Shuffle:
    """Go through all samples in a new random order each epoch, `batch` at a time.

    Each epoch visits every sample once; its last batch is the shorter rest. `batch >= count` gives every sample in
    every step, in order.

    Args:
        count: Number of samples.
        batch: Samples per step.
        seed: Another seed, other orders.

    Example:
        >>> sampler = Shuffle(10, 4, seed=0)
        >>> sorted(i for step in range(3) for i in sampler(step).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(self, count: int, batch: int, *, seed: int = 0) -> None:
        if count < 1 or batch < 1:
            raise ValueError(f"Shuffle: count and batch must be 1 or more; got {count} and {batch}")
        self.count, self.batch, self.seed = count, min(batch, count), seed
        self.steps_per_epoch = -(-count // self.batch)
        self._epoch = -1
        self._order = torch.arange(count)

    def __call__(self, step: int) -> Tensor:  # [batch]
        """Indices of the samples of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.batch < self.count and epoch != self._epoch:
            self._order = torch.randperm(self.count, generator=generator(self.seed, epoch))
            self._epoch = epoch
        return self._order[place * self.batch : (place + 1) * self.batch]


def uniform(
    low: Sequence[float], high: Sequence[float], count: int, *, seed: int, step: int, stream: int = 0
) -> Tensor:  # [count, D]
    """Points spread evenly, at random, over a box.

    Args:
        low: Least coordinates, [D].
        high: Largest coordinates, [D].
        count: Number of points.
        seed: Another seed, other points.
        step: Each step has its own points.
        stream: So has each of several sets of points of one step.

    Example:
        >>> x = uniform([-1, 0], [1, 5], 100, seed=0, step=7)
        >>> x.shape, bool((x[:, 1] > 4).any()), bool((x[:, 1] < 0).any())
        (torch.Size([100, 2]), True, False)
    """
    first, last = (torch.tensor(ends, dtype=torch.float32) for ends in (low, high))
    spread = torch.rand(count, len(first), generator=generator(seed, step, stream))
    return first + (last - first) * spread


def generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Random numbers that depend on these three alone, so that a resumed run has no state to lose."""
    # Odd multipliers keep the streams of (seed, step) and (seed + 1, step - 1) apart.
    mixed = seed * 0x9E3779B97F4A7C15 + step + stream * 0xD1B54A32D192ED03
    return torch.Generator().manual_seed(mixed % 2**63)
