"""How a follower takes the leader's log: what fits is stored, what contradicts is cut, what cannot be is refused.

Sources: Raft figure 2 (AppendEntries, receiver), 5.3.  The hash of the entry before, in every append, makes the
consistency check one of the whole chain, and shows a fork that index and term alone would hide.
"""

from __future__ import annotations

from shoal.ledger import membership
from shoal.ledger.core import State
from shoal.ledger.entry import Entry
from shoal.ledger.log import Log, chain_fault
from shoal.ledger.members import PeerId
from shoal.ledger.message import Append, Appended, Heartbeat, HeartbeatReply


def heard_leader(state: State, leader: PeerId) -> None:
    state.leader = leader
    state.elapsed = 0


def on_append(state: State, m: Append) -> None:
    """Check, cut what contradicts, add what is new, and say how far the two logs are the same."""
    heard_leader(state, m.sender)
    log = state.log
    if m.prev_index < log.floor:  # decided long ago
        answer(state, m.sender, log.committed)
        return
    fault = previous_fault(log, m)
    if fault == "no-match":
        reject(state, m)
        return
    fault = fault or take(state, m)
    if fault:
        state.refuse(fault)
        return
    last_new = m.prev_index + len(m.entries)
    log.commit_to(safe_commit(m, last_new))
    answer(state, m.sender, last_new)


def safe_commit(m: Append, last_new: int) -> int:
    """Only what this very message showed to be the leader's may be taken as decided (Raft, figure 2)."""
    return min(m.commit, last_new)


def previous_fault(log: Log, m: Append) -> str:
    """ "" if the entry before the new ones is ours too; "no-match" if we lack it; "forked-chain" if index and term are
    the same and the hash is not, which no two honest nodes can bring about."""
    if log.term(m.prev_index) != m.prev_term:
        return "no-match"
    return "" if log.hash(m.prev_index) == m.prev_hash else "forked-chain"


def reject(state: State, m: Append) -> None:
    """With the last place that could still be common: terms rise along both logs."""
    hint = state.log.last_with_term_at_most(m.prev_index, m.prev_term)
    term = max(0, state.log.term(hint))
    state.send(Appended, m.sender, True, m.prev_index, hint, term)


def answer(state: State, leader: PeerId, index: int) -> None:
    state.send(Appended, leader, False, index, 0, 0)


def first_new(state: State, m: Append) -> tuple[int, str]:
    """How many of the entries we hold already, up to the first that we lack or that contradicts ours."""
    log = state.log
    for n, entry in enumerate(m.entries):
        mine = log.entry(entry.index)
        if mine is None or mine.term != entry.term:
            return n, ""
        if mine.payload != entry.payload or mine.prev != entry.prev:
            state.accuse(mine, m.entries[n:])
            return n, "forked-chain"
    return len(m.entries), ""


def take(state: State, m: Append) -> str:
    """Store the entries of a matching append; "" or why none of them was stored."""
    if not m.entries:
        return ""
    log = state.log
    skip, fault = first_new(state, m)
    new = m.entries[skip:]
    if fault or not new:
        return fault
    start = new[0].index
    if start <= log.committed:
        mine = log.entry(start)
        if mine is not None:
            state.accuse(mine, new)
        return "contradicts-committed"
    hashes, fault = chain_fault(new, log.hash(start - 1))
    if fault:
        return fault
    if not has_room(state, new):
        return "log-full"
    if not all(map(state.hooks.admit, new, hashes)):
        return "not-admitted"
    cut_conflict(state, start)
    for entry, digest in zip(new, hashes, strict=True):
        log.append(entry, digest)
        membership.note(state, entry)
    return ""


def has_room(state: State, new: tuple[Entry, ...]) -> bool:
    """The part of the log in memory is bounded."""
    log, options = state.log, state.options
    if len(log.entries) + len(new) > options.log_entries:
        return False
    return log.size + sum(len(e.payload) for e in new) <= options.log_bytes


def cut_conflict(state: State, start: int) -> None:
    """Remove our entries from the first one that contradicts the leader's."""
    if start <= state.log.last:
        state.log.cut(start)
        membership.cut(state, start)


def on_heartbeat(state: State, m: Heartbeat) -> None:
    heard_leader(state, m.sender)
    log = state.log
    if m.commit > log.last:
        state.refuse("commit-beyond-log")  # we acknowledged it and lost it, or the leader is wrong; the answer tells
    elif m.commit >= log.floor and m.commit and log.hash(m.commit) != m.commit_hash:
        state.refuse("forked-chain")
        return
    else:
        log.commit_to(m.commit)
    state.send(HeartbeatReply, m.sender, m.beat, log.last)
