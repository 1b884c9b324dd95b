"""Memory of the size of models, used again: what a system gives anew it clears first, page by page, and that takes
longer than most of what a round does with a vector.

An array is free as soon as nothing looks at it any more, neither a view nor a buffer that is being sent.  CPython
counts that, so nobody has to give anything back.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_Bytes = npt.NDArray[np.uint8]

#: bytes below which memory is left to the allocator, which uses it again by itself
_SMALL: Final = 2**20
#: bytes of a model from which malloc is asked for what it keeps: for small ones the question takes longer than it saves
TRIMMED_MIN: Final = 16 * 2**20


def _looks(arrays: list[_Bytes]) -> list[int]:
    """References to each of them, the list's and this function's among them."""
    return [sys.getrefcount(array) for array in arrays]


#: of an array that nobody uses
_UNUSED: Final = _looks([np.empty(1, np.uint8)])[0]


class Stock:
    """Never holds more than was once in use at the same time.  Thread-safe."""

    def __init__(self) -> None:
        self._arrays: list[_Bytes] = []
        self._most = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> _Bytes:
        """uint8[nbytes] of any content, for the caller alone until it and all views of it are gone."""
        if nbytes < _SMALL:
            return np.empty(nbytes, np.uint8)
        with self._lock:
            looks = _looks(self._arrays)
            free = [array for array, count in zip(self._arrays, looks, strict=True) if count == _UNUSED]
            fits = [array for array in free if nbytes <= array.nbytes <= nbytes + nbytes // 4]
            found = min(fits, key=len) if fits else self._made(nbytes, free)
            return found[:nbytes]

    @property
    def held(self) -> int:
        """Bytes, used or not."""
        return sum(array.nbytes for array in self._arrays)

    def _made(self, nbytes: int, free: list[_Bytes]) -> _Bytes:
        unused = sum(array.nbytes for array in free)
        self._most = max(self._most, self.held - unused + nbytes)
        for array in sorted(free, key=len):
            if self.held + nbytes <= self._most:
                break
            self._arrays = [kept for kept in self._arrays if kept is not array]
        # Not of malloc, which would keep what is dropped.
        self._arrays.append(np.frombuffer(mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8))
        return self._arrays[-1]


#: of this process: all its nodes take from it
STOCK: Final = Stock()


def trim() -> None:
    """Give the machine back what malloc keeps for later, which is up to two large tensors for each thread (glibc;
    elsewhere nothing happens)."""
    give = _malloc_trim()
    if give is not None:
        give(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # TypeError: a system without a library that has no name
        return None
