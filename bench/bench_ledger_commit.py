"""Commits over loopback: three real processes with the real core, rules, SQLite store (synced) and Ed25519 signatures.

commit    one entry at a time, from the wish to say it to its being decided and applied at the leader
          "ratio to one fsync": to an fsync of 4 KiB by one process that has the disk for itself
          "ratio to one of three": to the same while three processes do it, as the three nodes on this one disk do
          with a disk that takes longer for each fsync (a shim delays it) both are larger and the ratio is smaller
pipelined entries of 500 bytes, up to 512 of them not decided
long      so many entries, compacted on the way: what a node holds in memory, and how long opening its file takes
PySyncObj the yardstick: set SHOAL_PYSYNCOBJ to a Python that has pysyncobj 0.3.17.  It syncs and signs nothing.

Three nodes share the cores and the disk of one machine here; each process stays on one core.
SHOAL_BENCH_ENTRIES  entries of "long" (default 1,000,000: some minutes)
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pyzmq")

HERE = Path(__file__).resolve().parent
SECONDS_MAX = 900.0

#: sleeps after each sync: a slower disk
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int slow(const char *name, int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  const char *us = getenv("SHOAL_FSYNC_US");
  int result = real(fd);
  if (us) usleep(atoi(us));
  return result;
}
int fsync(int fd) { return slow("fsync", fd); }
int fdatasync(int fd) { return slow("fdatasync", fd); }
"""

#: prints the seconds of N syncs of 4 KiB
FSYNC = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
print(flush=True)
sys.stdin.readline()
for at in range(int(sys.argv[2])):
    before = time.perf_counter()
    os.pwrite(file, bytes(4096), at * 4096)
    os.fsync(file)
    print(time.perf_counter() - before)
