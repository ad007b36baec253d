"""No access outside of a buffer, none to memory that was never written, none past 32 bits; memory that stays small."""

import signal
import sys

import pytest
import torch

from pass_checks import A_DTYPE, ROWS_CASE, unaligned
from passes import (
    CPP,
    OUTPUTS,
    Operands,
    by_engine,
    child,
    instruction_sets,
    on_every_isa,
    on_every_kernel,
    operands,
    unless_interpreted,
)  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(sys.platform != "linux", reason="mappings and memory figures as Linux has them"),
]
needs_cpp = pytest.mark.skipif(not CPP, reason="the C++ backend is not among the tested ones")

GUARDED = """
    import itertools, sys
    import torch, guarded, oracle, passes
    from fastsiren.engine import cpp, cpp_net
    from fastsiren.engine.pass_kind import Tape

    class Torch:
        # torch for the adapter: what it allocates is guarded, and NaN until written.
        def __getattr__(self, name):
            return getattr(torch, name)
        def empty(self, *args, **options):
            made = torch.empty(*args, **options)
            return guarded.guarded(torch.full_like(made, float("nan")), side)
        def empty_like(self, like):
            return self.empty(like.shape, dtype=like.dtype)
        def frombuffer(self, memory, dtype):
            return self.empty(len(memoryview(memory)) // dtype.itemsize, dtype=dtype)

    cpp.torch = cpp_net.torch = Torch()
    engine = passes.Engine("cpp", sys.argv[1])
    torch.set_num_threads(2)
    shapes = [(1, (1, 1, 1)), (17, (3, 33, 17, 2)), (49, (2, 15, 16, 5)), (63, (5, 127, 9)), (1155, (1, 8, 3, 1))]
    def repeated(given, per_point):
        # Three networks, all the same.
        rows = lambda tensors: [t.repeat(3, *[1] * (t.ndim - 1)) for t in tensors]
        stack = lambda tensors: [torch.stack([t] * 3) for t in tensors]
        net = oracle.Net(stack(given.net.weights), stack(given.net.biases), given.net.omegas)
        seeds = rows(given.seeds) if per_point else given.seeds
        return passes.Operands(net, *rows([given.x]), seeds, rows(given.bars))

    count = 0
    for side, dtype, (N, widths), per_point, name, many in itertools.product(
        ("left", "right"), (torch.float32, torch.float64), shapes, (False, True), passes.OUTPUTS, (False, True)):
        case = passes.Case(widths, (30.0,) * (len(widths) - 2), N, per_point, K=2, R=2, C=3)
        given = passes.operands(name, case, dtype)
        if many:
            given, N = repeated(given, per_point), 3 * N
        plain = passes.by_engine(engine, name, given)
        keep = lambda tensors: [guarded.guarded(t, side) for t in tensors]
        net = oracle.Net(keep(given.net.weights), keep(given.net.biases), given.net.omegas)
        fenced = passes.Operands(net, *keep([given.x]), keep(given.seeds), keep(given.bars))
        for kept in ({}, {"tape": Tape()}) if name in ("value", "jet") else ({},):
            ours = passes.by_engine(engine, name, fenced, **kept)
            assert all(torch.equal(a, b) for a, b in zip(ours.tensors(), plain.tensors(), strict=True)), case
            count += 1
        if name != "value" or not per_point:
            continue
        D, O = widths[0], widths[-1]
        for kind in ("value", "gradient", "laplacian", "eikonal"):
            shape = (N, O, D) if kind == "gradient" else (N, O)
            target = None if kind == "eikonal" else guarded.guarded(torch.ones(shape, dtype=dtype), side)
            weight = guarded.guarded(torch.ones(N, dtype=dtype), side)
            loss, _ = engine.call("loss_fwd", kind, guarded.guarded(given.x, side), target, weight, *net,
                                  need_params=True, reduction="mean")
            assert loss.isfinite().all() and loss.numel() == (3 if many else 1)
        if many:
            continue
        for pixel in (torch.float32, torch.float64, torch.uint8, torch.uint16):
            shape = (N, *[2] * (D - 1))
            out = guarded.guarded(torch.zeros(N * 2 ** (D - 1), O, dtype=pixel), side)
            engine.call("grid_fwd", [0.0] * D, [0.1] * D, [0] * D, shape, *net, out=out, gain=0.5, offset=0.5)
    print("clean", count)
"""


@pytest.mark.parametrize("isa", instruction_sets())
def test_every_buffer_between_guard_pages(isa):
    done = child(GUARDED, isa, timeout=240)
    assert done.returncode == 0, f"signal or error {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout == "clean 480\n"


