"""Which calls the checks of `gpu` make: every pass, shape and mode, the most important ones first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .items import DEVICE, dtype_of, oracle

LOSSES = ("value", "gradient", "laplacian", "eikonal")
OUTPUTS = {
    "value": ("value",),
    "jet": ("value", "first", "second"),
    "adjoint": ("value", "first"),
    "sandwich": ("value", "first", "second"),
    # Along tangents of all parameters, or of the biases alone.
    **{f"value_bwdbwd{some}": ("slope",) for some in ("", "_biases")},
    **{f"loss_{kind}": ("loss",) for kind in LOSSES},
    "grid": ("value",),
}


@dataclass(frozen=True)
class Case:
    """One call of a pass and of its backward.

    Args:
        kind: A key of OUTPUTS.
        widths: Inputs, units of every sine layer, outputs.
        N: Points.
        mode: Of the products.
        K: Directions.
        R: Forms.
        C: Combinations.
        per_point: Whether every point has seeds of its own.
    """

    kind: str
    widths: tuple[int, ...]
    N: int = 1153
    mode: str = "fp32"
    K: int = 2
    R: int = 1
    C: int = 1
    per_point: bool = False

    @property
    def name(self) -> str:
        """A name that tells every field."""
        counts = {"jet": f"-K{self.K}R{self.R}", "adjoint": f"-C{self.C}", "sandwich": f"-K{self.K}C{self.C}"}
        seeds = "-point" if self.per_point else ""
        return f"{self.kind}{counts.get(self.kind, '')}-{'_'.join(map(str, self.widths))}-n{self.N}-{self.mode}{seeds}"

    @property
    def usual(self) -> bool:
        """Within the reach of the caps of the error rule."""
        return min(self.widths[1:-1]) >= 64 and self.N > 40


def square(width: int, d: int = 2, o: int = 1) -> tuple[int, ...]:
    """Return the widths of a network of three sine layers."""
    return (d, width, width, width, o)


def _main() -> Iterator[Case]:
    """Every pass and loss at the widths that are measured."""
    for width in (256, 64, 128):
        for mode in ("fp32", "fp16"):
            yield Case("value", square(width), mode=mode)
            yield Case("jet", square(width), mode=mode)
            yield Case("value_bwdbwd", square(width), mode=mode)
            yield from (Case(f"loss_{kind}", square(width), mode=mode) for kind in LOSSES if width != 128)
            if width != 128:
                yield Case("adjoint", square(width, 3), mode=mode)
                yield Case("sandwich", square(width), mode=mode)
                yield Case("grid", square(width), mode=mode)
                yield Case("value_bwdbwd_biases", square(width), mode=mode)


def _seeds() -> Iterator[Case]:
    """Every number of directions and forms, shared and per point."""
    for i, (K, R) in enumerate(((2, 0), (3, 1), (0, 0), (3, 6))):
        for j, (width, mode) in enumerate(((256, "fp32"), (64, "fp16"), (256, "fp16"), (64, "fp32"))):
            yield Case("jet", square(width, 3), mode=mode, K=K, R=R, per_point=(i + j) % 2 == 1)
    for mode in ("fp32", "fp16"):
        yield Case("adjoint", square(64, 3, 3), mode=mode, C=2, per_point=True)
        yield Case("sandwich", square(64, 3, 2), mode=mode, K=3, C=2, per_point=True)


def _modes() -> Iterator[Case]:
    """The other modes."""
    for mode in ("fp64", "bf16"):
        for width in (64, 256):
            yield Case("value", square(width), mode=mode)
            yield Case("jet", square(width), mode=mode)
            yield Case("value_bwdbwd", square(width), mode=mode)
        yield from (Case(f"loss_{kind}", square(64), mode=mode) for kind in LOSSES)
        yield Case("adjoint", square(64, 3), mode=mode)
        yield Case("sandwich", square(64), mode=mode)
        yield Case("grid", square(64), mode=mode)


def _shapes() -> Iterator[Case]:
    """Other widths, padded and unequal ones, other numbers of inputs and outputs, and awkward numbers of points."""
    for width, mode in ((16, "fp32"), (32, "fp16"), (512, "fp32"), (512, "fp16"), (96, "fp32"), (33, "fp16")):
        yield Case("value", square(width, 3, 2), 1000, mode)
        yield Case("jet", square(width, 3, 2), 1000, mode, K=3)
    unequal = ((1, 64, 33, 128, 1), (2, 40, 256, 17, 5), (4, 128, 64, 512, 2), (5, 16, 96, 32, 3), (6, 33, 65, 100, 4))
    for i, widths in enumerate(unequal):
        d, o = widths[0], widths[-1]
        for kind in ("value", "jet", "adjoint", "sandwich", "value_bwdbwd"):
            yield Case(kind, widths, (63, 129, 1000, 17, 257)[i], K=min(d, 3), C=min(o, 2), per_point=i % 2 == 1)
    for N in (1, 0):
        kinds = ("value", "jet", "adjoint", "sandwich", "value_bwdbwd", "loss_laplacian")
        yield from (Case(kind, square(64), N) for kind in kinds)
    yield from (Case(kind, square(64), 32768 + 4097) for kind in ("value", "jet", "value_bwdbwd"))


def _small() -> Iterator[Case]:
    """A few tiny calls of every kind; the interpreter rounds bf16 wrongly."""
    for kind in OUTPUTS:
        yield Case(kind, (2, 16, 20, 1), 33, "fp16" if kind in ("value", "jet") else "fp32")
    yield Case("value", (2, 16, 16, 2), 19, "fp64")
    yield Case("jet", (2, 16, 16, 2), 64, "fp32", K=3, R=2, per_point=True)
    yield Case("sandwich", (2, 16, 16, 2), 0)


def cases(quick: bool) -> list[Case]:
    """Return the cases of a run, the most important ones first."""
    return list(_small()) if quick else [*_main(), *_seeds(), *_modes(), *_shapes()]


@dataclass(frozen=True)
class Given:
    """Arguments of a pass and cotangents of its outputs, on the device.

    Of value_bwdbwd, seeds are the tangents of the parameters, and bars those of the outputs and the tangent of x.
    """

    net: Any  # oracle.Net
    x: Tensor  # [N, D]
    seeds: list[Tensor]
    bars: list[Tensor]

    def to(self, dtype: torch.dtype) -> Given:
        """The same numbers in another dtype."""
        seeds, bars = ([t.to(dtype) for t in group] for group in (self.seeds, self.bars))
        return replace(self, net=self.net.to(dtype), x=self.x.to(dtype), seeds=seeds, bars=bars)


def given(case: Case, draw: int = 0) -> Given:
    """Draw the arguments of a case in its dtype; the same draw gives the same numbers."""
    rule, dtype = oracle(), dtype_of(case.mode)
    N, K, R, C, d, o = case.N, case.K, case.R, case.C, case.widths[0], case.widths[-1]
    lead = (N,) if case.per_point else ()
    made = iter(range(100 * draw + 2, 100 * draw + 99))

    def normal(*shape: int) -> Tensor:
        return rule.normal(*shape, seed=next(made), dtype=dtype).to(DEVICE)

    V, M, E = normal(*lead, K, d), normal(*lead, R, K, K), normal(*lead, C, o)
    seeds = {"jet": [V, (M + M.mT) / 2], "adjoint": [E], "sandwich": [V, E]}.get(case.kind, [])
    shapes: dict[str, list[tuple[int, ...]]] = {
        "jet": [(N, o), (N, K, o), (N, R, o)],
        "adjoint": [(N, o), (N, C, d)],
        "sandwich": [(N, o), (N, C, d), (N, C, K, K)],
        "loss_gradient": [(N, o, d)],
        **{f"value_bwdbwd{some}": [(N, o), (N, d)] for some in ("", "_biases")},
    }
    net = rule.network(case.widths, [30.0] * (len(case.widths) - 2), seed=draw, dtype=dtype)
    x = rule.points(net, N, seed=100 * draw + 1).to(DEVICE)
    net = net._replace(weights=[w.to(DEVICE) for w in net.weights], biases=[b.to(DEVICE) for b in net.biases])
    if case.kind.startswith("value_bwdbwd"):
        moved = net.biases if case.kind.endswith("_biases") else net.parameters()
        seeds = [normal(*param.shape) for param in moved]
    return Given(net, x, seeds, [normal(*shape) for shape in shapes.get(case.kind, [(N, o)])])
