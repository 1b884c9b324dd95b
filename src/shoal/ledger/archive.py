"""Reads a node's ledger file for people, while the node may be running: what is committed, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shoal.errors import InputError, PeerError
from shoal.ledger.certificate import check_now, checked_before
from shoal.ledger.entry import GENESIS_INDEX, Entry, entry_hash
from shoal.ledger.export import Header
from shoal.ledger.ready import unpack_state
from shoal.ledger.sqlite_file import FAILURES, check_place, connect, damaged, is_empty
from shoal.ledger.sqlite_store import read_heads, read_rows
from shoal.ledger.validator import Ledger

#: how a database of SQLite begins
SQLITE_MAGIC: Final = b"SQLite format 3\x00"


class Archive:
    """The committed entries of a ledger file, up to the last one under a leader's seal.

    header  Header
    name    how messages call the file
    """

    def __init__(self, path: Path) -> None:
        """raises  InputError  ``store.damaged``, ``store.format``, ``store.empty``;  MachineError"""
        self.name = str(path)
        self._path = path
        check_place(path, create=False)
        self._connection = connect(path, read_only=True)
        try:
            if is_empty(self._connection):
                raise InputError("store.empty", f"{path}: holds no ledger yet")
            head, _ = read_heads(self._connection, path)
            if head.first != GENESIS_INDEX:
                found = f"begins with entry {head.first}, after a snapshot: it cannot be checked from the genesis on"
                raise InputError("store.partial", f"{path}: {found}; take the file of a member that was there before")
            last = self._last_sealed(head.hard.commit)
            self.header = Header(entry_hash(self._one(GENESIS_INDEX)), head.first, last, entry_hash(self._one(last)))
        except FAILURES as error:
            self.close()
            raise damaged(path, error) from None
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Entry]:
        return read_rows(self._connection, self._path, self.header.first, self.header.last)

    def close(self) -> None:
        self._connection.close()

    def _one(self, index: int) -> Entry:
        for entry in read_rows(self._connection, self._path, index, index):
            return entry
        raise InputError("store.damaged", f"{self._path}: entry {index} is missing")

    def _last_sealed(self, commit: int) -> int:
        """The last committed entry with a seal, or the genesis."""
        if commit < GENESIS_INDEX:
            raise InputError("store.empty", f"{self._path}: no entry is committed yet")
        for index in range(commit, GENESIS_INDEX, -1):
            if self._one(index).seal:
                return index
        return GENESIS_INDEX


def latest(path: Path) -> Ledger:
    """The ledger after the last entry that a node's file knows to be decided; the node may be running.

    raises  InputError  ``store.damaged``, ``store.format``, ``store.empty``;  MachineError
    """
    check_place(path, create=False)
    connection = connect(path, read_only=True)
    try:
        if is_empty(connection):
            raise InputError("store.empty", f"{path}: holds no ledger yet")
        head, snapshot = read_heads(connection, path)
        content = None if snapshot is None else unpack_state(snapshot.state)
        ledger = Ledger() if content is None else Ledger.decode(content.data)
        ledger.check = checked_before
        for entry in read_rows(connection, path, max(ledger.state.index + 1, head.first), head.hard.commit):
            ledger.apply(entry)
    except FAILURES as error:
        raise damaged(path, error) from None
    except PeerError as error:
        raise InputError("store.damaged", f"{path}: {error}") from None
    finally:
        connection.close()
    if not ledger.state.index:
        raise InputError("store.empty", f"{path}: no entry is committed yet")
    ledger.check = check_now
    return ledger
