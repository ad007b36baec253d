"""Tuning of `gpu`: tiles of the layer kernels and of the fused kernel, and its sines, by channels, width and mode.

layer: a key of the table serves every kernel of a layer with these channels, so what is timed is a forward and a
backward together, and a tile that is faster goes into the table. whole: tiles of the fused forward have no table; their
times are recorded. sines: what the sines of the fused forward come from; what is faster goes into the table.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

from fastsiren.kernels import configs, whole
from fastsiren.kernels.configs import Tile
from torch import Tensor
from triton.errors import TritonError

from .. import timing
from . import tuned
from .cases import Case, Given, given, square
from .items import DEVICE, INTERPRETED, Outcome, oracle, passes
from .measure import clock
from .pool import Settings

POINTS = 20 if INTERPRETED else 1 << 16
CANDIDATES = 2 if INTERPRETED else 8
NAME = re.compile(r"(layer|whole|sines)-c(\d+)-w(\d+)-(fp32|fp16)")
# Directions and forms of a jet with so many channels.
JETS = {1: (0, 0), 3: (2, 0), 4: (2, 1), 5: (3, 1)}
# How much faster a tile has to be: less is noise.
GAIN = 0.98
# How far results may differ from those of the shipped tile.
LIMITS = {"fp32": 1e-5, "fp16": 1e-2}


class Key(NamedTuple):
    """Kernels, channels, width and mode."""

    kernels: str
    channels: int
    width: int
    mode: str

    @property
    def entry(self) -> str:
        """The key of the table."""
        if self.kernels == "sines":
            return f"sm_{configs.architecture(DEVICE)} sines {self.channels} {self.width}"
        return f"sm_{configs.architecture(DEVICE)} {self.channels} {self.width} {self.width} {self.mode}"

    @property
    def case(self) -> Case:
        """The jet that is timed."""
        K, R = JETS[self.channels]
        return Case("jet", square(self.width, max(2, K)), POINTS, self.mode, K, R)

    def entered(self, tile: dict[str, Any]) -> Any:
        """What the table holds of a tile, or of sines."""
        return tile["SINES"] if self.kernels == "sines" else list(tile.values())

    def using(self, tile: dict[str, Any]) -> AbstractContextManager[object]:
        """Let the kernels run with a tile, or with sines."""
        if self.kernels == "whole":
            return mock.patch.object(whole, "whole_tile", lambda *sizes: tile)
        return tuned.using({self.entry: self.entered(tile)})


def items(settings: Settings) -> list[str]:
    """Return the keys, those of the rows that matter first."""
    if settings.quick:
        sizes = ("c4-w16-fp16",) if INTERPRETED else ("c4-w64-fp16",)
        return [f"{kernels}-{size}" for kernels in ("layer", "whole", "sines") for size in sizes]
    return [f"{kernels}-c{channels}-w{width}-{mode}" for kernels, width, channels, mode in _all()]


def _all() -> Iterator[tuple[str, int, int, str]]:
    modes = ("fp32", "fp16")
    yield from itertools.product(("layer",), (256,), (4, 1, 5), modes)
    yield from itertools.product(("whole",), (64, 128), (1,), modes)
    yield from itertools.product(("whole",), (64,), (4,), modes)
    yield from itertools.product(("sines",), (64, 128), (1,), ("fp16",))
    yield from itertools.product(("sines",), (64,), (4,), ("fp16",))
    yield from itertools.product(("layer",), (512,), (4,), modes)


def parse(name: str) -> Key:
    """Read a key back from the name of its item."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"item is {name!r}; expected is a name like layer-c4-w256-fp16")
    return Key(found[1], int(found[2]), int(found[3]), found[4])


def candidates(key: Key, made: Given) -> list[dict[str, Any]]:
    """Return tiles to try, the largest ones first, or sines."""
    if key.kernels == "sines":
        return [{"SINES": "half"}]
    found = layer_tiles(key) if key.kernels == "layer" else whole_tiles(key, made)
    return list(itertools.islice(found, CANDIDATES))


