"""The canonical module: same parameters as the notebook's class, same keys, shapes, declared errors."""

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

import fastsiren
import oracle
from fastsiren import functional

ROOT = Path(fastsiren.__file__).resolve().parent.parent


class NotebookLayer(nn.Module):
    """A sine layer as the notebook of the paper has it: default draw first, then the weight."""

    def __init__(self, n_in: int, n_out: int, *, is_first: bool, omega: float) -> None:
        super().__init__()
        self.omega = omega
        self.linear = nn.Linear(n_in, n_out)
        bound = 1 / n_in if is_first else math.sqrt(6 / n_in) / omega
        with torch.no_grad():
            self.linear.weight.uniform_(-bound, bound)

    def forward(self, h):
        return torch.sin(self.omega * self.linear(h))


class Notebook(nn.Module):
    """The network of the notebook, which returns a plain tensor here."""

    def __init__(self, n_in, hidden, layers, n_out, *, outermost_linear, first, omega) -> None:
        super().__init__()
        made = [NotebookLayer(n_in, hidden, is_first=True, omega=first)]
        made += [NotebookLayer(hidden, hidden, is_first=False, omega=omega) for _ in range(layers)]
        if outermost_linear:
            last = nn.Linear(hidden, n_out)
            bound = math.sqrt(6 / hidden) / omega
            with torch.no_grad():
                last.weight.uniform_(-bound, bound)
        else:
            last = NotebookLayer(hidden, n_out, is_first=False, omega=omega)
        self.net = nn.Sequential(*made, last)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("outermost_linear", [True, False], ids=["linear", "sine"])
