"""What both planes of the ZeroMQ transport are: a socket that listens, a socket that dials, and the links over them.

Both are ROUTERs.  The one that dials gives each connection a routing id of its own, so one socket serves all peers,
each with a queue of its own, and only the connections themselves take descriptors.  (A DEALER for each peer takes three
descriptors more.)

A link is one connection with one peer, up from the dialler's HELLO or the listener's WELCOME on.  How the other side
is known, and what is in these two, is the matter of control_plane.py and bulk_plane.py.

libzmq 4.3.5 aborts the process (stream_engine_base.cpp: ``!_io_error``) when it has a PING to send, its own or the
answer to a peer's, over a connection that has ended while a full queue kept it from reading.  So it sends none, and its
queues of what comes in have no limit of messages: what a connection may bring is limited in bytes (connections.py).
Silence is noticed by the kernel, which probes connections, and on the control plane by messages of its own.
"""

from __future__ import annotations

import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any, Final, Generic

import zmq

from shoal.errors import MachineError
from shoal.limits import POLL_BYTES_MAX, POLL_MESSAGES_MAX
from shoal.swarm.connections import Connections
from shoal.swarm.frames import BYE, HELLO, PARTS_MAX, WELCOME, Taken, take
from shoal.swarm.gate import Gate
from shoal.swarm.link import AFTER_BREAK_S, REDIAL_S, Dial, Key, Link, Shape

#: what encryption (33 bytes) and ZMTP (9) add to a part, and something over
_PART_EXTRA: Final = 64
#: a connection on which the other machine acknowledges nothing for so long has ended
_DEAF_MS: Final = 6000
_HANDSHAKE_MS: Final = 10_000
_RECONNECT_MS: Final = (100, 5000)
#: seconds between two looks at what connections brought: 10 Gbit/s bring 250 MB in it
_LOOK_S: Final = 0.2
#: seconds for which a peer that sent more than may be is refused
_BAR_S: Final = 30.0


