"""Reads that see all that was decided before they were asked for, without writing an entry (dissertation 6.4).

A read takes the commit index of the moment; the leader answers it when a majority has confirmed, by answering a
heartbeat sent later, that it still leads.  A new leader takes none before an entry of its own term is decided, because
until then its commit index may lag behind what the last leader decided.
"""

from __future__ import annotations

from shoal.ledger import membership, quorum, replication
from shoal.ledger.core import Role, State
from shoal.ledger.ready import ReadState
from shoal.limits import READS_PENDING_MAX


def ask(state: State, context: bytes) -> str:
    """Start a read; its ReadState comes with a later Ready.  "" or why not."""
    if state.role != Role.LEADER:
        return "not-leader"
    if not knows_decided(state):
        return "read-before-own-commit"
    if len(state.reads) >= READS_PENDING_MAX:
        return "reads-full"
    replication.beat(state)
    state.heartbeat_elapsed = 0
    state.reads.append((state.beat, context, state.log.committed))
    release(state)
    return ""


def knows_decided(state: State) -> bool:
    """Whether the commit index is at least what any leader before has decided."""
    return membership.has_committed_in_term(state)


def confirmed(state: State) -> int:
    """The newest round of heartbeats that a majority of the voters answered."""
    progress = state.progress
    values = []
    for peer in state.roster.current.voters:
        if peer == state.me:
            values.append(state.beat)
        else:
            values.append(progress[peer].beat if peer in progress else 0)
    return quorum.reached_by_majority(values)


def release(state: State) -> None:
    """Hand out the reads whose round is confirmed."""
    if not state.reads:
        return
    beat = confirmed(state)
    while state.reads and state.reads[0][0] <= beat:
        _, context, index = state.reads.popleft()
        state.read_states.append(ReadState(context, index))
