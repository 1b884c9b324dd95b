"""The sending half of bench_transport.py, a process of its own: so many chunks of 1 MiB in one way, to one port.

    python bench/chunk_sender.py WAY PORT COUNT        keys, if the way needs any, as one line of JSON on stdin

Ends when the receiver has said that it has everything, or closes its stdin.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq
from zmq.utils import z85

from shoal.limits import BULK_QUEUE, CHUNK_BYTES, WINDOW_CHUNKS
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.seal import Sealer
from shoal.swarm.transport import Endpoint, Lost, Received

HEADER = b"a header of some 25 bytes"
KEY = bytes(32)


def chunk(number: int) -> bytes:
    """Each differs, and says which it is."""
    return number.to_bytes(8, "little") * (CHUNK_BYTES // 8)


#: a few that are used in turn, so that making them takes no time; the first 8 bytes do not count on
CHUNKS = [chunk(n) for n in range(8)]


def raw(port: int, count: int, _: Any) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for n in range(count):
            connection.sendall(CHUNKS[n % 8])
        connection.recv(1)


def bare(seal: Callable[[bytes], tuple[Any, ...]]) -> Callable[[int, int, Any], None]:
    """A ROUTER that dials, as the transport's does, and nothing else of the transport."""

    def send(port: int, count: int, keys: Any) -> None:
        context: zmq.Context[Any] = zmq.Context()
        dialler = context.socket(zmq.ROUTER)
        dialler.router_mandatory = 1
        dialler.sndhwm = BULK_QUEUE
        if keys:
            dialler.curve_serverkey = z85.encode(bytes.fromhex(keys["server"]))
            dialler.curve_publickey, dialler.curve_secretkey = zmq.curve_keypair()
        dialler.setsockopt(zmq.CONNECT_ROUTING_ID, b"receiver")
        dialler.connect(f"tcp://127.0.0.1:{port}")
        for n in range(count):
            dialler.send_multipart([b"receiver", *seal(CHUNKS[n % 8])], copy=False)
        dialler.recv()
        context.destroy(0)

    return send


def transport(port: int, count: int, keys: Any) -> None:
    """All of it: control plane, sessions, a window that the receiver opens."""
    node = CurveTransport(bytes.fromhex(keys["secret"]), "")
    receiver = b"r" * 32
    node.allow({receiver: Endpoint(bytes.fromhex(keys["server"]), f"tcp://127.0.0.1:{port}")})
    sent = acknowledged = 0
    done = False
    while not done:
        for event in node.poll(0.05 if sent == count or sent - acknowledged >= WINDOW_CHUNKS else 0.0):
            if isinstance(event, Received):
                acknowledged = int(event.data)
            done = done or isinstance(event, Lost)
        while sent < min(count, acknowledged + WINDOW_CHUNKS) and node.send_bulk(receiver, HEADER, CHUNKS[sent % 8]):
            sent += 1
    node.close()


WAYS = {
    "raw socket": raw,
    "ZeroMQ": bare(lambda body: (HEADER, body)),
    "ZeroMQ with CURVE": bare(lambda body: (HEADER, body)),
    "ZeroMQ, sealed": bare(partial(Sealer(KEY).seal, b"\x03", HEADER)),
    "transport": transport,
}

if __name__ == "__main__":
    line = sys.stdin.readline()
    WAYS[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]), json.loads(line) if line.strip() else None)
