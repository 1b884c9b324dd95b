"""The best clip against the table of the protocol, and its error against numbers drawn."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.diff.clip import clip_error, kappa, mean_error
from shoal.errors import ArgumentError

#: L -> (kappa for the mean of 1, error), the same for 10, for 100
TABLE = {
    1: ((1.24, 0.215), (2.01, 0.0449), (2.68, 0.00728)),
    2: ((1.71, 0.0871), (2.42, 0.0153), (3.05, 0.00227)),
    4: ((2.15, 0.0314), (2.81, 0.00493), (3.39, 6.9e-4)),
    8: ((2.56, 0.0105), (3.17, 0.00152), (3.72, 2.0e-4)),
    12: ((2.78, 0.00538), (3.37, 7.5e-4), (3.90, 9.8e-5)),
    20: ((3.05, 0.00227), (3.61, 3.1e-4), (4.11, 3.9e-5)),
    42: ((3.42, 6.3e-4), (3.94, 8.2e-5), (4.42, 1.0e-5)),
    127: ((3.92, 8.8e-5), (4.40, 1.1e-5), (4.84, 1.3e-6)),
    327: ((4.32, 1.6e-5), (4.76, 1.9e-6), (5.18, 2.2e-7)),
    3276: ((5.18, 2.2e-7), (5.57, 2.6e-8), (5.94, 2.9e-9)),
}


@pytest.mark.parametrize("bound", TABLE)
def test_table(bound: int) -> None:
    for mean_of, (best, error) in zip((1, 10, 100), TABLE[bound], strict=True):
        found = kappa(bound, mean_of)
        assert abs(found - best) <= 0.005 + 1 / 128
        assert mean_error(found, bound, mean_of) == pytest.approx(error, rel=0.04)


def test_a_multiple_of_a_64th_that_is_no_worse_than_its_neighbours() -> None:
    for bound, mean_of in ((1, 1), (12, 3), (163, 200), (8421504, 255), (2**31 - 1, 1)):
        found = kappa(bound, mean_of)
        assert found * 64 == int(found * 64)
        there = mean_error(found, bound, mean_of)
        assert all(there <= mean_error(found + step, bound, mean_of) for step in (-1 / 64, 1 / 64))
    with pytest.raises(ArgumentError):
        kappa(0, 3)


def test_error_of_clipping() -> None:
    z = np.random.default_rng(4).standard_normal(2_000_000)
    for at in (1.0, 2.0, 3.0):
        assert clip_error(at) == pytest.approx(np.mean((z - np.clip(z, -at, at)) ** 2), rel=0.05)
