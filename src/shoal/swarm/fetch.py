"""Asking for the chunks of a parcel: a window of them on the way, asked for again from the next peer that has them."""

from __future__ import annotations

from shoal.limits import WINDOW_CHUNKS
from shoal.swarm.parcel import Gathering


class Fetch:
    """One gathering, and whom to ask for it.

    kind, subject  as in messages.Want
    sources        peers that should have it, the best first
    """

    def __init__(self, kind: int, subject: int, gathering: Gathering, sources: list[bytes]) -> None:
        self.kind = kind
        self.subject = subject
        self.gathering = gathering
        self._sources = sources
        self._at = 0
        self._asked: dict[int, int] = {}

    @property
    def source(self) -> bytes:
        """Whom to ask now."""
        return self._sources[self._at % len(self._sources)]

    def ask_from(self, sources: list[bytes]) -> None:
        """These may have it now; whoever is asked at present is asked on, if it is among them."""
        if sources != self._sources:
            present, self._sources = self.source, sources
            self._at = sources.index(present) if present in sources else 0

    def next_source(self) -> None:
        """The present one does not deliver: ask the next one for everything that is missing."""
        self._at += 1
        self._asked.clear()

    def put(self, index: int, chunk: memoryview) -> bool:
        """As Gathering.put."""
        good = self.gathering.put(index, chunk)
        self._asked.pop(index, None)
        return good

    def on_the_way(self) -> int:
        return len(self._asked)

    def wants(self, now: int, overdue: int, room: int) -> tuple[int, ...]:
        """Chunks to ask for now: as many as window and ``room`` allow, and those asked for ``overdue`` ticks ago.

        Nothing before the chunks' hashes are known.
        """
        if self.gathering.complete or not self.gathering.hashes:
            return ()
        late = [i for i, since in self._asked.items() if now - since >= overdue]
        for index in late:
            del self._asked[index]
        count = min(WINDOW_CHUNKS - len(self._asked), room)
        found = self.gathering.missing(max(count, 0), set(self._asked))
        for index in found:
            self._asked[index] = now
        return found
