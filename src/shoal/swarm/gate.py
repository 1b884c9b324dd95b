"""Who gets in: the ZAP handler (ZeroMQ RFC 27) that every handshake must pass before an application byte is read.

It answers in the thread that polls the transport, so the list of members has one owner and a change holds at once.
While nobody polls, handshakes wait; without a handler they fail, since the sockets enforce their domain.

    domain   mechanism  let in is                          as
    control  CURVE      a member's key                     that key
    bulk     PLAIN      the ticket of a session (seal.py)  a digest of the ticket
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from hmac import compare_digest
from typing import Any, Final

import zmq

from shoal.errors import MachineError

_ENDPOINT: Final = "inproc://zeromq.zap.01"
_MECHANISMS: Final = {b"control": (b"CURVE", 1), b"bulk": (b"PLAIN", 2)}


class Gate:
    """keys  public CURVE key -> peer id; no other key is let in."""

    def __init__(self, context: zmq.Context[Any], counters: Counter[str]) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.counters = counters
        self._tickets: dict[bytes, tuple[bytes, bytes]] = {}  # first half -> (second half, peer)
        self._guests: dict[bytes, bytes] = {}  # digest of a ticket -> peer
        self._barred: dict[bytes, float] = {}  # peer -> until when
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        try:
            self.socket.bind(_ENDPOINT)
        except zmq.ZMQError as error:
            self.socket.close()
            raise MachineError("transport.gate", f"no handler of handshakes, so nothing may listen: {error}") from None

    def admits(self, user: bytes) -> bytes | None:
        """The peer that was let in as ``user`` and may still be."""
        peer = self.keys.get(user) or self._guests.get(user)
        if peer is None or time.monotonic() < self._barred.get(peer, 0.0):
            return None
        return peer

    def bar(self, peer: bytes, seconds: float) -> None:
        """Refuse this peer for a while."""
        self.counters["refused.barred"] += 1
        self._barred[peer] = time.monotonic() + seconds

    def expect(self, peer: bytes, ticket: bytes | None) -> None:
        """Let this ticket in, once, and no earlier one of the peer."""
        self._tickets = {half: known for half, known in self._tickets.items() if known[1] != peer}
        self._guests = {user: guest for user, guest in self._guests.items() if guest != peer}
        if ticket is not None:
            self._tickets[ticket[:16].hex().encode()] = (ticket[16:].hex().encode(), peer)
            self._guests[_digest(ticket)] = peer

    def answer(self, requests_max: int) -> None:
        """Answer what waits."""
        for _ in range(requests_max):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer(parts)

    def _answer(self, parts: list[bytes]) -> None:
        if len(parts) < 8 or parts[2] != b"1.0":  # libzmq itself makes these
            self.counters["refused.zap"] += 1
            return
        routing, request, domain, mechanism, credentials = parts[0], parts[3], parts[4], parts[7], parts[8:]
        user = None
        if (mechanism, len(credentials)) != _MECHANISMS.get(domain):
            self.counters["refused.mechanism"] += 1
        else:
            user = credentials[0] if mechanism == b"CURVE" else self._guest(*credentials)
            if user is None or self.admits(user) is None:
                self.counters["refused.key" if mechanism == b"CURVE" else "refused.ticket"] += 1
                user = None
        status, shown = (b"400", b"") if user is None else (b"200", user.hex().encode())
        self.socket.send_multipart([routing, b"", b"1.0", request, status, b"", shown, b""], zmq.NOBLOCK)

    def _guest(self, name: bytes, password: bytes) -> bytes | None:
        known = self._tickets.get(name)
        if known is None or not compare_digest(known[0], password):
            return None
        del self._tickets[name]  # who reads it on the wire comes too late
        return _digest(bytes.fromhex((name + password).decode()))

    def close(self) -> None:
        self.socket.close()


def _digest(ticket: bytes) -> bytes:
    return hashlib.sha256(ticket).digest()
