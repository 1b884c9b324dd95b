"""The transport over ZeroMQ: TCP on two ports, control under CURVE, chunks sealed under keys agreed over it."""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final

import zmq
from zmq.utils import z85

from shoal.address import parse_address
from shoal.errors import ArgumentError, MachineError
from shoal.limits import CHUNK_BYTES, CHUNK_HEADER_BYTES_MAX, CONTROL_BYTES_MAX, POLL_HANDSHAKES_MAX
from shoal.swarm.bulk_plane import BulkPlane
from shoal.swarm.control_plane import ControlPlane, Keys
from shoal.swarm.frames import RUN_BYTES
from shoal.swarm.gate import Gate
from shoal.swarm.transport import CURVE_KEY_BYTES, Endpoint, Event, usable

#: libzmq before it has faults in CURVE and in its decoders
_LIBZMQ_MIN: Final = (4, 3, 5)
#: seconds between two turns of a waiting ``poll``: redials, limits
_TURN_S: Final = 0.2
#: pairs of neighbouring ports that are tried when any may be taken
_PORTS_TRIED: Final = 32


class CurveTransport:
    """See `Transport` for what the methods promise.

    Beside libzmq's own threads there is none.  The first chunk that is sent starts one more in this process, pyzmq's,
    which lets go of what has been sent and lives as long as the process.
    """

    def __init__(self, secret: bytes, listen: str, *, sealed: bool = True) -> None:
        """secret  bytes  32, this node's CURVE secret key
        listen  str    "tcp://host:port", or "" to dial only.  Bulk listens at port + 1; port 0 takes a free pair;
                       host "*" is all addresses, IPv6 and IPv4
        sealed  bool   False sends and takes chunks that are not encrypted and not authenticated: only to measure what
                       sealing costs.  Nodes with True and nodes with False exchange no chunks

        raises  ArgumentError  ``transport.key``, ``transport.address``
                MachineError   ``transport.listen``: the port is taken, the address not this machine's
                               ``transport.curve``: libzmq is too old or without CURVE
                               ``transport.gate``: no handler of handshakes
        """
        where = parse_address(listen) if listen else ("", 0)
        if len(secret) != CURVE_KEY_BYTES:
            raise ArgumentError("transport.key", f"a CURVE secret key has {CURVE_KEY_BYTES} bytes, found {len(secret)}")
        if where is None:
            raise ArgumentError("transport.address", f"{listen!r} is no address to listen at, expected tcp://host:port")
        if not zmq.has("curve") or zmq.zmq_version_info() < _LIBZMQ_MIN:
            raise MachineError("transport.curve", f"libzmq {zmq.zmq_version()}, expected 4.3.5 or newer with CURVE")
        keys = Keys(z85.decode(zmq.curve_public(z85.encode(secret))), secret)
        self._counters: Counter[str] = Counter()
        self._peers: dict[bytes, Endpoint] = {}
        self._owner = 0
        self._address = ""
        self._wake_lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._context: zmq.Context[Any] = zmq.Context()
        # Before any socket that listens: without a handler libzmq would refuse everybody.
        self._gate = Gate(self._context, self._counters)
        self._bulk = BulkPlane(self._context, self._gate, self._renew, sealed)
        self._control = ControlPlane(self._context, self._gate, keys, secrets.token_bytes(RUN_BYTES), self._bulk)
        self._poller = zmq.Poller()
        self._poller.register(self._wake, zmq.POLLIN)
        for socket in (self._gate.socket, *self._control.sockets, *self._bulk.sockets):
            self._poller.register(socket, zmq.POLLIN)
        if listen:
            try:
                self._address = self._listen(*where)
            except MachineError:
                self.close()
                raise

    def _listen(self, host: str, port: int) -> str:
        for left in reversed(range(1 if port else _PORTS_TRIED)):
            got = self._control.listen(host, port)
            try:
                self._bulk.listen(host, got + 1)
            except MachineError:
                if not left:
                    raise
                self._control.unlisten()
            else:
                return f"tcp://{host}:{got}"
        raise AssertionError("the last try returns or raises")

    def __repr__(self) -> str:
        return f"CurveTransport({self._address!r})"

    @property
    def counters(self) -> Counter[str]:
        return self._counters

    def address(self) -> str:
        return self._address

    def allow(self, peers: Mapping[bytes, Endpoint]) -> None:
        self._check_thread()
        good = usable(peers, self._counters)
        changed = {peer for peer, endpoint in self._peers.items() if good.get(peer) != endpoint}
        self._gate.keys = {endpoint.curve: peer for peer, endpoint in good.items()}
        for peer in changed:  # the bulk connections go with these
            self._control.hang_up(peer)
            self._control.shut_out(peer)
        for peer, endpoint in good.items():
            where = parse_address(endpoint.address)
            if where is not None and endpoint != self._peers.get(peer):
                self._control.reach(peer, endpoint, where, time.monotonic())
        self._peers = good

    def ways(self, peer: bytes) -> tuple[bool, bool]:
        """Which control connections with this peer are up: (this side dialled, the peer dialled)."""
        return peer in self._control.outgoing, peer in self._control.incoming

    def send(self, peer: bytes, data: bytes) -> bool:
        self._check_thread()
        if not 0 < len(data) <= CONTROL_BYTES_MAX:
            raise ArgumentError("transport.size", f"message of {len(data)} bytes, expected 1..{CONTROL_BYTES_MAX}")
        return self._control.send(peer, data)

    def send_bulk(self, peer: bytes, header: bytes, body: memoryview | bytes) -> bool:
        self._check_thread()
        size = body.nbytes if isinstance(body, memoryview) else len(body)
        if not (0 < size <= CHUNK_BYTES and 0 < len(header) <= CHUNK_HEADER_BYTES_MAX):
            raise ArgumentError(
                "transport.size",
                f"chunk of {len(header)} and {size} bytes, expected 1..{CHUNK_HEADER_BYTES_MAX} and 1..{CHUNK_BYTES}",
            )
        return self._bulk.send(peer, header, body)

    def poll(self, wait_s: float) -> list[Event]:
        self._owner = self._owner or threading.get_ident()
        self._check_thread()
        end = time.monotonic() + wait_s
        while True:
            left_s = 0.0 if self._control.holds or self._bulk.holds else min(end - time.monotonic(), _TURN_S)
            ready = {found for found, _ in self._poller.poll(math.ceil(1000 * max(0.0, left_s)))}
            events = self._collect(ready)
            if self._wake in ready:
                os.eventfd_read(self._wake)
                return events
            if events or time.monotonic() >= end:
                return events

    def _collect(self, ready: Collection[object]) -> list[Event]:
        """Work on the sockets that have something: asking those that have nothing costs more than all the rest."""
        if self._gate.socket in ready:
            self._gate.answer(POLL_HANDSHAKES_MAX)
        now_s = time.monotonic()
        self._control.work(now_s, ready)
        self._bulk.work(now_s, ready)
        events: list[Event] = [*self._control.events, *self._bulk.events]
        self._control.events.clear()
        self._bulk.events.clear()
        return events

    def _renew(self, peer: bytes) -> None:
        self._control.renew(peer)

    def wake(self) -> None:
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        with self._wake_lock:
            if self._wake < 0:
                return
            os.close(self._wake)
            self._wake = -1
        self._control.close()
        self._bulk.close()
        self._gate.close()
        self._context.term()

    def _check_thread(self) -> None:
        if self._owner and self._owner != threading.get_ident():
            raise ArgumentError("transport.thread", "a transport belongs to the thread that polls it")
        if self._wake < 0:
            raise ArgumentError("transport.closed", "the transport is closed")
