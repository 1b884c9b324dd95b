"""shoal ledger: what an auditor sees, and what becomes of bad files and wrong words."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))
from swarm_builder import SwarmBuilder

from shoal.ledger.body import Note
from shoal.ledger.evidence import decode_evidence
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.store import HardState

Shoal = Callable[..., Any]


def kept(built: SwarmBuilder, path: Path) -> Path:
    """A node's ledger file with these entries, all committed, closed."""
    store = SqliteStore(path)
    store.append(built.entries)
    store.save_hard_state(HardState(built.ledger.state.term, b"", len(built.entries)))
    store.close()
    return path


@pytest.fixture
def built() -> SwarmBuilder:
    built = SwarmBuilder(members=5, seal_every=5)
    built.run_round()
    built.run_round(stop="receipt")
    built.run_round(drop=(1,))
    return built


@pytest.fixture
def database(built: SwarmBuilder, tmp_path: Path) -> Path:
    return kept(built, tmp_path / "ledger.db")


@pytest.fixture
def exported(shoal: Shoal, database: Path, tmp_path: Path) -> Path:
    path = tmp_path / "swarm.shoal-ledger"
    assert shoal("ledger", "export", database, "-o", path).code == 0
    return path


def head(built: SwarmBuilder) -> str:
    state = built.ledger.state
    return f"{state.index}:{state.head.hex()}"


def test_verify_says_what_holds(shoal: Shoal, built: SwarmBuilder, database: Path, exported: Path) -> None:
    for file in (database, exported):
        done = shoal("ledger", "verify", file, "--genesis", built.genesis.hex())
        assert done.code == 0 and done.err == ""
        assert f"all {len(built.entries)} entries hold" in done.out
        assert built.genesis.hex() in done.out and head(built) in done.out
        assert "2 certified, 1 attempts given up" in done.out and "5 now, 5 of them voters" in done.out


