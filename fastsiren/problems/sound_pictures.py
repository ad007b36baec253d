"""Pictures of sounds: spectrograms, and a few milliseconds of several sounds over one another."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from ..sounds import Sound
from ..tensorfile import Array
from .pictures import PANEL, curves, grey

__all__ = ["closeup", "spectrogram"]

_WINDOW = 1024
_HOPS = 480
# What is shown: 80 dB, and the frequencies below which all but this part of the power lies.
_RANGE = 80.0
_ABOVE = 1e-5
_CLOSE = 0.02


def spectrogram(sound: Sound, original: Sound) -> Image.Image:
    """Loudness by time, to the right, and frequency, upwards.

    Args:
        sound: What to show; of several channels the mean.
        original: Sets the loudest level and the highest frequency, so that pictures compare.
    """
    wanted, found = _decibels(original), _decibels(sound)
    power = (10 ** (wanted / 10)).sum(1)
    top = int((power.cumsum() < (1 - _ABOVE) * power.sum()).sum()) + 1
    highest = float(wanted.max())
    shown = grey(found[:top][::-1], highest - _RANGE, highest)
    return shown.resize((PANEL, round(0.75 * PANEL)), Image.Resampling.BILINEAR)


def _decibels(sound: Sound) -> Array:
    """[frequency, time], in dB."""
    samples = torch.from_numpy(sound.mono().samples[:, 0])
    window = min(_WINDOW, len(samples))
    hop = max(1, len(samples) // _HOPS)
    waves = torch.stft(samples, window, hop, window=torch.hann_window(window), pad_mode="constant", return_complex=True)
    return 20 * np.log10(np.maximum(waves.abs().double().numpy(), 1e-12))


def closeup(heard: Mapping[str, Sound]) -> Image.Image:
    """The 20 ms around the loudest sample of the first sound, of all sounds; first channels."""
    first = next(iter(heard.values()))
    middle, half = int(np.abs(first.samples[:, 0]).argmax()), max(1, round(first.rate * _CLOSE / 2))
    begin = max(0, middle - half)
    lines = {
        label: [
            (1000 * i / sound.rate, float(sound.samples[i, 0]))
            for i in range(begin, min(middle + half, len(sound.samples)))
        ]
        for label, sound in heard.items()
    }
    return curves(lines, x="ms", y="sample")
