"""Parcels: cut, named, fetched in any order, nothing taken that was not named."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.limits import CHUNK_BYTES
from shoal.swarm.parcel import Gathering, Parcel, cuts, parcel_root


def parcel(sizes: list[int], seed: int = 0) -> tuple[Parcel, list[list[tuple[int, int]]]]:
    table = cuts(sizes)
    data = np.random.default_rng(seed).integers(0, 256, sum(sizes), np.uint8)
    return Parcel(data, [c for shard in table for c in shard]), table


def test_chunks_never_cross_a_shard() -> None:
    sizes = [CHUNK_BYTES + 5, 0, 3, 2 * CHUNK_BYTES]
    table = cuts(sizes)
    assert [len(shard) for shard in table] == [2, 0, 1, 2]
    start = 0
    for size, shard in zip(sizes, table, strict=True):
        assert sum(b - a for a, b in shard) == size
        assert all(start <= a < b <= start + size and b - a <= CHUNK_BYTES for a, b in shard)
        start += size


@pytest.mark.parametrize("shard", [0, 2, 3])
def test_an_owner_gathers_its_shard_in_any_order(shard: int) -> None:
    sizes = [CHUNK_BYTES + 5, 0, 3, 2 * CHUNK_BYTES]
    whole, table = parcel(sizes)
    first = sum(len(s) for s in table[:shard])
    wanted = range(first, first + len(table[shard]))
    gathering = Gathering(whole.root, whole.chunks, wanted)
    assert not gathering.put(first, whole.chunk(first)), "nothing is taken before it was named"
    assert gathering.name(whole.hashes)
    for index in reversed(wanted):
        assert not gathering.complete
        assert gathering.put(index, whole.chunk(index))
        assert not gathering.put(index, whole.chunk(index)), "a chunk counts once"
    start = sum(sizes[:shard])
    assert gathering.complete and np.array_equal(gathering.data, whole.data[start : start + sizes[shard]])


def test_other_bytes_than_those_named_are_refused() -> None:
    whole, _ = parcel([100, 2 * CHUNK_BYTES])
    gathering = Gathering(whole.root, whole.chunks, range(3))
    flipped = bytearray(whole.hashes)
    flipped[40] ^= 1
    assert not gathering.name(bytes(flipped)) and not gathering.name(whole.hashes[:-32]) and not gathering.name(b"")
    assert gathering.name(whole.hashes)
    wrong = bytearray(whole.chunk(1))
    wrong[-1] ^= 128
    assert not gathering.put(1, memoryview(wrong))
    assert not gathering.put(1, whole.chunk(1)[:-1])
    assert not gathering.put(1, whole.chunk(2))
    assert not gathering.put(7, whole.chunk(1))
    assert gathering.missing(2, {0}) == (1, 2)


def test_an_empty_parcel_is_complete_and_has_a_root() -> None:
    whole, _ = parcel([0])
    assert Gathering(whole.root, whole.chunks, range(0)).complete
    assert whole.root == parcel_root(b"") != parcel_root(bytes(32))
