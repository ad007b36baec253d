"""Training: settings, sampler, loss, step; state that survives a stop."""

from .log import Log
from .loop import Step, Trainer, decay, run
from .operators import autograd_operators, operators
from .problem import Problem
from .sampler import Shuffle, uniform
from .session import Options, Trained, found_settings, train
from .settings import RoundSettings, Settings, option

__all__ = [
    "Log",
    "Options",
    "Problem",
    "RoundSettings",
    "Settings",
    "Shuffle",
    "Step",
    "Trained",
    "Trainer",
    "autograd_operators",
    "decay",
    "found_settings",
    "operators",
    "option",
    "run",
    "train",
    "uniform",
]
