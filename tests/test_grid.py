"""grid_fwd on every backend and instruction set: coordinates from indices, tiles, and numbers to pixels."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracle
from fastsiren.engine import backends
from oracle import Net
from pass_checks import A_DTYPE, EXACT
from passes import Engine, on_every_engine, on_every_isa, on_every_kernel, threads, unless_interpreted

pytestmark = pytest.mark.usefixtures("poisoned")

FLOATS = (torch.float32, torch.float64)
LEVELS = {torch.uint8: 255, torch.uint16: 65535}
# Axes whose coordinates are not on any binary grid; the last one starts far from its origin.
ORIGIN, STEP = (-1.0, 0.1, 1 / 3), (2 / 37, -0.013, 1e-5)
GRIDS = [
    ((0,), (1,)),
    ((5,), (131,)),
    ((0, 0), (7, 9)),
    ((3, 2), (49, 25)),
    ((0, 0, 0), (3, 17, 5)),
    ((2, 1, 10**6), (4, 3, 100)),
]
every_grid = pytest.mark.parametrize(("start", "shape"), GRIDS, ids=["x".join(map(str, g[1])) for g in GRIDS])


def network(D: int, dtype: torch.dtype, O: int = 3) -> Net:
    # Layers of one width may take another way.
    return oracle.network((D, 24 if D == 2 else 33, 24 if D == 2 else 17, O), (30.0, 30.0), seed=D, dtype=dtype)


def coordinates(start: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """[prod(shape), D], the first axis slowest; in double and only then rounded."""
    axes = [[ORIGIN[a] + STEP[a] * (start[a] + i) for i in range(n)] for a, n in enumerate(shape)]
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float64).to(dtype)


def decode(
    engine: Engine,
    net: Net,
    start: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    gain: float = 1.0,
    offset: float = 0.0,
) -> Tensor:
    D = len(shape)
    # Integers cannot be NaN: an unwritten pixel shows as 77.
    out = torch.full((math.prod(shape), len(net.biases[-1])), 77).to(dtype)
    engine.call("grid_fwd", ORIGIN[:D], STEP[:D], start, shape, *net, out=out, gain=gain, offset=offset)
    return out


@on_every_engine
@every_grid
def test_float64(start, shape, engine):
    net = network(len(shape), torch.float64)
    exact = oracle.value(net, coordinates(start, shape, torch.float64))
    assert oracle.relative_error(decode(engine, net, start, shape, torch.float64), exact) <= EXACT
    scaled = decode(engine, net, start, shape, torch.float64, gain=-0.3, offset=0.7)
    assert oracle.relative_error(scaled, exact * -0.3 + 0.7) <= EXACT


@on_every_engine
@every_grid
@A_DTYPE
def test_bits_of_the_same_points(dtype, start, shape, engine):
    # Coordinates made from indices are those a user would make, and so is every bit of what follows.
    net = network(len(shape), dtype)
    (y,) = engine.forward("value", net, coordinates(start, shape, dtype))
    for out in FLOATS:
        found = decode(engine, net, start, shape, out)
        assert torch.equal(found, y.to(out))


@on_every_engine
@A_DTYPE
@pytest.mark.parametrize("out", [torch.float32, torch.float64, torch.uint8, torch.uint16])
def test_tiles(out, dtype, engine):
    # Reference: the products of one row may depend on the number of rows.
    net, shape = network(2, dtype), (50, 31)
    whole = decode(engine, net, (0, 0), shape, out, 0.5, 0.5).view(*shape, 3)
    for rows, columns in (
        ((0, 50), (0, 16)),
        ((0, 50), (16, 31)),
        ((17, 18), (0, 31)),
        ((49, 50), (30, 31)),
        ((3, 40), (5, 29)),
    ):
        size = rows[1] - rows[0], columns[1] - columns[0]
        tile = decode(engine, net, (rows[0], columns[0]), size, out, 0.5, 0.5).view(*size, 3)
        wanted = whole[rows[0] : rows[1], columns[0] : columns[1]]
        if engine.backend != "reference" or not out.is_floating_point:
            assert torch.equal(tile, wanted)
        else:
            assert oracle.relative_error(tile, wanted) <= 1e-5


@on_every_kernel
@settings(max_examples=unless_interpreted(40, 4))
@given(
    start=st.lists(st.integers(-50, 50), min_size=1, max_size=3),
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    cut=st.integers(0, 8),
    out=st.sampled_from([torch.float32, torch.uint8]),
)
def test_any_tile(engine, start, sizes, cut, out):
    D = len(start)
    shape, cut = sizes[:D], min(cut, sizes[0] - 1)
    net = network(D, torch.float32, O=1)
    whole = decode(engine, net, tuple(start), shape, out)
    first = decode(engine, net, tuple(start), (cut, *shape[1:]), out)
    rest = decode(engine, net, (start[0] + cut, *start[1:]), (shape[0] - cut, *shape[1:]), out)
    assert torch.equal(torch.cat([first, rest]), whole)


def constant(values: list[float]) -> Net:
    """A network of these outputs, exactly, at every point."""
    zeros, biases = torch.zeros(4, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    return Net([zeros[:, None], zeros.expand(len(values), 4)], [zeros, biases], [30.0])


@on_every_engine
@pytest.mark.parametrize("dtype", LEVELS, ids=["uint8", "uint16"])
def test_rounding(dtype, engine):
    levels = LEVELS[dtype]
    halves = [(k + 0.5) / levels for k in range(0, levels, levels // 300 | 1)]
    # Ties that stay ties in the product are those of the rule: half to even.
    ties = [v for v in halves if v * levels == math.floor(v * levels) + 0.5]
    assert len({math.floor(v * levels) % 2 for v in ties}) == 2
    exact = [k / levels for k in range(0, levels + 1, levels // 300 | 1)]
    near = [math.nextafter(v, side) for v in ties for side in (0.0, 1.0)]
    values = [*ties, *exact, *near, 0.5]
    found = decode(engine, constant(values), (0,), (3,), dtype)
    # Python rounds half to even.
    wanted = torch.tensor([round(v * levels) for v in values]).to(dtype)
    assert torch.equal(found.to(torch.int32), wanted.to(torch.int32).expand(3, -1))


@on_every_engine
@pytest.mark.parametrize("dtype", LEVELS, ids=["uint8", "uint16"])
def test_out_of_range(dtype, engine):
    values = [math.nan, -math.inf, math.inf, -1e300, 1e300, -0.0, -1e-9, 1 + 1e-9, 1e-320, 2.0]
    found = decode(engine, constant(values), (0,), (20,), dtype).to(torch.int32)
    levels = LEVELS[dtype]
    assert torch.equal(
        found, torch.tensor([0, 0, levels, 0, levels, 0, 0, levels, 0, levels]).expand(20, -1).to(torch.int32)
    )


@on_every_engine
def test_gain_and_offset_come_first(engine):
    # -1..1 to the full scale, as pictures are fitted.
    values = [-1.0, -0.5, 0.0, 0.25, 1.0, 1.5, math.nan]
    found = decode(engine, constant(values), (0,), (1,), torch.uint8, gain=0.5, offset=0.5)
    assert found.tolist() == [[0, 64, 128, 159, 255, 255, 0]]


@on_every_engine
def test_float32_network_to_pixels(engine):
    # Each pixel is the nearest level of the value, but for values within float32 of a tie.
    net, shape = network(2, torch.float32), (40, 40)
    (y,) = engine.forward("value", net, coordinates((0, 0), shape, torch.float32))
    for dtype, levels in LEVELS.items():
        scaled = (y.double() * 3 + 0.5).clamp(0, 1) * levels
        found = decode(engine, net, (0, 0), shape, dtype, 3.0, 0.5).double()
        assert ((found - scaled).abs() <= 0.5 + levels * 4e-7).all()
        assert found.unique().numel() > 100


@on_every_engine
def test_empty_grid(engine):
    assert decode(engine, network(2, torch.float32), (0, 0), (0, 5), torch.uint8).shape == (0, 3)


@on_every_kernel
def test_refuses_what_it_cannot_write(engine):
    net, arguments = network(1, torch.float32), ((0.0,), (1.0,), (0,), (8,))
    for out in (
        torch.zeros(8, 2),
        torch.zeros(9, 3),
        torch.zeros(3, 8).T,
        torch.zeros(8, 3, dtype=torch.int32),
        torch.zeros(8, 6)[:, ::2],
    ):
        with pytest.raises(ValueError, match=r"out: got .* expected contiguous \(8, 3\)"):
            engine.call("grid_fwd", *arguments, *net, out=out, gain=1.0, offset=0.0)


@on_every_isa
def test_threads_do_not_matter(engine):
    results = []
    for count in (1, 2, 4):
        with threads(count):
            results.append(decode(engine, network(2, torch.float32), (0, 0), (61, 67), torch.float32))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_out_on_another_device_is_refused():
    with pytest.raises(ValueError, match="on meta, expected contiguous"):
        backends.module("cpp").grid_fwd(
            [0.0],
            [0.1],
            [0],
            [4],
            *network(1, torch.float32),
            out=torch.empty(4, 3, device="meta"),
            gain=1.0,
            offset=0.0,
        )
