"""The blocks of a vector: they cover it without gaps, pad less than 64, and any cut between blocks gives the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.diff.grid import Grid
from shoal.errors import ArgumentError

#: around every size of block, around the change to large blocks, and all at once
LENGTHS = [0, 1, 63, 64, 65, 255, 256, 257, 1023, 1024, 1025, 4096, 12345, 2**20 - 1, 2**20, 2**20 + 1, 2**20 + 16383]


@pytest.mark.parametrize("elements", LENGTHS)
def test_blocks_cover_the_vector(elements: int) -> None:
    grid = Grid.of(elements)
    sizes = 2 ** grid.logs().astype(np.int64)
    assert np.array_equal(grid.starts(), np.cumsum(sizes) - sizes) and grid.blocks == len(sizes)
    assert grid.places == sizes.sum() and 0 <= grid.places - elements < 64 and grid.places % 64 == 0
    assert set(grid.logs().tolist()) <= {6, 8, 10, 12, 14} and list(grid.logs()) == sorted(grid.logs(), reverse=True)
    assert (grid.log == 14) == (elements >= 2**20)


def test_greedy_tail() -> None:
    assert Grid.of(2**20 + 3 * 4096 + 1024 + 65) == Grid(2**20 + 3 * 4096 + 1089, 14, 64, (12, 12, 12, 10, 6, 6))
    assert Grid.of(1023) == Grid(1023, 10, 0, (8, 8, 8, 6, 6, 6, 6))


@pytest.mark.parametrize("elements", [5000, 2**20 + 5000])
def test_cuts_between_blocks(elements: int) -> None:
    grid = Grid.of(elements)
    starts = [*grid.starts().tolist(), elements]
    whole = grid.within(0, elements)
    assert np.array_equal(whole.starts, grid.starts()) and np.array_equal(whole.logs, grid.logs())
    for cut in (1, len(starts) // 2, len(starts) - 2):
        left, right = grid.within(0, starts[cut]), grid.within(starts[cut], elements - starts[cut])
        assert (left.first, right.first) == (0, starts[cut])
        assert np.array_equal(np.concatenate([left.starts, right.starts + starts[cut]]), grid.starts())
        assert np.array_equal(np.concatenate([left.logs, right.logs]), grid.logs())
    assert len(grid.within(starts[1], 0)) == 0


@pytest.mark.parametrize(
    ("first", "count"), [(1, 1023), (0, 1000), (0, 6000), (-64, 64), (1024, 1), (4992, 7), (1, 1024), (4097, 256)]
)
def test_other_cuts_are_refused(first: int, count: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        Grid.of(5000).within(first, count)
    assert caught.value.code == "grid.range"


@pytest.mark.parametrize("power", range(16, 31))
def test_padding_is_small_one_above_a_power_of_two(power: int) -> None:
    elements = 2**power + 1
    assert Grid.of(elements).places - elements < 0.001 * elements
