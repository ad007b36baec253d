"""What the tests compare with: nested autograd, networks to try, and the error rule.

Nothing here uses fastsiren. The functions of a network are plain torch, differentiable as often as wanted, in the dtype
of their arguments: called in float64 they give the exact result, in the tested dtype what plain torch makes of it.

    net = oracle.network((2, 16, 16, 3), (30.0, 30.0), dtype=torch.float32)
    x = oracle.points(net, 100)
    plain, exact = (oracle.jacobian(n, p) for n, p in ((net, x), (net.double(), x.double())))
    oracle.assert_error_rule(ours, plain, exact, quantity="first")

Gradients, for whatever the caller made require one:

    net, (x, V, M) = net.double().tracked(), oracle.tracked(x.double(), V.double(), M.double())
    x_bar, V_bar, M_bar, *parameters = oracle.gradients(oracle.jet(net, x, V, M), bars, [x, V, M, *net.parameters()])

In float64 itself, where plain torch is the exact result, compare by `relative_error`.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Net(NamedTuple):
    """Raw parameters, as nn.Linear holds them, and one omega per sine layer: the arguments of every pass."""

    weights: list[Tensor]
    biases: list[Tensor]
    omegas: list[float]

    def to(self, dtype: torch.dtype) -> "Net":
        """The same numbers in another dtype, without gradients."""
        return Net(
            [w.detach().to(dtype) for w in self.weights], [b.detach().to(dtype) for b in self.biases], self.omegas
        )

    def double(self) -> "Net":
        """The same numbers in float64."""
        return self.to(torch.float64)

    def tracked(self) -> "Net":
        """Copies that require a gradient."""
        return Net(tracked(*self.weights), tracked(*self.biases), self.omegas)

    def parameters(self) -> list[Tensor]:
        """Weights, then biases."""
        return [*self.weights, *self.biases]


def tracked(*tensors: Tensor) -> list[Tensor]:
    """Copies of tensors, each requiring a gradient."""
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def uniform(*shape: int, bound: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers in [-bound, bound]."""
    generator = torch.Generator().manual_seed(seed)
    return ((torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound).to(dtype)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers: cotangents and seeds."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small work is faster so on a busy machine, and its sums are always the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Networks


def network(
    widths: Sequence[int], omegas: Sequence[float], *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Net:
    """A network (D, H_0, .., H_L, O) with the paper's initial weights and the initial biases of nn.Linear."""
    sizes = list(itertools.pairwise(widths))
    factors = [*omegas, omegas[-1]]
    bounds = [math.sqrt(6 / n_in) / (abs(factor) or 1.0) for (n_in, _), factor in zip(sizes, factors, strict=True)]
    bounds[0] = 1 / widths[0]
    weights = [
        uniform(n_out, n_in, bound=bound, seed=1000 * seed + 2 * i, dtype=dtype)
        for i, ((n_in, n_out), bound) in enumerate(zip(sizes, bounds, strict=True))
    ]
    biases = [
        uniform(n_out, bound=1 / math.sqrt(n_in), seed=1000 * seed + 2 * i + 1, dtype=dtype)
        for i, (n_in, n_out) in enumerate(sizes)
    ]
    return Net(weights, biases, [float(omega) for omega in omegas])


def points(net: Net, count: int, *, seed: int = 1) -> Tensor:
    """Coordinates [count, D] in [-1, 1], in the dtype of the network."""
    return uniform(count, net.weights[0].shape[1], seed=seed, dtype=net.weights[0].dtype)


def trained(name: str, dtype: torch.dtype = torch.float32) -> Net:
    """A small network after a short training: weights are larger than at the start.

    Args:
        name: one of TRAINED: "image" (2 -> 3), "sdf" (3 -> 1) or "audio" (1 -> 1, first omega 3000).
        dtype: of the parameters, rounded from float32.
    """
    return _train(name).to(dtype)


TRAINED = ("image", "sdf", "audio")


@functools.cache
def _train(name: str) -> Net:
    (inputs, first_omega), target = {"image": (2, 30.0), "sdf": (3, 30.0), "audio": (1, 3000.0)}[name], _TARGETS[name]
    outputs = 3 if name == "image" else 1
    net = network((inputs, 64, 64, 64, outputs), (first_omega, 30.0, 30.0), seed=7, dtype=torch.float32).tracked()
    x = points(net, 512, seed=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    with one_thread():
        for _ in range(120):
            optimizer.zero_grad()
            (value(net, x) - target(x)).square().mean().backward()
            optimizer.step()
    return net.to(torch.float32)


_TARGETS = {
    "image": lambda x: torch.stack(
        [(5 * x[:, 0]).sin() * x[:, 1], (20 * (x.norm(dim=1) - 0.6)).tanh(), torch.sign(x[:, 0] - x[:, 1])], 1
    ),
    "sdf": lambda x: torch.minimum(x.norm(dim=1) - 0.5, x[:, 0].abs() + 0.1).unsqueeze(1),
    "audio": lambda x: (0.5 * (400 * x).sin() + 0.3 * (1700 * x + 1).sin()) * torch.exp(-2 * x.abs()),
}


# Plain torch


def value(net: Net, x: Tensor) -> Tensor:
    """y [N, O]."""
    h = x
    for W, b, omega in zip(net.weights[:-1], net.biases[:-1], net.omegas, strict=True):
        h = torch.sin(omega * torch.nn.functional.linear(h, W, b))
    return torch.nn.functional.linear(h, net.weights[-1], net.biases[-1])


def gradients(outputs: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of sum <cotangent, output>, differentiable again; zero where nothing depends on an input."""
    loss = sum((cotangent * output).sum() for cotangent, output in zip(cotangents, outputs, strict=True))
    return list(torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True, materialize_grads=True))


def _slopes(z: Tensor, x: Tensor) -> Tensor:
    """[N, D] of a quantity [N]; points do not see each other."""
    return torch.autograd.grad(z.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True)[0]


def jacobian(net: Net, x: Tensor) -> Tensor:
    """J [N, O, D]."""
    with torch.enable_grad():
        x = x if x.requires_grad else tracked(x)[0]
        y = value(net, x)
        return torch.stack([_slopes(y[:, o], x) for o in range(y.shape[1])], 1)


def hessian(net: Net, x: Tensor) -> Tensor:
    """Hessian [N, O, D, D]."""
    with torch.enable_grad():
        x = x if x.requires_grad else tracked(x)[0]
        J = jacobian(net, x)
        rows = [[_slopes(J[:, o, d], x) for d in range(J.shape[2])] for o in range(J.shape[1])]
        return torch.stack([torch.stack(row, 1) for row in rows], 1)


def jet(net: Net, x: Tensor, V: Tensor, M: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, T [N, K, O] along V and S [N, R, O] by the forms M; V and M per point or shared by all."""
    V, M = V.expand(len(x), *V.shape[-2:]), M.expand(len(x), *M.shape[-3:])
    T = torch.einsum("nkd,nod->nko", V, jacobian(net, x))
    S = torch.einsum("nrkj,nkd,nje,node->nro", M, V, V, hessian(net, x))
    return value(net, x), T, S


def adjoint(net: Net, x: Tensor, E: Tensor) -> tuple[Tensor, Tensor]:
    """y and J [N, C, D] of the combinations E, per point or shared by all."""
    return value(net, x), torch.einsum("nco,nod->ncd", E.expand(len(x), *E.shape[-2:]), jacobian(net, x))


def sandwich(net: Net, x: Tensor, V: Tensor, E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y, J [N, C, D] and H [N, C, K, K] of the combinations E along V."""
    V, E = V.expand(len(x), *V.shape[-2:]), E.expand(len(x), *E.shape[-2:])
    return *adjoint(net, x, E), torch.einsum("nco,nkd,nje,node->nckj", E, V, V, hessian(net, x))


# Errors


def relative_error(ours: Tensor, exact: Tensor) -> float:
    """L2 norm of the difference over that of `exact`; infinite for non-finite numbers or another shape."""
    if ours.shape != exact.shape:
        return math.inf
    error, norm = (ours.double() - exact.double()).norm().item(), exact.double().norm().item()
    if not math.isfinite(error) or not math.isfinite(norm):
        return math.inf
    return error / norm if norm else (math.inf if error else 0.0)


class Limits(NamedTuple):
    """Absolute limits of a precision: rules 3 and 4."""

    bias: float
    cosine: float
    norm: str  # "max": max|K-R| / rms(R); "rms": rms(K-R) / rms(R)
    caps: dict[str, float]


# Caps of the networks of reach: omega 30, initial or trained, width up to 256, depth 3 to 8.
LIMITS = {
    "fp32": Limits(1e-6, 1e-10, "max", {
        "value": 1.5e-5, "first": 2.5e-5, "second": 3e-5, "weight_grad": 1e-4, "eikonal_weight_grad": 4e-5}),
    "fp16": Limits(2e-3, 1e-3, "rms", {
        "value": 1.5e-2, "first": 2.5e-2, "second": 3e-2, "weight_grad": math.inf, "eikonal_weight_grad": 4e-2}),
    "tf32": Limits(2e-3, 1e-3, "rms", {
        "value": 1.5e-2, "first": 2.5e-2, "second": 3e-2, "weight_grad": math.inf, "eikonal_weight_grad": 4e-2}),
    "bf16": Limits(1e-2, 1e-3, "rms", {
        "value": 0.1, "first": 0.15, "second": 0.2, "weight_grad": 0.1, "eikonal_weight_grad": 0.2}),
}  # fmt: skip
PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class ErrorReport(NamedTuple):
    """Every number of the error rule beside its bound; ratios of a correct result are <= 1."""

    max_error: tuple[float, float]
    mean_error: tuple[float, float]
    bias: tuple[float, float]
    cosine: tuple[float, float]
    cap: tuple[float, float]

    def ratios(self) -> dict[str, float]:
        """Number over bound, by name; 0 / 0 is 0."""
        return {
            name: got / bound if bound else (math.inf if got else 0.0) for name, (got, bound) in self._asdict().items()
        }

    def __str__(self) -> str:
        ratios = self.ratios()
        rows = (
            f"  {name:10s} {got:.3e} <= {bound:.3e}  (ratio {ratios[name]:.2f}){'' if got <= bound else '  BROKEN'}"
            for name, (got, bound) in self._asdict().items()
        )
        return "\n".join(rows)


def assert_error_rule(
    ours: Tensor | Sequence[Tensor],
    plain: Tensor | Sequence[Tensor],
    reference64: Tensor | Sequence[Tensor],
    *,
    quantity: str = "other",
    precision: str | None = None,
    capped: bool = True,
) -> ErrorReport:
    """Raise AssertionError unless `ours` is as accurate as plain torch in the same dtype.

    With K ours, P plain and R exact, all finite, at the scale max|R| = 1:
        1. max|K-R| <= 2 max|P-R| + floor, floor = two roundings of R at unit scale
        2. mean|K-R| <= 1.5 mean|P-R| + floor/4
        3. signed bias |sum(K-R)| / sum|R| and 1 - cosine(K, R) under the limits of the precision; random errors of the
           size of plain torch's are granted four standard deviations of bias
        4. an absolute cap on the error per quantity, so that a bad P excuses nothing

    Args:
        ours, plain, reference64: a tensor, or several (weight gradients, say) that are judged together, each at its own
            scale; those of few numbers, where plain torch can be right by luck, are best judged with others.
        quantity: "value", "first", "second" (derivatives in x), "weight_grad", "eikonal_weight_grad"; "other": no cap.
        precision: "fp32", "tf32", "fp16" or "bf16"; default: that of the dtype of `ours`.
        capped: False for networks out of the caps' reach (omega 3000, say): rule 4 is dropped, and in rule 3 the limits
            are 4 times what plain torch shows where that is more.

    Returns:
        The report, for its ratios.
    """
    groups = [[t] if isinstance(t, Tensor) else list(t) for t in (ours, plain, reference64)]
    shapes = [[tuple(t.shape) for t in group] for group in groups]
    assert shapes[0] == shapes[1] == shapes[2], f"shapes: ours {shapes[0]}, plain {shapes[1]}, exact {shapes[2]}"
    dtype = groups[0][0].dtype
    assert dtype in PRECISIONS, f"ours: got {dtype}, expected one of {list(PRECISIONS)}; for float64 use relative_error"
    assert quantity in (*LIMITS["fp32"].caps, "other"), (
        f"quantity: got {quantity!r}, expected {[*LIMITS['fp32'].caps, 'other']}"
    )
    assert all(t.dtype == dtype for t in groups[0] + groups[1]), "ours and plain: expected one dtype"
    assert all(t.dtype == torch.float64 for t in groups[2]), "reference64: expected float64"
    for name, group in zip(("ours", "plain", "reference64"), groups, strict=True):
        assert all(t.isfinite().all() for t in group), f"{name} is not finite"
    K, P, R = _unit_scale(groups)
    report = _measure(K, P, R, dtype, quantity, LIMITS[precision or PRECISIONS[dtype]], capped)
    assert all(got <= bound for got, bound in report), f"error rule broken for {quantity!r} ({dtype}):\n{report}"
    return report


def _unit_scale(groups: list[list[Tensor]]) -> list[Tensor]:
    """Join each group to one float64 vector, each tensor over the power of two below max|R|."""
    scales = []
    for exact in groups[2]:
        largest = exact.abs().max().item() if exact.numel() else 0.0
        scales.append(2.0 ** math.floor(math.log2(largest)) if largest else 1.0)
    return [
        torch.cat([t.detach().double().flatten() / scale for t, scale in zip(group, scales, strict=True)])
        for group in groups
    ]


def _measure(
    K: Tensor, P: Tensor, R: Tensor, dtype: torch.dtype, quantity: str, limits: Limits, capped: bool
) -> ErrorReport:
    if not K.numel():
        return ErrorReport(*[(0.0, 0.0)] * 5)
    ours, plain, rounded = K - R, P - R, R.to(dtype)
    shaken = ((rounded + 0.3) - 0.3 - rounded).abs().max().item()
    floor = 2 * max(shaken, torch.finfo(dtype).eps)
    size = R.abs().sum().item() or 1.0
    chance = 4 * plain.norm().item() / size
    bias, cosine = limits.bias + chance, limits.cosine
    if not capped:
        bias = max(bias, 4 * plain.sum().abs().item() / size)
        cosine = max(cosine, 4 * _angle(P, R))
    rms = R.square().mean().sqrt().item() or 1.0
    error = ours.abs().max() if limits.norm == "max" else ours.square().mean().sqrt()
    caps = {**limits.caps, "other": math.inf}
    return ErrorReport(
        (ours.abs().max().item(), 2 * plain.abs().max().item() + floor),
        (ours.abs().mean().item(), 1.5 * plain.abs().mean().item() + floor / 4),
        (ours.sum().abs().item() / size, bias),
        (_angle(K, R), cosine),
        (error.item() / rms, caps[quantity] if capped else math.inf),
    )


def _angle(a: Tensor, b: Tensor) -> float:
    """1 - cosine, exact also for small angles; 0 where both vanish."""
    norms = a.norm(), b.norm()
    if not norms[0] or not norms[1]:
        return float(bool(norms[0]) != bool(norms[1]))
    return ((a / norms[0] - b / norms[1]).square().sum() / 2).item()
