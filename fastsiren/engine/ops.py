"""The operators fastsiren::*, one per pass over a whole network, and the one point where a call is dispatched.

    forward mode open                         plain torch     opaque operators would give zero tangents
    exporting                                 plain torch     programs run where fastsiren is not
    compiling, under a torch.func transform   plain torch     operators fail or vanish in there
    compiling, tracing, profiling, subclasses operator        fastsiren::value_fwd, value_bwd, ...
    torch.jit.trace                           plain torch     a trace would hold results as constants
    torch.func with a forward transform       plain torch     jvp, jacfwd, hessian
    torch.func (grad, vjp, jacrev, vmap)      Transformed     an autograd.Function with a batching rule
    a backward of batched cotangents          unbatched first the same batching rule
    anything else                             Eager           an autograd.Function around the backend's function

The last row is what an operator does in eager mode, at a fifth of the time per call: the dispatcher of torch.library
spends 40 us on a call with lists of parameters. All rows share the formulas of passes.py, so their results agree.
Autocast does not reach inside: a pass computes in the dtype of the parameters.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends, passes, reference, transforms
from .pass_kind import Call, Dispatch, Needs, Pass, Tape, Tensors
from .passes import PASSES

_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def value_fwd(
    x: Tensor,  # [N, D]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    backend: str,
) -> Tensor:  # [N, O]
    """Value of the network."""
    return _start(passes.VALUE_FWD, (x,), weights, biases, omegas, backend)[0]


def jet_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,  # [K, D] or [N, K, D]
    forms: Tensor,  # [R, K, K] or [N, R, K, K]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, O], [N, K, O], [N, R, O]
    """Value, first derivatives along the directions and quadratic forms of second derivatives along them."""
    y, T, S = _start(passes.JET_FWD, (x, directions, forms), weights, biases, omegas, backend)
    return y, T, S


def adjoint_fwd(
    x: Tensor,  # [N, D]
    combinations: Tensor,  # [C, O] or [N, C, O]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    backend: str,
) -> tuple[Tensor, Tensor]:  # [N, O], [N, C, D]
    """Value and gradients of the combinations of outputs."""
    y, J = _start(passes.ADJOINT_FWD, (x, combinations), weights, biases, omegas, backend)
    return y, J


def sandwich_fwd(
    x: Tensor,  # [N, D]
    directions: Tensor,  # [K, D] or [N, K, D]
    combinations: Tensor,  # [C, O] or [N, C, O]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:  # [N, O], [N, C, D], [N, C, K, K]
    """Value, gradients of the combinations of outputs, and their second derivatives along the directions."""
    y, J, H = _start(passes.SANDWICH_FWD, (x, directions, combinations), weights, biases, omegas, backend)
    return y, J, H


def loss_fwd(
    kind: str,
    x: Tensor,  # [N, D]
    target: Tensor | None,
    weight: Tensor | None,  # [N]
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    reduction: str,
    backend: str,
) -> Tensor:  # [], or [G]
    """A loss whose parameter gradients come out of the same pass, where gradients are recorded."""
    need_params = torch.is_grad_enabled() and any(param.requires_grad for param in (*weights, *biases))
    options = (kind, reduction, need_params)
    return _start(passes.LOSS_FWD, (x, target, weight), weights, biases, omegas, backend, options)[0]


def grid_fwd(
    origin: Sequence[float],
    step: Sequence[float],
    start: Sequence[int],
    shape: Sequence[int],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    *,
    out: Tensor,  # [prod(shape), O]
    gain: float,
    offset: float,
    backend: str,
) -> None:
    """Write gain * y + offset of a dense grid into `out`, the first axis slowest; has no derivative.

    Raises:
        RuntimeError: gradients are recorded and a parameter or `out` requires one.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*weights, *biases, out)):
        raise RuntimeError("grid_fwd: has no derivative; call it under torch.no_grad(), or evaluate points instead")
    grid = (list(origin), list(step), list(start), list(shape))
    params = (list(weights), list(biases), list(omegas))
    backends.module(backend).grid_fwd(*grid, *params, out=out, gain=gain, offset=offset)


