"""What Prometheus is told, what the log says, and where neither can be had."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from site_folders import SiteFolders

from shoal.cli.log import Log, LogForm
from shoal.errors import ArgumentError, MachineError
from shoal.swarm.metrics import Metrics
from shoal.swarm.peer import Notice
from shoal.swarm.site import open_node
from shoal.swarm.stages import Stages

NAMES = ("north", "south")


def asked(port: int) -> dict[str, float]:
    """Every sample that the node tells, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_a_node_tells_prometheus(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    sites = SiteFolders(tmp_path, NAMES)
    nodes = [open_node(sites.site(name), sites.model) for name in NAMES]
    heard: list[Notice] = []
    nodes[0].on_notice = heard.append
    before = threading.active_count()
    with nodes[0], nodes[1], Metrics(nodes[0].status, "north", "127.0.0.1:0") as metrics:
        tickets = []
        for node in nodes:
            arrays = node.arrays
            tickets.append(node.submit({**arrays, "w": arrays["w"] + np.float32(1)}, 10))
        for ticket in tickets:
            ticket.wait(60)
        while (status := nodes[0].status()) is None or not status.results:
            threading.Event().wait(0.01)
        told = asked(metrics.port)
        assert told["shoal_round"] == 1 and told["shoal_members"] == told["shoal_members_connected"] == 2
        assert told["shoal_sent_bytes_total"] > 12_000 and told["shoal_received_bytes_total"] > 12_000
        assert told["shoal_term"] >= 1 and told["shoal_ledger_entries"] >= 3 and told["shoal_leader_known"] == 1
        assert told['shoal_rounds_total{result="merged"}'] == 1
        assert told['shoal_phase_seconds_total{phase="upload"}'] > 0
        assert told['shoal_notices_total{level="info"}'] >= 1
        assert sum(v for k, v in told.items() if k.startswith("shoal_phase{")) in (0, 1)
        (info,) = (k for k in told if k.startswith("shoal_info{"))
        assert 'site="north"' in info and 'swarm="test"' in info
    assert threading.active_count() <= before
    (notice,) = (n for n in heard if n.code == "member.connected")
    assert notice.peer.hex() in {m.id for m in status.members} and "south" in notice.text


def test_where_metrics_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    for listen in ("9100", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000", ""):
        with pytest.raises(ArgumentError) as refused:
            Metrics(lambda: None, "north", listen)
        assert refused.value.code == "metrics.address"
    with Metrics(lambda: None, "north", "127.0.0.1:0") as metrics:
        assert asked(metrics.port) == {}, "a node that has said nothing yet tells nothing"
        with pytest.raises(MachineError) as failed:
            Metrics(lambda: None, "north", f"127.0.0.1:{metrics.port}")
        assert failed.value.code == "metrics.listen"
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MachineError) as failed:
        Metrics(lambda: None, "north", "127.0.0.1:0")
    assert failed.value.code == "metrics.library" and "pip install" in str(failed.value)


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    notice = Notice("warning", "slot 4: bad\nwords", "slot.note", 4, b"\x01\x02")
    Log(LogForm.json, "north", lambda: 3).notice(notice)
    Log(LogForm.json, "north", lambda: 3).say("info", "begun", "node.started")
    Log(LogForm.text, "north", lambda: 3).notice(notice)
    one, two, three = capsys.readouterr().err.splitlines()
    told = json.loads(one)
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "warning", "code": "slot.note", "message": "slot 4: bad\\nwords",
        "site": "north", "round": 3, "slot": 4, "peer": "0102",
    }  # fmt: skip
    assert set(json.loads(two)) == {"time", "level", "code", "message", "site", "round"}
    assert three.endswith("warning: slot 4: bad\\nwords")


def test_time_in_phases() -> None:
    stages = Stages()
    for at, phase in ((0, ""), (5, "SHARE"), (5.5, "SHARE"), (6, "UPLOAD"), (8, ""), (9, "SHARE"), (9.5, "")):
        stages.at(phase, at)
    assert stages.seconds == {"train": 6.0, "share": 1.5, "upload": 2.0}


def test_who_leaves_lets_its_round_end(tmp_path: Path) -> None:
    """It goes in the middle of a round: the others get the model with its update, without waiting for it in vain."""
    sites = SiteFolders(tmp_path, ("north", "south", "east"))
    nodes = [open_node(sites.site(name), sites.model) for name in sites.names]
    for node in nodes:
        node.start()
    try:
        tickets = []
        for node in nodes:
            arrays = node.arrays
            tickets.append(node.submit({**arrays, "w": arrays["w"] + np.float32(1)}, 10))
        while not nodes[0].status() or not (nodes[0].status().takes_part or tickets[0].ended):
            threading.Event().wait(0.005)
        nodes[0].leave(30)
        outcomes = [ticket.wait(60) for ticket in tickets]
        assert all(outcome.took_part and outcome.round == 1 for outcome in outcomes)
        # What waits when it leaves is not merged, and whoever waits for it is told.
        arrays = nodes[1].arrays
        ticket = nodes[1].submit({**arrays, "w": arrays["w"] + np.float32(1)}, 10)
        nodes[1].leave(30)
        with pytest.raises(MachineError) as stopped:
            ticket.wait(1)
        assert stopped.value.code == "node.stopped"
    finally:
        for node in nodes:
            node.stop()
