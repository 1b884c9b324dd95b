"""Fetching the certified model as a whole: for those that missed a round, from anybody who has it.

The hashes of its chunks are told by the source and believed for the time being; the model's digest, which the ledger
has, decides at the end.  A source whose model has another digest is not asked again for that round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shoal.ledger.state import State
from shoal.swarm.book import Book
from shoal.swarm.fetch import Fetch, Overdue
from shoal.swarm.messages import MODEL, AnySaid, ChunkHead, Lacks, Offer, Want, encode_head, encode_said
from shoal.swarm.parcel import Bytes, Gathering, Parcel, cuts, parcel_root

#: ticks, in units of ``retry``, without a chunk after which another source is asked
_PATIENCE = 5


class CatchUp:
    """One node's fetching of whole models, and serving of its own."""

    def __init__(self, me: bytes, retry: int) -> None:
        self._me = me
        self._retry = retry
        self._now = 0
        self._round = -1
        self._size = 0
        self._bad: set[bytes] = set()
        self._source = b""
        self._since = 0
        self._fetch: Fetch | None = None
        self._served: tuple[bytes, Parcel] | None = None

    def tick(self) -> None:
        self._now += 1

    # --- fetching -----------------------------------------------------------------------------------------------------

    def ask(self, round_: int, size: int, others: Sequence[bytes]) -> Iterator[tuple[bytes, AnySaid]]:
        """What to say now to get the model of ``round_``, a state of ``size`` bytes, from one of ``others``."""
        self._size = size
        if round_ != self._round:
            self._round, self._bad, self._source, self._fetch = round_, set(), b"", None
        if self._source and self._now - self._since > _PATIENCE * self._retry:
            self._next()
        if not self._source:
            good = [p for p in others if p not in self._bad]
            if not good:
                self._bad.clear()
                return
            self._source, self._since = good[0], self._now
            yield self._source, Want(round_, MODEL, round_, ())
        if self._fetch is not None:
            overdue = Overdue(self._retry, 2 * self._retry, 4 * self._retry)
            wanted = self._fetch.wants(self._now, 2**30, self._now - self._since, overdue)
            if wanted:
                yield self._source, Want(round_, MODEL, round_, wanted)

    def said(self, peer: bytes, said: AnySaid) -> None:
        """An Offer or Lacks about a model."""
        if peer != self._source or getattr(said, "subject", None) != self._round:
            return
        if isinstance(said, Lacks):
            self._next()
        elif isinstance(said, Offer) and self._fetch is None:
            chunks = cuts([self._size])[0]
            gathering = Gathering(parcel_root(said.hashes), chunks, range(len(chunks)))
            if gathering.name(said.hashes):
                self._fetch = Fetch(MODEL, self._round, gathering, [peer])

    def chunk(self, peer: bytes, head: ChunkHead, body: memoryview) -> None:
        if self._fetch is None or peer != self._source or head.subject != self._round:
            return
        if self._fetch.put(head.index, body):
            self._since = self._now

    def whole(self) -> Bytes | None:
        """The state, once all of it is there."""
        done = self._fetch is not None and self._fetch.gathering.complete
        return self._fetch.gathering.data if done and self._fetch is not None else None

    def distrust(self) -> None:
        """What came from this source was not the model."""
        self._next()

    def _next(self) -> None:
        self._bad.add(self._source)
        self._source, self._fetch = b"", None

    # --- serving ------------------------------------------------------------------------------------------------------

    def serve(self, want: Want, book: Book, ledger: State) -> Iterator[bytes | tuple[bytes, memoryview]]:
        """Frames that answer a Want: of the control plane, or (header, chunk)."""
        model = ledger.model
        if want.subject != ledger.round or not book.holds(model, ledger.carried):
            yield encode_said(Lacks(want.slot, MODEL, want.subject))
            return
        if self._served is None or self._served[0] != model:
            state = book.state()
            self._served = (model, Parcel(state, cuts([state.size])[0]))
        parcel = self._served[1]
        if not want.chunks:
            yield encode_said(Offer(want.slot, MODEL, want.subject, parcel.hashes))
        for index in want.chunks:
            if index < len(parcel.chunks):
                yield encode_head(ChunkHead(want.slot, MODEL, want.subject, index)), parcel.chunk(index)
