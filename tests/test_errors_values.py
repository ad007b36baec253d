"""What grids, initial weights, rendering, modulations and pictures refuse, and in which words; see test_errors.py."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import fastsiren
from error_rows import Call, check, identify, not_flags, not_names, not_numbers, rows, without_row
from fastsiren import functional, grids, images, init, modulation

NET = fastsiren.Siren(2, 5, 1, 1, dtype=torch.float64)
GRID = grids.Grid.over((4, 5))
PARAMETERS = NET.siren_parameters()
KINDS = ("frequency", "scale", "shift", "phase", "gain")
H = torch.ones(5, dtype=torch.float64)
LINEARS = [nn.Linear(2, 3), nn.Linear(3, 1)]

CALLS = {
    "render": Call(fastsiren.render, {"net": NET, "grid": GRID, "progress": False}),
    "grids.Grid": Call(grids.Grid, {"shape": (2, 3), "origin": (0.0, 0.0), "step": (1.0, 1.0)}),
    "grids.Grid.over": Call(grids.Grid.over, {"shape": (2, 3)}),
    "grids.Grid.coordinates": Call(GRID.coordinates, {"start": (1, 2), "shape": (3, 3)}),
    "grids.Grid.at": Call(GRID.at, {"index": torch.arange(3)}),
    "functional.stack": Call(functional.stack, {"nets": [NET, NET]}),
    "functional.unstack": Call(functional.unstack, {"stacked": functional.stack([NET, NET]), "nets": [NET, NET]}),
    "modulation.modulated": Call(
        modulation.modulated,
        {"net": NET, **{name: [H, H] for name in KINDS}},
    ),
    "modulation.Conditioned": Call(
        modulation.Conditioned, {"weights": PARAMETERS.weights, "biases": None, "omegas": PARAMETERS.omegas}
    ),
    "images.read": Call(images.read, {"path": "no such file"}),
    "images.psnr": Call(images.psnr, {"mean_squared_error": 0.5}),
    "init.finer": Call(init.finer, {"first_bias_scale": 1.0}),
    "init.scheme": Call(init.scheme, {"init": "siren"}),
    "init.initialize": Call(init.initialize, {"linears": LINEARS}),
    "init.Uniform": Call(init.Uniform, {"bound": 1.0}),
    "init.Scheme": Call(init.Scheme, {"source": "here", "first": None, "hidden": None, "last": None}, free=("source",)),
}

AXIS = ("shape", "origin", "step")
RULES = ("first", "hidden", "last", "bias", "first_bias")
READ_ONLY = np.zeros((4, 5, 1), np.float32)
READ_ONLY.flags.writeable = False
UNFIT = (
    (torch.zeros(4, 5, 3), "got float32 of shape (4, 5, 3) on cpu, expected contiguous writable float32 or float64"),
    (torch.zeros(4, 5, 1).half(), "got float16 of shape (4, 5, 1) on cpu, expected"),
    (torch.zeros(4, 5, 1, device="meta"), "on meta, expected contiguous writable", "of shape (4, 5, 1) on cpu"),
    (torch.zeros(4, 5, 1).to_sparse(), "read-only or not contiguous, expected"),
    (torch.zeros(5, 4, 1).swapaxes(0, 1), "read-only or not contiguous, expected"),
    (np.zeros((4, 5, 2), np.float32)[..., :1], "read-only or not contiguous, expected"),
    (READ_ONLY, "read-only or not contiguous, expected"),
    (np.zeros((4, 5, 1), ">f4"), "got >f4 of shape (4, 5, 1) on cpu, expected"),
    (np.zeros((4, 5, 1), object), "got object of shape (4, 5, 1) on cpu, expected"),
)

TABLE = [
    *rows(
        "render",
        ({"net": nn.Linear(2, 1)}, TypeError, "got a module Linear, expected a fastsiren.Siren or a module with"),
        ({"grid": (4, 5)}, TypeError, "got (4, 5) of type tuple, expected a fastsiren.grids.Grid"),
        ({"grid": grids.Grid.over(4)}, ValueError, "got 1 axes, expected 2 as the network has inputs"),
        ({"tile": 0}, ValueError, "got 0, expected an int >= 1"),
        ({"tile": 2.5}, TypeError, "got 2.5 of type float, expected an int"),
        *not_names("quantity", "value", "gradient", "laplacian"),
        *not_flags("progress"),
        *not_flags("overwrite"),
        *(({"out": out}, TypeError, "of type", "expected None, a path, a torch.Tensor or") for out in (1.0, [[0.0]])),
        *(({"out": out}, ValueError, *words) for out, *words in UNFIT),
    ),
    *rows(
        "grids.Grid",
        *(({name: 2}, TypeError, "got 2 of type int, expected a list of numbers") for name in AXIS),
        *(({name: "23"}, TypeError, "got '23' of type str, expected a list of numbers") for name in AXIS),
        *(({name: torch.ones(2)}, TypeError, "got a torch.Tensor of shape (2,), ", "a list of") for name in AXIS),
        *(({name: (2,)}, ValueError, "shape, origin, step: got (", "expected as many of each") for name in AXIS),
        ({"shape": (), "origin": (), "step": ()}, ValueError, "got (0, 0, 0) numbers, expected"),
        ({"shape": (2, 3.0)}, TypeError, "got 3.0 of type float, expected an int"),
        ({"shape": (2, -1)}, ValueError, "got -1, expected an int >= 0"),
        *(({name: (0.0, "1")}, TypeError, "got '1' of type str, expected a number") for name in AXIS[1:]),
        *(({name: (0.0, math.nan)}, ValueError, "got nan, expected finite numbers") for name in AXIS[1:]),
    ),
    *rows(
        "grids.Grid.over",
        *(({"shape": given}, TypeError, f"got {given!r} of type", "expected an int") for given in (2.0, True, None)),
        ({"shape": "45"}, TypeError, "got '45' of type str, expected a list of ints, one per axis"),
        ({"shape": torch.ones(2)}, TypeError, "got a torch.Tensor of shape (2,), ", "expected a list of ints"),
        ({"shape": (2, "3")}, TypeError, "got '3' of type str, expected an int"),
        ({"shape": (2, -1)}, ValueError, "got -1, expected an int >= 0"),
        ({"shape": ()}, ValueError, "got (0, 0, 0) numbers, expected as many of each, one per axis"),
        *not_names("convention", "corner", "centre", "unit"),
    ),
    *rows(
        "grids.Grid.coordinates",
        ({"start": 1}, TypeError, "got 1 of type int, expected a list of ints, one per axis"),
        ({"start": (0.0, 1.0)}, TypeError, "got 0.0 of type float, expected an int"),
        ({"start": (1,)}, ValueError, "got [1], expected one int per axis and at most [4, 5]"),
        ({"start": (-1, 0)}, ValueError, "got -1, expected an int >= 0"),
        ({"start": (5, 0)}, ValueError, "got [5, 0], expected one int per axis and at most [4, 5]"),
        ({"shape": 3}, TypeError, "got 3 of type int, expected a list of ints, one per axis"),
        ({"shape": (3, 4)}, ValueError, "got [3, 4], expected one int per axis and at most [3, 3]"),
        ({"dtype": "float32"}, TypeError, "got 'float32' of type str, expected a torch.dtype"),
        ({"dtype": torch.int64}, ValueError, "got torch.int64, expected a floating-point dtype"),
    ),
    *rows(
        "grids.Grid.at",
        ({"index": [0, 1]}, TypeError, "got [0, 1] of type list, expected a torch.Tensor of integers"),
        ({"index": torch.zeros(2)}, TypeError, "got dtype torch.float32, expected a torch.Tensor of integers"),
        ({"index": torch.ones(2, dtype=torch.bool)}, TypeError, "got dtype torch.bool, expected a torch.Tensor of int"),
        ({"index": torch.zeros(2, 2, dtype=torch.long)}, ValueError, "got shape (2, 2), expected (N,)"),
        ({"dtype": None}, TypeError, "got None of type NoneType, expected a torch.dtype"),
        ({"dtype": torch.int64}, ValueError, "got torch.int64, expected a floating-point dtype"),
    ),
    *rows(
        "functional.stack",
        ({"nets": NET}, TypeError, "got a module Siren, expected a list of networks"),
        ({"nets": []}, ValueError, "got none, expected at least one network"),
        ({"nets": [NET, 3]}, TypeError, "nets[1]: got 3 of type int, expected a fastsiren.Siren or a module with"),
        (
            {"nets": [NET, fastsiren.Siren(2, 5, 1, 1)]},
            ValueError,
            "nets[1]: weights[0] is",
            "torch.float32",
            "expected",
        ),
        ({"nets": [NET, fastsiren.Siren(2, 4, 1, 1).double()]}, ValueError, "nets[1]: weights[0] is", "(4, 2)"),
        ({"nets": [NET, fastsiren.Siren(2, 5, 2, 1).double()]}, ValueError, "nets[1]: has omegas [30.0, 30.0, 30.0]"),
        ({"nets": [NET, fastsiren.Siren(2, 5, 1, 1, device="meta").double()]}, ValueError, "on meta, expected"),
        ({"nets": [functional.stack([NET])]}, ValueError, "nets[0]: has an axis of networks in front already"),
    ),
    *rows(
        "functional.unstack",
        ({"stacked": 3}, TypeError, "got 3 of type int, expected a fastsiren.Siren"),
        ({"nets": NET}, TypeError, "got a module Siren, expected a list of networks"),
        ({"nets": [NET]}, ValueError, "got 1, expected 2 as in the stack"),
        ({"nets": [NET, fastsiren.Siren(2, 4, 1, 1).double()]}, ValueError, "nets[1]: weights[0] is"),
    ),
    *rows(
        "modulation.modulated",
        ({"net": nn.Linear(2, 1)}, TypeError, "got a module Linear, expected a fastsiren.Siren or a module with"),
        *(
            ({name: given}, error, *words)
            for name in KINDS
            for given, error, *words in (
                (3.0, TypeError, "got 3.0 of type float, expected a list of tensors"),
                (H, TypeError, "got a torch.Tensor of shape (5,)", "expected a list of tensors"),
                ([H], ValueError, "got 1 of them, expected 2, one per sine layer"),
                ([1.0, None], TypeError, f"{name}[0]: got 1.0 of type float, expected a torch.Tensor"),
                ([None, H[:4]], ValueError, f"{name}[1]: got shape (4,), expected (5,) or (networks, 5)"),
                ([None, H.float()], TypeError, f"{name}[1]: got dtype torch.float32, expected torch.float64"),
                ([None, H.to("meta")], ValueError, f"{name}[1]: got device meta, expected cpu"),
                (
                    [H.expand(2, 5), H.expand(3, 5)],
                    ValueError,
                    f"{name}[1]: got shape (3, 5)",
                    "of 2 networks in front",
                ),
            )
        ),
    ),
    *rows(
        "modulation.Conditioned",
        ({"weights": 3.0}, TypeError, "got 3.0 of type float, expected a list of tensors"),
        ({"weights": [1.0]}, TypeError, "weights[0]: got 1.0 of type float, expected a torch.Tensor"),
        ({"biases": H}, TypeError, "got a torch.Tensor of shape (5,)", "expected a list of tensors"),
        ({"omegas": 30.0}, TypeError, "got 30.0 of type float, expected a list of floats"),
        *not_flags("outermost_linear"),
        *not_names("precision", "fp32", "bf16"),
    ),
    *rows("images.read", ({"path": None}, TypeError, "got None of type NoneType, expected a str or os.PathLike")),
    *rows(
        "images.psnr",
        ({"mean_squared_error": "0"}, TypeError, "got '0' of type str, expected a number"),
        ({"mean_squared_error": -1.0}, ValueError, "got -1.0, expected a number >= 0"),
    ),
    *rows(
        "init.finer",
        *not_numbers("first_bias_scale", or_none=True),
        ({"first_bias_scale": -1}, ValueError, "got -1, expected None or a positive finite number"),
        ({"first_bias_scale": torch.ones(2)}, TypeError, "got a torch.Tensor of shape (2,), ", "expected a number"),
    ),
    *rows(
        "init.scheme",
        ({"init": None}, TypeError, "got None of type NoneType, expected a name or a fastsiren.init.Scheme"),
        ({"init": "xavier"}, ValueError, "got 'xavier', expected one of 'siren', 'colab'", "'torch'"),
    ),
    *rows(
        "init.initialize",
        ({"linears": LINEARS[0]}, TypeError, "got a module Linear, expected a list of torch.nn.Linear"),
        ({"linears": LINEARS[:1]}, ValueError, "got 1, expected at least 2"),
        ({"linears": [*LINEARS, nn.ReLU()]}, TypeError, "linears[2]: got a module ReLU, expected a torch.nn.Linear"),
        ({"init": "xavier"}, ValueError, "got 'xavier', expected one of 'siren', 'colab'"),
        ({"init": 3}, TypeError, "got 3 of type int, expected a name or a fastsiren.init.Scheme"),
        *not_numbers("hidden_omega_0"),
        *not_flags("outermost_linear"),
    ),
    *rows(
        "init.Uniform",
        ({"bound": "1"}, TypeError, "got '1' of type str, expected a number"),
        *(({"bound": given}, ValueError, f"got {given}, expected a finite number >= 0") for given in (-1.0, math.nan)),
    ),
    *rows(
        "init.Scheme",
        *(({name: 1.0}, TypeError, "got 1.0 of type float, expected None or a function of") for name in RULES),
        *not_flags("bias_as_weight"),
        ({"order": "layerwise"}, TypeError, "got 'layerwise' of type str, expected a fastsiren.init.Order"),
    ),
]


@pytest.mark.parametrize("row", identify(TABLE))
def test_refused(row):
    check(CALLS, row)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"images.read"}))
def test_served_but_for_what_a_row_changes(name):
    CALLS[name].function(**CALLS[name].arguments)


def test_every_argument_has_rows():
    assert without_row(CALLS, TABLE) == set()
