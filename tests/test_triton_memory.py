"""No access of a Triton kernel outside of a buffer: each of them, also scratch memory, between inaccessible pages."""

import signal

import pytest

from passes import child

GUARDED = """
    import itertools, sys
    import torch, guarded, interpreter, oracle, passes
    from torch.overrides import TorchFunctionMode

    MADE = {torch.empty_like, torch.zeros_like, torch.cat, torch.stack, torch.Tensor.new_empty, torch.Tensor.new_zeros,
            torch.Tensor.contiguous, torch._foreach_mul}

    class Guarding(TorchFunctionMode):
        # Whatever the engine allocates is moved between guard pages, and is NaN until written.
        def __torch_function__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if function not in MADE:
                return made
            with torch._C.DisableTorchFunction():
                given = {t.data_ptr() for t in args if isinstance(t, torch.Tensor)}
                move = lambda t: t if t.data_ptr() in given else guarded.guarded(t, side)
                return move(made) if isinstance(made, torch.Tensor) else [move(t) for t in made]

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    interpreter.repair()
    engine, count = passes.Engine("triton"), 0
    # Fused forward, and layer by layer; rows that leave the last tile almost full and almost empty.
    CASES = [passes.Case((2, 17, 17, 3), (30.0, 20.0), 31, False, K=1, R=1, C=1),
             passes.Case((3, 33, 17, 2), (30.0, 20.0), 17, True, K=2, R=1, C=2)]
    for case, name in itertools.product(CASES[: int(sys.argv[2])], passes.OUTPUTS):
        given = passes.operands(name, case, getattr(torch, sys.argv[1]))
        found = []
        for side in ("left", "right"):
            keep = lambda tensors: [guarded.guarded(t, side) for t in tensors]
            net = oracle.Net(keep(given.net.weights), keep(given.net.biases), given.net.omegas)
            call = passes.Operands(net, *keep([given.x]), keep(given.seeds), keep(given.bars))
            with Guarding():
                found.append(passes.by_engine(engine, name, call).tensors())
                if name == "value":
                    D, O = case.widths[0], case.widths[-1]
                    out = guarded.guarded(torch.zeros(7 * 3 ** (D - 1), O, dtype=torch.uint8), side)
                    grid = [0.0] * D, [0.1] * D, [0] * D, (7, *[3] * (D - 1))
                    engine.call("grid_fwd", *grid, *net, out=out, gain=0.5, offset=0.5)
                    found[-1].append(out)
                    dots, (y_bar,) = (keep(given.net.weights), keep(given.net.biases)), call.bars
                    y_dot, grads = engine.call("value_bwdbwd", *keep([given.x]), *dots, y_bar, call.x, *net)
                    found[-1] += [y_dot, grads.x, *grads.weights, *grads.biases]
        assert all(a.double().isfinite().all() and torch.equal(a, b) for a, b in zip(*found, strict=True)), (case, name)
        count += 1
    print("clean", count)
"""


@pytest.mark.parametrize(("dtype", "cases"), [("float32", 2), ("float64", 1)])
def test_every_buffer_between_guard_pages(dtype, cases):
    done = child(GUARDED, dtype, str(cases), timeout=240)
    assert done.returncode == 0, f"signal or error {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout == f"clean {4 * cases}\n"


UNMASKED = """
    import torch, guarded, triton, triton.language as tl

    @triton.jit
    def copy(X, Y, count, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        tl.store(Y + i, tl.load(X + i), mask=i < count)

    copy[(1,)](guarded.guarded(torch.ones(70), "right"), torch.zeros(70), 70, BLOCK=128)
"""


def test_guard_pages_see_an_unmasked_load(tmp_path):
    # The test of the test. Triton reads the source of a kernel from a file.
    (tmp_path / "unmasked.py").write_text("\n".join(line[4:] for line in UNMASKED.splitlines()))
    done = child("import sys; sys.path.insert(0, sys.argv[1]); import unmasked", str(tmp_path))
    assert done.returncode == -signal.SIGSEGV
