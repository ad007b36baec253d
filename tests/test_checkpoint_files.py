"""Checkpoint files: complete or not there, and never a silent wrong tensor."""

import json
import random

import numpy as np
import pytest
import torch

import fastsiren
from fastsiren import tensorfile
from fastsiren.faults import InputError
from fastsiren.fit import checkpoint
from fastsiren.images import Picture
from fastsiren.problems import image
from fastsiren.tensorfile import TensorFile


@pytest.fixture
def saved(tmp_path):
    """A small network in a file, with the file's bytes."""
    net = fastsiren.Siren(2, 5, 1, 3, first_omega_0=20, hidden_omega_0=10)
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, net, {"problem": "image", "note": "abc"})
    return path, net, path.read_bytes()


def same(found, net):
    return all(torch.equal(value, net.state_dict()[name]) for name, value in found.state_dict().items())


def test_round_trip(saved):
    path, net, _ = saved
    found = checkpoint.load(path)
    assert same(found.net, net)
    assert (found.net.first_omega_0, found.net.hidden_omega_0) == (20, 10)
    assert found.description["note"] == "abc"
    assert found.state == {}
    x = torch.rand(7, 2)
    assert torch.equal(found.net(x), net(x))


def test_sine_output_layer_and_double_precision(tmp_path):
    net = fastsiren.Siren(1, 4, 0, 2, outermost_linear=False, dtype=torch.float64)
    checkpoint.save(tmp_path / "n", net, {})
    found = checkpoint.load(tmp_path / "n").net
    assert found.outermost_linear is False
    assert found.net[0].linear.weight.dtype == torch.float64
    assert same(found, net)


def test_precision_is_kept(tmp_path):
    checkpoint.save(tmp_path / "n", fastsiren.Siren(2, 4, 0, 1, precision="bf16"), {})
    assert checkpoint.load(tmp_path / "n").net.precision == "bf16"


def test_changed_frequencies_are_not_saved(tmp_path):
    net = fastsiren.Siren(2, 4, 0, 1)
    net.net[0].omega_0 = 11.0
    with pytest.raises(ValueError, match=r"frequencies \[11\.0\]"):
        checkpoint.save(tmp_path / "n", net, {})


def test_files_of_before_precisions_were_kept(saved, monkeypatch):
    path, net, _ = saved
    described = checkpoint.describe(net)
    del described["precision"]
    monkeypatch.setattr(checkpoint, "describe", lambda net: described)
    checkpoint.save(path, net, {})
    assert same(checkpoint.load(path).net, net)


@pytest.mark.parametrize(
    "net",
    [
        fastsiren.Siren(2, 4, 0, 1, bias=False),
        fastsiren.Siren(65, 4, 0, 1),
        fastsiren.Siren(2, 4, 0, 1, dtype=torch.bfloat16),
    ],
    ids=["no bias", "many inputs", "bfloat16"],
)
def test_what_could_not_be_loaded_is_not_saved(net, tmp_path):
    with pytest.raises(ValueError, match=r"^net: got "):
        checkpoint.save(tmp_path / "n", net, {})
    assert not list(tmp_path.iterdir())


def test_the_safetensors_library_reads_the_tensors(saved):
    from safetensors.torch import load_file

    path, net, _ = saved
    tensors = load_file(path)
    assert set(tensors) == set(net.state_dict())
    assert torch.equal(tensors["net.0.linear.weight"], net.state_dict()["net.0.linear.weight"])


def test_saving_to_the_file_that_was_loaded(saved):
    path, net, _ = saved
    found = checkpoint.load(path)
    checkpoint.save(path, found.net, found.description)
    assert same(checkpoint.load(path).net, net)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, "half", -1])
def test_truncated_files_are_refused(saved, cut):
    path, _, data = saved
    path.write_bytes(data[: len(data) // 2 if cut == "half" else cut])
    with pytest.raises(InputError, match=r"net\.safetensors .*bytes") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


def test_flipped_bits_are_never_silent(saved):
    """Every file that still loads must hold exactly what was saved; nearly all must be refused."""
    path, net, data = saved
    rng = random.Random(0)
    refused = 0
    for _ in range(200):
        bad = bytearray(data)
        place = rng.randrange(len(bad) * 8)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            found = checkpoint.load(path)
        except InputError:
            refused += 1
            continue
        assert same(found.net, net)
        assert (found.net.first_omega_0, found.net.hidden_omega_0, found.description["note"]) == (20, 10, "abc")
    assert refused >= 190


def test_the_description_is_sealed_too(saved):
    path, _, data = saved
    changed = data.replace(rb"\"first_omega_0\":20.0", rb"\"first_omega_0\":21.0")
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(InputError, match="checksum"):
        checkpoint.load(path)


def test_extra_bytes_are_refused(saved):
    path, _, data = saved
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "update fastsiren"),
        ({"network": {"hidden_features": 10**9}}, "do not fit"),
        ({"network": {"hidden_layers": 10**9}}, "do not fit"),
        ({"network": {"hidden_features": 6}}, "do not fit"),
        ({"network": {"outermost_linear": False}}, "do not fit"),
        ({"network": {"in_features": -1}}, "do not fit"),
        ({"network": {"hidden_features": True}}, "do not fit"),
        ({"network": {"hidden_features": "5"}}, "do not fit"),
        ({"network": {"first_omega_0": 0.0}}, "cannot be"),
        ({"network": {"first_omega_0": 10**400}}, "cannot be"),
        ({"network": {"hidden_omega_0": "30"}}, "cannot be"),
        ({"network": {"bias": True}}, "cannot be"),
        ({"network": {"outermost_linear": 1}}, "cannot be"),
        ({"network": [2, 5, 1, 3]}, "cannot be"),
        ({"version": None}, "cannot be"),
    ],
    ids=str,
)
def test_claims_are_checked_before_anything_is_made(saved, change, words):
    """The checksum of such a file is right: it was written to mislead."""
    path, _, _ = saved
    description, tensors = tensorfile.read(path)
    tensorfile.write(path, TensorFile(changed(description, change), tensors))
    with pytest.raises(InputError, match=words):
        checkpoint.load(path)


