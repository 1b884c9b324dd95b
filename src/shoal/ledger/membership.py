"""Changes of membership: one peer at a time, learners first, and what a change means to a leader.

A change is an ordinary entry.  It is in force from the moment it is appended (dissertation 4.1).  The leader takes one
only when the one before is decided and an entry of its own term is (the fault of 2015 in the single-server algorithm:
https://groups.google.com/g/raft-dev/c/t4xj6dJTP6E), and promotes a learner only when it has caught up.
"""

from __future__ import annotations

from shoal.ledger import life, replication
from shoal.ledger.core import Role, State
from shoal.ledger.entry import Entry
from shoal.ledger.members import NOBODY, Change, Configuration, Roster
from shoal.ledger.progress import REPLICATE, Progress

# --- what a leader may propose ----------------------------------------------------------------------------------------


def change_fault(state: State, change: Change) -> str:
    """Why this change cannot be proposed now; "" if it can."""
    if is_pending(state):
        return "change-pending"
    if not has_committed_in_term(state):
        return "change-before-own-commit"
    fault = state.roster.current.fault(change)
    if fault:
        return fault
    if change.kind == "promote" and not has_caught_up(state, change):
        return "learner-behind"
    return ""


def is_pending(state: State) -> bool:
    """The newest change is not decided yet."""
    return state.roster.last_change > state.log.committed


def has_committed_in_term(state: State) -> bool:
    return state.log.term(state.log.committed) == state.term


def has_caught_up(state: State, change: Change) -> bool:
    progress = state.progress.get(change.peers[0])
    if progress is None or progress.state != REPLICATE:
        return False
    return state.log.last - progress.match <= state.options.behind_max


# --- what an entry does -----------------------------------------------------------------------------------------------


def note(state: State, entry: Entry) -> None:
    """An entry was appended: if it changes the membership, it does so from here on."""
    change = state.hooks.members_of(entry.payload)
    if change is None:
        return
    state.roster.push(entry.index, change)
    if change.peers == (state.me,):
        if change.kind == "promote":
            state.promoted = entry.index
        elif change.kind == "add":
            state.added = entry.index
    if change.kind == "remove":
        state.removals += [(entry.index, peer) for peer in change.peers]
    if state.role == Role.LEADER:
        follow_members(state)


def cut(state: State, index: int) -> None:
    """The entries from `index` on were removed, and what they did with them."""
    state.roster.cut(index)
    if state.promoted >= index:
        state.promoted = 0
    if state.added >= index:
        state.added = 0
    state.removals = [removal for removal in state.removals if removal[0] < index]


def jump(state: State, configuration: Configuration, index: int) -> None:
    """A snapshot of `index` takes the place of the log.  That this node was promoted meanwhile shows in its being a
    voter there and not here; when exactly is not known, only that it was after the end of its log."""
    was_promoted = state.me in configuration.voters and state.me not in state.roster.current.voters
    state.promoted = index if was_promoted and state.log.last >= state.barred else 0
    state.added = index if state.me in configuration and state.me not in state.roster.current else 0
    state.removals.clear()
    life.forget_all(state)
    state.roster = Roster(configuration, index)


def follow_members(state: State) -> None:
    """A leader sends to whoever is a member now, and to nobody else."""
    peers = state.peers()
    for peer in peers:
        if peer not in state.progress:
            state.progress[peer] = Progress(state.log.last, state.options.in_flight)
            state.progress[peer].active = True
    for peer in [p for p in state.progress if p not in peers]:
        del state.progress[peer]
        if state.transferee == peer:
            state.transferee = NOBODY


def after_commit(state: State) -> None:
    """A leader's commit index moved: if that decided its own removal, its work is done (dissertation 4.2.2)."""
    if state.role == Role.LEADER and not is_pending(state) and state.me not in state.roster.current.voters:
        replication.send_news(state)  # the others learn that it is decided
        state.become_follower(state.term, NOBODY)


def settle(state: State) -> None:
    """What a decided change means to lives: a barred node that was promoted anew may vote again, and nobody holds the
    former lives of a removed peer against it when it is let in anew."""
    while state.removals and state.removals[0][0] <= state.log.committed:
        life.forget(state, state.removals.pop(0)[1])
    if state.barred and state.log.committed >= state.promoted:
        life.readmit(state, state.promoted)
