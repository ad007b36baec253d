"""What torch.func and forward mode need: a look at the transforms in force, and the batching rule of the passes.

The names of torch used here are private. They are tried once, when this module is imported, by what they do and not by
whether they exist; if one behaves otherwise, `KNOWN` is False and every call runs in plain torch: right, only slower.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference
from .passes import Call, Pass, Tensors


def dual_level_open() -> bool:
    """Whether a forward-mode level is open: opaque operators would drop its tangents without a word."""
    level: int = forward_ad._current_level
    return level >= 0


def transform_active() -> bool:
    """Whether a transform of torch.func is in force."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active


def forward_transform_active() -> bool:
    """Whether one of the transforms in force is forward mode (jvp, jacfwd, hessian)."""
    jvp = torch._C._functorch.TransformType.Jvp
    return any(level.key() == jvp for level in torch._C._functorch.get_interpreter_stack() or [])


def will_run(node: Any) -> bool:
    """Whether the backward pass in progress wants the gradient that this node of the graph takes.

    `ctx.needs_input_grad` only says which inputs require gradients; torch.autograd.grad(y, x) asks for fewer.
    """
    if node is None:
        return False
    try:
        wanted: bool = torch._C._will_engine_execute_node(node)
    except RuntimeError:
        # Raised for a leaf whose gradient is asked for by name, and where no backward pass of the engine is running.
        return True
    return wanted


def _probe() -> bool:
    """Whether the looks above see each kind of level, opened here as torch.func opens it.

    Not through torch.func itself, whose first use imports the compiler: seconds that an import must not cost.
    """
    seen = []
    try:
        seen.append((transform_active(), forward_transform_active(), dual_level_open()))
        levels = torch._C._functorch
        for enter, leave in (
            (levels._jvp_increment_nesting, levels._jvp_decrement_nesting),
            (levels._grad_increment_nesting, levels._grad_decrement_nesting),
            (lambda: levels._vmap_increment_nesting(1, "error"), levels._vmap_decrement_nesting),
        ):
            enter()
            try:
                seen.append((transform_active(), forward_transform_active(), dual_level_open()))
            finally:
                leave()
        with forward_ad.dual_level():
            seen.append((transform_active(), forward_transform_active(), dual_level_open()))
    except (AttributeError, TypeError, RuntimeError):
        return False
    yes, no = True, False
    return seen == [(no, no, no), (yes, yes, no), (yes, no, no), (yes, no, no), (no, no, yes)]


def _probe_will_run() -> bool:
    """Whether will_run tells apart what torch.autograd.grad asked for, for leaves and for other tensors."""
    seen = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Tensor:
            return tensors[0].sum()

        @staticmethod
        def backward(ctx: Any, *bars: Tensor) -> tuple[Tensor, ...]:
            seen.append([will_run(node) for node, _ in ctx.next_functions])
            return (bars[0],) * 4

    with torch.enable_grad():
        a, b = (torch.ones((), requires_grad=True) for _ in range(2))
        c, d = a + 1, b + 1
        try:
            for wanted in ((a,), (b,), (a, b), (c,)):
                torch.autograd.grad(Look.apply(a, b, c, d), wanted)
            Look.apply(a, b, c, d).backward()
        except (AttributeError, TypeError, RuntimeError):
            return False
    yes, no = True, False
    return seen == [[yes, no, yes, no], [no, yes, no, yes], [yes] * 4, [no, no, yes, no], [yes] * 4]


KNOWN = _probe()
KNOWN_WILL_RUN = _probe_will_run()


def run_batched(
    which: Pass, call: Call, size: int, dims: tuple[int | None, ...], args: Tensors, op: Callable[..., Any]
) -> tuple[Tensor, ...]:
    """Results of a pass, batched in front, for flat tensors batched along `dims`.

    Batched points are folded into N; a batch of networks is a loop, one fused pass each; sums over the points of each
    element apart, such as per-sample gradients, are plain torch under vmap. Sizes never decide which.
    """
    args = tuple(arg if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, dims))
    batched = tuple(dim is not None for dim in dims)
    count = len(which.operands)
    if any(batched[count : count + 2 * call.layers]):
        rows = [op(*(arg[i] if flag else arg for arg, flag in zip(args, batched))) for i in range(size)]
        return tuple(torch.stack(column) for column in zip(*rows))
    fields = which.results(call, tuple(arg[0] if flag else arg for arg, flag in zip(args, batched)))
    if any(batched[count:]) or any(field.summed and field.operand is None for field in fields):
        return _in_plain_torch(which, call, batched, args)
    return _folded(which, size, batched, args, fields, op)


def _in_plain_torch(which: Pass, call: Call, batched: tuple[bool, ...], args: Tensors) -> tuple[Tensor, ...]:
    picked = [i for i, flag in enumerate(batched) if flag]

    def one(*inputs: Tensor) -> tuple[Tensor, ...]:
        full = list(args)
        for i, tensor in zip(picked, inputs):
            full[i] = tensor
        return which.run(reference, call, tuple(full))

    return tuple(torch.func.vmap(one)(*(args[i] for i in picked)))


def _folded(
    which: Pass, size: int, batched: tuple[bool, ...], args: Tensors, fields: list[Any], op: Callable[..., Any]
) -> tuple[Tensor, ...]:
    at_x = next(i for i, operand in enumerate(which.operands) if operand.name == "x")
    points = args[at_x].shape[int(batched[at_x])]
    wanted = {field.operand for field in fields}
    folded = list(args)
    for i, operand in enumerate(which.operands):
        arg, flag = args[i], batched[i]
        if arg is None:
            continue
        shared = operand.seed and arg.ndim - flag == operand.core
        if shared and not flag and i not in wanted:
            continue
        arg = arg if flag else arg.unsqueeze(0)
        arg = arg.unsqueeze(1) if shared else arg
        folded[i] = arg.expand(size, points, *arg.shape[2:]).reshape(size * points, *arg.shape[2:])
    results = (result.reshape(size, points, *result.shape[1:]) for result in op(*folded))
    return tuple(result.sum(1) if field.summed else result for result, field in zip(results, fields))
