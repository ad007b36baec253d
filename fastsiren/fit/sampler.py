"""Which samples a training step sees: a function of (seed, step) alone, so that a resumed run has no state to lose."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Shuffle"]


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
            self._order = torch.randperm(self.count, generator=_generator(self.seed, epoch))
            self._epoch = epoch
        return self._order[place * self.batch : (place + 1) * self.batch]


def _generator(seed: int, epoch: int) -> torch.Generator:
    # An odd multiplier keeps the streams of (seed, epoch) and (seed + 1, epoch - 1) apart.
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + epoch) % 2**63)
