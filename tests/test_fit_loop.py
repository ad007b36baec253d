"""The training loop: samples, rates, Adam and L-BFGS, states; derivatives of any network; logs for TensorBoard."""

import math
import sys
import types

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import faults
from fastsiren.fit import (
    Log,
    Shuffle,
    Step,
    Trainer,
    autograd_operators,
    decay,
    operators,
    run,
    uniform,
)
from fastsiren.problems.metrics import ssim
from fastsiren.problems.plain_networks import PlainSiren


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (12, 4), (5, 5), (7, 100), (1, 1)])
def test_each_epoch_visits_every_sample_once(count, batch):
    sampler = Shuffle(count, batch, seed=3)
    for epoch in range(3):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        assert sorted(torch.cat([sampler(step) for step in steps]).tolist()) == list(range(count))


def test_samples_depend_on_seed_and_step_alone():
    forward = [Shuffle(100, 30, seed=1)(step).tolist() for step in range(8)]
    sampler = Shuffle(100, 30, seed=1)
    assert [sampler(step).tolist() for step in reversed(range(8))] == forward[::-1]
    assert Shuffle(100, 30, seed=2)(0).tolist() != forward[0]
    assert forward[4] != forward[0]


def test_learning_rate_rises_then_falls():
    rate = decay(2.0, 101, final=0.1, warmup=9)
    assert rate(0) == pytest.approx(0.2)
    assert rate(100) == pytest.approx(0.2)
    assert decay(2.0, 101)(50) == pytest.approx(1.01)
    assert decay(1.0, 1)(0) == 1.0


def trainer(steps=40):
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    x = torch.randn(20, 3)
    return Trainer(net, lambda step: (net(x) - x[:, :2] * (1 + step % 3)).square().mean(), rate=decay(0.1, steps))


def test_adam_is_that_of_torch():
    ours, theirs = trainer(), trainer()
    optimiser = torch.optim.Adam(theirs.net.parameters(), fused=True)
    for step in range(40):
        optimiser.param_groups[0]["lr"] = theirs.rate(step)
        optimiser.zero_grad()
        theirs.loss(step).backward()
        optimiser.step()
    run(ours, 40)
    assert torch.equal(ours.net.weight, theirs.net.weight)


@pytest.mark.parametrize("pause", [0, 1, 16, 17, 39])
def test_a_break_changes_no_bit(pause):
    whole, first, second = trainer(), trainer(), trainer()
    run(whole, 40)
    run(first, pause)
    second.load(first.state())
    assert run(second, 40).number == 40
    assert equal(second.state(), whole.state())


def test_a_loaded_state_is_a_copy():
    first, second, third = trainer(), trainer(), trainer()
    run(first, 5)
    state = first.state()
    second.load(state)
    run(second, 20)
    third.load(state)
    assert third.step == 5
    assert equal(third.state(), first.state())


def test_a_non_finite_loss_sets_back_to_a_good_state():
    healthy, broken = trainer(), trainer()
    run(healthy, 16)
    original = broken.loss
    broken.loss = lambda step: original(step) * (math.nan if step == 20 else 1.0)
    with pytest.raises(faults.NonFiniteError, match=r"nan at step 21; the state of step 16.*--lr"):
        run(broken, 40)
    assert equal(broken.state(), healthy.state())


def test_a_non_finite_loss_right_after_loading_keeps_what_was_loaded():
    first, second = trainer(), trainer()
    run(first, 7)
    second.loss = lambda step: torch.tensor(math.inf)
    second.load(first.state())
    with pytest.raises(faults.NonFiniteError):
        run(second, 40)
    assert equal(second.state(), first.state())


def test_parts_of_a_loss_are_added_up():
    whole, parts = trainer(), trainer()
    original = parts.loss
    parts.loss = lambda step: (original(step) * share for share in (0.25, 0.5, 0.25))
    assert run(parts, 20).loss == pytest.approx(run(whole, 20).loss, rel=1e-5)
    torch.testing.assert_close(parts.net.weight, whole.net.weight)


def test_gradients_are_clipped_together():
    ours = trainer()
    ours.clip = 1e-3
    ours.loss(0).backward()
    wanted = [
        p.grad * 1e-3 / torch.sqrt(sum(q.grad.square().sum() for q in ours.net.parameters()))
        for p in ours.net.parameters()
    ]
    run(ours, 1)
    for parameter, gradient in zip(ours.net.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def bent(lbfgs_from, **options):
    """A problem that Adam is slow at: a narrow bent valley."""
    torch.manual_seed(0)
    net = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)

    def loss(step):
        a, b = net.weight[:, 0]
        return (1 - a) ** 2 + 100 * (b - a**2) ** 2

    return Trainer(net, loss, rate=lambda step: 0.01, lbfgs_from=lbfgs_from, **options)