"""

#: prints the seconds that opening a ledger takes, and the most memory it took
OPEN = """
import json, resource, sys, time
from pathlib import Path
from shoal.ledger.sqlite_store import SqliteStore
before = time.perf_counter()
store = SqliteStore(Path(sys.argv[1]))
seconds = time.perf_counter() - before
print(json.dumps([seconds, store.last_index, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


class Nodes:
    """Three processes; node 0 leads.  They end by themselves, at the latest when this process does."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.all: list[subprocess.Popen[str]] = []
        for number in range(3):
            words = ["--number", str(number), "--folder", str(folder), "--core", str(number)]
            words += ["--seconds-max", str(SECONDS_MAX)]
            self.all.append(start([str(HERE / "ledger_node.py"), *words], environment))

    def begin(self) -> None:
        ports = [hear(node)["port"] for node in self.all]
        for node in self.all:
            tell(node, ports=ports)
        assert hear(self.all[0])["leads"]

    def do(self, what: str, **how: float) -> Any:
        tell(self.all[0], do=what, **how)
        return hear(self.all[0])

    def same_at(self, index: int) -> list[dict[str, Any]]:
        """What each node says once it has decided up to ``index``: all have the same head there."""
        for node in self.all:
            tell(node, until=index)
        said = [hear(node) for node in self.all]
        assert len({each["head"] for each in said}) == 1
        return said

    def stop(self) -> None:
        for node in self.all:
            tell(node, end=True)
        assert [node.wait(60) for node in self.all] == [0, 0, 0]


def start(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], env=os.environ | environment, **pipes)


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def tell(process: subprocess.Popen[str], **what: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()


@contextmanager
def nodes(folder: Path, environment: dict[str, str]) -> Iterator[Nodes]:
    folder.chmod(0o700)
    running = Nodes(folder, environment)
    try:
        running.begin()
        yield running
        running.stop()
    finally:
        for node in running.all:
            node.kill()
            node.communicate()


def fsync_ms(folder: Path, at_once: int, count: int, environment: dict[str, str]) -> float:
    """Median of an fsync of 4 KiB, in so many processes at once."""
    running = [start(["-c", FSYNC, str(folder / f"fsync-{n}"), str(count)], environment) for n in range(at_once)]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [float(line) for process in running for line in process.communicate(timeout=120)[0].split()]
    return percentile(found, 50) * 1e3


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """The library that delays syncs."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("delay_us", [0, 500, 1000, 20000], ids=lambda us: f"{us / 1000:g}ms" if us else "as-it-is")
def test_commit(benchmark: Any, tmp_path: Path, delay_us: int, request: pytest.FixtureRequest) -> None:
    entries = 5 if benchmark.disabled else 100 if delay_us >= 20000 else 600
    environment = {}
    if delay_us:
        library = request.getfixturevalue("shim")
        environment = {"LD_PRELOAD": str(library), "SHOAL_FSYNC_US": str(delay_us)}
    syncs = 3 if benchmark.disabled else entries
    alone = fsync_ms(tmp_path, 1, syncs, environment)
    of_three = fsync_ms(tmp_path, 3, syncs, environment)
    with nodes(tmp_path, environment) as running:
        running.do("latency", entries=entries // 4, gap_s=0.0)
        done = benchmark.pedantic(lambda: running.do("latency", entries=entries, gap_s=0.0), rounds=1)
        running.same_at(done["index"])
    found = done["seconds"]
    p50, p99 = percentile(found, 50) * 1e3, percentile(found, 99) * 1e3
    benchmark.extra_info.update(
        {
            "p50 ms": p50,
            "p99 ms": p99,
            "fsync ms": alone,
            "one of three ms": of_three,
            "ratio to one fsync": p50 / alone,
            "ratio to one of three": p50 / of_three,
            "ms beside one fsync": p50 - alone,
        }
    )


def test_pipelined(benchmark: Any, tmp_path: Path) -> None:
    entries = 50 if benchmark.disabled else 10_000
    with nodes(tmp_path, {}) as running:
        how = {"entries": entries, "waiting": 512, "at_once": 64}
        done = benchmark.pedantic(lambda: running.do("pipelined", **how), rounds=1)
        running.same_at(done["index"])
    assert benchmark.disabled or done["payload"] == 500
    benchmark.extra_info.update({"entries per second": entries / done["seconds"]})


def test_long(benchmark: Any, tmp_path: Path) -> None:
    entries = 200 if benchmark.disabled else int(os.environ.get("SHOAL_BENCH_ENTRIES", "1000000"))
    with nodes(tmp_path, {}) as running:
        how = {"entries": entries, "waiting": 512, "at_once": 64}
        done = benchmark.pedantic(lambda: running.do("pipelined", **how), rounds=1)
        said = running.same_at(done["index"])
    opened = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "ledger-0.db")], capture_output=True, text=True, check=True
    )
    seconds, last, peak = json.loads(opened.stdout)
    assert last == done["index"]
    benchmark.extra_info.update(
        {
            "entries": entries,
            "entries per second": entries / done["seconds"],
            "leader MB": said[0]["rss"] / 1e6,
            "follower MB": max(each["rss"] for each in said[1:]) / 1e6,
            "entries in memory": max(each["entries_in_memory"] for each in said),
            "file MB": said[0]["file_bytes"] / 1e6,
            "open seconds": seconds,
            "open MB": peak / 1e6,
        }
    )


def free_ports() -> list[str]:
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def test_pysyncobj(benchmark: Any) -> None:
    python = os.environ.get("SHOAL_PYSYNCOBJ", "")
    if not python or shutil.which(python) is None:
        pytest.skip("SHOAL_PYSYNCOBJ names no Python with pysyncobj")
    latencies, pipelined = ("3", "50") if benchmark.disabled else ("50", "10000")
    words = [str(HERE / "pysyncobj_node.py")]
    ports = free_ports()

    def run() -> dict[str, Any]:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running = [
            subprocess.Popen([python, *words, str(number), *ports, latencies, pipelined], **pipes)
            for number in range(3)
        ]
        try:
            said = [hear(node) for node in running]
        finally:
            for node in running:
                try:
                    node.communicate("", timeout=10)
                except subprocess.TimeoutExpired:
                    node.kill()
        return next(each for each in said if each)

    done = benchmark.pedantic(run, rounds=1)
    assert done["failed"] == 0
    benchmark.extra_info.update(
        {
            "p50 ms": percentile(done["seconds"], 50) * 1e3,
            "p99 ms": percentile(done["seconds"], 99) * 1e3,
            "entries per second": int(pipelined) / done["pipelined"],
        }
    )
