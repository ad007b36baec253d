"""The reference backend in use: shapes, dtypes, losses, grids, function transforms, compilation, and its accuracy."""

import math
from collections.abc import Callable, Iterator

import numpy
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import oracle
from fastsiren.engine import reference
from fastsiren.engine.network import Grads
from oracle import Net

BOUND = 1e-12
NEED = {"need_x": True, "need_seeds": True, "need_params": True}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with oracle.one_thread():
        yield


def small(dtype: torch.dtype = torch.float64) -> Net:
    return oracle.network((3, 8, 7, 2), (30.0, 3.0), dtype=dtype)


def flat(grads: Grads) -> list[Tensor]:
    return [*([] if grads.x is None else [grads.x]), *grads.seeds, *grads.weights, *grads.biases]


def every_pass(
    net: Net, x: Tensor, V: Tensor, M: Tensor, E: Tensor, bar: Callable[[Tensor], Tensor] = torch.ones_like
) -> dict[str, list[Tensor]]:
    """Outputs of every pass, forward and backward."""
    need = {"need_x": True, "need_params": True}
    y = reference.value_fwd(x, *net)
    jet, adjoint = reference.jet_fwd(x, V, M, *net), reference.adjoint_fwd(x, E, *net)
    sandwich = reference.sandwich_fwd(x, V, E, *net)
    second = reference.value_bwdbwd(bar(x), list(map(bar, net.weights)), list(map(bar, net.biases)), bar(y), x, *net)
    return {
        "value": [y, *flat(reference.value_bwd(bar(y), x, *net, **need))],
        "bwdbwd": [second[0], *flat(second[1])],
        "jet": [*jet, *flat(reference.jet_bwd(*map(bar, jet), x, V, M, *net, **NEED))],
        "adjoint": [*adjoint, *flat(reference.adjoint_bwd(*map(bar, adjoint), x, E, *net, **NEED))],
        "sandwich": [*sandwich, *flat(reference.sandwich_bwd(*map(bar, sandwich), x, V, E, *net, **NEED))],
    }


def seeds(*lead: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    V, M = oracle.normal(*lead, 2, 3, seed=2, dtype=dtype), oracle.normal(*lead, 1, 2, 2, seed=3, dtype=dtype)
    return [V, (M + M.mT) / 2, oracle.normal(*lead, 2, 2, seed=4, dtype=dtype)]


# Shapes


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lead", [(), (1,), (2, 3), (3, 1, 2), (0,), (2, 0)])
def test_leading_shapes(lead: tuple[int, ...], shared: bool) -> None:
    net, count = small(), math.prod(lead)
    x = oracle.uniform(count, 3)
    given = seeds() if shared else seeds(count)
    rows = every_pass(net, x, *given)
    shaped_seeds = given if shared else [seed.reshape(*lead, *seed.shape[1:]) for seed in given]
    shaped = every_pass(net, x.reshape(*lead, 3), *shaped_seeds)
    per_point = {"value": 2, "bwdbwd": 2, "jet": 4, "adjoint": 3, "sandwich": 4}
    for name, outputs in rows.items():
        for i, (a, b) in enumerate(zip(outputs, shaped[name], strict=True)):
            is_per_point = i < per_point[name] or (not shared and i < len(outputs) - 6)
            assert b.shape == (*lead, *a.shape[1:]) if is_per_point else a.shape
            assert oracle.relative_error(b.reshape(a.shape), a) <= BOUND, f"{name} output {i}"
            assert b.is_contiguous()


def test_no_points_have_zero_gradients() -> None:
    net = small()
    for outputs in every_pass(net, torch.empty(0, 3).double(), *seeds()).values():
        for gradient, parameter in zip(outputs[-6:], net.parameters(), strict=True):
            assert gradient.shape == parameter.shape
            assert not gradient.any()


def test_results_share_no_memory_and_arguments_stay() -> None:
    net, x, given = small(), oracle.uniform(4, 3), seeds()
    before = [t.clone() for t in (x, *given, *net.parameters())]
    held = {t.untyped_storage().data_ptr() for t in (x, *given, *net.parameters())}
    for outputs in every_pass(net, x, *given).values():
        storages = [t.untyped_storage().data_ptr() for t in outputs]
        assert len(set(storages)) == len(storages)
        assert not held & set(storages)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, *given, *net.parameters()), strict=True))


