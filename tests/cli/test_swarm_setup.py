"""From nothing to a swarm of three sites in three folders, by the commands alone, and what is refused on the way."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_nets import save_net

from shoal.cli.founding import _first_entry as first_entry
from shoal.config import read_site
from shoal.errors import InputError, PeerError
from shoal.ledger.body import KeysRotated, LearnerAdded, MemberAdded, MemberRemoved, Setting
from shoal.ledger.curve_key import CurveKey
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.statement import read_statement
from shoal.swarm.ballot import approve, open_ballot, put_together, read_ballot, write_ballot
from shoal.swarm.card import make_card, read_card, write_card
from shoal.swarm.replica import Replica
from shoal.swarm.site_keys import in_use, read_pairs

NAMES = ("north", "south", "east")


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error."""
        assert self.code == 1, self
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable(), self.err
        return lines[0]


def shoal(*words: object, folder: Path | None = None, umask: int = 0o022) -> Done:
    command = [sys.executable, "-m", "shoal", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, umask=umask, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Sites:
    """Folders of sites that have keys, cards, and a genesis that the first of them made."""

    folder: Path
    digest: str = ""

    @property
    def genesis(self) -> Path:
        return self.folder / "demo.genesis"

    def settings(self, name: str) -> Path:
        return self.folder / name / "site.toml"

    def card(self, name: str) -> Path:
        return self.folder / name / f"{name}.card"

    def keys(self, *names: str) -> None:
        for name in names:
            port = 7000 + 10 * len(list(self.folder.iterdir()))
            done = shoal("keys", self.folder / name, "--name", name, "--address", f"tcp://127.0.0.1:{port}")
            assert done.code == 0, done

    def init(self, *more: object) -> Done:
        others = [self.card(name) for name in NAMES[1:]]
        words = ["--model", self.folder / "base.onnx", "--name", "demo", "-o", self.genesis, *more]
        return shoal("init", self.settings(NAMES[0]), *others, *words)

    def join(self, name: str, *more: object) -> Done:
        return shoal("join", self.settings(name), self.genesis, "--digest", self.digest, *more)

    def ledger(self, name: str) -> Path:
        return self.folder / name / "data" / "ledger.db"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    """Three sites with keys, and a genesis; nobody has joined yet."""
    sites = Sites(tmp_path_factory.mktemp("sites"))
    save_net(sites.folder / "base.onnx", 0)
    sites.keys(*NAMES)
    done = sites.init("--format", "json")
    assert done.code == 0, done
    sites.digest = done.json["digest"]
    return sites


@pytest.fixture
def sites(begun: Sites, tmp_path: Path) -> Sites:
    """A copy for one test."""
    shutil.copytree(begun.folder, tmp_path / "sites")
    return Sites(tmp_path / "sites", begun.digest)


@pytest.fixture
def joined(sites: Sites) -> Sites:
    for name in NAMES:
        assert sites.join(name).code == 0
    return sites


def decide(sites: Sites, *statements: Path) -> None:
    """What running nodes would do: the members' replicas decide these statements, one after the other."""
    replicas = {}
    for name in NAMES:
        site = read_site(sites.settings(name))
        (identity, _), _ = in_use(read_pairs(site), registry_of(sites.ledger(name)))
        replica = Replica(identity, SqliteStore(sites.ledger(name)), lambda n: len(replicas) * 7 % n)
        replicas[replica.me] = replica
    for payload in [None, *(s.read_bytes() for s in statements)]:
        for _ in range(300):
            for replica in replicas.values():
                replica.tick()
            flight: list[Any] = []
            for replica in replicas.values():
                replica.work(flight.append)
            while flight:
                m = flight.pop(0)
                if m.to in replicas:
                    replicas[m.to].step(m.sender, m)
                    replicas[m.to].work(flight.append)
            leader = next((r for r in replicas.values() if r.leading), None)
            if leader is not None and (payload is None or leader.standing(payload) == "decided"):
                break
            if leader is not None and payload is not None:
                _, why = leader.offer(payload)
                assert not why or "again" in why or "already" in why, why
        else:
            raise AssertionError("never decided")
    for _ in range(5):
        for replica in replicas.values():
            replica.tick()
        flight = []
        for replica in replicas.values():
            replica.work(flight.append)
        while flight:
            m = flight.pop(0)
            if m.to in replicas:
                replicas[m.to].step(m.sender, m)
                replicas[m.to].work(flight.append)
    for replica in replicas.values():
        replica.close()


def registry_of(path: Path) -> Any:
    from shoal.ledger.archive import latest

    return latest(path).state.registry


# --- the whole path ---------------------------------------------------------------------------------------------------


def test_three_sites_from_keys_to_a_ledger(sites: Sites) -> None:
    for name in NAMES:
        done = sites.join(name, "--format", "json")
        assert done.json["member"] and done.json["begun"] and sorted(done.json["members"]) == sorted(NAMES)
        again = sites.join(name, "--format", "json")
        assert again.code == 0 and not again.json["begun"], "joining twice changes nothing"
    decide(sites)
    for name in NAMES:
        listed = shoal("members", "list", sites.settings(name), "--format", "json").json
        assert [m["name"] for m in listed["members"]] == sorted(NAMES) and all(m["voter"] for m in listed["members"])
        assert listed["index"] >= 2
        done = shoal("ledger", "verify", sites.ledger(name), "--genesis", sites.digest)
        assert done.code == 0, done
    assert shoal("ledger", "verify", sites.genesis, "--genesis", sites.digest).code == 0
    text = shoal("members", "list", sites.settings("south"))
    assert text.code == 0 and all(name in text.out for name in NAMES)


def test_keys_are_private_whatever_the_umask_and_never_shown(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    done = shoal("keys", folder, "--name", "a", "--address", "tcp://a.example:7700", umask=0)
    assert done.code == 0
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"identity.pem": 0o600, "curve.pem": 0o600, "a.card": 0o644, "site.toml": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    card = read_card((folder / "a.card").read_bytes(), "a.card")
    assert card.fingerprint in done.out and card.card.address == "tcp://a.example:7700"
    identity, curve = read_pairs(read_site(folder / "site.toml"))[0]
    assert (card.card.signing, card.card.curve) == (identity.public, curve.public)
    everything = done.out + done.err + (folder / "a.card").read_text() + (folder / "site.toml").read_text()
    for name in ("identity.pem", "curve.pem"):
        assert (folder / name).read_text().splitlines()[1] not in everything
    assert curve.secret().hex() not in everything
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert "exists already" in shoal("keys", folder, "--name", "a").error
    assert "exists already" in shoal("keys", folder, "--name", "b").error, "no second card beside the keys"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_curve_key_is_one_of_zeromq(begun: Sites) -> None:
    zmq, z85 = pytest.importorskip("zmq"), pytest.importorskip("zmq.utils.z85")
    _, curve = read_pairs(read_site(begun.settings("north")))[0]
    secret = z85.encode(curve.secret())
    assert z85.decode(zmq.curve_public(secret)) == curve.public
    assert repr(curve) == f"CurveKey({curve.public.hex()[:16]})"


def test_fingerprints_are_those_that_the_sites_were_told(begun: Sites) -> None:
    done = begun.init("-o", begun.folder / "other.genesis", "--format", "json")
    told = {m["name"]: m["fingerprint"] for m in done.json["members"]}
    for name in NAMES:
        assert told[name] == read_card(begun.card(name).read_bytes(), name).fingerprint
        assert len(told[name].split()) == 8
    assert done.json["digest"] != begun.digest, "two swarms of the same members are two swarms"


def test_the_layout_is_without_what_stays_at_the_sites(sites: Sites) -> None:
    whole = sites.init("--format", "json").json
    settings = sites.settings("north")
    settings.write_text(settings.read_text() + '\nexclude = ["w"]\n')
    assert "no floating numbers" in sites.init().error
    from numpy import float32, ones
    from onnx import numpy_helper

    more = [numpy_helper.from_array(ones((2, 2), float32), "head")]
    save_net(sites.folder / "base.onnx", 0, more=more)
    less = sites.init("--format", "json").json
    assert less["layout"] != whole["layout"] and less["model"] != whole["model"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--name", "../x"), 1, "the name of a site"),
        (("--name", ""), 1, "the name of a site"),
        (("--name", "a\n"), 1, "the name of a site"),
        (("--name", "x" * 65), 1, "the name of a site"),
        (("--name", "a", "--address", "udp://x:1"), 1, "no address"),
        (("--name", "a", "--address", "tcp://*:7700"), 1, "an address to listen at"),
        (("--name", "a", "--address", "tcp://x:65535"), 1, "no address"),
        (("--name", "a", "--address", f"tcp://{'x' * 200}:1"), 1, "too long"),
        ((), 2, "--name"),
    ],
)
def test_bad_names_and_addresses_leave_no_keys(tmp_path: Path, words: tuple[str, ...], code: int, told: str) -> None:
    done = shoal("keys", tmp_path / "new", *words)
    assert done.code == code and told in done.err, done
    assert not (tmp_path / "new").exists()


def test_a_card_that_was_changed_on_its_way_is_refused(begun: Sites, tmp_path: Path) -> None:
    good = begun.card("south").read_text()
    other = read_card(begun.card("east").read_bytes(), "east").card
    card = read_card(good.encode(), "south").card
    changes = {
        good.replace("127.0.0.1", "127.0.0.2"): "changed on its way",
        good.replace('name = "south"', 'name = "soutn"'): "changed on its way",
        good.replace(card.curve.hex(), other.curve.hex()): "changed on its way",
        good.replace(card.signing.hex(), other.signing.hex()): "changed on its way",
        good.replace(card.signing.hex(), "00" * 32): "small order",
        good.replace(card.signing.hex(), "01" + "00" * 31): "small order",
        good.replace(card.curve.hex(), "00" * 32): "small order",
        good.replace(card.curve.hex(), "ff" * 32): "not in canonical form",
        good.replace(card.curve.hex(), card.curve.hex()[2:]): "no card",
        good.replace("version = 1", "version = 2"): "no card",
        good + 'extra = "1"\n': "no card",
        good.replace("version = 1\n", ""): "no card",
        good[:100]: "no card",
        "<html>": "no card",
        "#" * 5000: "more than",
    }
    for text, told in changes.items():
        with pytest.raises(InputError) as caught:
            read_card(text.encode(), "south.card")
        assert told in str(caught.value) and str(caught.value).startswith("south.card: "), (told, str(caught.value))
    bad = tmp_path / "south.card"
    bad.write_text(good.replace("127.0.0.1", "127.0.0.2"))
    done = shoal("init", begun.settings("north"), bad, "--plain", "--model", begun.folder / "base.onnx", "--name", "x",
                 "-o", tmp_path / "x.genesis", "--format", "json")  # fmt: skip
    assert done.json["error"]["code"] == "card.signature" and "changed on its way" in done.error
    assert not (tmp_path / "x.genesis").exists()


def test_what_two_sites_share_is_refused(sites: Sites) -> None:
    north, south = (read_site(sites.settings(n)) for n in NAMES[:2])
    mine, theirs = read_pairs(north)[0], read_pairs(south)[0]
    told = {
        "same signing key": make_card("west", "", theirs[0], CurveKey.generate()),
        "same CURVE key": make_card("west", "", read_pairs(read_site(sites.settings("east")))[0][0], mine[1]),
        "two sites are called north": make_card("north", "", *theirs),
        "same address": make_card("west", "tcp://127.0.0.1:7010", *theirs),
    }
    assert read_card(sites.card("north").read_bytes(), "").card.address == "tcp://127.0.0.1:7010"
    for word, card in told.items():
        sites.card("east").write_text(write_card(card))
        if word == "same signing key":
            done = sites.init()
        else:
            done = shoal("init", sites.settings("north"), sites.card("east"), "--plain", "--model",
                         sites.folder / "base.onnx", "--name", "x", "-o", sites.folder / "x.genesis")  # fmt: skip
        assert word in done.error, done
    assert not (sites.folder / "x.genesis").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--peers-min", "1"), 2, "peers-min"),
        (("--peers-min", "0"), 2, "peers-min"),
        (("--peers-min", "256"), 2, "peers-min"),
        (("--peers-min", "2"), 1, "would tell each what the other sent"),
        (("--peers-min", "4"), 1, "rounds of at least 4, and 3 first members"),
        (("--rule", "median"), 1, "secure aggregation gives the mean"),
        (("--rule", "nonsense"), 1, "nonsense"),
        (("--profile", "loose"), 2, "profile"),
        (("--admission", "nobody"), 2, "admission"),
        (("--name", "a\nb"), 2, "name of a swarm"),
        (("--name", ""), 2, "name of a swarm"),
        (("--model", "none.onnx"), 1, "none.onnx"),
    ],
)
def test_policies_that_make_no_sense(
    begun: Sites, tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    done = begun.init("-o", tmp_path / "x.genesis", *words)
    assert done.code == code and told in done.err, done
    assert not (tmp_path / "x.genesis").exists()


def test_plain_swarms_take_other_rules(begun: Sites, tmp_path: Path) -> None:
    done = begun.init("-o", tmp_path / "x.genesis", "--plain", "--rule", "median", "--admission", "any")
    assert done.code == 0, done


def test_a_genesis_is_taken_by_its_digest_alone(sites: Sites) -> None:
    assert "--digest is needed" in shoal("join", sites.settings("south"), sites.genesis).err
    wrong = shoal("join", sites.settings("south"), sites.genesis, "--digest", "00" * 32, "--format", "json")
    assert wrong.json["error"]["code"] == "join.digest" and sites.digest in wrong.error
    assert shoal("join", sites.settings("south"), sites.genesis, "--digest", "00").code == 2
    data = bytearray(sites.genesis.read_bytes())
    for at in (0, 20, 60, len(data) // 3, len(data) // 2, len(data) - 40, len(data) - 1):
        flipped = bytearray(data)
        flipped[at] ^= 1
        (sites.folder / "bad").write_bytes(flipped)
        assert shoal("join", sites.settings("south"), sites.folder / "bad", "--digest", sites.digest).error
    assert not sites.ledger("south").exists()
    settings = sites.settings("south")
    settings.write_text(settings.read_text() + f'\ngenesis = "{sites.digest}"\n')
    assert "but the settings name" in shoal("join", settings, sites.genesis, "--digest", "00" * 32).error
    assert shoal("join", settings, sites.genesis).code == 0, "the settings say the digest, too"


def test_another_swarms_ledger_is_not_joined_over(joined: Sites) -> None:
    other = joined.folder / "other.genesis"
    digest = joined.init("-o", other, "--format", "json").json["digest"]
    done = shoal("join", joined.settings("south"), other, "--digest", digest)
    assert "holds another swarm's ledger" in done.error
    assert shoal("members", "list", joined.settings("south")).code == 0


def test_a_site_that_is_no_first_member_is_told_what_to_do(sites: Sites) -> None:
    sites.keys("west")
    done = sites.join("west")
    assert "not among its first members" in done.error and "--new" in done.error
    assert not sites.ledger("west").exists()
    done = sites.join("west", "--new")
    assert done.code == 0 and "shoal members approve" in done.out
    # Keys made anew are the likeliest reason.
    folder = sites.folder / "east"
    for path in ("identity.pem", "curve.pem", "east.card", "site.toml"):
        (folder / path).unlink()
    sites.keys("east")
    assert "were the keys made anew?" in sites.join("east").error


def test_key_files_that_cannot_be_used(sites: Sites) -> None:
    folder = sites.folder / "south"
    for name in ("identity.pem", "curve.pem"):
        (folder / name).chmod(0o640)
        assert "chmod 600" in sites.join("south").error
        (folder / name).chmod(0o600)
    identity, curve = (folder / "identity.pem").read_bytes(), (folder / "curve.pem").read_bytes()
    (folder / "identity.pem").write_bytes(curve)
    assert "another kind, expected Ed25519" in sites.join("south").error
    (folder / "identity.pem").write_bytes(identity)
    (folder / "curve.pem").write_bytes(identity)
    assert "another kind, expected X25519" in sites.join("south").error
    (folder / "curve.pem").write_bytes(curve[:60])
    done = sites.join("south")
    assert "no PEM private key" in done.error and curve.decode().splitlines()[1][:12] not in done.err
    (folder / "curve.pem").unlink()
    assert "No such file" in sites.join("south").error
    shutil.copy(sites.folder / "north" / "curve.pem", folder / "curve.pem")
    assert "not the card of the keys" in sites.join("south").error


def test_a_setting_that_is_not_known(sites: Sites) -> None:
    settings = sites.settings("south")
    settings.write_text(settings.read_text() + "\n[times]\ntick-ms = 5\n")
    done = sites.join("south", "--format", "json")
    assert done.json["error"]["code"] == "site.unknown" and "tick_ms" in done.error


# --- members ----------------------------------------------------------------------------------------------------------


def test_a_site_is_let_in_promoted_and_removed_by_a_majority(joined: Sites) -> None:
    sites = joined
    decide(sites)
    sites.keys("west")
    card, here = sites.card("west"), sites.folder
    told = read_card(card.read_bytes(), "west").fingerprint
    one, two = here / "add-west.ballot", here / "two.ballot"
    done = shoal("members", "approve", sites.settings("north"), card, "--fingerprint", told, folder=here)
    assert done.code == 0 and "1 of 2" in done.out and one.exists() and told in done.out, done
    # Two voters may begin apart; put together, their ballots are enough.
    assert shoal("members", "approve", sites.settings("south"), card, "-o", two).code == 0
    done = shoal("members", "approve", sites.settings("south"), one, two, "--format", "json", folder=here)
    assert done.json["approvals"] == 2 and done.json["statement"] == "add-west.statement"
    statement = here / "add-west.statement"
    said = read_statement(statement.read_bytes())[1]
    assert isinstance(said, LearnerAdded) and said.card.name == "west"
    decide(sites, statement)
    listed = shoal("members", "list", sites.settings("east"), "--format", "json").json["members"]
    assert [m["name"] for m in listed if not m["voter"]] == ["west"]
    assert "is a member already" in shoal("members", "approve", sites.settings("north"), card).error
    assert "another time" in shoal("members", "approve", sites.settings("east"), one).error

    ballot = here / "promote-west.ballot"
    assert shoal("members", "promote", sites.settings("north"), "west", folder=here).code == 0
    done = shoal("members", "approve", sites.settings("east"), ballot, folder=here)
    assert "promote west" in done.out
    assert isinstance(read_statement((here / "promote-west.statement").read_bytes())[1], MemberAdded)

    who = next(m["id"] for m in listed if m["name"] == "west")
    assert shoal("members", "remove", sites.settings("north"), who[:12], folder=here).code == 0
    done = shoal("members", "approve", sites.settings("east"), here / "remove-west.ballot", folder=here)
    removal = here / "remove-west.statement"
    assert isinstance(read_statement(removal.read_bytes())[1], MemberRemoved)
    decide(sites, removal)
    listed = shoal("members", "list", sites.settings("south"), "--format", "json").json["members"]
    assert "west" not in [m["name"] for m in listed]


def test_a_site_leaves_by_its_own_word(joined: Sites) -> None:
    done = shoal("members", "remove", joined.settings("east"), "east", folder=joined.folder)
    assert done.code == 0, done
    decide(joined, joined.folder / "remove-east.statement")
    listed = shoal("members", "list", joined.settings("north"), "--format", "json").json["members"]
    assert [m["name"] for m in listed] == ["north", "south"]


def test_keys_are_rotated_beside_the_old_ones(joined: Sites) -> None:
    sites = joined
    decide(sites)
    south, here = sites.settings("south"), sites.folder
    before = {p: p.read_bytes() for p in (here / "south").glob("*.pem")}
    done = shoal("members", "rotate", south, folder=here, umask=0)
    assert done.code == 0, done
    statement = here / "rotate-south.statement"
    assert isinstance(read_statement(statement.read_bytes())[1], KeysRotated)
    first = statement.read_bytes()
    new = sorted(p.name for p in (here / "south").glob("*.2.pem"))
    assert new == ["curve.2.pem", "identity.2.pem"]
    assert all(stat.S_IMODE((here / "south" / name).stat().st_mode) == 0o600 for name in new)
    assert all(p.read_bytes() == data for p, data in before.items())
    again = shoal("members", "rotate", south, folder=here)
    assert again.code == 0 and not list((here / "south").glob("*.3.pem")), "the rotation that was begun goes on"
    keys = [read_statement(data)[1].signing for data in (first, statement.read_bytes())]
    assert keys[0] == keys[1]
    decide(sites, statement)
    registry = registry_of(sites.ledger("north"))
    pair, waiting = in_use(read_pairs(read_site(south)), registry)
    assert pair[0].public == keys[0] and waiting is None
    # It is the same member, and votes with the new key.
    sites.keys("west")
    assert "1 of 2" in shoal("members", "approve", south, sites.card("west"), folder=here).out
    assert shoal("members", "rotate", south, folder=here).code == 0
    assert (here / "south" / "identity.3.pem").exists()


def test_a_running_node_is_handed_it(joined: Sites) -> None:
    pytest.importorskip("zmq")
    from shoal.swarm.door import Door

    class Listening:
        heard: list[bytes] = []

        def say(self, payload: bytes) -> None:
            self.heard.append(payload)

    settings, here = joined.settings("east"), joined.folder
    done = shoal("members", "remove", settings, "east", "--format", "json", folder=here)
    assert not done.json["handed"]
    statement = here / "remove-east.statement"
    assert "no node is running" in shoal("members", "say", settings, statement).error
    with Door(Listening(), joined.ledger("east").parent):  # type: ignore[arg-type]
        assert shoal("members", "say", settings, statement).code == 0
        assert shoal("members", "rotate", settings, "--format", "json", folder=here).json["handed"]
        assert shoal("members", "say", settings, settings).error, "what is no statement goes nowhere"
    assert Listening.heard == [statement.read_bytes(), (here / "rotate-east.statement").read_bytes()]


def test_what_members_refuses(joined: Sites, tmp_path: Path) -> None:
    sites = joined
    sites.keys("west")
    north, card = sites.settings("north"), sites.card("west")
    told = "0123 4567 89ab cdef 0123 4567 89ab cdef"
    assert "fingerprint is" in shoal("members", "approve", north, card, "--fingerprint", told).error
    assert "is not there; shoal join" in shoal("members", "list", sites.settings("west")).error
    assert "names 0 members" in shoal("members", "remove", north, "nobody").error
    assert "names 0 members" in shoal("members", "remove", north, "ab").error
    assert "is a voter already" in shoal("members", "promote", north, "south").error
    assert sites.join("west", "--new").code == 0
    assert "no key of this site is a member's" in shoal("members", "approve", sites.settings("west"), card).error
    assert shoal("members", "approve", north, tmp_path / "none").error
    assert shoal("members", "approve", north).code == 2


def test_ballots_that_do_not_hold(joined: Sites) -> None:
    from shoal.ledger.archive import latest

    state = latest(joined.ledger("north")).state
    me = read_pairs(read_site(joined.settings("north")))[0][0]
    south = next(i for i, m in state.registry.members.items() if m.name == "south")
    good = approve(open_ballot(state, "remove", south), me, state)
    text = write_ballot(good)
    assert read_ballot(text.encode(), "b") == good
    signature = good.approvals[me.id].signature.hex()
    forged = read_ballot(text.replace(signature, "00" * 64).encode(), "b")
    with pytest.raises(PeerError, match="does not hold"):
        approve(forged, me, state)
    east = next(i for i, m in state.registry.members.items() if m.name == "east")
    turned = read_ballot(text.replace(f'member = "{south.hex()}"', f'member = "{east.hex()}"').encode(), "b")
    with pytest.raises(PeerError, match="does not hold"):
        approve(turned, me, state)
    with pytest.raises(PeerError, match="not about the same change"):
        put_together([good, turned])
    other = read_ballot(text.replace(state.genesis.hex(), "00" * 32).encode(), "b")
    with pytest.raises(PeerError, match="another swarm"):
        approve(other, me, state)
    for bad in (text + "[more]\n", text.replace("version = 1", "version = 2"), text.replace('"remove"', '"promoted"'),
                text.replace("changes = 0", "changes = -1"), text.replace('"remove"', '"add"'), "x" * 200_000):  # fmt: skip
        with pytest.raises(InputError):
            read_ballot(bad.encode(), "b")


def test_a_rule_and_its_parameters_are_in_the_policy(sites: Sites) -> None:
    done = sites.init("--plain", "--rule", "multi-krum", "--param", "num-nodes-to-select=2")
    assert done.code == 0, done
    policy = first_entry(sites.genesis).body.policy
    assert (policy.rule, policy.settings) == ("multi-krum", (Setting("num_nodes_to_select", 2),))
    done = sites.init("--plain", "--rule", "krum", "--param", "num_malicious_nodes=1")
    assert "at least 5 models" in done.error
