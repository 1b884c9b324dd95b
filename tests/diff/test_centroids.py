"""The centroids are what Lloyd and Max ask for: the mean of their cell, which ends half way to the neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shoal.diff.centroids import BOUNDARIES, CENTROIDS

#: error of the unbiased quantiser relative to the squared norm: docs/PROTOCOL.md
VNMSE = {1: 0.5708, 2: 0.1331, 3: 0.03578, 4: 0.009592, 8: 4.11e-5}


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def above(x: float) -> float:
    """P(N(0, 1) > x), accurate in the tail."""
    return math.erfc(x / math.sqrt(2)) / 2


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_lloyd_max(bits: int) -> None:
    table, edges = CENTROIDS[bits], BOUNDARIES[bits]
    assert table.dtype == edges.dtype == np.float32 and (len(table), len(edges)) == (2**bits, 2**bits - 1)
    assert (np.diff(table) > 0).all() and np.array_equal(table, -table[::-1])
    assert np.array_equal(edges, ((table[1:].astype(np.float64) + table[:-1]) / 2).astype(np.float32))
    half = table[len(table) // 2 :].astype(np.float64)
    cuts = [0.0, *((half[1:] + half[:-1]) / 2), math.inf]
    explained = 0.0
    for c, low, high in zip(half, cuts, cuts[1:], strict=False):
        inside = above(low) - above(high)
        mean = (density(low) - density(high)) / inside
        assert abs(c - mean) < 2e-7 * max(1.0, c), (bits, c, mean)
        explained += 2 * inside * mean * mean
    assert 1 / explained - 1 == pytest.approx(VNMSE[bits], rel=3e-3)


def test_tables_cannot_be_changed() -> None:
    with pytest.raises(ValueError):
        CENTROIDS[4][0] = 0
