"""All that one node's consensus core knows, in one place, with the few operations that every rule needs.

The rules themselves are functions over this state: `admission.py`, `election.py`, `replication.py` (leader),
`following.py`, `install.py`, `membership.py`, `reading.py`, `life.py`; which message meets which rule stands at the top
of `raft.py`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import msgspec

from shoal.ledger.entry import Entry
from shoal.ledger.log import Log
from shoal.ledger.members import NOBODY, Change, PeerId, Roster
from shoal.ledger.message import AnyMessage, SnapshotHead
from shoal.ledger.progress import Progress
from shoal.ledger.ready import ReadState
from shoal.ledger.store import HardState, Snapshot
from shoal.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    APPENDS_IN_FLIGHT_MAX,
    EVIDENCE_MAX,
    LOG_BYTES_MAX,
    LOG_ENTRIES_MAX,
    SNAPSHOT_CHUNK_BYTES,
    UNCOMMITTED_BYTES_MAX,
)


class Role(IntEnum):
    FOLLOWER = 0
    PRECANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


class Options(msgspec.Struct, frozen=True):
    """Times in ticks, sizes in entries and payload bytes.

    An election timeout is drawn from election_ticks .. 2 * election_ticks - 1 (Raft, 5.2).
    announce    say Hello at a start and give no vote during the first election timeout of a later life (`life.py`)
    behind_max  entries that a learner may lack and still be promoted
    """

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    announce: bool = True
    append_entries: int = APPEND_ENTRIES_MAX
    append_bytes: int = APPEND_BYTES_MAX
    in_flight: int = APPENDS_IN_FLIGHT_MAX
    uncommitted_bytes: int = UNCOMMITTED_BYTES_MAX
    log_entries: int = LOG_ENTRIES_MAX
    log_bytes: int = LOG_BYTES_MAX
    chunk_bytes: int = SNAPSHOT_CHUNK_BYTES
    behind_max: int = 64


class Hooks(msgspec.Struct, frozen=True):
    """The pure functions that a core is given, because it does not look into payloads nor hold keys.

    draw        draw(n) -> an integer from 0 .. n-1; the only randomness there is
    members_of  the change of membership that a payload makes, or None
    seal        the seal of an entry's hash; the last entry of every batch that a leader appends gets one
    admit       whether a follower may take this entry with this hash: its seal, its statement (true: all)
    opening     opening(term) -> the payload of the entry that opens a leader's term; None if this node cannot open it
    admit_snapshot  whether a follower may take this snapshot in place of its log (true: any whole one)
    """

    draw: Callable[[int], int]
    members_of: Callable[[bytes], Change | None] = lambda _payload: None
    seal: Callable[[bytes], bytes] = lambda _hash: b""
    admit: Callable[[Entry, bytes], bool] = lambda _entry, _hash: True
    opening: Callable[[int], bytes | None] = lambda _term: b""
    admit_snapshot: Callable[[Snapshot], bool] = lambda _snapshot: True


class Incoming:
    """A snapshot on its way in: as much of it as has come."""

    __slots__ = ("data", "digest", "index")

    def __init__(self, index: int, digest: bytes) -> None:
        self.index = index
        self.digest = digest
        self.data = bytearray()


class State:
    """The fields of one core.  Only the modules named above write them."""

    __slots__ = (
        "added", "barred", "beat", "counters", "elapsed", "evidence", "flush", "generation", "handed_hard",
        "heartbeat_elapsed", "hooks", "incoming", "installed", "introduced", "leader", "log", "me", "options",
        "outbox", "progress", "promoted", "quiet", "read_states", "reads", "removals", "role", "roster", "seen",
        "seen_pairs", "snapshot", "snapshot_head", "term", "timeout", "transferee", "uncommitted",
        "vote", "vote_life", "vote_lives", "votes",
    )  # fmt: skip

    def __init__(self, me: PeerId, options: Options, hooks: Hooks, log: Log, roster: Roster) -> None:
        self.me = me
        self.options = options
        self.hooks = hooks
        self.log = log
        self.roster = roster
        self.introduced: set[PeerId] = set()
        # what must not be forgotten
        self.term = 0
        self.vote: PeerId = NOBODY
        self.barred = 0
        self.generation = 0
        self.seen: dict[PeerId, int] = {}
        self.seen_pairs: tuple[tuple[PeerId, int], ...] = ()
        self.handed_hard = HardState()
        # what may
        self.role = Role.FOLLOWER
        self.leader: PeerId = NOBODY
        self.votes: dict[PeerId, bool] = {}
        self.vote_lives: dict[PeerId, int] = {}  # generation of each voter when it answered
        self.elapsed = 0  # ticks since the leader was heard, or since the leader last checked its quorum
        self.heartbeat_elapsed = 0
        self.timeout = 0
        self.vote_life = 0  # generation of the candidate that has the vote, if it was given in this life
        self.quiet = 0  # ticks for which a new life gives no vote
        self.removals: list[tuple[int, PeerId]] = []  # (index, who) of removals that are not decided
        self.promoted = 0  # index of the newest entry that promotes this node
        self.added = 0  # index of the newest entry that adds this node
        # a leader's
        self.progress: dict[PeerId, Progress] = {}
        self.uncommitted = 0  # payload bytes
        self.beat = 0
        self.reads: deque[tuple[int, bytes, int]] = deque()  # (beat that confirms it, context, index)
        self.transferee: PeerId = NOBODY
        self.flush = False  # something new to send
        # snapshots
        self.snapshot: Snapshot | None = None
        self.snapshot_head: SnapshotHead | None = None
        self.incoming: Incoming | None = None
        self.installed: Snapshot | None = None
        # going out
        self.outbox: list[AnyMessage] = []
        self.read_states: list[ReadState] = []
        self.counters: Counter[str] = Counter()
        self.evidence: list[tuple[Entry, tuple[Entry, ...]]] = []

    def send(self, kind: type[Any], to: PeerId, *fields: Any) -> None:
        """Queue a message of this kind in the present term; `fields` are those that the kind adds."""
        self.send_in(self.term, kind, to, *fields)

    def send_in(self, term: int, kind: type[Any], to: PeerId, *fields: Any) -> None:
        self.outbox.append(kind(to, self.me, term, self.generation, *fields, addressed=self.seen.get(to, 0)))

    def refuse(self, reason: str) -> None:
        """Count one refusal."""
        self.counters[reason] += 1

    def accuse(self, mine: Entry, theirs: tuple[Entry, ...]) -> None:
        """Keep an entry and what stands in its place elsewhere, with what follows: somebody made both, or lies."""
        if len(self.evidence) < EVIDENCE_MAX:
            self.evidence.append((mine, theirs))

    def peers(self) -> list[PeerId]:
        """The other members, voters first, each kind in order."""
        current = self.roster.current
        return [p for p in (*current.voters, *current.learners) if p != self.me]

    def hard_state(self) -> HardState:
        counter = self.generation >> 32
        return HardState(self.term, self.vote, self.log.committed, counter, self.barred, self.seen_pairs)

    def enter_term(self, term: int) -> None:
        """A newer term: the vote in it is not given yet."""
        if term != self.term:
            self.term = term
            self.vote = NOBODY
            self.vote_life = 0

    def become_follower(self, term: int, leader: PeerId) -> None:
        self.enter_term(term)
        self.role = Role.FOLLOWER
        self.leader = leader
        self.reset_clock()
        self.votes = {}
        self.vote_lives = {}
        self.progress = {}
        self.reads.clear()
        self.transferee = NOBODY
        self.uncommitted = 0
        self.flush = False

    def reset_clock(self) -> None:
        self.elapsed = 0
        self.timeout = self.options.election_ticks + self.hooks.draw(self.options.election_ticks)
