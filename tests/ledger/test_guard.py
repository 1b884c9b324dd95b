"""The consensus core and the ledger's rules together: what is committed is valid, and verifies offline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from swarm_builder import SwarmBuilder, identity, seed

from shoal.errors import PeerError
from shoal.ledger.body import Body, LearnerAdded, Masked, MemberAdded, Noop, Note
from shoal.ledger.core import Hooks, Options, Role
from shoal.ledger.entry import Entry, entry_hash
from shoal.ledger.guard import Guard
from shoal.ledger.identity import Identity
from shoal.ledger.members import Configuration
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.message import AnyMessage
from shoal.ledger.raft import Raft
from shoal.ledger.ready import pack_state
from shoal.ledger.registry import change_of
from shoal.ledger.state import encode_state
from shoal.ledger.statement import make_statement, read_statement
from shoal.ledger.store import Snapshot
from shoal.ledger.validator import Ledger, make_seal
from shoal.ledger.verify import verify

replace = msgspec.structs.replace


class Node:
    """A core, its store and its guard, as a process would hold them."""

    def __init__(self, me: Identity, number: int, genesis: Entry, store: MemoryStore | None = None) -> None:
        self.me, self.number, self.genesis = me, number, genesis
        self.store = store or MemoryStore()
        if not self.store.last_index:
            self.store.append([genesis])
            self.store.save_hard_state(replace(self.store.load()[0], commit=1))
        hard, entries, _ = self.store.load()
        ledger = Ledger()
        for entry in entries[: hard.commit]:
            ledger.apply(entry)
        self.guard = Guard(ledger, me)
        assert all(self.guard.admit(e, entry_hash(e)) for e in entries[hard.commit :])
        guard = self.guard
        hooks = Hooks(lambda n: number * 3 % n, change_of, guard.seal, guard.admit, guard.opening, guard.admit_snapshot)
        self.raft = Raft(me.id, hooks, Options(announce=False), hard, entries)

    def restarted(self) -> Node:
        return Node(self.me, self.number, self.genesis, self.store.reopened())

    def work(self) -> list[AnyMessage]:
        sent: list[AnyMessage] = []
        while self.raft.has_ready():
            ready = self.raft.ready()
            self.store.persist(ready)
            sent += [*ready.early, *ready.messages]
            self.guard.settle(ready.committed)
            self.raft.advance()
        return sent

    def say(self, body: Body, author: Identity | None = None) -> Entry:
        author = author or self.me
        payload = make_statement(body, author, self.guard.committed.state.genesis, self.guard.seen)
        entry = self.guard.offer(payload, self.raft.term)
        assert self.raft.propose(payload).index == entry.index
        return entry


class Swarm:
    def __init__(self, members: int = 3) -> None:
        self.built = SwarmBuilder(members=members, admission=1)
        genesis = self.built.entries[0]
        self.nodes = {i: Node(self.built.people[i], n, genesis) for n, i in enumerate(sorted(self.built.people))}
        self.away: set[bytes] = set()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def run(self) -> None:
        for _ in range(1000):
            sent = [m for n in self if n.me.id not in self.away for m in n.work()]
            if not sent:
                return
            for m in sent:
                if m.to in self.nodes and m.to not in self.away:
                    self.nodes[m.to].raft.step(m)
        raise AssertionError("messages without end")

    def elect(self, node: Node) -> Node:
        for other in self:
            other.raft.state.elapsed = other.raft.state.options.election_ticks
        node.raft.campaign()
        self.run()
        assert node.raft.role == Role.LEADER
        return node

    def verified(self, genesis: bytes) -> int:
        """Every node's committed log verifies, and they are the same; its length."""
        logs = [list(n.store.history(1, n.guard.committed.state.index)) for n in self if n.me.id not in self.away]
        shortest = min(map(len, logs))
        assert len({entry_hash(log[shortest - 1]) for log in logs}) == 1
        for log in logs:
            sealed = max(e.index for e in log if e.seal)
            report = verify(log[:sealed], genesis)
            assert report.fault is None, report.fault
        return shortest


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


def test_what_a_swarm_commits_verifies_offline(swarm: Swarm) -> None:
    first, second, _ = swarm
    leader = swarm.elect(first)
    leader.say(Note("one"))
    leader.say(Note("two"), second.me)
    swarm.run()
    leader.say(Note("three"))
    swarm.run()
    leader = swarm.elect(second)
    leader.say(Note("under another leader"), first.me)
    swarm.run()
    assert swarm.verified(swarm.built.genesis) == 7
    log = list(leader.store.history(1, 7))
    assert [read_statement(e.payload)[0].type for e in log] == [1, 2, 33, 33, 33, 2, 33]
    assert not log[2].seal and log[3].seal, "a batch of two has one seal"


def test_a_leader_does_not_append_what_breaks_a_rule(swarm: Swarm) -> None:
    leader = swarm.elect(next(iter(swarm)))
    last = leader.raft.log.last
    for body, author in ((Masked(0, seed("x")), leader.me), (Note("x"), identity(77)), (Noop(9), leader.me)):
        with pytest.raises(PeerError):
            leader.say(body, author)
    assert leader.raft.log.last == last
    leader.say(Note("fine"))
    swarm.run()
    assert swarm.verified(swarm.built.genesis) == last + 1


def test_followers_do_not_take_what_a_lying_leader_appends(swarm: Swarm) -> None:
    leader, *others = swarm
    swarm.elect(leader)
    stranger = make_statement(Note("x"), identity(77), swarm.built.genesis, leader.guard.seen)
    assert not leader.raft.propose(stranger).refused
    for m in leader.raft.ready().early:
        swarm.nodes[m.to].raft.step(m)
    for node in others:
        assert node.raft.counters["not-admitted"] == 1
        assert "is no member here" in node.guard.refusal
        assert node.raft.log.last == 2


