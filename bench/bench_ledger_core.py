"""The consensus core alone: three cores in one process, joined by function calls, no disk, no signatures.

Unit: entries a second through the cluster: proposed at the leader, stored, acknowledged and applied at all three, chain
hashes included.  `waiting` is how many proposals are made before the messages move: 1 is a closed loop (the latency of one
entry is its inverse), 64 is what a pipelined leader sees.  The result is checked: all three have applied the same chain.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from shoal.ledger.members import Configuration
from shoal.ledger.raft import Hooks, Options, Raft, Role

ENTRIES = 20_000


class Cluster:
    def __init__(self, names: bytes = b"abc") -> None:
        ids = tuple(bytes([c]) for c in names)
        rng = Random(7)
        hooks = Hooks(draw=rng.randrange)
        self.cores = {i: Raft(i, hooks, Options(announce=False), configuration=Configuration(ids)) for i in ids}
        self.leader = self.cores[ids[0]]
        self.leader.campaign()
        self.move()
        assert self.leader.role == Role.LEADER

    def move(self) -> None:
        """Until silence."""
        busy = True
        while busy:
            busy = False
            for core in self.cores.values():
                while core.has_ready():
                    busy = True
                    ready = core.ready()
                    for m in ready.early:
                        self.cores[m.to].step(m)
                    for m in ready.messages:
                        self.cores[m.to].step(m)
                    core.advance()

    def run(self, entries: int, waiting: int) -> bytes:
        """Put entries through; returns the hash of the chain's end, the same at all."""
        for n in range(1, entries + 1):
            self.leader.propose(b"%500d" % n)
            if n % waiting == 0 or n == entries:
                self.move()
            if n % 10_000 == 0:
                for core in self.cores.values():
                    core.compact(core.log.applied, b"")
        ends = {core.log.last_hash for core in self.cores.values()}
        assert {core.log.applied for core in self.cores.values()} == {entries + 1} and len(ends) == 1
        return ends.pop()


@pytest.mark.parametrize("waiting", [1, 64, 512])
def test_entries_through_three_cores(benchmark: Any, waiting: int) -> None:
    entries = 200 if benchmark.disabled else ENTRIES
    digest = benchmark.pedantic(
        lambda cluster: cluster.run(entries, waiting),
        setup=lambda: ((Cluster(),), {}),
        rounds=1 if benchmark.disabled else 3,
    )
    benchmark.extra_info["chain"] = digest.hex()[:16]
    if not benchmark.disabled:
        benchmark.extra_info["entries/s"] = entries / benchmark.stats.stats.min


def test_memory_of_a_compacted_log(benchmark: Any) -> None:
    """Bytes that a core holds at most over many entries of 500 bytes, compacted every 10,000: bounded by the window, not by the history."""
    import tracemalloc

    entries = 200 if benchmark.disabled else 1_000_000

    def run() -> int:
        cluster = Cluster(b"a")
        tracemalloc.start()
        cluster.run(entries, 512)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    benchmark.extra_info["peak bytes"] = held = benchmark.pedantic(run, rounds=1)
    assert held < 32 * 2**20
