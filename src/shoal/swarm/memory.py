"""The memory twin of the transport: a seeded network in virtual time, with faults as its dice say.

Nothing here waits and nothing is a thread: time passes in ``MemoryNetwork.advance``, and one seed gives one history.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from random import Random
from typing import Final

import msgspec

from shoal.errors import ArgumentError
from shoal.limits import (
    BULK_QUEUE,
    CHUNK_BYTES,
    CHUNK_HEADER_BYTES_MAX,
    CONTROL_BYTES_MAX,
    CONTROL_QUEUE,
    POLL_BYTES_MAX,
    POLL_MESSAGES_MAX,
)
from shoal.swarm.transport import Back, Bulk, Endpoint, Event, Lost, Received, usable

#: seconds without a sign until a connection is given up, and between two dials
SILENCE_S: Final = 6.0
_REDIAL_S: Final = 0.5
#: bytes that a message costs on the wire beside its own
_MESSAGE_EXTRA: Final = 100


class Weather(msgspec.Struct, frozen=True):
    """delay_s      (least, most) seconds from one peer to another, drawn for each message: messages overtake each other
    drop         probability that a message is lost
    twice        probability that a message of the control plane comes twice
    bytes_per_s  what a peer can send; 0.0: no limit
    """

    delay_s: tuple[float, float] = (0.001, 0.02)
    drop: float = 0.0
    twice: float = 0.0
    bytes_per_s: float = 0.0


class _Pair:
    """The connection of two peers.  ``life`` counts its lives: what was on its way in an earlier one is lost."""

    __slots__ = ("blocked_since", "life", "up")

    def __init__(self) -> None:
        self.up = False
        self.life = 0
        self.blocked_since: float | None = None


class MemoryNetwork:
    """Where `MemoryTransport`s meet.

    ``weather`` and ``blocked`` (pairs (from, to) that hear nothing) may be changed at any time.
    """

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self.now_s = 0.0
        self.weather = weather or Weather()
        self.blocked: set[tuple[bytes, bytes]] = set()
        self._random = Random(seed)  # noqa: S311  (a simulation: it must repeat, nothing is kept secret by it)
        self._live: dict[bytes, MemoryTransport] = {}
        self._pairs: dict[tuple[bytes, bytes], _Pair] = {}
        self._flight: list[tuple[float, int, _Pair, int, bytes, Event]] = []
        self._sent = 0
        self._busy_until: dict[bytes, float] = {}
        self._next_look = 0.0

    def transport(self, peer: bytes, endpoint: Endpoint) -> MemoryTransport:
        """A node: who it is, its key, and where it is heard ("" if it only dials).

        raises  ArgumentError  ``transport.twin``: one with this id lives already
        """
        if peer in self._live:
            raise ArgumentError("transport.twin", f"{peer.hex()[:16]} is on this network already")
        made = self._live[peer] = MemoryTransport(self, peer, endpoint)
        return made

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now_s + seconds
        while (due := self.next_s()) <= end:
            self.now_s = max(self.now_s, due)
            if due == self._next_look:
                self._look()
            else:
                self._deliver()
        self.now_s = end

    def next_s(self) -> float:
        """When something may happen next."""
        return min(self._flight[0][0], self._next_look) if self._flight else self._next_look

    # --- connections

    def _look(self) -> None:
        """What the dials and heartbeats of all connections find, twice a second."""
        self._next_look = self.now_s + _REDIAL_S
        names = sorted(self._live)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if self._may_meet(self._live[a], self._live[b]):
                    self._look_at(a, b)

    @staticmethod
    def _may_meet(one: MemoryTransport, two: MemoryTransport) -> bool:
        """Does one of them dial the other, and do both let the other in?  A dial that is refused is counted there."""
        dialled = False
        for dials, hears in ((one, two), (two, one)):
            if dials.can_dial(hears):
                dialled = True
                hears.counters["refused.key"] += not hears.allows(dials)
        return dialled and one.allows(two) and two.allows(one)

    def _look_at(self, a: bytes, b: bytes) -> None:
        pair = self._pairs.setdefault((a, b), _Pair())
        if (a, b) in self.blocked or (b, a) in self.blocked:
            if pair.blocked_since is None:
                pair.blocked_since = self.now_s
            if pair.up and self.now_s - pair.blocked_since >= SILENCE_S:
                self.part(a, b)
            return
        pair.blocked_since = None
        if not pair.up:
            pair.up = True
            self._live[a].hear(Back(b))
            self._live[b].hear(Back(a))

    def part(self, a: bytes, b: bytes) -> None:
        """The connection of these two ends; both are told."""
        pair = self._pairs.get((min(a, b), max(a, b)))
        if pair is not None and pair.up:
            pair.up = False
            pair.life += 1
            for me, other in ((a, b), (b, a)):
                if me in self._live:
                    self._live[me].hear(Lost(other))

    def leave(self, transport: MemoryTransport) -> None:
        """A node ends."""
        for other in list(self._live):
            self.part(transport.peer, other)
        del self._live[transport.peer]

    # --- messages

    def carry(self, sender: MemoryTransport, to: bytes, event: Received | Bulk, size: int) -> bool:
        """Take a message over; False if the two are not connected or too many wait."""
        pair = self._pairs.get((min(sender.peer, to), max(sender.peer, to)))
        if pair is None or not pair.up:
            return False
        receiver, bulk = self._live[to], isinstance(event, Bulk)
        if receiver.waiting[sender.peer, bulk] >= 2 * (BULK_QUEUE if bulk else CONTROL_QUEUE):
            sender.counters["dropped.bulk.full" if bulk else "dropped.control.full"] += 1
            return False
        weather, random = self.weather, self._random
        start = self.now_s
        if weather.bytes_per_s:
            start = max(start, self._busy_until.get(sender.peer, 0.0)) + (size + _MESSAGE_EXTRA) / weather.bytes_per_s
            self._busy_until[sender.peer] = start
        for _ in range(2 if not bulk and random.random() < weather.twice else 1):
            self._sent += 1
            at = start + random.uniform(*weather.delay_s)
            receiver.waiting[sender.peer, bulk] += 1
            heapq.heappush(self._flight, (at, self._sent, pair, pair.life, to, event))
        return True

    def _deliver(self) -> None:
        _, _, pair, life, to, event = heapq.heappop(self._flight)
        receiver = self._live.get(to)
        if receiver is None:
            return
        lost = (event.peer, to) in self.blocked or self._random.random() < self.weather.drop
        if lost or not pair.up or pair.life != life:
            receiver.waiting[event.peer, isinstance(event, Bulk)] -= 1
        else:
            receiver.hear(event)


class MemoryTransport:
    """See `Transport`.  ``poll`` never waits."""

    def __init__(self, network: MemoryNetwork, peer: bytes, endpoint: Endpoint) -> None:
        self.peer = peer
        self.endpoint = endpoint
        #: (peer, is a chunk) -> messages on their way here and not yet polled
        self.waiting: Counter[tuple[bytes, bool]] = Counter()
        self._network = network
        self._counters: Counter[str] = Counter()
        self._allowed: dict[bytes, Endpoint] = {}
        self._up: set[bytes] = set()
        self._control: dict[bytes, deque[Event]] = {}
        self._bulk: dict[bytes, deque[Event]] = {}
        self._closed = False

    @property
    def counters(self) -> Counter[str]:
        return self._counters

    def address(self) -> str:
        return self.endpoint.address

    def allows(self, other: MemoryTransport) -> bool:
        known = self._allowed.get(other.peer)
        return known is not None and known.curve == other.endpoint.curve

    def can_dial(self, other: MemoryTransport) -> bool:
        known = self._allowed.get(other.peer)
        return known is not None and known.address != "" and known == other.endpoint

    def allow(self, peers: Mapping[bytes, Endpoint]) -> None:
        self._check_open()
        good = usable(peers, self._counters)
        changed = [peer for peer, endpoint in self._allowed.items() if good.get(peer) != endpoint]
        self._allowed = good
        for peer in changed:
            was_up = peer in self._up
            self._network.part(self.peer, peer)
            self._forget(peer)
            if was_up:
                self._control[peer] = deque([Lost(peer)])

    def ways(self, peer: bytes) -> tuple[bool, bool]:
        up = peer in self._up
        return up and self._allowed[peer].address != "", up and self.endpoint.address != ""

    def _forget(self, peer: bytes) -> None:
        """What has arrived of this peer and was not polled."""
        for queues, bulk in ((self._control, False), (self._bulk, True)):
            gone = queues.pop(peer, ())
            self.waiting[peer, bulk] -= sum(isinstance(event, (Received, Bulk)) for event in gone)

    def hear(self, event: Event) -> None:
        if isinstance(event, Back):
            self._up.add(event.peer)
        elif isinstance(event, Lost):
            self._up.discard(event.peer)
        (self._bulk if isinstance(event, Bulk) else self._control).setdefault(event.peer, deque()).append(event)

    def send(self, peer: bytes, data: bytes) -> bool:
        self._check_open()
        if not 0 < len(data) <= CONTROL_BYTES_MAX:
            raise ArgumentError("transport.size", f"message of {len(data)} bytes, expected 1..{CONTROL_BYTES_MAX}")
        return peer in self._allowed and self._network.carry(self, peer, Received(self.peer, data), len(data))

    def send_bulk(self, peer: bytes, header: bytes, body: memoryview | bytes) -> bool:
        self._check_open()
        view = memoryview(body).cast("B").toreadonly()
        if not (0 < view.nbytes <= CHUNK_BYTES and 0 < len(header) <= CHUNK_HEADER_BYTES_MAX):
            raise ArgumentError(
                "transport.size",
                f"chunk of {len(header)} and {view.nbytes} bytes, "
                f"expected 1..{CHUNK_HEADER_BYTES_MAX} and 1..{CHUNK_BYTES}",
            )
        return peer in self._allowed and self._network.carry(self, peer, Bulk(self.peer, header, view), view.nbytes)

    def poll(self, wait_s: float) -> list[Event]:  # noqa: ARG002  (time passes in the network)
        self._check_open()
        events: list[Event] = []
        for queues in (self._control, self._bulk):
            messages = size = 0
            while queues and messages < POLL_MESSAGES_MAX and size < POLL_BYTES_MAX:
                peer = next(iter(queues))
                queue = queues.pop(peer)
                event = queue.popleft()
                if queue:
                    queues[peer] = queue  # behind the others
                messages += 1
                if isinstance(event, Received):
                    self.waiting[peer, False] -= 1
                    size += len(event.data)
                elif isinstance(event, Bulk):
                    self.waiting[peer, True] -= 1
                    size += event.body.nbytes
                events.append(event)
        return events

    def wake(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._network.leave(self)

    def _check_open(self) -> None:
        if self._closed:
            raise ArgumentError("transport.closed", "the transport is closed")