@pytest.mark.parametrize("sizes", [(2, 16, 3, 1), (3, 7, 0, 2), (1, 1, 1, 1)], ids=str)
def test_same_seed_gives_the_notebook_network(sizes, outermost_linear):
    torch.manual_seed(5)
    notebook = Notebook(*sizes, outermost_linear=outermost_linear, first=25.0, omega=12.0)
    torch.manual_seed(5)
    net = fastsiren.Siren(*sizes, outermost_linear=outermost_linear, first_omega_0=25.0, hidden_omega_0=12.0)
    assert list(net.state_dict()) == list(notebook.state_dict())
    for ours, theirs in zip(net.parameters(), notebook.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    net, notebook, x = net.double(), notebook.double(), oracle.uniform(9, sizes[0])
    assert oracle.relative_error(net(x), notebook(x)) <= 1e-12
    x.requires_grad_()
    gradients = [torch.autograd.grad(f(x).square().sum(), [x, *f.parameters()]) for f in (net, notebook)]
    for ours, theirs in zip(*gradients, strict=True):
        assert oracle.relative_error(ours, theirs) <= 1e-10


def test_keys_of_the_state():
    keys = list(fastsiren.Siren(2, 8, 2, 3).state_dict())
    assert keys == [f"net.{i}.linear.{p}" for i in range(3) for p in ("weight", "bias")] + [
        "net.3.weight",
        "net.3.bias",
    ]
    assert list(fastsiren.Siren(2, 8, 0, 3, outermost_linear=False).state_dict())[-1] == "net.1.linear.bias"
    assert all(key.endswith("weight") for key in fastsiren.Siren(2, 8, 2, 3, bias=False).state_dict())
    assert sum(p.numel() for p in fastsiren.Siren(2, 256, 3, 1).parameters()) == 198_401


def test_attributes_that_users_read():
    net = fastsiren.Siren(2, 8, 1, 3, first_omega_0=60, hidden_omega_0=15.0)
    assert (net.in_features, net.hidden_features, net.hidden_layers, net.out_features) == (2, 8, 1, 3)
    assert (net.first_omega_0, net.hidden_omega_0, net.outermost_linear, net.precision) == (60.0, 15.0, True, None)
    assert [layer.omega_0 for layer in net.net[:2]] == [60.0, 15.0]
    assert [layer.is_first for layer in net.net[:2]] == [True, False]
    assert (net.net[0].in_features, net.net[0].out_features, net.net[0].linear.in_features) == (2, 8, 2)
    assert isinstance(net.net[2], nn.Linear)


def test_repr_says_what_it_is():
    assert "2, 8, 1, 3, first_omega_0=60, hidden_omega_0=30\n" in repr(fastsiren.Siren(2, 8, 1, 3, first_omega_0=60))
    text = repr(fastsiren.Siren(2, 8, 1, 3, outermost_linear=False, precision="tf32"))
    assert "outermost_linear=False, precision='tf32'" in text
    assert "omega_0=30, is_first=True" in text


def test_layers_can_be_evaluated_one_by_one():
    net, x = fastsiren.Siren(2, 8, 2, 3, dtype=torch.float64), oracle.uniform(5, 2)
    assert oracle.relative_error(net(x), net.net(x)) <= 1e-12


def test_an_omega_changed_later_counts():
    net, x = fastsiren.Siren(2, 8, 2, 3, dtype=torch.float64), oracle.uniform(5, 2)
    before = net(x)
    net.net[1].omega_0 = 7.0
    assert oracle.relative_error(net(x), net.net(x)) <= 1e-12
    assert not torch.equal(net(x), before)


@pytest.mark.parametrize("leading", [(), (0,), (1,), (5,), (2, 3), (1, 0, 4), (2, 1, 3)], ids=str)
def test_any_leading_shape(leading):
    net, x = fastsiren.Siren(3, 8, 1, 2), torch.rand(*leading, 3)
    y = net(x)
    assert y.shape == (*leading, 2)
    assert torch.equal(y.reshape(-1, 2), net(x.reshape(-1, 3)))


def test_strided_coordinates():
    net, wide = fastsiren.Siren(3, 8, 1, 2), torch.rand(3, 20)
    assert torch.equal(net(wide.t()[::2]), net(wide.t()[::2].contiguous()))


def test_no_bias_is_a_zero_bias():
    net, x = fastsiren.Siren(2, 8, 1, 2, bias=False, dtype=torch.float64), oracle.uniform(5, 2)
    assert all(layer.linear.bias is None for layer in net.net[:2])
    assert oracle.relative_error(net(x), net.net(x)) <= 1e-12
    gradients = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    for ours, theirs in zip(gradients, torch.autograd.grad(net.net(x).sum(), list(net.parameters())), strict=True):
        assert oracle.relative_error(ours, theirs) <= 1e-10


def test_forward_is_one_operation(monkeypatch):
    calls = []
    original = functional.siren
    monkeypatch.setattr(functional, "siren", lambda *a, **o: calls.append(o) or original(*a, **o))
    fastsiren.Siren(2, 8, 1, 1, precision="fp32", outermost_linear=False)(torch.rand(3, 2))
    assert calls == [{"omegas": [30.0, 30.0, 30.0], "outermost_linear": False, "precision": "fp32"}]


def test_state_round_trip_is_strict():
    net, twin, x = fastsiren.Siren(2, 8, 1, 2), fastsiren.Siren(2, 8, 1, 2), torch.rand(5, 2)
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    stream.seek(0)
    twin.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(twin(x), net(x))
    state = net.state_dict()
    state["net.9.weight"] = state.pop("net.2.weight")
    with pytest.raises(RuntimeError, match=r"net\.9\.weight"):
        twin.load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        fastsiren.Siren(2, 9, 1, 2).load_state_dict(net.state_dict())


def test_built_in_inference_mode_or_on_meta():
    with torch.inference_mode():
        assert fastsiren.Siren(2, 8, 1, 2)(torch.rand(5, 2)).isfinite().all()
    empty = fastsiren.Siren(2, 8, 1, 2, device="meta")
    assert all(p.device.type == "meta" for p in empty.parameters())
    filled = empty.to_empty(device="cpu")
    torch.manual_seed(2)
    filled.reset_parameters()
    torch.manual_seed(2)
    x = torch.rand(5, 2)
    torch.manual_seed(2)
    assert torch.equal(filled(x), fastsiren.Siren(2, 8, 1, 2)(x))


def test_device_and_dtype_are_those_asked_for():
    assert fastsiren.Siren(2, 8, 1, 2, dtype=torch.float64).net[0].linear.weight.dtype == torch.float64
    with torch.device("meta"):
        assert fastsiren.Siren(2, 8, 1, 2).net[2].bias.device.type == "meta"
    assert fastsiren.Siren(2, 8, 1, 2, device=torch.device("cpu")).net[2].bias.device.type == "cpu"


def test_draws_leave_the_generator_where_the_notebook_leaves_it():
    torch.manual_seed(5)
    Notebook(2, 8, 1, 1, outermost_linear=True, first=30.0, omega=30.0)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fastsiren.Siren(2, 8, 1, 1)
    assert torch.equal(torch.rand(3), expected)


def test_numbers_of_numpy_are_numbers():
    sizes = numpy.array([2, 8, 1, 3])
    net = fastsiren.Siren(*sizes, first_omega_0=numpy.float32(25.5), hidden_omega_0=numpy.int64(20))
    found = (net.in_features, net.hidden_features, net.hidden_layers, net.out_features)
    assert found == (2, 8, 1, 3) and {type(size) for size in found} == {int}
    assert (net.first_omega_0, net.hidden_omega_0) == (25.5, 20.0)
    assert {type(omega) for omega in net.siren_parameters().omegas} == {float}


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional argument"):
        fastsiren.Siren(2, 8, 1, 1, True)


def run(code: str) -> str:
    """Standard output of a fresh process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_needs_torch_alone_and_is_quick():
    code = """
        import sys, time, torch
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("triton", "imageio", "safetensors", "scipy") or name == "fastsiren._C":
                    raise ImportError(name)
        sys.meta_path.insert(0, Block())
        threads, start = torch.get_num_threads(), time.process_time()
        import fastsiren
        spent = time.process_time() - start
        loaded = [m for m in ("fastsiren.render", "fastsiren.fit", "fastsiren.problems", "triton") if m in sys.modules]
        assert not loaded, loaded
        assert not torch.cuda.is_initialized() and torch.get_num_threads() == threads
        assert torch.tensor(1e-40).mul(1).item() != 0
        print(spent)
    """
    assert float(run("\n".join(line[8:] for line in code.splitlines()))) <= 0.3


def test_names_of_the_package():
    for name in fastsiren.__all__:
        assert getattr(fastsiren, name) is not None
    assert fastsiren.__version__ == "0.1.0"
    assert set(fastsiren.__all__) <= set(dir(fastsiren))
    with pytest.raises(AttributeError, match="module 'fastsiren' has no attribute 'sirens'"):
        fastsiren.sirens  # noqa: B018


def test_render_is_the_function_whoever_imported_its_package_first():
    code = "import fastsiren.render; from fastsiren import render; print(fastsiren.render.__name__, callable(render))"
    assert run(code) == "render True"


def test_a_checkout_finds_its_kernels_folder():
    code = "import fastsiren, importlib.util as u; print(u.find_spec('fastsiren.kernels') is not None)"
    assert run(code) == str((ROOT / "kernels").is_dir() or (ROOT / "fastsiren" / "kernels").is_dir())


@pytest.mark.parametrize("lazy", [torch._neg_view, lambda x: torch._efficientzerotensor(x.shape)])
def test_tensors_that_are_not_what_their_memory_holds(backend, lazy):
    net, x = fastsiren.Siren(2, 16, 1, 1), torch.rand(5, 2)
    assert torch.equal(net(lazy(x)), net(lazy(x) + 0.0))


def test_negative_frequencies_have_initial_weights():
    net = fastsiren.Siren(2, 16, 1, 1, first_omega_0=-30.0, hidden_omega_0=-3.0)
    assert 0 < net.net[1].linear.weight.abs().max() <= math.sqrt(6 / 16) / 3


def test_a_default_device_does_not_move_results(backend):
    net, x = fastsiren.Siren(2, 16, 1, 1), torch.rand(5, 2)
    y = net(x).detach()
    with torch.device("meta"):
        assert torch.equal(net(x), y)
        assert fastsiren.losses.laplacian_mse(net, x, y).device == x.device


def test_many_inputs_and_outputs(backend):
    net = fastsiren.Siren(20, 8, 1, 18, dtype=torch.float64)
    x = torch.rand(7, 20, dtype=torch.float64)
    assert oracle.relative_error(net(x), net.net(x)) <= 1e-12


def test_a_learned_frequency_is_refused():
    net = fastsiren.Siren(2, 16, 1, 1)
    net.net[1].omega_0 = nn.Parameter(torch.tensor(30.0))
    with pytest.raises(TypeError, match="omega_0: got a torch"):
        net(torch.rand(5, 2))