class Table(NamedTuple):
    """The differentiable passes with the signatures of a backend's functions; the compiler knows named tuples."""

    value_fwd: Callable[..., Tensor]
    jet_fwd: Callable[..., tuple[Tensor, Tensor, Tensor]]
    adjoint_fwd: Callable[..., tuple[Tensor, Tensor]]
    sandwich_fwd: Callable[..., tuple[Tensor, Tensor, Tensor]]


def table(backend: str) -> Table:
    """The differentiable passes of a backend."""
    return Table(
        partial(value_fwd, backend=backend),
        partial(jet_fwd, backend=backend),
        partial(adjoint_fwd, backend=backend),
        partial(sandwich_fwd, backend=backend),
    )


def fusible() -> bool:
    """Whether a call would reach an operator or a backend as a whole, rather than plain torch under a transform."""
    return transforms.KNOWN and not transforms.dual_level_open() and not transforms.transform_active()


def autocast_enabled(device: str) -> bool:
    """Whether autocast is on; asking torch raises for devices that cannot have it, such as meta."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _start(
    which: Pass,
    operands: Tensors,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    omegas: Sequence[float],
    backend: str,
    options: tuple[Any, ...] = (),
) -> tuple[Tensor, ...]:
    call = Call(len(weights), tuple(omegas), backend, options)
    return _dispatch(which, call, (*operands, *weights, *biases))


def _dispatch(which: Pass, call: Call, args: Tensors) -> tuple[Tensor, ...]:
    if call.tape is not None and not _undisturbed(args):
        call = call._replace(tape=None)
    # Forward mode comes first: compiled code is then guarded on it, and compiles again when a level opens.
    if not transforms.KNOWN or transforms.dual_level_open():
        return _run(which, reference, call, args)
    if torch.compiler.is_exporting():
        return _run(which, reference, call, args)
    if torch.compiler.is_compiling():
        return _run(which, reference, call, args) if transforms.transform_active() else _operator(which, call, args)
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        # A trace records torch's own operators only: anything else would stand in it as a constant.
        return _run(which, reference, call, args)
    if transforms.transform_active():
        if transforms.forward_transform_active():
            return _run(which, reference, call, args)
        results: tuple[Tensor, ...] = _Transformed.apply(which, call, *args)
        return results
    if transforms.gradients_batched():
        return transforms.run_gradients_batched(which, call, args, partial(_dispatch, which, call))
    if _observed(args):
        return _operator(which, call, args)
    if torch.is_grad_enabled() and any(arg is not None and arg.requires_grad for arg in args):
        results = _Eager.apply(which, call, *args)
        return results
    return _run(which, backends.module(call.backend), call, args)


def _run(which: Pass, backend: Any, call: Call, args: Tensors) -> tuple[Tensor, ...]:
    device = args[-1].device.type
    if not autocast_enabled(device):
        return which.run(backend, call, args)
    with torch.autocast(device, enabled=False):
        return which.run(backend, call, args)


def _undisturbed(args: Tensors) -> bool:
    """Whether a call reaches the functions of its backend with the very points it is given."""
    elsewhere = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return fusible() and not elsewhere and not transforms.gradients_batched() and not _observed(args)


def _observed(args: Tensors) -> bool:
    """Whether somebody wants to see operators: a dispatch mode, the profiler, or a subclass of Tensor."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._autograd._profiler_enabled()
        or not all(type(arg) in _PLAIN_TYPES for arg in args if arg is not None)
    )


def _operator(which: Pass, call: Call, args: Tensors) -> tuple[Tensor, ...]:
    operands, weights, biases, cotangents = which.split(call, args)
    lists = (list(weights), list(biases), *([list(cotangents)] if which.has_cotangents else []))
    op = getattr(torch.ops.fastsiren, which.name).default
    results = op(*operands, *lists, list(call.omegas), call.backend, *call.options)
    return (results,) if isinstance(results, Tensor) else tuple(results)


