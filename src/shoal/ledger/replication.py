"""How the leader's log becomes everybody's, and when an entry is decided.

Sources: Raft 5.3 (append, consistency check, fast back-up of the next index), 5.4.2 and figure 8 (a leader commits only
entries of its own term), 5.5; etcd-io/raft (probe, replicate, a window of appends in flight).
"""

from __future__ import annotations

from shoal.ledger import election, install, life, membership, quorum, reading
from shoal.ledger.core import Role, State
from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash
from shoal.ledger.members import PeerId
from shoal.ledger.message import Append, Appended, Heartbeat, HeartbeatReply
from shoal.ledger.progress import INSTALL, PROBE, REPLICATE, Progress

# --- leader: sending --------------------------------------------------------------------------------------------------


def append_own(state: State, payload: bytes) -> Entry:
    """Add one entry of the own term; it is sealed and sent with the next Ready."""
    log = state.log
    entry = Entry(log.last + 1, state.term, log.last_hash, payload, b"")
    log.append(entry, entry_hash(entry))
    membership.note(state, entry)
    state.uncommitted += len(payload)
    state.flush = True
    return entry


def send_news(state: State) -> None:
    """To every peer what it lacks: entries, or the news that more of them are decided."""
    state.flush = False
    for peer, progress in state.progress.items():
        while send_append(state, peer, progress):
            pass
        if progress.commit_sent < state.log.committed and progress.state == REPLICATE and not progress.paused:
            send_append(state, peer, progress, even_empty=True)


def send_append(state: State, peer: PeerId, progress: Progress, even_empty: bool = False) -> bool:
    """One append, or one chunk of the snapshot where the log no longer reaches back; True if more may follow."""
    if progress.paused:
        return False
    log, options = state.log, state.options
    start = progress.next
    if start <= log.floor:
        install.start(state, peer, progress)
        return False
    entries = log.span(start, options.append_entries, options.append_bytes)
    if not entries and not even_empty and progress.state != PROBE:
        return False
    before = start - 1
    state.send(Append, peer, before, log.term(before), log.hash(before), entries, log.committed)
    progress.commit_sent = log.committed
    if progress.state == PROBE:
        progress.waiting = True
        progress.sent_at = state.beat
        return False
    if entries:
        progress.next = entries[-1].index + 1
        progress.in_flight.append(entries[-1].index)
    return bool(entries)


def beat(state: State) -> None:
    """One round of heartbeats: I lead, this much is decided, and who answers confirms it."""
    state.beat += 1
    log = state.log
    for peer, progress in state.progress.items():
        commit = min(progress.match, log.committed)
        if commit < log.floor:  # its hash is gone, and the peer needs the snapshot anyway
            commit = 0
        known = log.hash(commit) or GENESIS_PREV
        state.send(Heartbeat, peer, commit, known, state.beat)


# --- leader: answers --------------------------------------------------------------------------------------------------


def on_appended(state: State, m: Appended) -> None:
    progress = state.progress.get(m.sender)
    if progress is None:
        state.refuse("not-a-member")
        return
    progress.active = True
    if m.rejected:
        on_rejected(state, m, progress)
    elif m.index > state.log.last:
        state.refuse("acknowledges-beyond-log")
    else:
        on_accepted(state, m, progress)


def on_rejected(state: State, m: Appended, progress: Progress) -> None:
    """Back up: to the last place where the follower's hint says that the two logs can still be equal."""
    log = state.log
    if forgot_entries(progress, m.generation, m.hint_index):
        state.refuse("forgot-entries")
        life.accuse(state, m)
        progress.match = m.hint_index
    next_index = log.last_with_term_at_most(m.hint_index, m.hint_term) + 1
    if progress.rejected(m.index, next_index):
        send_append(state, m.sender, progress, even_empty=True)


def forgot_entries(progress: Progress, generation: int, last_index: int) -> bool:
    """Whether a later life of the peer holds less than an earlier one acknowledged to us in this term."""
    return progress.generation < generation and last_index < progress.match


def on_accepted(state: State, m: Appended, progress: Progress) -> None:
    progress.generation = m.generation
    if progress.state == INSTALL and m.index >= state.log.floor:
        progress.probe(m.index + 1)
    progress.accepted(m.index)
    moved = advance_commit(state)
    if state.role != Role.LEADER:
        return
    if not moved:  # otherwise the next Ready sends to all
        while send_append(state, m.sender, progress):
            pass
    if state.transferee == m.sender and progress.match == state.log.last:
        election.tell_to_campaign(state)


def on_heartbeat_reply(state: State, m: HeartbeatReply) -> None:
    progress = state.progress.get(m.sender)
    if progress is None:
        state.refuse("not-a-member")
        return
    progress.active = True
    if m.beat > state.beat:
        state.refuse("answers-no-heartbeat")
        return
    progress.beat = max(progress.beat, m.beat)
    if forgot_entries(progress, m.generation, m.last_index):
        state.refuse("forgot-entries")
        life.accuse(state, m)
        progress.match = m.last_index
        progress.generation = m.generation
        progress.probe(m.last_index + 1)
    if m.beat > progress.sent_at:  # what was sent before that heartbeat should have been answered before it
        progress.waiting = False
    if progress.state == INSTALL:
        install.send_chunk(state, m.sender, progress)
    elif progress.match < state.log.last or progress.state == PROBE:
        if progress.paused and progress.in_flight:
            progress.in_flight.popleft()  # its answer may be lost: let one append through to find out
        send_append(state, m.sender, progress, even_empty=True)
    reading.release(state)


# --- deciding ---------------------------------------------------------------------------------------------------------


def decidable(state: State) -> int:
    """The highest index that a majority of the voters has on disk.  A leader that is no voter does not count itself."""
    progress = state.progress
    values = []
    for peer in state.roster.current.voters:
        if peer == state.me:
            values.append(state.log.stable)
        else:
            values.append(progress[peer].match if peer in progress else 0)
    return quorum.reached_by_majority(values)


def is_own_term(state: State, index: int) -> bool:
    """Only an entry of the leader's own term is decided by counting; older ones follow with it (Raft, figure 8)."""
    return state.log.term(index) == state.term


def advance_commit(state: State) -> bool:
    """Raise the commit index as far as the acknowledgements allow; True if it moved."""
    log = state.log
    index = decidable(state)
    if index <= log.committed or not is_own_term(state, index):
        return False
    before = log.committed
    log.commit_to(index)
    decided = log.entries[before - log.floor : log.committed - log.floor]
    state.uncommitted = max(0, state.uncommitted - sum(len(e.payload) for e in decided))
    state.flush = True
    membership.after_commit(state)
    if state.role == Role.LEADER:
        reading.release(state)
    return True
