"""Many networks in one call of the C++ engine: every bit is that of one call for each, in bounded memory."""

import pytest
import torch
from torch import Tensor

import oracle
from fastsiren.engine import backends
from oracle import Net
from passes import OUTPUTS, Case, Operands, child, on_every_isa, operands, threads


def many(name: str, case: Case, dtype: torch.dtype, count: int) -> tuple[Operands, list[Operands]]:
    """Operands of `count` networks in one call, and of each by itself; seeds of a call are shared by all networks."""
    each = [operands(name, case, dtype, seed=g) for g in range(count)]
    each = [given if case.per_point else given._replace(seeds=each[0].seeds) for given in each]
    weights, biases = (
        [torch.stack(column) for column in zip(*group)] for group in zip(*(given.net[:2] for given in each))
    )
    seeds = [torch.cat(column) for column in zip(*(given.seeds for given in each))] if case.per_point else each[0].seeds
    bars = [torch.cat(column) for column in zip(*(given.bars for given in each))]
    net = Net(weights, biases, each[0].net.omegas)
    return Operands(net, torch.cat([given.x for given in each]), seeds, bars), each


def results(engine, name: str, given: Operands, count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Rows, cotangents of seeds, and cotangents of parameters."""
    with threads(count):
        outputs = engine.forward(name, given.net, given.x, given.seeds)
        grads = engine.backward(name, given.bars, given.net, given.x, given.seeds)
    return [*outputs, grads.x], list(grads.seeds), [*grads.weights, *grads.biases]


# One network; no points; one point; segments of both sizes and a bit, more networks than threads.
SIZES = [(1, 37), (3, 0), (2, 1), (7, 393), (5, 49), (2, 9 * 1152 + 5)]


@pytest.mark.usefixtures("poisoned")
@on_every_isa
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("per_point", [False, True], ids=["shared seeds", "own seeds"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize(("count", "rows"), SIZES)
def test_bits_are_those_of_single_calls(count, rows, dtype, per_point, name, engine):
    case = Case((2, 33, 17, 3), (30.0, 10.0), rows, per_point, K=2, R=1, C=2)
    together, each = many(name, case, dtype, count)
    alone = [results(engine, name, given, 1) for given in each]
    for number in (1, 2, 5):
        found, seeds, params = results(engine, name, together, number)
        for i, ours in enumerate(found):
            assert torch.equal(ours, torch.cat([single[0][i] for single in alone]))
        for i, ours in enumerate(params):
            assert torch.equal(ours, torch.stack([single[2][i] for single in alone]))
        for i, ours in enumerate(seeds):
            if per_point:
                assert torch.equal(ours, torch.cat([single[1][i] for single in alone]))
            elif ours.numel():
                total = torch.stack([single[1][i] for single in alone]).sum(0)
                error = (ours - total).abs().max()
                assert error <= 50 * torch.finfo(dtype).eps * sum(s[1][i].abs().max() for s in alone)


@pytest.mark.usefixtures("poisoned")
@on_every_isa
@pytest.mark.parametrize("kind", ["value", "gradient", "laplacian", "eikonal"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("count", "rows"), SIZES[:-1])
def test_bits_of_losses(count, rows, reduction, kind, engine):
    case = Case((2, 33, 17, 1), (30.0, 10.0), rows)
    together, each = many("value", case, torch.float32, count)
    shape = {"gradient": (1, 2), "eikonal": None}.get(kind, (1,))
    target = None if shape is None else oracle.normal(count * rows, *shape, seed=3, dtype=torch.float32)
    weight = oracle.uniform(count * rows, seed=4, dtype=torch.float32).abs()

    def loss(given: Operands, x: Tensor, of: slice) -> list[Tensor]:
        own = None if target is None else target[of]
        loss, grads = engine.call(
            "loss_fwd", kind, x, own, weight[of], *given.net, need_params=True, reduction=reduction
        )
        return [loss, *grads.weights, *grads.biases]

    slices = [slice(g * rows, (g + 1) * rows) for g in range(count)]
    for shared in (False, True):
        xs = [each[0].x if shared else given.x for given in each]
        alone = [loss(*rest) for rest in zip(each, xs, slices)]
        for number in (1, 3):
            with threads(number):
                found = loss(together, xs[0][None] if shared else together.x, slice(None))
            for i, ours in enumerate(found):
                assert torch.allclose(ours, torch.stack([single[i] for single in alone]), 0, 0, equal_nan=True)


@on_every_isa
@pytest.mark.parametrize("name", OUTPUTS)
def test_strides(name, engine):
    together, _ = many(name, Case((2, 33, 17, 3), (30.0, 10.0), 49, K=1, R=1, C=1), torch.float32, 3)
    wanted = results(engine, name, together, 2)
    layouts = {
        "apart": lambda p: torch.stack([p, torch.full_like(p, torch.nan)], 1)[:, 0],
        "every other": lambda p: torch.cat([p, torch.full_like(p, torch.nan)], -1)[..., : p.shape[-1]],
        "transposed": lambda p: p.mT.contiguous().mT if p.ndim == 3 else p.t().contiguous().t(),
        "negated": lambda p: torch._neg_view(-p),
    }
    for label, layout in layouts.items():
        net = together.net._replace(weights=list(map(layout, together.net.weights)))
        net = net._replace(biases=list(map(layout, net.biases)))
        found = results(engine, name, together._replace(net=net), 2)
        for group, expected in zip(found, wanted, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(group, expected, strict=True)), label


def test_rows_that_do_not_divide():
    cpp = backends.module("cpp")
    together, _ = many("value", Case((2, 5, 1), (30.0,), 4), torch.float32, 3)
    with pytest.raises(ValueError, match="x: got 11 points for 3 networks"):
        cpp.value_fwd(together.x[:11], *together.net)


MEMORY = """
    import torch
    from fastsiren.engine import cpp

    def peak():
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024

    def step(G, H=128, N=512):
        W = [torch.randn(1, H, 2), torch.randn(1, H, H) / H, torch.randn(1, 1, H) / H]
        W = [w.expand(G, *w.shape[1:]) for w in W]
        b = [w.new_zeros(1, w.shape[1]).expand(G, w.shape[1]) for w in W]
        x, target = torch.rand(1, N, 2), torch.rand(1, 1).expand(G * N, 1)
        grads = cpp.loss_fwd("value", x, target, None, W, b, [30.0] * 2, need_params=True, reduction="mean")[1]
        return sum(g.numel() for g in (*grads.weights, *grads.biases)) * 4 / 2**20 + G * N * 4 / 2**20

    torch.set_num_threads(2)
    step(4)
    before = peak()
    held = step(600)
    print(peak() - before - held)
"""


def test_memory_is_that_of_the_results():
    # Packed weights and sums of 600 networks would be some 120 MB beside 40 MB of gradients.
    done = child(MEMORY)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 8, "MB beside gradients and targets"
