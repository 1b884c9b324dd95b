"""One reading of the data by several threads: who does what, how partial results are added, what stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from shoal.merge.tile import Array

Item = TypeVar("Item")
Worker = TypeVar("Worker")

#: finished items that may wait for an earlier one, per thread.
WAITING_MAX = 4


class Total(Protocol):
    """A sum of arrays of one shape; ``value`` is None before the first."""

    @property
    def value(self) -> Array | None: ...

    def add(self, row: Array, /) -> None: ...


class RoundedSum:
    """Each addition is rounded as the arrays' dtype does."""

    def __init__(self) -> None:
        self.value: Array | None = None

    def add(self, row: Array, /) -> None:
        self.value = row.copy() if self.value is None else np.add(self.value, row, out=self.value)


class OrderedSum:
    """The sum of partial results, added in the order of the items that they come from, whichever is ready first."""

    def __init__(self, total: Total | None = None) -> None:
        self._total = total or RoundedSum()
        self._waiting: dict[int, list[Array]] = {}
        self.next = 0

    @property
    def value(self) -> Array | None:
        return self._total.value

    def put(self, index: int, parts: list[Array]) -> None:
        """Take the results of item ``index``: arrays whose first axis counts parts.  The caller holds the lock."""
        self._waiting[index] = parts
        while self.next in self._waiting:
            for part in self._waiting.pop(self.next):
                for row in part:
                    self._total.add(row)
            self.next += 1


class Sweep(Generic[Item, Worker]):
    """Threads that take items in order.

    start   makes what one thread owns (its buffers)
    work    (item, what the thread owns) -> partial results, added up in ``total``
    total   what adds them

    If items fail, all earlier ones are finished and the error of the first of them is raised: the same one every time.
    """

    def __init__(
        self,
        items: Sequence[Item],
        start: Callable[[], Worker],
        work: Callable[[Item, Worker], list[Array] | None],
        total: Total | None = None,
    ) -> None:
        self._items = items
        self._start = start
        self._work = work
        self._changed = threading.Condition()
        self._taken = 0
        self._stop = False
        self._errors: dict[int, BaseException] = {}
        self.total = OrderedSum(total)

    def run(self, threads: int) -> None:
        """Do all items; return when every thread has ended."""
        count = min(threads, len(self._items))
        if count <= 1:
            self._loop(1)
        else:
            pool = [threading.Thread(target=self._loop, args=(count,), daemon=True) for _ in range(count)]
            try:
                for thread in pool:
                    thread.start()
                for thread in pool:
                    thread.join()
            except BaseException:
                self._halt()
                for thread in pool:
                    if thread.ident is not None:
                        thread.join()
                raise
        if self._errors:
            raise self._errors[min(self._errors)]

    def _halt(self) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()

    def _take(self, threads: int) -> int | None:
        """The next item; None if there is none, or somebody failed.  Waits while too many finished ones wait."""
        with self._changed:
            while not self._stop and self._taken - self.total.next > WAITING_MAX * threads:
                self._changed.wait()
            if self._stop or self._taken == len(self._items):
                return None
            self._taken += 1
            return self._taken - 1

    def _loop(self, threads: int) -> None:
        worker: Worker | None = None
        while (index := self._take(threads)) is not None:
            try:
                worker = self._start() if worker is None else worker
                parts = self._work(self._items[index], worker) or []
            except BaseException as error:
                with self._changed:
                    self._errors[index] = error
                self._halt()
                return
            with self._changed:
                self.total.put(index, parts)
                self._changed.notify_all()
