"""Waiting for a disk without falling silent: a leader that says nothing while it syncs would be taken for gone.

What waits for the disk runs in a thread of its own.  When it takes long, the node's thread hears and answers heartbeats
until it is done, and does nothing else: what was asked to be written is written before anything follows from it.  A
disk that was always quick may be slow the next time, and a leader that has fallen silent once is hard to replace while
the votes for another one wait for the same disks; so the thread, some 20 us, is not saved for quick ones.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from shoal.secure.journal import Journal

T = TypeVar("T")

#: seconds for which the disk is waited for in silence
LONG_S: Final = 0.01


class Disk:
    """See the module.  ``meanwhile`` is called again and again while a call takes long; it must take a moment itself.

    One thread at a time calls ``wait``.
    """

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile
        self._thread = ThreadPoolExecutor(1, "shoal-disk")

    def wait(self, call: Callable[[], T]) -> T:
        """What the call gives, or raises."""
        done = self._thread.submit(call)
        try:
            return done.result(LONG_S)
        except TimeoutError:
            while not done.done():
                self._meanwhile()
            return done.result()

    def close(self) -> None:
        self._thread.shutdown()


class PatientJournal:
    """A journal whose writing is waited for by a `Disk`; it does not close it."""

    def __init__(self, journal: Journal, disk: Disk) -> None:
        self._journal = journal
        self._wait = disk.wait

    def claim(self, slot: int) -> bool:
        return self._wait(lambda: self._journal.claim(slot))

    def last_slot(self) -> int:
        return self._journal.last_slot()

    def sign(self, slot: int, survivors: bytes) -> bool:
        return self._wait(lambda: self._journal.sign(slot, survivors))

    def certify(self, slot: int, survivors: bytes) -> bool:
        return self._wait(lambda: self._journal.certify(slot, survivors))

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        return self._wait(lambda: self._journal.open_half(slot, subject, which))

    def commit(self, slot: int, root: bytes) -> bool:
        return self._wait(lambda: self._journal.commit(slot, root))

    def keep_keys(self, state: bytes) -> None:
        self._wait(lambda: self._journal.keep_keys(state))

    def keys(self) -> bytes | None:
        return self._journal.keys()

    def close(self) -> None:
        self._journal.close()
