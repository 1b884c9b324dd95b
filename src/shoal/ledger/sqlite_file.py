"""The file under a ledger's store: who may open it, what kind of file it must be, and its tables.

One process at a time: an advisory lock on ``FILE-lock``.  (Not on the database itself: closing any descriptor of it
would drop the locks that SQLite holds there.)
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from shoal.errors import InputError, MachineError, shown
from shoal.ledger.digest import digest, le64
from shoal.ledger.wal import WalReport, check_wal

#: "SHOA" in the database header; another number is another program's file
APPLICATION_ID: Final = 0x53484F41
FORMAT_VERSION: Final = 1
SUM_BYTES: Final = 16
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: what the lock file says once the ledger beside it was made
_MADE: Final = b"the ledger beside this file was made\n"
#: bytes of a write-ahead log that is looked through at open; it is folded into the file every 1000 pages
WAL_BYTES_MAX: Final = 256 * 2**20

#: what sqlite3 raises.  A message of SQLite that quotes damaged bytes cannot be decoded: that is damage, too.
FAILURES: Final = (sqlite3.Error, UnicodeError)

TABLES: Final = {
    "entries": "CREATE TABLE entries (idx INTEGER PRIMARY KEY, data BLOB NOT NULL, sum BLOB NOT NULL) STRICT",
    "heads": "CREATE TABLE heads (name TEXT PRIMARY KEY, data BLOB NOT NULL, sum BLOB NOT NULL) STRICT",
}


def row_sum(where: str, index: int, data: bytes) -> bytes:
    """The checksum of a row: it covers which table and which row the data stand in."""
    return digest("row", where.encode(), le64(index), data)[:SUM_BYTES]


def check_place(path: Path, *, create: bool) -> None:
    """Refuse a path that is not ours alone; make an empty file if there is none and ``create`` says so.

    raises  MachineError  ``store.open``, ``store.exposed``;  InputError  ``store.format``
    """
    folder = path.parent
    try:
        facts = os.stat(folder)
        if facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX:
            found = f"folder {folder} has mode {facts.st_mode & 0o7777:04o}"
            raise MachineError("store.exposed", f"{path}: {found}; others could put another file there")
        descriptor = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
        try:
            _check_facts(path, os.fstat(descriptor))
            if create:
                _sync_folder(folder)
        finally:
            os.close(descriptor)
        for suffix in ("-wal", "-shm", "-journal"):
            sibling = path.with_name(path.name + suffix)
            if os.path.lexists(sibling):
                _check_facts(sibling, os.lstat(sibling))
    except OSError as error:
        raise MachineError("store.open", f"{path}: {error.strerror}") from None


def _check_facts(path: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise InputError("store.format", f"{path}: not a regular file")
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        found = f"mode {facts.st_mode & 0o777:04o}, owner {facts.st_uid}"
        raise MachineError("store.exposed", f"{path}: {found}; a ledger must be yours alone: chmod 600")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(path: Path) -> int:
    """A descriptor that holds the ledger's lock until it is closed or the process ends.

    raises  MachineError  ``store.locked``: another process has the ledger open; ``store.open``
    """
    lock = path.with_name(path.name + "-lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MachineError("store.open", f"{lock}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise MachineError("store.locked", f"{path}: another process has this ledger open") from None
    return descriptor


def look_through_wal(path: Path) -> WalReport:
    """What SQLite will find in the write-ahead log beside ``path``.

    raises  InputError  ``store.damaged``: an acknowledged transaction in it is damaged
    """
    wal = path.with_name(path.name + "-wal")
    try:
        descriptor = os.open(wal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return WalReport()
    except OSError as error:
        raise MachineError("store.open", f"{wal}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > WAL_BYTES_MAX:
            raise InputError("store.damaged", f"{wal}: more than {WAL_BYTES_MAX} bytes")
        report = check_wal(file.read(WAL_BYTES_MAX))
    if report.damaged:
        found = f"frame {report.frames + 1} of the write-ahead log is damaged, and acknowledged entries follow it"
        raise InputError("store.damaged", f"{path}: {found}; keep the files, and let the site join again")
    return report


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """The database, its tables checked unless there are none yet (``is_empty``).  Nothing in a foreign file is run.

    raises  InputError  ``store.format``, ``store.version``, ``store.damaged``;  MachineError  ``store.open``
    """
    uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    except sqlite3.Error as error:
        raise MachineError("store.open", f"{path}: {error}") from None
    try:
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        if not is_empty(connection):
            _check_format(path, connection)
    except FAILURES as error:
        connection.close()
        raise damaged(path, error) from None
    except InputError:
        connection.close()
        raise
    return connection


def is_empty(connection: sqlite3.Connection) -> bool:
    """True if there is nothing in the file, not even tables: it is new, or making it was interrupted."""
    return bool(connection.execute("PRAGMA page_count").fetchone()[0] == 0)


def make_tables(connection: sqlite3.Connection, name: str, head: bytes) -> None:
    """All tables and the first head, in one transaction: a crash leaves an empty file or a whole one."""
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    for statement in TABLES.values():
        connection.execute(statement)
    connection.execute("INSERT INTO heads VALUES (?, ?, ?)", (name, head, row_sum(name, 0, head)))
    connection.execute("COMMIT")


def write_ahead(path: Path, connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, synced at each commit.  raises  MachineError  ``store.open``"""
    if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
        raise MachineError("store.open", f"{path}: this file system has no shared memory for SQLite's WAL")
    connection.execute("PRAGMA synchronous=FULL")


def was_made(lock: int) -> bool:
    """True if the ledger under this lock was made once: then an empty file is a lost one."""
    return os.pread(lock, len(_MADE), 0) == _MADE


def note_made(lock: int) -> None:
    os.pwrite(lock, _MADE, 0)
    os.fsync(lock)


def damaged(path: Path, error: Exception) -> InputError | MachineError:
    """What a failure of SQLite means: the file's bytes, or the machine."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or not name.startswith("SQLITE_"):
        return InputError("store.damaged", f"{path}: the database is damaged: {shown(str(error))}")
    return MachineError("store.write", f"{path}: {shown(str(error))} ({name})")


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        raise InputError("store.format", f"{path}: not a ledger of Shoal (application id {application:#x})")
    if version != FORMAT_VERSION:
        found = f"ledger file of version {version}; this version of Shoal reads {FORMAT_VERSION}"
        raise InputError("store.version", f"{path}: {found}")
    tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    if tables != TABLES:
        raise InputError("store.format", f"{path}: other tables than a ledger has")
    faults = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    if faults != ["ok"]:
        raise InputError("store.damaged", f"{path}: the database is damaged: {shown(str(faults[0]))}")
