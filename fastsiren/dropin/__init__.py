"""Existing SIREN code on the fused engine: faithful classes, one module per origin.

Each class has the constructor, attributes, state dict keys, return types and initial weights of the one it stands for;
the docstring of its module lists what it keeps, offers as an option or does differently. `siren_parameters()` makes a
SIREN among them an argument of every operator of fastsiren.
"""

from . import (
    checkpoint,
    coin,
    coinpp,
    colab,
    dalmia,
    deepxde,
    diff_operators,
    finer,
    functa,
    lucidrains,
    metasdf,
    official,
    pigan,
    wire,
)
from .conversion import convert

__all__ = [
    "convert",
    "checkpoint",
    "coin",
    "coinpp",
    "colab",
    "dalmia",
    "deepxde",
    "diff_operators",
    "finer",
    "functa",
    "lucidrains",
    "metasdf",
    "official",
    "pigan",
    "wire",
]
