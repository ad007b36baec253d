"""What is special to the Triton engine, interpreted: chunks, splits, precisions, scales, offsets past 31 bits."""

import itertools
import math

import pytest
import torch
import triton
from fastsiren.kernels import configs, grid, jet, network, pack, project, weight_grad, whole
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

import fastsiren
import oracle
import test_value_bwdbwd
from fastsiren import functional
from guarded import sparse
from pass_checks import EXACT, rows_of
from passes import OUTPUTS, Case, Engine, Operands, by_engine, expected, operands

pytestmark = pytest.mark.usefixtures("poisoned")

TRITON = Engine("triton")

# Chunks of rows and splits of sums, which are larger than what can be interpreted.


@pytest.fixture
def small_chunks(monkeypatch):
    # Neither is a multiple of a tile nor of the other: a chunk has a whole split and a part of one.
    monkeypatch.setattr(configs, "chunk_rows", lambda channels, width: 40)
    monkeypatch.setattr(weight_grad, "SPLIT_ROWS", 24)


@pytest.mark.parametrize("name", OUTPUTS)
def test_chunks_and_splits(name, small_chunks):
    case = Case((2, 17, 15, 2), (30.0, 20.0), 100, name != "jet", K=1, R=1, C=1)
    cut, exact = by_engine(TRITON, name, operands(name, case)), expected(name, case, torch.float64, torch.float64)
    errors = [oracle.relative_error(a, b) for a, b in zip(cut.tensors(), exact.tensors(), strict=True)]
    assert max(errors) <= EXACT, errors


@pytest.mark.parametrize("name", ["value", "sandwich"])
def test_chunks_change_no_row(name, monkeypatch):
    case = Case((2, 17, 15, 2), (30.0, 20.0), 70, True, K=1, C=1)
    whole_rows = rows_of(by_engine(TRITON, name, operands(name, case, torch.float32)))
    monkeypatch.setattr(configs, "chunk_rows", lambda channels, width: 37)
    cut = rows_of(by_engine(TRITON, name, operands(name, case, torch.float32)))
    assert all(torch.equal(a, b) for a, b in zip(cut, whole_rows, strict=True))


@pytest.mark.parametrize("kind", ["laplacian", "eikonal"])
def test_chunks_of_a_loss(kind, monkeypatch):
    net = oracle.network((3, 17, 15, 1), (30.0, 20.0))
    x, target = oracle.points(net, 70), None if kind == "eikonal" else oracle.normal(70, 1, seed=3)
    arguments = kind, x, target, oracle.uniform(70, seed=4).abs(), *net
    results = []
    for rows in (1000, 40):
        monkeypatch.setattr(configs, "chunk_rows", lambda channels, width, rows=rows: rows)
        loss, grads = TRITON.call("loss_fwd", *arguments, need_params=True, reduction="mean")
        results.append([loss, *grads.weights, *grads.biases])
    assert all(oracle.relative_error(a, b) <= 1e-13 for a, b in zip(*results, strict=True))


def test_chunks_of_a_grid(monkeypatch):
    net, out = oracle.network((2, 17, 33, 2), (30.0, 20.0)), [torch.zeros(11 * 9, 2).double() for _ in range(2)]
    for rows, found in zip((1000, 40), out, strict=True):
        monkeypatch.setattr(configs, "chunk_rows", lambda channels, width, rows=rows: rows)
        TRITON.call("grid_fwd", (-1.0, 0.3), (0.2, 0.1), (0, 2), (11, 9), *net, out=found, gain=2.0, offset=0.1)
    assert torch.equal(*out) and out[0].unique().numel() > 100


# Many networks: together where they are small, a chunk of rows at a time where they are not.


