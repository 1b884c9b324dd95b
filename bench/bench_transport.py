"""Chunks of 1 MiB from one process to another over loopback, in one direction, and what an idle swarm costs.

raw socket         sendall and recv_into a buffer that is there: what the kernel gives
AES-256-GCM alone  sealing, nothing is sent: what the cipher gives on one core
ZeroMQ             one ROUTER to another, bare, received without a copy; with CURVE; bare and sealed as a chunk is
transport          the real one: sealed, over sessions from the control plane, a window that the receiver opens

All ways take turns, three times each; figures are medians, "to the raw socket" and "to CURVE" ratios of one turn.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmq.utils import z85

from chunk_sender import CHUNKS, KEY, WAYS
from shoal.limits import BULK_QUEUE, CHUNK_BYTES, WINDOW_CHUNKS
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.seal import Opener, Sealer
from shoal.swarm.transport import Back, Bulk, Endpoint

SENDER = str(Path(__file__).resolve().parent / "chunk_sender.py")
SECONDS_MAX = 300.0


class Sender:
    """The other process; it is killed when this ends."""

    def __init__(self, way: str, port: int, count: int, keys: dict[str, str] | None = None) -> None:
        words = [sys.executable, SENDER, way, str(port), str(count)]
        self._running = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(keys) + "\n")
        self._running.stdin.flush()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:
            self._running.kill()
        assert self._running.wait(60) == 0 or kind is not None


class Clock:
    """Seconds from the first chunk to the last, and a check of each."""

    def __init__(self, count: int) -> None:
        self.count, self.seen = count, 0
        self._begin = self._end = 0.0

    def chunk(self, body: Any) -> None:
        assert len(body) == CHUNK_BYTES and bytes(body[:8]) == CHUNKS[self.seen % 8][:8] == bytes(body[-8:])
        self.seen += 1
        self._end = time.perf_counter()
        if self.seen == 1:
            self._begin = self._end

    @property
    def rate(self) -> float:
        assert self.seen == self.count
        return (self.count - 1) * CHUNK_BYTES / (self._end - self._begin) / 1e6


def raw(count: int) -> float:
    clock, body = Clock(count), bytearray(CHUNK_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as server, Sender("raw socket", server.getsockname()[1], count):
        connection, _ = server.accept()
        with connection:
            view = memoryview(body)
            for _ in range(count):
                got = 0
                while got < CHUNK_BYTES:
                    got += connection.recv_into(view[got:])
                clock.chunk(body)
            connection.send(b"!")
    return clock.rate


def cipher(count: int) -> float:
    sealer = Sealer(KEY)
    begin = time.perf_counter()
    for n in range(count):
        sealer.seal(b"\x03", b"header", CHUNKS[n % 8])
    return count * CHUNK_BYTES / (time.perf_counter() - begin) / 1e6


def bare(way: str, count: int) -> float:
    clock, opener = Clock(count), Opener(KEY)
    context: zmq.Context[Any] = zmq.Context()
    listener = context.socket(zmq.ROUTER)
    listener.rcvhwm, listener.rcvtimeo = BULK_QUEUE, int(SECONDS_MAX * 1000)
    keys = None
    if way.endswith("CURVE"):
        public, secret = zmq.curve_keypair()
        listener.curve_server, listener.curve_secretkey = 1, secret
        keys = {"server": z85.decode(public).hex()}
    try:
        with Sender(way, listener.bind_to_random_port("tcp://127.0.0.1"), count, keys):
            for _ in range(count):
                routing, *parts = listener.recv_multipart(copy=False)
                if way.endswith("sealed"):
                    opened = opener.open(parts[0].bytes, parts[1].buffer, parts[2].buffer)
                    assert opened is not None
                    clock.chunk(opened[1])
                else:
                    clock.chunk(parts[1].buffer)
            listener.send_multipart([routing.bytes, b"!"])
            time.sleep(0.05)
    finally:
        context.destroy(0)
    return clock.rate


def transport(count: int) -> float:
    clock, sender = Clock(count), b"s" * 32
    pairs = [[z85.decode(half) for half in zmq.curve_keypair()] for _ in range(2)]
    node = CurveTransport(pairs[0][1], "tcp://127.0.0.1:0")
    node.allow({sender: Endpoint(pairs[1][0], "")})
    keys = {"server": pairs[0][0].hex(), "secret": pairs[1][1].hex()}
    end = time.monotonic() + SECONDS_MAX
    try:
        with Sender("transport", int(node.address().rpartition(":")[2]), count, keys):
            while clock.seen < count:
                assert time.monotonic() < end, dict(node.counters)
                for event in node.poll(1.0):
                    if isinstance(event, Bulk):
                        clock.chunk(event.body)
                        if clock.seen % (WINDOW_CHUNKS // 2) == 0:
                            node.send(sender, b"%d" % clock.seen)
            assert not any(n for name, n in node.counters.items() if name.startswith("refused"))
            node.close()
    finally:
        node.close()
    return clock.rate


def measure(way: str, count: int) -> float:
    if way.startswith("ZeroMQ"):
        return bare(way, count)
    return {"raw socket": raw, "AES-256-GCM alone": cipher, "transport": transport}[way](count)


def test_chunks(benchmark: Any) -> None:
    count, turns = (3, 1) if benchmark.disabled else (1000, 3)
    found: dict[str, list[float]] = {way: [] for way in ("raw socket", "AES-256-GCM alone", *list(WAYS)[1:])}

    def run() -> None:
        for _ in range(turns):
            for way, rates in found.items():
                rates.append(measure(way, count))

    benchmark.pedantic(run, rounds=1)

    def ratio(way: str, to: str) -> float:
        return statistics.median(a / b for a, b in zip(found[way], found[to], strict=True))

    benchmark.extra_info.update({f"{way}, MB/s": statistics.median(rates) for way, rates in found.items()})
    benchmark.extra_info.update({f"{way} to the raw socket": ratio(way, "raw socket") for way in list(found)[2:]})
    benchmark.extra_info.update(
        {f"{way} to CURVE": ratio(way, "ZeroMQ with CURVE") for way in ("ZeroMQ, sealed", "transport")}
    )


@pytest.mark.parametrize("peers", [5, 20])
def test_idle(benchmark: Any, peers: int) -> None:
    """What a node of a swarm uses while nothing is said.

    All are in one process: libzmq's threads of all of them are in "all nodes", the loop of one in "a node's loop".
    """
    pairs = [[z85.decode(half) for half in zmq.curve_keypair()] for _ in range(peers)]
    nodes = [CurveTransport(pair[1], "tcp://127.0.0.1:0") for pair in pairs]
    ends = {bytes([n + 1]) * 32: Endpoint(pairs[n][0], node.address()) for n, node in enumerate(nodes)}
    for n, node in enumerate(nodes):
        node.allow({peer: end for peer, end in ends.items() if peer != bytes([n + 1]) * 32})
    up, end = 0, time.monotonic() + SECONDS_MAX
    while up < peers * (peers - 1):
        assert time.monotonic() < end
        up += sum(isinstance(event, Back) for node in nodes for event in node.poll(0.0))
    seconds = 0.2 if benchmark.disabled else 10.0
    used: list[tuple[float, float]] = []

    def run() -> None:
        """Node 0 alone waits; the others' libzmq answers its heartbeats."""
        mine, total, begin = time.thread_time(), time.process_time(), time.monotonic()
        while time.monotonic() < begin + seconds:
            nodes[0].poll(begin + seconds - time.monotonic())
        passed = time.monotonic() - begin
        used.append(((time.thread_time() - mine) / passed, (time.process_time() - total) / passed))

    benchmark.pedantic(run, rounds=1)
    for node in nodes:
        node.close()
    benchmark.extra_info.update(
        {"a node's loop, % of a core": 100 * used[0][0], "all nodes, % of a core": 100 * used[0][1]}
    )
