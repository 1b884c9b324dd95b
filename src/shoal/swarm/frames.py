"""What goes over a link of the ZeroMQ transport: messages of a few parts, the first of which begins with the kind.

The rest of the first part, and what HELLO and WELCOME hold, stands in control_plane.py and bulk_plane.py.
"""

from __future__ import annotations

from typing import Final

import msgspec
import zmq

#: the dialler's first message; the listener's answer, from which on the link is up; what the plane is for
HELLO: Final = b"\x01"
WELCOME: Final = b"\x02"
CARRY: Final = b"\x03"
VERSION: Final = b"\x01"
RUN_BYTES: Final = 16
#: parts of a message, and bytes of the first
PARTS_MAX: Final = 3
_FIRST_BYTES_MAX: Final = 9


class Taken(msgspec.Struct, frozen=True):
    """A message as it came out of a ROUTER.

    routing  bytes   which pipe it came from
    number   int     descriptor of the connection
    user     bytes   what the gate admitted it as; b"" on a connection that this side dialled
    kind     bytes   first byte of the first part; b"" if that part is empty or too long
    rest     bytes   of the first part
    parts    list    the others, at most PARTS_MAX - 1
    count    int     how many parts there were, with the first
    size     int     bytes of all
    """

    routing: bytes
    number: int
    user: bytes
    kind: bytes
    rest: bytes
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
    head = first.bytes if len(first) <= _FIRST_BYTES_MAX else b""
    return Taken(routing, int(first.get(zmq.SRCFD)), _user(first), head[:1], head[1:], parts, count, size)


def _user(frame: zmq.Frame) -> bytes:
    try:
        return bytes.fromhex(str(frame.get("User-Id")))
    except zmq.ZMQError:
        return b""
