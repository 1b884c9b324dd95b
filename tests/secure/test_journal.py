"""What must not be forgotten is not: one suite for the journal in memory and the one on disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import ArgumentError, InputError, MachineError
from shoal.limits import JOURNAL_SLOTS_KEPT, KEPT_KEYS_BYTES_MAX
from shoal.secure.journal import Journal, MemoryJournal
from shoal.secure.journal_file import JournalFile

Reopen = Callable[[], Journal]


@pytest.fixture(params=["memory", "file"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path):
    """The journal again, as after a restart."""
    if request.param == "memory":
        kept = MemoryJournal()
        yield lambda: kept
        return
    opened: list[JournalFile] = []

    def again() -> Journal:
        if opened:
            opened[-1].close()
        opened.append(JournalFile(tmp_path / "journal.db"))
        return opened[-1]

    yield again
    opened[-1].close()


def test_a_slot_is_claimed_once(reopen: Reopen) -> None:
    assert reopen().claim(5)
    journal = reopen()
    assert not journal.claim(5) and not journal.claim(4) and not journal.claim(0)
    assert journal.claim(6) and journal.claim(2**62) and not reopen().claim(7)


def test_one_survivor_set_for_ever(reopen: Reopen) -> None:
    assert reopen().sign(5, b"\x0f")
    journal = reopen()
    assert journal.sign(5, b"\x0f") and not journal.sign(5, b"\x07") and not journal.sign(5, b"")
    assert journal.sign(6, b"\x07") and not reopen().sign(6, b"\x0f")


def test_one_half_of_each(reopen: Reopen) -> None:
    assert reopen().open_half(5, b"a", 1)
    journal = reopen()
    assert journal.open_half(5, b"a", 1) and not journal.open_half(5, b"a", 2)
    assert journal.open_half(5, b"b", 2) and journal.open_half(6, b"a", 2)
    assert not reopen().open_half(5, b"b", 1)


def test_one_upload(reopen: Reopen) -> None:
    assert reopen().commit(5, b"root")
    assert reopen().commit(5, b"root") and not reopen().commit(5, b"other") and reopen().commit(6, b"other")


def test_one_certificate_whichever_set_was_signed(reopen: Reopen) -> None:
    assert reopen().sign(5, b"\x0f") and reopen().certify(5, b"\x07")
    journal = reopen()
    assert journal.certify(5, b"\x07") and not journal.certify(5, b"\x0f") and not journal.sign(5, b"\x07")
    assert journal.certify(6, b"\x0f")


def test_the_last_slot_is_known(reopen: Reopen) -> None:
    assert reopen().last_slot() == -1
    assert reopen().claim(0) and reopen().last_slot() == 0
    assert reopen().claim(2**63 - 1) and not reopen().claim(3) and reopen().last_slot() == 2**63 - 1


def test_old_slots_are_dropped_and_never_decided_anew(reopen: Reopen) -> None:
    """What is dropped is as final as what is kept; what is kept, stays."""
    journal = reopen()
    assert journal.claim(5) and journal.sign(5, b"U") and journal.open_half(5, b"a", 1) and journal.sign(6, b"V")
    journal.keep_keys(b"state")
    assert journal.claim(4 + JOURNAL_SLOTS_KEPT) and journal.sign(5, b"U") and not journal.sign(5, b"W")
    assert journal.claim(5 + JOURNAL_SLOTS_KEPT)
    journal = reopen()
    for value in (b"U", b"W"):
        assert not journal.sign(5, value) and not journal.certify(5, value) and not journal.commit(5, value)
    assert not journal.open_half(5, b"a", 1) and not journal.open_half(5, b"b", 2)
    assert journal.sign(6, b"V") and not journal.sign(6, b"W") and journal.keys() == b"state"
    assert journal.last_slot() == 5 + JOURNAL_SLOTS_KEPT


@pytest.mark.parametrize("slot", [-1, 2**63, 2**64])
def test_no_slot_is_refused(reopen: Reopen, slot: int) -> None:
    journal = reopen()
    for decide in (
        lambda: journal.claim(slot),
        lambda: journal.sign(slot, b""),
        lambda: journal.certify(slot, b""),
        lambda: journal.commit(slot, b""),
        lambda: journal.open_half(slot, b"a", 1),
    ):
        with pytest.raises(ArgumentError) as raised:
            decide()
        assert raised.value.code == "journal.slot"
    assert journal.last_slot() == -1


def test_too_many_keys_are_refused(reopen: Reopen) -> None:
    journal = reopen()
    with pytest.raises(ArgumentError) as raised:
        journal.keep_keys(bytes(KEPT_KEYS_BYTES_MAX + 1))
    assert raised.value.code == "journal.keys" and journal.keys() is None


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    before = os.umask(0)
    try:
        journal = JournalFile(path)
        journal.claim(1)
        modes = [os.stat(p).st_mode & 0o777 for p in tmp_path.iterdir()]
        journal.close()
    finally:
        os.umask(before)
    assert set(modes) == {0o600}
    path.chmod(0o644)
    with pytest.raises(MachineError) as raised:
        JournalFile(path)
    assert raised.value.code == "journal.exposed"
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(MachineError) as raised:
        JournalFile(path)
    assert raised.value.code == "journal.exposed"
    tmp_path.chmod(0o700)
    wal = path.with_name("journal.db-wal")
    wal.unlink(missing_ok=True)
    wal.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError) as raised:
        JournalFile(path)
    assert raised.value.code == "journal.open" and not (tmp_path / "elsewhere").exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    """Two that decide on one file would not see each other's decisions in time; also within one process."""
    journal = JournalFile(tmp_path / "journal.db")
    with pytest.raises(MachineError) as raised:
        JournalFile(tmp_path / "journal.db")
    assert raised.value.code == "journal.locked"
    assert journal.claim(1)
    journal.close()
    again = JournalFile(tmp_path / "journal.db")
    assert not again.claim(1)
    again.close()


