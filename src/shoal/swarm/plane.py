"""One plane of the ZeroMQ transport: a socket that listens, a socket that dials, and the links over them.

Both are ROUTERs.  The one that dials gives each connection a routing id of its own, so one socket serves all peers,
each with a queue of its own, and only the connections themselves take descriptors.  (A DEALER for each peer takes three
descriptors more.)  CURVE on both: the dialler knows the key it dials, the listener learns it from the gate.

A link is one connection with one peer.  The listener allows one for each peer: a second that names the same run takes
the place of the first (the first is broken, and the kernel does not know yet); one that names another run is a second
process with the same keys, and is cut as long as the first lives.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import zmq
from zmq.utils import z85

from shoal.errors import MachineError
from shoal.limits import POLL_BYTES_MAX, POLL_MESSAGES_MAX
from shoal.swarm.connections import Connections
from shoal.swarm.frames import CARRY, HELLO, PARTS_MAX, RUN_BYTES, VERSION, WELCOME, Taken, take
from shoal.swarm.gate import DOMAIN, Gate
from shoal.swarm.transport import Endpoint, parse_address

#: CURVE's 33 bytes, ZMTP's 9, and something over
_FRAME_EXTRA: Final = 64
#: a peer that is silent so long is lost; libzmq asks three times in it
SILENCE_MS: Final = 6000
_HANDSHAKE_MS: Final = 10_000
_RECONNECT_MS: Final = (100, 5000)
#: seconds until a dial without an answer is given up and made anew, doubled up to the second
_REDIAL_S: Final = (1.0, 8.0)
#: seconds between two looks at what connections brought
_LOOK_S: Final = 0.1
#: seconds for which a peer that sent more than may be is refused
_BAR_S: Final = 30.0


class Shape(msgspec.Struct, frozen=True):
    """name       str   "control" or "bulk"
    parts_max  tuple of int   bytes of each part of a message at most
    queue      int   messages that wait for one connection, each way
    backlog    int   bytes that one connection may bring beyond what was delivered
    offset     int   added to the port of a peer's address
    """

    name: str
    parts_max: tuple[int, ...]
    queue: int
    backlog: int
    offset: int


class Keys(msgspec.Struct, frozen=True):
    """This node's CURVE pair, in Z85.  The secret half is in no repr."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Keys({self.public.decode()})"


class _Link:
    """number   descriptor of the connection
    run      which process of the peer; b"" if this side dialled
    """

    __slots__ = ("dialled", "number", "peer", "routing", "run")

    def __init__(self, peer: bytes, taken: Taken, run: bytes) -> None:
        self.peer = peer
        self.routing = taken.routing
        self.number = taken.number
        self.run = run
        self.dialled = not run


class _Dial:
    """An attempt to reach a peer, made anew at ``due_s`` if it has not answered."""

    __slots__ = ("address", "due_s", "key", "pause_s", "routing")

    def __init__(self, key: bytes, address: str) -> None:
        self.key = key
        self.address = address
        self.routing = b""
        self.pause_s = _REDIAL_S[0]
        self.due_s = 0.0


class Carried(msgspec.Struct, frozen=True):
    """A message of the plane: its parts without the kind."""

    peer: bytes
    parts: list[zmq.Frame]


class Turned(msgspec.Struct, frozen=True):
    """The first link with a peer is up, or the last one down."""

    peer: bytes
    up: bool


