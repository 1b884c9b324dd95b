"""CUDA kernels, on the host and on a device if there is one: the bits of `reference`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_kernels import KERNELS
from sample_arrays import KINDS, NAMES, bits_of, sample, shifted

from shoal.kernels import reference
from shoal.kernels.reference import Array

pytestmark = pytest.mark.usefixtures("target")

#: nothing, one, around a thread's 16 bytes of each dtype and around a block of threads
LENGTHS = (0, 1, 2, 3, 5, 9, 17, 1025)


def same(a: Array, b: Array) -> bool:
    return np.array_equal(bits_of(a), bits_of(b))


def samples(seed: int, dtype: np.dtype[Any], length: int, kind: str, count: int) -> list[Array]:
    """Inputs at addresses that allow vector loads, and at such that do not."""
    rng = np.random.default_rng(seed)
    off = (seed % 3) * dtype.itemsize
    return [shifted(sample(rng, dtype, length, kind), off) for _ in range(count)]


def check(function: Any, arguments: tuple[Any, ...], expected: tuple[bool, Array]) -> None:
    """function(*arguments, out, finite=flag) against what the reference found."""
    finite, wanted = expected
    out, flag = np.zeros_like(wanted), np.zeros(1, np.uint32)
    function(*arguments, out, finite=flag)
    assert same(out, wanted)
    assert bool(flag[0]) == (not finite)


def by_reference(function: Any, *arguments: Any) -> tuple[bool, Array]:
    out = np.empty_like(arguments[-1])
    return function(*arguments[:-1], out), out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuda_mean_gives_the_references_bits(name: str, kind: str) -> None:
    for length in LENGTHS:
        for count in (1, 2, 8, 13):
            inputs = samples(length + count, NAMES[name], length, kind, count)
            weights = np.random.default_rng(count).uniform(1e-3, 1e3, count).tolist()
            expected = by_reference(reference.weighted_mean, inputs, weights, inputs[0])
            check(KERNELS.weighted_mean, (inputs, weights), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuda_order_gives_the_references_bits(name: str, kind: str) -> None:
    for count in (1, 2, 3, 4, 5, 8, 9, 16, 17, 31, 32):
        for length in (0, 1, 3, 37):
            inputs = samples(length + count, NAMES[name], length, kind, count)
            rng = np.random.default_rng(count)
            # Small whole numbers: their sums often hit the half exactly.
            for weights in (None, rng.integers(1, 4, count).tolist(), rng.uniform(1e-3, 1, count).tolist()):
                expected = by_reference(reference.median, inputs, weights, inputs[0])
                check(KERNELS.median, (inputs, weights), expected)
                trim = (count - 1) // 2 if length == 1 else (count - 1) // 4
                expected = by_reference(reference.trimmed_mean, inputs, weights, trim, inputs[0])
                check(KERNELS.trimmed_mean, (inputs, weights, trim), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuda_combination_gives_the_references_bits(name: str, kind: str) -> None:
    for length in LENGTHS:
        base, *inputs = samples(length, NAMES[name], length, kind, 6)
        coefficients = [0.5, -1.25, 3.0, 1e-3, -0.1]
        for start in (None, base):
            expected = by_reference(reference.combine, start, inputs, coefficients, base)
            check(KERNELS.combine, (start, inputs, coefficients), expected)
        expected = by_reference(reference.combine, base, [base, base], [2.0, -7.0], base)
        check(KERNELS.combine, (base, [base, base], [2.0, -7.0]), expected)
        expected = by_reference(reference.scaled_add, base, -0.37, inputs[0], base)
        check(KERNELS.scaled_add, (base, -0.37, inputs[0]), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuda_conversion_gives_the_references_bits(name: str, kind: str) -> None:
    for length in LENGTHS:
        (x,) = samples(length, NAMES[name], length, kind, 1)
        for dtype in NAMES.values():
            expected, out = np.empty(length, dtype), shifted(np.empty(length, dtype), length % 2 * dtype.itemsize)
            reference.convert(x, expected)
            KERNELS.convert(x, out)
            assert same(out, expected)


@pytest.mark.parametrize("name", NAMES)
def test_cuda_sums_may_write_over_an_input(name: str) -> None:
    inputs = samples(1, NAMES[name], 301, "plain", 5)
    expected = np.empty_like(inputs[0])
    reference.median(inputs, None, expected)
    KERNELS.median(inputs, None, inputs[3])
    assert same(inputs[3], expected)


def test_most_inputs_of_a_mean() -> None:
    inputs = samples(0, np.dtype(np.float32), 9, "plain", 128)
    expected, out = np.empty_like(inputs[0]), np.empty_like(inputs[0])
    reference.weighted_mean(inputs, range(1, 129), expected)
    KERNELS.weighted_mean(inputs, range(1, 129), out)
    assert same(out, expected)
