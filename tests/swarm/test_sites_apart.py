"""Sites that differ: one that comes in later, and tensors that stay at each site."""

from __future__ import annotations

import importlib.util
import logging
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from site_folders import SiteFolders, free_port

import shoal
from shoal.errors import ArgumentError, InputError, MachineError
from shoal.ledger.identity import member_id
from shoal.ledger.statement import Seen, make_statement
from shoal.model.model import save
from shoal.swarm.ballot import approve, open_ballot
from shoal.swarm.node import Node
from shoal.swarm.site import Swarm, open_node
from shoal.swarm.site_keys import create_pair, read_pairs, rotation

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ("north", "south", "east")


def until(true: Callable[[], bool]) -> None:
    for _ in range(1500):
        if true():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come about within 30 s")


def merged_round(nodes: list[Node]) -> list[np.ndarray]:
    tickets = []
    for number, node in enumerate(nodes):
        arrays = node.arrays
        tickets.append(node.submit({**arrays, "w": arrays["w"] + np.float32(number + 1)}, 10))
    outcomes = [ticket.wait(60) for ticket in tickets]
    assert all(outcome.took_part for outcome in outcomes)
    return [outcome.arrays["w"] for outcome in outcomes]


def test_a_site_comes_in_and_takes_part(tmp_path: Path) -> None:
    sites = SiteFolders(tmp_path, NAMES)
    card = sites.newcomer("west")
    nodes: list[Node] = []
    try:
        nodes += (open_node(sites.site(name), sites.model) for name in (*NAMES, "west"))
        for node in nodes:
            node.start()
        merged_round(nodes[:3])
        assert any("let it in" in notice for notice in nodes[3].status().notices)
        state = nodes[0]._peer.ledger
        ballot = open_ballot(state, "add", member_id(card.card.signing), card)
        keys = [read_pairs(sites.site(name))[0][0] for name in NAMES]
        for key in keys[:2]:
            ballot = approve(ballot, key, state)
        nodes[0].say(make_statement(ballot.body, keys[0], state.genesis, Seen(state.index, state.head), 0))
        until(lambda: len(nodes[3].status().members) == 4 and not nodes[3].status().behind)
        assert nodes[3].status().round == 1
        until(lambda: all(sum(m.connected for m in node.status().members) == 4 for node in nodes))
        models = merged_round(nodes)
        assert all(np.array_equal(model, models[0]) for model in models)
    finally:
        for node in nodes:
            node.stop()


def test_a_site_changes_its_keys(tmp_path: Path) -> None:
    """It learns that they are decided, or is cut off before it does: started again, it goes on with the new ones."""
    sites = SiteFolders(tmp_path, NAMES)
    nodes: dict[str, Node] = {}
    place = sites.folder / "south"
    try:
        nodes.update((name, open_node(sites.site(name), sites.model)) for name in NAMES)
        for node in nodes.values():
            node.start()
        merged_round(list(nodes.values()))
        new = create_pair(place / "identity.2.pem", place / "curve.2.pem")
        old, state = read_pairs(sites.site("south"))[0][0], nodes["south"]._peer.ledger
        body = rotation(new, old.id, state.genesis)
        nodes["south"].say(make_statement(body, old, state.genesis, Seen(state.index, state.head), 0))
        until(lambda: nodes["north"]._peer.ledger.registry.members[old.id].signing == new[0].public)
        for _ in range(3):
            nodes["south"].stop()
            assert nodes["south"].failed is None or nodes["south"].failed.code == "node.keys"
            nodes["south"] = open_node(sites.site("south"))
            nodes["south"].start()
            south = nodes["south"]
            until(lambda: south.status() is not None or south.failed is not None)  # noqa: B023
            until(lambda: south.failed is not None or sum(m.connected for m in south.status().members) == 3)  # noqa: B023
            threading.Event().wait(0.5)
            if south.failed is None and south._peer.me.public == new[0].public:
                break
        assert south.failed is None and south._peer.me.public == new[0].public
        models = merged_round(list(nodes.values()))
        assert all(np.array_equal(model, models[0]) for model in models)
    finally:
        for node in nodes.values():
            node.stop()


