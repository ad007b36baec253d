"""What the functions of fastsiren.dropin refuse, and in which words; see tests/test_errors_dropin.py."""

import math

import pytest
import torch
from torch import nn

import fastsiren
from dropin_calls import PARAMS, X, made, uniform
from error_rows import Call, Row, check, identify, not_like, not_names, not_sizes, rows, without_row
from fastsiren.dropin import checkpoint, colab, conversion, dalmia, deepxde, diff_operators, official


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return the state of a notebook network with some entries replaced, or None to leave them out."""
    state = dict(colab.Siren(2, 8, 2, 3, True).state_dict())
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor
    return state


def function() -> dict[str, torch.Tensor]:
    """Make a network's value and its coordinates."""
    x = uniform(4, 2).requires_grad_()
    return {"y": fastsiren.Siren(2, 5, 1, 1)(x), "x": x}


OF_POINTS = function()
LINEAR = nn.Linear(2, 1)
CALLS = {
    "convert": Call(conversion.convert, {"module": nn.Sequential(nn.Linear(2, 5), made("coin.Sine"), nn.Linear(5, 1))}),
    "checkpoint.remap": Call(
        checkpoint.remap,
        {"state_dict": changed(), "to": "fastsiren", "source": "colab", "omegas": (30.0, 30.0), "new_omegas": None},
    ),
    "checkpoint.flatten": Call(checkpoint.flatten, {"state_dict": changed(), "order": "inr2vec", "source": "colab"}),
    "checkpoint.unflatten": Call(
        checkpoint.unflatten, {"vector": torch.arange(13.0), "widths": (2, 3, 1), "order": "inr2vec"}
    ),
    **{
        f"{module}.{name}": Call(getattr(diff_operators, name), OF_POINTS)
        for module, names in (
            ("diff_operators", diff_operators.__all__),
            ("colab", ("divergence", "gradient", "laplace")),
        )
        for name in names
    },
    "deepxde.jacobian": Call(deepxde.jacobian, {**OF_POINTS, "i": 0, "j": 1}),
    "deepxde.hessian": Call(deepxde.hessian, {**OF_POINTS, "component": 0, "i": 0, "j": 1}),
    "colab.get_mgrid": Call(colab.get_mgrid, {"sidelen": 4, "dim": 2}),
    "dalmia.siren_uniform_": Call(dalmia.siren_uniform_, {"tensor": uniform(5, 2)}),
    "official.get_subdict": Call(official.get_subdict, {"params": PARAMS, "key": "net"}),
}
DERIVATIVES = [name for name, call in CALLS.items() if "y" in call.arguments]


def derivative(name: str) -> list[Row]:
    """Make the rows of y and x."""
    x, y = OF_POINTS["x"], OF_POINTS["y"]
    least = [] if name.endswith("gradient") else [
        ({"y": y[0, 0]}, ValueError, "got shape (), expected at least 1 dimension"),
        ({"x": x[0, 0]}, ValueError, "got shape (), expected at least 1 dimension"),
    ]  # fmt: skip
    return rows(
        name,
        *not_like("y", y.detach())[:3],
        *not_like("x", x.detach())[:3],
        (
            {"y": y.detach()},
            RuntimeError,
            "got a torch.Tensor of shape (4, 1)",
            "requires no gradients, expected one comp",
        ),
        (
            {"x": x.detach()},
            RuntimeError,
            "got a torch.Tensor of shape (4, 2)",
            "requires no gradients, expected one that",
        ),
        ({"x": x.long()}, RuntimeError, "torch.int64 on cpu that requires no gradients"),
        (
            {"y": uniform(4, 1).requires_grad_()},
            RuntimeError,
            "not computed from x, expected a function of this very x",
        ),
        *least,
    )


