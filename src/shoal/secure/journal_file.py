"""The journal on disk: one SQLite file, mode 0600, ``synchronous=FULL``; a decision is there before it is answered."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from shoal.errors import InputError, MachineError, shown

#: "shjo", so that other SQLite files are told apart
_APPLICATION: Final = 0x73686A6F
_VERSION: Final = 1
_TABLES: Final = """
CREATE TABLE kept (kind TEXT NOT NULL, slot INTEGER NOT NULL, subject BLOB NOT NULL, value BLOB NOT NULL,
                   PRIMARY KEY (kind, slot, subject)) WITHOUT ROWID, STRICT
"""


class JournalFile:
    """See journal.Journal.

    raises  MachineError  ``journal.open``, ``journal.exposed``, ``journal.write``
            InputError    ``journal.format``: the file is no journal, or a later one
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MachineError("journal.open", f"{path}: {error.strerror}") from None
        mode = os.fstat(descriptor).st_mode & 0o777
        os.close(descriptor)
        if mode & 0o077:
            raise MachineError("journal.exposed", f"{path}: mode {mode:04o}; it must be yours alone: chmod 600")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise InputError("journal.format", f"{path}: {shown(str(error))}; expected a journal") from None
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA secure_delete=ON")
        found = run("PRAGMA application_id").fetchone()[0], run("PRAGMA user_version").fetchone()[0]
        if found == (0, 0) and not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            run("BEGIN IMMEDIATE")
            run(_TABLES)
            run(f"PRAGMA application_id={_APPLICATION}")
            run(f"PRAGMA user_version={_VERSION}")
            run("COMMIT")
        elif found != (_APPLICATION, _VERSION):
            raise InputError("journal.format", f"{self._path}: not a journal of version {_VERSION}")
        fault = run("PRAGMA quick_check").fetchone()[0]
        if fault != "ok":
            raise InputError("journal.format", f"{self._path}: damaged: {shown(str(fault))}")

    def claim(self, slot: int) -> bool:
        last = self._value("claim", 0, b"")
        if last is not None and slot <= int.from_bytes(last, "little"):
            return False
        self._write("INSERT OR REPLACE INTO kept VALUES ('claim', 0, x'', ?)", (slot.to_bytes(8, "little"),))
        return True

    def sign(self, slot: int, survivors: bytes) -> bool:
        return self._keep("sign", slot, b"", survivors)

    def open_half(self, slot: int, subject: bytes, which: int) -> bool:
        return self._keep("open", slot, subject, bytes([which]))

    def commit(self, slot: int, root: bytes) -> bool:
        return self._keep("commit", slot, b"", root)

    def keep_keys(self, state: bytes) -> None:
        self._write("INSERT OR REPLACE INTO kept VALUES ('keys', 0, x'', ?)", (state,))
        # The write-ahead log holds the old state until its pages are folded in.  (What a disk keeps of blocks that
        # were overwritten nobody can promise.)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def keys(self) -> bytes | None:
        return self._value("keys", 0, b"")

    def close(self) -> None:
        self._connection.close()

    def _keep(self, kind: str, slot: int, subject: bytes, value: bytes) -> bool:
        kept = self._value(kind, slot, subject)
        if kept is None:
            self._write("INSERT INTO kept VALUES (?, ?, ?, ?)", (kind, slot, subject, value))
            return True
        return kept == value

    def _value(self, kind: str, slot: int, subject: bytes) -> bytes | None:
        row = self._connection.execute(
            "SELECT value FROM kept WHERE kind = ? AND slot = ? AND subject = ?", (kind, slot, subject)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise MachineError("journal.write", f"{self._path}: {error}") from None
