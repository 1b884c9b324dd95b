"""A vector on its way: cut into chunks, named by their hashes, fetched by whoever needs it, from whoever has it.

A *parcel* is what one participant uploads (all shards, one behind the other), or one merged shard.  Chunks are
CHUNK_BYTES long and never cross a shard's end, so that each owner fetches whole chunks.  The root over the chunks'
hashes stands in the ledger before a byte moves; a chunk whose hash is not the one named there is dropped, whoever sent
it.  What is missing is asked for again: after a lost connection a transfer goes on where it stopped.

    root(hashes) = H("parcel", LE64(number of chunks), hash, hash, ...)
    hash(chunk)  = SHA-256(chunk)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shoal.domain import DIGEST_BYTES, hashed, le64
from shoal.limits import CHUNK_BYTES
from shoal.swarm.stock import STOCK

Bytes = npt.NDArray[np.uint8]

DOMAIN: Final = b"shoal-swarm/v1/"


def chunk_hash(chunk: Any) -> bytes:
    """SHA-256 of a chunk (anything with the buffer protocol); frees the GIL."""
    return hashlib.sha256(chunk).digest()


def parcel_root(hashes: bytes) -> bytes:
    """``hashes``: the chunks' hashes one behind the other."""
    each = [hashes[i : i + DIGEST_BYTES] for i in range(0, len(hashes), DIGEST_BYTES)]
    return hashed(DOMAIN, "parcel", le64(len(each)), *each)


def cuts(sizes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """For shards of these sizes in bytes, one behind the other: each shard's chunks as (start, stop) in the parcel."""
    found, start = [], 0
    for size in sizes:
        stop = start + size
        found.append([(at, min(at + CHUNK_BYTES, stop)) for at in range(start, stop, CHUNK_BYTES)])
        start = stop
    return found


class Parcel:
    """A whole parcel that this node has and gives to whoever wants it.

    data    uint8[n], not changed from here on
    chunks  (start, stop) of each chunk in ``data``
    hashes  32 bytes each, joined;  root  what the ledger names it by
    """

    def __init__(self, data: Bytes, chunks: Iterable[tuple[int, int]], hashes: bytes = b"") -> None:
        """``hashes``: those of the chunks, where they are known, as of what was gathered."""
        self.data = data
        self.chunks = list(chunks)
        self._view = data.data
        self.hashes = hashes or b"".join(chunk_hash(self._view[a:b]) for a, b in self.chunks)
        self.root = parcel_root(self.hashes)

    def chunk(self, index: int) -> memoryview:
        """raises  IndexError"""
        start, stop = self.chunks[index]
        return self._view[start:stop]


class Gathering:
    """A parcel, or those chunks of one that this node needs, while they arrive.

    root    what the ledger names it by
    wanted  indices of the chunks that are needed, a contiguous range
    data    uint8: these chunks, one behind the other
    """

    def __init__(
        self, root: bytes, chunks: Sequence[tuple[int, int]], wanted: range, room: Bytes | None = None
    ) -> None:
        """``room``: where the data is to lie, uint8 of its size."""
        self.root = root
        self.wanted = wanted
        self._chunks = chunks
        self._origin = chunks[wanted.start][0] if len(wanted) else 0
        end = chunks[wanted.stop - 1][1] if len(wanted) else 0
        self.data: Bytes = STOCK.take(end - self._origin) if room is None else room
        assert self.data.size == end - self._origin
        self.hashes = b""
        self._missing = set(wanted)

    @property
    def complete(self) -> bool:
        return not self._missing

    def name(self, hashes: bytes) -> bool:
        """Take the hashes of the chunks; whether they are those of the root."""
        if len(hashes) != DIGEST_BYTES * len(self._chunks) or parcel_root(hashes) != self.root:
            return False
        self.hashes = hashes
        return True

    def missing(self, count: int, but: set[int]) -> tuple[int, ...]:
        """Up to ``count`` chunks to ask for, lowest first, leaving out ``but`` (already on their way)."""
        return tuple(sorted(self._missing - but)[:count])

    def arrived(self, index: int) -> memoryview | None:
        """A chunk that is here; None for any other."""
        if index not in self.wanted or index in self._missing:
            return None
        start, stop = self._chunks[index]
        return self.data.data[start - self._origin : stop - self._origin]

    def put(self, index: int, chunk: memoryview) -> bool:
        """Take a chunk; False if it is not needed (any more), or not the one that was named."""
        if index not in self._missing or not self.hashes:
            return False
        start, stop = self._chunks[index]
        if len(chunk) != stop - start:
            return False
        if chunk_hash(chunk) != self.hashes[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]:
            return False
        self.data[start - self._origin : stop - self._origin] = np.frombuffer(chunk, np.uint8)
        self._missing.remove(index)
        return True
