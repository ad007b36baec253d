"""Threads: the same bits for any number of them, calls from several Python threads, Ctrl-C, fork and the GIL."""

import threading
import time

import pytest
import torch

import oracle
from fastsiren.engine import backends
from oracle import Net
from passes import CPP, OUTPUTS, Case, child, isa_selected, on_every_isa, operands, threads

pytestmark = pytest.mark.usefixtures("poisoned")

every_pass = pytest.mark.parametrize("name", OUTPUTS)


def in_threads(count, function):
    with threads(count):
        return function()


def tensors(engine, name, given):
    # passes.by_engine has a number of threads of its own.
    grads = engine.backward(name, given.bars, given.net, given.x, given.seeds)
    outputs = engine.forward(name, given.net, given.x, given.seeds)
    return [*outputs, grads.x, *grads.seeds, *grads.weights, *grads.biases]


@on_every_isa
@every_pass
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("rows", [4 * 384 + 61, 9 * 1152 + 61], ids=["small segments", "large segments"])
def test_number_of_threads(rows, dtype, name, engine):
    # Several segments and a bit, so that sums over points have something to reorder.
    given = operands(name, Case((3, 33, 24, 2), (30.0, 30.0), rows), dtype)
    first, *others = [in_threads(n, lambda: tensors(engine, name, given)) for n in (1, 2, 3, 4, 2, 2)]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@on_every_isa
def test_gradient_of_one_shared_seed(engine):
    # A sum over points to a single number, which torch itself would split by the number of threads.
    for name in ("jet", "adjoint", "sandwich"):
        given = operands(name, Case((1, 8, 1), (30.0,), 70_001, K=1, R=1, C=1), torch.float32)
        results = [
            in_threads(n, lambda g=given, name=name: engine.backward(name, g.bars, g.net, g.x, g.seeds))
            for n in (1, 2, 3)
        ]
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0].seeds, other.seeds, strict=True)), name


