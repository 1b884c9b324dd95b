"""Mends a ledger file whose rows are damaged, with entries from peers, and never by guessing.

The chain says what must stand in a damaged place: its hash is the ``prev`` of the next whole entry, or the end that the
head row tells.  So an entry from a peer either has that hash, or is refused.  Where no peer has the entry:

*  above the commit index, the log is cut before it.  This node may have acknowledged what it cuts, so it is barred from
   voting until its peers let it in anew (store.HardState.barred);
*  at or below the commit index, nothing is changed and the index is named.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from shoal.errors import InputError
from shoal.ledger.entry import GENESIS_PREV, Entry, encode_entry, entry_hash
from shoal.ledger.sqlite_file import (
    FAILURES,
    check_place,
    connect,
    damaged,
    look_through_wal,
    row_sum,
    take_lock,
    write_ahead,
)
from shoal.ledger.sqlite_store import Head, read_heads, read_row

#: index -> the entry there as a peer has it, or None
Fetch = Callable[[int], Entry | None]


class Repair(msgspec.Struct, frozen=True):
    """What was done.

    mended    indices whose entries came from peers
    cut_from  first index that was forgotten, or None
    """

    mended: tuple[int, ...] = ()
    cut_from: int | None = None


def find_damage(connection: sqlite3.Connection, path: Path, head: Head) -> list[tuple[int, str]]:
    """(index, reason) of every entry first..last that is missing, altered or out of the chain, ascending."""
    found: list[tuple[int, str]] = []
    after: Entry | None = None
    for index in range(head.last_index, head.first - 1, -1):
        expected = head.last_hash if index == head.last_index else after.prev if after is not None else None
        after, reason = _whole(connection, path, index, expected)
        if after is None:
            found.append((index, reason))
    return found[::-1]


def _whole(connection: sqlite3.Connection, path: Path, index: int, expected: bytes | None) -> tuple[Entry | None, str]:
    row = connection.execute("SELECT data, sum FROM entries WHERE idx = ?", (index,)).fetchone()
    if row is None:
        return None, "is missing"
    try:
        entry = read_row(path, index, row[0], row[1])
    except InputError as error:
        return None, str(error)
    if expected is not None and entry_hash(entry) != expected:
        return None, "does not have the hash that the entry after it names"
    return entry, ""


def repair(path: Path, fetch: Fetch) -> Repair:
    """Mend the closed ledger at ``path``.  One transaction: all of it, or nothing.

    raises  InputError    ``store.damaged``: the hard state or a committed entry is lost (index and reason), or SQLite
                          cannot read the file; nothing was changed
            MachineError  ``store.locked``, ``store.open``, ``store.write``
    """
    check_place(path, create=False)
    lock = take_lock(path)
    try:
        look_through_wal(path)
        connection = connect(path)
        try:
            write_ahead(path, connection)
            head, _ = read_heads(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            done = _mend(connection, path, head, fetch)
            connection.execute("COMMIT")
        except FAILURES as error:
            raise damaged(path, error) from None
        finally:
            connection.close()
    finally:
        os.close(lock)
    return done


def _mend(connection: sqlite3.Connection, path: Path, head: Head, fetch: Fetch) -> Repair:
    bad = find_damage(connection, path, head)
    lost = dict(bad)
    mended: list[int] = []
    # From the end: each mended entry says which hash the one before it has.
    for index, _ in reversed(bad):
        entry = fetch(index)
        if entry is None or entry.index != index or entry_hash(entry) != _expected(connection, path, head, index):
            continue
        data = encode_entry(entry)
        row = (index, data, row_sum("entries", index, data))
        connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", row)
        mended.append(index)
        del lost[index]
    cut_from = min(lost, default=None)
    if cut_from is not None:
        if cut_from <= head.hard.commit:
            found = f"entry {cut_from} {lost[cut_from]}; it is committed and no peer gave it"
            raise InputError("store.damaged", f"{path}: {found}. Nothing was changed")
        _cut(connection, path, head, cut_from)
    return Repair(tuple(sorted(i for i in mended if cut_from is None or i < cut_from)), cut_from)


def _expected(connection: sqlite3.Connection, path: Path, head: Head, index: int) -> bytes | None:
    """The hash that must stand at ``index``; None if the entry after it is lost too."""
    if index == head.last_index:
        return head.last_hash
    after, _ = _whole(connection, path, index + 1, None)
    return after.prev if after is not None else None


def _cut(connection: sqlite3.Connection, path: Path, head: Head, first_lost: int) -> None:
    connection.execute("DELETE FROM entries WHERE idx >= ?", (first_lost,))
    last, _ = _whole(connection, path, first_lost - 1, None)
    hard = msgspec.structs.replace(head.hard, barred=max(head.hard.barred, head.last_index))
    end = (last.term, entry_hash(last)) if last is not None else _floor(connection, path, first_lost - 1)
    head = msgspec.structs.replace(
        head,
        hard=hard,
        last_index=first_lost - 1,
        last_term=end[0],
        last_hash=end[1],
        first=min(head.first, first_lost),
    )
    data = msgspec.msgpack.encode(head)
    connection.execute("INSERT OR REPLACE INTO heads VALUES ('extent', ?, ?)", (data, row_sum("extent", 0, data)))


def _floor(connection: sqlite3.Connection, path: Path, index: int) -> tuple[int, bytes]:
    """Term and hash of what the log rests on when no entry is left: the snapshot at ``index``, or nothing."""
    _, snapshot = read_heads(connection, path)
    if snapshot is not None and snapshot.index == index:
        return snapshot.term, snapshot.hash
    if index == 0:
        return 0, GENESIS_PREV
    raise InputError("store.damaged", f"{path}: entry {index} is lost, and so is what came before it")