@pytest.mark.parametrize("rows", [1000, 25, 7])
@pytest.mark.parametrize("name", ["value", "sandwich"])
def test_networks_do_not_depend_on_their_neighbours(name, rows, monkeypatch):
    count, case = 5, Case((2, 17, 33, 2), (30.0, 20.0), 11, True, K=1, C=1)
    alone = [operands(name, case, torch.float32, seed) for seed in range(count)]
    weights, biases = ([torch.stack(layer) for layer in zip(*group)] for group in zip(*(g.net[:2] for g in alone)))
    joined = [torch.cat(parts) for parts in zip(*([g.x, *g.seeds, *g.bars] for g in alone))]
    x, seeds, bars = joined[0], joined[1 : 1 + len(alone[0].seeds)], joined[1 + len(alone[0].seeds) :]
    monkeypatch.setattr(configs, "chunk_rows", lambda channels, width: rows)
    found = by_engine(TRITON, name, Operands(oracle.Net(weights, biases, case.omegas), x, seeds, bars))
    for g, given in enumerate(alone):
        own = by_engine(TRITON, name, given)
        mine = slice(11 * g, 11 * g + 11)
        for a, b in zip([*found.outputs, found.x, *found.seeds], [*own.outputs, own.x, *own.seeds], strict=True):
            assert torch.equal(a[mine], b)
        assert all(torch.equal(a[g], b) for a, b in zip(found.parameters, own.parameters, strict=True))


def test_networks_share_launches(monkeypatch):
    launched, launch = [], configs.launch

    def counted(kernel, *arguments, **options):
        launched[-1].append(kernel.__name__)
        launch(kernel, *arguments, **options)

    for module in (jet, pack, project, weight_grad):
        monkeypatch.setattr(module, "launch", counted)
    for count in (1, 6):
        nets = [oracle.network((2, 17, 15, 1), (30.0, 20.0), seed=g) for g in range(count)]
        weights, biases = ([torch.stack(layer) for layer in zip(*group)] for group in zip(*(net[:2] for net in nets)))
        x, target = oracle.uniform(7 * count, 2), oracle.normal(7 * count, 1)
        launched.append([])
        arguments = x, target, None, weights, biases, [30.0, 20.0]
        losses, _ = TRITON.call("loss_fwd", "value", *arguments, need_params=True, reduction="mean")
        assert losses.shape == (count,)
    assert launched[0] == launched[1] and "jet_layer_bwd" in launched[0]


# Precisions of hidden products, through the public interface

# Relative rms errors of value, slopes, second derivatives and parameter gradients: about 1.4 times what was measured
# here, and a tenth of what is allowed to networks that are narrowed throughout.
BOUNDS = {
    "tf32": (5e-4, 1.4e-3, 2e-3, 2e-3),
    "fp16": (5e-4, 1.4e-3, 2e-3, 2e-3),
    "bf16": (1.4e-2, 3.5e-2, 4.5e-2, 6e-2),
}
NETWORKS = {
    "initial": lambda: oracle.network((2, 64, 64, 64, 1), (30.0,) * 3, dtype=torch.float32),
    "trained": lambda: oracle.trained("sdf"),
}