def test_a_tail_that_was_never_decided_is_given_up(swarm: Swarm) -> None:
    first, second, third = swarm
    swarm.elect(first)
    swarm.away = {second.me.id, third.me.id}
    for n in range(3):
        first.say(Note(f"never decided {n}"))
    first.work()
    swarm.away = {first.me.id}
    swarm.elect(second).say(Note("decided"))
    swarm.run()
    swarm.away = set()
    second.say(Note("decided later"))
    swarm.run()
    for _ in range(3):
        second.raft.tick()
        swarm.run()
    assert first.guard.committed.state.head == second.guard.committed.state.head
    assert swarm.verified(swarm.built.genesis) == 5


def test_a_restart_admits_its_own_log(swarm: Swarm) -> None:
    first, second, third = swarm
    swarm.elect(first)
    swarm.away = {third.me.id}
    first.say(Note("on two of three"))
    swarm.run()
    swarm.away = set()
    again = second.restarted()
    swarm.nodes[second.me.id] = again
    assert again.guard.committed.state.index <= first.guard.committed.state.index
    swarm.elect(again).say(Note("and on"))
    swarm.run()
    assert swarm.verified(swarm.built.genesis) == 5


def test_a_site_joins_and_votes(swarm: Swarm) -> None:
    from swarm_builder import card

    leader = swarm.elect(next(iter(swarm)))
    new = identity(50)
    leader.say(LearnerAdded(card(new, 50)))
    swarm.run()
    node = Node(new, 9, swarm.built.entries[0])
    swarm.nodes[new.id] = node
    for _ in range(20):
        leader.raft.tick()
        swarm.run()
    assert node.guard.committed.state.head == leader.guard.committed.state.head
    leader.say(MemberAdded(new.id))
    swarm.run()
    assert new.id in leader.raft.configuration.voters
    assert leader.guard.committed.state.registry.members[new.id].voter
    swarm.elect(node).say(Note("from the new one"))
    swarm.run()
    assert swarm.verified(swarm.built.genesis) == leader.guard.committed.state.index


def test_an_entry_with_another_seal_is_looked_at_again() -> None:
    built = SwarmBuilder(members=3, check=True)
    ledger = Ledger()
    for entry in built.entries:
        ledger.apply(entry)
    guard = Guard(ledger, identity(0))
    plain = [built.say(Note(f"{n}"), sealed=False) for n in range(3)]
    assert all(guard.admit(e, entry_hash(e)) for e in plain)
    assert all(guard.admit(e, entry_hash(e)) for e in plain)
    good = replace(plain[1], seal=make_seal(entry_hash(plain[1]), built.leader))
    other = next(p for p in built.voters() if p.id != built.leader.id)
    bad = replace(plain[1], seal=make_seal(entry_hash(plain[1]), other))
    assert guard.admit(good, entry_hash(good))
    assert not guard.admit(bad, entry_hash(bad)) and "sealed by" in guard.refusal
    guard.settle([plain[0], good])
    guard.settle([plain[0]])
    assert guard.committed.state.sealed == good.index
    assert not guard.admit(replace(plain[0], payload=b"x"), seed("x"))
    assert guard.admit(plain[0], entry_hash(plain[0]))


def test_committed_entries_that_break_a_rule_stop_the_node() -> None:
    built = SwarmBuilder(members=3, check=True)
    ledger = Ledger()
    for entry in built.entries:
        ledger.apply(entry)
    guard = Guard(ledger, identity(0))
    wrong = replace(built.entry(Note("x"), built.leader), payload=b"")
    with pytest.raises(Exception, match="no statement"):
        guard.settle([wrong])
    assert guard.committed.state.index == 2


def test_snapshots_that_contradict_themselves_or_what_is_decided() -> None:
    """Each fact in turn is another one."""
    built = SwarmBuilder(members=3, check=True)
    mine = built.ledger.copy()
    built.run_round()
    end, members = built.entries[-1], tuple(sorted(built.people))
    state = built.ledger.state

    def taken(index: int = end.index, hash_: bytes = entry_hash(end), members: Any = members, **other: Any) -> str:
        data = encode_state(replace(state, **other))
        guard = Guard(mine, identity(0))
        snapshot = Snapshot(index, end.term, hash_, pack_state(Configuration(members), data))
        assert guard.admit_snapshot(snapshot) == (not guard.refusal)
        return guard.refusal

    assert taken() == ""
    assert "holds the state after" in taken(index=end.index - 1)
    assert "holds the state after" in taken(hash_=seed("other"))
    assert "other members" in taken(members=members[:2])
    assert "another swarm" in taken(genesis=seed("other"))
    assert "another history" in taken(recent={**state.recent, 2: (seed("x"), b"")})
    guard = Guard(mine, identity(0))
    assert not guard.admit_snapshot(Snapshot(9, 1, bytes(32), b"x")) and guard.refusal == "no snapshot"
    broken = Snapshot(9, 1, bytes(32), pack_state(Configuration(members), b"x"))
    assert not guard.admit_snapshot(broken) and "no ledger state" in guard.refusal


def test_a_snapshot_takes_the_place_of_the_log() -> None:
    built = SwarmBuilder(members=3, check=True)
    built.run_round()
    first = Ledger()
    first.apply(built.entries[0])
    guard = Guard(first, identity(0))
    guard.restart(Ledger.decode(built.ledger.encode()))
    later = built.say(Note("above the snapshot"))
    assert guard.admit(later, entry_hash(later))
    guard.settle([later])
    assert guard.committed.state.head == built.ledger.state.head
