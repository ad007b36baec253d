"""What a training needs to know of a problem: its data, its loss, its figures of merit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..siren import Siren
from ..stopping import Stop
from .loop import decay
from .settings import RoundSettings, Settings

__all__ = ["Problem"]


class Problem(ABC):
    """Data and settings, a loss for any network, and measures of how good a network is.

    A problem holds nothing that training changes: several networks may be trained on one.

    Args:
        settings: Of the class's own type.
    """

    name: ClassVar[str]
    """As checkpoints and the command line have it."""
    data: ClassVar[str] = "signal"
    """What it is fitted to, for messages."""
    merit: str
    """The figure that says how good a network is; one of `measure`. It may depend on what the data tell."""
    higher_is_better: bool = True
    clip: ClassVar[float | None] = None
    """Largest norm of the gradient in a step of Adam."""
    lbfgs_round: ClassVar[int] = 25
    """Iterations of a step of L-BFGS."""
    measured: ClassVar[int] = 0
    """How many times a network is measured while it is trained."""

    def __init__(self, settings: Settings) -> None:
        self.settings: Any = settings
        self._rate = decay(settings.lr, settings.steps, warmup=min(100, settings.steps // 10))

    @property
    @abstractmethod
    def features(self) -> tuple[int, int]:
        """Inputs and outputs of a network."""

    def network(self) -> nn.Module:
        """A network with its initial weights; these depend on the seed alone."""
        return self.siren()

    def siren(self, first_omega: float | None = None) -> Siren:
        """The SIREN that the settings describe, with initial weights.

        Args:
            first_omega: Frequency factor of the first layer; default that of all layers.
        """
        s = self.settings
        inputs, outputs = self.features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            return Siren(
                inputs, s.hidden, s.layers, outputs, first_omega_0=first_omega or s.omega, hidden_omega_0=s.omega
            )

    @abstractmethod
    def loss(self, net: nn.Module, step: int) -> Tensor | Iterable[Tensor]:
        """The loss of a step, counted from 0, or parts that it is the sum of; a function of these two alone."""

    def rate(self, step: int) -> float:
        """Learning rate of Adam."""
        return self._rate(step)

    def lbfgs_from(self) -> int | None:
        """The step from which on L-BFGS takes over; None: never."""
        return self.settings.adam_steps if isinstance(self.settings, RoundSettings) else None

    def identity(self) -> dict[str, Any]:
        """What tells these data from others, plain JSON values: a checkpoint goes on with the same ones only."""
        return {}

    def finished(self, net: nn.Module, stop: Stop, *, progress: bool = False) -> nn.Module:
        """What is measured and shown of a network once it is trained; a checkpoint keeps the network itself.

        Args:
            net: The trained network; it stays as it is.
            stop: Asks for an early end; the result then does not count.
            progress: Show progress on standard error.
        """
        return net

    @abstractmethod
    def measure(self, net: nn.Module) -> dict[str, float]:
        """Figures of merit, by name."""

    def estimate(self, loss: float) -> float | None:
        """The figure of merit that a loss stands for; None where it takes a measurement."""
        return None

    def better(self, figure: float, than: float) -> bool:
        """Whether one value of the merit is at least as good as another."""
        return figure >= than if self.higher_is_better else figure <= than