# Backward


def _backward(which: Pass, ctx: Any, flags: Sequence[bool], bars: Tensors, dispatch: Dispatch = _dispatch) -> Tensors:
    """Cotangents of the flat tensors, of those only that this backward pass asks for."""
    # Unpacked once: a checkpoint computes again at every access.
    kept = ctx.saved_tensors
    args, saved = kept[: ctx.arguments], kept[ctx.arguments :]
    call = ctx.call._replace(tape=Tape(saved[0])) if which.has_tape and saved and saved[0] is not None else ctx.call
    return which.vjp(call, args, saved, bars, _needs(which, ctx, args, flags), dispatch)


def _once(ctx: Any, which: Pass, call: Call, args: Tensors) -> tuple[Tensor, ...]:
    """Results of a pass, those of the last time where a node of the graph starts its Hessian again.

    A Laplacian by nested torch.autograd.grad walks the graph of one gradient once per coordinate.
    """
    plain = not (transforms.transform_active() or transforms.dual_level_open() or transforms.gradients_batched())
    if which is not passes.SANDWICH_FWD or not plain:
        return _dispatch(which, call, args)
    grad, results = getattr(ctx, "hessian", (None, ()))
    if grad is not torch.is_grad_enabled() or _freed(results):
        results = _dispatch(which, call, args)
        ctx.hessian = torch.is_grad_enabled(), results
    return results


def _freed(results: tuple[Tensor, ...]) -> bool:
    """Whether a backward pass has been through the graph of some results, and let go of it."""
    node: Any = results[0].grad_fn
    try:
        # Raises RuntimeError then; does not unpack, which a checkpoint allows once only.
        return node is not None and node._raw_saved_tensors is None
    except (AttributeError, RuntimeError):
        return True


def _needs(which: Pass, ctx: Any, args: Tensors, flags: Sequence[bool]) -> Needs:
    nodes = [node for node, _ in getattr(ctx, "next_functions", ())]
    asked: list[Any] = list(flags)
    if transforms.KNOWN_WILL_RUN and len(nodes) == sum(arg is not None for arg in args):
        edges = iter(nodes)
        each = [None if arg is None else next(edges) for arg in args]
        asked = [node if flag else None for flag, node in zip(flags, each)]

    def wanted(edge: Any) -> bool:
        return edge if isinstance(edge, bool) else transforms.will_run(edge)

    # One answer per group, and no further questions once it is known: a yes for a leaf takes 10 us.
    k, n = len(which.operands), ctx.call.layers
    groups = asked[k : k + n], asked[k + n : k + 2 * n], asked[k + 2 * n :]
    return Needs(tuple(wanted(edge) for edge in asked[:k]), *(any(map(wanted, group)) for group in groups))


def _save(which: Pass, ctx: Any, call: Call, args: Tensors, results: Tensors) -> None:
    """Keep inputs, and results where the pass says so; and its tape, of which nothing is derived."""
    ctx.which, ctx.call, ctx.arguments = which, call._replace(tape=None), len(args)
    tape = () if call.tape is None or not which.has_tape else (call.tape.numbers,)
    ctx.save_for_backward(*args, *(results if which.saves_results else ()), *tape)
    ctx.set_materialize_grads(False)


class _Eager(torch.autograd.Function):
    """A pass as a node of the graph in eager mode."""

    @staticmethod
    def forward(ctx: Any, which: Pass, call: Call, *args: Any) -> Any:
        backend = backends.module(call.backend)
        if which.has_tape and getattr(backend, "KEEPS_TAPES", False) is True and transforms.tape_comes_back():
            call = call._replace(tape=Tape())
        results = _run(which, backend, call, args)
        _save(which, ctx, call, args, results)
        return results

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        return (None, None, *_backward(ctx.which, ctx, ctx.needs_input_grad[2:], bars, partial(_once, ctx)))


