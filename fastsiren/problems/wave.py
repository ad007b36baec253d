"""The experiment "wave": a pulse that spreads, in one or two dimensions of space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..faults import UsageError
from ..fit import decay, operators, option, uniform
from ..fit import settings as base
from ..fit.sampler import generator
from ..tensorfile import Array
from .animation import save_moving
from .experiment import Experiment, Solution, solve
from .pictures import curves, save, sheet, signed
from .plain_networks import plain_networks

__all__ = ["Settings", "Wave", "fit", "spread"]

# Moments from 0 to the end at which the field is compared with the exact one, shown on the sheet, and in the animation.
_MEASURED, _SHOWN, _FRAMES = 11, 4, 40
# Part of the points that lies at t = 0.
_INITIAL = 1 / 8
# What a picture shows at full colour: the pulse is 1 at first, its rings much less.
_SCALE = 0.4


@dataclass(frozen=True)
class Settings(base.RoundSettings):
    """Settings of "wave"; see `fastsiren.fit.Settings`."""

    steps: int = option(160, "training steps, rounds of L-BFGS included", least=1)
    hidden: int = option(64, "width of the sine layers; the paper has 512", least=1, fixed=True)
    omega: float = option(25.0, "frequency factor of every sine layer", fixed=True)
    lr: float = option(1e-3, "highest learning rate of Adam")
    batch: int = option(3000, "points per step of Adam", least=1)
    rounds: int = option(10, "the last steps: rounds of 100 iterations of L-BFGS", least=0)
    round_batch: int = option(8000, "points per round", least=1)
    space: int = option(2, "dimensions of space, 1 or 2", least=1, fixed=True)
    speed: float = option(1.0, "of the wave; the square is 2 wide", fixed=True)
    duration: float = option(0.5, "time at the end; the paper has 0.4", fixed=True)
    sigma: float = option(0.1, "standard deviation of the pulse; the paper has 0.022", fixed=True)
    loss: str = option("squares", "mean of squares, or the official sum of magnitudes", choices=("squares", "absolute"))


class Wave(Experiment):
    """∂tt u = c² Δu from u = pulse and ∂t u = 0 at t = 0 (Sitzmann et al. 2020, section 4.3).

    The times of the points grow from 0 to the end of the duration while Adam trains; rounds of L-BFGS see all of it.
    """

    name = "wave"
    merit = "relative error"
    higher_is_better = False
    options = Settings
    quick = Settings(steps=103, rounds=3, hidden=40, batch=1000, round_batch=3000, duration=0.3, sigma=0.15)
    bound = 0.07
    measured = 40
    lbfgs_round = 100

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        s = self.settings
        if s.space > 2:
            raise UsageError(f"--space must be 1 or 2; got {s.space}")
        if s.speed * s.duration + 3 * s.sigma > 1:
            raise UsageError(
                f"--duration {s.duration:g}: the wave reaches the border at {(1 - 3 * s.sigma) / s.speed:.3g}; choose "
                "less, or a smaller --speed or --sigma"
            )
        self._rate = decay(s.lr, max(1, s.adam_steps), warmup=20)
        self.axis, self.reference = spread(self.times(_MEASURED), s.space, s.sigma, s.speed)

    @property
    def features(self) -> tuple[int, int]:
        """t and the coordinates in space; u."""
        return 1 + int(self.settings.space), 1

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then networks with other activations."""
        s = self.settings
        others = plain_networks(1 + s.space, s.hidden, s.layers, 1, resolution=64, seed=s.seed)
        return {self.ours: self.network, **others}

    def times(self, count: int) -> Array:
        """Moments from 0 to the end."""
        return np.linspace(0, self.settings.duration, count)

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Residuals at points of space and time, and what is wrong at t = 0."""
        s = self.settings
        x, initial = self._points(step)
        weights = [1.0, *[-(s.speed**2)] * s.space]
        value, jacobian, wave = operators(net).laplacian(net, x, weights=weights)
        pulse = torch.exp(-x[initial:, 1:].square().sum(-1, keepdim=True) / (2 * s.sigma**2))
        offset, rate = value[initial:] - pulse, jacobian[initial:, :, 0]
        if s.loss == "absolute":
            return wave.abs().sum() + len(x) * (offset.abs().sum() / 10 + rate.abs().sum() / 100)
        # What is wrong at one moment is there for all later ones: hence the duration beside the time of the pulse.
        time = s.sigma / s.speed * s.duration
        return 100 * ((time * wave).square().mean() + offset.square().mean() + time * rate.square().mean())

    def _points(self, step: int) -> tuple[Tensor, int]:
        """Points [N, 1 + space] of a step; the number of the first one at t = 0, of which half are near the pulse."""
        s = self.settings
        begun = step < s.adam_steps
        count = s.batch if begun else s.round_batch
        end = s.duration * ((step + 1) / s.adam_steps if begun else 1)
        low, high = [-1.0] * s.space, [1.0] * s.space
        initial = count - max(2, round(count * _INITIAL))
        near = (count - initial) // 2
        later = uniform([0, *low], [end, *high], initial, seed=s.seed, step=step)
        first = uniform(low, high, count - initial - near, seed=s.seed, step=step, stream=1)
        close = 1.5 * s.sigma * torch.randn(near, s.space, generator=generator(s.seed, step, 2))
        space = torch.cat([first, close])
        return torch.cat([later, torch.cat([torch.zeros(len(space), 1), space], -1)]), initial

    @torch.no_grad()
    def field(self, net: nn.Module, times: Array) -> Array:  # [T] -> [T, n] or [T, n, n]
        """u on the grid of the reference."""
        like = next(net.parameters())
        found = []
        for t in times:
            axes = np.meshgrid([t], *[self.axis] * self.settings.space, indexing="ij")
            x = torch.from_numpy(np.stack(axes, -1)[0]).to(like)
            found.append(net(x)[..., 0].cpu().double().numpy())
        return np.stack(found)

    def measure(self, net: nn.Module) -> dict[str, float]:
        """‖u - exact‖ / ‖exact‖ over space and time, and at the last moment."""
        wrong, norm = self.field(net, self.times(_MEASURED)) - self.reference, np.linalg.norm
        return {
            self.merit: float(norm(wrong) / norm(self.reference)),
            "at the end": float(norm(wrong[-1]) / norm(self.reference[-1])),
        }

    def write(self, solution: Solution, home: Path) -> None:
        """Snapshots beside the exact ones, an animation of both, the error over the steps."""
        s = self.settings
        times = self.times(_SHOWN)
        rows = {"exact": spread(times, s.space, s.sigma, s.speed)[1]}
        for label, each in solution.trained.items():
            rows[label] = self.field(each.net, times)
            rows[f"{label}, 10 x difference"] = 10 * (rows[label] - rows["exact"])
        cells = [(f"{row}, t = {t:.2f}", _panel(u)) for row, fields in rows.items() for t, u in zip(times, fields)]
        save(sheet(cells, columns=_SHOWN), home / "pictures.png")
        save_moving(self._frames(solution.net), home / "wave")
        save(curves(solution.over_steps(self.merit), x="step", y=self.merit), home / "error.png")

    def _frames(self, net: nn.Module) -> list[Image.Image]:
        s, times = self.settings, self.times(_FRAMES)
        pairs = zip(spread(times, s.space, s.sigma, s.speed)[1], self.field(net, times))
        return [sheet([("exact", _panel(a)), ("SIREN", _panel(b))], columns=2) for a, b in pairs]


def spread(times: Array, space: int, sigma: float, speed: float) -> tuple[Array, Array]:
    """The exact wave of a Gaussian pulse in an unbounded space: each of its Fourier modes swings by itself.

    Args:
        times: [T].
        space: 1 or 2.
        sigma: Standard deviation of the pulse.
        speed: Of the wave; during these times it stays within [-1, 1].

    Returns:
        Coordinates along each axis, [n] within [-1, 1]; the wave, [T, n] or [T, n, n].
    """
    # A period of 4 keeps what leaves from coming back.
    count = 1 << int(np.ceil(np.log2(4 / (sigma / 3))))
    axis = (np.arange(count) / count - 0.5) * 4
    frequency = 2 * np.pi * np.fft.fftfreq(count, 4 / count)
    axes, modes = ([each] * space for each in (axis, frequency))
    squares = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    turning = speed * np.sqrt(sum(q**2 for q in np.meshgrid(*modes, indexing="ij")))
    pulse = np.fft.fftn(np.exp(-squares / (2 * sigma**2)))
    shown = np.flatnonzero(np.abs(axis) <= 1)[:: max(1, count // 256)]
    fields = [np.fft.ifftn(pulse * np.cos(turning * t)).real[np.ix_(*[shown] * space)] for t in times]
    return axis[shown], np.stack(fields)


def _panel(field: Array) -> Image.Image:
    """A field as a picture; one that has a single dimension as a strip."""
    return signed(field.T if field.ndim == 2 else np.tile(field, (max(1, field.size // 4), 1)), _SCALE)


def fit(**options: Any) -> Solution:
    """Find the wave of a pulse.

    Args:
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        UsageError: A setting makes no sense.

    Example:
        >>> from fastsiren.fit import Options
        >>> small = {"steps": 3, "rounds": 1, "hidden": 8, "layers": 1, "batch": 50, "round_batch": 50, "space": 1}
        >>> fit(options=Options(progress=False), **small).figures["relative error"] < 3
        True
    """
    return solve(Wave, **options)
