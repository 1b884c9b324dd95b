"""The control plane: small messages under CURVE, and with each connection the keys of a bulk connection.

Every message is one part, the kind and then

    HELLO    version || run (16 bytes that name this life of the dialler's process) || exchanged key of the dialler
    WELCOME  version || exchanged key of the listener
    CARRY    the message
    ALIVE    nothing: said when nothing else was for a while

A HELLO over a link that is up asks for new keys of the bulk connection.

The dialler knows the key it dials, the listener learns the dialler's from the gate.  The listener allows one link for
each peer.  A second that names the same run takes the place of the first: that one is broken, and the kernel does not
know yet.  One that names another run is a second process with the same keys, and is cut as long as the first lives.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
import zmq
from zmq.utils import z85

from shoal.limits import CONTROL_BACKLOG_BYTES_MAX, CONTROL_BYTES_MAX, CONTROL_QUEUE
from shoal.swarm.bulk_plane import BulkPlane
from shoal.swarm.frames import ALIVE, CARRY, HELLO, RUN_BYTES, VERSION, WELCOME, Taken
from shoal.swarm.gate import Gate
from shoal.swarm.link import Dial, Link, Shape
from shoal.swarm.plane import Plane
from shoal.swarm.seal import EXCHANGE_BYTES, Exchange
from shoal.swarm.transport import Back, Endpoint, Lost, Received

#: a peer from which nothing comes for so long is lost
SILENCE_S: Final = 10.0

_SHAPE: Final = Shape("control", (1,), (1 + CONTROL_BYTES_MAX,), CONTROL_QUEUE, CONTROL_BACKLOG_BYTES_MAX, 0, bars=True)


class Keys(msgspec.Struct, frozen=True):
    """This node's CURVE pair, 32 bytes each.  The secret half is in no repr."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Keys({self.public.hex()})"


class _Party:
    """The other end of a link or a dial: its key, which run of it (b"" if this side dialled), this side's exchange."""

    __slots__ = ("curve", "exchange", "run")

    def __init__(self, curve: bytes, run: bytes = b"") -> None:
        self.curve = curve
        self.run = run
        self.exchange: Exchange | None = None


class ControlPlane(Plane[_Party]):
    """``events`` is filled by ``work`` and the rest; who polls takes it away."""

    def __init__(self, context: zmq.Context[Any], gate: Gate, keys: Keys, run: bytes, bulk: BulkPlane) -> None:
        super().__init__(context, gate, _SHAPE)
        self.events: list[Back | Lost | Received] = []
        self._keys = keys
        self._run = run
        self._bulk = bulk
        self.listener.setsockopt(zmq.CURVE_SERVER, 1)
        for socket in (self.listener, self.dialler):
            socket.setsockopt(zmq.CURVE_PUBLICKEY, z85.encode(keys.public))
            socket.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(keys.secret))

    def reach(self, peer: bytes, endpoint: Endpoint, where: tuple[str, int], now_s: float) -> None:
        """Dial this peer."""
        self.dial(peer, where, _Party(endpoint.curve), now_s)

    def send(self, peer: bytes, data: bytes) -> bool:
        link = self.link(peer)
        if link is None:
            return False
        link.said_s = self._now_s
        return self.push(link.routing, (CARRY + data,), dialled=link.dialled)

    def work(self, now_s: float, readable: Collection[object]) -> None:
        super().work(now_s, readable)
        # After taking what came: this side may have been the one that was away.
        for link in self.links():
            if now_s - link.heard_s > SILENCE_S:
                self.counters["lost.silent"] += 1
                link.heard_s = now_s  # the cut is heard of soon
                self.cut(link)
            elif now_s - link.said_s > SILENCE_S / 3:
                link.said_s = now_s
                self.push(link.routing, (ALIVE,), dialled=link.dialled)

    def identify(self, dial: Dial[_Party]) -> None:
        self.dialler.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(dial.key.curve))

    def greet(self, dial: Dial[_Party]) -> None:
        dial.key.exchange = Exchange()
        self.push(dial.routing, (HELLO + VERSION + self._run + dial.key.exchange.public,), dialled=True)

    def greeted(self, peer: bytes, taken: Taken) -> None:
        said = taken.parts[0].bytes[1:] if taken.count == 1 else b""
        run, offered = said[1 : 1 + RUN_BYTES], said[1 + RUN_BYTES :]
        if said[:1] != VERSION or len(offered) != EXCHANGE_BYTES:
            self.refuse(taken, "version")
            return
        before = self.incoming.get(peer)
        if before is not None and before.key.run != run:
            self.refuse(taken, "twin")
            return
        mine, curve = Exchange(), taken.user
        try:
            values = mine.agree(offered, (curve, offered), (self._keys.public, mine.public))
        except ValueError:
            self.refuse(taken, "exchange")
            return
        if before is None or before.routing != taken.routing:
            self.accept(peer, taken, _Party(curve, run))
        self._bulk.expect(peer, self._bulk.session(values, dialled=False))
        self.push(taken.routing, (WELCOME + VERSION + mine.public,), dialled=False)

    def answered(self, dial: Dial[_Party], taken: Taken) -> None:
        said = taken.parts[0].bytes[1:] if taken.count == 1 else b""
        offered, mine = said[1:], dial.key.exchange
        if said[:1] != VERSION or len(offered) != EXCHANGE_BYTES or mine is None:
            self.refuse(taken, "version")
            return
        dial.key.exchange = None  # good for one session
        try:
            values = mine.agree(offered, (self._keys.public, mine.public), (dial.key.curve, offered))
        except ValueError:
            self.refuse(taken, "exchange")
            return
        if dial.peer not in self.outgoing:
            self.settle(dial, taken, dial.key)
        self._bulk.reach(dial.peer, dial.where, self._bulk.session(values, dialled=True), self._now_s)

    def carried(self, link: Link[_Party], taken: Taken) -> None:
        if taken.kind == ALIVE:
            return
        if taken.kind == CARRY and taken.size > 1:
            self.events.append(Received(link.peer, taken.parts[0].buffer[1:].tobytes()))
        else:
            self.counters["refused.frame"] += 1

    def turned(self, link: Link[_Party], *, up: bool) -> None:
        others = (link.peer in self.outgoing) + (link.peer in self.incoming) - up
        if not others:
            self.events.append(Back(link.peer) if up else Lost(link.peer))
        if not up:
            self._bulk.end(link.peer, dialled=link.dialled)

    def renew(self, peer: bytes) -> None:
        """Ask for new keys of the bulk connection that this side dials."""
        link = self.outgoing.get(peer)
        if link is not None:
            self.greet(self._dialled[link.routing])