def test_lbfgs_ends_what_adam_began():
    assert run(bent(None), 40).loss > 1e-3
    assert run(bent(30), 40).loss < 1e-9


def test_a_longer_round_of_lbfgs_gets_further():
    assert run(bent(0, lbfgs_round=3), 2).loss > 1e-3 > run(bent(0, lbfgs_round=100), 2).loss


@pytest.mark.parametrize("begins", [0, 10])
def test_a_break_among_steps_of_lbfgs_changes_no_bit(begins):
    whole, first, second = bent(begins), bent(begins), bent(begins)
    run(whole, 14)
    run(first, 12)
    second.load(first.state())
    run(second, 14)
    assert equal(second.state(), whole.state())


def test_uniform_points_fill_the_box_and_depend_on_all_three():
    x = uniform([-1, 2], [1, 5], 4000, seed=1, step=2)
    assert (x.amin(0) - torch.tensor([-1.0, 2.0])).abs().max() < 0.01
    assert (x.amax(0) - torch.tensor([1.0, 5.0])).abs().max() < 0.01
    assert torch.equal(x, uniform([-1, 2], [1, 5], 4000, seed=1, step=2))
    for other in ({"seed": 2, "step": 2}, {"seed": 1, "step": 3}, {"seed": 1, "step": 2, "stream": 1}):
        assert not torch.equal(x, uniform([-1, 2], [1, 5], 4000, **other))


def test_operators_of_any_network_agree_with_fused_ones():
    net = fastsiren.Siren(2, 16, 2, 3, first_omega_0=5, hidden_omega_0=5, dtype=torch.float64)
    x = torch.rand(11, 2, dtype=torch.float64)
    plain = PlainSiren(net)
    fused, autograd = operators(net), operators(plain)
    assert autograd is autograd_operators and fused is not autograd
    weights = torch.rand(11, 2, dtype=torch.float64)
    calls = {
        "value_and_jacobian": ((), {}),
        "hessian": ((), {"dims": [1]}),
        "laplacian": ((), {"weights": weights}),
        "value_mse": ((torch.rand(11, 3, dtype=torch.float64),), {"weight": torch.rand(11, dtype=torch.float64)}),
        "gradient_mse": ((torch.rand(11, 3, 2, dtype=torch.float64),), {"reduction": "sum"}),
        "laplacian_mse": ((torch.rand(11, 3, dtype=torch.float64),), {}),
        "eikonal": ((), {}),
    }
    for name, (arguments, options) in calls.items():
        found, wanted = (
            getattr(each, name)(m, x, *arguments, **options) for each, m in ((autograd, plain), (fused, net))
        )
        torch.testing.assert_close(
            tuple(found) if isinstance(found, tuple) else found, tuple(wanted) if isinstance(wanted, tuple) else wanted
        )
    named = {"names": ["u", "w__t", "v__t__x"], "inputs": "tx", "outputs": "uvw"}
    torch.testing.assert_close(autograd.derivatives(plain, x, **named), fused.derivatives(net, x, **named))


def test_events_for_tensorboard_need_their_package(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(faults.UsageError, match=r"pip install 'fastsiren\[tensorboard\]'"):
        Log(tensorboard=tmp_path)


def test_events_for_tensorboard(tmp_path, monkeypatch):
    written = []
    writer = types.SimpleNamespace(
        add_scalar=lambda *event: written.append(event), close=lambda: written.append("closed")
    )
    monkeypatch.setitem(
        sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=lambda path: writer)
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    log = Log(tensorboard=tmp_path)
    log.write(Step(3, 0.5), {"PSNR": 20.0})
    log.close()
    assert written == [("loss", 0.5, 3), ("PSNR", 20.0, 3), "closed"]


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    a = torch.rand(20, 31, 3)
    b = (a + 0.1 * torch.rand(20, 31, 3)).clamp(0, 1)
    wanted = metrics.structural_similarity(a.double().numpy(), b.double().numpy(), data_range=1, channel_axis=2)
    assert ssim(a, b) == pytest.approx(wanted, abs=1e-6)
