"""CUDA kernels, on the host and on a device if there is one: the bits of `reference_ring`."""

from __future__ import annotations

import numpy as np
import pytest
from device_kernels import KERNELS
from sample_arrays import shifted

from shoal.kernels import reference_ring as reference
from shoal.kernels.ring import Streams

pytestmark = pytest.mark.usefixtures("target")

BITS = (8, 12, 16, 32, 64)
#: around a unit of every width (8 to 64 elements)
COUNTS = (0, 2, 6, 8, 10, 30, 32, 34, 62, 64, 66, 1026)
#: in a block, across it, at the ends of 32-bit counters and of what a stream is asked for
PLACES = (0, 1, 7, 64, 65, 2**36 - 64, 2**38 - 5, 2**60 - 1)


def words(count: int, bits: int, seed: int) -> np.ndarray:
    """Every second one at an address that allows no vector loads."""
    made = np.random.default_rng(seed).integers(0, 256, count * bits // 8, np.uint8)
    return shifted(made, seed % 2)


def streams_of(count: int) -> tuple[list[bytes], list[int]]:
    rng = np.random.default_rng(count)
    return [rng.bytes(32) for _ in range(count)], [1 if i % 3 else -1 for i in range(count)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("place", PLACES)
def test_cuda_masks_are_the_references(bits: int, place: int) -> None:
    for number, count in enumerate(COUNTS):
        data = words(count, bits, number)
        keys, signs = streams_of(number % 4)
        expected, out = np.empty_like(data), np.empty_like(data)
        reference.add_streams(data, bits, keys, signs, reference.LANE_MODEL + number, place, expected)
        KERNELS.add_streams(data, bits, Streams.of(keys, signs), number, place, out)
        assert np.array_equal(out, expected)


@pytest.mark.parametrize("bits", BITS)
def test_more_masks_than_one_launch_takes(bits: int) -> None:
    data = words(130, bits, 0)
    keys, signs = streams_of(131)
    expected, out = np.empty_like(data), np.empty_like(data)
    reference.add_streams(data, bits, keys, signs, 0, 64, expected)
    streams = Streams.of(keys, signs)
    KERNELS.add_streams(data, bits, streams, 0, 64, out)
    assert np.array_equal(out, expected)
    KERNELS.add_streams(out, bits, streams.opposite(), 0, 64, out)
    assert np.array_equal(out, data)


@pytest.mark.parametrize("bits", BITS)
def test_cuda_sums_of_words_are_the_references(bits: int) -> None:
    for count in COUNTS:
        for inputs in (1, 2, 19):
            rows = [words(count, bits, seed) for seed in range(inputs)]
            expected, out = np.empty_like(rows[0]), np.empty_like(rows[0])
            reference.sum_words(rows, bits, expected)
            KERNELS.sum_words(rows, bits, out)
            assert np.array_equal(out, expected)
