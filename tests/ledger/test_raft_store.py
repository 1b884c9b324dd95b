"""Cores on real stores: what `ready` asks for is what a store takes, and a restart goes on from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from raft_cluster import members_of

from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry
from shoal.ledger.log_store import LogStore
from shoal.ledger.members import Change
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.raft import Hooks, Options, Raft, Role
from shoal.ledger.sqlite_store import SqliteStore

IDS = {name: name.encode() * 32 for name in "abcd"}


def change_in(payload: bytes) -> Change | None:
    short = members_of(payload)
    return None if short is None else Change(short.kind, tuple(p * 32 for p in short.peers))


class Swarm:
    """Three cores, each on a store that is opened again at every restart."""

    def __init__(self, open_store: Callable[[str, LogStore | None], LogStore]) -> None:
        self.open = open_store
        self.rng = Random(3)
        self.stores: dict[str, LogStore] = {}
        self.cores: dict[bytes, Raft] = {}
        self.applied: dict[str, list[bytes]] = {}
        genesis = Entry(1, GENESIS_TERM, GENESIS_PREV, b"*abc", b"")
        for name in "abc":
            self.stores[name] = open_store(name, None)
            self.stores[name].append([genesis])
            self.start(name)

    def start(self, name: str) -> None:
        hard, entries, snapshot = self.stores[name].load()
        options = Options(chunk_bytes=64, append_entries=4)
        hooks = Hooks(draw=self.rng.randrange, members_of=change_in)
        core = Raft(IDS[name], hooks, options, hard, entries, snapshot)
        core.introduce(IDS.values())
        self.cores[IDS[name]] = core
        self.applied[name] = []

    def restart(self, name: str) -> None:
        self.stores[name] = self.open(name, self.stores[name])
        self.start(name)

    def turn(self) -> bool:
        moved = False
        for name in self.stores:
            core = self.cores.get(IDS[name])
            while core is not None and core.has_ready():
                moved = True
                ready = core.ready()
                self.send(ready.early)
                self.stores[name].persist(ready)
                self.send(ready.messages)
                self.applied[name] += [e.payload for e in ready.committed]
                core.advance()
        return moved

    def send(self, messages) -> None:  # type: ignore[no-untyped-def]
        for m in messages:
            if m.to in self.cores:
                self.cores[m.to].step(m)

    def run(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            for core in self.cores.values():
                core.tick()
            while self.turn():
                pass

    def leader(self) -> Raft:
        for _ in range(300):
            self.run()
            for core in self.cores.values():
                if core.role == Role.LEADER and core.log.committed == core.log.last:
                    return core
        raise AssertionError("nobody leads")


@pytest.fixture(params=["memory", "sqlite"])
def swarm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Swarm]:
    def memory(name: str, old: LogStore | None) -> LogStore:
        return MemoryStore() if old is None else old.reopened()  # type: ignore[attr-defined]

    def sqlite(name: str, old: LogStore | None) -> LogStore:
        if old is not None:
            old.close()
        return SqliteStore(tmp_path / f"{name}.ledger")

    found = Swarm(memory if request.param == "memory" else sqlite)
    yield found
    for store in found.stores.values():
        store.close()


def test_restarts_go_on_from_the_store(swarm: Swarm) -> None:
    for turn in range(6):
        leader = swarm.leader()
        for n in range(5):
            assert not leader.propose(b"%d.%d" % (turn, n)).refused
        swarm.run(3)
        swarm.restart("abc"[turn % 3])
    swarm.leader()
    swarm.run(5)
    held = {name: store.load()[1] for name, store in swarm.stores.items()}
    assert held["a"] == held["b"] == held["c"]
    mine = [e.payload for e in held["a"] if b"." in e.payload]
    assert mine == [b"%d.%d" % (turn, n) for turn in range(6) for n in range(5)]
    assert [store.load()[0].generation for store in swarm.stores.values()] == [3, 3, 3]
    assert not any(core.state.barred for core in swarm.cores.values())


def test_a_conflict_is_cut_in_the_store_too(swarm: Swarm) -> None:
    leader = swarm.leader()
    name = next(n for n, i in IDS.items() if swarm.cores.get(i) is leader)
    alone = swarm.cores.pop(IDS[name])
    others = swarm.cores
    swarm.cores = {IDS[name]: alone}
    for n in range(3):
        assert not alone.propose(b"lost %d" % n).refused
    swarm.run(1)
    swarm.cores = others
    winner = swarm.leader()
    winner.propose(b"kept")
    swarm.run(2)
    swarm.cores[IDS[name]] = alone
    swarm.run(40)
    held = [[e.payload for e in store.load()[1]] for store in swarm.stores.values()]
    assert held[0] == held[1] == held[2] and b"kept" in held[0]
    assert not any(payload.startswith(b"lost") for payload in held[0])


def test_a_snapshot_goes_through_the_store(swarm: Swarm) -> None:
    leader = swarm.leader()
    name = next(n for n in "abc" if swarm.cores[IDS[n]] is not leader)
    del swarm.cores[IDS[name]]
    for n in range(10):
        leader.propose(b"%d" % n)
        swarm.run()
    for other in "abc":
        core = swarm.cores.get(IDS[other])
        if core is not None:
            snapshot = core.compact(core.log.applied, b"state" * 50)
            swarm.stores[other].save_snapshot(snapshot)
            swarm.stores[other].compact(snapshot.index)
    swarm.restart(name)
    swarm.run(40)
    leader = swarm.leader()
    kept = swarm.stores[name].load()
    assert kept[2] is not None and kept[2].index >= 11
    swarm.restart(name)
    swarm.run(40)
    assert swarm.cores[IDS[name]].log.last_hash == swarm.leader().log.last_hash
    assert swarm.cores[IDS[name]].configuration.voters == tuple(IDS[n] for n in "abc")
