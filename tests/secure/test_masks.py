"""Streams of masks: they cancel over the survivors, the removal is the sum of the vouchings, signs follow ids."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.kernels import ring
from shoal.kernels.ring import Streams
from shoal.secure import masks
from shoal.secure.graph import neighbours
from shoal.secure.kdf import derive, digest

IDS = sorted(digest("m", bytes([i])) for i in range(7))
GRAPH = neighbours(IDS, 4, b"seed")
OWN = {i: digest("own", i) for i in IDS}


def pair(i: bytes, j: bytes) -> bytes:
    return digest("pair", *sorted((i, j)))


def noise(streams: Streams, bits: int = 16, count: int = 96) -> np.ndarray:
    """What streams add to words that are all 0."""
    out = np.zeros(ring.word_bytes(count, bits), np.uint8)
    ring.add_streams(out, bits, streams, ring.LANE_MODEL, 0, out)
    return ring.unpack(out, bits).astype(np.int64)


def uploaded(i: bytes) -> Streams:
    return masks.upload(i, OWN[i], {j: pair(i, j) for j in GRAPH[i]})


@pytest.mark.parametrize("bits", [8, 12, 16, 32, 64])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_what_is_put_on_is_taken_off(bits: int, gone: int) -> None:
    survivors, fallen = IDS[gone:], frozenset(IDS[:gone])
    edges = masks.edges(survivors, GRAPH, fallen)
    removal = masks.removal({i: OWN[i] for i in survivors}, {(i, d): pair(i, d) for i, d in edges})
    vouchings = [masks.vouching(i, OWN[i], {d: pair(i, d) for d in GRAPH[i] & fallen}) for i in survivors]
    modulus = 2**bits if bits < 64 else 0
    put_on = sum(noise(uploaded(i), bits) for i in survivors)
    taken = noise(removal, bits)
    left = put_on + taken
    assert not (left % modulus if modulus else left).any()
    difference = sum(noise(v, bits) for v in vouchings) - taken
    assert not (difference % modulus if modulus else difference).any()
    assert len(removal) == len(survivors) + len(edges) and len(edges) == sum(len(GRAPH[d] - fallen) for d in fallen)


def test_one_that_is_left_out_leaves_noise() -> None:
    survivors = IDS[1:]
    own = {i: OWN[i] for i in survivors}
    put_on = sum(noise(uploaded(i)) for i in survivors)
    for wrong in (masks.removal(own, {}), masks.removal({i: OWN[i] for i in survivors[1:]}, {})):
        assert np.count_nonzero((put_on + noise(wrong)) % 2**16) > 90


def test_the_lower_id_adds() -> None:
    low, high = IDS[0], IDS[1]
    assert list(masks.upload(low, OWN[low], {high: pair(low, high)}).signs) == [1, 1]
    assert list(masks.upload(high, OWN[high], {low: pair(low, high)}).signs) == [1, -1]
    assert list(masks.vouching(high, OWN[high], {low: pair(low, high)}).signs) == [-1, 1]
    assert list(masks.removal({high: OWN[high]}, {(high, low): pair(low, high)}).signs) == [-1, 1]


def test_every_bit_of_a_seed_counts() -> None:
    """No seed is shortened on its way to a mask: one bit of it turns half of the mask's bits.  4096 bits: a deviation of
    more than 6 sigma, 192, comes once in 10**9."""
    seed = digest("a seed")
    base = np.zeros(512, np.uint8)
    ring.keystream(derive(seed, "self-mask", b"rid"), 0, 0, base)
    for bit in range(256):
        other = bytearray(seed)
        other[bit // 8] ^= 1 << bit % 8
        found = np.zeros(512, np.uint8)
        ring.keystream(derive(bytes(other), "self-mask", b"rid"), 0, 0, found)
        assert abs(int(np.unpackbits(base ^ found).sum()) - 2048) < 192, bit
