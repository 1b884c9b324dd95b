"""Swarms of transports for the tests: over ZeroMQ on loopback, and over the memory network; both are driven alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils import z85

from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.memory import MemoryNetwork, Weather
from shoal.swarm.transport import Bulk, Endpoint, Event, Received, Transport

#: real seconds after which something that should happen has not
PATIENCE_S = 60.0
#: header of the chunks that ``all_up`` sends; some may come later
PROBE = b"up?"


def peer_id(number: int) -> bytes:
    return bytes([number + 1]) * 32


def curve_pair() -> tuple[bytes, bytes]:
    """(public, secret), 32 bytes each."""
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


class World:
    """Nodes by number; ``heard[n]`` is everything that node n's poll gave."""

    def __init__(self) -> None:
        self.nodes: dict[int, Transport] = {}
        self.keys: dict[int, tuple[bytes, bytes]] = {}
        self.ends: dict[bytes, Endpoint] = {}
        self.heard: dict[int, list[Event]] = {}

    def make(self, number: int, listen: bool = True) -> Transport:
        self.keys.setdefault(number, curve_pair())
        node = self._make(number, listen)
        self.nodes[number] = node
        self.ends[peer_id(number)] = Endpoint(self.keys[number][0], node.address())
        self.heard.setdefault(number, [])
        return node

    def meet(self, *numbers: int) -> None:
        """All nodes (or these) allow each other."""
        chosen = numbers or tuple(self.nodes)
        for n in chosen:
            self.nodes[n].allow({peer_id(m): self.ends[peer_id(m)] for m in chosen if m != n})

    def turn(self) -> None:
        for number, node in list(self.nodes.items()):
            self.heard[number] += node.poll(0.002)

    def until(self, happened: Callable[[], Any]) -> None:
        """Let the world run until something has happened."""
        end = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < end, {n: dict(node.counters) for n, node in self.nodes.items()}
            self.turn()

    def all_up(self, *numbers: int) -> None:
        """Run until chunks go both ways between all nodes (or these); then ``heard`` begins anew."""
        chosen = numbers or tuple(self.nodes)
        missing = {(a, b) for a in chosen for b in chosen if a != b}

        def tried() -> bool:
            for a, b in missing:
                self.nodes[a].send_bulk(peer_id(b), PROBE, b"?")
            self.turn()
            for b in chosen:
                for event in self.heard[b]:
                    if isinstance(event, Bulk):
                        missing.discard((event.peer[0] - 1, b))
            return not missing

        self.until(tried)
        for n in chosen:
            self.heard[n] = []

    def messages(self, number: int, peer: int | None = None) -> list[bytes]:
        return [
            e.data for e in self.heard[number] if isinstance(e, Received) and (peer is None or e.peer == peer_id(peer))
        ]

    def chunks(self, number: int) -> list[Bulk]:
        return [e for e in self.heard[number] if isinstance(e, Bulk) and e.header != PROBE]

    def said(self, number: int, kind: type, peer: int) -> int:
        """How many events of a kind node ``number`` has got about a peer."""
        return sum(isinstance(e, kind) and e.peer == peer_id(peer) for e in self.heard[number])

    def end(self, number: int) -> None:
        self.nodes.pop(number).close()

    def close(self) -> None:
        for number in list(self.nodes):
            self.end(number)

    def _make(self, number: int, listen: bool) -> Transport:
        raise NotImplementedError


class CurveWorld(World):
    """``listen`` again after an ``end``: at the same address."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.host = host

    def _make(self, number: int, listen: bool) -> CurveTransport:
        known = self.ends.get(peer_id(number))
        at = known.address if known else f"tcp://{self.host}:0"
        return CurveTransport(self.keys[number][1], at if listen else "")


class MemoryWorld(World):
    def __init__(self, seed: int = 1, weather: Weather | None = None) -> None:
        super().__init__()
        # One delay for all: messages keep their order, as over one connection.
        self.network = MemoryNetwork(seed, weather or Weather(delay_s=(0.002, 0.002)))

    def _make(self, number: int, listen: bool) -> Transport:
        address = f"tcp://memory:{1000 + 2 * number}" if listen else ""
        return self.network.transport(peer_id(number), Endpoint(self.keys[number][0], address))

    def turn(self) -> None:
        super().turn()
        self.network.advance(0.005)
