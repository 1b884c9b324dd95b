"""Weights: what scales a diff, what the sum is divided by, and what becomes known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.diff.weights import PRIVATE_UNITS, Alpha, private_alpha, public_alphas, total_private, total_public
from shoal.errors import ArgumentError, PeerError


def test_public() -> None:
    alphas = public_alphas([1, 3, 10])
    assert [a.value for a in alphas] == [float(np.float32(0.1)), float(np.float32(0.3)), 1.0]
    assert total_public(alphas, {2, 0}) == float(np.float32(0.1)) + 1.0
    assert all(a.units == 0 and not a.capped for a in alphas)


@given(st.integers(1, 2**53), st.integers(1, 2**53))
def test_private(samples: int, cap: int) -> None:
    alpha = private_alpha(samples, cap)
    assert 0 < alpha.value <= 1 and alpha.units == alpha.value * PRIVATE_UNITS
    assert alpha.capped == (samples > cap)
    assert abs(alpha.value - min(1, samples / cap)) <= 1 / PRIVATE_UNITS
    assert float(np.float32(alpha.value)) == alpha.value


def test_sum_of_private_weights() -> None:
    alphas = [private_alpha(samples, 400) for samples in (100, 400, 900)]
    assert alphas[2] == Alpha(1.0, PRIVATE_UNITS, capped=True)
    assert total_private(sum(a.units for a in alphas), 3) == 2.25
    for units, survivors in ((2, 3), (3 * PRIVATE_UNITS + 1, 3), (2**64 - 1, 3)):
        with pytest.raises(PeerError) as caught:
            total_private(units, survivors)
        assert caught.value.code == "weights.sum"


def test_weights_that_are_none() -> None:
    for samples in ([], [0, 3], [-1], [2**53 + 1]):
        with pytest.raises(ArgumentError):
            public_alphas(samples)
    for samples, cap in ((0, 5), (5, 0), (2**53 + 1, 5), (5, 2**53 + 1)):
        with pytest.raises(ArgumentError):
            private_alpha(samples, cap)
