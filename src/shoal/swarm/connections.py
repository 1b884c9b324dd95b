"""The TCP connections under a ZeroMQ socket: which are open, what they brought, and how to cut one.

ZeroMQ queues whole messages and counts messages, so a peer that sends parts without end is limited by nothing.  The
kernel knows how many bytes a connection brought; what was delivered of them is known here; a connection with too much
in between is cut.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

#: tcpi_bytes_received in struct tcp_info (linux/tcp.h)
_RECEIVED_AT: Final = 128
#: what a part costs on the wire beside its bytes: CURVE's 33, ZMTP's 9, and something over
_PART_BYTES: Final = 64
#: bytes per second that are no message: heartbeats
_IDLE_BYTES_PER_S: Final = 256

_OPENED: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED
_FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class _Connection:
    __slots__ = ("debt", "delivered", "name", "received")

    def __init__(self, name: Any) -> None:
        self.name = name
        self.received = 0
        self.delivered = 0
        self.debt = 0.0


class Connections:
    """Those of one socket, by file descriptor.

    A descriptor may be closed by ZeroMQ's own thread at any time, and its number used again.  So ``cut`` duplicates it
    first and compares the address of its other end; what is then done is done to that connection alone.
    """

    def __init__(self, watched: zmq.Socket[Any], name: str, backlog_max: int) -> None:
        self._watched = watched
        self._open: dict[int, _Connection] = {}
        self._backlog_max = backlog_max
        self._failed = 0
        endpoint = f"inproc://{name}"
        watched.monitor(endpoint, _OPENED | _FAILED | zmq.EVENT_DISCONNECTED)
        self.monitor = watched.context.socket(zmq.PAIR)
        self.monitor.linger = 0
        # Without a bound: ZeroMQ's thread would wait for us to read.  Its events are small.
        self.monitor.rcvhwm = 0
        self.monitor.connect(endpoint)

    def __len__(self) -> int:
        return len(self._open)

    def closed(self) -> Iterator[int]:
        """Those that ended since the last call."""
        while True:
            try:
                event = recv_monitor_message(self.monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, number = int(event["event"]), int(event["value"])
            if kind & _OPENED:
                name = _other_end(number)
                if name is not None:
                    self._open[number] = _Connection(name)
            elif kind & _FAILED:
                self._failed += 1
            elif kind == zmq.EVENT_DISCONNECTED and number in self._open:
                del self._open[number]
                yield number

    def take_failed(self) -> int:
        """Handshakes that failed since the last call."""
        failed, self._failed = self._failed, 0
        return failed

    def delivered(self, number: int, parts: int, size: int) -> None:
        """A message of that many parts and bytes came out of connection ``number``."""
        if number in self._open:
            self._open[number].delivered += size + parts * _PART_BYTES

    def overdrawn(self, passed_s: float) -> list[int]:
        """Connections that brought more than may wait; ``passed_s`` since the last call."""
        over = []
        for number, known in self._open.items():
            received = _received(number)
            if received is None:
                continue
            came = received - known.received - known.delivered
            known.received, known.delivered = received, 0
            known.debt = max(0.0, known.debt + came - _IDLE_BYTES_PER_S * passed_s)
            if known.debt > self._backlog_max:
                known.debt = 0.0  # it is told once
                over.append(number)
        return over

    def cut(self, number: int) -> None:
        """End connection ``number``: ZeroMQ finds it closed by the other side."""
        known = self._open.get(number)
        try:
            with socket.socket(fileno=os.dup(number)) as connection:
                if known is not None and connection.getpeername() == known.name:
                    connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is gone already
            return

    def close(self) -> None:
        self._watched.disable_monitor()
        self.monitor.close()


def _other_end(number: int) -> Any:
    """Address of the other end; None if there is no connection (any more)."""
    try:
        with socket.socket(fileno=os.dup(number)) as connection:
            return connection.getpeername()
    except OSError:
        return None


def _received(number: int) -> int | None:
    """Bytes that came over a connection so far; None if it is gone, or the kernel does not tell.

    Asked of the number itself, often: if that has become another connection's, ``cut`` will find so.
    """
    try:
        borrowed = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 0, fileno=number)
    except OSError:
        return None
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
    except OSError:
        return None
    finally:
        borrowed.detach()
    return int(struct.unpack_from("=Q", info, _RECEIVED_AT)[0]) if len(info) >= _RECEIVED_AT + 8 else None