def rms(ours: Tensor, exact: Tensor) -> float:
    return ((ours - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("made", NETWORKS)
def test_precisions(made, precision):
    net = NETWORKS[made]().tracked()
    x, eye = oracle.points(net, 60), torch.eye(net.weights[0].shape[1])
    with fastsiren.use_backend("triton"), fastsiren.precision(precision):
        ours = functional.jet(x, net.weights, net.biases, eye, eye[None], omegas=net.omegas)
    wide = net.double().tracked()
    exact = oracle.jet(wide, x.double(), eye.double(), eye[None].double())
    for result, wanted, bound in zip(ours, exact, BOUNDS[precision], strict=False):
        # More than fp32 is off by: the precision was not ignored.
        assert 3e-5 <= rms(result, wanted) <= bound
    for part in (0, 2):
        bar = oracle.normal(*ours[part].shape, seed=part, dtype=torch.float32)
        grads = torch.autograd.grad(ours[part], net.weights, bar, retain_graph=True)
        wanted = torch.autograd.grad(exact[part], wide.weights, bar.double(), retain_graph=True)
        assert max(map(rms, grads, wanted)) <= BOUNDS[precision][3]


@pytest.mark.parametrize("precision", BOUNDS)
def test_tangents_beyond_fp16(precision):
    # Seven channels go a layer at a time, through buffers between the layers.
    net = oracle.network((3, 16, 16, 16, 1), (30.0,) * 3, dtype=torch.float32)
    x, V = oracle.points(net, 20), 1e8 * torch.eye(3)
    forms = torch.diag_embed(torch.eye(3))
    with fastsiren.use_backend("triton"), fastsiren.precision(precision):
        y, *derivatives = functional.jet(x, net.weights, net.biases, V, forms, omegas=net.omegas)
    wide = net.double()
    y_exact, *exact = oracle.jet(wide, x.double(), V.double(), forms.double())
    assert rms(y, y_exact) <= BOUNDS[precision][0]
    for found, wanted, bound in zip(derivatives, exact, BOUNDS[precision][1:], strict=False):
        if precision == "fp16":
            assert not found.isfinite().any()
        else:
            assert rms(found, wanted) <= bound


@pytest.mark.parametrize(("inputs", "kernel"), [(2, "whole"), (4, "jet_layer")])
def test_widest_layers_on_the_chip(monkeypatch, inputs, kernel):
    launched, launch = [], configs.launch
    for module in (whole, jet):
        monkeypatch.setattr(module, "launch", lambda k, *rest, **given: launched.append(k) or launch(k, *rest, **given))
    net = oracle.network((inputs, 256, 256, 2), (30.0, 30.0), dtype=torch.float32)
    shape = (3, 2) if inputs == 2 else (3, 1, 1, 2)
    axes = [torch.linspace(-1, 1, n).double() if n > 1 else torch.zeros(1).double() for n in shape]
    x = torch.cartesian_prod(*axes)
    exact = oracle.value(net.double(), x)
    found, out = (torch.empty(6, 2) for _ in range(2))
    found = TRITON.call("value_fwd", x.float(), *net, precision="fp16")
    TRITON.call("grid_fwd", [-1.0 if n > 1 else 0.0 for n in shape], [2 / (n - 1) if n > 1 else 1.0 for n in shape],
                [0] * inputs, shape, *net, out=out, gain=1.0, offset=0.0, precision="fp16")  # fmt: skip
    assert kernel in {each.__name__ for each in launched} and rms(found, exact) <= BOUNDS["fp16"][0]
    assert torch.equal(found, out)


def test_precision_of_a_module():
    torch.manual_seed(3)
    modules = [fastsiren.Siren(2, 32, 2, 1, precision=p) for p in (None, "fp16", "fp32")]
    for other in modules[1:]:
        other.load_state_dict(modules[0].state_dict())
    x, grads = torch.rand(40, 2), []
    # What a module asks for wins over the block.
    for module, outer in zip(modules, ("fp16", "bf16", "fp16"), strict=True):
        with fastsiren.use_backend("triton"), fastsiren.precision(outer):
            module(x).square().mean().backward()
        grads.append([p.grad for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(grads[0], grads[1], strict=True))
    assert not torch.equal(grads[0][0], grads[2][0])


# Along tangents of the parameters: networks and their tangents are packed together, and cut alike.


def along_tangent(engine: Engine, net: oracle.Net, N: int, scale: float = 1.0) -> tuple[list[Tensor], tuple]:
    """What value_bwdbwd gives for tangents of everything, and its arguments."""
    dtype = net.weights[0].dtype
    x_dot, *dots = test_value_bwdbwd.tangents(net, N, test_value_bwdbwd.ALL, dtype)
    bars = [x_dot * scale, *([dot * scale for dot in group] for group in dots)]
    call = bars, oracle.normal(N, net.weights[-1].shape[0], seed=3, dtype=dtype), oracle.points(net, N), net
    return test_value_bwdbwd.by_engine(engine, *call), call


def test_chunks_along_a_tangent(small_chunks):
    found, call = along_tangent(TRITON, oracle.network((2, 17, 15, 2), (30.0, 20.0)), 100)
    pairs = zip(found, test_value_bwdbwd.by_autograd(*call), strict=True)
    assert max(oracle.relative_error(a, b) for a, b in pairs) <= EXACT


def test_tangents_of_networks_in_chunks(monkeypatch):
    # Two networks at a time.
    monkeypatch.setattr(configs, "chunk_rows", lambda channels, width: 25)
    test_value_bwdbwd.assert_networks_alone(TRITON, 11)


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_precisions_along_a_tangent(precision):
    net = NETWORKS["initial"]()
    found, (bars, y_bar, x, _) = along_tangent(Engine(f"triton:{precision}"), net, 60)
    wide = [bars[0].double(), *([dot.double() for dot in group] for group in bars[1:])]
    exact = test_value_bwdbwd.by_autograd(wide, y_bar.double(), x.double(), net.double())
    for ours, wanted, bound in zip(found[:2], exact, BOUNDS[precision][1:3], strict=False):
        assert 3e-5 <= rms(ours, wanted) <= bound
    # Of the last bias the gradient is zero.
    assert max(map(rms, found[2:-1], exact[2:-1])) <= BOUNDS[precision][3] and not found[-1].any()


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_scaled_tangents_scale_results(precision, scale):
    net = oracle.network((2, 33, 17, 1), (30.0, 30.0), dtype=torch.float32)
    plain, scaled = (along_tangent(Engine(f"triton:{precision}"), net, 20, s)[0] for s in (1.0, scale))
    assert all(torch.equal(a / scale, b) for a, b in zip(scaled, plain, strict=True))


# Digits of eight bits, which stand in for fp32.

DIGITS = Engine("triton:int8")


@pytest.mark.parametrize("name", ["jet", "sandwich"])
def test_digits_are_as_good_as_fp32(name):
    # Layers that are padded, and one of 96 units, a multiple of no large tile.
    case = Case((2, 40, 96, 33, 2), (30.0,) * 3, 33, True, K=2, R=1, C=2)
    ours = by_engine(DIGITS, name, operands(name, case, torch.float32)).tensors()
    exact, plain = (expected(name, case, torch.float32, dtype).tensors() for dtype in (torch.float64, torch.float32))
    for a, b, wanted in zip(ours, plain, exact, strict=True):
        # A smallest digit that is lost costs a factor of a hundred.
        assert oracle.relative_error(a, wanted) <= 2.5 * oracle.relative_error(b, wanted) + 2.0**-21


@pytest.mark.parametrize("spoiled", [float("nan"), float("inf")])
def test_digits_show_what_is_not_finite(spoiled):
    given = operands("jet", Case((2, 33, 33, 1), (30.0, 30.0), 20, True, K=1, R=0), torch.float32)
    # Zeros would hide whatever digits make of such a number.
    given.net.weights[1].zero_()
    value, slope, _ = DIGITS.forward("jet", given.net, given.x, given.seeds)
    given.seeds[0][7] = spoiled
    same_value, found, _ = DIGITS.forward("jet", given.net, given.x, given.seeds)
    others = torch.arange(20) != 7
    assert torch.equal(found[others], slope[others]) and torch.equal(same_value, value) and found[7].isnan().all()
    given.net.weights[1][3, 5] = spoiled
    assert DIGITS.forward("jet", given.net, given.x, given.seeds)[1].isnan().all()


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**60])
def test_digits_of_any_magnitude(scale):
    case = Case((2, 33, 17, 1), (30.0, 30.0), 20, True)
    given = operands("value", case, torch.float32)
    plain, scaled = (DIGITS.backward("value", [given.bars[0] * s], given.net, given.x) for s in (1.0, scale))
    assert torch.equal(scaled.x / scale, plain.x)


# Scales: powers of two change no bit of a mantissa, however narrow the operands are.


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["value", "sandwich"])
def test_scaled_cotangents_scale_gradients(name, precision, scale):
    engine = TRITON if precision == "fp32" else Engine(f"triton:{precision}")
    case = Case((2, 33, 17, 1), (30.0, 30.0), 40, True, K=1, C=1)
    given = operands(name, case, torch.float32)
    plain, scaled = (
        engine.backward(name, [bar * s for bar in given.bars], given.net, given.x, given.seeds) for s in (1.0, scale)
    )
    pairs = zip([scaled.x, *scaled.weights, *scaled.biases], [plain.x, *plain.weights, *plain.biases], strict=True)
    assert all(torch.equal(a / scale, b) for a, b in pairs)


