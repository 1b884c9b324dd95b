"""Whole peers in virtual time: real ledgers, rounds, keys and models, a seeded network between them."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ledger"))
import msgspec
from swarm_builder import card, identity, seed

from shoal.errors import ShoalError
from shoal.ledger.body import Genesis, Policy
from shoal.ledger.core import Options
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.statement import Seen, make_statement
from shoal.secure.journal import MemoryJournal
from shoal.swarm.book import Book
from shoal.swarm.core import Patience
from shoal.swarm.keyring import Keyring
from shoal.swarm.memory import MemoryNetwork, Weather
from shoal.swarm.peer import Compute, Merged, Notice, Peer, SendBulk, SendControl
from shoal.swarm.policy import outer_of
from shoal.swarm.replica import Replica, found
from shoal.swarm.transport import Bulk, Endpoint, Received

TICK_S = 0.05
PATIENCE = Patience(retry=4, grace=16, give_up=100, muster=16)


class Site:
    """One member: what survives a restart (store, journal, kept keys, model), and its peer while it lives."""

    def __init__(self, table: SwarmTable, who, number: int) -> None:
        self.table, self.who, self.number = table, who, number
        self.store, self.journal, self.kept = MemoryStore(), MemoryJournal(), b""
        self.arrays = table.base
        self.carried = None
        self.merged: list[Merged] = []
        self.notices: list[str] = []
        found(self.store, table.genesis)
        self.alive = False
        self.start()

    def start(self) -> None:
        table = self.table
        random = Random((table.seed, self.number, len(self.notices)).__repr__())
        replica = Replica(self.who, self.store, random.randrange, Options(election_ticks=10))
        book = Book(self.arrays, outer=outer_of(table.policy))
        if self.carried is not None:
            book.carry(self.carried)
        keyring = Keyring(random.randbytes, self._keep, self.kept)
        self.peer = Peer(self.who, replica, book, self.journal, keyring, random.randbytes, PATIENCE)
        self.transport = table.network.transport(self.who.id, table.endpoints[self.who.id])
        self.transport.allow({i: e for i, e in table.endpoints.items() if i != self.who.id})
        self.alive = True

    def _keep(self, data: bytes) -> None:
        self.kept = data

    def crash(self) -> None:
        self.alive = False
        self.transport.close()
        self.store = self.store.reopen() if hasattr(self.store, "reopen") else self.store

    def turn(self) -> None:
        for event in self.transport.poll(0):
            if isinstance(event, Received):
                self.peer.heard(event.peer, event.data)
            elif isinstance(event, Bulk):
                self.peer.bulk(event.peer, event.header, event.body)
        again = True
        while again:
            again = False
            for out in self.peer.turn():
                if isinstance(out, SendControl):
                    self.transport.send(out.to, out.data)
                elif isinstance(out, SendBulk):
                    self.transport.send_bulk(out.to, out.header, out.chunk)
                elif isinstance(out, Compute):
                    again = True
                    try:
                        self.peer.computed(out.slot, out.name, out.run())
                    except ShoalError as error:
                        self.peer.computed(out.slot, out.name, error)
                elif isinstance(out, Merged):
                    self.merged.append(out)
                    self.arrays, self.carried = self.peer.book.arrays, self.peer.book.carried
                elif isinstance(out, Notice):
                    self.notices.append(f"{out.level}: {out.text}")


class SwarmTable:
    def __init__(
        self,
        n: int,
        secure: bool,
        rule: str = "mean",
        seed_: int = 0,
        weather: Weather | None = None,
        **more,
    ) -> None:
        """``more``: further fields of the policy."""
        self.seed = seed_
        self.network = MemoryNetwork(seed_, weather)
        rng = np.random.default_rng(seed_)
        self.base = {"w": rng.standard_normal((40, 30)).astype(np.float32), "b": np.zeros(30, np.float32)}
        people = sorted((identity(i) for i in range(n)), key=lambda who: who.id)
        cards = tuple(card(who, i) for i, who in enumerate(people))
        self.endpoints = {who.id: Endpoint(c.curve, c.address) for who, c in zip(people, cards, strict=True)}
        book = Book(self.base)
        policy = self.policy = Policy(secure, rule, 1, 3 if secure else 2, 1, **more)
        body = Genesis("table", seed("nonce")[:16], policy, book.layout.digest, book.digest, cards)
        payload = make_statement(body, people[0], ZERO_DIGEST, Seen(), 0)
        self.genesis = Entry(1, GENESIS_TERM, GENESIS_PREV, payload)
        self.sites = [Site(self, who, i) for i, who in enumerate(people)]

    def step(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.network.advance(TICK_S)
            for site in self.sites:
                if site.alive:
                    site.peer.tick()
                    site.turn()
            for site in self.sites:
                if site.alive:
                    site.turn()

    def until(self, condition, ticks: int = 3000) -> int:
        for tick in range(ticks):
            if condition():
                return tick
            self.step()
        raise AssertionError([(s.peer.ledger.round, s.peer.replica.leading, s.notices[-5:]) for s in self.sites])

    def train(self, site: Site, scale: float = 0.1) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, site.number, site.peer.ledger.round))
        return {
            k: (v + scale * rng.standard_normal(v.shape)).astype(np.float32) for k, v in site.peer.book.arrays.items()
        }

    def submit(self, sites=None) -> dict[int, dict[str, np.ndarray]]:
        local = {}
        for site in self.sites if sites is None else sites:
            local[site.number] = self.train(site)
            site.peer.submit(site.peer.book.diff(local[site.number]), 100 + site.number)
        return local


__all__ = ["Site", "SwarmTable", "msgspec"]
