"""What goes over a link of the ZeroMQ transport: messages of at most three parts; the first byte is the kind.

What follows it in each kind stands in control_plane.py and bulk_plane.py.
"""

from __future__ import annotations

from typing import Final

import msgspec
import zmq

#: the dialler's first message; the listener's answer, from which on the link is up; what the plane is for; "I am still
#: here", of the control plane; "I have cut this connection"
HELLO: Final = b"\x01"
WELCOME: Final = b"\x02"
CARRY: Final = b"\x03"
ALIVE: Final = b"\x04"
BYE: Final = b"\x05"
VERSION: Final = b"\x01"
RUN_BYTES: Final = 16
#: zmq.EVENTS and zmq.POLLIN; arithmetic with its enumerations costs more than what it is about
_EVENTS: Final = int(zmq.EVENTS)
_READABLE: Final = int(zmq.POLLIN)
#: parts of a message
PARTS_MAX: Final = 3


class Taken(msgspec.Struct, frozen=True):
    """A message as it came out of a ROUTER.

    routing  bytes   which pipe it came from
    number   int     descriptor of the connection
    user     bytes   what the gate admitted it as; b"" on a connection that this side dialled
    kind     bytes   the first byte; b"" if the first part is empty
    parts    list    all of them, with the kind; no more than PARTS_MAX
    count    int     how many there were
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
    if not int(socket.getsockopt(_EVENTS)) & _READABLE:  # an exception would cost more than the question
        return None
    routing = socket.recv(zmq.NOBLOCK)
    part = socket.recv(zmq.NOBLOCK, copy=False)
    parts, count, size = [part], 1, len(part)
    while part.more:
        part = socket.recv(zmq.NOBLOCK, copy=False)
        count += 1
        size += len(part)
        if count <= PARTS_MAX:
            parts.append(part)
    first = parts[0]
    return Taken(routing, int(first.get(zmq.SRCFD)), _user(first), first.buffer[:1].tobytes(), parts, count, size)


def _user(frame: zmq.Frame) -> bytes:
    try:
        return bytes.fromhex(str(frame.get("User-Id")))
    except zmq.ZMQError:
        return b""
