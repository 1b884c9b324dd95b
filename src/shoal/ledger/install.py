"""Compaction, and snapshots for peers that lack what was let go of.

A snapshot travels in chunks of bounded size, one at a time.  The receiver says up to which byte it has it, so a lost
chunk, a duplicate or a broken connection costs one chunk; another snapshot (a later index, a new leader's) starts anew.
It is installed only when it is whole, its SHA-256 is right, and it does not contradict what is known to be committed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shoal.ledger import following, membership
from shoal.ledger.core import Incoming, State
from shoal.ledger.members import PeerId
from shoal.ledger.message import SnapshotChunk, SnapshotHead, SnapshotReply
from shoal.ledger.ready import head_of, pack_state, unpack_state
from shoal.ledger.store import Snapshot
from shoal.limits import SNAPSHOT_BYTES_MAX

if TYPE_CHECKING:
    from shoal.ledger.progress import Progress

# --- own log ----------------------------------------------------------------------------------------------------------


def compact_fault(state: State, index: int, data: bytes) -> str:
    """Why the log cannot be compacted up to `index`: only what is decided and applied can be."""
    if index > state.log.applied:
        return "not-applied"
    if index <= state.log.floor:
        return "already-compacted"
    return "snapshot-too-large" if len(data) > SNAPSHOT_BYTES_MAX // 2 else ""


def compact(state: State, index: int, data: bytes) -> Snapshot:
    """Let the entries up to `index` go; `data` is the application's state after it."""
    log = state.log
    configuration = state.roster.at(index)
    log.compact(index)
    state.roster.raise_floor(index)
    hold(state, Snapshot(index, log.floor_term, log.floor_hash, pack_state(configuration, data)))
    assert state.snapshot is not None
    return state.snapshot


def hold(state: State, snapshot: Snapshot) -> None:
    """Keep the snapshot that peers will be sent."""
    state.snapshot = snapshot
    state.snapshot_head = head_of(snapshot)


# --- leader -----------------------------------------------------------------------------------------------------------


def start(state: State, peer: PeerId, progress: Progress) -> None:
    progress.install()
    send_chunk(state, peer, progress)


def send_chunk(state: State, peer: PeerId, progress: Progress) -> None:
    """The chunk from where the peer is; one is on its way at a time."""
    if state.snapshot is None or state.snapshot_head is None or progress.waiting:
        return
    if progress.installs != state.snapshot.index:  # compacted again meanwhile: the newer one, from its start
        progress.installs, progress.offset = state.snapshot.index, 0
    data = state.snapshot.state[progress.offset : progress.offset + state.options.chunk_bytes]
    progress.waiting = True
    progress.sent_at = state.beat
    state.send(SnapshotChunk, peer, state.snapshot_head, progress.offset, data)


def on_snapshot_reply(state: State, m: SnapshotReply) -> None:
    progress = state.progress.get(m.sender)
    head = state.snapshot_head
    if progress is None or head is None:
        state.refuse("not-a-member" if progress is None else "answers-no-snapshot")
        return
    progress.active = True
    if not progress.installing:
        return
    progress.offset = min(m.offset, head.size) if m.index == head.index else 0
    progress.waiting = False
    send_chunk(state, m.sender, progress)


# --- receiver ---------------------------------------------------------------------------------------------------------


def on_snapshot_chunk(state: State, m: SnapshotChunk) -> None:
    """Add one chunk; when the last is in, install."""
    following.heard_leader(state, m.sender)
    head = m.head
    if head.index <= state.log.committed:
        state.incoming = None
        following.answer(state, m.sender, state.log.committed)
        return
    incoming = state.incoming
    if incoming is None or incoming.index != head.index or incoming.digest != head.digest:
        incoming = state.incoming = Incoming(head.index, head.digest)
    if m.offset == len(incoming.data):
        incoming.data += m.data
    if len(incoming.data) < head.size:
        offset = len(incoming.data)
        state.send(SnapshotReply, m.sender, head.index, offset)
        return
    state.incoming = None
    fault = install(state, head, bytes(incoming.data))
    if fault:
        state.refuse(fault)
        state.send(SnapshotReply, m.sender, head.index, 0)
    else:
        following.answer(state, m.sender, state.log.committed)


def install(state: State, head: SnapshotHead, data: bytes) -> str:
    """Take a whole snapshot; "" or why not.  A log that holds its last entry stays, and is committed to there."""
    if len(data) != head.size or hashlib.sha256(data).digest() != head.digest:
        return "bad-snapshot-digest"
    content = unpack_state(data)
    if content is None:
        return "bad-snapshot-state"
    log = state.log
    if log.holds(head.index, head.term, head.hash):
        log.commit_to(head.index)
        return ""
    if log.term(head.index) == head.term:
        return "forked-chain"
    snapshot = Snapshot(head.index, head.term, head.hash, data)
    if not state.hooks.admit_snapshot(snapshot):
        return "snapshot-not-admitted"
    membership.jump(state, content.configuration, head.index)
    log.reset(head.index, head.term, head.hash)
    hold(state, snapshot)
    state.installed = snapshot
    return ""