@on_every_isa
def test_threads_share_the_weights(engine):
    # Enough of them for several threads to pack. Other weights in between, since memory is used again uncleared.
    given = operands("sandwich", Case((2, 701, 1103, 1), (30.0, 30.0), 3), torch.float32)
    other = given._replace(net=given.net._replace(weights=[-W for W in given.net.weights]))
    one, _, many = (
        in_threads(n, lambda g=g: tensors(engine, "sandwich", g)) for n, g in ((1, given), (1, other), (3, given))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@on_every_isa
def test_more_threads_than_work(engine):
    for N in (0, 1, 5):
        given = operands("jet", Case((3, 5, 2), (30.0,), N), torch.float32)
        many, one = (in_threads(n, lambda g=given: tensors(engine, "jet", g)) for n in (8, 1))
        assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize("count", [1, 2])
def test_four_callers_at_once(count):
    cpp, names = backends.module("cpp"), list(OUTPUTS)
    given = [operands(name, Case((2, 40, 33, 2), (30.0, 30.0), 2500), torch.float32) for name in names]

    def work(i):
        g, name, wanted = given[i], names[i], {"need_x": True, "need_params": True}
        grads = getattr(cpp, f"{name}_bwd")(
            *g.bars, g.x, *g.seeds, *g.net, **wanted, **({"need_seeds": True} if i else {})
        )
        outputs = getattr(cpp, f"{name}_fwd")(g.x, *g.seeds, *g.net)
        return [*(outputs if i else [outputs]), grads.x, *grads.seeds, *grads.weights, *grads.biases]

    with threads(count):
        alone = [work(i) for i in range(4)]
        wrong: list[str] = []

        def caller(start):
            # Number of threads is a setting of each thread in torch.
            torch.set_num_threads(count)
            for turn in range(12):
                i = (start + turn) % 4
                if not all(torch.equal(a, b) for a, b in zip(work(i), alone[i], strict=True)):
                    wrong.append(names[i])

        callers = [threading.Thread(target=caller, args=(i,), daemon=True) for i in range(4)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(60)
    assert not any(thread.is_alive() for thread in callers), "stalled"
    assert wrong == []


def long_call() -> tuple[Net, torch.Tensor, float]:
    """A network, points, and the seconds its jet_bwd takes with them."""
    net = oracle.network((2, 256, 256, 256, 1), (30.0,) * 3, dtype=torch.float32)
    x = oracle.points(net, 8192)
    start = time.perf_counter()
    backends.module("cpp").value_bwd(torch.ones(8192, 1), x, *net, need_x=True, need_params=True)
    return net, x, time.perf_counter() - start


def test_other_python_threads_go_on():
    with isa_selected(CPP[0].isa), threads(1):
        long_call()
        net, x, seconds = long_call()
        x = x.repeat(max(1, round(1.0 / seconds)), 1)
        ticks = [time.perf_counter()]
        stop = threading.Event()

        def tick():
            while not stop.wait(0.002):
                ticks.append(time.perf_counter())

        ticker = threading.Thread(target=tick)
        ticker.start()
        start = time.perf_counter()
        backends.module("cpp").value_bwd(torch.ones(len(x), 1), x, *net, need_x=True, need_params=True)
        end = time.perf_counter()
        stop.set()
        ticker.join()
    during = [t for t in ticks if start <= t <= end]
    longest = max(b - a for a, b in zip([start, *during], [*during, end], strict=True))
    assert end - start > 0.2, "too short a call to tell"
    assert longest < max(0.1, (end - start) / 2), f"no progress for {longest:.2f} s of {end - start:.2f} s"


INTERRUPT = """
    import os, signal, sys, threading, time
    import torch, oracle
    from fastsiren.engine import cpp

    torch.set_num_threads(int(sys.argv[1]))
    net = oracle.network((2, 256, 256, 256, 1), (30.0,) * 3, dtype=torch.float32)
    small = oracle.points(net, 1024)
    V, M, E = torch.eye(2), torch.eye(2)[None], torch.eye(1)
    pixels = torch.empty(0, 1, dtype=torch.uint8)
    def many(x):
        # Networks of 64 points, each done in less time than passes between two looks for Ctrl-C.
        params = [[p.expand(len(x) // 64, *p.shape) for p in group] for group in net[:2]]
        return cpp.loss_fwd(
            "value", x, torch.zeros(len(x), 1), None, *params, net.omegas, need_params=False, reduction="mean")[0]
    calls = {
        "value_fwd": lambda x: cpp.value_fwd(x, *net),
        "jet_bwd": lambda x: cpp.jet_bwd(
            torch.ones(len(x), 1), torch.ones(len(x), 2, 1), torch.ones(len(x), 1, 1), x, V, M, *net,
            need_x=True, need_seeds=False, need_params=True).weights[0],
        "sandwich_fwd": lambda x: cpp.sandwich_fwd(x, V, E, *net)[2],
        "loss_fwd": lambda x: cpp.loss_fwd(
            "laplacian", x, torch.zeros(len(x), 1), None, *net, need_params=True, reduction="mean")[0],
        "grid_fwd": lambda x: cpp.grid_fwd(
            (0.0, 0.0), (0.1, 0.1), (0, 0), (len(x), 1), *net, out=pixels.new_empty(len(x), 1), gain=1.0, offset=0.0),
        "many_networks": many,
    }
    # The first caller of all is not the thread that looks for Ctrl-C.
    first = threading.Thread(target=calls["value_fwd"], args=(small,))
    first.start()
    first.join()
    for name, call in calls.items():
        before = call(small)
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            call(small)
            seconds.append(time.perf_counter() - start)
        # Five seconds of work, when nothing else runs.
        x = small.repeat(int(5 / min(seconds)) + 1, 1)
        sent = []
        def strike():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(0.3, strike)
        timer.start()
        try:
            call(x)
            timer.join()
            print(name, "was not interrupted")
        except KeyboardInterrupt:
            print(name, "stopped after", time.perf_counter() - sent[0])
        timer.join()
        after = call(small)
        assert before is None or torch.equal(before, after), name
"""


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c(count):
    done = child(INTERRUPT, str(count), timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [
        "value_fwd",
        "jet_bwd",
        "sandwich_fwd",
        "loss_fwd",
        "grid_fwd",
        "many_networks",
    ]
    # Looked for every 50 ms, between tiles; the rest is for a busy machine.
    assert all(line[1] == "stopped" and float(line[3]) <= 0.5 for line in lines), done.stdout


FORK = """
    import os, signal, sys
    import torch, oracle
    from fastsiren.engine import cpp

    torch.set_num_threads(2)
    net = oracle.network((2, 64, 64, 1), (30.0, 30.0), dtype=torch.float32)
    x = oracle.points(net, 5000)
    if sys.argv[1] == "used":
        cpp.value_fwd(x, *net)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        for call in (lambda: cpp.value_fwd(x, *net), lambda: cpp.sandwich_fwd(x, torch.eye(2), torch.eye(1), *net)):
            try:
                print("result", len(call()), flush=True)
            except RuntimeError as error:
                print(error, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "the forked process did not end by itself"
    print("parent", len(cpp.value_fwd(x, *net)))
"""


def test_fork_after_use_is_refused():
    done = child(FORK, "used")
    assert done.returncode == 0, done.stderr
    *refusals, parent = done.stdout.splitlines()
    assert len(refusals) == 2 and all("'spawn'" in line and "'forkserver'" in line for line in refusals)
    assert parent == "parent 5000"


def test_fork_before_use_works():
    done = child(FORK, "fresh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == ["result 5000", "result 3", "parent 5000"]


LIMITED = """
    import hashlib
    import torch, oracle
    from fastsiren.engine import cpp

    torch.set_num_threads(4)
    net = oracle.network((2, 24, 24, 1), (30.0, 30.0), dtype=torch.float32)
    x = oracle.points(net, 5000)
    grads = cpp.value_bwd(torch.ones(5000, 1), x, *net, need_x=True, need_params=True)
    tensors = [cpp.value_fwd(x, *net), grads.x, *grads.weights, *grads.biases]
    print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest())
"""


def test_runtime_gives_fewer_threads_than_asked():
    # A thread limit makes teams smaller: every share of the work is done all the same.
    usual, limited = child(LIMITED), child(LIMITED, OMP_THREAD_LIMIT="1")
    assert usual.returncode == limited.returncode == 0, usual.stderr + limited.stderr
    assert len(usual.stdout) > 60 and usual.stdout == limited.stdout


DAEMON = """
    import threading, time
    import torch, oracle
    from fastsiren.engine import cpp

    torch.set_num_threads(2)
    net, started = oracle.network((2, 128, 128, 1), (30.0, 30.0), dtype=torch.float32), threading.Event()
    x = oracle.points(net, 2_000_000)

    def work():
        # One call, since torch itself aborts where the interpreter ends during an operation of its own.
        started.set()
        cpp.value_fwd(x, *net)

    threading.Thread(target=work, daemon=True).start()
    started.wait()
    time.sleep(0.2)
"""


def test_interpreter_ends_while_a_daemon_thread_computes():
    done = child(DAEMON, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
