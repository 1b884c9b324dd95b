"""The lane of statistics: what it tells, and which canary dies of what."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.diff.grid import Grid
from shoal.diff.scales import Scales, block_squares
from shoal.diff.statistics import check, clipped_most, read, runs, word_most, words_count, words_of
from shoal.errors import PeerError
from shoal.kernels.coding import BlockSums

GRID = Grid.of(2**20 + 5000)


def scales(active: bool = True) -> Scales:
    found = np.full(GRID.blocks, 3.5 if active else 0, np.float32)
    found[2] = 0
    return Scales(GRID, 3.5, found)


def sums(table: Scales, totals: int, clipped: int) -> BlockSums:
    m = len(table.blocks)
    return BlockSums(np.zeros(m), np.full(m, clipped, np.int64), np.full(m, totals, np.int64))


def test_shape() -> None:
    assert runs(GRID) == 2 and words_count(GRID) == GRID.blocks + 6
    assert runs(Grid.of(0)) == 0 and runs(Grid.of(2**20)) == 1
    starts, ends = GRID.starts(), GRID.starts() + 2 ** GRID.logs().astype(np.int64)
    assert np.array_equal(starts >> 20, (ends - 1) >> 20), "a block lies in two runs"


def test_root_mean_square_of_the_survivors() -> None:
    rng = np.random.default_rng(5)
    table = scales()
    words = np.zeros(words_count(GRID), np.uint64)
    true = np.zeros(GRID.blocks)
    sizes = 2.0 ** GRID.logs()
    alphas = (1.0, 0.5, 0.25)
    for alpha in alphas:
        squares = block_squares(GRID, rng.standard_normal(GRID.elements).astype(np.float32)) * alpha**2
        squares[5] = 0
        true += squares / sizes
        words += words_of(table, squares, sums(table, -7, 1), planned=5)
    divisor = sum(a * a for a in alphas)
    found = read(table, words, 3, divisor, planned=5)
    assert np.allclose(found.rms, np.sqrt(true / divisor), rtol=1e-6) and not found.saturated
    assert not found.coarse
    assert found.rms[5] == 0 and abs(found.rms[0] - 1) < 0.05
    assert found.zeros.tolist() == [3, 0] and found.totals.sum() == -21 * len(table.blocks)
    assert found.clipped.tolist() == [3 * 63, 3 * (GRID.blocks - 64)]


def test_words_fit() -> None:
    for n in range(1, 256):
        assert int(float(word_most(n))) == word_most(n) and 2**61 < n * word_most(n) <= 2**62


def test_small_and_large() -> None:
    table = scales(active=False)
    squares = np.zeros(GRID.blocks)
    squares[:3] = 1e-200, 1e300, 0
    words = words_of(table, squares, None, planned=7)
    assert words[:3].tolist() == [1, word_most(7), 0] and not words[GRID.blocks : GRID.blocks + 4].any()
    found = read(table, words, 1, 1.0, planned=7)
    assert found.saturated and found.coarse and found.rms[0] > 0


def test_sums_that_cannot_be() -> None:
    table = scales()
    for place, value in (
        (0, 3 * word_most(5) + 1),
        (0, 2**64 - 1),
        (GRID.blocks + 2, 2**64 - 1),
        (GRID.blocks + 3, 3 * 5001 + 300),
        (GRID.blocks + 4, 3 * 64 + 1),
    ):
        words = np.zeros(words_count(GRID), np.uint64)
        words[place] = value
        with pytest.raises(PeerError) as caught:
            read(table, words, 3, 3.0, planned=5)
        assert caught.value.code == "statistics.value"


def test_canaries() -> None:
    table = scales()
    words = 2 * words_of(table, np.ones(GRID.blocks), sums(table, 3, 0), planned=2)
    found = read(table, words, 2, 2.0, planned=2)
    totals = found.totals.tolist()
    check(table, found, totals)
    for run, by in ((0, 256), (1, -256), (1, 1)):
        wrong = list(totals)
        wrong[run] += by
        with pytest.raises(PeerError) as caught:
            check(table, found, wrong)
        assert caught.value.code == "slot.wrapped" and f"run {run}" in str(caught.value)


def test_too_much_clipped() -> None:
    table = scales()
    limit = clipped_most(3.5)
    assert 0.05 < limit < 0.06 and clipped_most(1.2) > 0.5
    for share, bad in ((0.9 * limit, False), (1.1 * limit, True)):
        m = len(table.blocks)
        clipped = (share * 2.0**table.blocks.logs).astype(np.int64)
        words = words_of(table, np.ones(GRID.blocks), BlockSums(np.zeros(m), clipped, np.zeros(m, np.int64)), planned=1)
        found = read(table, words, 1, 1.0, planned=1)
        if bad:
            with pytest.raises(PeerError) as caught:
                check(table, found, [0, 0])
            assert caught.value.code == "slot.clipped"
        else:
            check(table, found, [0, 0])