# Offsets past 31 bits: only the last tile is computed, between zeros that take no memory.


@pytest.fixture
def last_tile(monkeypatch):
    """Let launches of `whole` run its last tile alone."""

    def launch(kernel, programs, *arguments, **sizes):
        points = arguments[10]
        last = triton.cdiv(points, sizes["BM"]) - 1

        def set_grid_idx(builder, x, y, z):
            builder.grid_idx = (last + x, y, z)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(InterpreterBuilder, "set_grid_idx", set_grid_idx)
            configs.launch(kernel, (1, 1), *arguments, **sizes)

    monkeypatch.setattr(whole, "launch", launch)


def kernels_of(net: oracle.Net) -> network.Network:
    return network.prepare([w[None] for w in net.weights], [b[None] for b in net.biases], net.omegas, "fp64")


def test_points_past_31_bits(last_tile):
    # Coordinates, values and the channels behind them: each of them alone passes 2^31 numbers.
    for (D, O), N in (((16, 1), 2**27 + 33), ((1, 16), 2**27 + 33)):
        net = oracle.network((D, 16, 16, O), (3.0, 2.0))
        x, y = sparse(N * D, torch.float64).view(N, D), sparse(N * O, torch.float64).view(N, O)
        x[-40:] = oracle.uniform(40, D)
        with pytest.MonkeyPatch.context():
            whole.fused(kernels_of(net), x[None, None], y[None, None])
        assert oracle.relative_error(y[-33:], oracle.value(net, x[-33:])) <= EXACT and not y[-999:-128].any()


