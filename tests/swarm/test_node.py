"""Nodes with real sockets, CURVE, SQLite and model files, several in one process."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

import numpy as np
import pytest
import zmq
from swarm_table import seed
from zmq.utils import z85

from shoal.errors import ArgumentError
from shoal.ledger.body import Genesis, MemberCard, Policy
from shoal.ledger.digest import ZERO_DIGEST
from shoal.ledger.entry import GENESIS_PREV, GENESIS_TERM, Entry
from shoal.ledger.identity import Identity
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.statement import Seen, make_statement
from shoal.model.model import load, save
from shoal.secure.journal_file import JournalFile
from shoal.swarm.book import Book
from shoal.swarm.curve_transport import CurveTransport
from shoal.swarm.node import Node, Times
from shoal.swarm.replica import Replica, found

TIMES = Times(tick_s=0.02, election_s=0.3, progress_s=2.0, muster_s=1.0)


class RealSwarm:
    """n sites in folders of one machine."""

    def __init__(self, folder: Path, n: int, secure: bool, elements: int = 3000) -> None:
        self.folder, self.secure = folder, secure
        rng = np.random.default_rng(0)
        self.base = {"w": rng.standard_normal(elements).astype(np.float32), "steps": np.array([3], np.int64)}
        self.model = folder / "base.onnx"
        save(self.base, self.model)
        people = sorted((Identity.generate() for _ in range(n)), key=lambda who: who.id)
        pairs = [tuple(map(z85.decode, zmq.curve_keypair())) for _ in people]
        self.transports = [CurveTransport(secret, "tcp://127.0.0.1:0") for _, secret in pairs]
        self.secrets = [secret for _, secret in pairs]
        cards = tuple(
            MemberCard(who.public, public, f"site-{i}", t.address())
            for i, (who, (public, _), t) in enumerate(zip(people, pairs, self.transports, strict=True))
        )
        book = Book(self.base)
        policy = Policy(secure, "mean", 1, 3 if secure else 2, 1)
        body = Genesis("real", seed("nonce")[:16], policy, book.layout.digest, book.digest, cards)
        payload = make_statement(body, people[0], ZERO_DIGEST, Seen(), 0)
        self.genesis = Entry(1, GENESIS_TERM, GENESIS_PREV, payload)
        self.people, self.nodes = people, []
        for i in range(n):
            (folder / str(i)).mkdir(mode=0o700)
            store = SqliteStore(folder / str(i) / "ledger.db")
            found(store, self.genesis)
            self.nodes.append(self.node(i, store, self.transports[i]))

    def node(self, i: int, store: SqliteStore, transport: CurveTransport) -> Node:
        journal = JournalFile(self.folder / str(i) / "journal.db")
        replica = Replica(self.people[i], store, secrets.randbelow, TIMES.options())
        return Node(self.people[i], replica, journal, transport, self.model, self.folder / str(i), TIMES)

    def restart(self, i: int) -> None:
        store = SqliteStore(self.folder / str(i) / "ledger.db")
        transport = CurveTransport(self.secrets[i], self.transports[i].address())
        self.nodes[i] = self.node(i, store, transport)
        self.nodes[i].start()

    def round(self, number: int, who: list[int] | None = None) -> list[dict[str, np.ndarray]]:
        """Everybody trains (adds noise) and merges."""
        tickets = []
        for i in range(len(self.nodes)) if who is None else who:
            rng = np.random.default_rng((number, i))
            arrays = self.nodes[i].arrays
            local = {**arrays, "w": arrays["w"] + 0.1 * rng.standard_normal(arrays["w"].shape).astype(np.float32)}
            tickets.append(self.nodes[i].submit(local, 100 + i))
        return [ticket.wait(60).arrays for ticket in tickets]

    def __enter__(self) -> RealSwarm:
        for node in self.nodes:
            node.start()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()


@pytest.mark.parametrize("secure", [False, True])
def test_rounds_over_sockets(tmp_path: Path, secure: bool) -> None:
    before = {t.name for t in threading.enumerate()}
    with RealSwarm(tmp_path, 4, secure) as swarm:
        for number in range(3):
            merged = swarm.round(number)
            assert all(np.array_equal(m["w"], merged[0]["w"]) for m in merged)
            assert not np.array_equal(merged[0]["w"], swarm.base["w"])
        status = swarm.nodes[0].status()
        assert status.round == 3 and all(m.connected for m in status.members) and not status.behind
        assert not [n for node in swarm.nodes for n in node.status().notices if n.startswith("fault")]
    for i in range(4):
        with load(tmp_path / str(i) / "certified.onnx") as kept:
            assert np.array_equal(kept["w"], merged[0]["w"]) and kept["steps"][0] == 3
            assert kept.digest().hex() == status.model
    left = {t.name for t in threading.enumerate()} - before
    assert not [name for name in left if name.startswith("shoal")]


def test_a_node_comes_back_and_goes_on(tmp_path: Path) -> None:
    with RealSwarm(tmp_path, 4, True) as swarm:
        swarm.round(0)
        swarm.nodes[3].stop()
        merged = swarm.round(1, [0, 1, 2])
        swarm.restart(3)
        merged = swarm.round(2, [0, 1, 2])
        deadline = threading.Event()
        for _ in range(600):
            if np.array_equal(swarm.nodes[3].arrays["w"], merged[0]["w"]):
                break
            deadline.wait(0.05)
        assert np.array_equal(swarm.nodes[3].arrays["w"], merged[0]["w"])
        merged = swarm.round(3)
        assert all(np.array_equal(m["w"], merged[0]["w"]) for m in merged)


def test_what_cannot_be_merged_is_refused_at_once(tmp_path: Path) -> None:
    with RealSwarm(tmp_path, 3, False) as swarm:
        node = swarm.nodes[0]
        good = dict(node.arrays)
        for bad, code in (
            ({**good, "w": good["w"][:-1]}, "diff.model"),
            ({**good, "v": good["w"]}, "diff.model"),
            ({**good, "steps": np.array([4], np.int64)}, "diff.model"),
            ({**good, "w": np.where(np.arange(3000) == 7, np.nan, good["w"]).astype(np.float32)}, "diff.nonfinite"),
        ):
            with pytest.raises(ArgumentError) as raised:
                node.submit(bad, 10)
            assert raised.value.code == code
        with pytest.raises(ArgumentError) as raised:
            node.submit(good, 0)
        assert raised.value.code == "diff.samples"
