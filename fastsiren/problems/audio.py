"""The experiment "audio": a waveform by its samples, played back by a SIREN and by networks with other activations."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import sounds
from ..fit import Shuffle, operators, option, settings
from ..grids import Grid
from ..siren import Siren
from ..sounds import Sound
from .evaluate import on_grid
from .experiment import Experiment, Solution, Source, solve
from .pictures import curves, save, sheet
from .plain_networks import plain_networks
from .sound_pictures import closeup, spectrogram

__all__ = ["AudioExperiment", "Settings", "chord", "fit"]

_STRINGS = (98.0, 146.83, 196.0, 246.94, 293.66, 392.0)


@dataclass(frozen=True)
class Settings(settings.Settings):
    """How a sound is fitted.

    Time runs over [-1, 1], and the first layer has a factor of its own: it sets the highest frequency that the network
    begins with, first_omega / (π seconds) Hz, which the layers behind it multiply.
    """

    steps: int = option(4000, "training steps", least=1)
    lr: float = option(3e-4, "highest learning rate of Adam")
    batch: int = option(4096, "samples per step", least=1)
    first_omega: float = option(3000.0, "frequency factor of the first layer", fixed=True)
    omega: float = option(30.0, "frequency factor of the other sine layers", fixed=True)
    mono: bool = option(False, "average the channels instead of giving each an output of its own", fixed=True)


class AudioExperiment(Experiment):
    """A waveform by its samples (Sitzmann et al. 2020, section 4.1).

    Args:
        settings: How it is fitted.
        sound: A sound file or a `Sound`; None takes a chord of plucked strings, made here.
    """

    name = "audio"
    data = "sound"
    merit = "SNR"
    options = Settings
    quick = Settings(steps=1000, hidden=128, lr=7e-4)
    bound = 20.0
    sources = (Source("sound", "sound to fit (default: a chord of plucked strings)"),)
    measured = 12

    def __init__(self, settings: Settings, sound: str | os.PathLike[str] | Sound | None = None) -> None:
        super().__init__(settings)
        self.sound = _mono(_sound(sound), settings.mono)
        self.grid = Grid.over(len(self.sound.samples))
        self.wanted = torch.from_numpy(self.sound.samples / np.float32(self.sound.peak))
        self.power = float(self.wanted.double().square().mean())
        self.sampler = Shuffle(self.grid.numel, settings.batch, seed=settings.seed)

    @property
    def features(self) -> tuple[int, int]:
        """Time to channels."""
        return 1, self.wanted.shape[1]

    def network(self) -> Siren:
        """The SIREN, with its own frequency factor of the first layer."""
        return self.siren(first_omega=self.settings.first_omega)

    def contenders(self) -> dict[str, Callable[[], nn.Module]]:
        """Our SIREN, then ReLU with and without positional encoding, and tanh."""
        s, (inputs, outputs) = self.settings, self.features
        others = plain_networks(inputs, s.hidden, s.layers, outputs, resolution=self.grid.numel, seed=s.seed)
        return {self.ours: self.network, **{name: others[name] for name in ("relu", "relu_pe", "tanh")}}

    def loss(self, net: nn.Module, step: int) -> Tensor:
        """Mean squared error of a batch of samples."""
        index = self.sampler(step)
        return operators(net).value_mse(net, self.grid.at(index), self.wanted[index])

    def identity(self) -> dict[str, Any]:
        """Length, rate, loudness and fingerprint of the sound."""
        samples, channels = self.sound.samples.shape
        kept = {"samples": samples, "channels": channels, "rate": self.sound.rate, "peak": self.sound.peak}
        return {"audio": {**kept, "sha256": self.sound.fingerprint()}}

    def measure(self, net: nn.Module) -> dict[str, float]:
        """SNR in dB, and mean squared error of the sound scaled to a peak of 1."""
        error = float((on_grid(net, self.grid).double() - self.wanted.double()).square().mean())
        return {"SNR": sounds.snr(self.power, error) if math.isfinite(error) else -math.inf, "MSE": error}

    def estimate(self, loss: float) -> float:
        """SNR in dB that a loss stands for."""
        return sounds.snr(self.power, loss)

    def played(self, net: nn.Module) -> Sound:
        """What a network holds, at the rate and loudness of the original."""
        return Sound(on_grid(net, self.grid).numpy() * np.float32(self.sound.peak), self.sound.rate)

    def write(self, solution: Solution, home: Path) -> None:
        """Original and networks as sounds, as spectrograms and closely; SNR over the steps."""
        heard = {"original": self.sound}
        heard |= {label: self.played(each.net) for label, each in solution.trained.items()}
        for label, sound in heard.items():
            sounds.write(home / f"{label}.wav", sound)
        figures = {label: f"{label}, {each.figures['SNR']:.1f} dB" for label, each in solution.trained.items()}
        cells = [(figures.get(label, label), spectrogram(sound, self.sound)) for label, sound in heard.items()]
        save(sheet(cells), home / "spectrograms.png")
        save(closeup(heard), home / "waveform.png")
        lines = {label: [(step, f["SNR"]) for step, f in each.curve] for label, each in solution.trained.items()}
        save(curves(lines, x="step", y="SNR in dB"), home / "snr.png")


def fit(sound: str | os.PathLike[str] | Sound | None = None, **options: Any) -> Solution:
    """Fit a SIREN to a sound.

    Args:
        sound: A sound file or a `Sound`; None takes a chord of plucked strings.
        **options: Those of `solve`, and fields of `Settings`.

    Raises:
        InputError: The file is missing, damaged or silent.

    Example:
        >>> from fastsiren.fit import Options
        >>> tone = Sound(np.sin(np.arange(500, dtype=np.float32) * 0.2)[:, None], 8000)
        >>> small = {"steps": 100, "hidden": 16, "layers": 1, "first_omega": 30.0, "lr": 0.01}
        >>> fit(tone, options=Options(progress=False), **small).figures["SNR"] > 20
        True
    """
    return solve(AudioExperiment, sound, **options)


def chord(seconds: float = 2.0, rate: int = 22050) -> Sound:
    """Six plucked strings, one after another: their overtones are slightly sharp, and the high ones die first."""
    time = np.arange(round(seconds * rate)) / rate
    sound = np.zeros_like(time)
    for i, lowest in enumerate(_STRINGS):
        since = np.maximum(time - 0.06 * i, 0)
        for k in range(1, 40):
            frequency = lowest * k * math.sqrt(1 + 1e-4 * k * k)
            if frequency < 0.45 * rate:
                loudness = math.sin(math.pi * 0.18 * k) / k**1.2
                sound += loudness * np.exp(-(0.8 + 0.25 * k) * since) * np.sin(2 * math.pi * frequency * since)
    return Sound((0.9 * sound / np.abs(sound).max()).astype(np.float32)[:, None], rate)


def _sound(given: str | os.PathLike[str] | Sound | None) -> Sound:
    if given is None:
        return chord()
    return given if isinstance(given, Sound) else sounds.read(given)


def _mono(sound: Sound, wanted: bool) -> Sound:
    return sound.mono() if wanted else sound
