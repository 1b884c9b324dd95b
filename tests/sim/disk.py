"""A disk that forgets: what was written and not synced may be lost from some point on, the last write in its middle."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from shoal.ledger.entry import Entry
from shoal.ledger.ready import Ready
from shoal.ledger.store import HardState, Snapshot


class Disk:
    """`hard`, `entries` above `snapshot`: what a restart finds.  `pending`: writes that no sync has confirmed."""

    __slots__ = ("entries", "floor", "hard", "pending", "snapshot")

    def __init__(self, hard: HardState, entries: Sequence[Entry] = ()) -> None:
        self.hard = hard
        self.entries = list(entries)
        self.snapshot: Snapshot | None = None
        self.floor = 0
        self.pending: list[tuple[str, object]] = []

    def write(self, ready: Ready) -> None:
        """Queue the durable parts in the order of the store's contract."""
        pending = self.pending
        if ready.snapshot is not None:
            pending.append(("snapshot", ready.snapshot))
        if ready.entries or ready.truncate_from is not None:
            pending.append(("log", (ready.truncate_from, ready.entries)))
        if ready.hard_state is not None:
            pending.append(("hard", ready.hard_state))

    def copy(self) -> Disk:
        """A backup: what is safely on the disk now."""
        other = Disk(self.hard, self.entries)
        other.snapshot, other.floor = self.snapshot, self.floor
        return other

    def compact(self, snapshot: Snapshot) -> None:
        self.pending.append(("compact", snapshot))

    def sync(self) -> None:
        for kind, value in self.pending:
            self._settle(kind, value)
        self.pending = []

    def crash(self, rng: Random, torn: bool) -> None:
        """Keep some of the unsynced writes, in order; of the next one perhaps its beginning."""
        keep = rng.randrange(len(self.pending) + 1)
        for kind, value in self.pending[:keep]:
            self._settle(kind, value)
        if torn and keep < len(self.pending):
            kind, value = self.pending[keep]
            if kind == "log":
                start, entries = value  # type: ignore[misc]
                self._settle(kind, (start, entries[: rng.randrange(len(entries) + 1)]))
        self.pending = []

    def open(self) -> tuple[HardState, list[Entry], Snapshot | None]:
        """Start a life: its generation is durable before anybody reads the rest."""
        self.hard = msgspec.structs.replace(self.hard, generation=self.hard.generation + 1)
        return self.hard, list(self.entries), self.snapshot

    def term(self, index: int) -> int:
        """Term of the entry that is safely on the disk; -1 if none is."""
        at = index - self.floor
        if 0 < at <= len(self.entries):
            return self.entries[at - 1].term
        return -1

    def _settle(self, kind: str, value: object) -> None:
        if kind == "hard":
            assert isinstance(value, HardState)
            self.hard = value
        elif kind == "log":
            start, entries = value  # type: ignore[misc]
            if start is not None:
                del self.entries[start - self.floor - 1 :]
            if entries:
                assert entries[0].index == self.floor + len(self.entries) + 1, "the core left a gap on the disk"
            self.entries += entries
        else:
            assert isinstance(value, Snapshot)
            self.entries = self.entries[value.index - self.floor :] if kind == "compact" else []
            self.snapshot, self.floor = value, value.index
