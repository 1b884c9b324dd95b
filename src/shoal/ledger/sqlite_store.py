"""The durable store: one SQLite file, every row with a checksum, every entry chained to the one before.

    entries  idx -> encoded entry                                   compacted ones stay, as the archive for auditors
    heads    "extent" -> hard state, floor and end of the log       "snapshot" -> the latest snapshot

Write-ahead log, ``synchronous=FULL``: when a call returns, its change is on the disk.  docs/FORMAT.md, "Ledger file".
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from shoal import failpoint
from shoal.errors import InputError, MachineError
from shoal.ledger.entry import GENESIS_PREV, Entry, decode_entry, encode_entry, entry_hash
from shoal.ledger.log_store import Extent, LogStore, Step
from shoal.ledger.sqlite_file import (
    FAILURES,
    check_place,
    connect,
    damaged,
    is_empty,
    look_through_wal,
    make_tables,
    note_made,
    row_sum,
    take_lock,
    was_made,
    write_ahead,
)
from shoal.ledger.store import HardState, Snapshot

#: in place: replacing the row would write a page more to the disk with each step, that of the table's index
_PUT_HEAD: Final = (
    "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data, sum = excluded.sum"
)
#: rows read at a time, so that nobody holds a long log in memory
_PAGE_ROWS: Final = 512


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The row "extent".  ``first``: lowest index that is held, archive included (last + 1 if none is)."""

    hard: HardState
    compacted: int
    first: int
    last_index: int
    last_term: int
    last_hash: bytes


class SqliteStore(LogStore):
    """See store.Store.  ``notes``: what was found at open and is worth a line to the operator."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at ``path``, or make it.  Reads and checks every row, in bounded memory.

        raises  InputError    ``store.damaged``: index and reason; nothing was changed (repair.py)
                              ``store.format``, ``store.version``: not a ledger, or a later one
                              ``store.lost``: the file is empty, but a ledger was made here before
                MachineError  ``store.locked``, ``store.exposed``, ``store.open``
        """
        self.path = path
        self.notes: list[str] = []
        self._broken = False
        check_place(path, create=True)
        self._lock = take_lock(path)
        try:
            report = look_through_wal(path)
            if report.lost:
                self.notes.append(f"{path}: the last transaction was not finished and was cut ({report.lost} pages)")
            self._connection = connect(path)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._open()
        except FAILURES as error:
            self.close()
            raise damaged(path, error) from None
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Make the tables or check every row; then begin a new generation."""
        if is_empty(self._connection):
            if was_made(self._lock):
                found = "empty, though a ledger was made here; what this node has voted for is lost"
                raise InputError("store.lost", f"{self.path}: {found}. Let the site join again, under a new file")
            make_tables(self._connection, "extent", msgspec.msgpack.encode(Head(HardState(), 0, 1, 0, 0, GENESIS_PREV)))
            note_made(self._lock)
        write_ahead(self.path, self._connection)
        head, snapshot = read_heads(self._connection, self.path)
        check_rows(self._connection, self.path, head)
        self._first = head.first
        hard = msgspec.structs.replace(head.hard, generation=head.hard.generation + 1)
        super().__init__(Extent(hard, snapshot, head.compacted, head.last_index, head.last_term, head.last_hash))
        self._write(Step(), self._extent)

    def close(self) -> None:
        """Give the file back.  Folding the write-ahead log in is SQLite's and may fail without harm."""
        if self._lock >= 0:
            self._connection.close()
            os.close(self._lock)
            self._lock = -1

    # --- what LogStore asks for ---------------------------------------------------------------------------------------

    def _write(self, step: Step, after: Extent) -> None:
        if self._broken or self._lock < 0:
            raise MachineError("store.broken", f"{self.path}: a write failed before; open the ledger again")
        first = self._first
        try:
            failpoint.reach("ledger.append.before")
            self._connection.execute("BEGIN IMMEDIATE")
            if step.restart:
                self._connection.execute("DELETE FROM entries")
                first = after.compacted + 1
            elif step.keep_to is not None:
                self._connection.execute("DELETE FROM entries WHERE idx > ?", (step.keep_to,))
            if step.snapshot is not None:
                self._put_head("snapshot", msgspec.msgpack.encode(step.snapshot))
            rows = ((e.index, data := encode_entry(e), row_sum("entries", e.index, data)) for e in step.entries)
            self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
            head = Head(after.hard, after.compacted, first, after.last_index, after.last_term, after.last_hash)
            self._put_head("extent", msgspec.msgpack.encode(head))
            failpoint.reach("ledger.append.inside")
            self._connection.execute("COMMIT")
            failpoint.reach("ledger.append.after")
        except FAILURES as error:
            self._broken = True
            raise damaged(self.path, error) from None
        except BaseException:
            self._broken = True
            raise
        self._first = first

    def _put_head(self, name: str, data: bytes) -> None:
        row = (name, data, row_sum(name, 0, data))
        self._connection.execute(_PUT_HEAD, row)

    def _read(self, first: int, last: int) -> Iterator[Entry]:
        return read_rows(self._connection, self.path, max(first, self._first), last)


