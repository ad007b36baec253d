"""The passes as data: operands, shapes of results, how a backend runs one, and what its derivative is.

Each pass is the vector-Jacobian product of the one before, so derivatives of any order come out of one chain:

    value_fwd -> value_bwd -> value_bwdbwd -> sandwich_bwd where one tangent makes up all of it, else plain torch
                 value_bwd -> sandwich_fwd where x alone is asked for, and has few dimensions
    jet_fwd -> jet_bwd, adjoint_fwd -> adjoint_bwd, sandwich_fwd -> sandwich_bwd, loss_fwd; and plain torch after these

"Plain torch" is torch.func.vjp of the formulas of the reference. torch.autograd.grad on saved tensors would count twice
where they depend on each other, as they do in any composition, and no check of one pass alone would notice.

The tensors of a call are one flat tuple: operands, weights, biases, then the cotangents of parameters where a pass has
some. Here is no torch.library and no autograd.Function: ops.py has both, and hands in `dispatch` to start a next pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .network import Grads
from .pass_kind import Arguments, Call, Dispatch, Needs, Operand, Pass, Result, Tensors, plain_vjp


@dataclass(frozen=True)
class Forward(Pass):
    """Value and derivatives of the network, a row per point."""

    cores: Callable[..., tuple[tuple[int, ...], ...]] = tuple
    """Shape of one point of each result, from the operands and the number of outputs."""

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend."""
        operands, weights, biases, _ = self.split(call, args)
        function = getattr(backend, self.name)
        results = function(*operands, list(weights), list(biases), list(call.omegas), **call.extras())
        return (results,) if isinstance(results, Tensor) else tuple(results)

    def results(self, call: Call, args: Tensors) -> list[Result]:
        """Shapes of the results, and what they are."""
        operands, weights, _, _ = self.split(call, args)
        cores = self.cores(*operands, weights[-1].shape[-2])
        return [Result((operands[0].shape[0], *core)) for core in cores]

    def vjp(
        self, call: Call, args: Tensors, saved: Tensors, bars: Tensors, needs: Needs, dispatch: Dispatch
    ) -> Tensors:
        """Run the backward pass, with zeros for cotangents that are not given."""
        any_seed = [any(needs.operands[1:])] if len(self.operands) > 1 else []
        wanted = (needs.operands[0], *any_seed, needs.parameters, needs.weights)
        if not any(wanted) or all(bar is None for bar in bars):
            return (None,) * len(args)
        shapes = [result.shape for result in self.results(call, args)]
        full = [args[0].new_zeros(shape) if bar is None else bar for bar, shape in zip(bars, shapes)]
        backward = PASSES[self.name.replace("_fwd", "_bwd")]
        grads = iter(dispatch(backward, call._replace(options=wanted), (*full, *args)))
        flags = [wanted[0], *[wanted[1]] * (len(self.operands) - 1)]
        return (*_given(flags, grads), *_given(_parameter_flags(call, needs), grads))


