"""CUDA kernels, on the host and on a device if there is one: statistics, inner products, check sums."""

from __future__ import annotations

import numpy as np
import pytest
from device_kernels import KERNELS
from sample_arrays import NAMES, bits_of, sample, shifted

from shoal.kernels import reference, reference_ring
from shoal.limits import GRAM_BLOCK

pytestmark = pytest.mark.usefixtures("target")

KINDS = ("plain", "specials", "tiny", "bits")
#: nothing, lanes that are missing, around one block and two
LENGTHS = (0, 1, 7, 9, GRAM_BLOCK - 1, GRAM_BLOCK + 1, 2 * GRAM_BLOCK + 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_cuda_statistics_are_the_references(name: str, kind: str) -> None:
    for length in LENGTHS:
        x = sample(np.random.default_rng(length), NAMES[name], length, kind)
        numbers, counts = np.empty(2), np.empty(2, np.int64)
        KERNELS.stats(x, numbers, counts)
        expected = reference.stats(x)
        assert bits_of(numbers).tolist() == bits_of(np.array(expected[:2], np.float64)).tolist()
        assert tuple(counts.tolist()) == expected[2:]


@pytest.mark.parametrize("kind", ("plain", "specials"))
@pytest.mark.parametrize("name", NAMES)
def test_cuda_inner_products_are_the_references(name: str, kind: str) -> None:
    for count in (1, 3, 4, 5, 9):
        for length in (0, 1, 15, GRAM_BLOCK + 5) if count == 5 else (77,):
            rng = np.random.default_rng(length + count)
            base, *inputs = (sample(rng, NAMES[name], length, kind) for _ in range(count + 1))
            for start in (None, base):
                expected = reference.gram(inputs, start)
                found = np.empty(expected.size)
                KERNELS.gram(inputs, start, found)
                assert np.array_equal(bits_of(found), bits_of(expected.reshape(-1)))


@pytest.mark.parametrize("bits", (8, 12, 16, 32, 64))
def test_cuda_check_sums_are_the_references(bits: int) -> None:
    for number, count in enumerate((0, 2, 14, 16, 18, 4098, 66_000)):
        for place in (0, 1, 15, 16, 2**36 + 7, 2**60 - 1):
            rng = np.random.default_rng(number)
            data = shifted(rng.integers(0, 256, count * bits // 8, np.uint8), number % 3)
            key, lane = rng.bytes(32), reference_ring.LANE_CHECK + number
            sums = np.empty(32, np.uint64)
            KERNELS.check_sums(data, bits, key, lane, place, sums)
            assert np.array_equal(sums, reference_ring.check_sums(data, bits, key, lane, place))
