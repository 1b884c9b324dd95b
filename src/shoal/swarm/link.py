"""A connection with one peer, and an attempt to get one, as a plane of the ZeroMQ transport knows them."""

from __future__ import annotations

import secrets
from typing import Final, Generic, TypeVar

import msgspec

from shoal.swarm.frames import Taken

#: seconds until a dial without an answer is given up and made anew, doubled up to the second; and after a break
REDIAL_S: Final = (0.5, 8.0)
AFTER_BREAK_S: Final = 0.1

Key = TypeVar("Key")


class Shape(msgspec.Struct, frozen=True):
    """name       str            "control" or "bulk"
    parts_min  tuple of int   bytes of each part of a message at least, as they lie in the frame
    parts_max  tuple of int   and at most
    queue      int            messages that wait for one connection, each way
    backlog    int            bytes that one connection may bring beyond what was delivered
    offset     int            added to the port of a peer's address
    bars       bool           frames are the peer's for sure, so it answers for what it sends
    """

    name: str
    parts_min: tuple[int, ...]
    parts_max: tuple[int, ...]
    queue: int
    backlog: int
    offset: int
    bars: bool


class Link(Generic[Key]):
    """number   int    descriptor of the connection
    dialled  bool   by this side
    key      Key    what the plane knows about it
    heard_s  float  when something last came over it
    said_s   float  when something was last sent
    full_s   float  since when its queue is full; 0.0 if it is not
    """

    __slots__ = ("dialled", "full_s", "heard_s", "key", "number", "peer", "routing", "said_s")

    def __init__(self, peer: bytes, taken: Taken, key: Key, now_s: float, *, dialled: bool) -> None:
        self.peer = peer
        self.routing = taken.routing
        self.number = taken.number
        self.key = key
        self.dialled = dialled
        self.heard_s = self.said_s = now_s
        self.full_s = 0.0


class Dial(Generic[Key]):
    """An attempt to reach a peer, made anew at ``due_s`` if it has not answered.  ``key``: what it takes to get in."""

    __slots__ = ("address", "due_s", "key", "pause_s", "peer", "routing", "where")

    def __init__(self, peer: bytes, where: tuple[str, int], offset: int, key: Key) -> None:
        self.peer = peer
        self.where = where
        self.address = f"tcp://{where[0]}:{where[1] + offset}"
        self.key = key
        self.routing = b""
        self.pause_s = REDIAL_S[0]
        self.due_s = 0.0

    def wait(self, now_s: float) -> None:
        """Due after the pause, or about then, so that those who lost one peer do not all come back in step.  The next
        pause is longer."""
        self.due_s = now_s + self.pause_s * (75 + secrets.randbelow(50)) / 100
        self.pause_s = min(2 * self.pause_s, REDIAL_S[1])
