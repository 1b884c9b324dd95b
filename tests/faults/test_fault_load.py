"""Strangers at the ports of nodes that work, and a hundred rounds back to back: the swarm goes on, and does not grow."""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live_swarm import LiveSwarm, Wrong

from shoal.limits import REPLICA_ENTRIES_MAX

pytestmark = pytest.mark.faults

#: ZMTP 3.1: signature, version, mechanism, as-server, filler
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01"


def greeting(mechanism: bytes) -> bytes:
    return _GREETING + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


#: what a stranger sends: name -> bytes, again and again
ABUSE = {
    "garbage": lambda: secrets.token_bytes(4096),
    "zeros": lambda: bytes(65536),
    "no mechanism": lambda: greeting(b"NULL") + secrets.token_bytes(64),
    "curve, then garbage": lambda: greeting(b"CURVE") + secrets.token_bytes(4096),
    "2^60 bytes": lambda: greeting(b"CURVE") + b"\x06" + struct.pack(">Q", 2**60) + bytes(65536),
    "2^60 in clear": lambda: greeting(b"PLAIN") + b"\x02" + struct.pack(">Q", 2**60) + bytes(65536),
    "2^63 more": lambda: greeting(b"PLAIN") + b"\x03" + struct.pack(">Q", 2**63 + 5) + bytes(65536),
    "an empty frame": lambda: greeting(b"CURVE") + b"\x00\x00" * 2000,
    "nothing": lambda: b"",
}


def facts(pid: int) -> dict[str, int]:
    """What the kernel says a process takes: resident bytes, threads, descriptors, sockets among them."""
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "Thr"))}
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return {
        "rss": int(numbers["VmRSS"]) * 1024,
        "threads": int(numbers["Threads"]),
        "files": len(links),
        "sockets": sum(link.startswith("socket:") for link in links),
    }


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSwarm]:
    with LiveSwarm(tmp_path_factory.mktemp("load"), 5, secure=True) as made:
        yield made
        made.export_and_verify()


class Strangers:
    """Threads that connect, send and connect again until they are told to stop."""

    def __init__(self, ports: list[int], name: str, count: int) -> None:
        self.sent = self.connections = 0
        self._stopping = threading.Event()
        self._make = ABUSE[name]
        self._threads = [threading.Thread(target=self._run, args=(ports[i % len(ports)],)) for i in range(count)]

    def __enter__(self) -> Strangers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, port: int) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as connection:
                self.connections += 1
                connection.settimeout(0.5)
                for _ in range(64):
                    data = self._make()
                    if not data:
                        self._stopping.wait(0.5)
                        break
                    connection.sendall(data)
                    self.sent += len(data)
            self._stopping.wait(0.01)


@pytest.mark.parametrize("name", ABUSE)
def test_strangers_at_the_ports(swarm: LiveSwarm, told: dict, name: str) -> None:
    """Of all nodes, both planes; meanwhile two rounds end, and no node takes much more memory."""
    swarm.heal()
    ports = []
    for i in range(swarm.n):
        line = next(x for x in swarm.settings(i).read_text().splitlines() if x.startswith("listen"))
        control = int(line.split(chr(34))[1].rpartition(":")[2])
        ports += [control, control + 1]
    before = [facts(swarm.pid(i)) for i in range(swarm.n)]
    with Strangers(ports, name, 10) as strangers:
        for _ in range(2):
            swarm.round()
        most = max(facts(swarm.pid(i))["rss"] - before[i]["rss"] for i in range(swarm.n))
    if not strangers.connections:
        raise Wrong("no stranger came through")
    told["connections"], told["MB sent"] = strangers.connections, strangers.sent // 10**6
    told["MB more"] = round(most / 1e6, 1)
    if most > 200e6:
        raise Wrong(f"a node took {most / 1e6:.0f} MB more")
    swarm.round()
    told["round"] = swarm.check()
    until = time.monotonic() + 20
    while any(facts(swarm.pid(i))["sockets"] > before[i]["sockets"] + 8 for i in range(swarm.n)):
        if time.monotonic() > until:
            raise Wrong("connections of strangers stay open")
        time.sleep(0.2)


def test_idle_connections(swarm: LiveSwarm, told: dict) -> None:
    """Hundreds that connect and say nothing."""
    swarm.heal()
    line = next(x for x in swarm.settings(0).read_text().splitlines() if x.startswith("listen"))
    port = int(line.split(chr(34))[1].rpartition(":")[2])
    before = facts(swarm.pid(0))
    open_ = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(400)]
    try:
        for _ in range(2):
            swarm.round()
        told["MB more"] = round((facts(swarm.pid(0))["rss"] - before["rss"]) / 1e6, 1)
    finally:
        for one in open_:
            one.close()
    told["round"] = swarm.check()


#: resident bytes for one entry of the log that a node holds in memory, with what the rules remember of it; up to
#: limits.REPLICA_ENTRIES_MAX entries, which some hundreds of rounds fill
_ENTRY_BYTES = 2500


def test_a_hundred_rounds_do_not_grow(swarm: LiveSwarm, told: dict, request: pytest.FixtureRequest) -> None:
    """After a fifth of the rounds, threads, sockets and files stay what they are, and memory too, but for the log."""
    swarm.heal()
    rounds = request.config.getoption("rounds", 100)
    samples: list[list[dict[str, int]]] = []
    began, decided = time.monotonic(), 0
    for number in range(rounds):
        swarm.round()
        samples.append([facts(swarm.pid(i)) for i in range(swarm.n)])
        if number == rounds // 5:
            decided = swarm.status(0).decided
    told["seconds a round"] = round((time.monotonic() - began) / rounds, 3)
    told["round"] = swarm.check()
    log = _ENTRY_BYTES * min(swarm.status(0).decided - decided, REPLICA_ENTRIES_MAX)
    warm = samples[rounds // 5 :]
    tenth = max(1, len(warm) // 10)
    told["MB"] = [
        round(sum(s[0]["rss"] for s in warm[k : k + tenth]) / tenth / 1e6, 1) for k in range(0, len(warm), tenth)
    ]
    for i in range(swarm.n):
        for what in ("threads", "files", "sockets"):
            # The least of several looks: a thread that has just answered may be there still when one looks.
            early, late = (min(s[i][what] for s in part) for part in (warm[:tenth], warm[-tenth:]))
            if late > early:
                raise Wrong(f"{swarm.names[i]}: {what} grew from {early} to {late}")
        early, late = (sum(s[i]["rss"] for s in part) / len(part) for part in (warm[:tenth], warm[-tenth:]))
        if late > 1.02 * early + log:
            raise Wrong(
                f"{swarm.names[i]}: memory grew from {early / 1e6:.1f} to {late / 1e6:.1f} MB, log {log / 1e6:.1f}"
            )
    told["threads"], told["files"], told["log MB"] = (
        samples[-1][0]["threads"],
        samples[-1][0]["files"],
        round(log / 1e6, 1),
    )
