"""What every content of a file has, and what a user may want of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from ..faults import UsageError
from ..fit.checkpoint import Checkpoint
from ..grids import Grid
from ..meshes import Mesh

__all__ = ["Asked", "Content"]


class Asked(NamedTuple):
    """What a user wants of a content; None leaves it as the original has it."""

    kind: str
    """File format."""
    size: tuple[int, int] | None = None
    """(rows, columns)."""
    scale: float | None = None
    """Times the original size."""
    frames: int | None = None
    """Of a clip, over its whole length."""
    rate: float | None = None
    """Frames or samples per second."""
    at: float | None = None
    """Seconds from the beginning: one frame of a clip."""
    resolution: int | None = None
    """Grid points of a shape along each axis."""


class Content(ABC):
    """What a checkpoint holds.

    Args:
        checkpoint: One that `load` found right.
    """

    title: ClassVar[str]
    merit: str
    ignores: ClassVar[tuple[str, ...]]
    """What nobody can ask of it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.net, self.description = checkpoint.net, checkpoint.description

    @abstractmethod
    def grid(self, asked: Asked) -> Grid:
        """Where to evaluate.

        Raises:
            UsageError: It has no such thing.
        """

    @abstractmethod
    def options(self, asked: Asked) -> dict[str, Any]:
        """What `render_file` needs to know beyond the grid."""

    def mesh(self, asked: Asked, *, progress: bool) -> Mesh:
        """Its surface.

        Raises:
            UsageError: It has none.
        """
        raise UsageError(f"a {asked.kind} holds a mesh, which a {self.title} has not; use another format")

    def shown(self, grid: Grid) -> str:
        """The size of a grid, for people."""
        rows, columns = grid.shape[-2:]
        return f"{columns}x{rows}"

    @abstractmethod
    def size(self) -> str:
        """Its size, for people."""

    def check(self, asked: Asked) -> None:
        """Refuse what it has not.

        Raises:
            UsageError: Something is asked that belongs to another kind of content.
        """
        for name in self.ignores:
            if getattr(asked, name) is not None:
                raise UsageError(f"--{name} makes no sense for a {self.title}; leave it out")

    def facts(self) -> list[tuple[str, str]]:
        """Name and text of what is known of it and its training."""
        settings, figure = self.description["settings"], self.description["figures"].get(self.merit)
        training = f"step {self.description['step']} of {settings['steps']}, batch {settings['batch']}"
        return [
            (self.title, self.size()),
            ("training", f"{training}, lr {settings['lr']:g}"),
            (self.merit, "not measured yet" if figure is None else self.figure(figure)),
        ]

    def figure(self, value: float) -> str:
        """Its figure of merit, for people."""
        return f"{value:.2f} dB"
