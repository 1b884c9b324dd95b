"""What a node keeps across a crash: the contract of every store.

A consensus core says, in one step (its *Ready*): these entries, this hard state, this snapshot.  ``persist`` makes all
of it durable, or nothing, before it returns; only then may messages be sent.  ``SqliteStore`` is the real one;
tests/ledger/store_conformance.py states what every store must do.

A store never looks into payloads or signatures.  It keeps the chain: entry n+1 must name the hash of entry n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from shoal.ledger.entry import Entry


class HardState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node must never forget.

    term        int    latest term it has seen
    vote        bytes  id of the candidate that got its vote in ``term``, or b""
    commit      int    highest index that it knows to be committed; never falls
    generation  int    how often this store was opened; a copy from an old backup has a lower one than peers have seen
    barred      int    0, or: peers said that this store is such a copy; no vote until promoted at an index above this
    seen        pairs  (peer, the newest generation heard of it), sorted by peer (life.py)
    """

    term: int = 0
    vote: bytes = b""
    commit: int = 0
    generation: int = 0
    barred: int = 0
    seen: tuple[tuple[bytes, int], ...] = ()


class Snapshot(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All that entries 1..index amount to.

    index, term  int    of the last entry that it covers
    hash         bytes  entry hash of that entry
    state        bytes  opaque here (the encoded ledger state and configuration)
    """

    index: int
    term: int
    hash: bytes
    state: bytes


class Ready(Protocol):
    """The part of a consensus core's output that must be durable before anything is sent."""

    @property
    def hard_state(self) -> HardState | None: ...
    @property
    def truncate_from(self) -> int | None: ...
    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def snapshot(self) -> Snapshot | None: ...


class Store(Protocol):
    """A durable log.  Every call that changes something is durable when it returns, or raises MachineError.

    After a MachineError the store refuses everything until it is opened again: what a disk did with a failed write is
    not known, and asking it again does not tell.
    """

    def load(self) -> tuple[HardState, list[Entry], Snapshot | None]:
        """Hard state, the entries above the compacted index in order, and the latest snapshot."""

    def append(self, entries: Sequence[Entry], truncate_from: int | None = None) -> None:
        """Add entries.  ``truncate_from``: first forget that index and all above.

        The first entry follows the last one held, or replaces one (then it and all above are forgotten first).

        raises  ArgumentError  ``store.gap``, ``store.chain``: the entries do not follow;
                               ``store.committed``: an entry at or below the commit index would be lost
        """

    def save_hard_state(self, hard_state: HardState) -> None:
        """Keep term, vote and commit.  The generation is the store's own; what the caller passes there is not read.

        raises  ArgumentError  ``store.hard-state``: term or commit falls, a vote changes within its term, or commit is
                               above the last entry
        """

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of the own log, or a peer's of another one.

        Where the own log holds the entry that the snapshot ends with, the log stays as it is.  Otherwise the own
        entries are forgotten, the commit index rises to the snapshot's, and the log goes on above it.

        raises  ArgumentError  ``store.snapshot``: older than the one held, or it contradicts a committed entry
        """

    def compact(self, up_to_index: int) -> None:
        """``load`` no longer gives entries up to this index; ``history`` may.

        raises  ArgumentError  ``store.compact``: the snapshot does not cover them
        """

    def sync(self) -> None:
        """All that was asked for is durable (a second time: every call above is durable already)."""

    def persist(self, ready: Ready) -> None:
        """Snapshot, cut, entries, hard state, as one durable step: after a crash all of it is there, or none."""

    def history(self, first: int, last: int) -> Iterator[Entry]:
        """Entries first..last that are still held, archived ones too, in order, in bounded memory."""

    def close(self) -> None: ...
