"""What the memory network does beside being a transport: virtual time, faults, the same history from the same seed."""

from __future__ import annotations

import pytest
from transport_world import curve_pair, peer_id

from shoal.errors import ArgumentError
from shoal.limits import BULK_QUEUE, CHUNK_BYTES, CONTROL_QUEUE
from shoal.swarm.memory import SILENCE_S, MemoryNetwork, MemoryTransport, Weather
from shoal.swarm.transport import Back, Bulk, Endpoint, Event, Lost, Received

KEYS = [curve_pair()[0] for _ in range(4)]


def swarm(network: MemoryNetwork, count: int = 2) -> list[MemoryTransport]:
    ends = {peer_id(n): Endpoint(KEYS[n], f"tcp://m:{1 + n}") for n in range(count)}
    made = [network.transport(peer, end) for peer, end in ends.items()]
    for node in made:
        node.allow({peer: end for peer, end in ends.items() if peer != node.peer})
    network.advance(1.0)
    for node in made:
        assert sum(isinstance(e, Back) for e in node.poll(0)) == count - 1
    return made


def history(seed: int) -> list[tuple[float, int, Event]]:
    network = MemoryNetwork(seed, Weather(delay_s=(0.01, 0.3), drop=0.2, twice=0.2))
    nodes, told = swarm(network, 3), []
    for step in range(200):
        for n, node in enumerate(nodes):
            node.send(peer_id((n + 1) % 3), b"%d" % step)
            told += [(network.now_s, n, event) for event in node.poll(0)]
        network.advance(0.05)
    return told


def test_one_seed_is_one_history() -> None:
    assert history(5) == history(5) != history(6)


def test_messages_are_lost_doubled_and_overtake_each_other() -> None:
    got = [int(e.data) for _, n, e in history(5) if n == 1 and isinstance(e, Received)]
    assert len(set(got)) < 200 and len(set(got)) < len(got) and got != sorted(got)
    assert 120 < len(set(got)) < 195


def test_chunks_come_once_or_not_at_all() -> None:
    network = MemoryNetwork(1, Weather(drop=0.3, twice=1.0))
    one, two = swarm(network)
    got = []
    for step in range(100):
        assert one.send_bulk(two.peer, b"%d" % step, b"x")
        network.advance(0.1)
        got += [e.header for e in two.poll(0) if isinstance(e, Bulk)]
    assert 40 < len(got) == len(set(got)) < 95


def test_a_rate_is_kept() -> None:
    network = MemoryNetwork(1, Weather(delay_s=(0.0, 0.0), bytes_per_s=float(CHUNK_BYTES)))
    one, two = swarm(network)
    begin = network.now_s
    for _ in range(5):
        assert one.send_bulk(two.peer, b"h", bytes(CHUNK_BYTES))
    network.advance(4.9)
    assert len(two.poll(0)) == 4
    network.advance(0.2)
    assert len(two.poll(0)) == 1 and network.now_s == pytest.approx(begin + 5.1)


@pytest.mark.parametrize("both", [True, False])
def test_partition_is_noticed_by_both_after_a_silence_and_heals(both: bool) -> None:
    network = MemoryNetwork(1)
    one, two = swarm(network)
    network.blocked = {(one.peer, two.peer)} | ({(two.peer, one.peer)} if both else set())
    assert one.send(two.peer, b"swallowed") and two.send(one.peer, b"heard if one way")
    network.advance(SILENCE_S / 2)
    assert two.poll(0) == []
    assert one.poll(0) == ([] if both else [Received(two.peer, b"heard if one way")])
    network.advance(SILENCE_S)
    assert one.poll(0) == [Lost(two.peer)] and two.poll(0) == [Lost(one.peer)]
    assert not one.send(two.peer, b"x")
    network.blocked = set()
    network.advance(1.0)
    assert one.poll(0) == [Back(two.peer)] and two.poll(0) == [Back(one.peer)]


def test_what_was_on_its_way_when_a_connection_ended_is_lost() -> None:
    network = MemoryNetwork(1, Weather(delay_s=(2.0, 2.0)))
    one, two = swarm(network)
    assert one.send(two.peer, b"old")
    network.part(one.peer, two.peer)
    network.advance(3.0)
    assert [type(e) for e in two.poll(0)] == [Lost, Back]
    assert two.waiting.total() == 0


def test_time_goes_to_the_next_thing_that_happens() -> None:
    network = MemoryNetwork(1, Weather(delay_s=(0.125, 0.125)))
    one, two = swarm(network)
    one.send(two.peer, b"x")
    at = network.next_s()
    network.advance(at - network.now_s)
    assert two.poll(0) == [Received(one.peer, b"x")] and network.now_s == at


def test_two_with_one_id() -> None:
    network = MemoryNetwork(1)
    (one, _) = swarm(network)
    with pytest.raises(ArgumentError, match="already") as caught:
        network.transport(one.peer, one.endpoint)
    assert caught.value.code == "transport.twin"
    one.close()
    network.transport(one.peer, one.endpoint)


def test_queues_are_bounded_and_say_so() -> None:
    network = MemoryNetwork(1, Weather(delay_s=(0.01, 0.01)))
    one, two = swarm(network)
    chunks = messages = 0
    while one.send_bulk(two.peer, b"%d" % chunks, bytes(CHUNK_BYTES)):
        chunks += 1
    while one.send(two.peer, b"%d" % messages):
        messages += 1
    assert chunks == 2 * BULK_QUEUE and messages == 2 * CONTROL_QUEUE
    assert one.counters["dropped.bulk.full"] == one.counters["dropped.control.full"] == 1
    network.advance(1.0)
    got = two.poll(0) + two.poll(0)
    assert [e.data for e in got if isinstance(e, Received)] == [b"%d" % n for n in range(messages)]
    assert one.send_bulk(two.peer, b"again", b"x") and one.send(two.peer, b"again")
