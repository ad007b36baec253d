"""Checks of `gpu`: values and all gradients of every pass against nested autograd in fp64, under the error rule.

Plain torch, which the rule measures with, is eager fp32 without TF32; for fp16 and bf16 it is the same with the
operands of hidden products narrowed, in the forward pass and in every backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .cases import OUTPUTS, Case, Given, cases, given
from .items import Outcome, dtype_of, judged, oracle, passes
from .pool import Settings

# Relative bound in fp64: some 1e4 roundings of 1e-16.
EXACT = 1e-11
DRAWS = 3


class Results(NamedTuple):
    """Outputs and gradients of a call."""

    outputs: list[Tensor]
    points: list[Tensor]
    """Gradients of points and of their own seeds."""
    shared: list[Tensor]
    """Gradients of parameters and of shared seeds."""

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.outputs, *self.points, *self.shared]


def items(settings: Settings) -> list[str]:
    """Return the names of the cases."""
    return [case.name for case in cases(settings.quick)]


def run(name: str, settings: Settings) -> Outcome:
    """Check one case."""
    case = next(case for case in cases(settings.quick) if case.name == name)
    if case.N == 0:
        return empty(case)
    return exact(case) if case.mode == "fp64" else within_rule(case)


def split(case: Case, outputs: list[Tensor], x: Tensor, seeds: Iterable[Tensor], parameters: list[Tensor]) -> Results:
    """Sort gradients into those of points and those of everybody."""
    seeds = list(seeds)
    return Results(outputs, [x, *seeds * case.per_point], [*layers(parameters), *seeds * (not case.per_point)])


def layers(parameters: list[Tensor]) -> list[Tensor]:
    """Join the gradients of a layer, given as all weights and then all biases, to one vector.

    A bias is the weight of an input that is 1. By itself it may be one number, in which plain torch is right by luck.
    """
    count = len(parameters) // 2
    return [torch.cat([w.flatten(), b]) for w, b in zip(parameters[:count], parameters[count:])]


def ours(case: Case, made: Given) -> Results:
    """Return what the kernels compute."""
    table, net = passes(case.mode), made.net
    if case.kind == "grid":
        return Results([decoded(case, made)], [], [])
    if case.kind.startswith("loss_"):
        kind = case.kind.removeprefix("loss_")
        target = None if kind == "eikonal" else made.bars[0]
        loss, grads = table.loss_fwd(kind, made.x, target, None, *net, need_params=True, reduction="mean")
        return Results([loss.reshape(1)], [], layers([*grads.weights, *grads.biases]))
    if case.kind.startswith("value_bwdbwd"):
        y_bar, x_bar_bar = made.bars
        y_bar_bar, grads = table.value_bwdbwd(x_bar_bar, *tangents(made), y_bar, made.x, *net)
        return Results([y_bar_bar], [grads.x], layers([*grads.weights, *grads.biases]))
    outputs = getattr(table, f"{case.kind}_fwd")(made.x, *made.seeds, *net)
    need = {"need_x": True, "need_params": True, **({} if case.kind == "value" else {"need_seeds": True})}
    grads = getattr(table, f"{case.kind}_bwd")(*made.bars, made.x, *made.seeds, *net, **need)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    return split(case, outputs, grads.x, grads.seeds, [*grads.weights, *grads.biases])


def tangents(made: Given) -> tuple[list[Tensor] | None, list[Tensor]]:
    """Return the tangents of weights and biases of value_bwdbwd, None for zeros."""
    count = len(made.net.biases)
    return made.seeds[:-count] or None, made.seeds[-count:]


def grid_of(case: Case) -> tuple[list[float], list[float], list[int], list[int]]:
    """Return origin, step, start and shape of a grid of about N points."""
    d = case.widths[0]
    side = max(1, round(case.N ** (1 / d)))
    return [-1.0] * d, [2.0 / side] * d, [0] * d, [side] * d


def grid_points(case: Case, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the points of the grid, rounded as the kernels round them."""
    origin, step, _, shape = grid_of(case)
    axes = [a + s * torch.arange(n, dtype=torch.float64) for a, s, n in zip(origin, step, shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2).to(device, dtype)


def decoded(case: Case, made: Given) -> Tensor:
    """Return the values on the grid."""
    origin, step, start, shape = grid_of(case)
    out = made.x.new_empty(math.prod(shape), case.widths[-1])
    passes(case.mode).grid_fwd(origin, step, start, shape, *made.net, out=out, gain=1.0, offset=0.0)
    return out


def by_autograd(case: Case, made: Given) -> Results:
    """Return what nested autograd computes, in the dtype of the arguments."""
    rule, net = oracle(), made.net.tracked()
    narrow = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(case.mode)
    hidden = net.weights[1:-1] if narrow is not None and made.x.dtype == torch.float32 else []
    with Narrowed(hidden, narrow or torch.float32):
        if case.kind == "grid":
            return Results([rule.value(net, grid_points(case, dtype_of(case.mode), made.x.device).to(made.x))], [], [])
        x, *seeds = rule.tracked(made.x, *made.seeds)
        if case.kind.startswith("loss_"):
            loss = plain_loss(case.kind.removeprefix("loss_"), net, x, made.bars[0])
            rest = rule.gradients([loss], [torch.ones_like(loss)], net.parameters())
            return Results([loss.detach().reshape(1)], [], layers([t.detach() for t in rest]))
        if case.kind.startswith("value_bwdbwd"):
            return second_derivatives(made, net, x)
        outputs = getattr(rule, case.kind)(net, x, *seeds)
        outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
        grads = rule.gradients(outputs, made.bars, [x, *seeds, *net.parameters()])
    found = [t.detach() for t in grads]
    return split(case, [t.detach() for t in outputs], found[0], found[1 : 1 + len(seeds)], found[1 + len(seeds) :])


def second_derivatives(made: Given, net: Any, x: Tensor) -> Results:
    """Return what value_bwdbwd gives, by nested autograd."""
    rule = oracle()
    (y_bar,) = rule.tracked(made.bars[0])
    # Of the parameters, weights come first, and biases may be all that have tangents.
    slopes = rule.gradients([rule.value(net, x)], [y_bar], [x, *net.parameters()[-len(made.seeds) :]])
    found = rule.gradients(slopes, [made.bars[1], *made.seeds], [y_bar, x, *net.parameters()])
    y_bar_bar, x_grad, *rest = [t.detach() for t in found]
    return Results([y_bar_bar], [x_grad], layers(rest))


def plain_loss(kind: str, net: Any, x: Tensor, target: Tensor) -> Tensor:
    """Return a mean loss in plain torch."""
    rule = oracle()
    if kind == "value":
        return (rule.value(net, x) - target).square().mean()
    if kind == "laplacian":
        return (rule.hessian(net, x).diagonal(dim1=-2, dim2=-1).sum(-1) - target).square().mean()
    J = rule.jacobian(net, x)
    if kind == "gradient":
        return (J - target).square().sum(-1).mean()
    return (J.norm(dim=-1) - 1).square().mean()


class Product(torch.autograd.Function):
    """a @ b with narrowed operands, and the same in every backward."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(a, b)
        ctx.dtype = dtype
        return narrowed(a, dtype) @ narrowed(b, dtype)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor, Tensor, None]:
        """Multiply cotangents."""
        a, b = ctx.saved_tensors
        return Product.apply(bars[0], b.mT, ctx.dtype), Product.apply(a.mT, bars[0], ctx.dtype), None


def narrowed(t: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to a narrow dtype, scaled by a power of two into its range."""
    scale = torch.exp2(6 - t.detach().abs().amax().clamp_min(1e-30).log2().floor())
    return (t * scale).to(dtype).to(t.dtype) / scale


class Narrowed(TorchFunctionMode):
    """Inside, products with some weights have narrowed operands."""

    def __init__(self, hidden: list[Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.hidden = hidden
        self.dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace a linear layer; let everything else pass."""
        if func is torch.nn.functional.linear and any(args[1] is weight for weight in self.hidden):
            return Product.apply(args[0], args[1].mT, self.dtype) + args[2]
        return func(*args, **(kwargs or {}))


Pick = Callable[[Results], list[Tensor]]


def groups(case: Case) -> Mapping[str, Pick]:
    """Return which tensors are judged together; a loss, one number, goes with its gradients."""
    names = OUTPUTS[case.kind]
    outputs = {name: partial(output, names.index(name)) for name in names}
    if case.kind == "grid":
        return outputs
    if case.kind.startswith("loss_"):
        return {"weight_grad": lambda r: [*r.outputs, *r.shared]}
    # Without directions or forms there is nothing of theirs to judge.
    present = {"first": case.kind != "jet" or case.K > 0, "second": case.kind != "jet" or case.R > 0}
    kept = {group: pick for group, pick in outputs.items() if present.get(group, True)}
    return {**kept, "x_bar": lambda r: r.points, "weight_grad": lambda r: r.shared}


def output(i: int, results: Results) -> list[Tensor]:
    """Return one output."""
    return [results.outputs[i]]


def quantity_of(case: Case, group: str) -> str:
    """Return the name under which the error rule knows a group, "other" where it has no cap."""
    if group == "weight_grad":
        names = {"value": "weight_grad", "loss_value": "weight_grad", "loss_eikonal": "eikonal_weight_grad"}
        return names.get(case.kind, "other")
    return group if group in ("value", "first", "second") else "other"


class Judged(NamedTuple):
    """One group of one draw: the worst ratio and the rule it belongs to, or what is broken."""

    ratio: float
    rule: str
    broken: str


def within_rule(case: Case) -> Outcome:
    """Judge a case by the error rule in most of several draws; few points are pooled over networks."""
    pooled, found = min(8, math.ceil(64 / case.N)), dict[str, list[Judged]]()
    for draw in range(DRAWS):
        triples = [compared(case, draw * pooled + i) for i in range(pooled)]
        for group, pick in groups(case).items():
            found.setdefault(group, []).append(judge(case, group, pick, triples))
        if all(decided(draws) for draws in found.values()):
            break
    broken = [f"{group}: {draws[-1].broken}" for group, draws in found.items() if not holds(draws)]
    if broken:
        return judged(False, "; ".join(broken))
    worst, name = max((one.ratio, f"{one.rule} of {group}") for group, draws in found.items() for one in draws)
    return judged(True, f"worst ratio {worst:.2f} ({name})", ratio=worst, worst=name)


def decided(draws: list[Judged]) -> bool:
    """Tell whether most of all draws agree already."""
    broken = sum(bool(one.broken) for one in draws)
    return max(broken, len(draws) - broken) > DRAWS // 2


def holds(draws: list[Judged]) -> bool:
    """Tell whether most draws keep the rule."""
    return 2 * sum(bool(one.broken) for one in draws) < len(draws)


def compared(case: Case, draw: int) -> tuple[Results, Results, Results]:
    """Return ours, plain torch and the exact result of one draw."""
    made = given(case, draw)
    return ours(case, made), by_autograd(case, made), by_autograd(case, made.to(torch.float64))


def judge(case: Case, group: str, pick: Pick, triples: list[tuple[Results, Results, Results]]) -> Judged:
    """Judge a group of a draw."""
    sides = ([t for results in side for t in pick(results)] for side in zip(*triples))
    options = {"quantity": quantity_of(case, group), "precision": case.mode, "capped": case.usual}
    try:
        ratios = oracle().assert_error_rule(*sides, **options).ratios()
    except AssertionError as error:
        return Judged(0.0, "", " ".join(str(error).split()))
    rule = max(ratios, key=lambda key: ratios[key])
    return Judged(ratios[rule], rule, "")


def exact(case: Case) -> Outcome:
    """Judge a case in fp64."""
    made = given(case)
    pairs = zip(ours(case, made).tensors(), by_autograd(case, made).tensors(), strict=True)
    worst = max(oracle().relative_error(a, b) for a, b in pairs)
    return judged(worst <= EXACT, f"worst ratio {worst / EXACT:.2f} (relative error {worst:.1e})", ratio=worst / EXACT)


def empty(case: Case) -> Outcome:
    """Judge a call without points: shapes, and gradients of parameters that are zero."""
    made = given(case)
    found, expected = ours(case, made), by_autograd(case, made)
    shapes = [[tuple(t.shape) for t in side.tensors()] for side in (found, expected)]
    zero = all(not t.any() for t in found.shared)
    return judged(shapes[0] == shapes[1] and zero, f"shapes {shapes[0]}, gradients of parameters zero: {zero}")