@dataclass(frozen=True)
class Backward(Pass):
    """Vector-Jacobian product of a forward pass: operands are its cotangents, then those of the forward pass.

    Results are x_bar, the cotangents of the seeds and of the parameters, each where asked for. Of the parameters these
    are the biases, and the weights too where need_weights says so. A backend spends nothing on weights that nobody asks
    for if its module says SPARES_WEIGHTS = True: its functions take need_weights.
    """

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend."""
        operands, weights, biases, _ = self.split(call, args)
        names = (option.removeprefix("bool ") for option in self.options)
        needs = dict(zip(names, call.options)) | call.extras()
        if getattr(backend, "SPARES_WEIGHTS", False) is not True:
            del needs["need_weights"]
        grads = getattr(backend, self.name)(*operands, list(weights), list(biases), list(call.omegas), **needs)
        return _flat(grads if call.options[-1] else grads._replace(weights=[]))

    def results(self, call: Call, args: Tensors) -> list[Result]:
        """Shapes of the results, and what they are."""
        x = next(i for i, operand in enumerate(self.operands) if operand.name == "x")
        need_x, *need_seeds, need_params, need_weights = call.options
        found = [x] if need_x else []
        found += range(x + 1, len(self.operands)) if any(need_seeds) else []
        return [
            *(Result(args[i].shape, i, args[i].ndim == self.operands[i].core) for i in found),
            *(_parameter_results(self, call, args)[0 if need_weights else call.layers :] if need_params else []),
        ]


@dataclass(frozen=True)
class ValueBwd(Backward):
    """Vector-Jacobian product of value_fwd."""

    def vjp(
        self, call: Call, args: Tensors, saved: Tensors, bars: Tensors, needs: Needs, dispatch: Dispatch
    ) -> Tensors:
        """Run value_bwdbwd, or for x alone take its result from the Hessian, which serves all calls on one graph."""
        need_x, need_params, need_weights = call.options
        x_bar_bar, bars = (bars[0], bars[1:]) if need_x else (None, bars)
        if need_params and not need_weights:
            bars = (*[None] * call.layers, *bars)
        cotangents = _dense(bars, call.layers, self.split(call, args))
        wanted = (*needs.operands, needs.parameters)
        if not any(wanted) or (x_bar_bar is None and not cotangents):
            return (None,) * len(args)
        y_bar, x, *params = args
        only_x = wanted == (False, True, False) and not cotangents
        if only_x and x_bar_bar is not None and x.shape[-1] <= HESSIAN_INPUTS:
            axes = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            operands = (x, axes, y_bar.unsqueeze(1))
            _, _, hessian = dispatch(SANDWICH_FWD, call._replace(options=()), (*operands, *params))
            return (None, (hessian.squeeze(1) * x_bar_bar.unsqueeze(1)).sum(-1), *[None] * len(params))
        call = call._replace(options=wanted)
        grads = iter(dispatch(PASSES["value_bwdbwd"], call, (x_bar_bar, *args, *cotangents)))
        return tuple(_given([*wanted[:2], *[wanted[2]] * (2 * call.layers)], grads))


@dataclass(frozen=True)
class ValueBwdBwd(Pass):
    """Vector-Jacobian product of value_bwd: cotangents of y_bar, x and the parameters, each where asked for.

    Cotangents of parameters are those of all weights and biases, or of the biases alone, or there are none.
    """

    has_cotangents = True

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend."""
        (x_bar_bar, y_bar, x), weights, biases, cotangents = self.split(call, args)
        params = list(weights), list(biases), list(call.omegas)
        need_y_bar, need_x, need_params = call.options
        if cotangents:
            W_bars, b_bars = list(cotangents[: -call.layers]) or None, list(cotangents[-call.layers :])
            y_bar_bar, grads = backend.value_bwdbwd(x_bar_bar, W_bars, b_bars, y_bar, x, *params)
            seeds = (y_bar_bar,)
        else:
            # x_bar is the Jacobian of the one combination y_bar of the outputs.
            grads = backend.adjoint_bwd(
                y_bar.new_zeros(y_bar.shape), x_bar_bar.unsqueeze(1), x, y_bar.unsqueeze(1), *params,
                need_x=need_x, need_seeds=need_y_bar, need_params=need_params,
            )  # fmt: skip
            seeds = tuple(seed.squeeze(1) for seed in grads.seeds)
        wanted = zip((need_y_bar, need_x, need_params, need_params), (seeds, (grads.x,), grads.weights, grads.biases))
        return tuple(tensor for flag, group in wanted if flag for tensor in group if tensor is not None)

    def results(self, call: Call, args: Tensors) -> list[Result]:
        """Shapes of the results, and what they are."""
        found = [i for i, flag in zip((1, 2), call.options) if flag]
        parameters = _parameter_results(self, call, args) if call.options[2] else []
        return [*(Result(args[i].shape, i) for i in found), *parameters]

    def vjp(
        self, call: Call, args: Tensors, saved: Tensors, bars: Tensors, needs: Needs, dispatch: Dispatch
    ) -> Tensors:
        """Run sandwich_bwd where only x carries a cotangent, as in the third order of nested gradients."""
        (x_bar_bar, y_bar, x), weights, biases, cotangents = self.split(call, args)
        need_y_bar, need_x, _ = call.options
        at_x = int(need_y_bar)
        if cotangents or not need_x or any(bar is not None for i, bar in enumerate(bars) if i != at_x):
            return plain_vjp(self, call, args, bars, needs)
        need_seeds = any(needs.operands[:2])
        options = (needs.operands[2], need_seeds, needs.parameters, needs.weights)
        if bars[at_x] is None or not any(options):
            return (None,) * len(args)
        # With v the cotangent of x's result Hess(y_bar . y) x_bar_bar, this derives v^T Hess(y_bar . y) x_bar_bar.
        directions = torch.stack((bars[at_x], x_bar_bar), 1)  # [N, 2, D]
        pair = (1 - torch.eye(2, dtype=x.dtype, device=x.device)) / 2
        operands = (
            y_bar.new_zeros(y_bar.shape),
            x.new_zeros(x.shape).unsqueeze(1),
            pair.expand(x.shape[0], 1, 2, 2),
            x,
            directions,
            y_bar.unsqueeze(1),
        )
        call = call._replace(options=options)
        grads = iter(dispatch(PASSES["sandwich_bwd"], call, (*operands, *weights, *biases)))
        x_grad, V_bar, E_bar = _given([options[0], need_seeds, need_seeds], grads)
        tangents = (V_bar[:, 1], E_bar[:, 0]) if V_bar is not None and E_bar is not None else (None, None)
        return (*tangents, x_grad, *_given(_parameter_flags(call, needs), grads))


