"""Formulas as text, such as "u__t + u*u__x - nu*u__x__x": parsed, never executed as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..faults import UsageError

__all__ = ["CONSTANTS", "FUNCTIONS", "Expression"]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name) for name in ("sin", "cos", "tan", "exp", "log", "sqrt", "tanh", "sinh", "cosh", "abs")
}
CONSTANTS = {"pi": math.pi, "e": math.e}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
# More is no formula; it also keeps the recursion below shallow.
_LONGEST = 2000


class Expression:
    """A formula of numbers, names, + - * / **, parentheses and the functions of `FUNCTIONS`.

    Args:
        text: The formula.

    Raises:
        UsageError: It cannot be read, or holds something else.

    Example:
        >>> f = Expression("u__t - 2*sin(pi*x)**2")
        >>> sorted(f.names), float(f({"u__t": torch.tensor(3.0), "x": torch.tensor(0.5)}))
        (['u__t', 'x'], 1.0)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise UsageError(f"a formula is a text of at most {_LONGEST} characters; got {str(text)[:60]!r}")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
            self._check(self._tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UsageError(f"{text!r} cannot be read as a formula") from None
        found = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}
        self.names = frozenset(found - FUNCTIONS.keys() - CONSTANTS.keys())
        """Names that a value is needed for."""

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            known = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
            if not known or len(node.args) != 1 or node.keywords:
                raise UsageError(f"{self.text!r}: the functions are {', '.join(FUNCTIONS)}, each of one argument")
            self._check(node.args[0])
        elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            self._check(node.left)
            self._check(node.right)
        elif isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
            self._check(node.operand)
        elif isinstance(node, ast.Name):
            if node.id in FUNCTIONS:
                raise UsageError(f"{self.text!r}: {node.id} is a function and needs an argument in parentheses")
        elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
            raise UsageError(f"{self.text!r}: a formula is made of numbers, names, + - * / **, ( ) and functions only")

    def __call__(self, values: Mapping[str, Tensor | float]) -> Tensor | float:
        """Value of the formula; `values` has one for each of `names`, tensors of one shape or numbers."""
        return self._value(self._tree, {**CONSTANTS, **values})

    def _value(self, node: Any, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.Call):
            return FUNCTIONS[node.func.id](torch.as_tensor(self._value(node.args[0], values)))  # type: ignore[attr-defined]
        if isinstance(node, ast.UnaryOp):
            return _UNARY[type(node.op)](self._value(node.operand, values))
        return _BINARY[type(node.op)](self._value(node.left, values), self._value(node.right, values))
