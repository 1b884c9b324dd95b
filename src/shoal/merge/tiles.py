"""How tensors are cut for a sweep: stretches, items of work, and buffers that stay below STREAM_BYTES_MAX."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.limits import DIGEST_CHUNK_BYTES, STREAM_BYTES_MAX
from shoal.merge.source import Item, Stretch, Tensor
from shoal.merge.tile import Array

#: bytes of one model that a thread holds at most: larger buffers fall out of the caches between reading and merging,
#: smaller ones hand the GIL over too often (measured: docs/PERFORMANCE.md).
TILE_BYTES = 2**18
#: below this, reading costs more calls than bytes: rather fewer threads than smaller tiles.
TILE_BYTES_MIN = 2**14
#: bytes of small tensors that make one item of work.
JOINED_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class Cut:
    """Sizes of one sweep.

    threads     how many
    tile_bytes  of one model in one thread
    """

    threads: int
    tile_bytes: int


def cut(models: int, threads: int, least: int = 1) -> Cut:
    """Sizes for tiles of so many models (base included), so that all buffers fit in STREAM_BYTES_MAX.

    Each thread holds one tile of each model and one finished chunk of the result.  Where many models make tiles small,
    there are fewer threads.

    least  bytes that a tile must have, a power of two
    """
    least = max(least, min(TILE_BYTES, TILE_BYTES_MIN))
    threads = max(1, min(threads, STREAM_BYTES_MAX // (DIGEST_CHUNK_BYTES + models * least)))
    room = (STREAM_BYTES_MAX // threads - DIGEST_CHUNK_BYTES) // models
    size = max(TILE_BYTES, least)
    while size > room and size > least:
        size //= 2
    return Cut(threads, size)


def items(tensors: Iterable[Tensor], chunk_bytes: int) -> list[Item]:
    """Cut tensors, in order, into items of at most ``chunk_bytes``.

    A tensor above that size is cut into stretches of chunk_bytes; neighbours of one dtype that fit in JOINED_BYTES
    make one item.
    """
    return list(_items(tensors, chunk_bytes))


def _items(tensors: Iterable[Tensor], chunk_bytes: int) -> Iterator[Item]:
    joined: list[Stretch] = []
    size = 0
    for tensor in tensors:
        fits = (
            joined and tensor.dtype == joined[0].tensor.dtype and size + tensor.nbytes <= min(chunk_bytes, JOINED_BYTES)
        )
        if joined and not fits:
            yield tuple(joined)
            joined, size = [], 0
        if tensor.nbytes <= chunk_bytes:
            if tensor.elements:
                joined.append(Stretch(tensor, 0, tensor.elements))
                size += tensor.nbytes
            continue
        step = chunk_bytes // tensor.dtype.itemsize
        for first in range(0, tensor.elements, step):
            yield (Stretch(tensor, first, min(step, tensor.elements - first)),)
    if joined:
        yield tuple(joined)


class Buffers:
    """Memory of one thread, made when first asked for."""

    def __init__(self) -> None:
        self._held: dict[object, Array] = {}

    def get(self, who: object, dtype: np.dtype[Any], count: int) -> Array:
        """``count`` elements for ``who``; the same memory each time, aligned to 64 bytes; grows when asked for more."""
        nbytes = count * dtype.itemsize
        held = self._held.get(who)
        if held is None or len(held) < nbytes:
            raw = np.empty(nbytes + 64, np.uint8)
            skip = -raw.ctypes.data % 64
            held = self._held[who] = raw[skip : skip + nbytes]
        return held[:nbytes].view(dtype)
