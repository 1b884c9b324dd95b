"""Rounds of four node processes over loopback, beside gloo's all-reduce and hivemind's averager of the same size.

round      from handing in the update at the first node until the certified model is in force at the last one
kept       until it is in the last one's file, synced
sealed     as nodes run: chunks under AES-256-GCM
unsealed   chunks as they are, which only a measurement may ask for: gloo and hivemind encrypt nothing either
cpu        seconds of all four processes

SHOAL_BENCH_SWARM_MB  size of the model (default 100; 0.4 when benchmarks are disabled)
SHOAL_TORCH           a Python that has torch: gloo is measured with it; SHOAL_HIVEMIND one that has hivemind 1.1.12

All take turns; figures are medians, and ratios those of the medians of one run.  Four processes share the machine's
cores, so what a round costs all of them decides.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("zmq", reason="needs pyzmq")

from shoal.model.model import save
from shoal.study.hospitals import shoal
from shoal.swarm.site import UNSEALED

HERE = Path(__file__).resolve().parent
PEERS = 4
SECONDS_MAX = 300.0
#: bytes of a float32 parameter that a peer sends: all shards but its own, and its own to all (docs/PROTOCOL.md)
FORMULA = 8 * (PEERS - 1) / PEERS
_PORTS = itertools.count(21_000 + os.getpid() % 20_000, 2)
_TIMES = """
[times]
tick_ms = 50
election_ms = 1000
progress_timeout_s = 20.0
straggler_grace_s = 10.0
"""


class Group:
    """Processes that do one thing together when they are told to; killed at the end."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: dict[str, str] | None = None) -> None:
        self.processes = [
            subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,  # so that a line that waits can be seen to wait
                env={**os.environ, **(environment or {})},
            )
            for words in commands
        ]

    def hear(self) -> list[dict[str, Any]]:
        """The next line of each."""
        found = []
        for process in self.processes:
            assert process.stdout is not None
            selector = select.poll()
            selector.register(process.stdout, select.POLLIN)
            assert selector.poll(SECONDS_MAX * 1000), "a process of the bench says nothing"
            line = process.stdout.readline()
            assert line, f"a process of the bench has ended: {process.args}"
            found.append(json.loads(line))
        return found

    def tell(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")

    def close(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def turn(self, lines_before: int = 0) -> dict[str, float]:
        """One round; seconds of all of them together."""
        ready = self.hear()
        for _ in range(lines_before):
            self.tell()
            self.hear()
        self.tell()
        told = self.hear()
        if "digest" in told[0]:
            check(ready, told)
        begin = min(one["begin"] for one in told)
        found = {name: max(one[name] for one in told) - begin for name in ("merged", "kept")}
        found["cpu"] = sum(one["cpu"] for one in told)
        found["sent"] = statistics.mean(one.get("sent", 0) for one in told)
        return found


def check(ready: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
    """All have one model, and it is the mean."""
    assert len({one["digest"] for one in told}) == 1
    mean = np.average([one["first"] for one in ready], axis=0, weights=[100 + n for n in range(PEERS)])
    np.testing.assert_allclose(told[0]["first"], mean, atol=2e-2)


@contextmanager
def group(commands: Sequence[Sequence[str]], environment: dict[str, str] | None = None) -> Iterator[Group]:
    made = Group(commands, environment)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def sites(folder: Path, elements: int, secure: bool, environment: dict[str, str] | None = None) -> Iterator[Group]:
    """Four sites, made by the commands that people use."""
    folder.mkdir()
    base = folder / "base.onnx"
    rng, parts = np.random.default_rng(0), 8
    save({f"layer {n}": rng.standard_normal(elements // parts, np.float32) for n in range(parts)}, base)
    names = [f"site-{n}" for n in range(PEERS)]
    for name, port in zip(names, free_ports(PEERS), strict=True):
        shoal("keys", str(folder / name), "--name", name, "--address", f"tcp://127.0.0.1:{port}")
        settings = folder / name / "site.toml"
        text = settings.read_text().replace(f"tcp://*:{port}", f"tcp://127.0.0.1:{port}")
        settings.write_text(text + _TIMES)
    settings = [folder / name / "site.toml" for name in names]
    genesis = folder / "genesis.shoal-ledger"
    cards = [str(folder / name / f"{name}.card") for name in names[1:]]
    mode = "--secure" if secure else "--plain"
    words = ["--model", str(base), "--name", "bench", "-o", str(genesis), mode, "--format", "json"]
    digest = json.loads(shoal("init", str(settings[0]), *cards, *words))["digest"]
    for path in settings:
        shoal("join", str(path), str(genesis), "--digest", digest)
    program = str(HERE / "swarm_site.py")
    commands = [[sys.executable, program, str(path), str(base), str(100 + n)] for n, path in enumerate(settings)]
    with group(commands, environment) as made:
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


@contextmanager
def gloo(python: str, elements: int) -> Iterator[Group]:
    (port,) = free_ports(1)
    program = str(HERE / "gloo_peer.py")
    commands = [[python, program, str(n), str(PEERS), str(port), str(elements)] for n in range(PEERS)]
    with group(commands, {"GLOO_SOCKET_IFNAME": "lo"}) as made:
        yield made


def elements_of(benchmark: Any) -> int:
    megabytes = 0.4 if benchmark.disabled else float(os.environ.get("SHOAL_BENCH_SWARM_MB", "100"))
    return int(megabytes * 1e6 / 4) // 8 * 8


def take_turns(groups: dict[str, Group], turns: int) -> dict[str, dict[str, float]]:
    """Each in turn, the first turn of each not counted; medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in groups}
    for turn in range(turns + 1):
        for name, one in groups.items():
            took = one.turn()
            if turn:
                found[name].append(took)
    return {
        name: {figure: statistics.median(one[figure] for one in rounds) for figure in rounds[0]}
        for name, rounds in found.items()
    }


def test_plain_round(benchmark: Any, tmp_path: Path) -> None:
    elements, turns = elements_of(benchmark), 1 if benchmark.disabled else 5
    torch = os.environ.get("SHOAL_TORCH", "")
    found: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        groups = {
            "sealed": stack.enter_context(sites(tmp_path / "sealed", elements, False)),
            "unsealed": stack.enter_context(sites(tmp_path / "unsealed", elements, False, dict([UNSEALED]))),
        }
        if torch:
            groups["gloo"] = stack.enter_context(gloo(torch, elements))
        benchmark.pedantic(lambda: found.update(take_turns(groups, turns)), rounds=1)
    info = benchmark.extra_info
    for name, figures in found.items():
        info[f"{name}, ms"] = figures["merged"] * 1e3
        info[f"{name}, cpu ms"] = figures["cpu"] * 1e3
    info["sealed, kept, ms"] = found["sealed"]["kept"] * 1e3
    info["bytes to the formula"] = found["sealed"]["sent"] / (FORMULA * elements)
    info["sealed to unsealed"] = found["unsealed"]["merged"] / found["sealed"]["merged"]
    if torch:
        info["unsealed to gloo"] = found["gloo"]["merged"] / found["unsealed"]["merged"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "secure"])
def test_small_round(benchmark: Any, tmp_path: Path, secure: bool) -> None:
    """A model of 10,000 parameters: what a round costs beside its bytes.  "sync" is one fsync of 4 KiB, alone."""
    turns = 1 if benchmark.disabled else 30
    found: dict[str, dict[str, float]] = {}
    with sites(tmp_path / "sites", 10_000, secure) as group_:
        benchmark.pedantic(lambda: found.update(take_turns({"small": group_}, turns)), rounds=1)
    small = found["small"]
    benchmark.extra_info.update(
        {
            "round, ms": small["merged"] * 1e3,
            "kept, ms": small["kept"] * 1e3,
            "cpu of all, ms": small["cpu"] * 1e3,
            "sync, ms": sync_s(tmp_path) * 1e3,
        }
    )


def sync_s(folder: Path) -> float:
    """Median seconds of an fsync of 4 KiB."""
    took = []
    with (folder / "synced").open("wb") as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            begin = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - begin)
    return statistics.median(took)
