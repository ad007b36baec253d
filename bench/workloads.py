"""The registry: every workload of the CPU benchmark, under one name each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

KINDS = ("forward", "gradient", "laplacian", "train_value", "train_gradient", "train_laplacian", "train_eikonal")
# The value loss of 256 independent networks on the same points, a step of Adam included.
MANY = "train_256_networks"
NAME = re.compile(r"(?P<kind>[a-z0-9_]+)-d(?P<d>\d+)-o(?P<o>\d+)-w(?P<width>\d+)-l(?P<layers>\d+)-n(?P<points>\d+)")


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Args:
        kind: forward, gradient (value and gradient), laplacian (value, gradient and Laplacian), or train_ followed by
            value, gradient, laplacian or eikonal: the loss and all parameter gradients, without an optimizer; or MANY.
        d: Input features.
        o: Output features; 1 for every kind with derivatives.
        width: Features of every sine layer.
        points: Number of points N.
        layers: Hidden width x width matrices.
    """

    kind: str
    d: int = 2
    o: int = 1
    width: int = 256
    points: int = 65_536
    layers: int = 3

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, MANY):
            raise ValueError(f"kind is {self.kind!r}; accepted are {', '.join((*KINDS, MANY))}")
        # The official operators sum over outputs, so with several outputs the two sides would do different work.
        if self.o != 1 and self.kind not in ("forward", "train_value", MANY):
            raise ValueError(f"o is {self.o}; {self.kind} compares with operators that need o = 1")

    @property
    def training(self) -> bool:
        """Whether this is a training step."""
        return self.kind.startswith("train_")

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return 256 if self.kind == MANY else 1

    @property
    def name(self) -> str:
        """The name that --only matches and that parse() reads back."""
        return f"{self.kind}-d{self.d}-o{self.o}-w{self.width}-l{self.layers}-n{self.points}"


def parse(name: str) -> Workload:
    """Read a workload back from its name.

    Args:
        name: For example "forward-d2-o1-w256-l3-n65536".

    Raises:
        ValueError: The name has another form.
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"workload is {name!r}; a name looks like {Workload('forward').name}")
    kind = found["kind"]
    return Workload(kind, *(int(found[key]) for key in ("d", "o", "width", "points", "layers")))


# The table that a release shows: width 256, 3 hidden matrices, 65,536 points.
MUST_SHOW = (
    Workload("forward"),
    Workload("forward", points=262_144),
    Workload("laplacian"),
    Workload("laplacian", d=3),
    Workload("train_value"),
    Workload("train_gradient"),
    Workload("train_laplacian"),
    Workload("train_eikonal", d=3),
)

SWEEP = (
    *(Workload("forward", width=w) for w in (64, 128, 512)),
    *(Workload("forward", points=n) for n in (1_024, 4_096, 16_384)),
    Workload("forward", o=3, points=262_144),
    Workload("forward", d=3, points=262_144),
    *(Workload("gradient", points=n) for n in (1_024, 65_536)),
    Workload("gradient", d=3),
    *(Workload("laplacian", width=w, points=16_384) for w in (64, 128, 512)),
    *(Workload("laplacian", points=n) for n in (1_024, 16_384)),
    *(Workload("train_value", width=w) for w in (64, 128, 512)),
    *(Workload("train_value", points=n) for n in (1_024, 16_384, 262_144)),
    *(Workload("train_gradient", points=n) for n in (1_024, 16_384)),
    *(Workload("train_laplacian", width=w, points=16_384) for w in (64, 128, 512)),
    *(Workload("train_laplacian", points=n) for n in (1_024, 16_384)),
    *(Workload("train_eikonal", d=3, width=w, points=16_384) for w in (64, 128)),
    *(Workload("train_eikonal", d=3, points=n) for n in (1_024, 16_384)),
)

# An image of 64 x 64 for each network.
NETWORKS = (Workload(MANY, width=32, points=4_096),)

# What a user's program gets by drop-in classes: batches of thousands of points up to the notebook's image of 256 x 256.
DROPIN = tuple(
    Workload(kind, d=3 if kind == "train_eikonal" else 2, points=n)
    for kind in ("train_value", "train_gradient", "train_laplacian", "train_eikonal")
    for n in (4_096, 16_384, 65_536)
)

QUICK = (
    *(Workload(kind, d=3 if kind == "train_eikonal" else 2, width=64, points=1_024) for kind in KINDS),
    Workload(MANY, width=16, points=64),
)

SETS: dict[str, tuple[Workload, ...]] = {
    "must": MUST_SHOW,
    "sweep": SWEEP,
    "networks": NETWORKS,
    "all": (*MUST_SHOW, *NETWORKS, *SWEEP),
    "dropin": DROPIN,
    "quick": QUICK,
}


# Variants of ours by set; other sets measure those of a release.
RELEASE = ("ours", "unfused")
VARIANTS = {"dropin": ("import_only", "diff_operators")}


def select(which: str, patterns: Iterable[str] = ()) -> list[Workload]:
    """Return the workloads of a set whose names match any of the patterns; all of them without a pattern.

    Args:
        which: One of SETS.
        patterns: Shell patterns that may match any part of the name.

    Raises:
        ValueError: Nothing matches.
    """
    patterns = list(patterns)
    chosen = [w for w in SETS[which] if not patterns or any(fnmatchcase(w.name, f"*{p}*") for p in patterns)]
    if not chosen:
        raise ValueError(
            f"--only {' '.join(patterns)} matches nothing in the set {which!r}; names: "
            f"{', '.join(w.name for w in SETS[which])}"
        )
    return chosen
