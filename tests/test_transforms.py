"""torch.func, forward mode, batched gradients and checkpoints: every use against plain torch."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import op_cases
import oracle
from fastsiren import functional
from fastsiren.engine import ops, transforms
from oracle import Net

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")

NET = op_cases.network()
POINTS = oracle.points(NET, 5)
MIX = oracle.normal(2, seed=5)


def test_the_private_names_of_torch_are_known():
    assert transforms.KNOWN, "names of torch have changed: every call runs in plain torch; mend transforms.py"
    assert transforms.KNOWN_WILL_RUN, "names of torch have changed: unneeded gradients are computed; mend transforms.py"
    assert transforms.KNOWN_HOOKS, "names of torch have changed: no tape is left; mend transforms.py"


# Each use takes (f, g), a network and one that gives also the Laplacian, as functions of (net, x).


def ours(net: Net, x: Tensor) -> Tensor:
    return functional.siren(x, net.weights, net.biases, omegas=net.omegas)


def our_laplacian(net: Net, x: Tensor) -> Tensor:
    axes = torch.eye(x.shape[-1], dtype=x.dtype)
    return functional.jet(x, net.weights, net.biases, axes, axes[None], omegas=net.omegas).second.squeeze(-2)


def plain_laplacian(net: Net, x: Tensor) -> Tensor:
    """By torch.func alone, so that transforms go through it."""
    one = hessian(lambda p: oracle.value(net, p[None])[0])
    flat = x.reshape(-1, x.shape[-1])
    return torch.stack([one(p).diagonal(dim1=-2, dim2=-1).sum(-1) for p in flat]).reshape(*x.shape[:-1], -1)


def scalar(f, net=NET):
    return lambda p: (f(net, p[None])[0] * MIX).sum()


def with_weight(l, W):
    weights = list(NET.weights)
    weights[l] = W
    return NET._replace(weights=weights)


def batched(f):
    x, *params = oracle.tracked(POINTS, *NET.parameters())
    y = f(Net(params[:3], params[3:], NET.omegas), x)
    eye = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
    leaves = [x, *params[:-1]]
    rows = torch.autograd.grad(y, leaves, eye, is_grads_batched=True, create_graph=True)
    again = torch.autograd.grad(sum(row.sin().sum() for row in rows), leaves, materialize_grads=True)
    return [*rows, *again]


def batched_twice(f):
    x, *params = oracle.tracked(POINTS, *NET.parameters())
    y = f(Net(params[:3], params[3:], NET.omegas), x)
    slope = torch.autograd.grad(y.sum(), x, create_graph=True)[0]
    eye = torch.eye(slope.numel(), dtype=y.dtype).reshape(-1, *slope.shape)
    return torch.autograd.grad(slope, [x, *params[:-1]], eye, is_grads_batched=True)


def dual(f):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(NET, forward_ad.make_dual(POINTS, POINTS.cos()))).tangent


def dual_weights(f):
    with forward_ad.dual_level():
        W = forward_ad.make_dual(NET.weights[1], NET.weights[1].cos())
        return forward_ad.unpack_dual(f(with_weight(1, W), POINTS)).tangent


def checkpointed(f):
    x, *params = oracle.tracked(POINTS, *NET.parameters())
    y = checkpoint(lambda x, *p: f(Net(list(p[:3]), list(p[3:]), NET.omegas), x), x, *params, use_reentrant=False)
    slope = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
    return torch.autograd.grad(slope.square().sum(), [x, *params], materialize_grads=True)


def outer_backward(f):
    """torch.func inside, and an ordinary backward to the weights it closes over."""
    W = NET.weights[1].clone().requires_grad_()
    inner = grad(lambda x: f(with_weight(1, W), x).square().sum())(POINTS)
    return torch.autograd.grad(inner.square().sum(), W)


def jvp_of_pullback(f):
    _, pull = vjp(lambda x: f(NET, x), POINTS)
    bar = oracle.normal(5, 2, seed=6)
    return jvp(pull, (bar,), (bar.cos(),))[1]


USES = {
    "grad": lambda f: grad(lambda x: f(NET, x).square().sum())(POINTS),
    "grad of a weight": lambda f: grad(lambda W: f(with_weight(0, W), POINTS).square().sum())(NET.weights[0]),
    "grad of grad": lambda f: grad(lambda p: grad(scalar(f))(p).square().sum())(POINTS[0]),
    "vjp": lambda f: vjp(lambda x: f(NET, x), POINTS)[1](oracle.normal(5, 2, seed=6)),
    "vmap over points": lambda f: vmap(lambda p: f(NET, p[None])[0])(POINTS),
    "vmap over groups, not in front": lambda f: vmap(lambda x: f(NET, x), 1, 2)(torch.stack([POINTS, 2 * POINTS], 1)),
    "vmap over weights": lambda f: vmap(lambda W: f(with_weight(1, W), POINTS))(torch.stack([NET.weights[1]] * 3)),
    "vmap over weights and points": lambda f: vmap(lambda W, x: f(with_weight(0, W), x), (2, 0))(
        torch.stack([NET.weights[0], 2 * NET.weights[0]], 2), torch.stack([POINTS, POINTS + 1])
    ),
    "vmap of vmap": lambda f: vmap(vmap(lambda p: f(NET, p[None])[0]))(POINTS.reshape(1, 5, 2)),
    "jacrev": lambda f: jacrev(lambda x: f(NET, x))(POINTS),
    "jacrev of a weight": lambda f: jacrev(lambda W: f(with_weight(1, W), POINTS))(NET.weights[1]),
    "vmap of jacrev": lambda f: vmap(jacrev(lambda p: f(NET, p[None])[0]))(POINTS),
    "vmap of jacrev of jacrev": lambda f: vmap(jacrev(jacrev(scalar(f))))(POINTS),
    "per-sample gradients": lambda f: vmap(
        grad(lambda W, p: f(with_weight(1, W), p[None]).square().sum()), (None, 0)
    )(NET.weights[1], POINTS),
    "per-sample gradients of a gradient": lambda f: vmap(
        grad(lambda W, p: grad(scalar(f, with_weight(1, W)))(p).square().sum()), (None, 0)
    )(NET.weights[1], POINTS),
    "jacfwd": lambda f: jacfwd(lambda x: f(NET, x))(POINTS),
    "jacfwd of jacfwd": lambda f: jacfwd(jacfwd(scalar(f)))(POINTS[0]),
    "jacfwd of jacrev": lambda f: jacfwd(jacrev(scalar(f)))(POINTS[0]),
    "jacrev of jacfwd": lambda f: jacrev(jacfwd(scalar(f)))(POINTS[0]),
    "hessian": lambda f: vmap(hessian(scalar(f)))(POINTS),
    "jvp": lambda f: jvp(lambda x: f(NET, x), (POINTS,), (POINTS.cos(),)),
    "jvp of a pullback": jvp_of_pullback,
    "outer backward": outer_backward,
    "dual level": dual,
    "dual level, weights": dual_weights,
    "batched gradients": batched,
    "checkpoint, second order": checkpointed,
}  # fmt: skip


def flat(result) -> list[Tensor]:
    return [t.detach() for item in (result if isinstance(result, (tuple, list)) else [result])
            for t in (item if isinstance(item, (tuple, list)) else [item])]  # fmt: skip


def assert_same(found, expected) -> None:
    for a, b in zip(flat(found), flat(expected), strict=True):
        assert oracle.relative_error(a, b) <= 1e-11 or (a.shape == b.shape and not b.any() and not a.any())


@pytest.mark.parametrize("use", USES)
def test_value(use, backend):
    assert_same(USES[use](ours), USES[use](oracle.value))


def test_batched_gradients_of_second_order(backend):
    assert_same(batched_twice(ours), batched_twice(oracle.value))


LAPLACIANS = [
    "grad", "grad of a weight", "vmap over points", "vmap over groups, not in front", "vmap over weights",
    "per-sample gradients", "jacfwd", "hessian", "dual level", "batched gradients", "outer backward",
]  # fmt: skip


@pytest.mark.parametrize("use", [*LAPLACIANS])
def test_laplacian(use, backend):
    if use in ("batched gradients", "outer backward", "dual level"):
        # Plain torch nests neither a backward nor a dual level in its own hessian: compare with a sum of slopes.
        assert_same(USES[use](our_laplacian), USES[use](nested_laplacian))
    else:
        assert_same(USES[use](our_laplacian), USES[use](plain_laplacian))


def nested_laplacian(net: Net, x: Tensor) -> Tensor:
    """sum_d y_dd by two applications of engine-free tangent recurrences, differentiable by everything."""
    h, t, s = x, torch.eye(x.shape[-1], dtype=x.dtype)[:, None], torch.zeros((), dtype=x.dtype)
    for W, b, omega in zip(net.weights, net.biases, net.omegas):
        z, p, q = omega * (h @ W.mT + b), omega * t @ W.mT, (omega * s @ W.mT if s.ndim else s)
        h, t, s = z.sin(), z.cos() * p, z.cos() * q - z.sin() * p.square().sum(0)
    return s @ net.weights[-1].mT


@pytest.mark.parametrize("per_point", [False, True], ids=["shared", "per-point"])
@pytest.mark.parametrize("which", ["x", "directions", "forms", "directions and x"])
def test_vmap_over_seeds(which, per_point, backend):
    made = op_cases.operands("jet_fwd", NET, 4, per_point=per_point)
    dims = {"x": (0, None, None), "directions": (None, 1, None), "forms": (None, None, 0)}.get(which, (0, 0, None))
    stacked = [t if d is None else torch.stack([t, t.cos()], d) for t, d in zip(made, dims, strict=True)]
    found = vmap(lambda *m: ops.jet_fwd(*m, *NET, backend=backend), dims)(*stacked)
    rows = [[t if d is None else t.select(d, i) for t, d in zip(stacked, dims, strict=True)] for i in range(2)]
    assert_same(found, [torch.stack(c) for c in zip(*(oracle.jet(NET, *row) for row in rows), strict=True)])


def test_jacobian_of_seeds(backend):
    """Cotangents of shared seeds, batched: each element of the batch sums over its own points."""
    x, V, M = op_cases.operands("jet_fwd", NET, 4)
    for i in (0, 1):
        found = jacrev(lambda *seeds: ops.jet_fwd(x, *seeds, *NET, backend=backend)[2], argnums=i)(V, M)
        assert_same(found, jacrev(lambda *seeds: recurrence(x, *seeds), argnums=i)(V, M))


def recurrence(x: Tensor, V: Tensor, M: Tensor) -> Tensor:
    one = hessian(lambda p: oracle.value(NET, p[None])[0])
    H = torch.stack([one(p) for p in x])  # [N, O, D, D]
    return torch.einsum("rkj,kd,je,node->nro", M, V, V, H)


@pytest.mark.parametrize("name", [name for name in op_cases.NAMES if name != "loss_fwd"])
@pytest.mark.parametrize("over", ["points", "weights"])
def test_vmap_of_the_operator_itself(over, name, backend):
    """Not the way of the package, which goes around torch.library under a transform."""
    made, run = op_cases.operands(name, NET, 4, per_point=True), op_cases.operator(name, NET, backend)
    arguments = [*made, *NET.parameters()]
    batched = range(len(made)) if over == "points" else [len(made) + 1]
    dims = tuple(0 if i in batched else None for i in range(len(arguments)))
    stacked = [t if d is None else torch.stack([t, t.cos()]) for t, d in zip(arguments, dims, strict=True)]
    rows = [run(*(t if d is None else t[i] for t, d in zip(stacked, dims, strict=True))) for i in range(2)]
    assert_same(vmap(run, dims)(*stacked), [torch.stack(column) for column in zip(*rows, strict=True)])
