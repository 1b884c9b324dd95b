"""Replicas joined by function calls: every message and every crash is in the test's hands, and no time passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random

from shoal.ledger.body import Body, Genesis, MemberCard, Note, Policy
from shoal.ledger.core import Options
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry, entry_hash
from shoal.ledger.identity import Identity
from shoal.ledger.log_store import LogStore
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.message import AnyMessage
from shoal.ledger.ready import Ready
from shoal.ledger.statement import Seen, make_statement
from shoal.swarm.replica import Bounds, Decided, Jumped, Replica, found


class Crash(BaseException):
    """The process dies here."""


def identity(number: int) -> Identity:
    return Identity.from_seed(hashlib.sha256(b"replica %d" % number).digest())


def card(number: int) -> MemberCard:
    return MemberCard(
        identity(number).public, hashlib.sha256(b"curve %d" % number).digest()[:31] + b"\x11", f"m{number}"
    )


def genesis_of(members: int, admission: int = 1) -> Entry:
    people = sorted((identity(n) for n in range(members)), key=lambda i: i.id)
    numbers = {identity(n).id: n for n in range(members)}
    policy = Policy(False, "mean", 1, 2, admission)
    cards = tuple(card(numbers[i.id]) for i in people)
    body = Genesis("loop", bytes(16), policy, bytes(31) + b"l", bytes(31) + b"b", cards)
    return Entry(1, GENESIS_TERM, GENESIS_PREV, make_statement(body, people[0], ZERO_DIGEST, Seen()))


class Site:
    """One replica with its disk, and what it told.  ``fuse``: events until it dies, None: never."""

    def __init__(self, loop: Loop, number: int, store: LogStore, reopen: Callable[[LogStore], LogStore]) -> None:
        self.loop, self.number, self.store, self.reopen = loop, number, store, reopen
        self.fuse: int | None = None
        self.events = 0
        self.told: list[Decided | Jumped] = []
        self.key = identity(number)
        self.start()

    def start(self) -> None:
        self.up = True
        self.replica = Replica(
            self.key, Disk(self.store, self), Random(self.number).randrange, self.loop.options, bounds=self.loop.bounds
        )
        self.replica.introduce(site.replica.me for site in self.loop.sites if site is not self)

    def restart(self) -> None:
        self.store = self.reopen(self.store)
        self.fuse = None
        self.told = []
        self.start()

    def event(self) -> None:
        self.events += 1
        if self.fuse is not None and self.events > self.fuse:
            raise Crash

    def send(self, message: AnyMessage) -> None:
        self.event()
        self.loop.flight.append(message)

    def work(self) -> None:
        try:
            self.told += self.replica.work(self.send)
        except Crash:
            self.up = False

    def heads(self) -> dict[int, bytes]:
        return {e.index: entry_hash(e) for e in self.store.history(1, self.replica.decided)}

    def notes(self) -> list[str]:
        """What the decided entries of its store say, in order."""
        from shoal.ledger.statement import read_statement

        bodies = [read_statement(e.payload)[1] for e in self.store.history(1, self.replica.decided)]
        return [b.text for b in bodies if isinstance(b, Note)]


class Disk:
    """A store that dies just before or just after it has written."""

    def __init__(self, store: LogStore, site: Site) -> None:
        self._store, self._site = store, site

    def persist(self, ready: Ready) -> None:
        self._site.event()
        self._store.persist(ready)
        self._site.event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Loop:
    """Sites and the messages between them.  ``cut``: numbers of sites that nothing reaches and nothing leaves."""

    def __init__(
        self,
        members: int = 3,
        make: Callable[[int], LogStore] = lambda _n: MemoryStore(),
        reopen: Callable[[LogStore], LogStore] = lambda s: s.reopened(),
        options: Options | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.options = options or Options()
        self.bounds = bounds or Bounds()
        self.genesis = genesis_of(members)
        self.flight: list[AnyMessage] = []
        self.cut: set[int] = set()
        self.sites: list[Site] = []
        self.make, self.reopen = make, reopen
        for number in range(members):
            self.add(number)

    def add(self, number: int) -> Site:
        store = self.make(number)
        found(store, self.genesis)
        self.sites.append(Site(self, number, store, self.reopen))
        return self.sites[-1]

    @property
    def up(self) -> list[Site]:
        return [s for s in self.sites if s.up]

    def run(self) -> None:
        """Work and deliver until nobody has anything to say."""
        for _ in range(1000):
            for site in self.up:
                site.work()
            if not self.flight:
                return
            flight, self.flight = self.flight, []
            by_id = {s.replica.me: s for s in self.sites}
            for m in flight:
                to, sender = by_id.get(m.to), by_id[m.sender]
                if to is not None and to.up and not {to.number, sender.number} & self.cut:
                    to.replica.step(m.sender, m)
        raise AssertionError("messages without end")

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            for site in self.up:
                site.replica.tick()
            self.run()

    def leader(self, ticks: int = 200) -> Site:
        """Whoever leads, once somebody does and everything up to now is decided."""
        for _ in range(ticks):
            self.tick()
            for site in self.up:
                r = site.replica
                if (
                    r.leading
                    and site.number not in self.cut
                    and r.decided == r.last
                    and r.term == max(s.replica.term for s in self.up if s.number not in self.cut)
                ):
                    return site
        raise AssertionError("nobody leads")

    def say(self, site: Site, body: Body) -> bytes:
        """As a node does: keep the payload, offer it to whoever leads until it is decided."""
        payload = site.replica.statement(body)
        self.push(site, payload)
        return payload

    def push(self, site: Site, payload: bytes, ticks: int = 200) -> None:
        for _ in range(ticks):
            if not site.up:
                site.restart()
            if site.replica.standing(payload) == "decided":
                return
            for leading in self.up:
                if leading.replica.leading and leading.number not in self.cut:
                    leading.replica.offer(payload)
            self.run()
            self.tick()
        raise AssertionError("never decided")

    def same(self) -> None:
        """Everybody decided the same entries, as far as each has come."""
        heads = [s.heads() for s in self.sites if s.up]
        for one in heads:
            for index, head in one.items():
                assert all(other.get(index, head) == head for other in heads)