def read_heads(connection: sqlite3.Connection, path: Path) -> tuple[Head, Snapshot | None]:
    """Both rows of the table ``heads``, checked.

    raises  InputError  ``store.damaged``
    """
    try:
        rows = {name: (data, sum_) for name, data, sum_ in connection.execute("SELECT name, data, sum FROM heads")}
    except FAILURES as error:
        raise damaged(path, error) from None
    for name, (data, sum_) in rows.items():
        if not isinstance(data, bytes) or row_sum(name, 0, data) != sum_:
            raise InputError("store.damaged", f"{path}: the row {name!r} does not have its checksum")
    if "extent" not in rows or not rows.keys() <= {"extent", "snapshot"}:
        raise InputError("store.damaged", f"{path}: the row that says where the log ends is missing")
    try:
        head = msgspec.msgpack.decode(rows["extent"][0], type=Head)
        snapshot = msgspec.msgpack.decode(rows["snapshot"][0], type=Snapshot) if "snapshot" in rows else None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError("store.damaged", f"{path}: {error}") from None
    if not 0 <= head.compacted <= (snapshot.index if snapshot else 0) or head.first > head.compacted + 1:
        raise InputError("store.damaged", f"{path}: compacted to {head.compacted} without a snapshot there")
    return head, snapshot


def read_row(path: Path, index: int, data: object, sum_: object) -> Entry:
    """The entry in a row.  raises  InputError  ``store.damaged``"""
    if not isinstance(data, bytes) or row_sum("entries", index, data) != sum_:
        raise InputError("store.damaged", f"{path}: entry {index} does not have its checksum")
    try:
        entry = decode_entry(data)
    except InputError as error:
        raise InputError("store.damaged", f"{path}: entry {index}: {error}") from None
    if entry.index != index:
        raise InputError("store.damaged", f"{path}: entry {entry.index} stands in the place of {index}")
    return entry


def read_rows(connection: sqlite3.Connection, path: Path, first: int, last: int) -> Iterator[Entry]:
    """Entries first..last, each checked by its checksum and against its neighbour; stops before a gap at the end.

    raises  InputError  ``store.damaged``
    """
    query = "SELECT idx, data, sum FROM entries WHERE idx BETWEEN ? AND ? ORDER BY idx LIMIT ?"
    expected: bytes | None = None
    while first <= last:
        try:
            rows = connection.execute(query, (first, last, _PAGE_ROWS)).fetchall()
        except FAILURES as error:
            raise damaged(path, error) from None
        for index, data, sum_ in rows:
            if index != first:
                raise InputError("store.damaged", f"{path}: entry {first} is missing")
            entry = read_row(path, index, data, sum_)
            if expected is not None and entry.prev != expected:
                raise InputError("store.damaged", f"{path}: entry {index} does not name the hash of the one before it")
            expected = entry_hash(entry)
            yield entry
            first += 1
        if not rows:
            return


def check_rows(connection: sqlite3.Connection, path: Path, head: Head) -> None:
    """Every entry is there, whole and chained, up to the end that the head tells.

    raises  InputError  ``store.damaged``
    """
    index, hash_, term = head.first - 1, GENESIS_PREV, 0
    for entry in read_rows(connection, path, head.first, head.last_index):
        if index == 0 and entry.prev != GENESIS_PREV:
            raise InputError("store.damaged", f"{path}: entry 1 names an entry before it")
        index, hash_, term = entry.index, entry_hash(entry), entry.term
    if index != head.last_index:
        raise InputError("store.damaged", f"{path}: entry {index + 1} is missing, the log has {head.last_index}")
    if head.first <= head.last_index and (hash_, term) != (head.last_hash, head.last_term):
        raise InputError("store.damaged", f"{path}: entry {index} is not the one that the log ended with")
    beyond = connection.execute("SELECT count(*) FROM entries WHERE idx < ? OR idx > ?", (head.first, index)).fetchone()
    if beyond[0]:
        raise InputError("store.damaged", f"{path}: {beyond[0]} entries outside {head.first}-{head.last_index}")