def test_strided_arguments() -> None:
    net, x, given = small(), oracle.uniform(8, 6)[::2, ::2], seeds(4)
    strided = [seed.transpose(0, 1).contiguous().transpose(0, 1) for seed in given]
    W = [w.T.contiguous().T for w in net.weights]

    def bar(t: Tensor) -> Tensor:
        return torch.ones(1, dtype=t.dtype).expand(t.shape)

    ours = every_pass(Net(W, net.biases, net.omegas), x, *strided, bar=bar)
    for name, outputs in every_pass(net, x.contiguous(), *given).items():
        assert all(oracle.relative_error(a, b) <= BOUND for a, b in zip(ours[name], outputs, strict=True))


def test_only_what_is_needed_is_returned() -> None:
    net, x, (V, M, E) = small(), oracle.uniform(4, 3), seeds()
    ones, none = torch.ones(4, 2).double(), dict.fromkeys(NEED, False)
    J, T, S = torch.ones(4, 2, 3).double(), torch.ones(4, 2, 2).double(), torch.ones(4, 1, 2).double()
    H = torch.ones(4, 2, 2, 2).double()
    assert flat(reference.value_bwd(ones, x, *net, need_x=False, need_params=False)) == []
    assert flat(reference.jet_bwd(ones, T, S, x, V, M, *net, **none)) == []
    assert flat(reference.adjoint_bwd(ones, J, x, E, *net, **none)) == []
    assert flat(reference.sandwich_bwd(ones, J, H, x, V, E, *net, **none)) == []


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_runs_and_stays(dtype: torch.dtype) -> None:
    net = oracle.network((3, 8, 7, 2), (3.0, 3.0), dtype=dtype)
    x, given = oracle.uniform(6, 3, dtype=dtype), seeds(dtype=dtype)
    exact = every_pass(net.double(), x.double(), *(seed.double() for seed in given))
    for name, outputs in every_pass(net, x, *given).items():
        assert {t.dtype for t in outputs} == {dtype}
        errors = [oracle.relative_error(a, b) for a, b in zip(outputs, exact[name], strict=True)]
        assert max(errors) <= 30 * torch.finfo(dtype).eps, f"{name}: {errors}"


@pytest.mark.parametrize("name", [*oracle.TRAINED, "init"])
def test_float32_keeps_the_error_rule(name: str) -> None:
    net = oracle.network((2, 128, 128, 128, 2), (30.0,) * 3, dtype=torch.float32)
    net = net if name == "init" else oracle.trained(name)
    x, (d, o) = oracle.points(net, 200), (net.weights[0].shape[1], len(net.biases[-1]))
    V, M, E = torch.eye(d), torch.eye(d).unsqueeze(0), torch.eye(o)
    exact_net, exact_x = net.double(), x.double()
    ours = {"jet": reference.jet_fwd(x, V, M, *net), "sandwich": reference.sandwich_fwd(x, V, E, *net)}
    for engine, seeds in (("jet", (V, M)), ("sandwich", (V, E))):
        plain = getattr(oracle, engine)(net, x, *seeds)
        exact = getattr(oracle, engine)(exact_net, exact_x, *(seed.double() for seed in seeds))
        for quantity, *tensors in zip(("value", "first", "second"), ours[engine], plain, exact, strict=True):
            oracle.assert_error_rule(*tensors, quantity=quantity, capped=name != "audio")

    for kind, quantity in (("value", "weight_grad"), ("eikonal", "eikonal_weight_grad"), ("laplacian", "other")):
        target = None if kind == "eikonal" else torch.full((200, o), 0.5)
        _, grads = reference.loss_fwd(kind, x, target, None, *net, need_params=True, reduction="mean")
        nets, points = (net.tracked(), exact_net.tracked()), (x, exact_x)
        plain, exact = (
            oracle.gradients([plain_loss(kind, n, p, None if target is None else target.to(p))], [1], n.parameters())
            for n, p in zip(nets, points, strict=True)
        )
        oracle.assert_error_rule(flat(grads), plain, exact, quantity=quantity, capped=name != "audio")


# Losses


def plain_loss(
    kind: str, net: Net, x: Tensor, target: Tensor | None, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    if kind == "value":
        errors = (oracle.value(net, x) - target).square()
    elif kind == "gradient":
        errors = (oracle.jacobian(net, x) - target).square().sum(-1)
    elif kind == "laplacian":
        errors = (oracle.hessian(net, x).diagonal(dim1=-2, dim2=-1).sum(-1) - target).square()
    else:
        errors = (torch.linalg.norm(oracle.jacobian(net, x), dim=-1) - 1).square()
    errors = errors if weight is None else errors * weight[:, None]
    return errors.sum() if reduction == "sum" else errors.mean()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["value", "gradient", "laplacian", "eikonal"])