@pytest.mark.parametrize("secure", [False, True])
def test_tensors_that_stay_at_each_site(tmp_path: Path, secure: bool) -> None:
    base = {"body.w": np.zeros(500, np.float32), "head.w": np.zeros(7, np.float32), "head.n": np.array([0], np.int64)}
    save(base, tmp_path / "base.onnx")
    sites = SiteFolders(tmp_path, NAMES, secure, tmp_path / "base.onnx", ("head.*",))
    swarms: list[Swarm] = []
    try:
        swarms += (shoal.join(sites.settings(name), sites.model) for name in NAMES)
        assert swarms[0].node.local == {"head.w", "head.n"}
        locals_ = [
            {
                "body.w": np.full(500, number, np.float32),
                "head.w": np.full(7, 10 + number, np.float32),
                "head.n": np.array([number], np.int64),
            }
            for number in range(3)
        ]
        merged: dict[int, dict[str, np.ndarray]] = {}

        def merge(number: int, swarm: Swarm) -> None:
            merged[number] = swarm.merge(locals_[number], 10)

        threads = [threading.Thread(target=merge, args=item) for item in enumerate(swarms)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number in range(3):
            assert np.allclose(merged[number]["body.w"], 1.0, atol=0.05)
            assert np.array_equal(merged[number]["head.w"], locals_[number]["head.w"])
            assert merged[number]["head.n"][0] == number
            assert np.array_equal(swarms[number].tensors["head.w"], base["head.w"]), "what all agree on is the base's"
        assert len({swarm.node.status().model for swarm in swarms}) == 1
        with pytest.raises(ArgumentError):
            swarms[0].node.submit({**locals_[0], "head.w": np.zeros(8, np.float32)}, 10)
    finally:
        for swarm in swarms:
            swarm.close()


def test_a_node_in_this_process_logs_and_is_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("prometheus_client")
    sites, port = SiteFolders(tmp_path, NAMES[:2]), free_port()
    sites.append("north", f'[metrics]\nlisten = "127.0.0.1:{port}"\n')
    before = threading.active_count()
    with (
        caplog.at_level(logging.INFO, "shoal"),
        shoal.join(sites.settings("north"), sites.model) as north,
        shoal.join(sites.settings("south"), sites.model),
    ):
        until(lambda: north.status is not None and sum(m.connected for m in north.status.members) == 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"shoal_members_connected 2.0" in answer.read()
    assert threading.active_count() <= before
    told = {(r.site, r.getMessage()) for r in caplog.records if r.code == "member.connected" and r.peer}  # type: ignore[attr-defined]
    assert told == {("north", "south is connected"), ("south", "north is connected")}
    # What cannot be had keeps nothing open behind it.
    sites.settings("south").write_text(sites.settings("north").read_text().replace("north", "south"))
    with shoal.join(sites.settings("north")), pytest.raises(MachineError):
        shoal.join(sites.settings("south"))
    assert threading.active_count() <= before


def test_sites_that_exclude_other_tensors_do_not_start(tmp_path: Path) -> None:
    sites = SiteFolders(tmp_path, NAMES[:2])
    sites.settings("north").write_text(sites.settings("north").read_text().replace("[]", '["w"]'))
    with pytest.raises(InputError) as refused:
        open_node(sites.site("north"), sites.model)
    assert refused.value.code == "node.layout"


def test_the_example_trains_at_three_sites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """examples/train_in_swarm.py, three times at once: all end with a loss that fell."""
    spec = importlib.util.spec_from_file_location("train_in_swarm", EXAMPLES / "train_in_swarm.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    base = {"w": np.zeros(6, np.float32), "b": np.zeros(1, np.float32)}
    save(base, tmp_path / "base.onnx")
    sites = SiteFolders(tmp_path, NAMES, True, tmp_path / "base.onnx")
    rng, truth, ends = np.random.default_rng(4), np.array([2.0, -1.0, 0.5, 0.0, 1.0, -2.0]), {}
    for number, name in enumerate(NAMES):
        x = rng.normal(size=(200 + 50 * number, 6))
        np.savez(tmp_path / f"{name}.npz", x=x, y=(x @ truth + rng.normal(size=len(x)) > 0).astype(np.int64))

    def run(name: str) -> None:
        words = (str(sites.settings(name)), str(sites.model), str(tmp_path / f"{name}.npz"))
        ends[name] = example.main(*words, 3)

    threads = [threading.Thread(target=run, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ends) == set(NAMES) and max(ends.values()) < 0.45 < np.log(2), ends
    # A site that must wait too long for another's word goes on without it; else all see the same mean.
    assert max(ends.values()) - min(ends.values()) < 0.1, ends
    assert "round 3: loss" in capsys.readouterr().out


def test_a_node_that_was_never_started_lets_go(tmp_path: Path) -> None:
    sites = SiteFolders(tmp_path, NAMES[:2])
    for _ in range(2):
        node = open_node(sites.site("north"), sites.model)
        node.stop()
        node.stop()
