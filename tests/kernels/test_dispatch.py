"""Native kernels give the bits of `reference`, at every level, for any thread count, length and address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_arrays import KINDS, LENGTHS, NAMES, bits_of, sample, shifted, specials

from shoal.kernels import _native, dispatch, reference
from shoal.kernels.reference import BFLOAT16, DTYPES, Array

LEVELS = dispatch.levels_available()
#: One, few, on both sides of the largest group that is sorted in registers (16), and merges of groups with a ragged end.
COUNTS = (1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 33)

Kernel = Callable[[Any, list[Array], Any, Array], bool]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _native.level()
    _native.use_level(request.param)
    yield request.param
    _native.use_level(before)


@pytest.fixture(params=NAMES.values(), ids=str)
def dtype(request: pytest.FixtureRequest) -> np.dtype[Any]:
    found: np.dtype[Any] = request.param
    return found


def weights_for(rng: np.random.Generator, count: int) -> list[float]:
    return [float(w) for w in rng.choice([1.0, 2.0, 812.0, 240.0, 0.1, 1e-30, 3.5], count)]


KERNELS: dict[str, Kernel] = {
    "weighted_mean": lambda m, x, w, out: m.weighted_mean(x, w, out),
    "combine": lambda m, x, w, out: m.combine(None, x, [c - 1.7 for c in w], out),
    "combine_base": lambda m, x, w, out: m.combine(x[-1], x, [c - 1.7 for c in w], out),
    "median": lambda m, x, w, out: m.median(x, None, out),
    "weighted_median": lambda m, x, w, out: m.median(x, w, out),
    "trimmed_mean": lambda m, x, w, out: m.trimmed_mean(x, None, (len(x) - 1) // 3, out),
    "weighted_trimmed_mean": lambda m, x, w, out: m.trimmed_mean(x, w, (len(x) - 1) // 3, out),
    "mean_around_median": lambda m, x, w, out: m.mean_around_median(x, (len(x) + 1) // 2, out),
    "scaled_add": lambda m, x, w, out: m.scaled_add(x[0], w[0] - 1.7, x[-1], out),
}


def check_same(kernel: Kernel, inputs: list[Array], weights: list[float], out: Array) -> None:
    """The native kernel, written to `out`, against the reference."""
    expected = np.empty_like(inputs[0])
    finite = kernel(reference, inputs, weights, expected)
    found = kernel(dispatch, inputs, weights, out)
    different = np.flatnonzero(bits_of(out) != bits_of(expected))
    where = different[:3]
    assert not len(different), (where, [x[where] for x in inputs][:4], out[where], expected[where])
    assert found is finite


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", KERNELS)
def test_same_bits(level: str, dtype: np.dtype[Any], name: str, count: int) -> None:
    rng = np.random.default_rng(count)
    for kind in KINDS:
        inputs = [sample(rng, dtype, 300, kind) for _ in range(count)]
        check_same(KERNELS[name], inputs, weights_for(rng, count), np.empty_like(inputs[0]))
