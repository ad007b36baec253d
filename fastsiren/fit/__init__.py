"""Training: sampler, loss, step; state that survives a stop."""

from .loop import Step, Trainer, decay, run
from .sampler import Shuffle

__all__ = ["Shuffle", "Step", "Trainer", "decay", "run"]