class _Transformed(torch.autograd.Function):
    """A pass under torch.func: grad, vjp, jacrev and vmap, in any nesting."""

    @staticmethod
    def forward(which: Pass, call: Call, *args: Any) -> Any:
        return _run(which, backends.module(call.backend), call, args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        which, call, *args = inputs
        _save(which, ctx, call, tuple(args), output)

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        return (None, None, *_backward(ctx.which, ctx, ctx.needs_input_grad[2:], bars))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], which: Pass, call: Call, *args: Any) -> Any:
        start = partial(_dispatch, which, call)
        results = transforms.run_batched(which, call, info.batch_size, in_dims[2:], args, start)
        return results, (0,) * len(results)


# Operators


def _register(library: torch.library.Library, which: Pass) -> None:
    """Define the operator of a pass: schema, kernel, fake, batching rule and derivative."""
    count, lists = len(which.operands), 3 if which.has_cotangents else 2
    tensors = [f"Tensor{'?' if operand.optional else ''} {operand.name}" for operand in which.operands]
    tensors += ["Tensor[] weights", "Tensor[] biases", "Tensor[] cotangents"][: 2 + which.has_cotangents]
    schema = ", ".join([*tensors, "float[] omegas", "str backend", *which.options])
    name = f"fastsiren::{which.name}"

    def unpack(args: tuple[Any, ...]) -> tuple[Call, Tensors]:
        *groups, omegas, backend = args[count : count + lists + 2]
        call = Call(len(groups[0]), tuple(omegas), backend, tuple(args[count + lists + 2 :]))
        return call, (*args[:count], *(tensor for group in groups for tensor in group))

    def pack(results: Sequence[Any]) -> Any:
        if which.returns == "Tensor":
            return results[0]
        return list(results) if which.returns == "Tensor[]" else tuple(results)

    def kernel(*args: Any) -> Any:
        call, flat = unpack(args)
        return pack(_run(which, backends.module(call.backend), call, flat))

    def fake(*args: Any) -> Any:
        call, flat = unpack(args)
        return pack([flat[-1].new_empty(result.shape) for result in which.results(call, flat)])

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        call, flat = unpack(inputs)
        _save(which, ctx, call, flat, (output,) if isinstance(output, Tensor) else tuple(output))

    def backward(ctx: Any, *bars: Any) -> Any:
        bars = tuple(bars[0] or ()) if which.returns == "Tensor[]" else bars
        flags = [flag for entry in ctx.needs_input_grad for flag in (entry if isinstance(entry, list) else [entry])]
        found = list(_backward(which, ctx, flags, bars))
        sizes = [ctx.call.layers, ctx.call.layers, len(found) - count - 2 * ctx.call.layers][:lists]
        groups = [[found.pop(count) for _ in range(size)] for size in sizes]
        return (*found, *groups, *[None] * (2 + len(which.options)))

    def batch(info: Any, in_dims: Any, *args: Any) -> Any:
        call, flat = unpack(args)
        spread = [dim if isinstance(dim, list) else [dim] * len(args[count + i]) for i, dim in
                  enumerate(in_dims[count : count + lists])]  # fmt: skip
        dims = (*in_dims[:count], *(dim for group in spread for dim in group))
        start = partial(_operator, which, call)
        results = transforms.run_batched(which, call, info.batch_size, dims, flat, start, in_operator=True)
        return pack(results), pack([0] * len(results))

    library.define(f"{which.name}({schema}) -> {which.returns}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(which.name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake, lib=library)
    torch.library.register_autograd(name, backward, setup_context=setup, lib=library)
    torch.library.register_vmap(name, batch, lib=library)


# Held for as long as the process runs: the operators go with their library.
_LIBRARY = torch.library.Library("fastsiren", "DEF")
for _pass in PASSES.values():
    _register(_LIBRARY, _pass)
