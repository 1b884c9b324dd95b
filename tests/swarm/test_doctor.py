"""The doctor, on folders with one thing wrong at a time, and among nodes that run."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from site_folders import SiteFolders

from shoal.ledger.archive import latest
from shoal.limits import CHUNK_BYTES, PROBE_CHUNKS_MAX, PROBE_PAUSE_S
from shoal.model.model import save
from shoal.swarm import doctor, probe, room
from shoal.swarm.checkup import Checkup, check_up
from shoal.swarm.doctor import examine, of_member
from shoal.swarm.door import Door
from shoal.swarm.finding import Finding, worst
from shoal.swarm.node import Node
from shoal.swarm.probe import Ask, Examiner, Found, Got, Host, Told
from shoal.swarm.site import open_node
from shoal.swarm.visit import Seen

NAMES = ("north", "south", "east")


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {f.check: f for f in findings}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SiteFolders:
    return SiteFolders(tmp_path_factory.mktemp("made"), NAMES)


@pytest.fixture
def sites(made: SiteFolders, tmp_path: Path) -> SiteFolders:
    return made.clone(tmp_path / "sites")


@contextlib.contextmanager
def running(sites: SiteFolders, *names: str) -> Iterator[dict[str, Node]]:
    with contextlib.ExitStack() as stack:
        yield {n: stack.enter_context(open_node(sites.site(n), sites.model)) for n in names}


# --- this machine -----------------------------------------------------------------------------------------------------


def test_a_site_that_is_well(sites: SiteFolders) -> None:
    found = check_up(Checkup(sites.site("north"), sites.model))
    assert [f for f in found if f.level == "fault"] == []
    named = by_check(found)
    assert set(named) >= {"versions", "keys", "card", "ledger", "member", "address", "model", "disk", "files", "cpu"}
    assert "north, voter of 3" in named["member"].found
    assert sites.founded.digest.hex() in named["ledger"].advice, "it says how to pin the genesis"


def test_a_disk_that_is_slower_than_elections_are_patient(sites: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    site = sites.site("north")
    for took_s, level in ((0.001, "ok"), (site.times.election_ms / 1000, "warning")):
        monkeypatch.setattr(room, "_sync_s", lambda _folder, s=took_s: s)
        found = by_check(check_up(Checkup(site, sites.model)))["syncs"]
        assert found.level == level
    assert f"election_ms = {10 * site.times.election_ms}" in found.advice


def spoil_mode(sites: SiteFolders, place: Path) -> None:
    (place / "curve.pem").chmod(0o640)


def spoil_keys(sites: SiteFolders, place: Path) -> None:
    (place / "identity.pem").unlink()


def spoil_card(sites: SiteFolders, place: Path) -> None:
    card = place / "north.card"
    card.write_text(card.read_text().replace("127.0.0.1", "127.0.0.9"))


def spoil_other_card(sites: SiteFolders, place: Path) -> None:
    (place / "north.card").write_bytes((sites.folder / "south" / "south.card").read_bytes())


def spoil_ledger(sites: SiteFolders, place: Path) -> None:
    (place / "data" / "ledger.db").unlink()


def spoil_ledger_bytes(sites: SiteFolders, place: Path) -> None:
    path = place / "data" / "ledger.db"
    path.write_bytes(path.read_bytes()[:1000])


def spoil_genesis(sites: SiteFolders, place: Path) -> None:
    sites.add("north", f'genesis = "{"ab" * 32}"')


def spoil_member(sites: SiteFolders, place: Path) -> None:
    from shoal.swarm.site_keys import create_pair

    for name in ("identity.pem", "curve.pem"):
        (place / name).unlink()
    create_pair(place / "identity.pem", place / "curve.pem")


def spoil_listen(sites: SiteFolders, place: Path) -> None:
    settings = place / "site.toml"
    settings.write_text(settings.read_text().replace("listen", "#").replace("[times]", 'listen = ""\n[times]'))


def spoil_layout(sites: SiteFolders, place: Path) -> None:
    save({"w": np.zeros(10, np.float32)}, sites.model)


def spoil_base(sites: SiteFolders, place: Path) -> None:
    save({"w": np.zeros(3000, np.float32), "steps": np.array([3], np.int64)}, sites.model)


def spoil_model(sites: SiteFolders, place: Path) -> None:
    sites.model.write_bytes(b"no model")


@pytest.mark.parametrize(
    ("spoil", "check", "told"),
    [
        (spoil_mode, "keys", "chmod 600"),
        (spoil_keys, "keys", "shoal keys"),
        (spoil_card, "card", "changed on its way"),
        (spoil_other_card, "card", "other keys"),
        (spoil_ledger, "ledger", "shoal join"),
        (spoil_ledger_bytes, "ledger", "join anew"),
        (spoil_genesis, "ledger", "the settings name abab"),
        (spoil_listen, "address", "nothing listens"),
        (spoil_layout, "model", "the swarm's is"),
        (spoil_base, "model", "the genesis names"),
        (spoil_model, "model", "base.onnx"),
    ],
)
def test_what_is_wrong_here_is_a_fault_with_advice(sites: SiteFolders, spoil, check: str, told: str) -> None:
    spoil(sites, sites.folder / "north")
    found = check_up(Checkup(sites.site("north"), sites.model))
    finding = next(f for f in found if f.check == check)
    assert finding.level == "fault" and told in f"{finding.found} {finding.advice}" and finding.advice, finding


def test_a_site_that_nobody_has_let_in(sites: SiteFolders) -> None:
    spoil_member(sites, sites.folder / "north")
    finding = by_check(check_up(Checkup(sites.site("north"), sites.model)))["member"]
    assert finding.level == "warning" and "shoal members approve" in finding.advice


def test_a_folder_that_others_may_look_into(sites: SiteFolders) -> None:
    (sites.folder / "north" / "data").chmod(0o755)
    finding = by_check(check_up(Checkup(sites.site("north"), sites.model)))["folder"]
    assert finding.level == "warning" and "chmod 700" in finding.advice


def test_whether_certified_models_can_be_measured(sites: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(check: str, text: str) -> Finding | None:
        sites.settings("east").write_text('name = "east"\n' + text)
        return by_check(check_up(Checkup(sites.site("east"), sites.model))).get(check)

    np.savez(sites.folder / "east" / "val.npz", x=np.zeros((3, 2)), y=np.zeros(3))
    assert finding("evaluate", "") is None and finding("metrics", "") is None
    good = finding("evaluate", '[evaluate]\ndata = "val.npz"\n')
    assert good is not None and good.level == "ok" and "2 columns" in good.found
    for text, told in (
        ('[evaluate]\ndata = "none.npz"\n', "none.npz"),
        ('[evaluate]\ndata = "east.card"\n', "ends in .npz or .csv"),
        ('[evaluate]\ndata = "val.npz"\nmetrics = ["auroc"]\n', "no metric auroc"),
    ):
        bad = finding("evaluate", text)
        assert bad is not None and bad.level == "warning" and told in bad.found and bad.advice, bad
    monkeypatch.setattr("shoal.swarm.checkup.find_spec", lambda _name: None)
    missing = (
        finding("evaluate", '[evaluate]\ndata = "val.npz"\n'),
        finding("metrics", '[metrics]\nlisten = "127.0.0.1:9100"\n'),
    )
    assert [f is not None and "pip install" in f.advice for f in missing] == [True, True]


# --- members ----------------------------------------------------------------------------------------------------------


def test_among_nodes_that_run(sites: SiteFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(sites, "south"):
        found = examine(sites.site("north"), sites.model, 3)
    of = {name: [f for f in found if f.check == f"member {name}"] for name in ("south", "east")}
    assert [f.level for f in of["east"]] == ["warning"] and "no answer" in of["east"][0].found
    assert [f.level for f in of["south"]] == ["ok"] * 4, of["south"]
    words = " ".join(f.found for f in of["south"])
    assert "both ways" in words and "same genesis" in words and "Mbit/s from it" in words and "clock" in words
    assert by_check(found)["swarm"].level == "ok", "two of three are enough"
    assert worst(found) == "warning"
    # Nothing is left behind: the node takes the ports that the doctor had.
    with running(sites, "north"):
        pass


def test_two_doctors_examine_each_other(sites: SiteFolders) -> None:
    found: dict[str, list[Finding]] = {}

    def at(name: str) -> None:
        found[name] = examine(sites.site(name), sites.model, 3)

    threads = [threading.Thread(target=at, args=(name,)) for name in ("north", "south")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, other in (("north", "south"), ("south", "north")):
        lines = [f for f in found[name] if f.check == f"member {other}"]
        assert lines and lines[0].level == "ok" and "same genesis" in " ".join(f.found for f in lines), lines


def test_a_port_that_is_taken(sites: SiteFolders) -> None:
    with running(sites, "south"):
        settings = sites.settings("north")
        settings.write_text(settings.read_text().replace(sites.site("north").listen, sites.site("south").listen))
        found = by_check(examine(sites.site("north"), sites.model, 1))
    assert found["ports"].level == "fault" and "ss -ltnp" in found["ports"].advice


def test_a_node_that_runs_already_is_asked(sites: SiteFolders) -> None:
    with running(sites, "north", "south") as nodes, Door(nodes["north"], Path(sites.site("north").data)):
        while nodes["north"].status() is None:
            threading.Event().wait(0.01)
        found = examine(sites.site("north"), None, 3)
    assert "node runs" in by_check(found)["ports"].found and by_check(found)["swarm"].level == "ok"
    assert [f.level for f in found if f.check == "member south"] == ["ok"] * 4, found
    assert "no answer" in by_check(found)["member east"].found


def test_a_sites_command_says_it_all(sites: SiteFolders) -> None:
    import json

    from typer.testing import CliRunner

    from shoal.cli.commands import app

    (sites.folder / "north" / "curve.pem").chmod(0o644)
    words = ["doctor", str(sites.settings("north")), "--model", str(sites.model), "--wait", "0"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1 and "chmod 600" in done.output and "1 faults" in done.output, done.output
    (sites.folder / "north" / "curve.pem").chmod(0o600)
    done = CliRunner().invoke(app, [*words, "--format", "json"])
    told = json.loads(done.output)
    assert done.exit_code == 0 and told["level"] == "warning" and told["site"] == "north"
    assert {f["check"] for f in told["findings"] if f["level"] == "warning"} >= {"member south", "member east", "swarm"}


# --- what answers mean ------------------------------------------------------------------------------------------------


@pytest.fixture
def told(sites: SiteFolders) -> Told:
    state = latest(sites.folder / "north" / "data" / "ledger.db").state
    return Told(1, 0, doctor.__version__, state.genesis, state.index, state.head, state.round, state.model)


def member_lines(sites: SiteFolders, told: Told | None, **more: object) -> list[Finding]:
    state = latest(sites.folder / "north" / "data" / "ledger.db").state
    member = next(m for m in state.registry.members.values() if m.name == "south")
    seen = Seen(True, True, Found(told, 0.01, 0.0, 1e8, 1e8))
    for name, value in more.items():
        setattr(seen if hasattr(seen, name) else seen.found, name, value)
    return of_member(member, seen, "tcp://127.0.0.1:7000", state)


def test_what_members_tell(sites: SiteFolders, told: Told) -> None:
    replace = msgspec.structs.replace
    assert [f.level for f in member_lines(sites, told)] == ["ok"] * 4
    for lines, level, word in (
        (member_lines(sites, replace(told, genesis=bytes(32))), "fault", "telephone"),
        (member_lines(sites, replace(told, head=bytes(32))), "fault", "two histories"),
        (member_lines(sites, replace(told, version="0.0.1")), "warning", "same version"),
        (member_lines(sites, told, ahead_ms=1500.0), "warning", "NTP"),
        (member_lines(sites, told, ahead_ms=-1500.0), "warning", "NTP"),
        (member_lines(sites, told, up=0.0), "warning", "port after"),
        (member_lines(sites, told, down=1e5), "warning", "take long"),
        (member_lines(sites, told, dialled=False), "warning", "other way round"),
        (member_lines(sites, told, accepted=False), "warning", "NAT"),
        (member_lines(sites, None), "warning", "same version"),
        (member_lines(sites, None, dialled=False, accepted=False), "warning", "firewall"),
    ):
        bad = [f for f in lines if f.level != "ok"]
        assert len(bad) == 1 and bad[0].level == level and word in bad[0].advice, lines


# --- probes -----------------------------------------------------------------------------------------------------------


class Wire:
    """An examiner and a host in virtual time: each way takes ``way_s``, each chunk ``chunk_s``."""

    def __init__(self, sites: SiteFolders, way_s: float, chunk_s: float, ahead_ms: int = 0) -> None:
        state = latest(sites.folder / "north" / "data" / "ledger.db").state
        self.now_s, self.way_s, self.chunk_s = 100.0, way_s, chunk_s
        nonces = iter(range(1, 1000))
        self.examiner = Examiner(lambda: next(nonces), lambda: round(1000 * self.now_s))
        self.host = Host(lambda: state, lambda: round(1000 * self.now_s) + ahead_ms)
        self.sent = 0

    def run(self, lose: float = 0.0) -> Found:
        rng, peer = np.random.default_rng(1), b"peer"
        self.examiner.up(peer)
        flight: list[tuple[float, str, tuple]] = []
        free = {"host": 0.0, "examiner": 0.0}

        def send(to: str, outs: list) -> None:
            for out in outs:
                chunk = len(out) == 3
                self.sent += chunk
                start = max(free[to], self.now_s)
                free[to] = start + (self.chunk_s if chunk else 0.0)
                if chunk or rng.random() >= lose:
                    flight.append((free[to] + self.way_s, to, out[1:]))

        for _ in range(200_000):
            send("host", self.examiner.turn(self.now_s))
            if self.examiner.done(peer):
                break
            for at, to, frame in [f for f in flight if f[0] <= self.now_s]:
                flight.remove((at, to, frame))
                if to == "host":
                    said = probe.decode(frame[0])
                    send(
                        "examiner",
                        self.host.chunk(peer, frame[0]) if len(frame) == 2 else self.host.heard(peer, said, self.now_s),
                    )
                elif len(frame) == 2:
                    self.examiner.chunk(peer, frame[0], self.now_s)
                else:
                    self.examiner.heard(peer, probe.decode(frame[0]), self.now_s)
            self.now_s += 0.001
        assert self.examiner.done(peer)
        return self.examiner.found(peer)


def test_what_probes_measure(sites: SiteFolders) -> None:
    found = Wire(sites, 0.05, 0.02, 2000).run()
    assert found.told is not None and abs(found.rtt_s - 0.1) < 0.01 and abs(found.ahead_ms - 2000) < 20
    assert abs(found.down * 0.02 / CHUNK_BYTES - 1) < 0.1 and abs(found.up * 0.02 / CHUNK_BYTES - 1) < 0.1
    slow = Wire(sites, 0.05, 0.9)
    found = slow.run()
    assert 0 < found.down < 1.3 * CHUNK_BYTES and slow.sent == 2, "no more than one chunk each way over a slow link"
    found = Wire(sites, 0.01, 0.01).run(lose=0.3)
    assert found.told is not None, "questions are asked again"


def test_a_host_sends_no_more_than_it_may(sites: SiteFolders) -> None:
    state = latest(sites.folder / "north" / "data" / "ledger.db").state
    host = Host(lambda: state, lambda: 0)
    sent = 0
    for at in np.arange(0, 10 * PROBE_PAUSE_S, 0.01):
        sent += sum(len(out) == 3 for out in host.heard(b"peer", Ask(1, PROBE_CHUNKS_MAX), float(at)))
    assert 9 * PROBE_CHUNKS_MAX <= sent <= 10 * (PROBE_CHUNKS_MAX + 1)
    assert host.heard(b"peer", Got(1, 1), 0.0) == []


def test_frames_that_are_none(sites: SiteFolders) -> None:
    for bad in (b"", b"\x03", b"\x03\xc1", probe.encode(Ask(1))[:-1], b"\x03" + msgspec.msgpack.encode([1, -1, 0]),
                b"\x03" + msgspec.msgpack.encode([1, 1, 2**40]), os.urandom(40), b"\x03" + b"\x91" * 2000):  # fmt: skip
        assert probe.decode(bad) is None
    assert probe.decode(probe.encode(Ask(7, 3))) == Ask(7, 3)
    assert probe.nonce_of(probe.header_of(2**62)) == 2**62 and probe.nonce_of(b"\x03short") == -1
    state = latest(sites.folder / "north" / "data" / "ledger.db").state
    host = Host(lambda: state, lambda: 0)
    assert host.chunk(b"p", b"\x03" + b"\xff" * 8) == [] and host.chunk(b"p", b"\x03") == []
