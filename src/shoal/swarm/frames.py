"""What goes over a link of the ZeroMQ transport: messages of a few parts, the first of which is one byte, the kind.

HELLO    version || 16 bytes that name this run of the dialler's process.  Sent with each dial
WELCOME  version.  The listener's answer; from here on the link is up
CARRY    the plane's own message: 1 part on the control plane, 2 on the bulk plane
"""

from __future__ import annotations

from typing import Final

import msgspec
import zmq

HELLO: Final = b"\x01"
WELCOME: Final = b"\x02"
CARRY: Final = b"\x03"
VERSION: Final = b"\x01"
RUN_BYTES: Final = 16
#: parts of a message, its kind among them
PARTS_MAX: Final = 3


class Taken(msgspec.Struct, frozen=True):
    """A message as it came out of a ROUTER.

    routing  bytes   which pipe it came from
    number   int     descriptor of the connection
    user     bytes   key that the gate admitted; b"" on a connection that this side dialled
    kind     bytes   first part; b"" if that is not one byte
    parts    list    the others, at most PARTS_MAX - 1
    count    int     how many parts there were, with the kind
    size     int     bytes of all
    """

    routing: bytes
    number: int
    user: bytes
    kind: bytes
    parts: list[zmq.Frame]
    count: int
    size: int


def take(socket: zmq.Socket[bytes]) -> Taken | None:
    """The next message that waits, or None.  Parts beyond PARTS_MAX are counted and let go."""
    try:
        routing = socket.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
    first = part = socket.recv(zmq.NOBLOCK, copy=False)
    parts: list[zmq.Frame] = []
    count, size = 1, len(first)
    while part.more:
        part = socket.recv(zmq.NOBLOCK, copy=False)
        count += 1
        size += len(part)
        if count <= PARTS_MAX:
            parts.append(part)
    kind = first.bytes if len(first) == 1 else b""
    return Taken(routing, int(first.get(zmq.SRCFD)), _user(first), kind, parts, count, size)


def _user(frame: zmq.Frame) -> bytes:
    try:
        return bytes.fromhex(str(frame.get("User-Id")))
    except zmq.ZMQError:
        return b""
