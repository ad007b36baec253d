"""Decode a grid tile by tile, into an array or straight into a file."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from ..engine.network import SirenModule
from ..engine.values import described, flag, whole_number
from ..faults import NonFiniteError, UsageError
from ..files import atomic_output, check_output, output_lock
from ..grids import Grid
from ..progress import Progress
from ..tensorfile import Array
from .decode import Decoder
from .outputs import output
from .sinks import FORMATS
from .tiles import Tile, tiles

__all__ = ["format_of", "render", "render_file", "render_stream"]

# About a tenth of a second of work: small enough to stop quickly, large enough to keep every core busy.
DEFAULT_TILE = 65536
_SAME = {"tif": "tiff", "jpeg": "jpg"}


def format_of(path: str | os.PathLike[str]) -> str:
    """The file format an extension stands for.

    Raises:
        UsageError: Unknown extension.
    """
    extension = Path(path).suffix.lower().lstrip(".")
    extension = _SAME.get(extension, extension)
    if extension not in FORMATS:
        given = f"'.{extension}'" if extension else "no extension"
        raise UsageError(f"cannot tell the format of {path} ({given}); use one of {', '.join(FORMATS)}, or --format")
    return extension


def render(
    net: SirenModule,
    grid: Grid,
    *,
    out: Tensor | Array | str | os.PathLike[str] | None = None,
    tile: int | None = None,
    quantity: str = "value",
    progress: bool = True,
    overwrite: bool = False,
) -> Tensor | Array | Path:
    """Evaluate a network, or its derivatives, on a whole grid; coordinates of values are never stored.

    Args:
        net: A `Siren` or a converted module.
        grid: Where to evaluate; see `fastsiren.grids.Grid`.
        out: None makes a tensor; a contiguous tensor or array [*grid.shape, ...] of float32, float64 or the dtype of
            the network is filled; a path is written as its extension says (.npy holds the numbers themselves, bfloat16
            as float32; pictures, clips and sounds expect values in [-1, 1]).
        tile: Points evaluated at a time; default 65536. The numbers do not depend on it.
        quantity: "value" [.., O], "gradient" [.., O, D] (the Jacobian) or "laplacian" [.., O].
        progress: Show progress on standard error.
        overwrite: Whether an existing file at `out` may be replaced.

    Returns:
        The tensor or array that was filled, or the path that was written.

    Raises:
        TypeError: `net` is no SIREN, or an argument is of the wrong type.
        ValueError: Grid, quantity, tile or what `out` is do not fit the network.
        RuntimeError: The backend or the precision of the network cannot serve it.
        OutputError: The file cannot be written, or exists already.
        NonFiniteError: A file was asked for and the network gives NaN or infinity.

    Example:
        >>> import fastsiren
        >>> net = fastsiren.Siren(2, 16, 1, 3)
        >>> fastsiren.render(net, fastsiren.grids.Grid.over((4, 6)), progress=False).shape
        torch.Size([4, 6, 3])
    """
    tile = DEFAULT_TILE if tile is None else whole_number("tile", tile, least=1)
    flag("progress", progress)
    flag("overwrite", overwrite)
    if isinstance(out, (str, os.PathLike)):
        return render_file(net, grid, out, quantity=quantity, tile=tile, progress=progress, overwrite=overwrite)
    decoder = Decoder(net, grid, quantity)
    target = _target(out, (*grid.shape, *decoder.suffix), decoder)
    flat = target.view(-1, *decoder.suffix)
    with _shown(quantity, grid, progress) as shown:
        for part in tiles(grid.shape, tile):
            decoder(part, flat[part.begin : part.end])
            shown.update(part.end)
    return target if out is None else out


def _target(out: Tensor | Array | None, shape: tuple[int, ...], decoder: Decoder) -> Tensor:
    """What is filled: a new tensor, or the memory of `out` once it is known to fit."""
    if out is None:
        return torch.empty(shape, dtype=decoder.dtype, device=decoder.device)
    if not isinstance(out, (Tensor, np.ndarray)):
        raise TypeError(f"out: got {described(out)}, expected None, a path, a torch.Tensor or a numpy.ndarray")
    if isinstance(out, np.ndarray):
        usable, device = out.flags.carray, torch.device("cpu")
    else:
        usable, device = out.layout is torch.strided and out.is_contiguous(), out.device
    dtype = str(out.dtype).removeprefix("torch.")
    accepted = sorted(str(kind).removeprefix("torch.") for kind in {torch.float32, torch.float64, decoder.dtype})
    if not usable or tuple(out.shape) != shape or dtype not in accepted or device != decoder.device:
        lacking = "" if usable else ", read-only or not contiguous"
        raise ValueError(
            f"out: got {dtype} of shape {tuple(out.shape)} on {device}{lacking}, expected contiguous writable "
            f"{' or '.join(accepted)} of shape {shape} on {decoder.device}"
        )
    return torch.from_numpy(out) if isinstance(out, np.ndarray) else out


def render_file(
    net: SirenModule,
    grid: Grid,
    path: str | os.PathLike[str],
    *,
    kind: str | None = None,
    bits: int | None = None,
    rate: Fraction | None = None,
    gain: float = 1.0,
    quantity: str = "value",
    tile: int = DEFAULT_TILE,
    progress: bool = True,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> Path:
    """Evaluate a network on a grid straight into a file, which appears only when it is complete.

    Args:
        net: A `Siren` or a converted module.
        grid: Where to evaluate: two axes (rows, columns) for a picture, three (time, rows, columns) for a clip or, with
            one time, for a picture, one for a sound.
        path: The file.
        kind: One of `FORMATS`; default by the extension.
        bits: Per sample: 8 or 16 of a picture, default 8; 8 of a clip; 16 of a sound.
        rate: Frames per second of a clip, default 25, or samples per second of a sound, default 44100.
        gain: Factor on the values of a sound.
        quantity: "value", "gradient" (a picture shows direction as hue) or "laplacian" (a picture shows zero as grey).
        tile: Points evaluated at a time.
        progress: Show progress on standard error.
        overwrite: Whether an existing file may be replaced.
        allow_nonfinite: Write NaN and infinite points (as 0 in pictures) instead of refusing them.

    Raises:
        UsageError: The format cannot hold what is asked for.
        OutputError: The file cannot be written; `NoSpaceError` when it does not fit.
        NonFiniteError: The network gives NaN or infinity.
    """
    kind = kind or format_of(path)
    target = check_output(path, overwrite=overwrite)
    job = _Job(net, grid, kind=kind, quantity=quantity, tile=tile, bits=bits, rate=rate, gain=gain)
    with output_lock(target), atomic_output(target) as file:
        job.write(file, progress=progress, allow_nonfinite=allow_nonfinite)
    return target


class _Job:
    """A render whose request was checked, ready to be written to any binary stream."""

    def __init__(
        self,
        net: SirenModule,
        grid: Grid,
        *,
        kind: str,
        quantity: str,
        tile: int,
        bits: int | None = None,
        rate: Fraction | None = None,
        gain: float = 1.0,
    ) -> None:
        self.decoder = Decoder(net, grid, quantity)
        self.tile = tile
        self.output = output(self.decoder, kind, bits=bits, rate=rate, gain=gain, tile=tile)

    def write(self, file: IO[bytes], *, progress: bool, allow_nonfinite: bool) -> None:
        """Decode every tile into the stream."""
        grid = self.decoder.grid
        sink = self.output.sink(file)
        with _shown(self.decoder.quantity, grid, progress) as shown:
            for part in tiles(grid.shape, self.tile):
                numbers = self.decoder.numbers(part)
                if not allow_nonfinite:
                    self._refuse_nonfinite(numbers, part)
                sink.write(self.output.samples(numbers))
                shown.update(part.end)
        sink.close()

    def _refuse_nonfinite(self, numbers: Array, part: Tile) -> None:
        bad = ~np.isfinite(numbers).reshape(len(numbers), -1).all(1)
        if bad.any():
            raise NonFiniteError(
                f"the network gives NaN or infinity at {int(bad.sum())} of the first {part.end} points; fit it again, "
                "or use --allow-nonfinite to write such points as they are (0 in pictures, clips and sounds)"
            )


def _shown(quantity: str, grid: Grid, enabled: bool) -> Progress:
    return Progress(f"render {quantity}", grid.numel, unit="Mpx", scale=1e6, enabled=enabled)


def render_stream(net: SirenModule, grid: Grid, file: IO[bytes], **options: Any) -> None:
    """Write to an open binary stream, such as standard output; see `render_file`."""
    progress, allow = options.pop("progress"), options.pop("allow_nonfinite")
    _Job(net, grid, **options).write(file, progress=progress, allow_nonfinite=allow)
    file.flush()
