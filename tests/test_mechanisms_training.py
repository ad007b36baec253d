"""What training uses of PyTorch: precision, optimizers, checkpoints, copies, parametrizations, graphs of CUDA."""

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import fastsiren
from mechanisms import OURS, Measured, assert_same, both, every, gradients, joined, loss, points, siren

pytestmark = [pytest.mark.filterwarnings("ignore:`torch.jit.script")]


# Precision


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16], ids=str)
@every
def test_autocast(quantity, narrow, backend):
    """Nothing changes, to the bit, but that coordinates from a narrowed layer are taken."""
    measured = Measured(siren(dtype=torch.float32), quantity)
    x = points().float().to(narrow)
    expected = measured(x.float()), gradients(measured, x.float())
    with torch.autocast("cpu", dtype=narrow):
        found = measured(x.float()), gradients(measured, x.float())
        taken = OURS["value"](measured.net, x)
    assert found[0].dtype == taken.dtype == torch.float32
    assert torch.equal(joined(found), joined(expected)) and joined(found).any()
    assert torch.equal(taken, OURS["value"](measured.net, x.float()))


@every
def test_gradscaler(quantity, backend):
    """A step with scaled gradients is the step without; one with a gradient that is not finite is left out."""
    stepped = []
    for measured in both(quantity):
        optimizer = torch.optim.SGD(measured.parameters(), lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for x in (points(), points() / 0):
            optimizer.zero_grad()
            scaler.scale(loss(measured(x))).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 2.0**9
        stepped.append([p.detach() for p in measured.parameters()])
    assert_same(*stepped)


@every
def test_float64(quantity, backend):
    ours, plain = both(quantity)
    assert ours(points()).dtype == torch.float64
    assert_same(ours(points()), plain(points()), 1e-13)
    assert_same(gradients(ours, points()), gradients(plain, points()), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@every
def test_float32_float16_bfloat16(quantity, dtype):
    """The backend in force takes a dtype that it has kernels for; the reference takes the others."""
    net = siren(dtype=dtype)
    ours, plain = Measured(net, quantity), Measured(copy.deepcopy(net).double(), quantity, plain=True)
    x = points().to(dtype)
    found = ours(x)
    assert found.dtype == dtype
    assert_same(found, plain(x.double()), 40 * torch.finfo(dtype).eps)


@every
def test_complex_and_integer_dtypes_raises(quantity, backend):
    ours = both(quantity)[0]
    for dtype in (torch.complex128, torch.int64):
        with pytest.raises(TypeError, match=f"x: got .*{dtype}"):
            OURS[quantity](ours.net, points().to(dtype))
    with pytest.warns(UserWarning, match="Complex modules"):
        ours.to(torch.complex128)
    with pytest.raises(TypeError, match=r"complex128.*floating-point"):
        OURS[quantity](ours.net, points().to(torch.complex128))


# Optimizers


def stepped(measured: Measured, make, steps: int = 3) -> list[torch.Tensor]:
    """Parameters after a few steps of an optimizer."""
    optimizer = make(list(measured.parameters()))

    def closure():
        optimizer.zero_grad()
        result = loss(measured(points()))
        result.backward()
        for p in measured.parameters():
            # A fused pass gives zeros, which weight decay acts on, where plain torch gives nothing.
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        return result

    for _ in range(steps):
        optimizer.step(closure)
    return [p.detach() for p in measured.parameters()]


# Muon takes matrices only; SparseAdam takes sparse gradients, and LBFGS has a test of its own.
OPTIMIZERS = [
    kind for name, kind in sorted(vars(torch.optim).items())
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "LBFGS", "Muon")
]  # fmt: skip


@every
def test_torch_optim(quantity, backend):
    """Every optimizer of torch, as it is, and in one fused call where it has that for the CPU."""
    assert len(OPTIMIZERS) >= 12
    fused = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)
    made = [lambda p, k=kind: k(p, lr=1e-3) for kind in OPTIMIZERS]
    made += [lambda p, k=kind: k(p, lr=1e-3, fused=True) for kind in fused]
    made += [lambda p: torch.optim.Muon([t for t in p if t.ndim == 2], lr=1e-3)]
    for make in made:
        ours, plain = both(quantity)
        assert_same(stepped(ours, make), stepped(plain, make), 1e-7)


@every
def test_l_bfgs(quantity, backend):
    def make(params):
        return torch.optim.LBFGS(params, max_iter=4, line_search_fn="strong_wolfe")

    ours, plain = both(quantity)
    assert_same(stepped(ours, make, 1), stepped(plain, make, 1), 1e-6)


@every
def test_averagedmodel(quantity, backend):
    ours, plain = (torch.optim.swa_utils.AveragedModel(measured) for measured in both(quantity))
    for average, measured in ((ours, ours.module), (plain, plain.module)):
        moved = copy.deepcopy(measured)
        stepped(moved, lambda p: torch.optim.SGD(p, lr=1e-2))
        average.update_parameters(measured)
        average.update_parameters(moved)
    assert_same(ours(points()), plain(points()))


# Recomputation and determinism


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])
@every
def test_torch_utils_checkpoint(quantity, use_reentrant, backend):
    def use(measured):
        x = points().requires_grad_()
        result = loss(checkpoint(measured, x, use_reentrant=use_reentrant))
        if use_reentrant:
            # Torch has no torch.autograd.grad through this kind.
            measured.zero_grad()
            result.backward()
            return [x.grad, *[p.grad for p in measured.parameters()][:-1]]
        slope = torch.autograd.grad(result, x, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), [x, *list(measured.parameters())[:-1]])

    ours, plain = both(quantity)
    assert_same(use(ours), use(plain))


