"""`.siren` files: exact round trips of networks and integers, sizes to the byte, and every kind of wrong file."""

import math
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsiren import Siren, sirenfile
from fastsiren.faults import InputError
from fastsiren.rangecoder import LARGEST, RangeDecoder, RangeEncoder
from fastsiren.sirenfile import SirenFile

HEADER, CRC = 39, 4
# (sine layers, width): bits per pixel of the halves at 768x512.
COIN = {(5, 20): 0.0734, (5, 30): 0.1588, (10, 28): 0.3043, (10, 40): 0.6105, (13, 49): 1.2084}


def made(hidden=5, layers=1, channels=3, exponent=-24, height=6, width=9, bits=8, omega=30.0, seed=0):
    """A file of a network whose parameters are rounded: to multiples, or to halves where the exponent is None."""
    torch.manual_seed(seed)
    net = Siren(2, hidden, layers, channels, first_omega_0=omega, hidden_omega_0=2 * omega)
    exponents = None if exponent is None else tuple(exponent + i % 7 for i in range(2 * layers + 4))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            if exponents is None:
                parameter.copy_(parameter.half())
            else:
                parameter.copy_(sirenfile.multiples(parameter, exponents[i]) * sirenfile.step(exponents[i]))
    return SirenFile(net, height, width, bits, exponents)


def resealed(data, **fields):
    """The file with other numbers in its header, and a checksum that holds."""
    names = ["magic", "version", "kept", "bits", "channels", "layers", "hidden", "height", "width"]
    names += ["first", "hidden_omega", "length"]
    header = dict(zip(names, struct.unpack("<4sBBBBBHIIddI", data[:HEADER]), strict=True)) | fields
    changed = struct.pack("<4sBBBBBHIIddI", *header.values()) + data[HEADER:-CRC]
    return changed + zlib.crc32(changed).to_bytes(CRC, "little")


def same(found, wanted):
    first, second = found.net.state_dict(), wanted.net.state_dict()
    return found[1:] == wanted[1:] and all(torch.equal(first[name], second[name]) for name in second)


@settings(max_examples=40)
@given(
    hidden=st.integers(1, 12),
    layers=st.integers(0, 3),
    channels=st.sampled_from([1, 3]),
    exponent=st.sampled_from([None, -128, -60, -40, -31, -20, -7, 0, 9, 120]),
    height=st.integers(1, 1 << 24),
    width=st.integers(1, 1 << 24),
    bits=st.sampled_from([8, 16]),
    omega=st.floats(0.1, 3000),
    seed=st.integers(0, 9),
)
def test_any_file_comes_back_bit_by_bit(**sizes):
    file = made(**sizes)
    data = sirenfile.encode(file)
    found = sirenfile.decode(data)
    assert same(found, file) and sirenfile.encode(found) == data
    x = torch.rand(5, 2)
    assert torch.equal(found.net(x), file.net(x))


@given(st.lists(st.lists(st.integers(-LARGEST, LARGEST) | st.integers(-3, 3))))
def test_integers_come_back(groups):
    encoder = RangeEncoder()
    for group in groups:
        encoder.integers(group)
    decoder = RangeDecoder(encoder.finish())
    assert [decoder.integers(len(group)) for group in groups] == groups


@pytest.mark.parametrize("deviation", [0.3, 1, 4, 30, 1000])
def test_the_code_is_nearly_as_short_as_the_entropy(deviation):
    values = np.rint(np.random.default_rng(0).normal(0, deviation, 8000)).astype(int)
    edges = [math.erf((v + side) / deviation / 2**0.5) / 2 for side in (0.5, -0.5) for v in values]
    entropy = -np.log2(np.maximum(np.subtract(edges[:8000], edges[8000:]), 1e-12)).sum()
    encoder = RangeEncoder()
    encoder.integers(values.tolist())
    assert 8 * len(encoder.finish()) < 1.03 * entropy


def test_a_run_of_carries():
    """Numbers that leave bytes of 255 behind, over which a carry runs."""
    for seed in range(40):
        values = np.random.default_rng(seed).choice([LARGEST, -LARGEST, 0], 200, p=[0.9, 0.05, 0.05]).tolist()
        encoder = RangeEncoder()
        encoder.integers(values)
        assert RangeDecoder(encoder.finish()).integers(200) == values


def test_what_is_too_large_is_refused():
    with pytest.raises(ValueError, match="got 16777216, expected magnitudes up to 16777215"):
        RangeEncoder().integers([LARGEST + 1])


@pytest.mark.parametrize(("network", "bpp"), COIN.items(), ids=lambda part: str(part))
def test_halves_have_the_sizes_of_coin(network, bpp):
    depth, width = network
    file = made(width, depth - 1, 3, None, height=512, width=768)
    size = len(sirenfile.encode(file)) - HEADER - CRC
    assert size == 2 * sum(parameter.numel() for parameter in file.net.parameters())
    assert round(8 * size / (512 * 768), 4) == bpp


