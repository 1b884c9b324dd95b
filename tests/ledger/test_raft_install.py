"""Compaction and snapshots in chunks."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from raft_cluster import Net, chain, cluster, core, of, turn

from shoal.errors import ArgumentError
from shoal.ledger.entry import entry_hash
from shoal.ledger.members import Configuration
from shoal.ledger.message import SnapshotChunk, SnapshotHead, SnapshotReply
from shoal.ledger.raft import Options
from shoal.ledger.ready import head_of, pack_state, unpack_state
from shoal.ledger.store import Snapshot

OPTIONS = Options(announce=False, chunk_bytes=50)
LIFE = 1 << 32


def behind(data: bytes = b"state" * 40) -> Net:
    """c lacks what a has compacted."""
    net = cluster(options=OPTIONS)
    net.isolate("c")
    for n in range(5):
        net["a"].propose(b"%d" % n)
    net.run()
    net["a"].compact(5, data)
    return net


def test_a_peer_that_is_far_behind_gets_the_snapshot_in_chunks() -> None:
    net = behind()
    net.heal()
    chunks: list[SnapshotChunk] = []
    for _ in range(30):
        net["a"].tick()
        for m in turn(net["a"]):
            chunks += of(SnapshotChunk, [m])
            net[m.to.decode()].step(m)
        for name in "bc":
            for m in turn(net[name], lambda r, n=name: net._keep(n, r)):
                net[m.to.decode()].step(m)
    assert net["c"].log.floor == 5 and net["c"].log.last_hash == net["a"].log.last_hash
    state = net.snapshots["c"].state
    assert unpack_state(state).data == b"state" * 40  # type: ignore[union-attr]
    assert unpack_state(state).configuration.voters == (b"a", b"b", b"c")  # type: ignore[union-attr]
    assert {len(c.data) for c in chunks[:-1]} == {50}
    assert len(chunks) == -(-len(state) // 50)
    assert net.applied["c"][-1:] == [b"4"], "and the rest of the log after it"


def test_a_lost_chunk_is_sent_again_from_where_the_peer_is() -> None:
    net = behind()
    net.heal()
    dropped = 0
    offsets = []
    for turn_number in range(60):
        net["a"].tick()
        for m in turn(net["a"]):
            if type(m) is SnapshotChunk:
                offsets.append(m.offset)
                if turn_number % 2:
                    dropped += 1
                    continue
            net[m.to.decode()].step(m)
        for name in "bc":
            for m in turn(net[name]):
                net[m.to.decode()].step(m)
    assert dropped > 1 and net["c"].log.last_hash == net["a"].log.last_hash
    assert offsets == sorted(offsets), "no byte that arrived is sent again"


def test_a_second_compaction_in_the_middle_starts_anew() -> None:
    net = behind()
    net.heal()
    net["a"].tick()
    for _ in range(4):
        for name in "abc":
            for m in turn(net[name]):
                net[m.to.decode()].step(m)
    assert net["c"].state.incoming is not None and len(net["c"].state.incoming.data) > 0
    net["a"].compact(6, b"newer" * 10)
    net.tick(20)
    assert net["c"].log.floor == 6


def chunk(head: SnapshotHead, data: bytes, offset: int = 0, term: int = 3) -> SnapshotChunk:
    return SnapshotChunk(b"a", b"b", term, LIFE, head, offset, data)


def snapshot(terms: list[int], data: bytes = b"x") -> Snapshot:
    last = chain(terms)[-1]
    return Snapshot(last.index, last.term, entry_hash(last), pack_state(Configuration((b"a", b"b", b"c")), data))


def test_a_snapshot_of_what_the_log_holds_commits_and_keeps_the_rest() -> None:
    raft = core(terms=[1, 1, 2, 2], options=OPTIONS)
    whole = snapshot([1, 1, 2])
    raft.step(chunk(head_of(whole), whole.state))
    assert (raft.log.committed, raft.log.last, raft.log.floor) == (3, 4, 0)
    assert raft.state.installed is None


def test_a_snapshot_replaces_a_log_that_contradicts_it() -> None:
    raft = core(terms=[1, 1, 1, 1], options=OPTIONS)
    whole = snapshot([1, 1, 2])
    raft.step(chunk(head_of(whole), whole.state))
    ready = raft.ready()
    assert ready.snapshot == whole and ready.must_sync and not ready.entries
    assert (raft.log.floor, raft.log.last) == (3, 3)


def changed(head: SnapshotHead, **fields: Any) -> SnapshotHead:
    return msgspec.structs.replace(head, **fields)


BAD = {
    "digest": ("bad-snapshot-digest", lambda h, s: (changed(h, digest=bytes(32)), s)),
    "altered": ("bad-snapshot-digest", lambda h, s: (h, s[:-1] + b"?")),
    "short hash": ("bad-hash", lambda h, s: (changed(h, hash=b"x"), s)),
    "beyond size": ("bad-chunk", lambda h, s: (h, s + b"more")),
    "huge": ("snapshot-too-large", lambda h, s: (changed(h, size=2**40), s)),
    "future term": ("bad-number", lambda h, s: (changed(h, term=99), s)),
    "no members": (
        "bad-snapshot-state",
        lambda h, s: (
            changed(h, digest=hashlib.sha256(pack_state(Configuration(), b"x")).digest(), size=len(pack_state(Configuration(), b"x"))),
            pack_state(Configuration(), b"x"),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_snapshots_are_refused_by_name(name: str) -> None:
    reason, spoil = BAD[name]
    whole = snapshot([1, 1, 2])
    raft = core(terms=[1], options=OPTIONS)
    raft.step(chunk(*spoil(head_of(whole), whole.state)))
    assert raft.counters[reason] == 1
    assert (raft.log.floor, raft.log.last) == (0, 1)


def test_a_snapshot_that_contradicts_its_place_in_the_chain() -> None:
    raft = core(terms=[1, 1, 2], options=OPTIONS)
    whole = snapshot([1, 1, 2])
    forged = Snapshot(whole.index, whole.term, bytes(32), whole.state)
    raft.step(chunk(head_of(forged), forged.state))
    assert raft.counters["forked-chain"] == 1 and raft.log.last == 3


def test_chunks_out_of_order_and_twice() -> None:
    whole = snapshot([1, 1, 2], b"y" * 100)
    head, size = head_of(whole), len(whole.state)
    raft = core(terms=[1], options=OPTIONS)
    parts = [(at, whole.state[at : at + 40]) for at in range(0, size, 40)]
    raft.step(chunk(head, parts[1][1], parts[1][0]))
    assert of(SnapshotReply, turn(raft))[-1].offset == 0
    for at, data in (parts[0], parts[0], parts[2], *parts[1:]):
        raft.step(chunk(head, data, at))
    assert raft.log.floor == 3


@pytest.mark.parametrize(("index", "why"), [(9, "not-applied"), (0, "already-compacted")])
def test_only_what_is_applied_is_compacted(index: int, why: str) -> None:
    net = cluster(options=OPTIONS)
    with pytest.raises(ArgumentError, match=why):
        net["a"].compact(index, b"")


def test_a_core_starts_from_its_snapshot() -> None:
    net = behind()
    kept = net["a"].state.snapshot
    assert kept is not None
    entries = net["a"].log.entries
    again = core("a", "", entries=entries, snapshot=kept, commit=6)
    assert again.configuration.voters == (b"a", b"b", b"c")
    assert (again.log.floor, again.log.last, again.log.committed) == (5, 6, 6)
    assert [e.index for e in again.ready().committed] == [6]


def test_changes_before_the_floor_live_on_in_the_snapshot() -> None:
    net = cluster(options=OPTIONS)
    net["a"].propose(b"+d")
    net.run()
    net["a"].compact(2, b"")
    state = unpack_state(net["a"].state.snapshot.state)  # type: ignore[union-attr]
    assert state is not None and state.configuration.learners == (b"d",)
    assert net["a"].configuration.learners == (b"d",)


def test_a_snapshot_without_members_is_no_start() -> None:
    with pytest.raises(ArgumentError, match="no configuration"):
        core(snapshot=Snapshot(3, 1, bytes(32), b"?"))