@every
def test_deterministic_algorithms(quantity):
    measured = both(quantity)[0]
    before = gradients(measured, points(300))
    torch.use_deterministic_algorithms(True)
    try:
        found = [gradients(measured, points(300)) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert joined(before).any()
    assert all(torch.equal(joined(again), joined(before)) for again in found)


# Copies


@every
def test_deepcopy(quantity, backend):
    measured = both(quantity)[0]
    measured.net.net[0].omega_0 = 1.25
    twin = copy.deepcopy(measured)
    assert_same(twin(points()), measured(points()), 0)
    with torch.no_grad():
        twin.net.net[0].linear.weight.zero_()
    assert measured.net.net[0].linear.weight.all()


@every
def test_pickle(quantity, backend):
    measured = both(quantity)[0]
    measured.net.net[0].omega_0 = 1.25
    twin = pickle.loads(pickle.dumps(measured))  # noqa: S301
    assert_same(twin(points()), measured(points()), 0)
    stream = io.BytesIO()
    torch.save(measured.state_dict(), stream)
    stream.seek(0)
    other = both(quantity)[0]
    other.net.net[0].omega_0 = 1.25
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert_same(other(points()), measured(points()), 0)


@every
def test_share_memory(quantity, backend):
    """What goes to another process is the same memory: a step there is seen here."""
    measured = both(quantity)[0].share_memory()
    twin = pickle.loads(bytes(ForkingPickler.dumps(measured)))  # noqa: S301
    before = measured(points())
    stepped(twin, lambda p: torch.optim.SGD(p, lr=1e-2), 1)
    assert_same(measured(points()), twin(points()), 0)
    assert not torch.equal(measured(points()), before)


# Layers


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
@every
def test_parametrizations(quantity, kind, backend):
    net = siren()
    for layer in (net.net[0].linear, net.net[1].linear):
        getattr(parametrizations, kind)(layer)
    # Otherwise spectral_norm changes its vectors at every evaluation.
    net.eval()
    ours, plain = both(quantity, net)
    assert_same(ours(points()), plain(points()))
    assert_same(gradients(ours, points()), gradients(plain, points()))


def pruned(net: fastsiren.Siren) -> None:
    prune.l1_unstructured(net.net[1].linear, "weight", 0.5)


def weight_norm_of_old(net: fastsiren.Siren) -> None:
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(net.net[0].linear)


HOOKS = {
    "prune": pruned,
    "weight_norm": weight_norm_of_old,
    "recorder": lambda net: net.net[0].register_forward_hook(lambda *args: None),
    "of the layers": lambda net: net.net.register_forward_pre_hook(lambda *args: None),
    "backward": lambda net: net.net[2].register_full_backward_hook(lambda *args: None),
}


@pytest.mark.parametrize("kind", HOOKS)
@every
def test_hooks_of_layers_raises(quantity, kind):
    net = siren()
    HOOKS[kind](net)
    with pytest.raises(RuntimeError, match=r"net.*: has hooks"):
        OURS[quantity](net, points())


@every
def test_hooks_of_the_network(quantity):
    """Those of the module that is called fire."""
    ours, plain = both(quantity)
    for measured in (ours, plain):
        measured.register_forward_hook(lambda module, args, result: 2 * result)
        measured.register_full_backward_hook(lambda module, given, received: None)
    x = points().requires_grad_()
    assert_same(gradients(ours, x), gradients(plain, x))


class Adapted(nn.Linear):
    """A linear layer that adds something, as adapters of low rank do."""

    def forward(self, h):
        return super().forward(h) + h.sum()


class OtherSine(fastsiren.siren.SineLayer):
    """A layer with something behind its sine."""

    def forward(self, h):
        return super().forward(h) ** 2


def other_sine(net: fastsiren.Siren) -> None:
    net.net[1] = OtherSine(net.net[1].linear, omega_0=1.5)


OTHERS = {
    "last": lambda net: setattr(net.net, "2", Adapted(5, 2, dtype=torch.float64)),
    "inside": lambda net: setattr(net.net[1], "linear", Adapted(5, 5, dtype=torch.float64)),
    "sine": other_sine,
    "activation": lambda net: net.net.append(nn.Tanh()),
}


@pytest.mark.parametrize("kind", OTHERS)
@every
def test_layers_of_other_classes_raises(quantity, kind):
    """They were evaluated as if they were what they replaced."""
    net = siren()
    OTHERS[kind](net)
    with pytest.raises(TypeError, match=r"net\.\d: got \w+, expected (Linear|SineLayer)"):
        OURS[quantity](net, points())


# CUDA


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@every
def test_cuda_graphs(quantity):
    """One forward and backward, captured, and replayed with other numbers in the same memory."""
    measured = Measured(siren(dtype=torch.float32).cuda(), quantity)
    static = points().float().cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            gradients(measured, static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    measured.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        result = measured(static)
        loss(result).backward()
    other = points(6).flip(0).float().cuda()
    static.copy_(other)
    graph.replay()
    found = [result, *(p.grad for p in measured.parameters() if p.grad is not None)]
    found = joined(found).clone()
    expected = [measured(other), *gradients(measured, other)]
    assert_same(found, [tensor for tensor in expected if tensor is not None], 1e-5)