def test_losses(kind: str, reduction: str, weighted: bool) -> None:
    net, x = small(), oracle.uniform(6, 3)
    target = {"gradient": oracle.normal(6, 2, 3), "eikonal": None}.get(kind, oracle.normal(6, 2))
    weight = oracle.uniform(6, seed=9) if weighted else None
    tracked = net.tracked()
    expected = plain_loss(kind, tracked, x, target, weight, reduction)
    gradients = oracle.gradients([expected], [1], tracked.parameters())
    # The leading shape of points, targets and weights is free.
    arguments = [None if t is None else t.reshape(2, 3, *t.shape[1:]) for t in (x, target, weight)]
    loss, grads = reference.loss_fwd(kind, *arguments, *net, need_params=True, reduction=reduction)
    assert loss.shape == ()
    assert oracle.relative_error(loss, expected) <= BOUND
    assert (grads.x, grads.seeds) == (None, ())
    assert max(oracle.relative_error(a, b) for a, b in zip(flat(grads), gradients, strict=True)) <= BOUND
    alone, none = reference.loss_fwd(kind, *arguments, *net, need_params=False, reduction=reduction)
    assert torch.equal(alone, loss)
    assert flat(none) == []


def test_eikonal_at_a_vanishing_gradient_has_the_subgradient_zero() -> None:
    net = small()
    net.weights[-1][0] = 0
    tracked, x = net.tracked(), oracle.uniform(5, 3)
    expected = oracle.gradients([plain_loss("eikonal", tracked, x, None)], [1], tracked.parameters())

    def ours(*weights: Tensor) -> tuple[Tensor, list[Tensor]]:
        loss, grads = reference.loss_fwd(
            "eikonal", x, None, None, weights, net.biases, net.omegas, need_params=True, reduction="mean"
        )
        return loss, flat(grads)

    (_, gradients), pull = torch.func.vjp(ours, *net.weights)
    assert not gradients[2][0].any()
    assert max(oracle.relative_error(a, b) for a, b in zip(gradients, expected, strict=True)) <= BOUND
    assert all(t.isfinite().all() for t in pull((torch.ones(()).double(), [torch.ones_like(g) for g in gradients])))


def test_a_loss_without_its_target_says_so() -> None:
    with pytest.raises(ValueError, match="target: got None"):
        reference.loss_fwd("value", oracle.uniform(2, 3), None, None, *small(), need_params=True, reduction="mean")


def test_a_loss_of_no_points() -> None:
    x, target = torch.empty(0, 3).double(), torch.empty(0, 2).double()
    for reduction, expected in (("sum", 0.0), ("mean", math.nan)):
        loss, grads = reference.loss_fwd("value", x, target, None, *small(), need_params=True, reduction=reduction)
        assert loss.item() == expected or (math.isnan(expected) and loss.isnan())
        assert not any(gradient.any() for gradient in flat(grads))


# Grids

GRID = {"origin": (-1.0, 0.1, 0.2), "step": (1 / 3, 0.1, 0.07), "start": (0, 5, 2), "shape": (3, 4, 5)}


def grid_values(net: Net) -> Tensor:
    """y [60, O] at the coordinates of GRID, written out."""
    dtype = net.weights[0].dtype
    axes = [
        torch.from_numpy(origin + step * (start + numpy.arange(n, dtype=numpy.float64))).to(dtype)
        for origin, step, start, n in zip(*GRID.values(), strict=True)
    ]
    return oracle.value(net, torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))