def taken_apart(name: str) -> list[Row]:
    """Make the rows of state dicts."""
    return rows(
        name,
        ({"state_dict": None}, TypeError, "got None of type NoneType, expected a mapping of names to tensors"),
        ({"state_dict": LINEAR}, TypeError, "got a module Linear, expected a mapping of names to tensors"),
        ({"state_dict": {0: X}}, TypeError, "under 0, expected a torch.Tensor of floats"),
        ({"state_dict": {"a": 1.0}}, TypeError, "got 1.0 of type float under 'a', expected a torch.Tensor of floats"),
        ({"state_dict": changed(net__1__linear__bias=torch.ones(8).long())}, TypeError, "torch.int64", "linear.bias'"),
        ({"state_dict": {}, "source": None}, KeyError, "keys fit no known layout"),
        ({"state_dict": changed(net__1__linear__weight=None)}, KeyError, "keys of 'colab': net.1.linear.weight"),
        ({"state_dict": changed(grid=torch.ones(1)), "source": "wire"}, KeyError, "keys of 'wire': grid left over"),
        ({"state_dict": changed(net__1__linear__weight=torch.ones(8, 7))}, ValueError, "got weight (8, 7)", "layer 1"),
        ({"state_dict": changed(net__1__linear__bias=torch.ones(7))}, ValueError, "bias (7,) in layer 1, expected"),
        ({"state_dict": changed(net__1__linear__weight=torch.ones(8))}, ValueError, "got weight (8,)", "in layer 1"),
        ({"state_dict": {"hyper_net.nets.0.net.0.0.weight": torch.ones(1)}}, KeyError, "of a hypernetwork"),
        ({"state_dict": made("coinpp.ModulatedSiren").state_dict(), "source": None}, KeyError, "a modulated network"),
        ({"state_dict": made("coin.Siren").state_dict(), "source": None}, ValueError, "got None for keys that fit"),
        *not_names("source", "fastsiren", "colab"),
    )  # fmt: skip