def changed(old, change):
    """`old` with other values in some places, at any depth."""
    if not isinstance(change, dict):
        return change
    return old | {key: changed(old.get(key, {}), value) for key, value in change.items()}


@pytest.fixture
def fitted(tmp_path):
    """A file that --resume goes on from."""
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    path = tmp_path / "fitted.safetensors"
    image.fit(Picture(pixels), out=path, steps=2, hidden=5, layers=1, progress=False)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": np.array(2.0)},
        {"step": np.array([2])},
        {"step": np.array(-1), "adam": None},
        {"step": np.array(0)},
        {"net.1.linear.bias": None},
        {"net.1.linear.bias": np.zeros(4, np.float32)},
        {"net.1.linear.bias": np.zeros(5)},
        {"adam.exp_avg.net.0.linear.weight": None},
        {"adam.exp_avg_sq.net.2.bias": np.zeros((3, 1), np.float32)},
        {"net.7.linear.bias": np.zeros(5, np.float32)},
        "int32",
    ],
    ids=str,
)
def test_tensors_are_those_of_the_network_and_its_trainer(fitted, change):
    """The checksum of such a file is right, too."""
    description, tensors = tensorfile.read(fitted)
    if change == "int32":
        tensors = {name: tensor.astype(change) if tensor.ndim else tensor for name, tensor in tensors.items()}
    else:
        gone = tuple(name for name, tensor in change.items() if tensor is None)
        tensors = {name: tensor for name, tensor in (tensors | change).items() if not name.startswith(gone)}
    tensorfile.write(fitted, TensorFile(description, tensors))
    with pytest.raises(InputError, match="do not fit"):
        checkpoint.load(fitted)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"settings": {"lr": 0.0}},
        {"settings": {"steps": "many"}},
        {"settings": {"omega": 10**400}},
        {"settings": {"depth": 3}},
        {"settings": {"hidden": 6}},
        {"image": None},
        {"image": {"width": 0}},
        {"image": {"height": 1 << 40}},
        {"image": {"channels": 1}},
        {"image": {"bits": 8.0}},
        {"image": {"bits": 12}},
        {"image": {"sha256": 5}},
        {"step": 1},
        {"step": True},
        {"figures": {"PSNR": "high"}},
        {"figures": None},
    ],
    ids=str,
)
def test_a_picture_is_described_as_fit_does(fitted, change):
    description, tensors = tensorfile.read(fitted)
    tensorfile.write(fitted, TensorFile(changed(description, change), tensors))
    with pytest.raises(InputError, match="describes a picture that its network does not fit"):
        image.load(fitted)


@pytest.mark.parametrize("outputs", [5, 7])
def test_a_picture_has_at_most_four_channels(fitted, outputs):
    description, _ = tensorfile.read(fitted)
    net = fastsiren.Siren(2, 5, 1, outputs)
    checkpoint.save(fitted, net, changed(description, {"image": {"channels": outputs}}))
    with pytest.raises(InputError, match="does not fit"):
        image.load(fitted)


def test_a_picture_is_of_single_precision(fitted):
    description, _ = tensorfile.read(fitted)
    checkpoint.save(fitted, fastsiren.Siren(2, 5, 1, 3, dtype=torch.float64), description)
    with pytest.raises(InputError, match="does not fit"):
        image.load(fitted)


def test_other_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "text").write_text("hello\n" * 100)
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "foreign")
    for name, words in (
        ("text", "not a checkpoint"),
        ("foreign", "not written by fastsiren"),
        ("none", "no such file"),
    ):
        with pytest.raises(InputError, match=words):
            checkpoint.load(tmp_path / name)
    with pytest.raises(InputError, match="directory"):
        checkpoint.load(tmp_path)


def test_a_pickled_payload_is_refused_and_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pt"
    path.write_bytes(f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    with pytest.raises(InputError):
        checkpoint.load(path)
    assert not canary.exists()


def test_descriptions_are_plain_json(saved):
    data = saved[2]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert set(header["__metadata__"]) == {"fastsiren"}
    sealed = json.loads(header["__metadata__"]["fastsiren"])
    assert sealed["description"]["network"]["hidden_features"] == 5


def test_equal_content_gives_equal_files(saved):
    path, net, data = saved
    for _ in range(8):
        checkpoint.save(path, net, {"note": "abc", "problem": "image"})
        assert path.read_bytes() == data
