"""Chunks done by several threads, their results handed back in order, with only a few on the way at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Result = TypeVar("Result")

#: results per thread that may wait to be taken
_WAITING = 2


class Memory:
    """Arrays of one thread, made when first asked for, the same memory each time."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[np.uint8]] = {}

    def get(self, what: str, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        """``count`` elements for ``what``; what was in them before is lost."""
        kind = np.dtype(dtype)
        nbytes = count * kind.itemsize
        held = self._held.get(what)
        if held is None or len(held) < nbytes:
            held = self._held[what] = np.empty(nbytes, np.uint8)
        return held[:nbytes].view(kind)


def in_order(count: int, work: Callable[[int, Memory], Result], threads: int) -> Iterator[Result]:
    """work(0, memory), work(1, memory), ... in this order; ``memory`` is the thread's own.

    If some fail, the error of the first of them is raised: the same one every time.  Whoever stops early waits for what
    is being done at that moment, and nothing more is begun.
    """
    if min(threads, count) <= 1:
        memory = Memory()
        for number in range(count):
            yield work(number, memory)
        return
    own = threading.local()

    def begin() -> None:
        own.memory = Memory()

    pool = ThreadPoolExecutor(min(threads, count), initializer=begin)
    waiting: deque[Future[Result]] = deque()
    try:
        for number in range(count):
            if len(waiting) >= _WAITING * threads:
                yield waiting.popleft().result()
            waiting.append(pool.submit(lambda number=number: work(number, own.memory)))  # type: ignore[misc]
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
