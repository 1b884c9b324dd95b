"""The rules that every store keeps, once: what may follow what, and what may be forgotten.

``LogStore`` checks a change against the log's ``Extent`` and hands a ``Step`` to its subclass, which only writes it
whole or not at all, and reads entries back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from shoal.errors import ArgumentError
from shoal.ledger.digest import DIGEST_BYTES
from shoal.ledger.entry import GENESIS_PREV, Entry, check_shape, entry_hash
from shoal.ledger.store import HardState, Ready, Snapshot


class Step(msgspec.Struct, frozen=True):
    """One checked change, to be written whole or not at all, in the order of the fields.

    keep_to    int | None  forget all entries above this index (0: all of them)
    restart    bool        forget all entries and archives: the log goes on above ``snapshot``
    """

    keep_to: int | None = None
    restart: bool = False
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] = ()
    compacted: int | None = None
    hard_state: HardState | None = None


class Extent(msgspec.Struct, frozen=True):
    """Where a log ends and what it rests on.  Enough to check the next step without reading the log."""

    hard: HardState = HardState()
    snapshot: Snapshot | None = None
    compacted: int = 0
    last_index: int = 0
    last_term: int = 0
    last_hash: bytes = GENESIS_PREV


class LogStore:
    """A store but for its disk.  Subclasses give ``_write``, ``_read`` and ``close``."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent

    def _write(self, step: Step, after: Extent) -> None:
        raise NotImplementedError

    def _read(self, first: int, last: int) -> Iterator[Entry]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # --- what a core calls --------------------------------------------------------------------------------------------

    def load(self) -> tuple[HardState, list[Entry], Snapshot | None]:
        extent = self._extent
        return extent.hard, list(self._read(extent.compacted + 1, extent.last_index)), extent.snapshot

    def append(self, entries: Sequence[Entry], truncate_from: int | None = None) -> None:
        self._do(entries=entries, truncate_from=truncate_from)

    def save_hard_state(self, hard_state: HardState) -> None:
        self._do(hard_state=hard_state)

    def save_snapshot(self, snapshot: Snapshot) -> None:
        self._do(snapshot=snapshot)

    def compact(self, up_to_index: int) -> None:
        covered = self._extent.snapshot.index if self._extent.snapshot else 0
        if not self._extent.compacted <= up_to_index <= covered:
            found = (
                f"cannot compact to {up_to_index}: it is at {self._extent.compacted} and the snapshot covers {covered}"
            )
            raise ArgumentError("store.compact", found)
        after = msgspec.structs.replace(self._extent, compacted=up_to_index)
        self._commit(Step(compacted=up_to_index), after)

    def sync(self) -> None:
        return

    def persist(self, ready: Ready) -> None:
        self._do(ready.entries, ready.truncate_from, ready.hard_state, ready.snapshot)

    def history(self, first: int, last: int) -> Iterator[Entry]:
        return self._read(first, min(last, self._extent.last_index))

    @property
    def last_index(self) -> int:
        return self._extent.last_index

    # --- the rules ----------------------------------------------------------------------------------------------------

    def _do(
        self,
        entries: Sequence[Entry] = (),
        truncate_from: int | None = None,
        hard_state: HardState | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        extent, restart, keep_to = self._extent, False, None
        if snapshot is not None:
            extent, restart = self._with_snapshot(extent, snapshot)
        if entries and truncate_from is None and entries[0].index <= extent.last_index:
            truncate_from = entries[0].index
        if truncate_from is not None:
            extent = self._cut(extent, truncate_from)
            keep_to = extent.last_index
        extent = _extended(extent, entries)
        if hard_state is not None:
            hard_state = _checked_hard_state(extent, hard_state)
            extent = msgspec.structs.replace(extent, hard=hard_state)
        self._commit(
            Step(keep_to, restart, snapshot, tuple(entries), extent.compacted if restart else None, hard_state), extent
        )

    def _commit(self, step: Step, after: Extent) -> None:
        if step != Step():
            self._write(step, after)
            self._extent = after

    def _with_snapshot(self, extent: Extent, snapshot: Snapshot) -> tuple[Extent, bool]:
        if extent.snapshot is not None and snapshot.index < extent.snapshot.index:
            found = f"snapshot at {snapshot.index} is older than the one held, at {extent.snapshot.index}"
            raise ArgumentError("store.snapshot", found)
        if snapshot.index <= extent.last_index:
            term, held = self._at(extent, snapshot.index)
            if held == snapshot.hash and term == snapshot.term:
                return msgspec.structs.replace(extent, snapshot=snapshot), False
            if snapshot.index <= extent.hard.commit:
                found = f"snapshot at {snapshot.index} contradicts the committed entry there"
                raise ArgumentError("store.snapshot", found)
        hard = msgspec.structs.replace(extent.hard, commit=max(extent.hard.commit, snapshot.index))
        index = snapshot.index
        return Extent(hard, snapshot, index, index, snapshot.term, snapshot.hash), True

    def _cut(self, extent: Extent, first_lost: int) -> Extent:
        floor = max(extent.hard.commit, extent.compacted)
        if not floor < first_lost <= extent.last_index + 1:
            found = f"cannot forget entries from {first_lost}: {floor} are committed, {extent.last_index} are held"
            raise ArgumentError("store.committed" if first_lost <= floor else "store.gap", found)
        term, held = self._at(extent, first_lost - 1)
        return msgspec.structs.replace(extent, last_index=first_lost - 1, last_term=term, last_hash=held)

    def _at(self, extent: Extent, index: int) -> tuple[int, bytes]:
        """Term and hash of the entry at ``index`` (<= last_index)."""
        if index == 0:
            return 0, GENESIS_PREV
        if index == extent.last_index:
            return extent.last_term, extent.last_hash
        if extent.snapshot is not None and index == extent.snapshot.index:
            return extent.snapshot.term, extent.snapshot.hash
        for entry in self._read(index, index):
            return entry.term, entry_hash(entry)
        raise ArgumentError("store.gap", f"entry {index} is no longer held")


def _extended(extent: Extent, entries: Sequence[Entry]) -> Extent:
    """The extent after ``entries``, which must follow it one by one.

    raises  ArgumentError  ``store.gap``, ``store.chain``;  InputError  ``ledger.entry``
    """
    index, term, head = extent.last_index, extent.last_term, extent.last_hash
    for entry in entries:
        check_shape(entry)
        if entry.index != index + 1:
            raise ArgumentError("store.gap", f"entry {entry.index} does not follow entry {index}")
        if entry.prev != head or entry.term < term:
            raise ArgumentError(
                "store.chain", f"entry {entry.index} does not name the hash, or falls below the term, before it"
            )
        index, term, head = entry.index, entry.term, entry_hash(entry)
    return msgspec.structs.replace(extent, last_index=index, last_term=term, last_hash=head)


def _checked_hard_state(extent: Extent, new: HardState) -> HardState:
    """``new`` with the store's own generation.  raises  ArgumentError  ``store.hard-state``"""
    old = extent.hard
    if new.term < old.term or new.commit < old.commit or new.commit > extent.last_index or len(new.vote) > DIGEST_BYTES:
        found = f"term {old.term} -> {new.term}, commit {old.commit} -> {new.commit}, last entry {extent.last_index}"
        raise ArgumentError("store.hard-state", f"hard state cannot go back or ahead of the log: {found}")
    if new.term == old.term and old.vote and new.vote != old.vote:
        raise ArgumentError("store.hard-state", f"the vote of term {old.term} was given and cannot be changed")
    return msgspec.structs.replace(new, generation=old.generation)
