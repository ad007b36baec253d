"""Networks in folders: what is saved is loaded, by fastsiren and by huggingface_hub, and damage is refused."""

import json
import sys

import pytest
import torch
from torch.nn.utils import parametrizations

import fastsiren
from fastsiren.faults import InputError, OutputError

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs fastsiren[hub]")


class Mixed(huggingface_hub.PyTorchModelHubMixin, fastsiren.Siren):
    """A class as users of the hub write it."""


NETS = {
    "plain": ((2, 8, 1, 3), {"first_omega_0": 20.0, "hidden_omega_0": 10.0}),
    "sine output": ((1, 4, 0, 2), {"outermost_linear": False, "dtype": torch.float64}),
    "no bias": ((2, 8, 2, 1), {"bias": False, "precision": "fp32", "init": "finer"}),
    "half": ((2, 8, 1, 1), {"dtype": torch.float16}),
}


def assert_same(found, net) -> None:
    assert {n: t.dtype for n, t in found.state_dict().items()} == {n: t.dtype for n, t in net.state_dict().items()}
    assert repr(found) == repr(net) and found.init == net.init
    x = torch.rand(5, net.in_features).to(net.net[0].linear.weight.dtype)
    assert torch.equal(found(x), net(x))
    assert all(parameter.requires_grad for parameter in found.parameters())


@pytest.fixture
def saved(tmp_path):
    net = fastsiren.Siren(2, 8, 1, 3, first_omega_0=20.0)
    net.save_pretrained(tmp_path / "net")
    return net, tmp_path / "net"


@pytest.mark.parametrize(("sizes", "options"), NETS.values(), ids=NETS)
def test_round_trip(sizes, options, tmp_path):
    net = fastsiren.Siren(*sizes, **options)
    net.save_pretrained(tmp_path / "deep" / "net")
    assert sorted(p.name for p in (tmp_path / "deep" / "net").iterdir()) == ["config.json", "model.safetensors"]
    assert_same(fastsiren.Siren.from_pretrained(tmp_path / "deep" / "net"), net)


def test_the_mixin_reads_what_is_saved_here(saved):
    net, folder = saved
    found = Mixed.from_pretrained(folder)
    assert type(found) is Mixed
    x = torch.rand(5, 2)
    assert torch.equal(found(x), net(x)) and found.first_omega_0 == 20.0


def test_what_the_mixin_saves_is_read_here(tmp_path):
    net = Mixed(2, 8, 1, 3, first_omega_0=20.0, outermost_linear=False)
    net.save_pretrained(tmp_path)
    found = fastsiren.Siren.from_pretrained(tmp_path)
    x = torch.rand(5, 2)
    assert torch.equal(found(x), net(x)) and found.outermost_linear is False


def test_subclasses_load_themselves(saved):
    class Own(fastsiren.Siren):
        """A class with methods of its own."""

    assert type(Own.from_pretrained(saved[1])) is Own


def test_loaded_networks_train(saved):
    found = fastsiren.Siren.from_pretrained(saved[1], device="cpu")
    fastsiren.losses.eikonal(found, torch.rand(5, 2)).backward()
    assert found.net[0].linear.weight.grad.any()


def test_a_repository_is_downloaded(saved, monkeypatch):
    net, folder = saved
    asked = []

    def download(repo, file, **options):
        asked.append((repo, file, options))
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_same(fastsiren.Siren.from_pretrained("someone/net", revision="v1", local_files_only=True), net)
    options = {"revision": "v1", "cache_dir": None, "token": None, "local_files_only": True}
    assert asked == [("someone/net", file, options) for file in ("config.json", "model.safetensors")]


def test_without_the_package_a_repository_is_an_error_that_says_how(saved, monkeypatch):
    net, folder = saved
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_same(fastsiren.Siren.from_pretrained(folder), net)
    with pytest.raises(InputError, match=r"someone/net is no folder here.*pip install 'fastsiren\[hub\]'"):
        fastsiren.Siren.from_pretrained("someone/net")


def changed(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def flipped(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def foreign(folder, **values):
    """The same tensors without a seal, beside another config."""
    from safetensors.torch import load_file, save_file

    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    changed(folder, **values)


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), InputError, "config.json: no such file"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), InputError, "no such file"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), InputError, "is no JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[1]"), InputError, r"holds \[1\] of type list"),
    "another config": (lambda f: changed(f, first_omega_0=21.0), InputError, "saved with another config.json"),
    "bit": (flipped, InputError, "checksum does not match"),
    "width": (lambda f: foreign(f, hidden_features=9), InputError, "does not hold the tensors"),
    "huge": (lambda f: foreign(f, hidden_layers=10**9), InputError, "does not hold the tensors"),
    "wide": (lambda f: foreign(f, hidden_features=10**9), InputError, "does not hold the tensors"),
    "no layers": (lambda f: foreign(f, hidden_layers="1"), InputError, "does not hold the tensors"),
    "argument": (lambda f: changed(f, depth=3), TypeError, "depth"),
    "value": (lambda f: foreign(f, out_features=0), ValueError, "out_features: got 0"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused(damage, error, message, saved):
    damage(saved[1])
    with pytest.raises(error, match=message):
        fastsiren.Siren.from_pretrained(saved[1])


def frequency(net):
    net.net[0].omega_0 = 11.0


CHANGES = {
    "frequency": (frequency, "do not describe"),
    "parametrization": (lambda net: parametrizations.weight_norm(net.net[1].linear), "do not describe"),
    "layer": (lambda net: net.net.append(torch.nn.Linear(1, 1)), "do not describe"),
    "bfloat16": (lambda net: net.to(torch.bfloat16), "bfloat16"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_could_not_be_loaded_is_not_saved(change, message, tmp_path):
    net = fastsiren.Siren(2, 8, 1, 1)
    change(net)
    with pytest.raises(ValueError, match=message):
        net.save_pretrained(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "net").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        fastsiren.Siren(2, 8, 1, 1).save_pretrained(tmp_path / "net")


def test_equal_networks_give_equal_files(tmp_path):
    for name in "ab":
        torch.manual_seed(3)
        fastsiren.Siren(2, 8, 1, 1).save_pretrained(tmp_path / name)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
