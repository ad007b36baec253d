"""Coordinate grids against torch.linspace, and points against boxes."""

import pytest
import torch

from fastsiren.grids import CONVENTIONS, Grid


@pytest.mark.parametrize("n", [2, 3, 7, 512, 1411])
@pytest.mark.parametrize(("convention", "low"), [("corner", -1.0), ("unit", 0.0)])
def test_ends_are_exact_and_inner_points_are_those_of_linspace(convention, low, n):
    got = Grid.over(n, convention).coordinates()[:, 0]
    assert got[0] == low
    assert got[-1] == 1.0
    expected = torch.linspace(low, 1, n, dtype=torch.float64)
    assert (got.double() - expected).abs().max() <= 2**-24


def test_centre_points_are_the_middles_of_equal_cells():
    assert Grid.over(4, "centre").coordinates()[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]


@pytest.mark.parametrize(("convention", "expected"), [("corner", -1.0), ("centre", 0.0), ("unit", 0.0)])
def test_axis_of_one_point(convention, expected):
    assert Grid.over((1, 1), convention).coordinates().tolist() == [[[expected, expected]]]


def test_first_axis_is_the_slowest_and_each_axis_spans_the_range():
    coordinates = Grid.over((2, 3)).coordinates()
    assert coordinates.shape == (2, 3, 2)
    assert coordinates[1, 0].tolist() == [1.0, -1.0]
    assert coordinates[0, 2].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_boxes_and_single_points_have_the_bits_of_the_whole(convention, dtype):
    grid = Grid.over((5, 7, 3), convention)
    whole = grid.coordinates(dtype=dtype)
    assert torch.equal(grid.coordinates((2, 3, 1), (2, 4, 2), dtype=dtype), whole[2:4, 3:7, 1:3])
    index = torch.tensor([0, 1, 2, 3, 20, 21, 104])
    assert torch.equal(grid.at(index, dtype=dtype), whole.reshape(-1, 3)[index])