@dataclass(frozen=True)
class SandwichBwd(Backward):
    """Vector-Jacobian product of sandwich_fwd."""

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend, which take H_bar symmetric."""
        y_bar, J_bar, H_bar, *rest = args
        return super().compute(backend, call, (y_bar, J_bar, (H_bar + H_bar.mT) / 2, *rest))


@dataclass(frozen=True)
class LossFwd(Pass):
    """A loss and, where asked for, its parameter gradients: results are the loss, W_bar and b_bar of every layer.

    Many networks have a loss each, [G], and gradients of their own, [G, ..], of shared parameters too: only the
    cotangents of the losses say with which factors these are added.
    """

    saves_results = True

    def compute(self, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
        """Compute the results with the functions of a backend."""
        operands, weights, biases, _ = self.split(call, args)
        params = list(weights), list(biases), list(call.omegas)
        kind, reduction, need_params = call.options
        loss, grads = backend.loss_fwd(kind, *operands, *params, need_params=need_params, reduction=reduction)
        return (loss, *grads.weights, *grads.biases)

    def results(self, call: Call, args: Tensors) -> list[Result]:
        """Shapes of the results, and what they are."""
        parts, count = self.split(call, args), self.networks(call, args)
        axis = () if count is None else (count,)
        shapes = [*(weight.shape[-2:] for weight in parts.weights), *(bias.shape[-1:] for bias in parts.biases)]
        return [Result((*axis, *shape), summed=True) for shape in [(), *(shapes if call.options[2] else [])]]

    def vjp(
        self, call: Call, args: Tensors, saved: Tensors, bars: Tensors, needs: Needs, dispatch: Dispatch
    ) -> Tensors:
        """Scale the saved gradients; whatever else is asked for is derived in plain torch."""
        loss_bar, *rest = bars
        fused = call.options[2] and not any(needs.operands) and all(bar is None for bar in rest)
        if not fused or loss_bar is None:
            return plain_vjp(self, call, args, bars, needs)
        parts = self.split(call, args)
        scaled = (loss_bar.view(*loss_bar.shape, *[1] * (grad.ndim - loss_bar.ndim)) * grad for grad in saved[1:])
        pairs = zip(scaled, (*parts.weights, *parts.biases), strict=True)
        # Shared parameters take what they have from every network.
        return (*[None] * len(self.operands), *(bar if bar.ndim == param.ndim else bar.sum(0) for bar, param in pairs))


def _flat(grads: Grads) -> tuple[Tensor, ...]:
    """The gradients that are there, in order."""
    return (*([] if grads.x is None else [grads.x]), *grads.seeds, *grads.weights, *grads.biases)


def _given(flags: Sequence[bool], tensors: Iterator[Tensor]) -> list[Tensor | None]:
    """The next tensor for every flag that is set, None for the others."""
    return [next(tensors) if flag else None for flag in flags]


def _parameter_flags(call: Call, needs: Needs) -> list[bool]:
    """For each weight, then each bias, whether a backward pass returns its cotangent."""
    return [*[needs.weights] * call.layers, *[needs.parameters] * call.layers]


def _dense(bars: Tensors, layers: int, parts: Arguments) -> Tensors:
    """Cotangents of all parameters, or of the biases, with zeros for missing ones; empty when all are missing."""
    if all(bar is None for bar in bars):
        return ()
    params = (*parts.weights, *parts.biases)
    full = tuple(param.new_zeros(param.shape) if bar is None else bar for bar, param in zip(bars, params))
    return full[layers:] if all(bar is None for bar in bars[:layers]) else full


def _parameter_results(which: Pass, call: Call, args: Tensors) -> list[Result]:
    parts = which.split(call, args)
    return [Result(param.shape, summed=True) for param in (*parts.weights, *parts.biases)]


# The Hessian costs 2 + D forwards, one product with it 4; who asks for one derivative of a gradient asks for more.
HESSIAN_INPUTS = 4

X = Operand("x", 1)
DIRECTIONS = Operand("directions", 2, seed=True)
FORMS = Operand("forms", 3, seed=True)
COMBINATIONS = Operand("combinations", 2, seed=True)
Y_BAR = Operand("y_bar", 1)
J_BAR = Operand("J_bar", 2)
NEEDS = ("bool need_x", "bool need_seeds", "bool need_params", "bool need_weights")
TWO, THREE = "(Tensor, Tensor)", "(Tensor, Tensor, Tensor)"

VALUE_FWD = Forward("value_fwd", (X,), returns="Tensor", has_tape=True, cores=lambda x, O: ((O,),))
VALUE_BWD = ValueBwd("value_bwd", (Y_BAR, X), ("bool need_x", "bool need_params", "bool need_weights"))
VALUE_BWDBWD = ValueBwdBwd(
    "value_bwdbwd", (Operand("x_bar_bar", 1, optional=True), Y_BAR, X),
    ("bool need_y_bar", "bool need_x", "bool need_params"),
)  # fmt: skip
JET_FWD = Forward(
    "jet_fwd", (X, DIRECTIONS, FORMS), returns=THREE, has_tape=True,
    cores=lambda x, V, M, O: ((O,), (V.shape[-2], O), (M.shape[-3], O)),
)  # fmt: skip
JET_BWD = Backward("jet_bwd", (Y_BAR, Operand("T_bar", 2), Operand("S_bar", 2), X, DIRECTIONS, FORMS), NEEDS)
ADJOINT_FWD = Forward(
    "adjoint_fwd", (X, COMBINATIONS), returns=TWO, cores=lambda x, E, O: ((O,), (E.shape[-2], x.shape[-1]))
)
ADJOINT_BWD = Backward("adjoint_bwd", (Y_BAR, J_BAR, X, COMBINATIONS), NEEDS)
SANDWICH_FWD = Forward(
    "sandwich_fwd", (X, DIRECTIONS, COMBINATIONS), returns=THREE,
    cores=lambda x, V, E, O: ((O,), (E.shape[-2], x.shape[-1]), (E.shape[-2], V.shape[-2], V.shape[-2])),
)  # fmt: skip
SANDWICH_BWD = SandwichBwd("sandwich_bwd", (Y_BAR, J_BAR, Operand("H_bar", 3), X, DIRECTIONS, COMBINATIONS), NEEDS)
LOSS_FWD = LossFwd(
    "loss_fwd", (X, Operand("target", -1, optional=True), Operand("weight", 0, optional=True)),
    ("str kind", "str reduction", "bool need_params"),
)  # fmt: skip

TABLE = (VALUE_FWD, VALUE_BWD, VALUE_BWDBWD, JET_FWD, JET_BWD, ADJOINT_FWD, ADJOINT_BWD, SANDWICH_FWD, SANDWICH_BWD)
PASSES: dict[str, Pass] = {which.name: which for which in (*TABLE, LOSS_FWD)}
