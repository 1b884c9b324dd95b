"""What every transport promises, held against ZeroMQ on loopback and against the memory twin."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from transport_world import CurveWorld, MemoryWorld, World, curve_pair, peer_id

from shoal.errors import ArgumentError
from shoal.limits import CHUNK_BYTES, CHUNK_HEADER_BYTES_MAX, CONTROL_BYTES_MAX, CONTROL_QUEUE
from shoal.swarm.transport import Back, Endpoint, Lost, Received


@pytest.fixture(params=["curve", "memory"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = CurveWorld() if request.param == "curve" else MemoryWorld()
    yield made
    made.close()


def swarm(world: World, *listen: bool) -> None:
    for number, listens in enumerate(listen):
        world.make(number, listens)
    world.meet()
    world.all_up()


@pytest.mark.parametrize("listen", [(True, True), (True, False), (False, True)])
def test_messages_and_chunks_go_both_ways_whoever_can_be_dialled(world: World, listen: tuple[bool, bool]) -> None:
    swarm(world, *listen)
    for a, b in ((0, 1), (1, 0)):
        assert world.nodes[a].send(peer_id(b), b"note %d" % a)
        assert world.nodes[a].send_bulk(peer_id(b), b"head %d" % a, memoryview(bytes([a]) * CHUNK_BYTES))
    world.until(lambda: all(world.messages(n) and world.chunks(n) for n in (0, 1)))
    for a, b in ((0, 1), (1, 0)):
        assert world.messages(b) == [b"note %d" % a]
        (chunk,) = world.chunks(b)
        assert (chunk.peer, chunk.header) == (peer_id(a), b"head %d" % a)
        assert chunk.body == bytes([a]) * CHUNK_BYTES and chunk.body.readonly


def test_back_comes_once_and_first(world: World) -> None:
    for number in range(3):
        world.make(number)
    world.meet()
    world.until(lambda: all(world.said(n, Back, m) for n in range(3) for m in range(3) if n != m))
    for n in range(3):
        assert sum(isinstance(e, Back) for e in world.heard[n]) == 2
    world.nodes[0].send(peer_id(1), b"x")
    world.until(lambda: world.messages(1))
    about = [e for e in world.heard[1] if e.peer == peer_id(0)]
    assert isinstance(about[0], Back) and about[-1] == Received(peer_id(0), b"x")


def test_largest_sizes_pass_and_larger_or_empty_ones_are_the_callers_fault(world: World) -> None:
    swarm(world, True, True)
    node, to = world.nodes[0], peer_id(1)
    header = b"h" * CHUNK_HEADER_BYTES_MAX
    assert node.send(to, b"m" * CONTROL_BYTES_MAX) and node.send_bulk(to, header, bytes(CHUNK_BYTES))
    world.until(lambda: world.messages(1) and world.chunks(1))
    assert len(world.messages(1)[0]) == CONTROL_BYTES_MAX and world.chunks(1)[0].header == header
    for bad in (
        lambda: node.send(to, b""),
        lambda: node.send(to, b"m" * (CONTROL_BYTES_MAX + 1)),
        lambda: node.send_bulk(to, header + b"h", b"b"),
        lambda: node.send_bulk(to, b"", b"b"),
        lambda: node.send_bulk(to, b"h", b""),
        lambda: node.send_bulk(to, b"h", bytes(CHUNK_BYTES + 1)),
    ):
        with pytest.raises(ArgumentError, match=r"expected 1\.\.") as caught:
            bad()
        assert caught.value.code == "transport.size"


def test_unknown_peer_is_false(world: World) -> None:
    node = world.make(0)
    assert not node.send(peer_id(9), b"x") and not node.send_bulk(peer_id(9), b"h", b"x")


def test_control_comes_before_bulk_in_one_poll(world: World) -> None:
    swarm(world, True, True)
    for i in range(4):
        world.nodes[0].send_bulk(peer_id(1), b"h", bytes(CHUNK_BYTES))
        world.nodes[0].send(peer_id(1), b"%d" % i)
    world.until(lambda: len(world.messages(1)) == 4 and len(world.chunks(1)) == 4)
    batch = world.nodes[1].poll(0)
    kinds = [isinstance(e, Received) for e in batch]
    assert kinds == sorted(kinds, reverse=True)


def test_flood_of_one_leaves_the_others_their_turn(world: World) -> None:
    swarm(world, True, True, True)
    flood = 0
    for _ in range(20_000):  # nobody takes any of it meanwhile
        flood += flood < 2000 and world.nodes[0].send(peer_id(2), b"flood" * 100)
    assert flood >= CONTROL_QUEUE and world.nodes[1].send(peer_id(2), b"small")
    world.until(lambda: len(world.messages(2)) == flood + 1)
    # The last to be sent is not the last to be heard.
    assert world.messages(2).index(b"small") < flood


def test_removed_peer_is_cut_off_and_can_come_back(world: World) -> None:
    swarm(world, True, True, True)
    world.nodes[0].send(peer_id(1), b"too late")
    world.nodes[1].allow({peer_id(2): world.ends[peer_id(2)]})
    assert not world.nodes[1].send(peer_id(0), b"x")
    world.until(lambda: world.said(0, Lost, 1) and world.said(1, Lost, 0))
    assert world.messages(1, peer=0) == []
    assert not world.nodes[0].send(peer_id(1), b"x")
    # It goes on dialling, and is refused.
    world.until(lambda: world.nodes[1].counters["refused.key"] >= 1)
    assert world.nodes[2].send(peer_id(1), b"we two go on")
    world.until(lambda: world.messages(1, peer=2))
    assert world.messages(1, peer=0) == [] and world.said(1, Back, 0) == 0
    world.meet()
    world.until(lambda: world.said(0, Back, 1) and world.said(1, Back, 0))
    world.until(lambda: world.nodes[0].send(peer_id(1), b"again"))
    world.until(lambda: world.messages(1, peer=0) == [b"again"])


def test_one_that_allows_and_is_not_allowed_hears_nothing(world: World) -> None:
    for number in range(2):
        world.make(number)
    world.nodes[0].allow({peer_id(1): world.ends[peer_id(1)]})
    world.until(lambda: world.nodes[1].counters["refused.key"] >= 1)
    assert world.heard == {0: [], 1: []} and not world.nodes[0].send(peer_id(1), b"x")
    world.meet()
    world.all_up()


def test_rotated_key_needs_the_new_one(world: World) -> None:
    swarm(world, True, True)
    old = world.ends[peer_id(0)]
    world.nodes[1].allow({peer_id(0): Endpoint(curve_pair()[0], old.address)})
    world.until(lambda: world.said(1, Lost, 0) and world.said(0, Lost, 1))
    world.until(lambda: world.nodes[1].counters["refused.key"])
    assert world.said(1, Back, 0) == 0
    world.meet()
    world.all_up()


def test_peer_restarts_at_the_same_address(world: World) -> None:
    swarm(world, True, True, True)
    for life in range(2):
        world.end(1)
        world.until(lambda: world.said(0, Lost, 1) and world.said(2, Lost, 1))
        assert not world.nodes[0].send(peer_id(1), b"x")
        assert world.nodes[0].send(peer_id(2), b"life %d" % life)
        world.heard[1] = []
        world.make(1)
        world.meet()
        world.until(lambda: world.said(0, Back, 1) and world.said(2, Back, 1))
        world.all_up()


def test_endpoints_that_cannot_be_are_left_out(world: World) -> None:
    node, key, other = world.make(0), curve_pair()[0], curve_pair()[0]
    node.allow(
        {
            peer_id(1): Endpoint(key, ""),
            peer_id(2): Endpoint(key, ""),  # two with one key
            peer_id(3): Endpoint(b"short", ""),
            peer_id(4): Endpoint(other, "ipc:///tmp/x"),
            peer_id(5): Endpoint(curve_pair()[0], "tcp://127.0.0.1:5;tcp://127.0.0.1:6"),
            peer_id(6): Endpoint(curve_pair()[0], "tcp://host:65535"),
        }
    )
    assert node.counters["refused.endpoint"] == 6


def test_closed_is_closed(world: World) -> None:
    node = world.make(0)
    node.close()
    node.close()
    node.wake()
    with pytest.raises(ArgumentError, match="closed"):
        node.poll(0)
    with pytest.raises(ArgumentError, match="closed"):
        node.send(peer_id(1), b"x")


def test_wake_ends_a_poll() -> None:
    """Of the real one; the twin never waits."""
    made = CurveWorld()
    node = made.make(0)
    polled = threading.Event()

    def poll() -> None:
        assert node.poll(600.0) == []
        polled.set()

    thread = threading.Thread(target=poll)
    thread.start()
    node.wake()
    assert polled.wait(60.0)
    thread.join()
    # It belongs to that thread now.
    with pytest.raises(ArgumentError, match="thread"):
        node.poll(0)
    node.close()
