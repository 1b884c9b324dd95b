"""Peers that are none: bare ZeroMQ sockets and bare TCP, which say what no transport would say."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils import z85

from shoal.swarm.frames import HELLO, RUN_BYTES, VERSION
from shoal.swarm.seal import Exchange


def parse(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


def dial(
    context: zmq.Context[Any], kind: int, address: str, *, pair: tuple[bytes, bytes] | None = None, server: bytes = b""
) -> zmq.Socket[bytes]:
    """A DEALER or ROUTER that dials a node, with CURVE if there is a pair of keys."""
    made: zmq.Socket[bytes] = context.socket(kind)
    made.linger = 0
    made.ipv6 = True
    if pair:
        made.curve_publickey, made.curve_secretkey = z85.encode(pair[0]), z85.encode(pair[1])
        made.curve_serverkey = z85.encode(server)
    if kind == zmq.ROUTER:
        made.setsockopt(zmq.CONNECT_ROUTING_ID, b"node")
        made.setsockopt(zmq.ROUTER_MANDATORY, 1)
    made.connect(address)
    return made


def hello(run: bytes = b"r" * RUN_BYTES) -> list[bytes]:
    return [HELLO + VERSION + run + Exchange().public]


def plain_handshake(connection: socket.socket, ticket: bytes, turn: Callable[[], None]) -> None:
    """Go through a handshake of the PLAIN mechanism, as a client, by hand (ZMTP 3.1, ZeroMQ RFC 23 and 24)."""
    name, password = ticket[:16].hex().encode(), ticket[16:].hex().encode()
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"PLAIN".ljust(20, b"\0") + bytes(32)
    hello = b"\x05HELLO" + bytes([len(name)]) + name + bytes([len(password)]) + password
    kind = b"\x0bSocket-Type" + len(b"DEALER").to_bytes(4, "big") + b"DEALER"
    initiate = b"\x08INITIATE" + kind + b"\x08Identity" + bytes(4)
    connection.setblocking(False)
    connection.sendall(greeting)
    for command, answer in ((hello, b"WELCOME"), (initiate, b"READY")):
        connection.sendall(b"\x04" + bytes([len(command)]) + command)
        heard = b""
        while answer not in heard:
            turn()
            with contextlib.suppress(BlockingIOError):
                heard += connection.recv(4096)


class Proxy:
    """A TCP relay in front of a node, for both of its ports.

    frozen   bytes vanish, connections stay open
    flowing  if cleared, nothing more is read from who dialled, so that its queues fill
    """

    def __init__(self, address: str) -> None:
        self._host, port = parse(address)
        self.frozen = threading.Event()
        self.flowing = threading.Event()
        self.flowing.set()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        while True:
            first = socket.create_server(("127.0.0.1", 0))
            try:
                second = socket.create_server(("127.0.0.1", first.getsockname()[1] + 1))
                break
            except OSError:
                first.close()
        self._servers = (first, second)
        self.address = f"tcp://127.0.0.1:{first.getsockname()[1]}"
        for i, server in enumerate(self._servers):
            self._start(self._accept, server, port + i)

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, server: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = server.accept()
                try:
                    outer = socket.create_connection((self._host, port))
                except OSError:
                    inner.close()
                    continue
                self._ends += [inner, outer]
                self._start(self._copy, inner, outer, self.flowing)
                self._start(self._copy, outer, inner, threading.Event())

    def _copy(self, source: socket.socket, target: socket.socket, flowing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if flowing is self.flowing:
                    flowing.wait()
                if self.frozen.is_set():
                    continue
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Every connection ends with RST, in the middle of whatever it carries."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._ends = []

    def close(self) -> None:
        self.flowing.set()
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.reset()
        for thread in self._threads:
            thread.join(10.0)
