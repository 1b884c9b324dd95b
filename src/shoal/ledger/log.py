"""The part of the chain that a node holds in memory: entries after a floor, their hashes, and four marks along them.

    floor <= applied <= committed <= last        stable <= handed <= last

floor      the entry that a snapshot ends with (0: the start of the chain)
applied    given to the application          committed  known to be decided
handed     given to the disk                 stable     known to be on the disk

Each entry carries the hash of the one before, so two logs with the same hash at an index are the same up to there.
Committed entries are never cut; a caller that tries is told so by `CutCommitted`, which no message can provoke because
`replication.py` asks first.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.ledger.entry import GENESIS_PREV, Entry, entry_hash


class CutCommitted(AssertionError):
    """An internal rule is broken: committed entries were about to be removed."""


class Log:
    __slots__ = (
        "applied",
        "committed",
        "entries",
        "floor",
        "floor_hash",
        "floor_term",
        "handed",
        "hashes",
        "size",
        "stable",
        "truncated",
    )

    def __init__(self, floor: int = 0, floor_term: int = 0, floor_hash: bytes = GENESIS_PREV) -> None:
        self.reset(floor, floor_term, floor_hash)

    def reset(self, floor: int, floor_term: int, floor_hash: bytes) -> None:
        """Start anew above a snapshot."""
        self.floor = self.committed = self.applied = self.handed = self.stable = floor
        self.floor_term = floor_term
        self.floor_hash = floor_hash
        self.entries: list[Entry] = []
        self.hashes: list[bytes] = []
        self.size = 0  # bytes of payload held
        self.truncated: int | None = None  # lowest index cut off since the disk was last told

    @property
    def last(self) -> int:
        return self.floor + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.floor_term

    @property
    def last_hash(self) -> bytes:
        return self.hashes[-1] if self.hashes else self.floor_hash

    def term(self, index: int) -> int:
        """The term of the entry at `index`; -1 if it is not held here."""
        at = index - self.floor
        if at == 0:
            return self.floor_term
        return self.entries[at - 1].term if 0 < at <= len(self.entries) else -1

    def hash(self, index: int) -> bytes:
        """The hash of the entry at `index`; b"" if it is not held here."""
        at = index - self.floor
        if at == 0:
            return self.floor_hash
        return self.hashes[at - 1] if 0 < at <= len(self.entries) else b""

    def entry(self, index: int) -> Entry | None:
        at = index - self.floor
        return self.entries[at - 1] if 0 < at <= len(self.entries) else None

    def append(self, entry: Entry, digest: bytes) -> None:
        """Add one entry whose place, chain and hash the caller has checked."""
        self.entries.append(entry)
        self.hashes.append(digest)
        self.size += len(entry.payload)

    def cut(self, index: int) -> None:
        """Remove the entries from `index` on."""
        if index <= self.committed:
            raise CutCommitted(f"cut at {index}, committed {self.committed}")
        at = index - self.floor - 1
        self.size -= sum(len(e.payload) for e in self.entries[at:])
        del self.entries[at:]
        del self.hashes[at:]
        if index <= self.handed:
            self.truncated = index if self.truncated is None else min(self.truncated, index)
            self.handed = index - 1
            self.stable = min(self.stable, self.handed)

    def span(self, start: int, count: int, size: int) -> tuple[Entry, ...]:
        """Entries from `start` on: at most `count`, at most `size` payload bytes, but at least one if there is one."""
        at = start - self.floor - 1
        found = self.entries[at : at + count]
        total = 0
        for n, entry in enumerate(found):
            total += len(entry.payload)
            if total > size and n:
                return tuple(found[:n])
        return tuple(found)

    def holds(self, index: int, term: int, last_hash: bytes) -> bool:
        """Whether the entry at `index` is here, with this term and hash, and so the whole chain before it."""
        return self.term(index) == term and self.hash(index) == last_hash

    def last_with_term_at_most(self, index: int, term: int) -> int:
        """The largest index <= `index` whose term is <= `term`; terms rise along a log, so all before it fit too."""
        index = min(index, self.last)
        while index > self.floor and self.entries[index - self.floor - 1].term > term:
            index -= 1
        return index

    def commit_to(self, index: int) -> bool:
        """Raise the committed mark, never beyond the end of the log; True if it moved."""
        index = min(index, self.last)
        if index <= self.committed:
            return False
        self.committed = index
        return True

    def compact(self, index: int) -> None:
        """Let go of the entries up to `index`, which must be applied."""
        at = index - self.floor
        self.floor_term, self.floor_hash = self.entries[at - 1].term, self.hashes[at - 1]
        self.size -= sum(len(e.payload) for e in self.entries[:at])
        del self.entries[:at]
        del self.hashes[:at]
        self.floor = index
        self.handed = max(self.handed, index)
        self.stable = max(self.stable, index)


def chain_fault(entries: Sequence[Entry], prev: bytes) -> tuple[list[bytes], str]:
    """The hashes of `entries`, and "wrong-prev" as soon as one does not name the hash of the one before."""
    hashes: list[bytes] = []
    for entry in entries:
        if entry.prev != prev:
            return hashes, "wrong-prev"
        prev = entry_hash(entry)
        hashes.append(prev)
    return hashes, ""