class Plane:
    """run  bytes  RUN_BYTES, random, the same on all planes of a transport"""

    def __init__(self, context: zmq.Context[Any], gate: Gate, keys: Keys, shape: Shape, run: bytes) -> None:
        self.shape = shape
        self._gate = gate
        self._counters = gate.counters
        self._run = run
        self._dials: dict[bytes, _Dial] = {}
        self._dialled: dict[bytes, bytes] = {}  # routing id -> peer
        self._out: dict[bytes, _Link] = {}
        self._in: dict[bytes, _Link] = {}
        self._routes: dict[bytes, _Link] = {}  # those of _in by routing id
        self._news: list[Carried | Turned] = []
        self._looked = 0.0
        self.listener = self._socket(context, keys)
        self.listener.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.listener.setsockopt(zmq.CURVE_SERVER, 1)
        self.listener.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self.listener.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self.dialler = self._socket(context, keys)
        self._heard = Connections(self.listener, f"{shape.name}-heard", shape.backlog)
        self._made = Connections(self.dialler, f"{shape.name}-made", shape.backlog)
        self.sockets = (self.listener, self.dialler, self._heard.monitor, self._made.monitor)

    def _socket(self, context: zmq.Context[Any], keys: Keys) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IPV6, 1),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.SNDHWM, self.shape.queue),
            (zmq.RCVHWM, self.shape.queue),
            (zmq.MAXMSGSIZE, max(self.shape.parts_max) + _FRAME_EXTRA),
            (zmq.BACKLOG, 256),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.HEARTBEAT_IVL, SILENCE_MS // 3),
            (zmq.HEARTBEAT_TIMEOUT, SILENCE_MS),
            (zmq.HEARTBEAT_TTL, SILENCE_MS),
            (zmq.CONNECT_TIMEOUT, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS[0]),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1]),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 30),
            (zmq.TCP_KEEPALIVE_INTVL, 10),
            (zmq.TCP_KEEPALIVE_CNT, 3),
            (zmq.CURVE_PUBLICKEY, keys.public),
            (zmq.CURVE_SECRETKEY, keys.secret),
        ):
            made.setsockopt(option, value)
        return made

    def listen(self, host: str, port: int) -> int:
        """Start to listen; port 0 takes a free one.  returns  the port    raises  MachineError  ``transport.listen``"""
        try:
            self.listener.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            raise MachineError("transport.listen", f"tcp://{host}:{port}: {error.strerror}") from None
        return int(self.listener.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def unlisten(self) -> None:
        """Undo ``listen``."""
        self.listener.unbind(self.listener.getsockopt_string(zmq.LAST_ENDPOINT))

    # --- who is a peer

    def dial(self, peer: bytes, endpoint: Endpoint, now_s: float) -> None:
        """Reach this peer, and go on trying."""
        found = parse_address(endpoint.address)
        assert found is not None
        self._dials[peer] = _Dial(endpoint.curve, f"tcp://{found[0]}:{found[1] + self.shape.offset}")
        self._try(peer, now_s)

    def drop(self, peer: bytes) -> None:
        """Cut all links with this peer and dial it no more."""
        link = self._in.get(peer)
        if link is not None:
            self._heard.cut(link.number)
            self._down(link)
        out = self._out.get(peer)
        if out is not None:
            self._down(out)
        dial = self._dials.pop(peer, None)
        if dial is not None:
            self._hang_up(dial)

    def _try(self, peer: bytes, now_s: float) -> None:
        """A fresh dial.  A new routing id each time: the pipe of the old one may not be gone yet."""
        dial = self._dials[peer]
        self._hang_up(dial)
        dial.routing = b"\x01" + secrets.token_bytes(15)
        dial.due_s = now_s + dial.pause_s * (75 + secrets.randbelow(50)) / 100
        dial.pause_s = min(2 * dial.pause_s, _REDIAL_S[1])
        self.dialler.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(dial.key))
        self.dialler.setsockopt(zmq.CONNECT_ROUTING_ID, dial.routing)
        self.dialler.setsockopt(zmq.ROUTING_ID, dial.routing)
        self._dialled[dial.routing] = peer
        try:
            self.dialler.connect(dial.address)
        except zmq.ZMQError:
            self._counters["refused.endpoint"] += 1
            return
        self._say(self.dialler, dial.routing, HELLO, VERSION + self._run)

    def _hang_up(self, dial: _Dial) -> None:
        if self._dialled.pop(dial.routing, None) is not None:
            with contextlib.suppress(zmq.ZMQError):  # the dial ended by itself
                self.dialler.disconnect(dial.address)

    # --- sending

    def send(self, peer: bytes, parts: Sequence[bytes | memoryview], *, copy: bool) -> bool:
        """Queue a message, over the connection that this side dialled if it is up.  False if it cannot be queued."""
        link = self._out.get(peer) or self._in.get(peer)
        if link is None:
            return False
        return self._say(self.dialler if link.dialled else self.listener, link.routing, CARRY, *parts, copy=copy)

    def _say(
        self, socket: zmq.Socket[bytes], routing: bytes, kind: bytes, *parts: bytes | memoryview, copy: bool = True
    ) -> bool:
        try:
            socket.send_multipart([routing, kind, *parts], zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            self._counters[f"dropped.{self.shape.name}.full"] += 1
            return False
        except zmq.ZMQError:  # the connection has just ended
            self._counters[f"dropped.{self.shape.name}.gone"] += 1
            return False
        return True

    # --- receiving

    def receive(self, now_s: float) -> list[Carried | Turned]:
        """What has happened since the last call, within the limits of one poll; dials again what is due."""
        self._tend(now_s)
        sources = [(self.listener, self._made_by_peer), (self.dialler, self._made_by_us)]
        messages = size = 0
        while sources and messages < POLL_MESSAGES_MAX and size < POLL_BYTES_MAX:
            for source in tuple(sources):
                taken = take(source[0])
                if taken is None:
                    sources.remove(source)
                    continue
                messages += 1
                size += taken.size
                source[1](taken)
        news, self._news = self._news, []
        return news

    def _tend(self, now_s: float) -> None:
        self._hear_of_connections()
        for peer, dial in self._dials.items():
            if peer not in self._out and now_s >= dial.due_s:
                self._try(peer, now_s)
        passed = now_s - self._looked
        if passed >= _LOOK_S:
            self._looked = now_s
            for connections in (self._heard, self._made):
                for number in connections.overdrawn(passed):
                    self._counters["cut.backlog"] += 1
                    self._punish(connections, number)

    def _hear_of_connections(self) -> None:
        for number in self._heard.closed():
            for link in [link for link in self._in.values() if link.number == number]:
                self._down(link)
        for number in self._made.closed():
            for link in [link for link in self._out.values() if link.number == number]:
                self._down(link)
                # libzmq dials again by itself; this waits in its queue
                self._say(self.dialler, link.routing, HELLO, VERSION + self._run)
        for connections in (self._heard, self._made):
            if failed := connections.take_failed():
                self._counters[f"failed.{self.shape.name}.handshake"] += failed

    def _made_by_peer(self, taken: Taken) -> None:
        """A message came to the listener."""
        self._heard.delivered(taken.number, taken.count, taken.size)
        peer = self._gate.admits(taken.user)
        if peer is None:
            self._counters["refused.removed"] += 1
            self._heard.cut(taken.number)
        elif taken.count > PARTS_MAX:
            self._counters["refused.parts"] += 1
            self._punish(self._heard, taken.number)
        elif taken.kind == HELLO:
            self._hello(peer, taken)
        elif taken.routing not in self._routes:
            self._counters["dropped.early"] += 1
        else:
            self._carry(peer, taken)

    def _hello(self, peer: bytes, taken: Taken) -> None:
        said = taken.parts[0].bytes if len(taken.parts) == 1 else b""
        if said[:1] != VERSION or len(said) != 1 + RUN_BYTES:
            self._counters["refused.version"] += 1
            self._heard.cut(taken.number)
            return
        if taken.routing not in self._routes:
            self._hear_of_connections()  # what ended before this one began, before its number is taken for that one's
        before = self._in.get(peer)
        if before is not None and before.run != said[1:]:
            self._counters["refused.twin"] += 1
            self._heard.cut(taken.number)
            return
        link = _Link(peer, taken, said[1:])
        if before is not None:
            del self._routes[before.routing]
            if before.number != taken.number:
                self._heard.cut(before.number)
        self._up(self._in, link)
        self._routes[taken.routing] = link
        self._say(self.listener, taken.routing, WELCOME, VERSION)

    def _made_by_us(self, taken: Taken) -> None:
        """A message came to the dialler: from the holder of the key that was dialled."""
        self._made.delivered(taken.number, taken.count, taken.size)
        peer = self._dialled.get(taken.routing)
        if peer is None:
            self._counters["refused.removed"] += 1
        elif taken.count > PARTS_MAX:
            self._counters["refused.parts"] += 1
            self._punish(self._made, taken.number)
        elif taken.kind == WELCOME and len(taken.parts) == 1 and taken.parts[0].bytes == VERSION:
            self._hear_of_connections()
            self._dials[peer].pause_s = _REDIAL_S[0]
            self._up(self._out, _Link(peer, taken, b""))
        elif peer not in self._out:
            self._counters["dropped.early"] += 1
        else:
            self._carry(peer, taken)

    def _carry(self, peer: bytes, taken: Taken) -> None:
        parts = taken.parts
        if taken.kind != CARRY or len(parts) != len(self.shape.parts_max) or not all(len(part) for part in parts):
            self._counters["refused.frame"] += 1
        elif any(len(part) > most for part, most in zip(parts, self.shape.parts_max, strict=True)):
            self._counters["refused.size"] += 1
        else:
            self._news.append(Carried(peer, parts))

    def _punish(self, connections: Connections, number: int) -> None:
        """Cut a connection, and let its peer in again only after a while: what it did takes time and memory here."""
        for links in (self._in, self._out):
            for link in links.values():
                if link.number == number:
                    self._gate.bar(link.peer, _BAR_S)
        connections.cut(number)

    def is_up(self, peer: bytes) -> bool:
        return peer in self._out or peer in self._in

    def _up(self, links: dict[bytes, _Link], link: _Link) -> None:
        if not self.is_up(link.peer):
            self._news.append(Turned(link.peer, True))
        links[link.peer] = link

    def _down(self, link: _Link) -> None:
        del (self._out if link.dialled else self._in)[link.peer]
        self._routes.pop(link.routing, None)
        if not self.is_up(link.peer):
            self._news.append(Turned(link.peer, False))

    def close(self) -> None:
        self._heard.close()
        self._made.close()
        self.listener.close()
        self.dialler.close()
