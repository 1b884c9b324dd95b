"""Waiting for a disk that is slow: rounds take longer, and nobody takes the leader for gone."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_node import TIMES, RealSwarm

from shoal.errors import MachineError
from shoal.swarm.disk import LONG_S, Disk
from shoal.swarm.pulse import Pulse
from shoal.swarm.transport import Back, Bulk, Event, Lost, Received

#: longer than any election of the test's swarm
SLOW_S = 2.5 * TIMES.election_s


def slowed(of: Any, name: str, seconds: float, times: int) -> None:
    """The next so many calls take longer."""
    real, left = getattr(of, name), [seconds] * times

    def slow(*words: Any) -> Any:
        time.sleep(left.pop() if left else 0)
        return real(*words)

    setattr(of, name, slow)


def test_a_leader_lives_on_while_all_disks_are_slow(tmp_path: Path) -> None:
    with RealSwarm(tmp_path, 3, secure=False) as swarm:
        swarm.round(0)
        terms = [node.status().term for node in swarm.nodes]
        leads = [m.name for m in swarm.nodes[0].status().members if m.leads]
        for node in swarm.nodes:
            slowed(node._replica._store, "_write", SLOW_S, 4)
        merged = swarm.round(1)
        assert all((m["w"] == merged[0]["w"]).all() for m in merged)
        assert [node.status().term for node in swarm.nodes] == terms
        assert [m.name for m in swarm.nodes[0].status().members if m.leads] == leads


def test_what_takes_long_runs_aside() -> None:
    turns: list[str] = []

    def meanwhile() -> None:
        turns.append(threading.current_thread().name)
        time.sleep(0.001)

    disk = Disk(meanwhile)
    assert disk.wait(lambda: 7) == 7

    def long() -> str:
        time.sleep(10 * LONG_S)
        return threading.current_thread().name

    assert disk.wait(long).startswith("shoal-disk")
    assert turns and set(turns) == {threading.current_thread().name}

    def fails() -> None:
        time.sleep(2 * LONG_S)
        raise MachineError("store.write", "the disk is gone")

    with pytest.raises(MachineError, match="gone"):
        disk.wait(fails)
    disk.close()


def test_what_is_no_heartbeat_waits_in_order() -> None:
    """Beside heartbeats all that came while the disk worked comes out afterwards, as it came."""
    wire = Wire()
    sent = [Received(b"p", b"\x02" + bytes([n])) for n in range(5)] + [
        Bulk(b"p", b"h", memoryview(b"body")),
        Lost(b"p"),
    ]
    pulse = Pulse(wire, Silent(), 0.0, 1.0)  # type: ignore[arg-type]
    assert list(pulse.events(0.0)) == []
    for event in sent:
        wire.waiting.append([event])
        pulse.meanwhile()
    later = Back(b"p")
    wire.waiting.append([later])
    assert list(pulse.events(5.0)) == [*sent, later] and wire.waits[-1] == 0.0
    assert list(pulse.events(0.0)) == []


class Wire:
    """Gives what it is told to; nothing is sent."""

    def __init__(self) -> None:
        self.waiting: list[list[Event]] = []
        self.waits: list[float] = []

    def poll(self, wait_s: float) -> list[Event]:
        self.waits.append(wait_s)
        return self.waiting.pop(0) if self.waiting else []


class Silent:
    """A replica that has nothing to say."""

    def pulse(self, beats: Any, lead: bool) -> list[Any]:
        assert not list(beats)
        return []
