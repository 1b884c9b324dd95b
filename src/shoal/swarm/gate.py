"""Who gets in: the ZAP handler (ZeroMQ RFC 27) that every CURVE handshake must pass before an application byte is read.

It answers in the thread that polls the transport, so the list of members has one owner and a change holds at once.
While nobody polls, handshakes wait; without a handler they fail, since the sockets enforce their domain.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import zmq

from shoal.errors import MachineError

DOMAIN: Final = b"shoal"
_ENDPOINT: Final = "inproc://zeromq.zap.01"


class Gate:
    """keys  public CURVE key -> peer id; whoever is not in it is refused."""

    def __init__(self, context: zmq.Context[Any], counters: Counter[str]) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.counters = counters
        self._barred: dict[bytes, float] = {}  # peer -> until when
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        try:
            self.socket.bind(_ENDPOINT)
        except zmq.ZMQError as error:
            self.socket.close()
            raise MachineError("transport.gate", f"no handler of handshakes, so nothing may listen: {error}") from None

    def admits(self, key: bytes) -> bytes | None:
        """The peer that may come in with this key."""
        peer = self.keys.get(key)
        if peer is None or time.monotonic() < self._barred.get(peer, 0.0):
            return None
        return peer

    def bar(self, peer: bytes, seconds: float) -> None:
        """Refuse this peer for a while."""
        self.counters["refused.barred"] += 1
        self._barred[peer] = time.monotonic() + seconds

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
        status, user = b"400", b""
        if mechanism != b"CURVE" or domain != DOMAIN or len(credentials) != 1:
            self.counters["refused.mechanism"] += 1
        elif self.admits(credentials[0]) is None:
            self.counters["refused.key"] += 1
        else:
            status, user = b"200", credentials[0].hex().encode()
        self.socket.send_multipart([routing, b"", b"1.0", request, status, b"", user, b""], zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close()
