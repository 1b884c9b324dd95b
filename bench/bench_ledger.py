"""The ledger: verification of a long one, appends with fsync, and the signatures that both are made of.

SHOAL_BENCH_ENTRIES  entries to verify (default 100,000; about 300 when benchmarks are disabled)
Rates are per second.  "ratio to signatures alone" compares a verification with the same number of Ed25519 checks in as
many threads: what is left is reading, hashing and the rules.  Appends are compared with one fsync of a 4 KiB write.
"""

from __future__ import annotations

import io
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ledger"))
from store_conformance import chain
from swarm_builder import SwarmBuilder, identity

from shoal.ledger.entry import entry_hash
from shoal.ledger.export import ExportReader, Header, write_export
from shoal.ledger.identity import signature_holds
from shoal.ledger.sqlite_store import SqliteStore
from shoal.ledger.verify import verify


def grown(entries: int, seal_every: int) -> SwarmBuilder:
    """A swarm of four with masks, whose ledger has at least so many entries."""
    built = SwarmBuilder(members=4, secure=True, seal_every=seal_every)
    while len(built.entries) < entries:
        built.history(built.ledger.state.round + 100 if entries > 1000 else built.ledger.state.round + 3)
    return built


@pytest.mark.parametrize("seal_every", [1, 16])
def test_verify(benchmark: Any, seal_every: int) -> None:
    """From the bytes of an exported file to the report; a seal on every entry, or on batches of 16."""
    entries = 300 if benchmark.disabled else int(os.environ.get("SHOAL_BENCH_ENTRIES", "100000"))
    built = grown(entries, seal_every)
    stream = io.BytesIO()
    write_export(stream, Header(built.genesis, 1, len(built.entries), entry_hash(built.entries[-1])), built.entries)
    genesis, count, data = built.genesis, len(built.entries), stream.getvalue()
    del built

    def ours() -> Any:
        return verify(ExportReader(io.BytesIO(data), "bench"), genesis)

    started = time.perf_counter()
    report = benchmark.pedantic(ours, rounds=1)
    seconds = time.perf_counter() - started
    assert report.fault is None and report.entries == count
    cores = len(os.sched_getaffinity(0))
    alone = report.signatures / (signature_rate(20 if benchmark.disabled else 5000) * cores)
    benchmark.extra_info.update(
        {
            "entries": count,
            "MB": len(data) / 1e6,
            "signatures": report.signatures,
            "seconds": seconds,
            "entries per second": count / seconds,
            "ratio to signatures alone": seconds / alone,
        }
    )


def signature_rate(count: int) -> float:
    """Ed25519 checks per second and core, with all cores at work."""
    who, message = identity(0), bytes(32)
    signature = who.sign(message)
    cores = len(os.sched_getaffinity(0))

    def some() -> None:
        for _ in range(count):
            assert signature_holds(who.public, signature, message)

    with ThreadPoolExecutor(cores) as pool:
        started = time.perf_counter()
        list(pool.map(lambda _: some(), range(cores)))
        return count / (time.perf_counter() - started)


@pytest.mark.parametrize("batch", [1, 32, 256])
def test_append(benchmark: Any, tmp_path: Path, batch: int) -> None:
    """Entries of 500 bytes, synced in batches."""
    batches = 2 if benchmark.disabled else 200
    store = SqliteStore(tmp_path / "ledger.db")
    entries = chain(batch * batches, salt="x" * 90)

    def ours() -> None:
        for at in range(0, len(entries), batch):
            store.append(entries[at : at + batch])

    started = time.perf_counter()
    benchmark.pedantic(ours, rounds=1)
    seconds = time.perf_counter() - started
    assert store.last_index == len(entries)
    store.close()
    sync = fsync_seconds(tmp_path / "plain", batches)
    benchmark.extra_info.update(
        {
            "entries per second": len(entries) / seconds,
            "ms per batch": seconds / batches * 1e3,
            "fsync ms": sync * 1e3,
            "ratio to one fsync": seconds / batches / sync,
        }
    )


def fsync_seconds(path: Path, count: int) -> float:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        started = time.perf_counter()
        for at in range(count):
            os.pwrite(descriptor, bytes(4096), at * 4096)
            os.fsync(descriptor)
        return (time.perf_counter() - started) / count
    finally:
        os.close(descriptor)


def test_open(benchmark: Any, tmp_path: Path) -> None:
    """Opening a ledger file: every row's checksum and the chain."""
    count = 200 if benchmark.disabled else 100_000
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    entries = chain(count, salt="x" * 90)
    for at in range(0, count, 5000):
        store.append(entries[at : at + 5000])
    store.close()

    def ours() -> SqliteStore:
        return SqliteStore(path)

    started = time.perf_counter()
    opened = benchmark.pedantic(ours, rounds=1)
    seconds = time.perf_counter() - started
    assert opened.last_index == count
    opened.close()
    benchmark.extra_info.update({"entries": count, "seconds": seconds, "entries per second": count / seconds})


def test_signatures(benchmark: Any) -> None:
    count = 20 if benchmark.disabled else 5000
    who, message = identity(0), bytes(32)
    started = time.perf_counter()
    benchmark.pedantic(lambda: [who.sign(message) for _ in range(count)], rounds=1)
    seconds = time.perf_counter() - started
    benchmark.extra_info.update(
        {"signs per second": count / seconds, "checks per second and core": signature_rate(count)}
    )
