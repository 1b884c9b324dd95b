"""The journal on disk: one SQLite file, mode 0600, ``synchronous=FULL``; a decision is there before it is answered.

Keys that are replaced are overwritten: in the database's pages by ``secure_delete``, in the write-ahead log by emptying
it.  That is as much as a program can do.  Flash memory, copy-on-write file systems, snapshots and backups may hold the
old bytes for long; only an encrypted disk, whose own key is thrown away, is sure to forget.

Not detected here: a file that was restored from a backup, or a write-ahead log that lost its end.  The ledger shows it
(`Journal.last_slot`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any, Final

from shoal import failpoint
from shoal.errors import InputError, MachineError, shown
from shoal.limits import JOURNAL_SLOTS_KEPT
from shoal.secure.journal import checked_slot, checked_state
from shoal.secure.kdf import digest, le64

#: "shjo", so that other SQLite files are told apart
_APPLICATION: Final = 0x73686A6F
_VERSION: Final = 1
_SUM_BYTES: Final = 16
_TABLE: Final = (
    "CREATE TABLE kept (kind TEXT NOT NULL, slot INTEGER NOT NULL, subject BLOB NOT NULL, value BLOB NOT NULL, "
    "sum BLOB NOT NULL, PRIMARY KEY (kind, slot, subject)) WITHOUT ROWID, STRICT"
)
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: what sqlite3 raises.  A message of SQLite that quotes damaged bytes cannot be decoded: that is damage, too.
_FAILURES: Final = (sqlite3.Error, UnicodeError)


class JournalFile:
    """See journal.Journal.  Beside the file lies ``FILE-lock``, which is held while the journal is open.

    raises  MachineError  ``journal.open``, ``journal.exposed``, ``journal.locked``, ``journal.write``
            InputError    ``journal.format``: the file is no journal, or a later one;  ``journal.damaged``
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _take_lock(path)
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
            try:
                self._open()
            except _FAILURES as error:
                self._connection.close()
                raise self._failure(error) from None
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        for pragma in ("locking_mode=EXCLUSIVE", "trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0",
                       "secure_delete=ON", "synchronous=FULL"):  # fmt: skip
            self._run(f"PRAGMA {pragma}")
        if self._one("PRAGMA page_count") == 0:
            if os.stat(self._path).st_size:
                raise InputError("journal.format", f"{self._path}: what is left of a file; expected a journal")
            self._run("BEGIN IMMEDIATE")
            self._run(_TABLE)
            self._run(f"PRAGMA application_id={_APPLICATION}")
            self._run(f"PRAGMA user_version={_VERSION}")
            self._run("COMMIT")
        if (self._one("PRAGMA application_id"), self._one("PRAGMA user_version")) != (_APPLICATION, _VERSION):
            raise InputError("journal.format", f"{self._path}: not a journal of version {_VERSION}")
        if self._run("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall() != [(_TABLE,)]:
            raise InputError("journal.format", f"{self._path}: other tables than a journal has")
        fault = self._one("PRAGMA quick_check(1)")
        if fault != "ok":
            raise InputError("journal.damaged", f"{self._path}: {shown(str(fault))}")
        for *row, found in self._run("SELECT kind, slot, subject, value, sum FROM kept"):
            if found != _sum(*row):
                raise InputError("journal.damaged", f"{self._path}: the row {row[0]!r} of slot {row[1]} is damaged")
        if self._one("PRAGMA journal_mode=WAL") != "wal":
            raise MachineError("journal.open", f"{self._path}: this file system cannot hold SQLite's write-ahead log")

    def claim(self, slot: int) -> bool:
        if checked_slot(slot) <= self.last_slot():
            return False
        self._do("BEGIN IMMEDIATE")
        self._put("claim", 0, b"", le64(slot))
        self._do("DELETE FROM kept WHERE slot <= ? AND kind NOT IN ('claim', 'keys')", slot - JOURNAL_SLOTS_KEPT)
        self._do("COMMIT")
        return True

    def last_slot(self) -> int:
        kept = self._get("claim", 0, b"")
        return -1 if kept is None else int.from_bytes(kept, "little")

    def sign(self, slot: int, survivors: bytes) -> bool:
        return self._keep("sign", slot, b"", survivors)

    def certify(self, slot: int, survivors: bytes) -> bool:
        return self._keep("certify", slot, b"", survivors)

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        return self._keep("open", slot, subject, bytes([which]))

    def commit(self, slot: int, root: bytes) -> bool:
        return self._keep("commit", slot, b"", root)

    def keep_keys(self, state: bytes) -> None:
        """See the module for what can be promised of the bytes that were there before."""
        self._put("keys", 0, b"", checked_state(bytes(state)))
        busy, *_ = self._do("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise MachineError("journal.write", f"{self._path}: the write-ahead log cannot be emptied of old keys")

    def keys(self) -> bytes | None:
        return self._get("keys", 0, b"")

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def _keep(self, kind: str, slot: int, subject: bytes, value: bytes) -> bool:
        kept = self._get(kind, checked_slot(slot), subject)
        if kept is not None:
            return kept == value
        if slot <= self.last_slot() - JOURNAL_SLOTS_KEPT:
            return False
        self._put(kind, slot, subject, value)
        return True

    def _get(self, kind: str, slot: int, subject: bytes) -> bytes | None:
        found = self._do(
            "SELECT value, sum FROM kept WHERE kind = ? AND slot = ? AND subject = ?", kind, slot, subject
        ).fetchone()
        if found is None:
            return None
        if found[1] != _sum(kind, slot, subject, found[0]):
            raise InputError("journal.damaged", f"{self._path}: the row {kind!r} of slot {slot} is damaged")
        return bytes(found[0])

    def _put(self, kind: str, slot: int, subject: bytes, value: bytes) -> None:
        row = (kind, slot, subject, value, _sum(kind, slot, subject, value))
        failpoint.reach("journal.write.before")
        self._do("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)", *row)
        failpoint.reach("journal.write.after")

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _one(self, statement: str) -> Any:
        return self._run(statement).fetchone()[0]

    def _do(self, statement: str, *values: object) -> sqlite3.Cursor:
        """`_run`, and what fails is said; an open transaction is taken back."""
        try:
            return self._run(statement, *values)
        except _FAILURES as error:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> InputError | MachineError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_NOTADB"):
            return InputError("journal.format", f"{self._path}: {shown(str(error))}; expected a journal")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_ERROR")) or not name.startswith("SQLITE_"):
            return InputError("journal.damaged", f"{self._path}: {shown(str(error))}")
        return MachineError("journal.write", f"{self._path}: {shown(str(error))} ({name})")


def _sum(kind: str, slot: int, subject: bytes, value: bytes) -> bytes:
    """The checksum of a row."""
    return digest("journal-row", kind.encode(), le64(slot), subject, value)[:_SUM_BYTES]


def _take_lock(path: Path) -> int:
    """Refuse a place that is not ours alone, make an empty file if there is none; a descriptor that holds the lock.

    The lock is on a file beside it: closing any descriptor of the database would drop the locks that SQLite has there.
    """
    try:
        mode = os.stat(path.parent).st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            found = f"folder {path.parent} has mode {mode & 0o7777:04o}"
            raise MachineError("journal.exposed", f"{path}: {found}; others could put another file there")
        lock = os.open(path.with_name(path.name + "-lock"), _FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            descriptor = os.open(path, _FLAGS, 0o600)
            try:
                _check_own(path, os.fstat(descriptor))
            finally:
                os.close(descriptor)
            for suffix in ("-wal", "-shm", "-journal"):
                sibling = path.with_name(path.name + suffix)
                if os.path.lexists(sibling):
                    _check_own(sibling, os.lstat(sibling))
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(lock)
            raise
    except BlockingIOError:
        raise MachineError("journal.locked", f"{path}: somebody has this journal open") from None
    except OSError as error:
        raise MachineError("journal.open", f"{path}: {error.strerror}") from None
    return lock


def _check_own(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise MachineError("journal.open", f"{path}: not a regular file")
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        found = f"mode {facts.st_mode & 0o777:04o}, owner {facts.st_uid}"
        raise MachineError("journal.exposed", f"{path}: {found}; it must be yours alone: chmod 600")