def test_channels_past_31_bits(last_tile):
    net, N = oracle.network((1, 16, 16, 1), (3.0, 2.0)), 2**30 + 5
    S, Y = (sparse(3 * N, torch.float64).view(3, N, 1) for _ in range(2))
    S[0, -5:], S[1:, -5:] = oracle.uniform(5, 1), oracle.uniform(2, 5, 1, seed=1)
    whole.fused(kernels_of(net), S[:, None], Y[:, None], torch.empty(0, 2, 2).double())
    y, T, _ = oracle.jet(net, S[0, -5:], S[1:, -5:].movedim(0, 1), torch.zeros(1, 2, 2).double())
    assert oracle.relative_error(Y[0, -5:], y) <= EXACT
    assert oracle.relative_error(Y[1:, -5:].movedim(0, 1), T) <= EXACT


def axis_values(first: int, count: int) -> Tensor:
    """Coordinates (slow, fast) of pixels of a grid of 2^16 columns."""
    pixel = torch.arange(first, first + count)
    return torch.stack([-1 + (pixel // 2**16).double() * 1e-5, 0.5 + (pixel % 2**16).double() * 1e-5], 1)


GRID = (-1.0, 0.5), (1e-5, 1e-5), (0, 0)


def test_pixels_past_31_bits(last_tile):
    net, shape = oracle.network((2, 16, 16, 1), (3.0, 2.0)), (2**15 + 1, 2**16)
    N = 2**31 + 2**16
    out = sparse(N, torch.uint8).view(N, 1)
    whole.fused(kernels_of(net), None, out[None, None], grid=whole.Grid(*GRID, shape, 0.5, 0.5))
    wanted = (oracle.value(net, axis_values(N - 32, 32)) * 0.5 + 0.5) * 255
    assert ((out[-32:].double() - wanted).abs() <= 0.5).all() and out[-32:].all()
    assert not out[-999:-128].any()


@pytest.mark.parametrize("first", [2**31 - 50, 2**31, 2**33 + 7])
def test_first_pixel_past_31_bits(first):
    S = torch.full((1, 100, 2), 7.0).double()
    axes = whole.Grid(*GRID, (2**20, 2**16), 1.0, 0.0).arguments()[:4]
    configs.launch(grid.grid_points, (1,), S, first, 100, *axes, D=2, BM=128, num_warps=4)
    assert torch.equal(S[0], axis_values(first, 100))


def test_numbers_of_a_grid_compile_nothing_anew():
    # Triton compiles for 0, 1 and multiples of 16 among integers, and for wide ones, but for all floats alike.
    numbers = [0.1, -1 / 3, 1e-20, 2**31 + 1, 0, 1, 16, -7e30]
    *axes, gain, offset = whole.Grid(*[numbers] * 4, 1.0, math.pi).arguments()
    for parts in axes:
        assert all(isinstance(part, float) for part in parts)
        assert [sum(parts[i : i + 3]) for i in range(0, len(parts), 3)] == numbers
    assert (sum(gain), sum(offset)) == (1.0, math.pi)


# Empty things


def test_no_points_no_launch(monkeypatch):
    for name, per_point in itertools.product(OUTPUTS, (False, True)):
        given = operands(name, Case((2, 16, 3), (30.0,), 0, per_point), torch.float32)
        results = by_engine(TRITON, name, Operands(*given))
        assert all((t == 0).all() for t in results.parameters)
        assert all(len(t) == 0 for t in results.outputs)
