"""A user's program with one class exchanged: a training step as the original notebook has it, on the drop-in class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from fastsiren.dropin import colab, diff_operators

from .official import OMEGA, divergence, gradient, loss_of
from .problem import Contender, Problem, Unavailable, training_call

NOTEBOOK = SimpleNamespace(gradient=gradient, laplace=lambda y, x: divergence(gradient(y, x), x))
"""The derivative functions of the notebook: nested autograd.grad."""


def import_only(problem: Problem) -> Contender:
    """Return the step in which the import of the class is all that changed: derivatives by nested autograd.grad."""
    return client("import_only", problem, NOTEBOOK)


def with_operators(problem: Problem) -> Contender:
    """Return the step whose derivative functions are imported from fastsiren too."""
    if problem.workload.kind == "train_value":
        raise Unavailable("a loss on values calls no derivative function: the same as import_only")
    return client("diff_operators", problem, diff_operators)


def client(name: str, problem: Problem, operators: Any) -> Contender:
    """Return a training step of the notebook's program.

    Args:
        name: Of the contender.
        problem: The inputs.
        operators: Has gradient and laplace, with the notebook's signatures.
    """
    w, x, target = problem.workload, problem.x, problem.target
    if w.networks > 1:
        raise Unavailable("the notebook trains one network")
    net = colab.Siren(w.d, w.width, w.layers, w.o, outermost_linear=True, first_omega_0=OMEGA, hidden_omega_0=OMEGA)
    net.load_state_dict(problem.module.state_dict())

    def loss() -> Tensor:
        output, coords = net(x)
        if w.kind == "train_value":
            return loss_of(w.kind, (output,), target)
        derivative = operators.laplace if w.kind == "train_laplacian" else operators.gradient
        return loss_of(w.kind, (derivative(output, coords),), target)

    parameters = list(net.parameters())
    return Contender(name, training_call(loss, parameters), parameters)
