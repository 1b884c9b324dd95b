"""The ZeroMQ transport against those who may not talk to it, those who may and misbehave, and a bad network."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import zmq
from raw_peer import Proxy, dial, hello, parse, plain_handshake
from transport_world import PATIENCE_S, CurveWorld, curve_pair, peer_id

from shoal.address import parse_address
from shoal.errors import ArgumentError, MachineError
from shoal.limits import BULK_BACKLOG_BYTES_MAX, CHUNK_BYTES, CONTROL_BYTES_MAX, CONTROL_QUEUE, WINDOW_CHUNKS
from shoal.swarm import bulk_plane, connections, control_plane, plane, seal
from shoal.swarm.control_plane import Keys
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.frames import CARRY, HELLO, VERSION, WELCOME
from shoal.swarm.gate import Gate
from shoal.swarm.transport import Back, Endpoint, Lost


@pytest.fixture
def world() -> Iterator[CurveWorld]:
    made = CurveWorld()
    yield made
    made.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


def bulk_of(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + 1}"


# --- who gets in

INTRUDERS = {
    "null": lambda world: {},
    "unknown": lambda world: {"pair": curve_pair(), "server": world.keys[0][0]},
    "removed": lambda world: {"pair": world.keys[2], "server": world.keys[0][0]},
    "wrong server": lambda world: {"pair": world.keys[1], "server": curve_pair()[0]},
}


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.ROUTER])
@pytest.mark.parametrize("who", [*INTRUDERS, "plain"])
@pytest.mark.parametrize("port", ["control", "bulk"])
def test_nobody_else_gets_a_byte_in(
    world: CurveWorld, context: zmq.Context[Any], kind: int, who: str, port: str
) -> None:
    for number in range(3):
        world.make(number)
    world.meet()
    world.all_up()
    world.meet(0, 1)  # 2 was a member
    world.end(2)
    node = world.nodes[0]
    address = node.address() if port == "control" else bulk_of(node.address())
    made: zmq.Socket[bytes]
    if who == "plain":
        made = context.socket(kind)
        made.linger, made.ipv6, made.plain_username, made.plain_password = 0, True, b"member", b"guess"
        made.setsockopt(zmq.CONNECT_ROUTING_ID, b"node") if kind == zmq.ROUTER else None
        made.connect(address)
    else:
        made = dial(context, kind, address, **INTRUDERS[who](world))
    before = sum(n for name, n in node.counters.items() if name.startswith(("refused", "failed")))
    for message in (hello(), [CARRY + b"let me in"], [CARRY, b"h", b"b"]):
        try:
            made.send_multipart([b"node", *message] if kind == zmq.ROUTER else message, zmq.NOBLOCK)
        except zmq.ZMQError:
            break  # it has been thrown out already
    world.until(lambda: sum(n for name, n in node.counters.items() if name.startswith(("refused", "failed"))) > before)
    # The members have lost nothing by it.
    world.until(lambda: world.nodes[1].send(peer_id(0), b"still here"))
    world.until(lambda: world.messages(0) == [b"still here"])
    assert not made.poll(0) and world.chunks(0) == []


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.ROUTER])
def test_the_right_key_gets_in_as_its_owner(world: CurveWorld, context: zmq.Context[Any], kind: int) -> None:
    world.make(0)
    pair = curve_pair()
    world.nodes[0].allow({peer_id(7): Endpoint(pair[0], "")})
    made = dial(context, kind, world.nodes[0].address(), pair=pair, server=world.keys[0][0])
    for message in (hello(), [CARRY + b"I am number 9"]):
        made.send_multipart([b"node", *message] if kind == zmq.ROUTER else message)
    world.until(lambda: world.messages(0))
    assert world.messages(0, peer=7) == [b"I am number 9"]
    assert made.poll(10_000) and made.recv_multipart()[-1][:1] == WELCOME


def test_without_its_handler_nobody_gets_in_and_nothing_starts(world: CurveWorld, context: zmq.Context[Any]) -> None:
    counters = world.make(0).counters
    gate = Gate(context, counters)
    with pytest.raises(MachineError, match="no handler") as caught:
        Gate(context, counters)
    assert caught.value.code == "transport.gate"
    gate.close()
    # A node whose handler is gone lets in nobody, members neither.
    world.make(1)
    world.meet()
    world.nodes[0]._gate.socket.unbind("inproc://zeromq.zap.01")
    world.nodes[1].allow({})
    made = dial(context, zmq.DEALER, world.nodes[0].address(), pair=world.keys[1], server=world.keys[0][0])
    made.send_multipart(hello())
    world.until(lambda: world.nodes[0].counters["failed.control.handshake"])
    assert not made.poll(0)


def test_a_frame_that_was_on_its_way_when_its_sender_was_removed(world: CurveWorld, context: zmq.Context[Any]) -> None:
    world.make(0)
    node, pair = world.nodes[0], curve_pair()
    node.allow({peer_id(7): Endpoint(pair[0], "")})
    made = dial(context, zmq.DEALER, node.address(), pair=pair, server=world.keys[0][0])
    made.send_multipart(hello())
    world.until(lambda: world.said(0, Back, 7))
    made.send_multipart([CARRY + b"in time"])
    world.until(lambda: world.messages(0))
    monitor = made.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    made.send_multipart([CARRY + b"too late"])
    node.allow({})
    # The connection itself is cut, not only deaf.
    world.until(lambda: monitor.poll(0) and world.said(0, Lost, 7))
    made.disable_monitor()
    assert world.messages(0) == [b"in time"] and world.said(0, Lost, 7) == 1


def test_two_nodes_with_one_key(world: CurveWorld) -> None:
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    twin = CurveTransport(world.keys[1][1], "tcp://127.0.0.1:0")
    world.nodes[5] = twin
    world.heard[5] = []
    twin.allow({peer_id(0): world.ends[peer_id(0)]})
    world.until(lambda: world.nodes[0].counters["refused.twin"] >= 2)
    assert world.heard[5] == [] and world.said(0, Lost, 1) == 0
    world.until(lambda: world.nodes[1].send(peer_id(0), b"the first"))
    world.until(lambda: world.messages(0) == [b"the first"])
    # The first ends: the second may take over.
    world.end(1)
    world.until(lambda: world.said(5, Back, 0))
    world.until(lambda: twin.send(peer_id(0), b"the second"))
    world.until(lambda: world.messages(0, peer=1) == [b"the first", b"the second"])


# --- members that misbehave


def misbehaving(world: CurveWorld, context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """Node 0 and 1 are up; a bare socket with the key of member 7 has said HELLO to node 0."""
    for number in range(2):
        world.make(number)
    world.keys[7] = curve_pair()
    world.ends[peer_id(7)] = Endpoint(world.keys[7][0], "")
    world.nodes[0].allow({peer: end for peer, end in world.ends.items() if peer != peer_id(0)})
    world.nodes[1].allow({peer_id(0): world.ends[peer_id(0)]})
    made = dial(context, zmq.DEALER, world.nodes[0].address(), pair=world.keys[7], server=world.keys[0][0])
    made.send_multipart(hello())
    world.until(lambda: world.said(0, Back, 7))
    world.all_up(0, 1)
    return made


GARBAGE = [
    (b"",),
    (b"", b""),
    (b"\x00", b"x"),
    (b"\xff" * 100, b"x"),
    (CARRY,),
    (CARRY, b"parted"),
    (CARRY + b"one", b"two", b"three"),
    (b"", CARRY + b"x"),
    (WELCOME + VERSION + bytes(32),),
    (os.urandom(40), os.urandom(40)),
]


@pytest.mark.parametrize("message", GARBAGE)
def test_garbage_is_counted_and_dropped(
    world: CurveWorld, context: zmq.Context[Any], message: tuple[bytes, ...]
) -> None:
    made = misbehaving(world, context)
    made.send_multipart(message)
    made.send_multipart([CARRY + b"good"])
    world.until(lambda: world.messages(0, peer=7) == [b"good"])
    assert world.nodes[0].counters["refused.frame"] == 1


def test_a_frame_just_above_the_limit_is_dropped_and_one_far_above_ends_the_connection(
    world: CurveWorld, context: zmq.Context[Any]
) -> None:
    made = misbehaving(world, context)
    made.send_multipart([CARRY + bytes(CONTROL_BYTES_MAX + 1)])
    world.until(lambda: world.nodes[0].counters["refused.size"] == 1)
    made.send_multipart([CARRY + bytes(CONTROL_BYTES_MAX + 4096)])
    world.until(lambda: world.said(0, Lost, 7))
    assert world.messages(0) == []


def test_too_many_parts(world: CurveWorld, context: zmq.Context[Any]) -> None:
    made = misbehaving(world, context)
    made.send_multipart([CARRY] + [b"x"] * 10_000)
    world.until(lambda: world.said(0, Lost, 7))
    assert world.nodes[0].counters["refused.parts"] == 1 and world.nodes[0].counters["refused.barred"] == 1
    # Out for a while: it dials again, and the gate is shut.
    world.until(lambda: world.nodes[0].counters["refused.key"])
    world.until(lambda: world.nodes[1].send(peer_id(0), b"unharmed"))
    world.until(lambda: world.messages(0) == [b"unharmed"])


def test_parts_without_end_are_cut_before_they_fill_the_memory(world: CurveWorld) -> None:
    """No ZeroMQ client sends the parts of a message before its last; these are written by hand, by one with a ticket."""
    ticket = one_with_a_ticket(world)
    node = world.nodes[0]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host, port = parse(bulk_of(node.address()))
    with socket.create_connection((host, port)) as connection:
        plain_handshake(connection, ticket, world.turn)
        part, at = b"\x03" + struct.pack(">Q", CHUNK_BYTES) + bytes(CHUNK_BYTES), 0
        for _ in range(100_000):
            try:
                at += connection.send(part[at:])
                if at == len(part):
                    at = 0
            except BlockingIOError:
                world.turn()
            except (BrokenPipeError, ConnectionResetError):
                break
            if node.counters["refused.backlog"]:
                world.turn()
    assert node.counters["refused.backlog"] == 1
    # The limit, what came between two looks at it, and what the sender here holds.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < (BULK_BACKLOG_BYTES_MAX + 400 * 2**20) // 1024
    world.until(lambda: world.nodes[1].send(peer_id(0), b"unharmed"))
    world.until(lambda: world.messages(0) == [b"unharmed"])


def test_messages_that_nobody_takes_are_a_backlog_too(
    world: CurveWorld, context: zmq.Context[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = misbehaving(world, context)
    heard = world.nodes[0]._control._heard
    monkeypatch.setattr(heard, "_backlog_max", 8 * 2**20)
    monkeypatch.setattr(plane, "_LOOK_S", 0.0)
    for _ in range(20):
        made.send_multipart([CARRY + bytes(2**20)])
    number = world.nodes[0]._control.incoming[peer_id(7)].number
    end = time.monotonic() + PATIENCE_S
    while (connections._received(number) or 0) < 20 * 2**20:  # the node does not poll
        assert time.monotonic() < end
    world.until(lambda: world.said(0, Lost, 7))
    assert world.nodes[0].counters["refused.backlog"] == world.nodes[0].counters["refused.barred"] == 1


def test_what_is_delivered_is_no_backlog(world: CurveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    for node in world.nodes.values():
        for kept in (node._bulk._heard, node._bulk._made):
            monkeypatch.setattr(kept, "_backlog_max", 40 * 2**20)
    for _ in range(128):
        world.until(lambda: world.nodes[0].send_bulk(peer_id(1), b"h", bytes(CHUNK_BYTES)))
        world.turn()
    world.until(lambda: len(world.chunks(1)) == 128)
    assert world.nodes[1].counters["refused.backlog"] == 0


@pytest.mark.parametrize("version", [b"\x00", b"\x02", b""])
def test_another_version_is_refused_by_name(world: CurveWorld, context: zmq.Context[Any], version: bytes) -> None:
    made = misbehaving(world, context)
    made.send_multipart([HELLO + version + bytes(48)])
    world.until(lambda: world.nodes[0].counters["refused.version"] == 1 and world.said(0, Lost, 7))


def test_a_key_of_no_worth_in_a_hello(world: CurveWorld, context: zmq.Context[Any]) -> None:
    made = misbehaving(world, context)
    made.send_multipart([HELLO + VERSION + b"r" * 16 + bytes(32)])
    world.until(lambda: world.nodes[0].counters["refused.exchange"] == 1 and world.said(0, Lost, 7))


def test_early_message(world: CurveWorld, context: zmq.Context[Any]) -> None:
    world.make(0)
    pair = curve_pair()
    world.nodes[0].allow({peer_id(7): Endpoint(pair[0], "")})
    made = dial(context, zmq.DEALER, world.nodes[0].address(), pair=pair, server=world.keys[0][0])
    made.send_multipart([CARRY + b"before the hello"])
    world.until(lambda: world.nodes[0].counters["refused.early"])
    assert world.heard[0] == []


# --- a ticket that was read on the wire


def one_with_a_ticket(world: CurveWorld) -> bytes:
    """Node 0 expects node 9, which has said HELLO and does not dial its bulk port: the ticket that it would show."""
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    node = world.nodes[0]
    session = seal.Session(tuple(os.urandom(32) for _ in range(3)), dialled=False)
    node._gate.keys[b"k" * 32] = peer_id(9)
    node._bulk.expect(peer_id(9), session)
    return session.ticket


def with_ticket(context: zmq.Context[Any], address: str, ticket: bytes) -> zmq.Socket[bytes]:
    made: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    made.linger, made.ipv6 = 0, True
    made.plain_username, made.plain_password = ticket[:16].hex().encode(), ticket[16:].hex().encode()
    made.connect(bulk_of(address))
    return made


def test_a_ticket_without_the_keys_moves_no_byte(world: CurveWorld, context: zmq.Context[Any]) -> None:
    ticket = one_with_a_ticket(world)
    node = world.nodes[0]
    made = with_ticket(context, node.address(), ticket)
    sealer = seal.Sealer(bytes(32))
    made.send_multipart(sealer.seal(HELLO, b"", b""))
    world.until(lambda: node.counters["refused.seal"])
    made.send_multipart(sealer.seal(CARRY, b"h", b"b"))
    # It is good for one connection only.
    world.until(lambda: node.counters["refused.ticket"])
    assert world.chunks(0) == [] and node.counters["refused.barred"] == 0
    world.all_up()


def test_a_ticket_that_was_used_lets_nobody_in(world: CurveWorld, context: zmq.Context[Any]) -> None:
    one_with_a_ticket(world)
    node = world.nodes[0]
    used = node._bulk.incoming[peer_id(1)].key.ticket
    made = with_ticket(context, node.address(), used)
    made.send_multipart([CARRY, b"h", b"b"])
    world.until(lambda: node.counters["refused.ticket"])
    world.nodes[1].send_bulk(peer_id(0), b"mine", b"b")
    world.until(lambda: world.chunks(0))
    assert [c.header for c in world.chunks(0)] == [b"mine"]


@pytest.mark.parametrize("seed", range(3))
def test_pings_of_a_connection_that_ends_do_not_end_the_process(world: CurveWorld, seed: int) -> None:
    """libzmq aborts when it answers a PING over a connection that ended while a full queue kept it from reading."""
    rng = Random(seed)
    one_with_a_ticket(world)
    node = world.nodes[0]
    ping = b"\x04\x0a\x04PING\x00\x00ctx"
    for _ in range(8):
        session = seal.Session(tuple(os.urandom(32) for _ in range(3)), dialled=False)
        node._bulk.expect(peer_id(9), session)
        with socket.create_connection(parse(bulk_of(node.address()))) as connection:
            plain_handshake(connection, session.ticket, world.turn)
            most = rng.choice([2, 8, 50])
            noise = b"".join(b"\x00\x01x" * rng.randrange(most) + ping * rng.randrange(1, 4) for _ in range(300))
            with contextlib.suppress(BlockingIOError):
                connection.sendall(noise)
            if rng.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for _ in range(rng.randrange(10)):
            world.turn()
    world.until(lambda: len(node._bulk._heard) == 1)
    assert node.counters["refused.early"]
    world.all_up()


def test_chunks_that_do_not_open_end_their_connection_and_it_comes_back(world: CurveWorld) -> None:
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    sender = world.nodes[0]
    at = sender._bulk.link(peer_id(1))
    assert at is not None
    head, header, body = at.key.sealer.seal(CARRY, b"h", b"tampered")
    body[0] ^= 1
    sender._bulk.push(at.routing, (head, header, body), dialled=at.dialled)
    world.until(lambda: world.nodes[1].counters["refused.seal"] == 1)
    assert world.chunks(1) == []
    world.all_up()


def test_nothing_is_agreed_on_twice_while_nothing_breaks(world: CurveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Counted(seal.Session):
        def __init__(self, values: tuple[bytes, ...], *, dialled: bool, sealed: bool) -> None:
            made.append(dialled)
            super().__init__(values, dialled=dialled, sealed=sealed)

    monkeypatch.setattr(bulk_plane, "Session", Counted)
    for number, listens in enumerate((True, True, False)):
        world.make(number, listens)
    world.meet()
    world.all_up()
    for _ in range(100):
        world.turn()
    assert sorted(made) == 4 * [False] + 4 * [True]  # 0-1 both ways, 2 dials 0 and 1


def test_a_session_that_has_sealed_all_it_may_is_renewed(world: CurveWorld) -> None:
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    bulk = world.nodes[0]._bulk
    before = bulk.link(peer_id(1)).key
    before.sealer._seals_max = before.sealer._next
    assert not world.nodes[0].send_bulk(peer_id(1), b"h", b"b")
    world.until(lambda: world.nodes[0].send_bulk(peer_id(1), b"h", b"b"))
    world.until(lambda: world.chunks(1))
    assert bulk.link(peer_id(1)).key is not before


# --- bytes that are no ZeroMQ

#: ZMTP 3.1 greeting of a CURVE client
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
NOISE = {
    "huge frame": GREETING + b"\x02" + struct.pack(">Q", 2**60) + b"x" * 100,
    "huge command": GREETING + b"\x06" + struct.pack(">Q", 2**60) + b"x" * 100,
    "huge frame at once": b"\xff" + struct.pack(">Q", 2**60) + b"\x7f" + b"x" * 100,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "random": bytes(range(256)) * 8,
    "greeting cut": GREETING[:20],
    "nothing": b"",
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_noise_does_no_harm(world: CurveWorld, noise: str, ending: str) -> None:
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    node = world.nodes[0]
    for port in (0, 1):
        host, number = parse(node.address())
        with socket.create_connection((host, number + port)) as connection:
            world.until(lambda port=port: len((node._bulk if port else node._control)._heard) >= 2)
            connection.sendall(NOISE[noise])
            world.turn()
            if ending == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        world.until(lambda port=port: len((node._bulk if port else node._control)._heard) == 1)
    world.nodes[1].send(peer_id(0), b"fine")
    world.until(lambda: world.messages(0) == [b"fine"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024  # KiB
    assert world.said(0, Lost, 1) == 0


# --- a bad network


def through_proxy(world: CurveWorld) -> Proxy:
    """Node 1 only dials, and reaches node 0 through a relay."""
    world.make(0)
    world.make(1, listen=False)
    proxy = Proxy(world.nodes[0].address())
    world.nodes[0].allow({peer_id(1): world.ends[peer_id(1)]})
    world.nodes[1].allow({peer_id(0): Endpoint(world.keys[0][0], proxy.address)})
    world.all_up()
    return proxy


def test_reset_connections_come_back(world: CurveWorld) -> None:
    proxy = through_proxy(world)
    for round_ in range(3):
        for _ in range(4):
            world.nodes[1].send_bulk(peer_id(0), b"h", bytes(CHUNK_BYTES))
        proxy.reset()
        world.until(lambda r=round_: world.said(0, Lost, 1) == world.said(1, Lost, 0) == r + 1)
        world.until(lambda r=round_: world.said(0, Back, 1) == world.said(1, Back, 0) == r + 1)
    world.all_up()
    assert all(bytes(c.body) == bytes(CHUNK_BYTES) for c in world.chunks(0))
    proxy.close()


def test_a_peer_that_takes_nothing_fills_a_queue_and_no_more(
    world: CurveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = through_proxy(world)
    proxy.flowing.clear()
    node, to = world.nodes[1], peer_id(0)
    chunks = messages = 0
    while node.send_bulk(to, chunks.to_bytes(4, "big"), bytes(CHUNK_BYTES)):
        chunks += 1
        assert chunks < 1000  # what the kernel holds is beside it
    while node.send(to, b"m" * 2**16):
        messages += 1
        assert messages < 10_000
    assert chunks >= WINDOW_CHUNKS and messages >= CONTROL_QUEUE // 2
    assert node.counters["dropped.bulk.full"] == node.counters["dropped.control.full"] == 1
    proxy.flowing.set()
    world.until(lambda: len(world.chunks(0)) == chunks and len(world.messages(0)) == messages)
    assert [int.from_bytes(c.header, "big") for c in world.chunks(0)] == list(range(chunks))
    world.until(lambda: node.send_bulk(to, b"again", b"b"))
    # Stuck for too long, it is given up, and a new one takes its place.
    monkeypatch.setattr(bulk_plane, "STUCK_S", 0.2)
    proxy.flowing.clear()
    world.until(lambda: not node.send_bulk(to, b"h", bytes(CHUNK_BYTES)) and node.counters["lost.bulk"])
    proxy.flowing.set()
    world.all_up()
    proxy.close()


def test_half_open_connections_are_noticed_on_both_sides(world: CurveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "SILENCE_S", 0.6)
    proxy = through_proxy(world)
    proxy.frozen.set()
    world.until(lambda: world.said(0, Lost, 1) and world.said(1, Lost, 0))
    assert not world.nodes[0].send(peer_id(1), b"x") and not world.nodes[1].send(peer_id(0), b"x")
    proxy.frozen.clear()
    world.until(lambda: world.said(0, Back, 1) and world.said(1, Back, 0))
    world.all_up()
    proxy.close()


def test_silence_is_no_loss(world: CurveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "SILENCE_S", 0.3)
    for number in range(2):
        world.make(number)
    world.meet()
    world.all_up()
    quiet = [0]

    def long_enough() -> bool:
        quiet[0] += 1
        return quiet[0] > 300  # turns of at least 4 ms without a message

    world.until(long_enough)
    assert world.said(0, Lost, 1) == world.said(1, Lost, 0) == 0 == world.nodes[0].counters["lost.silent"]


@pytest.mark.parametrize("host", ["[::1]", "localhost", "*"])
def test_addresses(host: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    world = CurveWorld(host)
    for number in range(2):
        world.make(number)
        end = world.ends[peer_id(number)]
        world.ends[peer_id(number)] = Endpoint(end.curve, end.address.replace("*", "127.0.0.1"))
    world.meet()
    world.all_up()
    world.close()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("tcp://a.example:80", ("a.example", 80)),
        ("tcp://[fe80::1%eth0]:65534", ("[fe80::1%eth0]", 65534)),
        ("tcp://host:65535", None),
        ("tcp://host", None),
        ("tcp://:80", None),
        ("tcp://h:80;h:81", None),
        ("tcp://h:80 ", None),
        ("tcp://h:80\n", None),
        ("ipc://h:80", None),
        ("inproc://zeromq.zap.01", None),
        ("", None),
    ],
)
def test_addresses_that_are_and_are_not(address: str, found: tuple[str, int] | None) -> None:
    assert parse_address(address) == found


@pytest.mark.parametrize("gone", [0, 2])
def test_a_peer_dropped_while_a_message_of_its_is_half_read(world: CurveWorld, gone: int) -> None:
    """Polling makes libzmq read the first part of a chunk; the connection that it came from is ended then."""
    for number, listens in enumerate((True, False, True)):
        world.make(number, listens)
    world.meet()
    world.all_up()
    for number in (0, 2):
        for _ in range(4):
            world.nodes[number].send_bulk(peer_id(1), b"from %d" % number, b"%d" % number * 100)
            world.nodes[number].send(peer_id(1), b"from %d" % number)
    node = world.nodes[1]
    while node._bulk.dialler not in dict(node._poller.poll(1000)):
        pass
    kept = 2 - gone
    node.allow({peer_id(0): world.ends[peer_id(0)]} if gone == 2 else {peer_id(2): world.ends[peer_id(2)]})
    world.until(lambda: len(world.chunks(1)) == len(world.messages(1)) == 4)
    assert set(world.messages(1)) == {b"from %d" % kept}
    assert {(c.peer, c.header, bytes(c.body)) for c in world.chunks(1)} == {
        (peer_id(kept), b"from %d" % kept, b"%d" % kept * 100)
    }


# --- the machine


def test_a_taken_port_and_bad_arguments(world: CurveWorld) -> None:
    taken = world.make(0).address()
    with pytest.raises(MachineError, match=r"in use") as caught:
        CurveTransport(curve_pair()[1], taken)
    assert caught.value.code == "transport.listen"
    with pytest.raises(ArgumentError, match="32 bytes, found 3"):
        CurveTransport(b"abc", "")
    with pytest.raises(ArgumentError, match="no address"):
        CurveTransport(curve_pair()[1], "ipc:///tmp/x")
    host, port = parse(taken)
    with pytest.raises(MachineError):  # the bulk port is taken: none is kept
        CurveTransport(curve_pair()[1], f"tcp://{host}:{port - 1}")
    CurveTransport(curve_pair()[1], "tcp://127.0.0.1:0").close()


def test_secrets_are_in_no_repr() -> None:
    public, secret = curve_pair()
    node = CurveTransport(secret, "")
    shown = repr(node) + repr(Keys(public, secret)) + repr(vars(node))
    node.close()
    assert secret.hex() not in shown and repr(secret)[2:-1] not in shown


def test_nothing_is_left_after_twenty_lives() -> None:
    def life() -> None:
        world = CurveWorld()
        for number in range(3):
            world.make(number)
        world.meet()
        world.all_up()
        world.close()

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    life()  # what the process itself sets up once
    before = held()
    for _ in range(20):
        life()
    assert held() == before


def test_wake_from_many_threads_while_it_closes(world: CurveWorld) -> None:
    node = world.make(0)
    stop = threading.Event()

    def wake() -> None:
        while not stop.is_set():
            node.wake()

    threads = [threading.Thread(target=wake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        node.poll(0.01)
    node.close()
    stop.set()
    for thread in threads:
        thread.join()


# --- chunks as they are, for measurements


def test_nodes_that_seal_nothing_exchange_chunks_among_themselves_alone(world: CurveWorld) -> None:
    world.make(0)
    for number in (1, 2):
        world.keys[number], world.heard[number] = curve_pair(), []
        node = CurveTransport(world.keys[number][1], "tcp://127.0.0.1:0", sealed=False)
        world.nodes[number], world.ends[peer_id(number)] = node, Endpoint(world.keys[number][0], node.address())
    world.meet()
    world.all_up(1, 2)
    body = os.urandom(CHUNK_BYTES)
    world.until(lambda: world.nodes[1].send_bulk(peer_id(2), b"header", body))
    world.until(lambda: world.chunks(2))
    assert [(e.header, e.body) for e in world.chunks(2)] == [(b"header", body)] and world.chunks(2)[0].body.readonly
    world.until(lambda: world.nodes[0].counters["refused.seal"] + world.nodes[1].counters["refused.seal"])
    assert not any(world.nodes[a].send_bulk(peer_id(b), b"header", body) for a, b in ((0, 1), (1, 0), (0, 2), (2, 0)))
    world.until(lambda: world.nodes[0].send(peer_id(1), b"control is sealed as ever"))
    world.until(lambda: world.messages(1))
