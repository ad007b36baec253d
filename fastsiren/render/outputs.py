"""What a file format makes of the numbers of a network: pictures, clips, sounds, or the numbers themselves."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import IO, NamedTuple

import numpy as np

from .. import wav
from ..clips import check_size
from ..faults import UsageError
from ..grids import Grid
from ..tensorfile import Array
from .decode import Decoder
from .picture import painter, quantise
from .sinks import (
    CLIP_FORMATS,
    FORMATS,
    MESH_FORMATS,
    PICTURE_FORMATS,
    RAW_FORMATS,
    SOUND_FORMATS,
    ClipSink,
    Sink,
    check_image,
    image_sink,
    npy_sink,
    sound_sink,
)
from .tiles import tiles

__all__ = ["CLIP_FORMATS", "FORMATS", "MESH_FORMATS", "PICTURE_FORMATS", "SOUND_FORMATS", "Output", "output"]

_PREVIEW = 128
_FRAMES_PER_SECOND = Fraction(25)
_SAMPLES_PER_SECOND = Fraction(44100)


class Output(NamedTuple):
    """How numbers get into a file."""

    samples: Callable[[Array], Array]
    """From [n, ...] numbers to what the sink takes."""
    sink: Callable[[IO[bytes]], Sink]
    """Begins the file."""


def output(decoder: Decoder, kind: str, *, bits: int | None, rate: Fraction | None, gain: float, tile: int) -> Output:
    """Check a request, and tell how it is written.

    Args:
        decoder: Network, grid and quantity.
        kind: One of `FORMATS`.
        bits: Per sample; None takes the format's own.
        rate: Of frames or samples per second; None takes 25 or 44100.
        gain: Factor on the values of a sound.
        tile: Points evaluated at a time.

    Raises:
        UsageError: The format is unknown or cannot hold what is asked for.
    """
    if kind not in FORMATS:
        raise UsageError(f"unknown format {kind!r}; use one of {', '.join(FORMATS)}")
    if kind in MESH_FORMATS:
        raise UsageError(f"{kind} files hold meshes, no grids; fastsiren.render.isosurface makes a mesh, or use npy")
    if decoder.grid.numel == 0:
        raise UsageError(f"nothing to render: the size {decoder.grid.shape} has no points; give at least 1x1")
    if kind in RAW_FORMATS:
        return _numbers(decoder)
    if kind in CLIP_FORMATS:
        _check_values(decoder, kind, "clip", ("time", "rows", "columns"), bits, 8)
        return _clip(decoder, kind, _FRAMES_PER_SECOND if rate is None else rate)
    if kind in SOUND_FORMATS:
        _check_values(decoder, kind, "sound", ("time",), bits, 16)
        return _sound(decoder, _SAMPLES_PER_SECOND if rate is None else rate, gain)
    return _picture(decoder, kind, 8 if bits is None else bits, tile)


def _check_values(
    decoder: Decoder, kind: str, title: str, axes: tuple[str, ...], bits: int | None, only_bits: int
) -> None:
    inputs = len(decoder.grid.shape)
    if inputs != len(axes):
        raise UsageError(f"a {kind} {title} has {len(axes)} axes ({', '.join(axes)}), the network {inputs}; use npy")
    if decoder.quantity != "value":
        raise UsageError(f"a {kind} {title} holds values, no {decoder.quantity}; use npy")
    if bits not in (None, only_bits):
        raise UsageError(f"{kind} files hold {only_bits} bits per sample, not {bits}")


def _numbers(decoder: Decoder) -> Output:
    dtype = np.dtype(str(decoder.stored).removeprefix("torch."))
    shape = (*decoder.grid.shape, *decoder.suffix)
    return Output(lambda numbers: numbers, lambda file: npy_sink(file, shape, dtype))


def _clip(decoder: Decoder, kind: str, rate: Fraction) -> Output:
    shape, channels = decoder.grid.shape, decoder.suffix[0]
    if channels not in (1, 3):
        raise UsageError(f"{kind} clips have 1 or 3 channels, the network has {channels} outputs; use npy")
    if not 1e-3 <= rate <= 1e4:
        raise UsageError(f"--rate of a clip must be 0.001 to 10000 frames per second; got {float(rate):g}")
    check_size(shape[2], shape[1])
    half = np.float32(0.5)
    return Output(
        lambda numbers: quantise(numbers * half + half, 8),
        lambda file: ClipSink(file, shape, channels, rate),
    )


def _sound(decoder: Decoder, rate: Fraction, gain: float) -> Output:
    (samples,), channels = decoder.grid.shape, decoder.suffix[0]
    if rate.denominator != 1 or rate < 1:
        raise UsageError(f"--rate of a sound must be a whole number of 1 Hz or more; got {float(rate):g}")
    # Refuses what the file cannot hold before anything is computed.
    wav.wav_header(samples, channels, int(rate))
    return Output(
        lambda numbers: wav.pcm(numbers * np.float32(gain)),
        lambda file: sound_sink(file, samples, channels=channels, rate=int(rate)),
    )


def _picture(decoder: Decoder, kind: str, bits: int, tile: int) -> Output:
    shape = decoder.grid.shape
    # A frame of a clip has an axis of one time in front.
    if len(shape) < 2 or any(n != 1 for n in shape[:-2]):
        raise UsageError(f"a {kind} picture needs 2 axes, the network has {len(shape)} inputs; use npy")
    if len(shape) > 2 and decoder.quantity != "value":
        raise UsageError(f"a {kind} of one frame holds values, no {decoder.quantity}; use npy")
    painted = painter(decoder.quantity, _preview(decoder, tile))
    check_image(kind, shape[-2:], channels=painted.channels, bits=bits)
    return Output(
        lambda numbers: quantise(painted(numbers), bits),
        lambda file: image_sink(file, kind, shape[-2:], channels=painted.channels, bits=bits),
    )


def _preview(decoder: Decoder, tile: int) -> Array:
    """Numbers of at most 128 x 128 points spread over the grid."""
    if decoder.quantity == "value":
        return np.empty((0, decoder.suffix[0]), np.float32)
    grid = decoder.grid
    strides = [max(1, n // _PREVIEW) for n in grid.shape]
    shape = tuple(-(-n // stride) for n, stride in zip(grid.shape, strides, strict=True))
    steps = tuple(step * stride for step, stride in zip(grid.step, strides, strict=True))
    coarse = Decoder(decoder.net, Grid(shape, grid.origin, steps), decoder.quantity)
    return np.concatenate([coarse.numbers(part) for part in tiles(shape, tile)])
