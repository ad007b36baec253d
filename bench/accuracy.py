"""Equal results before any timing: errors against fp64, compared with the errors of eager fp32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """How much error is allowed: factor (error of eager fp32 + floor)."""

    factor: float
    floor: float


# A loss is one number, and eager's may be right to the last bit by luck: hence the floor.
OURS = Rule(2.0, 2.0**-23)
# A peer only has to compute the same thing. Inductor, for one, sums a mean over all points in one fp32 chain.
PEER = Rule(4.0, 2.5e-6)


class Verdict(NamedTuple):
    """Relative errors of one contender and of eager per quantity, and whether they pass."""

    ours: dict[str, float]
    eager: dict[str, float]
    passed: bool

    @property
    def worst(self) -> tuple[float, float]:
        """Largest error of the contender, and eager's for the same quantity."""
        name = max(self.ours, key=lambda key: self.ours[key])
        return self.ours[name], self.eager[name]


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return |got - expected| / |expected| in the Euclidean norm, in fp64; NaN where got is not finite."""
    difference = torch.linalg.vector_norm(got.double() - expected)
    return (difference / torch.linalg.vector_norm(expected)).item()


def errors(got: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative error of every quantity.

    Args:
        got: Results of a contender.
        expected: The same quantities in fp64.

    Raises:
        ValueError: The names or shapes differ.
    """
    shapes = [{name: tuple(t.shape) for name, t in side.items()} for side in (got, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"results have shapes {shapes[0]}; expected are {shapes[1]}")
    return {name: relative_error(got[name], expected[name]) for name in expected}


def judge(mine: dict[str, float], eager: dict[str, float], rule: Rule) -> Verdict:
    """Compare a contender's errors with eager's; an error that is not a number fails.

    Args:
        mine: Errors of the contender.
        eager: Errors of eager fp32 on the same inputs.
        rule: OURS or PEER.
    """
    return Verdict(mine, eager, all(mine[name] <= rule.factor * (eager[name] + rule.floor) for name in eager))
