"""Processes that do one thing together when they are told to: sites of a swarm, peers of gloo and of hivemind.

Each prints a line of JSON when it is ready, waits for a line, does it, and prints a line that tells when it began and
ended by the machine's monotonic clock.  They end with their stdin.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from limited_net import LimitedNet
from shoal.model.model import save
from shoal.study.hospitals import shoal

HERE = Path(__file__).resolve().parent
PEERS = 4
SECONDS_MAX = 300.0
#: samples of each site
SAMPLES = [100 + n for n in range(PEERS)]
_PORTS = itertools.count(21_000 + os.getpid() % 20_000, 2)
_TIMES = """
[times]
tick_ms = 50
election_ms = 1000
progress_timeout_s = 60.0
straggler_grace_s = 60.0
"""


class Group:
    """Use as a context manager.  ``steps``: lines that each has to be told in a round."""

    def __init__(self, environment: Mapping[str, str] = {}, steps: int = 1) -> None:
        self._environment = {**os.environ, **environment}
        self._steps = steps
        self._processes: list[subprocess.Popen[bytes]] = []
        self._early: dict[int, dict[str, Any]] = {}

    def __enter__(self) -> Group:
        return self

    def start(self, words: Sequence[str]) -> None:
        # Without a buffer, so that a line that waits can be seen to wait.
        self._processes.append(
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=self._environment, cwd=HERE
            )
        )

    def hear(self, number: int) -> dict[str, Any]:
        """The next line of one."""
        process = self._processes[number]
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        assert poll.poll(SECONDS_MAX * 1000), f"{process.args}: says nothing"
        line = process.stdout.readline()
        assert line, f"{process.args}: has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def ready(self, number: int) -> dict[str, Any]:
        """The line of one that it is ready, before all are."""
        self._early[number] = self.hear(number)
        return self._early[number]

    def hear_all(self) -> list[dict[str, Any]]:
        return [self._early.pop(n, None) or self.hear(n) for n in range(len(self._processes))]

    def step(self) -> list[dict[str, Any]]:
        """Tell each to do it; what they say then."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        return self.hear_all()

    def turn(self) -> dict[str, float]:
        """One round: seconds from the first one's begin to the last one's end, processor seconds, bytes per peer."""
        said = self.hear_all()
        ready = said
        for _ in range(self._steps):
            said = self.step()
        if "digest" in said[0]:
            check(ready, said)
        took = max(one["end"] for one in said) - min(one["begin"] for one in said)
        cpu, sent = (sum(one.get(name, 0) for one in said) for name in ("cpu", "sent"))
        return {"s": took, "cpu s": cpu, "bytes": sent / len(said)}

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def check(ready: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
    """All have one model, and it is the weighted mean."""
    assert len({one["digest"] for one in told}) == 1
    mean = np.average([one["first"] for one in ready], axis=0, weights=SAMPLES)
    np.testing.assert_allclose(told[0]["first"], mean, atol=2e-2)


@contextmanager
def swarm(
    folder: Path,
    elements: int,
    *,
    secure: bool,
    environment: Mapping[str, str] = {},
    net: LimitedNet | None = None,
    program: str = "swarm_site.py",
) -> Iterator[Group]:
    """Sites, made by the commands that people use.  In memory, if the machine has such a folder: no disk is measured.

    program  what a site runs
    """
    folder.mkdir()
    base, parts = folder / "base.onnx", 8
    rng = np.random.default_rng(0)
    save({f"layer {n}": rng.standard_normal(elements // parts, np.float32) for n in range(parts)}, base)
    names = [f"site-{n}" for n in range(PEERS)]
    hosts = ["127.0.0.1"] * PEERS if net is None else net.addresses
    settings = [folder / name / "site.toml" for name in names]
    for name, host, port, path in zip(names, hosts, free_ports(PEERS), settings, strict=True):
        shoal("keys", str(folder / name), "--name", name, "--address", f"tcp://{host}:{port}")
        path.write_text(path.read_text().replace(f"tcp://*:{port}", f"tcp://{host}:{port}") + _TIMES)
    genesis = folder / "genesis.shoal-ledger"
    cards = [str(folder / name / f"{name}.card") for name in names[1:]]
    words = ["--model", str(base), "--name", "bench", "-o", str(genesis), "--secure" if secure else "--plain"]
    digest = json.loads(shoal("init", str(settings[0]), *cards, *words, "--format", "json"))["digest"]
    for path in settings:
        shoal("join", str(path), str(genesis), "--digest", digest)
    with Group(environment) as made:
        for n, path in enumerate(settings):
            words = [sys.executable, program, str(path), str(base), str(SAMPLES[n])]
            made.start([*([] if net is None else net.prefix(n)), *words])
        yield made


@contextmanager
def gloo(python: str, elements: int, net: LimitedNet | None = None) -> Iterator[Group]:
    """All-reduce of torch.distributed; ``python``: one that has torch."""
    (port,) = free_ports(1)
    host, device = ("127.0.0.1", "lo") if net is None else (net.addresses[0], net.device)
    with Group({"GLOO_SOCKET_IFNAME": device}) as made:
        for n in range(PEERS):
            words = [python, "gloo_peer.py", str(n), str(PEERS), host, str(port), str(elements)]
            made.start([*([] if net is None else net.prefix(n)), *words])
        yield made


@contextmanager
def hivemind(python: str, elements: int) -> Iterator[Group]:
    """DecentralizedAverager; ``python``: one that has hivemind.  The search for the group is not measured."""
    with Group(steps=2) as made:
        made.start([python, "hivemind_peer.py", "0", str(PEERS), "-", str(elements)])
        address = made.ready(0)["address"]
        for n in range(1, PEERS):
            made.start([python, "hivemind_peer.py", str(n), str(PEERS), address, str(elements)])
        yield made


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and so is each one's next; each is given once."""
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        try:
            for one in (port, port + 1):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", one))
        except OSError:
            continue
        found.append(port)
    return found