class Plane(ABC, Generic[Key]):
    """Links of one plane.  A subclass knows how a side shows who it is, and what a message looks like."""

    def __init__(self, context: zmq.Context[Any], gate: Gate, shape: Shape) -> None:
        self.shape = shape
        self.gate = gate
        self.counters = gate.counters
        self.incoming: dict[bytes, Link[Key]] = {}
        self.outgoing: dict[bytes, Link[Key]] = {}
        self._dials: dict[bytes, Dial[Key]] = {}
        self._dialled: dict[bytes, Dial[Key]] = {}  # by routing id
        self._routes: dict[bytes, Link[Key]] = {}  # those of ``incoming``, by routing id
        self._held: list[Taken] = []  # messages of the dialler that came out too early
        self._now_s = self._looked_s = 0.0
        self.listener = self._socket(context)
        self.listener.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.listener.setsockopt(zmq.ZAP_DOMAIN, shape.name.encode())
        self.listener.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self.dialler = self._socket(context)
        self._heard = Connections(self.listener, f"{shape.name}-heard", shape.backlog)
        self._made = Connections(self.dialler, f"{shape.name}-made", shape.backlog)
        self.sockets = (self.listener, self.dialler, self._heard.monitor, self._made.monitor)

    def _socket(self, context: zmq.Context[Any]) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IPV6, 1),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.SNDHWM, self.shape.queue),
            (zmq.RCVHWM, 0),
            (zmq.MAXMSGSIZE, max(self.shape.parts_max) + _PART_EXTRA),
            (zmq.BACKLOG, 256),
            (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
            (zmq.CONNECT_TIMEOUT, _HANDSHAKE_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS[0]),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MS[1]),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, 3),
            (zmq.TCP_KEEPALIVE_INTVL, 1),
            (zmq.TCP_KEEPALIVE_CNT, 3),
            (zmq.TCP_MAXRT, _DEAF_MS),
        ):
            made.setsockopt(option, value)
        return made

    # --- what a plane adds

    @abstractmethod
    def identify(self, dial: Dial[Key]) -> None:
        """Set the options of the dialler with which this dial shows who it is."""

    @abstractmethod
    def greet(self, dial: Dial[Key]) -> None:
        """Send HELLO: the first message of each dial."""

    @abstractmethod
    def greeted(self, peer: bytes, taken: Taken) -> None:
        """A HELLO came."""

    @abstractmethod
    def answered(self, dial: Dial[Key], taken: Taken) -> None:
        """A WELCOME came."""

    @abstractmethod
    def carried(self, link: Link[Key], taken: Taken) -> None:
        """Another message came, of as many parts as it should have, each of a size that it may have."""

    @abstractmethod
    def turned(self, link: Link[Key], *, up: bool) -> None:
        """This link is up, or down."""

    # --- listening and dialling

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

    def dial(self, peer: bytes, where: tuple[str, int], key: Key, now_s: float) -> None:
        """Reach this peer at (host, port of its control plane), and go on trying."""
        self.hang_up(peer)
        self._dials[peer] = Dial(peer, where, self.shape.offset, key)
        self._try(self._dials[peer], now_s)

    def hang_up(self, peer: bytes) -> None:
        """End what this side dialled, and dial no more."""
        dial = self._dials.pop(peer, None)
        if dial is not None:
            self._disconnect(dial)
        link = self.outgoing.get(peer)
        if link is not None:
            self._down(link)

    def shut_out(self, peer: bytes) -> None:
        """End what the peer dialled."""
        link = self.incoming.get(peer)
        if link is not None:
            self._heard.cut(link.number)
            self._down(link)

    def _try(self, dial: Dial[Key], now_s: float) -> None:
        """A fresh dial.  A new routing id each time: the pipe of the old one may not be gone yet.  Nobody else knows
        it, so nobody can take its place at the listener."""
        self._disconnect(dial)
        dial.routing = b"\x01" + secrets.token_bytes(15)
        dial.wait(now_s)
        self.identify(dial)
        self.dialler.setsockopt(zmq.CONNECT_ROUTING_ID, dial.routing)
        self.dialler.setsockopt(zmq.ROUTING_ID, dial.routing)
        self._dialled[dial.routing] = dial
        try:
            self.dialler.connect(dial.address)
        except zmq.ZMQError:
            self.counters["refused.endpoint"] += 1
            return
        self.greet(dial)

    def retry(self, dial: Dial[Key], now_s: float) -> None:
        """A dial is due again."""
        self._try(dial, now_s)

    def _disconnect(self, dial: Dial[Key]) -> None:
        if self._dialled.pop(dial.routing, None) is not None:
            # Polling may have made libzmq read the first part of a message.  It would fail, and with it the process, if
            # the others were gone when it looks for them (fq.cpp).  Once that message is out, nothing is half read.
            taken = take(self.dialler)
            if taken is not None:
                self._held.append(taken)
            with contextlib.suppress(zmq.ZMQError):  # the connection ended by itself
                self.dialler.disconnect(dial.address)

    # --- sending

    def links(self) -> list[Link[Key]]:
        """All that are up."""
        return [*self.incoming.values(), *self.outgoing.values()]

    def link(self, peer: bytes) -> Link[Key] | None:
        """The link to send over: what this side dialled, if it is up."""
        return self.outgoing.get(peer) or self.incoming.get(peer)

    def push(self, routing: bytes, parts: Iterable[bytes | memoryview], *, dialled: bool, copy: bool = True) -> bool:
        """Queue a message; False, and counted, if it cannot be."""
        fault = self._say(routing, parts, dialled=dialled, copy=copy)
        if fault:
            self.counters[f"dropped.{self.shape.name}.{fault}"] += 1
        return not fault

    def _say(self, routing: bytes, parts: Iterable[bytes | memoryview], *, dialled: bool, copy: bool) -> str:
        """Queue a message.  returns  "", or why not: "full", or "gone" if the connection has ended"""
        socket = self.dialler if dialled else self.listener
        try:
            socket.send_multipart([routing, *parts], zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return "full"
        except zmq.ZMQError:
            return "gone"
        return ""

    # --- receiving

    @property
    def holds(self) -> bool:
        """Whether there is something to do that no socket shows."""
        return bool(self._held)

    def work(self, now_s: float, readable: Collection[object]) -> None:
        """Hear of connections, dial again what is due, take messages within the limits of one poll: from the peers in
        turn, as libzmq gives them.

        readable  those of ``sockets`` that have something
        """
        self._now_s = now_s
        if self._heard.monitor in readable or self._made.monitor in readable:
            self._hear_of_connections()
        self._tend(now_s)
        held, self._held = self._held, []
        for early in held:
            self._from_dialler(early)
        sources = [(self.listener, self._from_listener), (self.dialler, self._from_dialler)]
        sources = [source for source in sources if source[0] in readable]
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

    def _tend(self, now_s: float) -> None:
        for dial in self._dials.values():
            if dial.peer not in self.outgoing and now_s >= dial.due_s:
                self.retry(dial, now_s)
        passed_s = now_s - self._looked_s
        if passed_s >= _LOOK_S:
            self._looked_s = now_s
            for connections in (self._heard, self._made):
                for number in connections.overdrawn(passed_s):
                    self.counters["refused.backlog"] += 1
                    for link in self.links():
                        if link.number == number:
                            self._bar(link.peer)
                    connections.cut(number)

    def _hear_of_connections(self) -> None:
        for number in self._heard.closed():
            for link in [link for link in self.incoming.values() if link.number == number]:
                self._down(link)
        for number in self._made.closed():
            for link in [link for link in self.outgoing.values() if link.number == number]:
                self._broke(link)
        for connections in (self._heard, self._made):
            if failed := connections.take_failed():
                self.counters[f"failed.{self.shape.name}.handshake"] += failed

    def _from_listener(self, taken: Taken) -> None:
        self._heard.delivered(taken.number, taken.count, taken.size)
        peer = self.gate.admits(taken.user)
        if peer is None:
            self.refuse(taken, "removed")
        elif taken.count > PARTS_MAX:
            self.refuse(taken, "parts")
            self._bar(peer)
        elif taken.kind == BYE:  # and the connection ends, of which we hear
            self.counters["refused.by_peer"] += 1
        elif taken.kind == HELLO:
            self._hear_of_connections()  # what ended before this one began, before its number is taken for that one's
            self.greeted(peer, taken)
        elif taken.routing not in self._routes:
            self.refuse(taken, "early")
        else:
            self._carried(self._routes[taken.routing], taken)

    def _from_dialler(self, taken: Taken) -> None:
        """From the holder of the key that was dialled."""
        self._made.delivered(taken.number, taken.count, taken.size)
        dial = self._dialled.get(taken.routing)
        if dial is None:
            self.counters["refused.removed"] += 1
        elif taken.count > PARTS_MAX:
            self.refuse(taken, "parts")
            self._bar(dial.peer)
        elif taken.kind == BYE:  # and the connection ends, of which we hear
            self.counters["refused.by_peer"] += 1
        elif taken.kind == WELCOME:
            self._hear_of_connections()
            self.answered(dial, taken)
        elif dial.peer not in self.outgoing:
            self.refuse(taken, "early")
        else:
            self._carried(self.outgoing[dial.peer], taken)

    def _carried(self, link: Link[Key], taken: Taken) -> None:
        link.heard_s = self._now_s
        if self.is_whole(taken):
            self.carried(link, taken)

    def is_whole(self, taken: Taken) -> bool:
        """Has it the parts of a message, none too small or too large?  Counted if not."""
        parts, (least, most) = taken.parts, (self.shape.parts_min, self.shape.parts_max)
        if len(parts) != len(most) or any(len(part) < limit for part, limit in zip(parts, least, strict=True)):
            self.counters["refused.frame"] += 1
            return False
        if any(len(part) > limit for part, limit in zip(parts, most, strict=True)):
            self.counters["refused.size"] += 1
            return False
        return True

    # --- links

    def refuse(self, taken: Taken, why: str) -> None:
        """Cut the connection that this came over.

        It may have ended already, and its descriptor be another's: then nothing can be sent over it.
        """
        self.counters[f"refused.{why}"] += 1
        dialled = taken.routing in self._dialled
        if self._say(taken.routing, (BYE,), dialled=dialled, copy=True) == "":
            (self._made if dialled else self._heard).cut(taken.number)

    def cut(self, link: Link[Key]) -> None:
        """Break this connection: both sides find it closed."""
        (self._made if link.dialled else self._heard).cut(link.number)

    def accept(self, peer: bytes, taken: Taken, key: Key) -> None:
        """The peer's dial is a link from now on, in place of an earlier one."""
        before = self.incoming.get(peer)
        if before is not None:
            if before.number != taken.number:
                self._heard.cut(before.number)
            self._down(before)
        link = Link(peer, taken, key, self._now_s, dialled=False)
        self.incoming[peer] = self._routes[taken.routing] = link
        self.turned(link, up=True)

    def settle(self, dial: Dial[Key], taken: Taken, key: Key) -> None:
        """This side's dial is a link from now on."""
        dial.pause_s = REDIAL_S[0]
        before = self.outgoing.get(dial.peer)
        if before is not None:
            self._down(before)
        link = self.outgoing[dial.peer] = Link(dial.peer, taken, key, self._now_s, dialled=True)
        self.turned(link, up=True)

    def _broke(self, link: Link[Key]) -> None:
        """What this side dialled has ended.  libzmq would dial again by itself, and first send what it has queued; this
        lets it all go and dials anew, so that a HELLO is always first."""
        dial = self._dialled.get(link.routing)
        if dial is not None:
            self._disconnect(dial)
            dial.pause_s = AFTER_BREAK_S
            dial.wait(self._now_s)
        self._down(link)

    def _down(self, link: Link[Key]) -> None:
        del (self.outgoing if link.dialled else self.incoming)[link.peer]
        self._routes.pop(link.routing, None)
        self.turned(link, up=False)

    def _bar(self, peer: bytes) -> None:
        """Let this peer in again only after a while: what it did takes time and memory here."""
        if self.shape.bars:
            self.gate.bar(peer, _BAR_S)

    def close(self) -> None:
        self._heard.close()
        self._made.close()
        self.listener.close()
        self.dialler.close()
