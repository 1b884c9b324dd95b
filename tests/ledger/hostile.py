"""Hostile input for the ledger: what must hold whatever it is.  forgeries.py makes it.

One member of three lies: it has its own key and everything that was ever said, and no other key.  An input is one byte
that names its target (``WALKS``) and the bytes for it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import msgspec
from swarm_builder import SwarmBuilder

from shoal.errors import InputError, PeerError
from shoal.ledger.body import Note
from shoal.ledger.core import Hooks, Options, Role
from shoal.ledger.entry import Entry, decode_entry, encode_entry, entry_hash
from shoal.ledger.export import ExportReader, Header, write_export
from shoal.ledger.guard import Guard
from shoal.ledger.identity import Identity
from shoal.ledger.memory_store import MemoryStore
from shoal.ledger.message import (
    AnyMessage,
    GiveVote,
    decode,
    encode,
)
from shoal.ledger.raft import Raft
from shoal.ledger.ready import unpack_state
from shoal.ledger.registry import change_of
from shoal.ledger.state import decode_state, encode_state
from shoal.ledger.statement import read_statement
from shoal.ledger.store import HardState
from shoal.ledger.validator import Ledger, make_seal
from shoal.ledger.verify import verify
from shoal.limits import LEDGER_ENTRY_BYTES_MAX, TERM_JUMP_MAX

MESSAGES, ENTRY, STATEMENT, EXPORT, SNAPSHOT = range(5)
replace = msgspec.structs.replace

LIFE = 1 << 32
OPTIONS = Options(election_ticks=3, announce=False, log_entries=40, log_bytes=2**20)
ROLES = (Role.FOLLOWER, Role.PRECANDIDATE, Role.CANDIDATE, Role.LEADER)


class World:
    """What there is before the lie: a history, who is who, and all that honest members have said."""

    def __init__(self) -> None:
        built = SwarmBuilder(members=3, admission=1, check=True)
        self.liar: Identity = built.leader
        self.people = built.people
        self.me, self.other = (built.people[i] for i in sorted(built.people) if i != self.liar.id)
        self.root = built.ledger.copy()
        self.root_entries = list(built.entries)
        for n, author in enumerate((self.liar, self.other, self.me, self.liar)):
            built.say(Note(f"note {n}"), author, sealed=n % 2 == 1)
        built.publish_keys(2)
        built.run_round()
        self.entries = list(built.entries)
        self.genesis = built.genesis
        self.full = built.ledger.copy()
        self.state = built.ledger.encode()
        built.run_round()
        self.later = built.entries[len(self.entries) :]
        authors = ((read_statement(e.payload)[0].author, e.payload) for e in built.entries)
        self.genuine = frozenset(payload for author, payload in authors if author != self.liar.id)
        stream = io.BytesIO()
        write_export(stream, Header(self.genesis, 1, len(self.entries), entry_hash(self.entries[-1])), self.entries)
        self.export = stream.getvalue()

    def check(self, entry: Entry, said: frozenset[bytes] = frozenset()) -> None:
        """Nobody's words but the liar's are new."""
        author = read_statement(entry.payload)[0].author
        assert author == self.liar.id or entry.payload in self.genuine or entry.payload in said, (
            f"entry {entry.index}: a statement of {author.hex()[:16]} that it never made"
        )
        if entry.seal:
            sealer = self.people[entry.seal[:32]]
            assert entry.seal == make_seal(entry_hash(entry), sealer), f"entry {entry.index}: a forged seal"


@lru_cache(maxsize=1)
def world() -> World:
    return World()


class Site:
    """The honest node: its core, rules and store.  Two entries are decided, one more is in its log."""

    def __init__(self, role: Role) -> None:
        self.world = w = world()
        entries = w.entries[:3]
        self.store = MemoryStore()
        self.store.append(entries)
        self.store.save_hard_state(HardState(term=1, commit=2))
        self.guard = Guard(w.root.copy(), w.me)
        self.guard.admit(entries[2], entry_hash(entries[2]))
        self.said: frozenset[bytes] = frozenset()
        guard, draw = self.guard, lambda n: 0 if n < 2**32 else 1
        hooks = Hooks(draw, change_of, guard.seal, guard.admit, self._opening, guard.admit_snapshot)
        self.raft = Raft(w.me.id, hooks, OPTIONS, self.store.load()[0], entries)
        self.sent: list[AnyMessage] = []
        self.decided = {i: self.raft.log.hash(i) for i in (1, 2)}
        self.term = self.raft.term
        self._become(role)

    def _opening(self, term: int) -> bytes:
        payload = self.guard.opening(term)
        self.said |= {payload}
        return payload

    def _become(self, role: Role) -> None:
        if role == Role.FOLLOWER:
            return
        self.raft.campaign()
        for pre in (True, False):
            if self.raft.role < role:
                vote = GiveVote(self.world.me.id, self.world.other.id, 2, LIFE | 1, True, pre)
                self.raft.step(vote)
        self.work()
        assert self.raft.role == role

    def hear(self, data: bytes) -> bool:
        """Bytes arrive; True if they are a message that the core does not count as refused."""
        try:
            m = decode(data)
        except PeerError as error:
            assert error.code == "message.malformed"
            return False
        assert decode(encode(m)) == m
        before = self.raft.counters.total()
        self.raft.step(m)
        self.work()
        self.check()
        return self.raft.counters.total() == before

    def work(self) -> None:
        for _ in range(10):
            if not self.raft.has_ready():
                return
            ready = self.raft.ready()
            self.store.persist(ready)
            self.sent = [*ready.early, *ready.messages]
            if ready.snapshot is not None:
                content = unpack_state(ready.snapshot.state)
                assert content is not None, "the core took a snapshot that holds no configuration"
                self.guard.restart(Ledger.decode(content.data))
                assert self.guard.committed.state.index == ready.snapshot.index > max(self.decided)
                assert self.guard.committed.state.genesis == self.world.genesis
                self.decided = {ready.snapshot.index: ready.snapshot.hash}
            self.guard.settle(ready.committed)
            self.raft.advance()
        raise AssertionError("work without end")

    def check(self) -> None:
        raft, log = self.raft, self.raft.log
        assert self.term <= raft.term <= self.term + TERM_JUMP_MAX + 3, "one message and three ticks"
        self.term = raft.term
        for index, hash_ in self.decided.items():
            assert log.hash(index) == hash_ or index < log.floor, f"decided entry {index} has changed"
        assert log.committed >= max(self.decided), "what was decided is not"
        for index in range(max(self.decided) + 1, log.committed + 1):
            self.decided[index] = log.hash(index)
        for entry in log.entries:
            self.world.check(entry, self.said)
        assert len(log.entries) <= OPTIONS.log_entries and log.size <= OPTIONS.log_bytes
        assert all(fault_free(m) for m in self.sent)


def fault_free(m: AnyMessage) -> bool:
    """What an honest node sends is in its own name and can be read."""
    return m.sender == world().me.id and decode(encode(m)) == m


class Letters(msgspec.Struct, array_like=True):
    """Messages that arrive one after the other at a node in a role; ``ticks`` of its clock before each."""

    role: int
    ticks: int
    data: tuple[bytes, ...]


def walk_messages(data: bytes) -> bool:
    try:
        letters = msgspec.msgpack.decode(data, type=Letters)
    except (msgspec.MsgspecError, RecursionError):
        letters = Letters(0, 0, (data,))
    site = Site(ROLES[letters.role % len(ROLES)])
    taken = False
    for letter in letters.data[:16]:
        for _ in range(letters.ticks % 4):
            site.raft.tick()
        taken |= site.hear(letter)
    return taken


def walk_entry(data: bytes) -> bool:
    try:
        entry = decode_entry(data)
    except InputError as error:
        assert error.code == "ledger.entry"
        return False
    assert encode_entry(entry) == data and len(entry.payload) <= LEDGER_ENTRY_BYTES_MAX
    try:
        world().full.copy().apply(entry)
    except (InputError, PeerError) as error:
        assert str(error).startswith(f"entry {entry.index} (")
    else:
        world().check(entry)
    return True


def walk_statement(data: bytes) -> bool:
    try:
        statement, body = read_statement(data)
    except InputError as error:
        assert error.code in ("ledger.statement", "ledger.type", "ledger.version", "ledger.limit")
        return False
    assert msgspec.msgpack.encode(statement) == data and msgspec.msgpack.encode(body) == statement.body
    return True


def walk_export(data: bytes) -> bool:
    """True if the file verifies under the genesis that everybody knows."""
    w = world()
    seen: list[Entry] = []
    try:
        report = verify(ExportReader(io.BytesIO(data), "file"), w.genesis, watch=lambda entry, _: seen.append(entry))
    except InputError as error:
        assert error.code.startswith("export.")
        return False
    if report.fault is not None:
        assert report.fault.index <= len(seen) + 1 and report.fault.code and report.fault.reason
        return False
    assert all(after.prev == entry_hash(before) for before, after in pairwise(seen)), "not one chain"
    for entry in seen:
        w.check(entry)
    return True


def walk_snapshot(data: bytes) -> bool:
    content = unpack_state(data)
    if content is None:
        return False
    try:
        state = decode_state(content.data)
    except InputError as error:
        assert error.code == "ledger.snapshot"
        return False
    assert encode_state(decode_state(encode_state(state))) == encode_state(state)
    ledger = Ledger(state)
    try:
        for entry in world().later:
            ledger.apply(entry)
    except (InputError, PeerError) as error:
        assert str(error).startswith(f"entry {entry.index} (")
    return True


WALKS: dict[int, tuple[str, Callable[[bytes], bool]]] = {
    MESSAGES: ("messages", walk_messages),
    ENTRY: ("entry", walk_entry),
    STATEMENT: ("statement", walk_statement),
    EXPORT: ("export", walk_export),
    SNAPSHOT: ("snapshot", walk_snapshot),
}


def walk(data: bytes) -> bool:
    """True if the input got through to where it means something."""
    return bool(data) and WALKS[data[0] % len(WALKS)][1](data[1:])
