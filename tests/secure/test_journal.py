"""What must not be forgotten is not: one suite for the journal in memory and the one on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.errors import InputError, MachineError
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
    journal = JournalFile(tmp_path / "journal.db")
    journal.keep_keys(b"OLD-ROOT" * 4)
    journal.keep_keys(b"NEW-ROOT" * 4)
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    journal.close()
    assert b"OLD-ROOT" not in everything and b"NEW-ROOT" in everything
