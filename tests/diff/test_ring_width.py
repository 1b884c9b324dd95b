"""No sum of a slot can wrap: for every number of participants, ring and weights, the largest integers all at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.diff.ring_width import Width, capacity, choose_bits
from shoal.errors import ArgumentError
from shoal.kernels.coding import RING_BITS
from shoal.kernels.reference_ring import lift, pack, sum_words


def summed(width: Width, sign: int) -> int:
    """What a ring makes of the largest integers of all participants."""
    words = [
        pack(np.full(2, sign * bound % 2**width.bits, "<u4" if width.bits == 32 else "<u2").astype(
            {8: "<u1", 12: "<u2", 16: "<u2", 32: "<u4"}[width.bits]), width.bits)
        for bound in width.bounds
    ]  # fmt: skip
    out = words[0].copy()
    sum_words(words, width.bits, out)
    return int(lift(out, width.bits)[1])


@pytest.mark.parametrize("bits", RING_BITS)
def test_extreme_values_of_all_sizes_of_swarm(bits: int) -> None:
    for n in range(3, 256):
        if n > capacity(bits):
            with pytest.raises(ArgumentError):
                Width.equal(n, bits)
            continue
        width = Width.equal(n, bits)
        assert width.bound == (2 ** (bits - 1) - 1) // n
        for sign in (1, -1):
            assert summed(width, sign) == sign * sum(width.bounds)


@given(st.lists(st.integers(1, 2**53), min_size=1, max_size=60), st.sampled_from(RING_BITS))
@settings(max_examples=80, deadline=None)
def test_public_weights_fit_and_nothing_larger_does(samples: list[int], bits: int) -> None:
    width = Width.public(samples, bits)
    for sign in (1, -1):
        assert summed(width, sign) == sign * sum(width.bounds)
    heaviest = max(samples)
    assert width.bounds == tuple(max(1, count * width.bound // heaviest) for count in samples)
    if width.bound < capacity(bits):
        more = [max(1, count * (width.bound + 1) // heaviest) for count in samples]
        assert sum(more) > capacity(bits)
    assert width.bound >= Width.equal(len(samples), bits).bound


def test_bounds_of_the_protocol() -> None:
    table = {
        3: (42, 682, 10922),
        5: (25, 409, 6553),
        10: (12, 204, 3276),
        15: (8, 136, 2184),
        30: (4, 68, 1092),
        100: (1, 20, 327),
    }
    for n, bounds in table.items():
        assert tuple(Width.equal(n, bits).bound for bits in (8, 12, 16)) == bounds
    assert Width.public([100, 10, 10], 8) == Width(8, 107, (107, 10, 10))


def test_a_sum_that_could_wrap_is_refused() -> None:
    assert Width(8, 127, (127,)).bounds == (127,)
    for bits, bound, bounds in [(8, 64, (64, 64)), (12, 1024, (1024, 1024)), (8, 5, (6,)), (8, 5, (0,)), (8, 5, ())]:
        with pytest.raises(ArgumentError) as caught:
            Width(bits, bound, bounds)
        assert caught.value.code == "plan.bound"
    for bits in (0, 7, 24, 64):
        with pytest.raises(ArgumentError) as caught:
            Width.equal(3, bits)
        assert caught.value.code == "plan.bits"
    for samples in ([0, 1], [1, -1], [2**53 + 1]):
        with pytest.raises(ArgumentError) as caught:
            Width.public(samples, 16)
        assert caught.value.code == "weights.samples"


def test_rule_for_the_ring() -> None:
    assert [choose_bits(n) for n in (1, 3, 15, 16, 100, 255)] == [8, 8, 8, 12, 12, 12]
    assert {choose_bits(n, fine=True) for n in range(1, 256)} == {16}
    assert {choose_bits(n, faithful=True) for n in range(1, 256)} == {32}
    for n in (0, 256):
        with pytest.raises(ArgumentError):
            choose_bits(n)
