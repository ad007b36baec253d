"""Training: sampler, loss, step; state that survives a stop."""

from .log import Log
from .loop import Step, Trainer, decay, run
from .sampler import Shuffle

__all__ = ["Log", "Shuffle", "Step", "Trainer", "decay", "run"]
