"""How a node hands bytes to its peers and gets theirs: what every transport promises.

Two planes.  *Control* carries small messages; *bulk* carries chunks.  A message of the control plane never waits behind
a chunk, neither on the way out nor in `Transport.poll`.  Both lose messages (a full queue, a broken connection) and may
change their order; what arrives is whole, and its sender is who the transport authenticated, never what a frame says.

`CurveTransport` (curve_transport.py) speaks ZeroMQ with CURVE over TCP; `MemoryTransport` (memory.py) is its twin in
virtual time.  tests/swarm/test_transport.py holds both to what stands here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from shoal.address import parse_address

CURVE_KEY_BYTES: Final = 32


class Endpoint(msgspec.Struct, frozen=True):
    """Where a peer is heard, and by which key it is known.

    curve    bytes  32, its public CURVE key
    address  str    "tcp://host:port", host a name, an IPv4 address or an IPv6 address in brackets; bulk is at port + 1.
                    "" if it cannot be dialled: then it dials us
    """

    curve: bytes
    address: str


def usable(peers: Mapping[bytes, Endpoint], counters: Counter[str]) -> dict[bytes, Endpoint]:
    """Those of ``peers`` whose key is theirs alone and whose address is one; the others are counted."""
    keys = Counter(endpoint.curve for endpoint in peers.values())
    good = {}
    for peer, endpoint in peers.items():
        whole = len(endpoint.curve) == CURVE_KEY_BYTES and keys[endpoint.curve] == 1
        if whole and (not endpoint.address or parse_address(endpoint.address)):
            good[peer] = endpoint
        else:
            counters["refused.endpoint"] += 1
    return good


class Received(msgspec.Struct, frozen=True):
    """A message of the control plane."""

    peer: bytes
    data: bytes


class Bulk(msgspec.Struct, frozen=True):
    """A chunk.  ``body`` is a read-only view of the frame that came in: not copied, and kept as long as the view is."""

    peer: bytes
    header: bytes
    body: memoryview


class Lost(msgspec.Struct, frozen=True):
    """The last control connection with this peer is gone, or it is no longer allowed.  Until Back, sending is False."""

    peer: bytes


class Back(msgspec.Struct, frozen=True):
    """A control connection with this peer is up, in both directions: the first one, or again after Lost.

    Its bulk connection may need some milliseconds more, in which ``send_bulk`` still gives False.
    """

    peer: bytes


Event = Received | Bulk | Lost | Back


class Transport(Protocol):
    """One thread owns a transport: the first that calls ``poll``.  From then on all but ``wake`` is for it alone."""

    def allow(self, peers: Mapping[bytes, Endpoint]) -> None:
        """Who may talk with us from now on: peer id -> endpoint.

        Others are cut off at once: no event of theirs is given after this call, not even of what has arrived, except
        one `Lost` for each that was up.  Those with an address are dialled, until they answer.  A peer whose key or
        address has changed is cut off and dialled anew.  Peers with a key that another has too, or an address that is
        none, are counted (``refused.endpoint``) and left out.
        """
        ...

    def ways(self, peer: bytes) -> tuple[bool, bool]:
        """Which control connections with this peer are up: (this side dialled, the peer dialled)."""
        ...

    def send(self, peer: bytes, data: bytes) -> bool:
        """Hand over a message of 1..CONTROL_BYTES_MAX bytes; never blocks.

        returns  False if the peer is unknown or not up, or its queue is full: then the message is dropped
        raises   ArgumentError  ``transport.size``
        """
        ...

    def send_bulk(self, peer: bytes, header: bytes, body: memoryview | bytes) -> bool:
        """Hand over one chunk: header 1..CHUNK_HEADER_BYTES_MAX bytes, body 1..CHUNK_BYTES bytes; never blocks.

        The body must not change until the peer has it: it may be sent from where it lies.

        returns  False as for ``send``; the peer will ask again
        raises   ArgumentError  ``transport.size``
        """
        ...

    def poll(self, wait_s: float) -> list[Event]:
        """What has happened, at most POLL_MESSAGES_MAX messages and about POLL_BYTES_MAX bytes of each plane, control
        first.  Waits up to ``wait_s`` seconds for the first event; ends early for an event or a ``wake``.

        A peer's Back comes before its messages, its Lost after them.  No peer can keep the others' messages waiting:
        those of different peers are taken in turn.
        """
        ...

    def wake(self) -> None:
        """End a waiting ``poll``, or else the next one.  From any thread, also after ``close``."""
        ...

    def address(self) -> str:
        """Where this node listens, "tcp://host:port" with the port that it got; "" if it only dials."""
        ...

    @property
    def counters(self) -> Counter[str]:
        """Everything that was dropped or refused so far, by name."""
        ...

    def close(self) -> None:
        """Let everything go: sockets, threads, files.  What has not been sent is lost.  Twice is once."""
        ...
