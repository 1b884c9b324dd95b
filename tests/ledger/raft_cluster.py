"""Cores joined by function calls: every message is in the test's hands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.members import Change, Configuration
from shoal.ledger.message import AnyMessage
from shoal.ledger.raft import Hooks, Options, Raft, Role
from shoal.ledger.ready import Ready
from shoal.ledger.store import HardState, Snapshot

KINDS = {b"*": "found", b"+": "add", b"^": "promote", b"-": "remove"}


def members_of(payload: bytes) -> Change | None:
    """*abc founds, +d adds a learner, ^d promotes it, -d removes; anything else changes nothing."""
    kind = KINDS.get(payload[:1])
    return None if kind is None else Change(kind, tuple(bytes([c]) for c in payload[1:]))  # type: ignore[arg-type]


def chain(terms: Sequence[int], payloads: Sequence[bytes] | None = None) -> list[Entry]:
    """A log with these terms: entry 1 has terms[0], and so on."""
    entries: list[Entry] = []
    prev = GENESIS_PREV
    for n, term in enumerate(terms):
        payload = payloads[n] if payloads else b"%d.%d" % (n + 1, term)
        entries.append(Entry(n + 1, term, prev, payload, b""))
        prev = entry_hash(entries[-1])
    return entries


def die(name: str, n: int) -> int:
    """A loaded one: timeouts 0, 3, 6 ... by name, marks of lives 0."""
    return 3 * (ord(name) - ord("a")) % n if n < 2**32 else 0


def core(
    name: str = "a",
    members: str = "abc",
    terms: Sequence[int] = (),
    term: int | None = None,
    vote: str = "",
    commit: int = 0,
    options: Options | None = None,
    **more: Any,
) -> Raft:
    """One core in its first life whose log has these terms; a's election timeout is the shortest, then b's, then c's."""
    hooks = more.pop("hooks", None) or Hooks(draw=lambda n: die(name, n), members_of=members_of)
    entries = more.pop("entries", None) or chain(terms)
    last = entries[-1].term if entries else 0
    hard = HardState(last if term is None else term, vote.encode(), commit, more.pop("generation", 1))
    ids = tuple(m.encode() for m in members)
    options = options or Options(announce=False)
    return Raft(name.encode(), hooks, options, hard, entries, more.pop("snapshot", None), Configuration(ids), **more)


def turn(raft: Raft, keep: Callable[[Ready], None] | None = None) -> list[AnyMessage]:
    """Do all that the core asks for; returns what it sends."""
    sent: list[AnyMessage] = []
    while raft.has_ready():
        ready = raft.ready()
        if keep:
            keep(ready)
        sent += [*ready.early, *ready.messages]
        raft.advance()
    return sent


def of(kind: type, messages: Iterable[AnyMessage]) -> list[Any]:
    return [m for m in messages if type(m) is kind]


class Net:
    """Cores and the messages between them; `cut` holds links (from, to) on which everything is lost."""

    def __init__(self, cores: Iterable[Raft]) -> None:
        self.cores = {c.state.me.decode(): c for c in cores}
        self.cut: set[tuple[str, str]] = set()
        self.applied: dict[str, list[bytes]] = {name: [] for name in self.cores}
        self.lost: list[AnyMessage] = []
        self.snapshots: dict[str, Snapshot] = {}

    def __getitem__(self, name: str) -> Raft:
        return self.cores[name]

    def isolate(self, name: str) -> None:
        self.cut |= {(name, o) for o in self.cores} | {(o, name) for o in self.cores}

    def heal(self) -> None:
        self.cut.clear()

    def _keep(self, name: str, ready: Ready) -> None:
        self.applied[name] += [e.payload for e in ready.committed]
        if ready.snapshot is not None:
            self.snapshots[name] = ready.snapshot

    def run(self, rounds: int = 1000) -> None:
        """Deliver until nobody has anything to say."""
        for _ in range(rounds):
            sent = [m for name, c in self.cores.items() for m in turn(c, lambda r, n=name: self._keep(n, r))]
            if not sent:
                return
            for m in sent:
                link = (m.sender.decode(), m.to.decode())
                if link in self.cut or link[1] not in self.cores:
                    self.lost.append(m)
                else:
                    self.cores[link[1]].step(m)
        raise AssertionError("messages without end")

    def tick(self, times: int = 1, names: str = "") -> None:
        for _ in range(times):
            for name in names or self.cores:
                self.cores[name].tick()
            self.run()

    def elect(self, name: str) -> None:
        """Let one campaign, after the leases of the others have run out."""
        for other, c in self.cores.items():
            if other != name:
                c.state.elapsed = c.state.options.election_ticks
        self.cores[name].campaign()
        self.run()
        assert self.cores[name].role == Role.LEADER


def cluster(members: str = "abc", options: Options | None = None, leader: str = "a") -> Net:
    """A cluster of empty logs with a leader."""
    net = Net(core(m, members, options=options) for m in members)
    net.elect(leader)
    return net