def test_steps_are_powers_of_two_by_quarters():
    for exponent in range(-128, 128):
        assert sirenfile.step(exponent) == np.float32(2.0) ** (exponent // 4) * np.float32(2 ** (exponent % 4 / 4))


def test_pixels_are_where_coin_has_them():
    for height, width in ((512, 768), (768, 512), (5, 4)):
        whole = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
        wanted = (whole / (height - 1) - 0.5) * 2
        np.testing.assert_allclose(sirenfile.pixel_grid(height, width).coordinates(), wanted, atol=1e-6)
    large = sirenfile.pixel_grid(5, 4, (9, 7)).coordinates()
    np.testing.assert_allclose(large[::2, ::2], sirenfile.pixel_grid(5, 4).coordinates(), atol=1e-6)
    assert sirenfile.pixel_grid(1, 1).coordinates().tolist() == [[[-1, -1]]]


@pytest.mark.parametrize("exponent", [-24, None])
def test_a_file_cut_anywhere_is_refused(exponent, tmp_path):
    data = sirenfile.encode(made(exponent=exponent))
    path = tmp_path / "a.siren"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"^cannot read .*a\.siren: it is truncated: "):
            sirenfile.read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="too long"):
        sirenfile.read(path)


@pytest.mark.parametrize("exponent", [-24, None])
def test_a_flipped_bit_anywhere_is_refused(exponent):
    data = sirenfile.encode(made(exponent=exponent))
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(InputError):
            sirenfile.decode(bytes(damaged))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": 2}, "version is 2, this one reads 1"),
        ({"kept": 2}, "describes no picture"),
        ({"bits": 12}, "describes no picture"),
        ({"channels": 4}, "describes no picture"),
        ({"hidden": 0}, "describes no picture"),
        ({"height": 0}, "describes no picture"),
        ({"width": 2**32 - 1}, "describes no picture"),
        ({"first": math.nan}, "describes no picture"),
        ({"hidden_omega": 0.0}, "describes no picture"),
        ({"hidden": 65535, "layers": 255}, "claims 1,095,200,342,013 parameters; at most 1,048,576"),
        ({"length": 2**32 - 1}, "truncated"),
        ({"kept": 1}, "parameters are none"),
        ({"layers": 200}, "parameters are none"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_sealed_header_that_lies_is_refused_without_memory(fields, said):
    data = resealed(sirenfile.encode(made()), **fields)
    tracemalloc.start()
    with pytest.raises(InputError, match=said):
        sirenfile.decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@given(payload=st.binary(max_size=80), kept=st.integers(0, 1), layers=st.integers(0, 3), hidden=st.integers(1, 6))
def test_any_sealed_parameters_give_a_network_or_are_refused(payload, kept, layers, hidden):
    data = sirenfile.encode(made())[:HEADER] + payload + bytes(CRC)
    try:
        found = sirenfile.decode(resealed(data, length=len(payload), kept=kept, layers=layers, hidden=hidden))
    except InputError:
        return
    assert all(bool(parameter.isfinite().all()) for parameter in found.net.parameters())


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.net.net[0].linear.weight.data.add_(1e-3),
        lambda file: file.net.net[0].linear.bias.data.fill_(math.nan),
        lambda file: file.net.double(),
    ],
)
def test_what_would_not_come_back_is_not_written(change, tmp_path):
    file = made()
    change(file)
    with pytest.raises(ValueError, match=r"^file: got a network"):
        sirenfile.write(tmp_path / "a.siren", file)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "fields", [{"height": 0}, {"width": 1 << 40}, {"bits": 12}, {"exponents": None}, {"exponents": (1, 2)}], ids=str
)
def test_sizes_that_cannot_be_are_not_written(fields):
    with pytest.raises(ValueError, match=r"file: got|exponents: got"):
        sirenfile.encode(made()._replace(**fields))


def test_a_network_of_another_kind_is_not_written():
    with pytest.raises(ValueError, match="file: got"):
        sirenfile.encode(made()._replace(net=Siren(3, 5, 1, 3)))
    with pytest.raises(ValueError, match="file: got"):
        sirenfile.encode(made(exponent=None)._replace(net=Siren(2, 5, 1, 3, outermost_linear=False).half().float()))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(60), b"no network at all" * 9])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    (tmp_path / "a.siren").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read .*a\.siren: it is (no \.siren file|truncated: 0 bytes)"):
        sirenfile.read(tmp_path / "a.siren")
    with pytest.raises(InputError, match="no such file"):
        sirenfile.read(tmp_path / "b.siren")