def test_other_databases_and_later_journals_are_refused(tmp_path: Path) -> None:
    for statement in ("CREATE TABLE other (a)", "PRAGMA user_version=2", "PRAGMA application_id=77"):
        path = tmp_path / "journal.db"
        JournalFile(path).close()
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(InputError) as raised:
            JournalFile(path)
        assert raised.value.code == "journal.format", statement
        path.unlink()


def test_any_altered_byte_of_a_row_is_noticed(tmp_path: Path) -> None:
    """Bit rot must not turn a decision into another one, or lower the last slot."""
    path = tmp_path / "journal.db"
    journal = JournalFile(path)
    assert journal.claim(300) and journal.sign(300, b"the survivors") and journal.open_half(300, b"a subject", 2)
    journal.close()
    for statement in (
        "UPDATE kept SET value = x'2b01000000000000' WHERE kind = 'claim'",
        "UPDATE kept SET slot = 301 WHERE kind = 'sign'",
        "UPDATE kept SET value = x'01' WHERE kind = 'open'",
        "UPDATE kept SET subject = x'00' WHERE kind = 'open'",
        "UPDATE kept SET kind = 'commit' WHERE kind = 'sign'",
    ):
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        with sqlite3.connect(copy) as connection:
            assert connection.execute(statement).rowcount == 1
        connection.close()
        with pytest.raises(InputError) as raised:
            JournalFile(copy)
        assert raised.value.code == "journal.damaged", statement


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_bytes_are_a_journal_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A damaged file gives decisions as they were, or one documented error; never another decision."""
    folder = tmp_path_factory.mktemp("damaged")
    path = folder / "journal.db"
    journal = JournalFile(path)
    assert journal.claim(7) and journal.sign(7, b"U") and journal.open_half(7, b"x", 1)
    journal.close()
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw), len(raw) // 2, 512, 1]))])
    try:
        journal = JournalFile(path)
        try:
            assert not journal.claim(7) and not journal.sign(7, b"V") and not journal.open_half(7, b"x", 2)
        finally:
            journal.close()
    except (InputError, MachineError) as error:
        assert error.code in ("journal.format", "journal.damaged", "journal.write", "journal.open")


def test_links_and_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"not a database, but long enough to be taken for one\n" * 100)
    text.chmod(0o600)
    with pytest.raises(InputError) as raised:
        JournalFile(text)
    assert raised.value.code == "journal.format"
    (tmp_path / "link").symlink_to(text)
    with pytest.raises(MachineError) as failed:
        JournalFile(tmp_path / "link")
    assert failed.value.code == "journal.open"


def test_a_decision_survives_a_kill(tmp_path: Path) -> None:
    """The process dies right after the answer."""
    code = (
        "import os, sys; from pathlib import Path; from shoal.secure.journal_file import JournalFile\n"
        "j = JournalFile(Path(sys.argv[1])); assert j.claim(9) and j.sign(9, b'U') and j.open_half(9, b'x', 2)\n"
        "os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "journal.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    journal = JournalFile(path)
    assert not journal.claim(9) and not journal.sign(9, b"V") and not journal.open_half(9, b"x", 1)
    journal.close()


def test_keys_to_come_are_kept_and_overwritten(reopen: Reopen) -> None:
    assert reopen().keys() is None
    reopen().keep_keys(b"first" * 20)
    journal = reopen()
    assert journal.keys() == b"first" * 20
    journal.keep_keys(b"second")
    assert reopen().keys() == b"second"


def test_overwritten_keys_are_in_no_file(tmp_path: Path) -> None:
    """Neither where the new ones lie, nor behind them where they are shorter, nor in the log."""
    journal = JournalFile(tmp_path / "journal.db")
    journal.keep_keys(b"OLD-ROOT" * 60)
    assert journal.claim(1)
    for state in (b"NEW-ROOT" * 4, b"ANOTHER." * 60, b"NEW-ROOT"):
        journal.keep_keys(state)
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    journal.close()
    assert b"OLD-ROOT" not in everything and b"ANOTHER." not in everything and b"NEW-ROOT" in everything
