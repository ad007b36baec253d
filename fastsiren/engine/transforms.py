"""What torch.func and forward mode need: a look at the transforms in force, and the batching rule of the passes.

The names of torch used here are private. They are tried once, when this module is imported, by what they do and not by
whether they exist; if one behaves otherwise, `KNOWN` is False and every call runs in plain torch: right, only slower.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference
from .pass_kind import Call, Operand, Pass, Result, Tensors

Start = Callable[[Tensors], tuple[Tensor, ...]]


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


def gradients_batched() -> bool:
    """Whether the backward of a batch of cotangents runs, torch.autograd.grad(.., is_grads_batched=True).

    It has a vmap of its own, older than that of torch.func, which knows nothing of lists of tensors.
    """
    active: bool = torch._C._dispatch_tls_is_dispatch_key_included(_dispatch_key("VmapMode"))
    return active


def run_gradients_batched(which: Pass, call: Call, args: Tensors, start: Start) -> tuple[Tensor, ...]:
    """Results of a pass inside such a backward; the batch dimension is taken off, and put back on the results."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    key = _dispatch_key("Batched")
    dims = [0 if arg is not None and torch._C._dispatch_keys(arg).has(key) else None for arg in args]
    bare = [arg if dim is None else torch._remove_batch_dim(arg, level, 1, 0) for arg, dim in zip(args, dims)]
    size = next((arg.shape[0] for arg, dim in zip(bare, dims) if dim == 0), None)
    # One level less, as inside the batching rule of any vmap: `start` comes back here while there are more.
    torch._C._vmapmode_decrement_nesting()
    try:
        if size is None:
            results = start(args)
        else:
            results = run_batched(which, call, size, dims, tuple(bare), start)
    finally:
        torch._C._vmapmode_increment_nesting()
    return results if size is None else tuple(torch._add_batch_dim(result, 0, level) for result in results)


@cache
def _dispatch_key(name: str) -> Any:
    return torch._C._dispatch_key_parse(name)


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


def tape_comes_back() -> bool:
    """Whether a tape that is saved for a backward pass reaches it.

    Nothing made in inference mode can be saved. Where hooks on saved tensors are in force, as under
    torch.utils.checkpoint, what is saved must be the same whichever way a call is dispatched, and operators leave none.
    """
    hooked = not KNOWN_HOOKS or torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    return not hooked and not torch.is_inference_mode_enabled()


def _probe_hooks() -> bool:
    """Whether hooks on saved tensors are seen."""
    try:
        hooks = torch._C._autograd._top_saved_tensors_default_hooks
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            inside = hooks(True)
        return inside is not None and hooks(True) is None
    except (AttributeError, TypeError, RuntimeError):
        return False


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
        batched = [gradients_batched()]
        torch._C._vmapmode_increment_nesting()
        batched.append(gradients_batched())
        torch._C._vmapmode_decrement_nesting()
    except (AttributeError, TypeError, RuntimeError):
        return False
    yes, no = True, False
    if batched != [no, yes]:
        return False
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
KNOWN_HOOKS = _probe_hooks()


def run_batched(
    which: Pass,
    call: Call,
    size: int,
    dims: Sequence[int | None],
    args: Tensors,
    start: Start,
    *,
    in_operator: bool = False,
) -> tuple[Tensor, ...]:
    """Results of a pass, batched in front, for flat tensors batched along `dims`.

    Batched points are folded into N, and a batch of networks is many networks. What sums over the points of each
    element apart, such as per-sample gradients, is plain torch under vmap; in the rule of an operator, which cannot
    start a vmap, it is a loop, and so are cotangents of cotangents of parameters. Sizes never decide which.
    """
    args = tuple(arg if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, dims))
    batched = [dim is not None for dim in dims]
    count = len(which.operands)
    element = tuple(arg[0] if flag else arg for arg, flag in zip(args, batched))
    fields = which.results(call, element)
    foldable = not any(batched[count:]) and not any(field.summed and field.operand is None for field in fields)
    if foldable:
        return _folded(which, size, batched, args, fields, start, which.networks(call, element) or 1)
    if any(batched[count : count + 2 * call.layers]) and len(args) == count + 2 * call.layers:
        inner = which.networks(call, element)
        return _as_networks(which, call, size, batched, args, fields, start, 1 if inner is None else inner)
    if any(batched[count:]) or in_operator:
        rows = [start(tuple(arg[i] if flag else arg for arg, flag in zip(args, batched))) for i in range(size)]
        return tuple(torch.stack(column) for column in zip(*rows))
    return _in_plain_torch(which, call, batched, args)


