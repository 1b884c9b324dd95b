"""The file on disk: whose it is, what a crash or a flipped bit does to it, and how it is mended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from store_conformance import VOTER, chain, snapshot_of

from shoal.errors import InputError, MachineError
from shoal.ledger.entry import Entry
from shoal.ledger.repair import Repair, repair
from shoal.ledger.sqlite_file import look_through_wal
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.store import HardState
from shoal.ledger.wal import WalReport, check_wal


def filled(path: Path, count: int = 30, commit: int = 20) -> list[Entry]:
    """A closed ledger with ``count`` entries, the first ``commit`` committed."""
    store, entries = SqliteStore(path), chain(count)
    for at in range(0, count, 3):
        store.append(entries[at : at + 3])
    store.save_hard_state(HardState(1, VOTER, commit))
    store.close()
    return entries


def copied(path: Path, folder: Path) -> Path:
    """A copy of a ledger and its write-ahead log, as a crash at this instant would leave them."""
    folder.mkdir(mode=0o700)
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, folder / source.name)
            (folder / source.name).chmod(0o600)
    return folder / path.name


# --- whose file it is -------------------------------------------------------------------------------------------------


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = SqliteStore(tmp_path / "ledger.db")
        store.append(chain(3))
        modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    finally:
        os.umask(old)
        store.close()
    assert set(modes) == {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-lock"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_files_that_others_may_touch_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    path.chmod(mode)
    with pytest.raises(MachineError, match="chmod 600") as caught:
        SqliteStore(path)
    assert caught.value.code == "store.exposed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    os.chown(path, 12345, -1)
    with pytest.raises(MachineError, match="owner 12345"):
        SqliteStore(path)


def test_folders_that_others_may_change_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(MachineError, match="mode 0777"):
        SqliteStore(folder / "ledger.db")
    folder.chmod(0o1777)
    SqliteStore(folder / "ledger.db").close()


def test_only_regular_files(tmp_path: Path) -> None:
    filled(tmp_path / "real.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db", 0o600)
    for name in ("link.db", "folder.db", "pipe.db"):
        with pytest.raises((MachineError, InputError)):
            SqliteStore(tmp_path / name)
    (tmp_path / "real.db-wal").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not a regular file"):
        SqliteStore(tmp_path / "real.db")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="No such file"):
        SqliteStore(tmp_path / "none" / "ledger.db")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    with pytest.raises(MachineError, match="another process") as caught:
        SqliteStore(path)
    assert caught.value.code == "store.locked"
    store.close()
    store.close()
    SqliteStore(path).close()


def test_a_closed_store_is_closed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    store.close()
    with pytest.raises(MachineError):
        store.append(chain(1))


# --- what is no ledger ------------------------------------------------------------------------------------------------


def with_sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("PRAGMA user_version=2", "store.version"),
        ("PRAGMA application_id=7", "store.format"),
        ("CREATE TABLE more (x)", "store.format"),
        ("CREATE TRIGGER t AFTER INSERT ON heads BEGIN DELETE FROM entries; END", "store.format"),
        ("CREATE VIEW v AS SELECT * FROM entries", "store.format"),
        ("ALTER TABLE entries ADD COLUMN extra BLOB", "store.format"),
        ("DROP TABLE heads", "store.format"),
        ("DELETE FROM heads", "store.damaged"),
        ("INSERT INTO heads VALUES ('more', x'00', x'00')", "store.damaged"),
        ("DELETE FROM entries WHERE idx = 30", "store.damaged"),
        ("DELETE FROM entries WHERE idx = 7", "store.damaged"),
        ("DELETE FROM entries WHERE idx = 1", "store.damaged"),
        ("DELETE FROM entries", "store.damaged"),
        ("UPDATE entries SET idx = 31 WHERE idx = 30", "store.damaged"),
        ("INSERT INTO entries SELECT 31, data, sum FROM entries WHERE idx = 30", "store.damaged"),
        ("INSERT INTO entries SELECT 0, data, sum FROM entries WHERE idx = 30", "store.damaged"),
        ("UPDATE entries SET data = CAST(data || x'00' AS BLOB) WHERE idx = 9", "store.damaged"),
        ("UPDATE entries SET sum = zeroblob(16) WHERE idx = 9", "store.damaged"),
        ("UPDATE heads SET data = zeroblob(10)", "store.damaged"),
    ],
)
def test_what_is_no_whole_ledger(tmp_path: Path, statement: str, code: str) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    with_sql(path, statement)
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        SqliteStore(path)
    assert caught.value.code == code and str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_swapped_entries_are_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    filled(path)
    swap = "UPDATE entries SET data = (SELECT data FROM entries WHERE idx = 13 - o.idx) FROM entries o"
    with_sql(path, f"{swap} WHERE entries.idx = o.idx AND o.idx IN (6, 7)")
    with pytest.raises(InputError, match="entry 6"):
        SqliteStore(path)


def test_rows_rewritten_with_good_checksums_are_found_by_the_chain(tmp_path: Path) -> None:
    """Somebody who knows the format: another entry in the place of the ninth, its row's checksum made anew."""
    from shoal.ledger.entry import encode_entry
    from shoal.ledger.sqlite_file import row_sum

    path = tmp_path / "ledger.db"
    entries = filled(path)
    data = encode_entry(msgspec.structs.replace(entries[8], payload=b"forged"))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entries SET data = ?, sum = ? WHERE idx = 9", (data, row_sum("entries", 9, data)))
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="entry 10 does not name the hash"):
        SqliteStore(path)


