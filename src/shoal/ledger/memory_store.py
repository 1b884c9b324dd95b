"""The store's twin in memory: the same rules, nothing durable.  For tests and simulations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from shoal.ledger.entry import Entry
from shoal.ledger.log_store import Extent, LogStore, Step


class MemoryStore(LogStore):
    """A log in a dictionary.  ``reopened`` is what a restart would find."""

    def __init__(self, extent: Extent | None = None, entries: Sequence[Entry] = ()) -> None:
        extent = extent or Extent()
        hard = msgspec.structs.replace(extent.hard, generation=extent.hard.generation + 1)
        super().__init__(msgspec.structs.replace(extent, hard=hard))
        self._entries = {entry.index: entry for entry in entries}

    def reopened(self) -> MemoryStore:
        return MemoryStore(self._extent, list(self._entries.values()))

    def _write(self, step: Step, after: Extent) -> None:  # noqa: ARG002
        if step.restart:
            self._entries.clear()
        if step.keep_to is not None:
            for index in [i for i in self._entries if i > step.keep_to]:
                del self._entries[index]
        self._entries.update((entry.index, entry) for entry in step.entries)

    def _read(self, first: int, last: int) -> Iterator[Entry]:
        return (self._entries[index] for index in range(first, last + 1) if index in self._entries)

    def close(self) -> None:
        return