def _in_plain_torch(which: Pass, call: Call, batched: list[bool], args: Tensors) -> tuple[Tensor, ...]:
    picked = [i for i, flag in enumerate(batched) if flag]

    def one(*inputs: Tensor) -> tuple[Tensor, ...]:
        full = list(args)
        for i, tensor in zip(picked, inputs):
            full[i] = tensor
        return which.run(reference, call, tuple(full))

    return tuple(torch.func.vmap(one)(*(args[i] for i in picked)))


def _as_networks(
    which: Pass,
    call: Call,
    size: int,
    batched: list[bool],
    args: Tensors,
    fields: list[Result],
    start: Start,
    count: int,
) -> tuple[Tensor, ...]:
    # Those of an element that is `count` networks already follow one another, and so do the elements.
    k = len(which.operands)
    wanted = {field.operand for field in fields}
    given = [arg if flag or arg is None else arg.expand(size, *arg.shape) for arg, flag in zip(args, batched)]
    x = next(arg for arg, operand in zip(given, which.operands) if operand.name == "x")
    points = prod(x.shape[1:-1]) * (count if x.ndim == 4 else 1)
    full = [
        args[i]
        if given[i] is None or (_shared_by_points(operand, given[i]) and not batched[i] and i not in wanted)
        else _rows_of_elements(operand, given[i], points)
        for i, operand in enumerate(which.operands)
    ]
    for arg, core in zip(given[k:], (*[2] * call.layers, *[1] * call.layers), strict=True):
        every = arg if arg.ndim > core + 1 else arg.unsqueeze(1)
        shape = every.shape[2:]
        full.append(every.expand(size, count, *shape).reshape(size * count, *shape))
    results = start(tuple(full))
    return tuple(_of_elements(found, field, size, count) for found, field in zip(results, fields, strict=True))


def _shared_by_points(operand: Operand, arg: Tensor) -> bool:
    return operand.seed and arg.ndim - 1 == operand.core


def _rows_of_elements(operand: Operand, arg: Tensor, points: int) -> Tensor:
    """One row per point of every element, [size * points, ..]."""
    size = arg.shape[0]
    if _shared_by_points(operand, arg):
        arg = arg.unsqueeze(1).expand(size, points, *arg.shape[1:])
    elif arg.ndim - 1 == operand.core + 2:
        # Points that the networks of an element share.
        arg = arg.expand(size, points // max(arg.shape[2], 1), *arg.shape[2:]).flatten(1, 2)
    return arg.reshape(size * points, *arg.shape[2:])


def _of_elements(found: Tensor, field: Result, size: int, count: int) -> Tensor:
    """What each element gives, [size, ..]: rows, or sums over its points or networks where they are shared."""
    if field.operand is None and field.summed:
        each = found.reshape(size, count, *found.shape[1:])
    else:
        each = found.reshape(size, found.shape[0] // size, *found.shape[1:])
    return each if each.ndim == len(field.shape) + 1 else each.sum(1)


def _folded(
    which: Pass, size: int, batched: list[bool], args: Tensors, fields: list[Result], start: Start, networks: int
) -> tuple[Tensor, ...]:
    # The rows of one network follow one another: [networks, size, points of each].
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
        core = arg.shape[2:]
        rows = arg.expand(size, points, *core).reshape(size, networks, points // networks, *core)
        folded[i] = rows.transpose(0, 1).reshape(size * points, *core)
    results = (_unfolded(result, size, points, networks) for result in start(tuple(folded)))
    return tuple(result.sum(1) if field.summed else result for result, field in zip(results, fields))


def _unfolded(rows: Tensor, size: int, points: int, networks: int) -> Tensor:
    """[size, points, ...] from rows [networks, size, points of each]."""
    core = rows.shape[1:]
    return rows.reshape(networks, size, points // networks, *core).transpose(0, 1).reshape(size, points, *core)