TABLE = [
    *(row for name in DERIVATIVES for row in derivative(name)),
    *(row for name in ("checkpoint.remap", "checkpoint.flatten") for row in taken_apart(name)),
    *rows(
        "checkpoint.remap",
        *not_names("to", "fastsiren", "colab"),
        *(
            ({name: wrong}, error, *words)
            for name in ("omegas", "new_omegas")
            for wrong, error, *words in (
                (30.0, TypeError, "got 30.0 of type float, expected a list of two numbers"),
                (("30", 1.0), TypeError, "got '30' of type str, expected a number"),
                ((30.0, 0.0), ValueError, "got 0.0, expected a finite number other than zero"),
                ((30.0, math.nan), ValueError, "got nan, expected a finite number other than zero"),
                ((30.0,), ValueError, "got (30.0,), expected two numbers, the first and the hidden omega"),
            )
        ),
        ({"to": "official", "new_omegas": (30.0, 1.0)}, ValueError, "'official' has the literals (30.0, 30.0)"),
        ({"to": "lucidrains-wrapper"}, ValueError, "got 'lucidrains-wrapper', which also holds"),
        ({"to": "official", "state_dict": changed(net__1__linear__bias=None)}, ValueError, "with biases in layers [1]"),
        (
            {"to": "coin", "state_dict": changed(net__3__weight=None, net__3__bias=None)},
            ValueError,
            "got 'coin' with a linear last layer, expected a layout for a sine layer there",
        ),
    ),
    *rows("checkpoint.flatten", *not_names("order", "inr2vec", "fit-a-nef")),
    *rows(
        "checkpoint.unflatten",
        *not_names("order", "inr2vec", "fit-a-nef"),
        ({"vector": [1.0]}, TypeError, "got [1.0] of type list, expected a torch.Tensor of floats"),
        ({"vector": torch.arange(13)}, TypeError, "torch.int64 on cpu, expected a torch.Tensor of floats"),
        ({"vector": torch.arange(12.0)}, ValueError, "got shape (12,), expected (13,) for widths (2, 3, 1)"),
        ({"vector": uniform(13, 1)}, ValueError, "got shape (13, 1), expected (13,)"),
        ({"widths": 3}, TypeError, "got 3 of type int, expected a list of ints"),
        ({"widths": (2, 3.0, 1)}, TypeError, "got 3.0 of type float, expected an int"),
        ({"widths": (2, 0, 1)}, ValueError, "got 0, expected an int >= 1"),
        ({"widths": (2, 1)}, ValueError, "got [2, 1], expected inputs, at least one width of a sine layer, outputs"),
    ),
    *rows(
        "convert",
        ({"module": None}, TypeError, "got None of type NoneType, expected a torch.nn.Module"),
        ({"module": fastsiren.Siren}, TypeError, "got Siren itself, expected a torch.nn.Module"),
        ({"module": LINEAR}, ValueError, "nothing in Linear can be converted: it has no chain of linear layers"),
    ),
    *(
        row
        for name in ("diff_operators.gradient", "colab.gradient")
        for row in rows(
            name,
            ({"grad_outputs": 1.0}, TypeError, "got 1.0 of type float, expected None or a torch.Tensor"),
            (
                {"grad_outputs": uniform(4, 2)},
                ValueError,
                "got a torch.Tensor of shape (4, 2)",
                "expected shape (4, 1)",
            ),
            ({"grad_outputs": uniform(4, 1).to("meta")}, ValueError, "on meta, expected shape (4, 1) on cpu"),
        )
    ),
    *(
        row
        for name in ("diff_operators.jacobian", "diff_operators.hessian")
        for row in rows(name, ({"y": OF_POINTS["y"][:3]}, ValueError, "got shape (3, 1), expected the leading dim"))
    ),
    *(
        row
        for name in ("diff_operators.divergence", "colab.divergence")
        for row in rows(name, ({"y": OF_POINTS["y"].expand(4, 3)}, ValueError, "got 3 channels, expected at most 2"))
    ),
    *(
        row
        for name, argument, size in (
            ("jacobian", "i", 1),
            ("jacobian", "j", 2),
            ("hessian", "component", 1),
            ("hessian", "i", 2),
            ("hessian", "j", 2),
        )
        for row in rows(
            f"deepxde.{name}",
            ({argument: "0"}, TypeError, f"got '0' of type str, expected an int in [-{size}, {size - 1}]"),
            ({argument: 0.0}, TypeError, "got 0.0 of type float, expected an int in"),
            ({argument: True}, TypeError, "got True of type bool, expected an int in"),
            ({argument: size}, IndexError, f"got {size}, expected an int in [-{size}, {size - 1}]"),
        )
    ),
    *rows("deepxde.jacobian", ({"i": None, "y": OF_POINTS["y"].expand(4, 3)}, ValueError, "got None for 3 channels")),
    *rows("deepxde.hessian", ({"component": None, "y": OF_POINTS["y"].expand(4, 3)}, ValueError, "got None for 3")),
    *rows("colab.get_mgrid", *not_sizes("sidelen"), *not_sizes("dim")),
    *rows(
        "dalmia.siren_uniform_",
        ({"tensor": [1.0]}, TypeError, "got [1.0] of type list, expected a torch.Tensor"),
        ({"tensor": uniform(3)}, ValueError, "of shape (3,), torch.float32 on cpu, expected floats in two dimensions"),
        *not_names("mode", "fan_in", "fan_out"),
        ({"c": -1.0}, ValueError, "got -1.0, expected a finite number >= 0"),
    ),
    *rows(
        "official.get_subdict",
        ({"params": [X]}, TypeError, "of type list, expected None or a dict of tensors"),
        ({"key": 3}, TypeError, "got 3 of type int, expected None or a str"),
    ),
]


@pytest.mark.parametrize("row", identify(TABLE))
def test_refused(row):
    check(CALLS, row)


@pytest.mark.parametrize("name", CALLS)
def test_served_but_for_what_a_row_changes(name):
    CALLS[name].function(**CALLS[name].arguments)


def test_every_argument_has_rows():
    assert without_row(CALLS, TABLE) == set()
