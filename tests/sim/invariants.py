"""What must hold after every step of a history, whatever the faults.  Each check costs a few dictionary look-ups.

The chain makes them cheap: equal hashes at one index mean equal logs up to there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.ledger import quorum
from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.members import NOBODY
from shoal.ledger.message import FROM_LEADER, AskVote, GiveVote, TimeoutNow
from shoal.ledger.raft import Role

if TYPE_CHECKING:
    from cluster import Node

    from shoal.ledger.message import AnyMessage

#: the true arithmetic, which a mutation of the core's own does not reach
MAJORITY = quorum.majority
FOREVER = 10**9


class Violation(AssertionError):
    """An invariant is broken: `name` says which."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Invariants:
    """Everything that the whole cluster has ever said, as far as it can contradict itself."""

    def __init__(self, genesis: Entry, check_quorum: bool, pre_vote: bool, election_ticks: int) -> None:
        self.leaders: dict[int, bytes] = {}
        self.places: dict[tuple[int, int], tuple[Entry, bytes]] = {}
        digest = entry_hash(genesis)
        self.places[1, genesis.term] = (genesis, digest)
        self.decided = [GENESIS_PREV, digest]
        self.decided_in = [0, 0]  # term of the leader that decided it
        self.reads: dict[bytes, int] = {}
        self.disks_last = True  # false where disks are put back: what was acknowledged may be gone from one of them
        self.check_quorum = check_quorum
        self.pre_vote = pre_vote
        self.election_ticks = election_ticks

    # --- entries ------------------------------------------------------------------------------------------------------

    def stored(self, node: Node, entries: list[Entry]) -> None:
        """Chain valid, log matching: one place (index, term) holds one entry, and one chain before it."""
        log = node.raft.log
        places = self.places
        for e in entries:
            digest = log.hash(e.index)
            if log.hash(e.index - 1) != e.prev:
                raise Violation("chain", f"{node.name}: entry {e.index} does not name the one before")
            known = places.get((e.index, e.term))
            if known is None:
                if entry_hash(e) != digest:
                    raise Violation("chain", f"{node.name}: entry {e.index} is kept under a wrong hash")
                places[e.index, e.term] = (e, digest)
            elif known[1] != digest or known[0].payload != e.payload:
                raise Violation("log matching", f"{node.name}: two entries at index {e.index}, term {e.term}")

    def cut(self, node: Node, index: int) -> None:
        if index <= node.applied:
            raise Violation("decided lost", f"{node.name} cuts at {index}, it applied {node.applied}")

    def applied(self, node: Node, entries: list[Entry]) -> None:
        """State machine safety: every node applies the one decided sequence, without a gap."""
        for e in entries:
            if e.index != node.applied + 1:
                raise Violation("state machine", f"{node.name} applies {e.index} after {node.applied}")
            known = self.places[e.index, e.term]
            if e.index >= len(self.decided) or self.decided[e.index] != known[1]:
                raise Violation("state machine", f"{node.name} applies another entry at {e.index} than was decided")
            node.applied = e.index

    def installed(self, node: Node, index: int, digest: bytes, data: bytes) -> None:
        if index >= len(self.decided) or self.decided[index] != digest or not data.startswith(digest):
            raise Violation("state machine", f"{node.name} installs a snapshot of {index} that was not decided")
        if index < node.applied:
            raise Violation("decided lost", f"{node.name} goes back from {node.applied} to a snapshot of {index}")
        node.applied = index

    # --- roles and decisions ------------------------------------------------------------------------------------------

    def observe(self, node: Node, nodes: dict[bytes, Node]) -> None:
        """Call after anything happened at a node."""
        raft = node.raft
        state = raft.state
        log = state.log
        if log.committed != node.committed:
            self.decision(node, nodes)
            node.committed = log.committed
            roster = state.roster
            if state.role == Role.LEADER and node.id not in roster.current and roster.last_change <= log.committed:
                raise Violation("removed leads", f"{node.name} leads although its removal is decided")
        if state.role != node.role or state.term != node.term:
            if state.role == Role.LEADER:
                self.leadership(node)
            if state.role == Role.CANDIDATE and self.pre_vote and not node.told:
                self.candidacy(node)
            node.role, node.term = state.role, state.term
            node.since_quorum = 0
            node.answered.clear()
            node.grants.clear()
            node.told = False
        if state.leader == NOBODY:
            node.since_leader = FOREVER

    def leadership(self, node: Node) -> None:
        """Election safety, leader completeness."""
        raft = node.raft
        other = self.leaders.setdefault(raft.term, node.id)
        if other != node.id:
            raise Violation("election safety", f"{node.name} and {other.decode()} both lead term {raft.term}")
        at = len(self.decided) - 1
        while self.decided_in[at] >= raft.term:
            at -= 1
        log = raft.log
        at = max(at, log.floor)
        if at >= len(self.decided) or log.hash(at) != self.decided[at]:
            raise Violation("leader completeness", f"{node.name} leads term {raft.term} and lacks entry {at}")

    def decision(self, node: Node, nodes: dict[bytes, Node]) -> None:
        """No decided entry is lost or altered, and a new one is on the disks of a majority."""
        log = node.raft.log
        c = log.committed
        if c < node.committed:
            raise Violation("decided lost", f"{node.name}: commit index falls from {node.committed} to {c}")
        known = len(self.decided) - 1
        if log.hash(min(c, known)) != self.decided[min(c, known)] and log.floor <= known:
            raise Violation("decided altered", f"{node.name} decides another entry at {min(c, known)}")
        if c <= known:
            return
        term = log.term(c)
        voters = node.raft.configuration.voters
        safe = sum(1 for v in voters if v in nodes and (nodes[v].disk.term(c) == term or nodes[v].disk.floor >= c))
        if safe < MAJORITY(len(voters)) and self.disks_last:
            raise Violation("decided on a majority", f"{node.name} decides {c}, on {safe} of {len(voters)} disks")
        for index in range(known + 1, c + 1):
            self.decided.append(log.hash(index))
            self.decided_in.append(node.raft.term)

    def candidacy(self, node: Node) -> None:
        """Pre-vote: nobody raises its term unless a majority would vote for it."""
        voters = node.raft.configuration.voters
        if len(node.grants.intersection(voters) | {node.id}) < MAJORITY(len(voters)):
            raise Violation("pre-vote", f"{node.name} campaigns in term {node.raft.term} and nobody said it would win")

    # --- what protects a leader, and what bounds one ------------------------------------------------------------------

    def before_step(self, node: Node, m: AnyMessage) -> int:
        kind = type(m)
        if kind is TimeoutNow:
            node.told = True
        elif kind is GiveVote and m.pre and m.granted:
            node.grants.add(m.sender)
        return node.raft.term

    def after_step(self, node: Node, m: AnyMessage, term: int) -> None:
        """Lease: while a leader is heard no vote request changes anything.  Keeps count of who is heard."""
        state = node.raft.state
        kind = type(m)
        if kind is AskVote:
            if self.check_quorum and state.term != term and not m.transfer and node.since_leader < self.election_ticks:
                raise Violation("disrupted", f"{node.name} hears a leader and follows a candidate to term {state.term}")
        elif kind in FROM_LEADER:
            if m.term == state.term and m.sender == state.leader and state.elapsed == 0:
                node.since_leader = 0
        elif state.role == Role.LEADER and m.term == state.term:
            node.answered.add(m.sender)
            voters = state.roster.current.voters
            if len(node.answered.intersection(voters) | {node.id}.intersection(voters)) >= MAJORITY(len(voters)):
                node.since_quorum = 0
                node.answered.clear()

    def ticked(self, node: Node) -> None:
        """A leader that no majority answers stops in time: one window heard, one not, and one of grace for a newcomer."""
        node.since_leader += 1
        if node.role != Role.LEADER or not self.check_quorum or node.raft.configuration.voters == (node.id,):
            return
        node.since_quorum += 1
        if node.since_quorum > 3 * self.election_ticks + 1:
            raise Violation("zombie leader", f"{node.name} leads term {node.term} and was not answered for long")

    # --- reads --------------------------------------------------------------------------------------------------------

    def read_asked(self, context: bytes) -> None:
        self.reads[context] = len(self.decided) - 1

    def read_answered(self, node: Node, context: bytes, index: int) -> None:
        if index < self.reads[context]:
            raise Violation("stale read", f"{node.name} reads at {index}, {self.reads[context]} was decided before")
