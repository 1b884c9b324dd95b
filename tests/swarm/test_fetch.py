"""What is asked for again: what seems to be lost, and never what is only slow."""

from __future__ import annotations

import numpy as np

from shoal.limits import WINDOW_CHUNKS
from shoal.swarm import parcel
from shoal.swarm.fetch import Fetch, Overdue
from shoal.swarm.parcel import Gathering, Parcel, cuts

RETRY, PATIENCE = 10, 40


def fetch(chunks: int, monkeypatch) -> tuple[Fetch, Parcel]:
    monkeypatch.setattr(parcel, "CHUNK_BYTES", 8)
    made = Parcel(np.arange(8 * chunks, dtype=np.uint8), cuts([8 * chunks])[0])
    gathering = Gathering(made.root, made.chunks, range(chunks))
    assert gathering.name(made.hashes)
    return Fetch(1, 0, gathering, [b"a", b"b"]), made


def wants(one: Fetch, now: int, still: int) -> tuple[int, ...]:
    return one.wants(now, 100, still, Overdue(RETRY, PATIENCE, 8 * PATIENCE))


def test_what_is_slow_is_not_asked_for_again(monkeypatch) -> None:
    one, made = fetch(12, monkeypatch)
    assert wants(one, 0, 0) == tuple(range(WINDOW_CHUNKS))
    for index in range(4):
        now = 30 * (index + 1)
        assert one.put(index, made.chunk(index))
        assert wants(one, now, 0) == (WINDOW_CHUNKS + index,), "the window moves on by one"
        assert wants(one, now + 29, 29) == ()


def test_what_later_ones_have_overtaken_is_asked_for_again_and_then_less_often(monkeypatch) -> None:
    one, made = fetch(4, monkeypatch)
    wants(one, 0, 0)
    assert one.put(2, made.chunk(2))
    assert wants(one, RETRY - 1, 0) == ()
    assert wants(one, RETRY, 0) == (0, 1), "3 was asked for later: it is not overdue"
    assert one.put(3, made.chunk(3))
    assert wants(one, 2 * RETRY, 0) == ()
    assert one.on_the_way() == 2


def test_where_nothing_comes_all_is_asked_for_again_each_time_after_twice_as_long(monkeypatch) -> None:
    one, _ = fetch(2, monkeypatch)
    asked = [now for now in range(24 * PATIENCE) if wants(one, now, now)]
    assert asked == [0, PATIENCE, 3 * PATIENCE, 7 * PATIENCE, 15 * PATIENCE, 23 * PATIENCE]


def test_another_source_is_asked_for_what_is_missing(monkeypatch) -> None:
    one, made = fetch(3, monkeypatch)
    wants(one, 0, 0)
    one.put(1, made.chunk(1))
    one.next_source()
    assert one.source == b"b" and wants(one, 1, 0) == (0, 2)
