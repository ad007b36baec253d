"""Derivatives by PyTorch's own means, each of the value, of jets and of losses, against plain torch."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vjp, vmap

from mechanisms import OURS, Measured, assert_same, both, every, gradients, loss, on, points, siren

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script"),
    pytest.mark.filterwarnings("ignore:We've integrated functorch"),
]


def total(measured: Measured, x: Tensor) -> Tensor:
    return loss(measured(x))


def agree(quantity: str, use, bound: float = 1e-10) -> None:
    """Compare a use of a quantity by fastsiren with the same use in plain torch."""
    ours, plain = both(quantity)
    assert_same(use(ours), use(plain), bound)


def test_the_quantities_themselves():
    """The recurrences that stand for plain torch, against nested gradients of the layers."""
    _, plain = both("jets")
    x = points().requires_grad_()
    y = plain.net.net(x)
    slopes = [torch.autograd.grad(y[:, o].sum(), x, create_graph=True)[0] for o in range(2)]
    curves = [torch.autograd.grad(s[:, d].sum(), x, retain_graph=True)[0] for s in slopes for d in range(2)]
    expected = torch.cat([(curves[0][:, :1] + curves[1][:, 1:]), (curves[2][:, :1] + curves[3][:, 1:]), *slopes,
                          *slopes, *curves], 1)  # fmt: skip
    assert_same(plain(x), expected)


def test_zeros_are_not_taken_for_results():
    expected = both("value")[1](points())
    with pytest.raises(AssertionError):
        assert_same(torch.zeros_like(expected), expected)
    with pytest.raises(AssertionError, match="nothing is compared"):
        assert_same(torch.zeros_like(expected), torch.zeros_like(expected))


@every
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_nested_autograd_grad(quantity, order, backend):
    def use(measured):
        x = points(3).requires_grad_()
        s = total(measured, x)
        # A jet is a derivative of second order itself.
        for _ in range(order - 1 - (order > 3 and quantity != "value")):
            s = torch.autograd.grad(s, x, create_graph=True)[0].square().sum()
        return torch.autograd.grad(s, [x, *measured.parameters()], materialize_grads=True)

    agree(quantity, use, 1e-9)


@every
def test_is_grads_batched(quantity, backend):
    def use(measured):
        x = points(3).requires_grad_()
        y = measured(x)
        rows = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
        # Not the last bias, which jets do not depend on: torch gives zeros without the batch for what is unused.
        return torch.autograd.grad(y, [x, *list(measured.parameters())[:-1]], rows, is_grads_batched=True)

    agree(quantity, use)


@every
@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_autograd_functional(quantity, strategy, backend):
    def use(measured):
        functional = torch.autograd.functional
        options = {"vectorize": True} if strategy == "forward-mode" else {}
        return (
            functional.jacobian(measured, points(2), strategy=strategy, **options),
            functional.hessian(lambda x: total(measured, x), points(2)),
        )

    agree(quantity, use)


def called(measured: Measured):
    """The quantity as a function of parameters and coordinates."""
    return lambda params, x: functional_call(measured, params, (x,))


def parameters(measured: Measured) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in measured.named_parameters()}


FUNC = {
    "grad": lambda m, f, p: (grad(lambda p, x: loss(f(p, x)), (0, 1))(p, points()),
                             grad(lambda x: grad(lambda x: loss(f(p, x)))(x).square().sum())(points())),
    "vjp": lambda m, f, p: vjp(f, p, points())[1](m(points()).cos().detach()),
    "jvp": lambda m, f, p: jvp(f, (p, points()), ({n: t.cos() for n, t in p.items()}, points().sin())),
    "jacrev": lambda m, f, p: (jacrev(f, (0, 1))(p, points(2)), jacrev(jacrev(f, 1), 1)(p, points(2))),
    "jacfwd": lambda m, f, p: (jacfwd(f, (0, 1))(p, points(2)), jacfwd(jacfwd(f, 1), 1)(p, points(2))),
    "hessian": lambda m, f, p: hessian(lambda p, x: loss(f(p, x)), (0, 1))(p, points(2)),
}  # fmt: skip


def use_func(name: str, quantity: str) -> None:
    agree(quantity, lambda measured: FUNC[name](measured, called(measured), parameters(measured)))


@every
def test_func_grad(quantity, backend):
    use_func("grad", quantity)


@every
def test_func_vjp(quantity, backend):
    use_func("vjp", quantity)


@every
def test_func_jvp(quantity, backend):
    use_func("jvp", quantity)


@every
def test_func_jacrev(quantity, backend):
    use_func("jacrev", quantity)


@every
def test_func_jacfwd(quantity, backend):
    use_func("jacfwd", quantity)


@every
def test_func_hessian(quantity, backend):
    use_func("hessian", quantity)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")
@every
def test_func_linearize(quantity):
    def use(measured):
        value, tangent = linearize(measured, points())
        return value, tangent(points().cos())

    agree(quantity, use)


@on("jets", "losses")
def test_functional_call_of_net_x_quantity(quantity, backend):
    ours, plain = both(quantity)

    def asked(net, x):
        return loss(OURS[quantity](net, x))

    params = {name: p.detach() for name, p in ours.net.named_parameters()}
    found = grad(lambda p: functional_call(ours.net, p, (points(), asked)))(params)
    assert_same(found, gradients(plain, points()))


@every
def test_vmap_over_points(quantity, backend):
    def use(measured):
        one = vmap(measured)(points())
        return one, vmap(jacrev(jacrev(measured)))(points(3)), vmap(measured, 1)(points(3, 4))

    agree(quantity, use)


def ensemble(quantity: str) -> list[tuple[Measured, dict[str, Tensor]]]:
    """Three networks, their parameters stacked, by fastsiren and in plain torch."""
    nets = [siren() for _ in range(3)]
    found = []
    for plain in (False, True):
        modules = [Measured(net, quantity, plain=plain) for net in nets]
        found.append((modules[0], stack_module_state(modules)[0]))
    return found


@every
def test_vmap_over_weights(quantity, backend):
    def use(measured, params):
        run = called(measured)
        slope = grad(lambda p, x: loss(run(p, x)))
        return vmap(run, (0, None))(params, points()), vmap(slope, (0, None))(params, points())

    assert_same(*(use(*member) for member in ensemble(quantity)))


@every
def test_vmap_over_points_and_weights(quantity, backend):
    def use(measured, params):
        run, x = called(measured), points(3, 4)
        slope = grad(lambda p, x: loss(run(p, x)))
        return vmap(run)(params, x), vmap(vmap(run, (None, 0)))(params, x), vmap(slope)(params, x)

    assert_same(*(use(*member) for member in ensemble(quantity)))


@every
def test_per_sample_gradients(quantity, backend):
    def use(measured):
        each = vmap(grad(lambda p, x: loss(called(measured)(p, x))), (None, 0))(parameters(measured), points())
        assert all(len(gradient) == len(points()) for gradient in each.values())
        return each

    agree(quantity, use)


@every
def test_forward_mode_ad(quantity, backend):
    def use(measured):
        with forward_ad.dual_level():
            x = forward_ad.make_dual(points(), points().cos())
            params = dict(measured.named_parameters())
            moved = {name: forward_ad.make_dual(p, p.cos()) for name, p in parameters(measured).items()}
            results = called(measured)(moved, points()), called(measured)(params, x)
            return [forward_ad.unpack_dual(result).tangent for result in results]

    agree(quantity, use)


@every
def test_gradcheck(quantity, backend):
    measured = both(quantity)[0]
    x = points(3).requires_grad_()
    names, params = zip(*measured.named_parameters(), strict=True)

    def run(x, *params):
        return functional_call(measured, dict(zip(names, params, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *params), fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, (x, *params), fast_mode=True, atol=1e-4)


@every
def test_no_grad_and_inference_mode(quantity, backend):
    ours, plain = both(quantity)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = ours(points())
        assert not found.requires_grad
        assert_same(found, plain(points()))


@every
def test_weights_changed_before_backward_raises(quantity, backend):
    """A backward pass with other weights than those of its forward would be wrong in silence."""
    measured = both(quantity)[0]
    result = loss(measured(points().requires_grad_()))
    with torch.no_grad():
        measured.net.net[1].linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.backward()


@every
def test_meta_device(quantity):
    """Shapes, and a backward, without numbers."""
    ours = Measured(siren(device="meta"), quantity)
    x = points().to("meta").requires_grad_()
    result = ours(x)
    assert result.shape == both(quantity)[0](points()).shape
    assert [g.shape for g in gradients(ours, x)] == [p.shape for p in ours.parameters()]
    assert x.grad.shape == x.shape and x.grad.is_meta


@every
def test_profiler(quantity, backend):
    ours, plain = both(quantity)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        found = gradients(ours, points())
    assert_same(found, gradients(plain, points()))
    assert any(event.key.startswith("fastsiren::") for event in profiler.key_averages())


@every
def test_saved_tensor_hooks(quantity, backend):
    ours, plain = both(quantity)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        found = gradients(ours, points())
    assert_same(found, gradients(plain, points()))


@every
def test_detect_anomaly(quantity, backend):
    ours, plain = both(quantity)
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        found = gradients(ours, points())
    assert_same(found, gradients(plain, points()))
