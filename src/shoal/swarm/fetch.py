"""Asking for the chunks of a parcel: a window of them on the way, asked for again from the next peer that has them."""

from __future__ import annotations

from itertools import takewhile
from typing import Final, NamedTuple

from shoal.limits import WINDOW_CHUNKS
from shoal.swarm.parcel import Gathering

#: how often the time after which a chunk is asked for again doubles
_DOUBLED_MAX: Final = 3


class Overdue(NamedTuple):
    """Ticks after which a chunk that was asked for seems to be lost, twice as many after each time; at most ``most``.

    passed  if one that was asked for later has come;  silent  if nothing at all comes
    """

    passed: int
    silent: int
    most: int


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
        self._passed: set[int] = set()
        self._again: dict[int, int] = {}

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
        self._passed.clear()
        self._again.clear()

    def put(self, index: int, chunk: memoryview) -> bool:
        """As Gathering.put."""
        good = self.gathering.put(index, chunk)
        if index in self._asked:
            # Chunks come in the order in which they were asked for: those before this one may be lost.
            self._passed |= set(takewhile(lambda other: other != index, self._asked))
            del self._asked[index]
        self._passed.discard(index)
        return good

    def on_the_way(self) -> int:
        return len(self._asked)

    def asked_at(self, index: int) -> int | None:
        """When a chunk that is on its way was asked for."""
        return self._asked.get(index)

    def wants(self, now: int, room: int, still: int, limits: Overdue) -> tuple[int, ...]:
        """Chunks to ask for now: as many as window and ``room`` allow, and those that seem to be lost.

        still  ticks since anything came to this node

        A slow link loses nothing, and asking again would make it slower.  Nothing is asked for before hashes are known.
        """
        if self.gathering.complete or not self.gathering.hashes:
            return ()
        for index, since in list(self._asked.items()):
            passed = index in self._passed
            patience = (limits.passed if passed else limits.silent) << min(self._again.get(index, 0), _DOUBLED_MAX)
            if now - since >= min(patience, limits.most) and (passed or still >= limits.silent):
                del self._asked[index]
                self._passed.discard(index)
                self._again[index] = self._again.get(index, 0) + 1
        count = min(WINDOW_CHUNKS - len(self._asked), room)
        found = self.gathering.missing(max(count, 0), set(self._asked))
        for index in found:
            self._asked[index] = now
        return found