def layer_tiles(key: Key) -> Iterator[dict[str, Any]]:
    """Yield tiles that fit, each with a few ways to load its slices."""
    chip, slices = configs.architecture(DEVICE), {(configs.divisor(key.width, BK), n) for BK, n in ((32, 2), (64, 2))}
    areas = itertools.product((128, 64, 32, 16), (256, 128, 64, 32, 16))
    for BM, BN in sorted(areas, key=lambda area: -area[0] * area[1]):
        for warps, (BK, stages) in itertools.product((8, 4), sorted(slices)):
            tile = Tile(BM, BN, BK, warps, stages)
            if tile.fits(key.channels, key.width, key.width, key.mode, chip):
                yield tile._asdict()


def whole_tiles(key: Key, made: Given) -> Iterator[dict[str, Any]]:
    """Yield rows of a tile, whether matrices are held, and warps."""
    chosen, choose = list[dict[str, Any]](), configs.whole_tile

    def watched(*sizes: Any) -> dict[str, Any]:
        chosen.append(choose(*sizes))
        return chosen[-1]

    with mock.patch.object(whole, "whole_tile", watched):
        call(key, made)()
    shipped = chosen[0]
    for rows, hoist, warps in itertools.product((128, 64, 32), sorted({shipped["HOIST"], False}), (8, 4)):
        yield {**shipped, "BM": rows, "HOIST": hoist, "num_warps": warps}


def call(key: Key, made: Given) -> Callable[[], list[Tensor]]:
    """Return what is timed."""
    table = passes(key.mode)
    need = {"need_x": False, "need_seeds": False, "need_params": True}

    def run_passes() -> list[Tensor]:
        outputs = list(table.jet_fwd(made.x, *made.seeds, *made.net))
        if key.kernels == "layer":
            outputs += table.jet_bwd(*made.bars, made.x, *made.seeds, *made.net, **need).weights
        return outputs

    return run_passes


def prepared(name: str) -> Outcome:
    """Compile all candidates of a key, so that timing finds them in the cache."""
    key = parse(name)
    made = given(key.case)
    ran = [tile for tile in candidates(key, made) if runs(key, made, tile)]
    return Outcome("passed", f"{len(ran)} tiles compiled")


def runs(key: Key, made: Given, tile: dict[str, Any]) -> bool:
    """Tell whether a tile compiles and fits; raise where it computes something else than the shipped one."""
    expected = call(key, made)()
    with key.using(tile):
        try:
            found = call(key, made)()
        except TritonError as error:
            print(key, tile, error)
            return False
    errors = [oracle().relative_error(a, b) for a, b in zip(found, expected, strict=True) if b.numel()]
    if not max(errors) <= LIMITS[key.mode]:
        raise RuntimeError(f"{tile} differs from the shipped tile by {max(errors):.1e}, more than {LIMITS[key.mode]}")
    return True


def run(name: str, settings: Settings) -> Outcome:
    """Time all candidates of a key against the shipped tile, and keep one that is faster."""
    key = parse(name)
    made = given(key.case)
    passes_of_key = call(key, made)

    def with_tile(tile: dict[str, Any]) -> Callable[[], object]:
        def timed() -> object:
            with key.using(tile):
                return passes_of_key()

        return timed

    tiles = {spelled(tile): tile for tile in candidates(key, made) if runs(key, made, tile)}
    calls = {"shipped": passes_of_key, **{words: with_tile(tile) for words, tile in tiles.items()}}
    samples = timing.interleave(calls, seconds=0.0, min_rounds=1 if INTERPRETED else 5, clock=clock)
    ms = {words: 1e3 * timing.spread(times).median for words, times in samples.items()}
    best = min(ms, key=lambda words: ms[words])
    if key.kernels != "whole" and ms[best] < GAIN * ms["shipped"]:
        tuned.write(settings, {key.entry: key.entered(tiles[best])})
    line = f"shipped {ms['shipped']:.3g} ms; best of {len(tiles)} others is {best}, {ms[best]:.3g} ms"
    return Outcome("measured", line, {"entry": key.entry, "ms": ms})


def spelled(tile: dict[str, Any]) -> str:
    """Return a tile in words."""
    return " ".join(f"{name}={value}" for name, value in tile.items())