def test_verify_as_json(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    done = shoal("ledger", "verify", exported, "--genesis", built.genesis.hex(), "--format", "json")
    found = done.json
    assert found["verified"] is True and found["head"] == head(built) and "error" not in found
    assert found["accepted"] == len(built.entries) and found["signatures"] > found["accepted"]
    assert [m["name"] for m in found["members"]] and found["certified"] == 2


def test_verify_names_the_first_wrong_entry(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    at = data.index(built.entries[9].payload) + 150
    data[at] ^= 1
    exported.write_bytes(data)
    done = shoal("ledger", "verify", exported, "--genesis", built.genesis.hex())
    line = done.error()
    assert f"{exported}: entry 10 (" in line and "entries 1-9 hold" in line
    done = shoal("ledger", "verify", exported, "--genesis", built.genesis.hex(), "--format", "json")
    assert done.code == 1
    found = done.json
    assert found["verified"] is False and found["head"] is None
    assert found["error"]["index"] == 10 and found["error"]["code"].startswith("ledger.")


def test_verify_against_a_noted_head(shoal: Shoal, built: SwarmBuilder, exported: Path, tmp_path: Path) -> None:
    noted, genesis = head(built), built.genesis.hex()
    assert shoal("ledger", "verify", exported, "--genesis", genesis, "--head", noted).code == 0
    built.say(Note("later"), sealed=True)
    done = shoal("ledger", "verify", exported, "--genesis", genesis, "--head", head(built))
    assert "its end was cut off" in done.error()
    index = noted.split(":")[0]
    done = shoal("ledger", "verify", exported, "--genesis", genesis, "--head", f"{index}:{'0' * 64}")
    assert "another history" in done.error()


def test_verify_refuses_another_swarm(shoal: Shoal, exported: Path) -> None:
    assert "another swarm" in shoal("ledger", "verify", exported, "--genesis", "00" * 32).error()
    assert "another swarm" in shoal("ledger", "show", exported, "--genesis", "00" * 32).error()


@pytest.mark.parametrize(
    "words",
    [
        ("verify", "FILE"),
        ("verify", "FILE", "--genesis", "xyz"),
        ("verify", "FILE", "--genesis", "00" * 31),
        ("verify", "FILE", "--genesis", "00" * 32, "--head", "12"),
        ("verify", "FILE", "--genesis", "00" * 32, "--head", "0:" + "00" * 32),
        ("show", "FILE", "--entries", "x"),
        ("show", "FILE", "--last", "-1"),
        ("export", "FILE"),
        ("compare", "FILE"),
        ("frobnicate",),
    ],
)
def test_wrong_words(shoal: Shoal, words: tuple[str, ...]) -> None:
    done = shoal("ledger", *words)
    assert done.code == 2 and done.err.startswith("error: ") and "Traceback" not in done.err


def test_show_lists_rounds(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    done = shoal("ledger", "show", exported)
    assert done.code == 0
    for text in (
        "hospital-4",
        "5 of 5",
        "4 of 5",
        "committed to no upload",
        "aborted: stopped after receipt",
        "auc 0.",
    ):
        assert text in done.out, text
    assert "signatures were not checked" in done.err
    assert "2 attempt 1" in done.out


def test_show_as_json(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    found = shoal("ledger", "show", exported, "--format", "json").json
    assert found["signatures_checked"] is False
    rounds = found["rounds"]
    assert [(r["round"], r["attempt"], r["outcome"]) for r in rounds] == [
        (1, 0, "certified"),
        (2, 0, "aborted"),
        (2, 1, "certified"),
    ]
    last = rounds[-1]
    assert last["base"] == rounds[0]["model"] and len(last["votes"]) == 4
    assert len(last["planned"]) == 5 and len(last["took_part"]) == 4
    assert last["samples"] == sum(p["samples"] for p in last["took_part"]) > 0
    assert last["fell_out"][0]["reason"] == "committed to no upload"
    assert last["evaluations"][0]["metrics"]["auc"] > 0.6


def test_show_entries(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    done = shoal("ledger", "show", exported, "--entries", "1-3")
    assert "genesis" in done.out and "noop" in done.out and "round-plan" in done.out
    found = shoal("ledger", "show", exported, "--entries", "3", "--format", "json").json
    assert [e["index"] for e in found["entries"]] == [3] and found["entries"][0]["type"] == "round-plan"


def test_show_last(shoal: Shoal, exported: Path) -> None:
    done = shoal("ledger", "show", exported, "--last", "1")
    assert "the last 1 of 3 attempts" in done.out and "stopped after" not in done.out
    assert "stopped after" in shoal("ledger", "show", exported, "--last", "0").out


def test_show_of_a_damaged_file_shows_what_holds(shoal: Shoal, built: SwarmBuilder, exported: Path) -> None:
    exported.write_bytes(exported.read_bytes()[:-200])
    done = shoal("ledger", "show", exported)
    assert done.code == 1 and "the file was cut" in done.err and "hospital-1" in done.out


def test_export_says_the_head_and_replaces_nothing_on_failure(
    shoal: Shoal, built: SwarmBuilder, database: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.shoal-ledger"
    out.write_text("old")
    done = shoal("ledger", "export", database, "-o", out, "--genesis", "00" * 32)
    assert "another swarm" in done.error() and out.read_text() == "old"
    found = shoal("ledger", "export", database, "-o", out, "--format", "json").json
    assert found["head"] == head(built) and found["genesis"] == built.genesis.hex()
    assert {p.name for p in tmp_path.iterdir()} >= {"out.shoal-ledger", "ledger.db"}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_export_while_the_node_runs(shoal: Shoal, built: SwarmBuilder, database: Path, tmp_path: Path) -> None:
    store = SqliteStore(database)
    last = len(built.entries)
    store.append([built.say(Note("not committed yet"), sealed=True)])
    out = tmp_path / "out.shoal-ledger"
    found = shoal("ledger", "export", database, "-o", out, "--format", "json").json
    assert found["entries"] == last
    store.save_hard_state(HardState(1, b"", last + 1))
    assert shoal("ledger", "export", database, "-o", out, "--format", "json").json["entries"] == last + 1
    store.close()


def test_export_ends_with_a_seal(shoal: Shoal, built: SwarmBuilder, tmp_path: Path) -> None:
    sealed = len(built.entries)
    built.say(Note("a batch whose seal is not there yet"), sealed=False)
    path = kept(built, tmp_path / "ledger.db")
    out = tmp_path / "out.shoal-ledger"
    assert shoal("ledger", "export", path, "-o", out, "--format", "json").json["entries"] == sealed


@pytest.mark.parametrize("command", ["verify", "show", "compare"])
def test_files_that_are_no_ledgers(shoal: Shoal, tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "database").write_bytes(b"SQLite format 3\x00" + bytes(9000))
    (tmp_path / "database").chmod(0o600)
    for name in ("pipe", "text", "empty", "database", "missing", "."):
        extra = {"verify": ("--genesis", "00" * 32), "compare": (tmp_path / name,)}.get(command, ())
        assert str(tmp_path) in shoal("ledger", command, tmp_path / name, *extra).error()


def test_an_empty_ledger(shoal: Shoal, tmp_path: Path) -> None:
    SqliteStore(tmp_path / "ledger.db").close()
    assert "no entry is committed" in shoal("ledger", "show", tmp_path / "ledger.db").error()


def test_compare(shoal: Shoal, built: SwarmBuilder, exported: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    other = SwarmBuilder(members=5, seal_every=5)
    other.run_round()
    shorter = kept(other, tmp_path / "shorter.db")
    done = shoal("ledger", "compare", exported, shorter)
    assert done.code == 0 and f"entries 1-{len(other.entries)} are the same" in done.out
    other.say(Note("what the other site was told"), sealed=True)
    forked = kept(other, tmp_path / "forked.db")
    done = shoal("ledger", "compare", exported, forked, "--evidence", proof)
    assert f"part at entry {len(other.entries)}" in done.error() and "signed both" in done.err
    assert decode_evidence(proof.read_bytes()).leader == built.leader.id
    done = shoal("ledger", "compare", forked, exported, "--format", "json")
    assert done.code == 1 and json.loads(done.out)["leader"] == built.leader.id.hex()
    stranger = kept(SwarmBuilder(members=3), tmp_path / "stranger.db")
    assert "two swarms" in shoal("ledger", "compare", exported, stranger).error()


def test_names_cannot_write_to_the_terminal(shoal: Shoal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import swarm_builder

    plain = swarm_builder.card
    evil = "\x1b[31m[red]\u202eevil"
    monkeypatch.setattr(
        swarm_builder, "card", lambda who, n: plain(who, n).__class__(who.public, plain(who, n).curve, f"{evil}{n}")
    )
    bad = SwarmBuilder(members=3)
    bad.run_round()
    done = shoal("ledger", "show", kept(bad, tmp_path / "ledger.db"))
    assert done.code == 0 and "\x1b" not in done.out and "\u202e" not in done.out
    assert "\\x1b[31m[red]" in done.out