@pytest.mark.parametrize("data", [b"not a database, " * 600, b"SQLite format 3\x00" + bytes(5000), os.urandom(8192)])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises((InputError, MachineError)):
        SqliteStore(path)
    assert path.read_bytes() == data


def test_a_lost_ledger_is_not_begun_anew(tmp_path: Path) -> None:
    """An empty file in the place of a ledger would forget every vote: that must not pass for a first start."""
    path = tmp_path / "ledger.db"
    filled(path)
    for lose in (lambda: path.write_bytes(b""), path.unlink):
        lose()
        with pytest.raises(InputError, match="what this node has voted for is lost") as caught:
            SqliteStore(path)
        assert caught.value.code == "store.lost"


def test_a_first_start_that_was_interrupted_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch(0o600)
    store = SqliteStore(path)
    assert store.load()[0].generation == 1
    store.close()


# --- crashes ----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from store_conformance import chain
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.store import HardState
store = SqliteStore(Path(sys.argv[1]))
held = store.load()[1]
for entry in chain(400)[len(held):]:
    store.append([entry])
    store.save_hard_state(HardState(1, b"", entry.index))
    sys.stdout.write(f"{entry.index}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path, entries, told = tmp_path / "ledger.db", chain(400), 0
    for turn in range(6):
        command = [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 5 * turn):
                told = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            told = max([told, *map(int, writer.stdout.read().split())])
        assert writer.returncode == -signal.SIGKILL
        store = SqliteStore(path)
        hard, held, _ = store.load()
        store.close()
        assert held == entries[: len(held)] and len(held) >= told
        assert hard.commit >= told and hard.generation == 2 * (turn + 1)


def test_a_copy_at_any_point_holds_what_was_acknowledged(tmp_path: Path) -> None:
    path, entries = tmp_path / "ledger.db", chain(40)
    store = SqliteStore(path)
    for at, entry in enumerate(entries):
        store.append([entry])
        if at % 4 == 0:
            copy = SqliteStore(copied(path, tmp_path / f"copy-{at}"))
            assert copy.load()[1] == entries[: at + 1] and copy.notes == []
            copy.close()
    store.close()


def test_a_torn_tail_is_cut_and_said(tmp_path: Path) -> None:
    """Every length of the last transaction: what was acknowledged before it stays."""
    path, entries = tmp_path / "ledger.db", chain(12)
    store = SqliteStore(path)
    store.append(entries[:11])
    wal = path.with_name("ledger.db-wal")
    whole = wal.stat().st_size
    store.append(entries[11:])
    full = wal.stat().st_size
    lengths = sorted({whole, whole + 1, full - 1, *random.Random(1).sample(range(whole, full), 12)})
    for length in lengths:
        copy = copied(path, tmp_path / f"cut-{length}")
        torn = copy.with_name("ledger.db-wal")
        os.truncate(torn, length)
        opened = SqliteStore(copy)
        assert opened.load()[1] == entries[:11]
        assert bool(opened.notes) == (length > whole)
        opened.close()
        # the same length, but the rest is zeros, or old bytes
        for at, rest in enumerate((bytes(full - length), b"\xa5" * (full - length))):
            copy = copied(path, tmp_path / f"fill-{length}-{at}")
            torn = copy.with_name("ledger.db-wal")
            torn.write_bytes(torn.read_bytes()[:length] + rest)
            opened = SqliteStore(copy)
            assert opened.load()[1] == entries[:11]
            opened.close()
    store.close()


def test_a_damaged_acknowledged_transaction_is_no_torn_tail(tmp_path: Path) -> None:
    path, entries = tmp_path / "ledger.db", chain(12)
    store = SqliteStore(path)
    for entry in entries:
        store.append([entry])
    copy = copied(path, tmp_path / "copy")
    store.close()
    wal = copy.with_name("ledger.db-wal")
    data = bytearray(wal.read_bytes())
    data[32 + 24 + 100] ^= 1
    wal.write_bytes(data)
    with pytest.raises(InputError, match="acknowledged entries follow it") as caught:
        SqliteStore(copy)
    assert caught.value.code == "store.damaged"
    assert wal.read_bytes() == data


def outcome(path: Path) -> tuple[str, list[Entry], HardState | None]:
    """ "refused", or what was said at open; the entries; the hard state."""
    try:
        store = SqliteStore(path)
    except (InputError, MachineError):
        return "refused", [], None
    try:
        hard, entries, _ = store.load()
        return "".join(store.notes), entries, hard
    finally:
        store.close()


@pytest.mark.parametrize("part", ["", "-wal"])
def test_a_flipped_bit_is_never_accepted_in_silence(tmp_path: Path, part: str) -> None:
    path, draw = tmp_path / "ledger.db", random.Random(7)
    entries = chain(25)
    store = SqliteStore(path)
    store.append(entries[:10])
    if not part:
        store.close()
        store = SqliteStore(path)
        filling = entries[10:]
        store.append(filling)
        store.save_hard_state(HardState(1, VOTER, 12))
        store.close()
    else:
        for entry in entries[10:]:
            store.append([entry])
        store.save_hard_state(HardState(1, VOTER, 12))
    base = copied(path, tmp_path / "base")
    store.close()
    target = base.with_name(base.name + part)
    whole = target.read_bytes()
    refused = 0
    for turn in range(150):
        at = draw.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        copy = copied(base, tmp_path / f"flip-{turn}")
        copy.with_name(copy.name + part).write_bytes(flipped)
        said, held, hard = outcome(copy)
        if said == "refused":
            refused += 1
        elif held != entries or hard is None or (hard.vote, hard.commit) != (VOTER, 12):
            assert said, f"bit {at}: something is lost and nothing was said"
            assert held == entries[: len(held)]
        shutil.rmtree(copy.parent)
    assert refused > 20


def test_a_full_disk_is_said_once_and_for_all(tmp_path: Path) -> None:
    """A write fails at a limit on the size of files; then nothing more is believed until the ledger is opened again."""
    script = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from store_conformance import chain
from shoal.errors import MachineError
from shoal.ledger.sqlite_store import SqliteStore
store, entries = SqliteStore(Path(sys.argv[1])), chain(3000)
store.append(entries[:10])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
codes, acknowledged = [], 10
for at in range(10, 3000):
    try:
        store.append([entries[at]])
        acknowledged = at + 1
    except MachineError as error:
        codes.append(error.code)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
try:
    store.append([entries[acknowledged]])
except MachineError as error:
    codes.append(error.code)
print(*codes, acknowledged)
"""
    path = tmp_path / "ledger.db"
    command = [sys.executable, "-c", script, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second, acknowledged = done.stdout.split()
    assert (first, second) == ("store.write", "store.broken")
    store = SqliteStore(path)
    assert store.load()[1][: int(acknowledged)] == chain(int(acknowledged))
    store.append(chain(1, after=store.load()[1][-1]))
    store.close()


# --- repair -----------------------------------------------------------------------------------------------------------


def spoil(path: Path, *indices: int) -> None:
    for index in indices:
        with_sql(path, f"UPDATE entries SET data = CAST(data || x'00' AS BLOB) WHERE idx = {index}")


def test_repair_takes_what_the_chain_demands(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = filled(path)
    spoil(path, 1, 8, 9, 10, 25, 30)
    with_sql(path, "DELETE FROM entries WHERE idx = 9")
    with pytest.raises(InputError, match="entry 1 "):
        SqliteStore(path)
    assert repair(path, lambda index: entries[index - 1]) == Repair((1, 8, 9, 10, 25, 30), None)
    store = SqliteStore(path)
    assert store.load()[1] == entries and store.load()[0].barred == 0
    store.close()


def test_repair_believes_no_other_entry(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = filled(path)
    spoil(path, 8)
    before = path.read_bytes()
    forged = msgspec.structs.replace(entries[7], payload=b"forged")
    for fetch in (lambda _: forged, lambda _: entries[8], lambda _: None):
        with pytest.raises(InputError, match=r"entry 8 .* it is committed and no peer gave it"):
            repair(path, fetch)
        assert path.read_bytes() == before


def test_repair_cuts_only_above_the_commit_index_and_bars_the_node(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = filled(path, count=30, commit=20)
    spoil(path, 12, 24, 27)
    assert repair(path, lambda index: entries[11] if index == 12 else None) == Repair((12,), 24)
    store = SqliteStore(path)
    hard, held, _ = store.load()
    assert held == entries[:23] and (hard.commit, hard.barred, hard.vote) == (20, 30, VOTER)
    store.append(entries[23:])
    store.close()


def test_repair_of_a_whole_ledger_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = filled(path)
    assert repair(path, lambda _: None) == Repair()
    store = SqliteStore(path)
    assert store.load()[1] == entries
    with pytest.raises(MachineError, match="another process"):
        repair(path, lambda _: None)
    store.close()


def test_a_lost_hard_state_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    entries = filled(path)
    with_sql(path, "UPDATE heads SET sum = zeroblob(16)")
    with pytest.raises(InputError, match="'extent'"):
        repair(path, lambda index: entries[index - 1])


def test_repair_above_a_snapshot(tmp_path: Path) -> None:
    path, entries = tmp_path / "ledger.db", chain(10)
    store = SqliteStore(path)
    store.save_snapshot(snapshot_of(entries[7]))
    store.append(entries[8:])
    store.close()
    spoil(path, 9)
    assert repair(path, lambda _: None) == Repair((), 9)
    store = SqliteStore(path)
    assert store.load()[1] == [] and store.load()[0].barred == 10
    store.append(entries[8:])
    store.close()


# --- the write-ahead log ----------------------------------------------------------------------------------------------


def test_any_bytes_are_a_report(tmp_path: Path) -> None:
    draw = random.Random(3)
    assert check_wal(b"") == WalReport() == check_wal(bytes(31))
    for length in (32, 55, 56, 57, 1000, 5000):
        assert isinstance(check_wal(draw.randbytes(length)), WalReport)
    assert look_through_wal(tmp_path / "none.db") == WalReport()


def test_the_report_counts_what_sqlite_sees(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    for entry in chain(20):
        store.append([entry])
    copy = copied(path, tmp_path / "copy")
    store.close()
    report = check_wal(copy.with_name("ledger.db-wal").read_bytes())
    connection = sqlite3.connect(copy)
    _, in_wal, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    connection.close()
    assert report == WalReport(in_wal, 0, False) and in_wal > 20