@pytest.mark.parametrize("chunk", [7, 60, 1 << 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_in_floats(dtype: torch.dtype, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "GRID_CHUNK", chunk)
    net = small(dtype)
    out = torch.full((60, 2), math.nan, dtype=dtype)
    reference.grid_fwd(*GRID.values(), *net.tracked(), out=out, gain=0.5, offset=0.25)
    assert not out.requires_grad
    torch.testing.assert_close(out, 0.5 * grid_values(net) + 0.25, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "levels"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_grid_in_integers(dtype: torch.dtype, levels: int) -> None:
    net = small()
    out = torch.ones(60, 2, dtype=dtype)
    reference.grid_fwd(*GRID.values(), *net, out=out, gain=1.5, offset=0.5)
    expected = numpy.rint(numpy.clip(1.5 * grid_values(net).numpy() + 0.5, 0, 1) * levels)
    assert {0, levels} < set(expected.flatten())
    assert (out.numpy() == expected).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_grid_rounds_half_to_even_and_takes_nan_as_zero(dtype: torch.dtype) -> None:
    levels = torch.iinfo(dtype).max
    biases = [0.5 / levels, 1.5 / levels, 2.5 / levels, -1.0, 2.0, math.nan, math.inf, -math.inf]
    net = Net([torch.zeros(1, 1).double(), torch.zeros(8, 1).double()], [torch.zeros(1).double()], [1.0])
    net.biases.append(torch.tensor(biases, dtype=torch.float64))
    out = torch.ones(1, 8, dtype=dtype)
    reference.grid_fwd((0.0,), (1.0,), (0,), (1,), *net, out=out, gain=1.0, offset=0.0)
    assert out.tolist() == [[0, 2, 2, 0, levels, 0, levels, 0]]


# Function transforms and compilation

# torch scripts its own rules of forward mode at their first use, and warns of that.
torch_scripts = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def test_vmap_over_points_and_over_networks() -> None:
    net, x, (V, M, E) = small(), oracle.uniform(5, 3), seeds()
    rows = every_pass(net, x, V, M, E)
    for name, count, single in (
        ("jet", 3, lambda x: reference.jet_fwd(x, V, M, *net)),
        ("sandwich", 3, lambda x: reference.sandwich_fwd(x, V, E, *net)),
    ):
        for a, b in zip(torch.vmap(single)(x), rows[name][:count], strict=True):
            assert oracle.relative_error(a, b) <= BOUND

    nets = [net, oracle.network((3, 8, 7, 2), (30.0, 3.0), seed=1)]
    stacked = [torch.stack(pair) for pair in zip(*(n.parameters() for n in nets), strict=True)]

    def one(*params: Tensor) -> list[Tensor]:
        outputs = every_pass(Net(list(params[:3]), list(params[3:]), net.omegas), x, V, M, E)
        return [t for name in outputs for t in outputs[name]]

    both = torch.vmap(one)(*stacked)
    for i, member in enumerate(nets):
        expected = [t for outputs in every_pass(member, x, V, M, E).values() for t in outputs]
        assert max(oracle.relative_error(a[i], b) for a, b in zip(both, expected, strict=True)) <= BOUND


@torch_scripts
def test_forward_mode() -> None:
    net, x, (V, M, E) = small(), oracle.uniform(5, 3), seeds()
    dot = oracle.normal(5, 3, seed=8)

    def ours(x: Tensor) -> list[Tensor]:
        return [t for outputs in every_pass(net, x, V, M, E, bar=torch.ones_like).values() for t in outputs]

    outputs, tangents = torch.func.jvp(ours, (x,), (dot,))
    with forward_ad.dual_level():
        duals = [forward_ad.unpack_dual(t).tangent for t in ours(forward_ad.make_dual(x, dot))]
    differences = [a - b for a, b in zip(ours(x + 1e-5 * dot), ours(x - 1e-5 * dot), strict=True)]
    for i, (tangent, dual, difference) in enumerate(zip(tangents, duals, differences, strict=True)):
        dual = torch.zeros_like(tangent) if dual is None else dual
        assert oracle.relative_error(dual, tangent) <= BOUND
        # Central differences: their own error is near 1e-6 of the derivatives of these outputs.
        scale = tangent.norm() + outputs[i].norm()
        assert (difference / 2e-5 - tangent).norm() <= 1e-5 * scale, f"output {i}"


@torch_scripts
def test_jacobians_of_torch_func() -> None:
    net, x = small(), oracle.uniform(4, 3)
    exact = oracle.hessian(net, x)
    for transform in (torch.func.hessian, lambda f: torch.func.jacrev(torch.func.jacrev(f))):
        ours = torch.vmap(transform(lambda x: reference.value_fwd(x, *net)))(x)
        assert oracle.relative_error(ours, exact) <= BOUND


@pytest.mark.parametrize("name", ["jet", "sandwich"])
def test_compiles_without_a_break(name: str) -> None:
    net, (V, M, E) = oracle.network((3, 8, 2), (30.0,)), seeds()
    given = {"jet": (V, M), "sandwich": (V, E)}[name]

    def step(x: Tensor, *given: Tensor) -> list[Tensor]:
        outputs = getattr(reference, f"{name}_fwd")(x, *given, *net)
        return [*outputs, *flat(getattr(reference, f"{name}_bwd")(*outputs, x, *given, *net, **NEED))]

    torch._dynamo.reset()
    compiled, x = torch.compile(step, fullgraph=True, backend="aot_eager"), oracle.uniform(5, 3)
    for a, b in zip(compiled(x, *given), step(x, *given), strict=True):
        assert oracle.relative_error(a, b) <= BOUND


def test_gradients_flow_through_every_argument() -> None:
    net, (x, V, M, E) = small().tracked(), oracle.tracked(oracle.uniform(3, 3), *seeds())
    outputs = [t for group in every_pass(net, x, V, M, E).values() for t in group]
    for gradient in oracle.gradients(outputs, [1] * len(outputs), [x, V, M, E, *net.parameters()]):
        assert gradient.isfinite().all()
        assert gradient.any()