@pytest.mark.parametrize(("side", "index"), [("right", 70), ("left", -1)])
def test_guard_pages_see_an_access(side, index):
    # The test of the test: one element outside kills the process.
    code = f"""
        import ctypes, torch, guarded
        t = guarded.guarded(torch.arange(70.0), {side!r})
        inside = [ctypes.c_float.from_address(t.data_ptr() + 4 * i).value for i in (0, 69)]
        assert inside == [0.0, 69.0]
        print(ctypes.c_float.from_address(t.data_ptr() + 4 * {index}).value)
    """
    assert child(code).returncode == -signal.SIGSEGV


@on_every_kernel
@pytest.mark.parametrize("name", OUTPUTS)
@A_DTYPE
def test_nan_behind_every_buffer(dtype, name, engine):
    # A read past the end whose result is dropped goes unseen, unless it meets NaN.
    for N in unless_interpreted((1, 15, 49, 1153), (17,)):
        given = operands(name, ROWS_CASE._replace(N=N), dtype)
        fence = unaligned
        net = given.net._replace(
            weights=[fence(W) for W in given.net.weights], biases=[fence(b) for b in given.net.biases]
        )
        fenced = Operands(net, fence(given.x), [fence(t) for t in given.seeds], [fence(t) for t in given.bars])
        pairs = zip(by_engine(engine, name, fenced).tensors(), by_engine(engine, name, given).tensors(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def nan(tensors):
    return [torch.full_like(t, torch.nan) for t in tensors]


@on_every_isa
@pytest.mark.parametrize("name", OUTPUTS)
def test_nan_left_in_scratch_memory(name, engine):
    # Workspaces are used again without clearing: what an earlier call left there must not be read.
    for per_point, N in ((False, 5), (True, 49), (True, 1217)):
        given = operands(name, ROWS_CASE._replace(N=N, per_point=per_point), torch.float32)
        before = by_engine(engine, name, given)
        larger = operands(name, ROWS_CASE._replace(N=N, per_point=per_point, K=3, R=3), torch.float32)
        for spoiled in (larger, given):
            net = spoiled.net._replace(weights=nan(spoiled.net.weights), biases=nan(spoiled.net.biases))
            bad = Operands(net, *nan([spoiled.x]), nan(spoiled.seeds), nan(spoiled.bars))
            assert by_engine(engine, name, bad).outputs[0].isnan().all()
        after = by_engine(engine, name, given)
        assert all(torch.equal(a, b) for a, b in zip(before.tensors(), after.tensors(), strict=True))


SPARSE = """
    import torch, guarded, oracle, passes

    net = oracle.network((2, 24, 16, 2), (30.0, 30.0), dtype=torch.float32)
    def far(tensor, last):
        # Rows `last` elements apart, in a mapping that takes memory only where they are.
        count = last + tensor[0].numel()
        return guarded.sparse(count, tensor.dtype).as_strided(tensor.shape, (last, *tensor.stride()[1:])).copy_(tensor)

    for last in (2**31 - 1, 2**31, 2**31 + 1):
        for name in passes.OUTPUTS:
            case = passes.Case((2, 24, 16, 2), (30.0, 30.0), 2, True, K=2, R=1, C=1)
            given = passes.operands(name, case, torch.float32)
            moved = passes.Operands(
                given.net, far(given.x, last), [far(t, last) for t in given.seeds], [far(t, last) for t in given.bars])
            far_away, near = (passes.by_engine(passes.Engine("cpp"), name, g).tensors() for g in (moved, given))
            assert all(torch.equal(a, b) for a, b in zip(far_away, near)), (name, last)
    # The peak of this program: ru_maxrss would be that of the process that started it, if larger.
    with open("/proc/self/status") as f:
        print(next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) // 1024)
"""


@needs_cpp
def test_strides_past_31_bits():
    done = child(SPARSE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024, "resident MB"


HUGE = """
    import torch, guarded, oracle
    from fastsiren import _C

    # 2^27 rows of 16 inputs and 16 outputs: both arrays pass 2^31 elements. x is zeros that take no memory, but for its
    # end; y is one window of 4 MB, written over and over.
    net, N = oracle.network((16, 1, 16), (30.0,), dtype=torch.float32), 2**27 + 33
    x = guarded.sparse(N * 16, torch.float32).view(N, 16)
    x[-40:] = oracle.uniform(40, 16, dtype=torch.float32)
    y = guarded.aliased(N * 16, torch.float32).view(N, 16)
    parameters = [[p.data_ptr() for p in group] for group in (net.weights, net.biases)]
    args = _C.NetArgs(1, *parameters, [0, 0], [0, 0], [16, 1, 16], net.omegas)
    _C.jet_fwd_f32(args, _C.PassArgs(N, 0, 0, x.data_ptr(), 0, 0, False, False, False), y.data_ptr(), 0, 0, 1)
    assert (y[-40:] - oracle.value(net, x[-40:])).abs().max() <= 1e-6
    assert oracle.value(net, x[-40:]).std() > 1e-3
    print("done")
"""


@needs_cpp
@pytest.mark.slow
def test_offsets_past_31_bits():
    done = child(HUGE, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


GROWTH = """
    import sys
    import torch, passes

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096 / 2**20

    engine = passes.Engine("cpp")
    def round_of_calls(i):
        for name in passes.OUTPUTS:
            vary = i % 7 if sys.argv[1] == "varied" else 0
            case = passes.Case((2, 64 + 16 * vary, 64, 1), (30.0, 30.0), 400 + 120 * vary, False, K=2, R=1, C=1)
            passes.by_engine(engine, name, passes.operands(name, case, torch.float32))

    for i in range(14):
        round_of_calls(i)
    before = resident()
    for i in range(50):
        round_of_calls(i)
    print(resident() - before)
"""


@needs_cpp
@pytest.mark.parametrize("sizes", ["same", "varied"])
def test_memory_does_not_grow(sizes):
    done = child(GROWTH, sizes, timeout=120)
    assert done.returncode == 0, done.stderr
    # A leak of one workspace per call would be 50 x 4 x 1 MB and more.
    assert float(done.stdout) < 16, "MB in 50 rounds"


TRAINING = """
    import sys
    import torch, oracle
    from fastsiren import functional

    def peak():
        with open("/proc/self/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024

    net = oracle.network((2, 256, 256, 256, 256, 1), (30.0,) * 4, dtype=torch.float32).tracked()

    def ours(x):
        I = torch.eye(2)
        out = functional.jet(x, net.weights, net.biases, I, I[None], omegas=net.omegas)
        out.second.square().mean().backward()

    def fused(x):
        functional.loss("laplacian", x, torch.zeros(len(x), 1), net.weights, net.biases, omegas=net.omegas).backward()

    def eager(x):
        x = x.requires_grad_()
        (J,) = torch.autograd.grad(oracle.value(net, x).sum(), x, create_graph=True)
        rows = [torch.autograd.grad(J[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2)]
        sum(rows).square().mean().backward()

    step, x = {"ours": ours, "fused": fused, "eager": eager}[sys.argv[1]], oracle.points(net, int(sys.argv[2]))
    step(x[:64].clone())
    before = peak()
    step(x)
    print(peak() - before)
"""


@needs_cpp
def test_training_memory():
    # 65,536 points of a network of 3 hidden layers of 256. Autograd would take some 7 GB: it is measured with 2,048
    # points, and what it keeps is proportional to the points.
    found = {}
    for step, points in (("ours", 65_536), ("fused", 65_536), ("eager", 2_048)):
        done = child(TRAINING, step, str(points), timeout=200)
        assert done.returncode == 0, done.stderr
        found[step] = float(done.stdout) * 65_536 / points
    assert max(found["ours"], found["fused"]) <= found["eager"] / 3, found
    # Nothing of the size points x width is ever allocated: that alone would be 64 MB.
    assert max(found["ours"], found["fused"]) < 64, found


NO_MEMORY = """
    import resource, sys
    import torch, oracle
    from fastsiren.engine import cpp

    torch.set_num_threads(2)
    net, small = (oracle.network((2, n, n, 1), (30.0, 30.0), dtype=torch.float32) for n in (1024, 8))
    if sys.argv[1] == "many networks":
        net = net._replace(weights=[torch.stack([W] * 3) for W in net.weights])
        net = net._replace(biases=[torch.stack([b] * 3) for b in net.biases])
    x = oracle.points(small, 3 * 1153)
    before, refused = cpp.value_fwd(x, *small), 0
    # Each step allows 2 MB more, so that every kind of allocation is the one that fails, also those of worker threads.
    for extra in range(0, 60, 2):
        with open("/proc/self/statm") as f:
            size = int(f.read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (size + extra * 2**20, resource.RLIM_INFINITY))
        try:
            cpp.value_bwd(torch.ones(len(x), 1), x, *net, need_x=True, need_params=True)
            break
        except (MemoryError, RuntimeError) as error:
            assert "alloc" in str(error) or "memory" in str(error), error
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        assert torch.equal(cpp.value_fwd(x, *small), before)
    print("refused", refused > 0)
"""


@needs_cpp
@pytest.mark.parametrize("networks", ["one network", "many networks"])
def test_out_of_memory_is_an_error(networks):
    done = child(NO_MEMORY, networks, timeout=120)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-500:]}"
    assert done.stdout == "refused True\n"
