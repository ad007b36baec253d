"""What functions of networks refuse, and in which words: every public function and every argument of it has rows.

tests/test_errors_values.py goes on with grids, initial weights and rendering, tests/test_errors_dropin.py with dropin.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

import fastsiren
import oracle
import test_errors_values
from error_rows import (
    Call,
    Row,
    check,
    identify,
    not_flags,
    not_like,
    not_names,
    not_numbers,
    not_sizes,
    rows,
    without_row,
)
from fastsiren import functional, grids, images, losses, modulation
from fastsiren.engine.network import Parameters

NET = fastsiren.Siren(2, 5, 1, 1, dtype=torch.float64)
X = oracle.uniform(4, 2)
Y, J = oracle.normal(4, 1), oracle.normal(4, 1, 2)
AXES = torch.eye(2, dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)
WEIGHTS, BIASES, OMEGAS = ([*map(torch.Tensor.detach, NET.siren_parameters()[0])], *NET.siren_parameters()[1:3])
SHARED = {
    "x": X, "weights": WEIGHTS, "biases": [b.detach() for b in BIASES], "omegas": OMEGAS,
    "outermost_linear": True, "precision": None,
}  # fmt: skip
GRID = grids.Grid.over((4, 5))
LINEARS = [nn.Linear(2, 3), nn.Linear(3, 1)]
OPERATOR = {"net": NET, "x": X}

CALLS = {
    "Siren": Call(
        fastsiren.Siren,
        {"in_features": 2, "hidden_features": 5, "hidden_layers": 1, "out_features": 1},
    ),
    "Siren.forward": Call(NET.forward, {"x": X}),
    "functional.siren": Call(functional.siren, SHARED),
    "functional.jet": Call(functional.jet, {**SHARED, "directions": AXES, "forms": AXES[None]}),
    "functional.adjoint": Call(functional.adjoint, {**SHARED, "combinations": ONE}),
    "functional.sandwich": Call(functional.sandwich, {**SHARED, "directions": AXES, "combinations": ONE}),
    "functional.loss": Call(functional.loss, {**SHARED, "kind": "value", "target": Y, "weight": Y[:, 0]}),
    "losses.value_mse": Call(losses.value_mse, {**OPERATOR, "target": Y, "weight": Y[:, 0]}),
    "losses.gradient_mse": Call(losses.gradient_mse, {**OPERATOR, "target": J, "weight": Y[:, 0]}),
    "losses.laplacian_mse": Call(losses.laplacian_mse, {**OPERATOR, "target": Y, "weight": Y[:, 0]}),
    "losses.eikonal": Call(losses.eikonal, {**OPERATOR, "weight": Y[:, 0]}),
    "value_and_jacobian": Call(fastsiren.value_and_jacobian, OPERATOR),
    "laplacian": Call(fastsiren.laplacian, {**OPERATOR, "weights": AXES[0]}),
    "hessian": Call(fastsiren.hessian, OPERATOR),
    "directional": Call(fastsiren.directional, {**OPERATOR, "v": AXES[0], "u": AXES[1]}),
    "derivatives": Call(fastsiren.derivatives, {**OPERATOR, "names": ["u__t"], "inputs": "tx", "outputs": "u"}),
    "explain": Call(fastsiren.explain, {"net": NET, "request": "value"}),
    "use_backend": Call(fastsiren.use_backend, {"name": "auto"}),
    "precision": Call(fastsiren.precision, {"name": "fp32"}),
}  # fmt: skip


def shared(name: str) -> list[Row]:
    """Make the rows of the arguments that all functions of a network by its parameters have."""
    wide = X.new_zeros(3, 3)
    return rows(
        name,
        *not_like("x", X),
        ({"x": X[:, :1]}, ValueError, "got shape (4, 1), expected (..., 2)"),
        ({"x": X[0, 0]}, ValueError, "got shape (), expected (..., 2)"),
        ({"weights": None}, TypeError, "got None of type NoneType, expected a list of tensors"),
        ({"weights": 3.0}, TypeError, "got 3.0 of type float, expected a list of tensors"),
        ({"weights": WEIGHTS[1]}, TypeError, "got a torch.Tensor of shape (5, 5)", "expected a list of tensors"),
        ({"weights": [1, 2, 3]}, TypeError, "weights[0]: got 1 of type int, expected a torch.Tensor"),
        ({"weights": []}, ValueError, "got 0, 3 and 2 of them, expected as many biases as weights"),
        ({"weights": [], "biases": [], "omegas": []}, ValueError, "got 0, 0 and 0 of them"),
        ({"weights": WEIGHTS[:1], "biases": None, "omegas": []}, ValueError, "got 1, expected at least 2"),
        ({"weights": [w.flatten() for w in WEIGHTS]}, ValueError, "weights[0]: got shape (10,), expected 2 dimensions"),
        ({"weights": [w[0] for w in WEIGHTS], "outermost_linear": False, "omegas": [1.0] * 3}, ValueError, "got shape"),
        ({"weights": [w[None, None] for w in WEIGHTS]}, ValueError, "weights[0]: got shape (1, 1, 5, 2)"),
        ({"weights": [*WEIGHTS[:2], wide]}, ValueError, "weights[2]: got shape (3, 3), expected (.., 5)"),
        ({"weights": [w.long() for w in WEIGHTS]}, TypeError, "weights[0]: got dtype torch.int64, expected a floating"),
        ({"weights": [w + 0j for w in WEIGHTS]}, TypeError, "weights[0]: got dtype torch.complex128, expected a float"),
        ({"weights": [*WEIGHTS[:2], WEIGHTS[2].float()]}, TypeError, "weights[2]: got dtype torch.float32"),
        ({"weights": [*WEIGHTS[:2], WEIGHTS[2].to("meta")]}, ValueError, "weights[2]: got device meta, expected cpu"),
        ({"biases": 3.0}, TypeError, "got 3.0 of type float, expected a list of tensors"),
        ({"biases": BIASES[0]}, TypeError, "got a torch.Tensor of shape (5,)", "expected a list of tensors"),
        ({"biases": BIASES[:2]}, ValueError, "got 3, 2 and 2 of them"),
        ({"biases": [*BIASES, None]}, ValueError, "got 3, 4 and 2 of them"),
        ({"biases": [*BIASES[:2], 1.0]}, TypeError, "biases[2]: got 1.0 of type float, expected a torch.Tensor"),
        ({"biases": [*BIASES[:2], BIASES[0]]}, ValueError, "biases[2]: got shape (5,), expected (1,)"),
        ({"biases": [*BIASES[:2], BIASES[2].long()]}, TypeError, "biases[2]: got dtype torch.int64, expected a"),
        ({"biases": [*BIASES[:2], BIASES[2].float()]}, TypeError, "biases[2]: got dtype torch.float32, expected"),
        ({"biases": [*BIASES[:2], BIASES[2].to("meta")]}, ValueError, "biases[2]: got device meta, expected cpu"),
        ({"omegas": None}, TypeError, "got None of type NoneType, expected a list of floats"),
        ({"omegas": 30.0}, TypeError, "got 30.0 of type float, expected a list of floats"),
        ({"omegas": "30"}, TypeError, "got '30' of type str, expected a list of floats"),
        ({"omegas": [1.0] * 3}, ValueError, "got 3, 3 and 3 of them"),
        ({"omegas": [torch.tensor(30.0), 1.0]}, TypeError, "got a torch.Tensor", "a learned frequency is a factor"),
        ({"omegas": ["30", 1.0]}, TypeError, "got '30' of type str, expected a number"),
        ({"omegas": [math.nan, 1.0]}, ValueError, "got [nan, 1.0], expected finite numbers"),
        ({"omegas": [1.0, math.inf]}, ValueError, "got [1.0, inf], expected finite numbers"),
        *not_flags("outermost_linear"),
        *not_names("precision", "fp32", "tf32", "fp16", "bf16"),
    )  # fmt: skip


def operator(name: str) -> list[Row]:
    """Make the rows of the arguments that all operators of a module have."""
    return rows(
        name,
        ({"net": None}, TypeError, "got None of type NoneType, expected a fastsiren.Siren or a module with"),
        ({"net": nn.Linear(2, 1)}, TypeError, "got a module Linear, expected a fastsiren.Siren or a module with"),
        ({"net": fastsiren.Siren}, TypeError, "got Siren itself, expected a fastsiren.Siren"),
        (
            {"net": Lying(None)},
            TypeError,
            "siren_parameters() of Lying gave None of type NoneType, expected fastsiren.",
        ),
        ({"net": Lying(Parameters([], [], []))}, TypeError, "gave one without weights, expected"),
        *([] if name == "explain" else not_like("x", X)),
        *([] if name == "explain" else [({"x": X[:, :1]}, ValueError, "got shape (4, 1), expected (..., 2)")]),
        *([] if name == "explain" else [({"x": X[0, 0]}, ValueError, "got shape (), expected (..., 2)")]),
    )


class Lying:
    """A module whose protocol gives something else."""

    def __init__(self, found: object) -> None:
        self.siren_parameters = lambda: found


FUNCTIONAL = ("siren", "jet", "adjoint", "sandwich", "loss")
LOSSES = ("value_mse", "gradient_mse", "laplacian_mse", "eikonal")
OPERATORS = ("value_and_jacobian", "laplacian", "hessian", "directional", "derivatives", "explain")

SEEDS = [
    row
    for name, argument, good, core, other in (
        ("jet", "directions", AXES, "(any, 2)", AXES[:, :1]),
        ("jet", "forms", AXES[None], "(any, 2, 2)", AXES[None, :1]),
        ("adjoint", "combinations", ONE, "(any, 1)", AXES),
        ("sandwich", "directions", AXES, "(any, 2)", AXES[:, :1]),
        ("sandwich", "combinations", ONE, "(any, 1)", AXES),
    )
    for row in rows(
        f"functional.{name}",
        *not_like(argument, good)[(argument, name) != ("directions", "jet") :],
        ({argument: other}, ValueError, f"got shape {tuple(other.shape)}, expected {core} or (..., {core[1:]}"),
        ({argument: good[(0,) * (good.ndim - 1)]}, ValueError, f"got shape ({good.shape[-1]},), expected {core}"),
        ({argument: good.expand(3, *good.shape)}, ValueError, "expected leading dimensions that broadcast to (4,)"),
    )
]
"""Tensors of all functions that may be given per point; None stands for all axes, but for directions of a jet."""

FUSED = [
    row
    for name, target in (("value_mse", Y), ("gradient_mse", J), ("laplacian_mse", Y), ("eikonal", None))
    for row in rows(
        f"losses.{name}",
        *([] if target is None else not_like("target", target)),
        *([] if target is None else [({"target": target[:1]}, ValueError, "got shape (1, 1", "expected (4, 1")]),
        *([] if target is None else [({"target": target[:, 0, ...]}, ValueError, "got shape (4", "expected (4, 1")]),
        *not_like("weight", Y[:, 0])[1:],
        ({"weight": 1.0}, TypeError, "got 1.0 of type float, expected a torch.Tensor"),
        ({"weight": Y}, ValueError, "got shape (4, 1), expected (4,)"),
        *not_names("reduction", "mean", "sum"),
    )
]

TABLE = [
    *(row for name in FUNCTIONAL for row in shared(f"functional.{name}")),
    *(row for name in LOSSES for row in operator(f"losses.{name}")),
    *(row for name in OPERATORS for row in operator(name)),
    *SEEDS,
    *FUSED,
    *rows(
        "functional.loss",
        *not_names("kind", "value", "gradient", "laplacian", "eikonal"),
        *not_names("reduction", "mean", "sum"),
        *not_like("target", Y),
        ({"target": Y[:3]}, ValueError, "got shape (3, 1), expected leading dimensions that broadcast to (4,)"),
        ({"target": X}, ValueError, "got shape (4, 2), expected (4, 1)"),
        ({"target": X, "kind": "gradient"}, ValueError, "got shape (4, 2), expected (4, 1, 2)"),
        ({"target": Y, "kind": "eikonal"}, ValueError, "got a tensor, expected None"),
        *not_like("weight", Y[:, 0])[1:],
        ({"weight": Y[:3, 0]}, ValueError, "got shape (3,), expected leading dimensions that broadcast to (4,)"),
    ),
    *rows("value_and_jacobian", *not_names("algorithm", "T", "A"), ({"algorithm": "TxA"}, ValueError, "'T', 'A' for")),
    *(
        row
        for name in ("laplacian", "hessian")
        for row in rows(
            name,
            ({"dims": 1}, TypeError, "got 1 of type int, expected None or a list of ints"),
            ({"dims": "x"}, TypeError, "got 'x' of type str, expected None or a list of ints"),
            ({"dims": np.zeros((3, 40))}, TypeError, "of type ndarray, expected None or a list of ints"),
            ({"dims": [0.0]}, TypeError, "got 0.0 of type float, expected ints"),
            ({"dims": [True]}, TypeError, "got True of type bool, expected ints"),
            ({"dims": []}, ValueError, "got [], expected at least one input, each once"),
            ({"dims": [0, -2]}, ValueError, "got [0, -2], expected at least one input, each once"),
            ({"dims": [2]}, ValueError, "got 2, expected ints in [-2, 1]"),
            *not_names("algorithm", "T", "TxA"),
            ({"algorithm": "A"}, ValueError, "got 'A', expected None or one of 'T', 'TxA' for this request"),
        )
    ),
    *rows(
        "laplacian",
        *not_like("weights", AXES[0])[3:],
        ({"weights": 3.0}, TypeError, "got 3.0 of type float, expected a list of numbers"),
        ({"weights": "ab"}, TypeError, "got 'ab' of type str, expected a list of numbers"),
        ({"weights": list(X[0])}, TypeError, "got a torch.Tensor of shape (), ", "expected a number"),
        ({"weights": [1.0]}, ValueError, "got shape (1,), expected (2,) or broadcastable to (4, 2)"),
        ({"weights": X[:3]}, ValueError, "got shape (3, 2), expected (2,) or broadcastable to (4, 2)"),
        ({"weights": X[0, 0]}, ValueError, "got shape (), expected (2,)"),
    ),
    *rows(
        "directional",
        *not_like("v", AXES[0]),
        ({"v": AXES[0, :1]}, ValueError, "got shape (1,), expected (2,) or broadcastable to (4, 2)"),
        *not_like("u", AXES[0])[1:],
        ({"u": X[None]}, ValueError, "got shape (1, 4, 2), expected (2,) or broadcastable to (4, 2)"),
        *not_names("algorithm", "T", "TxA"),
    ),
    *rows(
        "derivatives",
        ({"names": "u__t"}, TypeError, "got the string 'u__t', expected a list of names"),
        ({"names": None}, TypeError, "got None of type NoneType, expected a list of names"),
        ({"names": []}, ValueError, "got none, expected at least one name"),
        ({"names": ["u", "u"]}, ValueError, "got ['u', 'u'], expected every name once"),
        ({"names": [0]}, TypeError, "got 0 of type int, expected non-empty strings"),
        ({"names": ["v__t"]}, ValueError, "got 'v__t' with the unknown output 'v', expected one of ['u']"),
        ({"names": ["u__y"]}, ValueError, "got 'u__y' with the unknown input 'y', expected one of ['t', 'x']"),
        ({"names": ["u__t__t__t"]}, ValueError, "of order 3, expected order 0, 1 or 2"),
        ({"inputs": None}, TypeError, "got None of type NoneType, expected a list of names"),
        ({"inputs": "txy"}, ValueError, "got 3 names, expected 2 as the network has"),
        ({"inputs": "tt"}, ValueError, "got ['t', 't'], expected every name once"),
        ({"outputs": 3}, TypeError, "got 3 of type int, expected a list of names"),
        ({"outputs": "uv"}, ValueError, "got 2 names, expected 1 as the network has"),
        *not_names("algorithm", "T", "A"),
        ({"algorithm": "TxA"}, ValueError, "got 'TxA', expected None or one of 'T', 'A' for this request"),
    ),
    *rows(
        "explain",
        *not_names("algorithm", "value"),
        ({"request": "gradient"}, ValueError, "got 'gradient', expected one of 'value', 'jacobian'", "list of names"),
        ({"request": 3}, TypeError, "got 3 of type int, expected a str or a list of at least one str"),
        ({"request": [1]}, TypeError, "got [1] of type list, expected a str or a list of at least one str"),
        ({"request": []}, TypeError, "got [] of type list, expected a str or a list of at least one str"),
        ({"request": ["u", "v"]}, ValueError, "got 2 outputs ['u', 'v'], expected at most 1 as the network has"),
        ({"request": ["u__a", "u__b", "u__c"]}, ValueError, "got 3 inputs ['a', 'b', 'c'], expected at most 2"),
    ),
    *rows(
        "Siren",
        *not_sizes("in_features"),
        *not_sizes("hidden_features"),
        *not_sizes("hidden_layers", least=0),
        *not_sizes("out_features"),
        *not_flags("outermost_linear"),
        *not_numbers("first_omega_0"),
        *not_numbers("hidden_omega_0"),
        ({"first_omega_0": torch.tensor(30.0)}, TypeError, "got a torch.Tensor of shape (), ", "expected a number"),
        *not_flags("bias"),
        *not_names("init", "siren", "torch")[:1],
        ({"init": 3}, TypeError, "got 3 of type int, expected a name or a fastsiren.init.Scheme"),
        *not_names("precision", "fp32", "bf16"),
        ({"device": "gpu"}, ValueError, "got 'gpu' of type str, expected a torch.device or the name of one"),
        ({"device": 1.5}, ValueError, "got 1.5 of type float, expected a torch.device"),
        ({"dtype": "float32"}, TypeError, "got 'float32' of type str, expected a torch.dtype"),
        ({"dtype": torch.int32}, ValueError, "got torch.int32, expected a floating-point dtype"),
        ({"dtype": torch.complex64}, ValueError, "got torch.complex64, expected a floating-point dtype"),
    ),
    *rows(
        "Siren.forward",
        *not_like("x", X),
        ({"x": X[:, :1]}, ValueError, "got shape (4, 1), expected (..., 2)"),
        ({"quantity": "laplacian"}, TypeError, "got 'laplacian' of type str, expected None or a function"),
    ),
    *rows("use_backend", *not_names("name", "auto", "reference", "cpp", "triton")),
    *rows("precision", *not_names("name", "fp32", "tf32", "fp16", "bf16")),
]


@pytest.mark.parametrize("row", identify(TABLE))
def test_refused(row):
    check(CALLS, row)


@pytest.mark.parametrize("name", CALLS)
def test_served_but_for_what_a_row_changes(name):
    CALLS[name].function(**CALLS[name].arguments)


def test_every_argument_has_rows():
    assert without_row(CALLS, TABLE) == set()


def test_every_public_name_is_in_the_table():
    """Functions and classes of the package and of its modules; those of fastsiren.dropin have a table of their own."""
    modules = {name: found for name in fastsiren.__all__ if inspect.ismodule(found := getattr(fastsiren, name))}
    modules |= {"modulation": modulation, "images": images}
    names = {name for name in fastsiren.__all__ if name not in modules and name != "convert"}
    for module in modules.keys() - {"dropin"}:
        there = vars(modules[module])
        names |= {f"{module}.{name}" for name in there.get("__all__", there) if offered(there[name], name)}
    assert names - CALLS.keys() - test_errors_values.CALLS.keys() == RECORDS


def offered(found: object, name: str) -> bool:
    """Whether a name of a module is that of a public function or class outside of the engine."""
    origin = getattr(found, "__module__", None) or ""
    public = origin.startswith("fastsiren.") and not origin.startswith("fastsiren.engine")
    return public and callable(found) and not name.startswith("_")


# Plain records, which the functions that take them check.
RECORDS = {"init.Fan", "init.Order", "images.Picture"}
