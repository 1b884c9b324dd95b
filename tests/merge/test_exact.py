"""Sums without rounding: against whole numbers, in any order, whatever the range."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import shoal
from shoal.limits import GRAM_BLOCK
from shoal.merge.exact import ExactSum


def rows(seed: int, count: int, spread: int) -> list[np.ndarray]:
    """Numbers of very different size, with zeros and numbers that cancel."""
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal((3, 3)) * 2.0 ** rng.integers(-spread, spread + 1, (3, 3)) for _ in range(count)]
    found[1] = -found[0]
    found[2] = np.zeros((3, 3))
    return found


@pytest.mark.parametrize("spread", [0, 30, 300])
@pytest.mark.parametrize("seed", range(3))
def test_value_is_the_nearest_number_to_the_sum_of_fractions(seed: int, spread: int) -> None:
    given = rows(seed, 40, spread)
    total = ExactSum()
    for row in given:
        total.add(row)
    exact = [sum(Fraction(row.flat[i]) for row in given) for i in range(9)]
    assert [float(x) for x in exact] == total.value.ravel().tolist()
    levels = total.levels(3)
    left = [abs(x - sum(Fraction(level.flat[i]) for level in levels)) for i, x in enumerate(exact)]
    assert all(rest <= abs(x) * Fraction(1, 2**150) for rest, x in zip(left, exact, strict=True))


def test_levels_depend_on_the_sum_alone() -> None:
    given = rows(7, 40, 60)
    told = set()
    for order in (given, given[::-1], sorted(given, key=lambda row: row[0, 0])):
        total = ExactSum()
        for row in order:
            total.add(row)
        told.add(b"".join(level.tobytes() for level in total.levels(3)))
    assert len(told) == 1


def test_what_is_not_finite_stays_so_and_spoils_nothing_else() -> None:
    total = ExactSum()
    for row in ([1.0, np.nan, np.inf, 1e308], [1e-30, 1.0, 1.0, 1e308], [-1.0, 1.0, 1.0, 1.0]):
        total.add(np.array(row))
    value = total.value
    assert value[0] == 1e-30 and np.isnan(value[1]) and value[2] == np.inf and value[3] == np.inf
    assert ExactSum().value is None


@pytest.mark.parametrize("method", ["krum", "geometric-median"])
def test_a_merge_does_not_depend_on_the_order_of_its_blocks(method: str) -> None:
    """Blocks of one array, in another order: the same coefficients, so the same numbers in that other order."""
    rng = np.random.default_rng(1)
    models = [rng.standard_normal(5 * GRAM_BLOCK).astype(np.float32) for _ in range(5)]
    one = shoal.merge(models, method=method)
    two = shoal.merge([m.reshape(5, -1)[::-1].reshape(-1).copy() for m in models], method=method)
    assert np.array_equal(one.reshape(5, -1)[::-1].reshape(-1), two)
